"""Snapshots are made safe beside the work: a runner captures between two records, and handles on while this saves.

Saving waits for Kafka three times, some 20 ms in all, and packs; with 100,000 series it takes seconds. None of
this needs the thread that handles records, only the capture does. One is saved at a time, so that what is kept in
memory for it is one snapshot of each instance.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future

from tidewarden.bus.port import Bus, TopicPartition
from tidewarden.clock import Clock
from tidewarden.topics import StreamTopics
from tidewarden_services.instances import Captured, Instance, output_ends
from tidewarden_services.state import StateStore


class Saver:
    """Saves what instances of one service know. Called by the runner's thread only.

    Args:
        name: of the service.
        stream: names the topics.
        reads: the service's input topic.
        bus: synced before anything is saved.
        state: where snapshots go.
        clock: measures.
    """

    def __init__(
        self, name: str, *, stream: StreamTopics, reads: str, bus: Bus, state: StateStore, clock: Clock
    ) -> None:
        self.took_s = 0.0  # the newest: from the capture until it was saved
        self._stream = stream
        self._reads = reads
        self._bus = bus
        self._state = state
        self._clock = clock
        self._name = f"{name}.saving"
        self._under_way: Future[dict[TopicPartition, int]] | None = None
        self._ends: Mapping[str, int] | None = None

    def begin(self, instances: Collection[Instance]) -> None:
        """Capture, and save beside the work, unless one is under way; `finished` tells when it is done.

        The snapshots name ends of the output topics that were asked when the one before had been saved. That is
        earlier than the capture, so a restart looks a little further back than it need, never too little.
        """
        if self._under_way is not None:
            return
        began = self._clock.monotonic()
        if self._ends is None:
            self._ends = self._ask_ends()
        captured = [instance.capture(self._ends) for instance in instances]
        self._under_way = Future()
        # A thread that is left behind by its process: what it waits for may be a broker that does not come back.
        work = threading.Thread(
            target=self._beside, args=(captured, began, self._under_way), name=self._name, daemon=True
        )
        work.start()

    def finished(self, *, wait: bool = False) -> dict[TopicPartition, int] | None:
        """Once for each that was begun: the offsets to commit; None while it is under way, or there is none.

        Raises what saving has raised. ``wait`` waits for the end, as long as a broker is away.
        """
        if self._under_way is None or not (wait or self._under_way.done()):
            return None
        under_way, self._under_way = self._under_way, None
        return under_way.result()

    def save(self, instances: Collection[Instance]) -> dict[TopicPartition, int]:
        """Capture and save now; the offsets to commit. One that was under way has been waited for."""
        assert self._under_way is None, "two at a time would write to the same slots"
        if not instances:
            return {}
        began = self._clock.monotonic()
        self._bus.sync()
        self._ends = self._ask_ends()
        return self._save([instance.capture(self._ends) for instance in instances], began)

    def _beside(self, captured: list[Captured], began: float, under_way: Future[dict[TopicPartition, int]]) -> None:
        try:
            offsets = self._save(captured, began)
            self._ends = self._ask_ends()
        except BaseException as error:  # whatever it is, `finished` raises it in the runner's thread
            under_way.set_exception(error)
        else:
            under_way.set_result(offsets)

    def _save(self, captured: list[Captured], began: float) -> dict[TopicPartition, int]:
        self._bus.sync()  # whatever was published before the capture is safe before a snapshot says so
        # All at once: each question to Kafka and each wait for its answer is one for all instances.
        self._state.save_all({name: state for one in captured for name, state in one.states.items()})
        self.took_s = self._clock.monotonic() - began
        return {place: offset for one in captured for place, offset in one.offsets.items()}

    def _ask_ends(self) -> dict[str, int]:
        return output_ends(self._bus, self._stream, self._reads)
