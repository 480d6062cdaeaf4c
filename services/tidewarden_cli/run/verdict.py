"""What becomes of a simulation once it has played: wait until it is judged and stored, evaluate, say so.

Nothing is guessed from time: a detector is through when its group has committed every record of readings
that there was at the end of the play (it commits what its snapshots contain), and the archive when the
store's own record of offsets covers every score and anomaly that there was then.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec
import structlog

from tidewarden.bus.port import TopicPartition
from tidewarden.clock import Clock
from tidewarden.evaluate.report import Evaluation
from tidewarden.store.port import Store, StoreError
from tidewarden.topics import StreamTopics
from tidewarden_cli.run.pulse import Pulses

LOOK_EVERY_S = 1.0
# A broker, a store or a pod may be away for a minute or two and come back; what has not moved for longer than
# that needs a person. The Job then starts the process again, which goes on waiting here.
NO_PROGRESS_S = 300.0
JUDGE_EVERY_S = 60.0  # an endless simulation
JUDGED_MS = 86_400_000  # of an endless simulation, the last day that it played

log = structlog.get_logger()


class Positions(Protocol):
    """What is asked of the bus about its groups and ends."""

    def ends(self, topics: list[str]) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will get."""

    def committed(self, group: str, topics: list[str]) -> dict[TopicPartition, int]:
        """How far a group has come."""


class NoProgressError(Exception):
    """Nothing has moved for too long: says who is waited for, how far it is, and what to look at."""


class Through:
    """Waits until detectors and archive are through with what a stream's topics hold now.

    Args:
        topics: of the stream.
        groups: detector → consumer group of its service.
        positions: of the bus.
        store: what the archive writes to.
        clock: paces the looks.
        away: errors that mean "ask again later".
    """

    def __init__(
        self,
        topics: StreamTopics,
        groups: Mapping[str, str],
        positions: Positions,
        store: Store,
        clock: Clock,
        away: tuple[type[Exception], ...],
    ) -> None:
        self._topics = topics
        self._groups = groups
        self._positions = positions
        self._store = store
        self._clock = clock
        self._away = away
        self._say: Callable[[str], None] = lambda _: None

    def wait(self, stop: threading.Event, say: Callable[[str], None]) -> bool:
        """True when everything is through, False when told to stop; NoProgressError when nothing moves.

        ``say`` is told what is waited for.
        """
        self._say = say
        readings = self._patiently(stop, lambda: self._positions.ends([self._topics.name("readings")]))
        if readings is None:
            return False
        for detector, group in self._groups.items():
            who = f"AnomalyDetector/{detector}"
            remedy = "see whether it is paused, and the logs of its pods"
            if not self._reached(stop, who, remedy, readings, partial(self._committed, group)):
                return False
        # What the detectors have said of these readings is on the topics by now: they commit what they have published.
        names = [self._topics.name("readings"), self._topics.name("scores"), self._topics.name("anomalies")]
        written = self._patiently(stop, lambda: self._positions.ends(names))
        if written is None:
            return False
        remedy = "see the logs of its pod, and whether Elasticsearch takes writes"
        who = f"the archive of MetricStream/{self._topics.stream}"
        return self._reached(stop, who, remedy, written, lambda: self._store.offsets(self._topics.stream))

    def _committed(self, group: str) -> dict[TopicPartition, int]:
        return self._positions.committed(group, [self._topics.name("readings")])

    def _reached(
        self,
        stop: threading.Event,
        who: str,
        remedy: str,
        ends: Mapping[TopicPartition, int],
        ask: Callable[[], Mapping[TopicPartition, int]],
    ) -> bool:
        best, moved_at = -1, self._clock.monotonic()
        total = sum(ends.values())
        while not stop.is_set():
            reached = self._ask_once(ask)
            if reached is not None:
                done = sum(min(end, reached.get(place, 0)) for place, end in ends.items())
                if done == total:
                    return True
                self._say(f"waiting for {who}: {done} of {total} records")
                if done > best:
                    best, moved_at = done, self._clock.monotonic()
            if self._clock.monotonic() - moved_at > NO_PROGRESS_S:
                raise NoProgressError(
                    f"{who} has not got past {max(best, 0)} of {total} records for {NO_PROGRESS_S:.0f} s: {remedy}"
                )
            self._clock.wait(stop, LOOK_EVERY_S)
        return False

    def _patiently(
        self, stop: threading.Event, ask: Callable[[], dict[TopicPartition, int]]
    ) -> dict[TopicPartition, int] | None:
        began = self._clock.monotonic()
        while not stop.is_set():
            answer = self._ask_once(ask)
            if answer is not None:
                return dict(answer)
            if self._clock.monotonic() - began > NO_PROGRESS_S:
                raise NoProgressError(f"the bus has not answered for {NO_PROGRESS_S:.0f} s: see whether it runs")
            self._clock.wait(stop, LOOK_EVERY_S)
        return None

    def _ask_once(self, ask: Callable[[], Mapping[TopicPartition, int]]) -> Mapping[TopicPartition, int] | None:
        try:
            return ask()
        except self._away as error:
            self._say(str(error))
            return None


