"""The runtime: poll → handle → publish → sync → snapshot → commit, once, for every service.

A runner has an instance of its service for every partition of the input that the bus assigns to it
(`instances.py`). Order of a round, and why a kill at any point changes nothing:

1. poll records; the bus may assign partitions first, or take some away;
2. before an instance's first record ever: save a snapshot, which says from where on its outputs lie;
3. for each record: where several instances wrote it, merge (`merge.py`); then `Service.handle`, then publish
   each output with the headers ``producer`` (the instance, ``<service>/<partition>``), ``input``
   (topic/partition/offset of the record it answers), ``part`` (its number among the answers in that partition,
   where it is not 0) and ``time`` (how far the instance's time of this key has come);
4. every few seconds, between two records: capture each instance's state, with the offsets that it contains, and with
   ends of the output topics that were asked earlier (the next two steps happen beside the work, `saving.py`);
5. sync the bus: what was published before the capture is safe;
6. save what was captured as the instances' snapshots;
7. commit these offsets to the bus, which may now forget what came before them.

A new process restores the snapshot and begins at its offset (6), so every record after it is handled
again and gives the same outputs (3). Those that the topics already hold are recognised by ``input``
and ``part`` of the newest record of this producer, looked for from the snapshot's ends on, and left out:
nothing lost, nothing doubled. Killed between 6 and 7: the commit only lets go of old records, so a late
one is harmless.

A partition that is taken away goes through 4 to 7 before it is let go; one that is lost is let go at
once, because another process may already be at work on it.

A record that cannot be read goes to ``rejected``. The runners do this, not the sink: they publish with
exactness, so that everybody who reads that topic hears of it; several detectors give the record the same id,
and the store keeps one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping

import structlog

from tidewarden.bus.port import Bus, BusClosedError, Consumer, Record, TopicPartition
from tidewarden.clock import Clock
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Purpose, StreamTopics
from tidewarden_services.contract import Service
from tidewarden_services.instances import Instance
from tidewarden_services.saving import Saver
from tidewarden_services.state import StateStore

POLL_RECORDS = 64  # at 10,000 readings a record about a second of work: a stop is never far
POLL_TIMEOUT_S = 0.2
SNAPSHOT_EVERY_S = 2.0  # what a restart has to replay at most, unless snapshots are large
PATIENCE_S = 30.0  # an instance that moves to another pod is back by then
SNAPSHOT_SHARE = 0.05  # of the time may go into snapshots: a slow one is taken more rarely

log = structlog.get_logger()


class Runner:
    """Runs one service in the calling thread until it is told to stop; the bus's `Assignment`.

    Args:
        name: of the service, e.g. ``detect.shop-latency``; also the consumer group.
        reads: its input topic.
        make_service: a fresh service for the partition of this number.
        stream: names the topics.
        bus: where its inputs come from and its outputs go to.
        state: where its snapshots go.
        telemetry: for its counters.
        clock: for durations.
        on_published: called with the record handled after its outputs are on the bus.
        member: name of this process in the group, the same after a restart.
    """

    def __init__(
        self,
        name: str,
        reads: Purpose,
        make_service: Callable[[int], Service],
        *,
        stream: StreamTopics,
        bus: Bus,
        state: StateStore,
        telemetry: Telemetry,
        clock: Clock,
        on_published: Callable[[Record], None] = lambda _: None,
        snapshot_every_s: float = SNAPSHOT_EVERY_S,
        member: str | None = None,
    ) -> None:
        self.name = name
        self._make_service = make_service
        self._stream = stream
        self._reads = stream.name(reads)
        self._bus = bus
        self._state = state
        self._telemetry = telemetry
        self._clock = clock
        self._on_published = on_published
        self._snapshot_every_s = snapshot_every_s
        self._handled = telemetry.handled.labels(name)
        self._lag = telemetry.lag.labels(name)
        self._waiting = telemetry.waiting.labels(name)
        self._saved = telemetry.snapshot.labels(name)
        self._save_took = telemetry.snapshot_seconds.labels(name)
        self._saver = Saver(name, stream=stream, reads=self._reads, bus=bus, state=state, clock=clock)
        self._next_snapshot = clock.monotonic() + snapshot_every_s
        self._instances: dict[TopicPartition, Instance] = {}
        self._missing: dict[str, float] = {}  # instance that is waited for → since when
        self._late: list[str] = []
        self._busy = False
        # Attached here, not in run(): from now on nothing that is published can be missed.
        self._consumer: Consumer = bus.consumer([self._reads], name, member=member, assignment=self)

    def idle(self) -> bool:
        """Whether everything published so far has been handled."""
        return not self._busy and self._consumer.lag() == 0

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then take a last snapshot."""
        try:
            while not stop.is_set():
                self._busy = True
                records = self._consumer.poll(POLL_RECORDS, 0.0)
                if not records:
                    self._busy = False
                    records = self._consumer.poll(POLL_RECORDS, POLL_TIMEOUT_S)
                    self._busy = bool(records)
                self._lag.set(self._consumer.known_lag() + len(records))  # what is in hand is not dealt with yet
                for record in records:
                    self._handle(record)
                self._lag.set(self._consumer.known_lag())
                self._commit_saved()
                if self._clock.monotonic() >= self._next_snapshot:
                    self._saver.begin(list(self._instances.values()))
            self._snapshot(self._instances)
        except BusClosedError:
            log.debug("bus closed", service=self.name)
        finally:
            self._busy = False
            self._consumer.close()

    # --- the assignment, called by `poll` -----------------------------------------------------

    def assigned(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Make an instance for each partition, restored; where to begin in those that have a snapshot."""
        begin: dict[TopicPartition, int] = {}
        for place in sorted(places):
            instance = Instance(
                self.name,
                place,
                self._make_service(place.partition),
                stream=self._stream,
                bus=self._bus,
                state=self._state,
                clock=self._clock,
            )
            offset = instance.restore()
            if offset is not None:
                begin[place] = offset
            self._instances[place] = instance
        return begin

    def revoked(self, places: Collection[TopicPartition]) -> None:
        """Save what these partitions' instances know, and let go of them."""
        self._snapshot(places)
        self.lost(places)

    def lost(self, places: Collection[TopicPartition]) -> None:
        """Let go of these partitions' instances without a word."""
        for place in places:
            instance = self._instances.pop(place, None)
            if instance is not None:
                instance.close()
        self._commit_saved(wait=True)  # whoever has them now must not find a snapshot of ours written over its own

    # --- a round --------------------------------------------------------------------------------

    def _handle(self, record: Record) -> None:
        instance = self._instances[record.place]
        refused = instance.refused
        instance.handle(record)
        if instance.refused > refused:
            self._telemetry.errors.labels(self.name, "Undecodable").inc()
        self._handled.inc()
        self._on_published(record)

    def _commit_saved(self, *, wait: bool = False) -> None:
        """Commit what the snapshot begun last contains, once it is saved."""
        offsets = self._saver.finished(wait=wait)
        if offsets is not None:
            self._saved_as(offsets)

    def _snapshot(self, places: Iterable[TopicPartition]) -> None:
        """Save and commit what these partitions' instances know now."""
        self._commit_saved(wait=True)
        self._saved_as(self._saver.save([self._instances[place] for place in places if place in self._instances]))

    def _saved_as(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Snapshots that contain everything before these offsets are saved."""
        mine = {place: offset for place, offset in offsets.items() if place in self._instances}
        if mine:
            self._consumer.commit(mine)
        took_s = self._saver.took_s
        self._next_snapshot = self._clock.monotonic() + max(self._snapshot_every_s, took_s / SNAPSHOT_SHARE)
        self._saved.set(self._clock.now_ms() / 1000)
        self._save_took.set(took_s)
        self._tell()

    def _tell(self) -> None:
        """Say who holds up the merge, on the board and, where it lasts, in the log."""
        waiting = [instance.waiting() for instance in self._instances.values()]
        records, rows = sum(w.records for w in waiting), sum(w.rows for w in waiting)
        missing = sorted({name for w in waiting for name in w.missing})
        self._waiting.set(records)
        self._telemetry.board.post("services", self.name, held_records=records, held_rows=rows, waiting_for=missing)
        now = self._clock.monotonic()
        late = [name for name in missing if now - self._missing.get(name, now) >= PATIENCE_S]
        if late and late != self._late:
            log.warning("results are waiting for a detector", service=self.name, waiting_for=late, held_records=records)
        self._missing = {name: self._missing.get(name, now) for name in missing}
        self._late = late