class Verdict:
    """The stage of `tidewarden run simulate` that begins when the play ends.

    Args:
        finished: whether everything has been played.
        failed: what ended the play before its end, if anything did.
        through: waits for detectors and archive.
        evaluate: the figures of what is stored; of an endless simulation, from that time on (ms).
        progress: readings played, and in all (None: endless).
        newest_ms: newest timestamp played, ms since the epoch.
        post: puts facts of the simulation on the board.
        finish: ends the process with an exit code and last words.
        clock: paces the looks.
        pulses: told each time it looks.
    """

    def __init__(
        self,
        *,
        finished: Callable[[], bool],
        failed: Callable[[], str | None],
        through: Through,
        evaluate: Callable[[int | None], list[Evaluation]],
        progress: Callable[[], tuple[int, int | None]],
        newest_ms: Callable[[], int | None],
        post: Callable[..., None],
        finish: Callable[[int, dict[str, Any]], None],
        clock: Clock,
        pulses: Pulses,
    ) -> None:
        self._finished = finished
        self._failed = failed
        self._through = through
        self._evaluate = evaluate
        self._progress = progress
        self._newest_ms = newest_ms
        self._post = post
        self._finish = finish
        self._clock = clock
        self._pulses = pulses
        self._results: list[Any] = []

    def run(self, stop: threading.Event) -> None:
        """Follow the play, then judge it."""
        endless = self._progress()[1] is None
        judge_at = self._clock.monotonic() + JUDGE_EVERY_S
        while not stop.is_set() and not self._finished() and self._failed() is None:
            self._tell("running")
            self._clock.wait(stop, LOOK_EVERY_S)
            if endless and self._clock.monotonic() >= judge_at:
                self._judge_so_far()
                judge_at = self._clock.monotonic() + JUDGE_EVERY_S
        if stop.is_set():
            self._tell("stopped")
            return
        trouble = self._failed()
        if trouble is not None:
            self._end(1, trouble)
            return
        try:
            if not self._through.wait(stop, self._say):
                return
        except NoProgressError as error:
            self._end(1, str(error))
            return
        self._results = [_rounded(result) for result in self._evaluate(None)]
        played, total = self._progress()
        self._tell("finished")
        log.info("evaluated", evaluation=self._results)
        self._finish(0, {"played": played, "total": total, "evaluation": self._results})

    def _judge_so_far(self) -> None:
        newest = self._newest_ms()
        if newest is None:
            return
        try:
            self._results = [_rounded(result) for result in self._evaluate(newest - JUDGED_MS)]
        except StoreError as error:  # the next time is a minute away
            log.warning("cannot evaluate now", reason=str(error))

    def _say(self, message: str) -> None:
        self._tell("evaluating", message)

    def _end(self, code: int, message: str) -> None:
        self._tell("failed", message)
        log.error("the simulation cannot be judged", reason=message)
        played, total = self._progress()
        self._finish(code, {"error": message, "played": played, "total": total})

    def _tell(self, state: str, message: str = "") -> None:
        self._pulses.mine().beat(self._clock.monotonic())
        played, total = self._progress()
        self._post(state=state, message=message, played=played, total=total, evaluation=self._results)


def _rounded(result: Evaluation) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(result)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in facts.items()}
