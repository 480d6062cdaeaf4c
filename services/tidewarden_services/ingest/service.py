"""Ingest: one source, validated and published, exactly once across kills.

Order of work for each batch, and why a kill at any point changes nothing:

1. validate; this changes the validator's memory and the counts;
2. publish the rejections, then the accepted readings, one record a partition, each with the batch's
   position in its headers; where there are several partitions, also with the time of each tenant, and where that
   has moved on by an interval, those partitions that got no reading get an empty frame with it (`times.py`);
3. tell the source how its batch fared (a push source answers its clients now, not earlier);
4. about once a second save position, validator, counts and what was published, together.

A new process restores (4) and asks the source for everything after that position. Batches that the
topics already hold, known by the position in the newest record of this producer since (4), are validated again,
which brings memory and counts to where they were, but not published again. A source that cuts its batches
by chance is told where those ended that the topics hold. The first save comes before the first publish, so
the instant against which "the future" is judged is the same in every run.

When a source has ended, every partition is told that its time is past the last reading, so that nobody
waits for more. That record has a producer name of its own: it answers no position.

A push source has no positions and cannot repeat itself: what it published after the last save is read
back from the topic instead, and partitions that a kill kept from hearing the time of it are told now.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
import structlog

from tidewarden.bus.port import Bus, BusClosedError, Record, TopicPartition
from tidewarden.clock import Clock
from tidewarden.events import Rejection
from tidewarden.frames import Frame, IntArray, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.sources import Batch, CuttingSource, ReportingSource, Source, SourceError
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Purpose, StreamTopics, partition_of
from tidewarden_services.ingest.statistics import SourceStatistics
from tidewarden_services.ingest.times import NEVER, TenantTimes
from tidewarden_services.ingest.validate import Rejections, Validator, Verdict

SAVE_EVERY_S = 1.0  # what a restart has to validate again at most
CATCH_UP_RECORDS = 64  # read back at a time

log = structlog.get_logger()


@runtime_checkable
class AnsweringSource(Protocol):
    """A source that owes somebody an answer: a push source."""

    def settled(self, batch: Batch, verdict: Verdict, rejections: list[Rejection]) -> None:
        """``batch`` is on the bus: this is what became of its readings."""

    def idle(self) -> bool:
        """Whether nothing is waiting to be taken in."""


class IngestState(msgspec.Struct, kw_only=True):
    """What is saved about once a second; all of it belongs to the same moment."""

    version: int
    position: str | None
    began_ms: int  # when the source was first started: "now" for a source that can be replayed
    validator: bytes
    counts: dict[str, Any]
    published: dict[str, str]  # topic/partition → position of the newest record there
    ends: dict[str, int]  # topic/partition → where to look for what was published later
    newest: dict[str, int] = {}  # tenant → ms, see `TenantTimes`
    told: dict[str, int] = {}
    ended_after: str | None = None  # position after which every partition was told that the source has ended


class IngestService:
    """Runs one source of a stream in the calling thread.

    Args:
        stream: the contract that readings are held to.
        source: where they come from.
        bus: where they go; its topics must exist.
        topics: their names and partitions.
        table: the process's series.
        clock: for "the future", lag and pacing.
        telemetry: counters and the status board (section ``sources``, name ``stream/source``).
        load_state: the bytes given to ``save_state`` last, or None.
        save_state: keeps bytes; called about once a second and at the end.
        sync: forces the bus to the disk before each save, where there is one.
        before_answer: called before whoever pushed a batch is told that it is on the bus; for a bus whose
            `publish` returns earlier than that.
    """

    def __init__(
        self,
        stream: MetricStream,
        source: Source,
        bus: Bus,
        topics: StreamTopics,
        table: SeriesTable,
        clock: Clock,
        telemetry: Telemetry,
        load_state: Callable[[], bytes | None],
        save_state: Callable[[bytes], None],
        sync: Callable[[], None] = lambda: None,
        before_answer: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = f"ingest.{stream.metadata.name}.{source.name}"
        self.error: str | None = None
        self._stream = stream
        self._source = source
        self._bus = bus
        self._topics = topics
        self._table = table
        self._clock = clock
        self._errors = telemetry.errors
        self._load_state = load_state
        self._save_state = save_state
        self._sync = sync
        self._before_answer = before_answer
        # A simulation may run ahead of the clock; whatever else does has its clock wrong.
        self._validator = Validator(stream, table, clock, check_future=source.kind != "simulation")
        self._rejections = Rejections(stream.metadata.name, source.name)
        self._statistics = SourceStatistics(
            stream.metadata.name, source.name, source.kind, telemetry, clock, interval_ms=stream.spec.interval
        )
        self._position: str | None = None
        self._began_ms = self._run_ms = clock.now_ms()
        self._sequence = 0
        self._published: dict[TopicPartition, str] = {}
        self._skip_to: dict[TopicPartition, str] = {}
        self._looked_from: dict[str, int] = {}
        self._times = TenantTimes(stream.spec.interval)
        self._ended_after: str | None = None
        self._partition_of_node: IntArray = np.zeros(0, np.int32)
        self._next_save = 0.0
        self._ended = False

    @property
    def finished(self) -> bool:
        """Whether nothing more will come: the source has ended, or is a push source with nothing waiting."""
        return self._ended or (isinstance(self._source, AnsweringSource) and self._source.idle())

    def stats(self) -> dict[str, Any]:
        """Counts since the source's beginning, as on the status board."""
        return self._statistics.facts()

    def run(self, stop: threading.Event) -> None:
        """Take the source in until it ends or ``stop`` is set."""
        if self._stream.spec.paused:
            self._say("paused", "the stream is paused: set spec.paused to false to go on")
            stop.wait()
            return
        self._restore()
        self._save()
        self._say("running")
        if isinstance(self._source, CuttingSource):
            self._source.cut_at(sorted(set(self._skip_to.values())))
        if isinstance(self._source, ReportingSource):
            self._source.report_to(self._report)
        batches = self._source.batches(self._position, stop)
        try:
            self._take_all(batches, stop)
        except SourceError as error:
            self._save()
            self._fail(error)
        except BusClosedError:
            log.debug("bus closed", service=self.name)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            _close(batches)  # a push source refuses now what it can no longer take in

    def _take_all(self, batches: Iterator[Batch], stop: threading.Event) -> None:
        for batch in batches:
            self._take(batch)
            self._statistics.post()
            begins = batch.position is not None and not len(batch.frame) and not batch.refused
            if begins or self._clock.monotonic() >= self._next_save:
                self._save()
            if stop.is_set():
                break
        else:
            self._ended = not stop.is_set()
            if self._ended and not self._skip_to:
                self._publish_end()
        if self._ended and self._skip_to:
            place, position = next(iter(self._skip_to.items()))
            raise SourceError(
                f"source {self._source.name!r} ended before position {position!r}, up to which {place.topic} was "
                "already filled: it is no longer the same source, so give it another name"
            )
        self._save()
        self._say("finished" if self._ended else "stopped")

    def _take(self, batch: Batch) -> None:
        now_ms = self._clock.now_ms()
        replayable = batch.position is not None
        verdict = self._validator.check(batch.frame, self._began_ms if replayable else now_ms)
        place = batch.position if batch.position is not None else f"{self._run_ms}.{self._sequence}"
        self._sequence += 1
        rejections = self._rejections.of(batch, verdict, self._validator, place, now_ms)
        published = self._publish_all(batch, verdict.accepted, rejections)
        self._statistics.note(verdict, Counter(item.reason for item in rejections), again=not published)
        if batch.position is not None:
            self._position = batch.position
        if isinstance(self._source, AnsweringSource):
            self._before_answer()
            self._source.settled(batch, verdict, rejections)

    def _publish_all(self, batch: Batch, accepted: Frame, rejections: list[Rejection]) -> bool:
        """Publish what the topics do not hold yet; False where they held all of it."""
        waiting = len(self._skip_to)
        headers = {"producer": self.name, "source": self._source.name, "arrived": repr(batch.arrived)}
        if batch.position is not None:
            headers["position"] = batch.position
        published = False
        if rejections:
            published |= self._publish("rejected", 0, rejections, headers)
        if len(accepted):
            parts = self._parts(accepted)
            if self._topics.partitions > 1:
                if self._times.observe(accepted):
                    nothing = Frame.empty(self._table)
                    parts = {p: parts.get(p, nothing) for p in range(self._topics.partitions)}
                headers["time"] = self._times.header()
            for partition, frame in parts.items():
                published |= self._publish("readings", partition, frame, headers)
        for place in [place for place, position in self._skip_to.items() if position == batch.position]:
            del self._skip_to[place]  # its readings there came in an earlier batch, where this run cut differently
        return published or waiting == 0

    def _publish_end(self) -> None:
        """Tell every partition that nothing older than a millisecond from now will come of this source."""
        if self._topics.partitions == 1 or not self._times.newest:
            return
        readings, producer, position = self._topics.name("readings"), f"{self.name}.end", self._position or ""
        if position == self._ended_after:
            return
        headers = {"producer": producer, "source": self._source.name, "time": self._times.header(1), "ended": position}
        for partition in range(self._topics.partitions):
            since = self._looked_from.get(f"{readings}/{partition}", 0)
            told = self._bus.last(readings, partition, producer, since)
            if told is None or told.headers.get("ended") != position:
                nothing = Frame.empty(self._table)
                self._bus.publish(readings, nothing, key=self._source.name, partition=partition, headers=headers)
        self._ended_after = position

    def _publish(
        self, purpose: Purpose, partition: int, value: Frame | list[Rejection], headers: dict[str, str]
    ) -> bool:
        place = TopicPartition(self._topics.name(purpose), partition)
        position = headers.get("position")
        if place in self._skip_to:
            if self._skip_to[place] == position:
                del self._skip_to[place]
            return False
        self._bus.publish(place.topic, value, key=self._source.name, partition=partition, headers=headers)
        if position is not None:
            self._published[place] = position
        return True

    def _parts(self, frame: Frame) -> dict[int, Frame]:
        """The frame cut by partition, so that a node's readings stay together and in order."""
        partitions = self._topics.partitions
        if partitions == 1:
            return {0: frame}
        nodes = self._table.nodes
        known = len(self._partition_of_node)
        if len(nodes) > known:
            new = [partition_of(nodes[node], partitions) for node in range(known, len(nodes))]
            self._partition_of_node = np.concatenate([self._partition_of_node, np.asarray(new, np.int32)])
        of_row = self._partition_of_node[self._table.node_of[frame.series]]
        return {int(p): frame.take(of_row == p) for p in np.unique(of_row)}

    # --- across restarts -------------------------------------------------------------------------

    def _places(self) -> list[TopicPartition]:
        readings = self._topics.name("readings")
        return [
            TopicPartition(self._topics.name("rejected"), 0),
            *(TopicPartition(readings, partition) for partition in range(self._topics.partitions)),
        ]

    def _restore(self) -> None:
        saved = self._load_state()
        state = None if saved is None else _decode(saved)
        if state is None:  # the first save comes before the first publish, so nothing of ours is on the topics
            self._looked_from = self._ends()
            return
        self._looked_from = state.ends
        for place in self._places():
            newest = self._bus.last(place.topic, place.partition, self.name, state.ends.get(_text(place), 0))
            position = None if newest is None else newest.headers.get("position")
            before = state.published.get(_text(place))
            if position is None and before is not None:
                self._published[place] = before
            elif position is not None:
                self._published[place] = position
                if position != before:
                    self._skip_to[place] = position
        self._validator.restore(state.validator)
        self._statistics.load(state.counts)
        self._position = state.position
        self._began_ms = state.began_ms
        self._times.newest, self._times.told = state.newest, state.told
        self._ended_after = state.ended_after
        if state.position is None:
            self._catch_up(state)
        log.info("restored", service=self.name, position=self._position, published_ahead=bool(self._skip_to))

    def _catch_up(self, state: IngestState) -> None:
        """Read back what a push source published after its last save; what has a position is left to the source."""
        topic = self._topics.name("readings")
        ends = self._bus.ends(topic)
        behind = {place: state.ends.get(_text(place), end) for place, end in ends.items()}
        if all(behind[place] >= end for place, end in ends.items()):
            return
        heard = {partition: dict(state.told) for partition in range(self._topics.partitions)}
        consumer = self._bus.consumer([topic], f"{self.name}.catch-up")
        try:
            consumer.seek(behind)
            while consumer.lag() > 0:
                for record in consumer.poll(CATCH_UP_RECORDS, 0.1):
                    if record.headers.get("producer") == self.name and "position" not in record.headers:
                        heard.setdefault(record.partition, {}).update(self._again(record))
        finally:
            consumer.close()
        self._tell_those_behind(heard)

    def _tell_those_behind(self, heard: dict[int, dict[str, int]]) -> None:
        """Complete a batch that a kill cut off between partitions: who sends it again sends only duplicates to some."""
        told = self._times.told
        headers = {"producer": self.name, "source": self._source.name, "time": msgspec.json.encode(told).decode()}
        for partition, times in heard.items():
            if any(times.get(tenant, NEVER) < at for tenant, at in told.items()):
                nothing = Frame.empty(self._table)
                self._bus.publish(
                    self._topics.name("readings"), nothing, key=self._source.name, partition=partition, headers=headers
                )

    def _again(self, record: Record) -> dict[str, int]:
        """Take in what an earlier process has published already; the times that it told its partition."""
        times: dict[str, int] = {}
        if "time" in record.headers:
            times = msgspec.json.decode(record.headers["time"], type=dict[str, int])
            self._times.hear(times)
        if isinstance(record.value, Frame) and len(record.value):
            self._validator.advance(record.value)
            self._statistics.accepted += len(record.value)
            self._statistics.saw(int(record.value.timestamp.max()))
        return times

    def _ends(self) -> dict[str, int]:
        topics = {place.topic for place in self._places()}
        return {_text(place): end for place, end in self._bus.ends(*topics).items()}

    def _save(self) -> None:
        self._sync()
        # While records are being skipped, the topics are ahead of this state: say so, by leaving them out.
        published = {_text(place): at for place, at in self._published.items() if place not in self._skip_to}
        state = IngestState(
            version=1,
            position=self._position,
            began_ms=self._began_ms,
            validator=self._validator.snapshot(),
            counts=self._statistics.save(),
            published=published,
            # Where records are still being skipped, whoever looks for them later must look from as far back as we did.
            ends=self._ends() | {_text(place): self._looked_from.get(_text(place), 0) for place in self._skip_to},
            newest=self._times.newest,
            told=self._times.told,
            ended_after=self._ended_after,
        )
        self._save_state(msgspec.msgpack.encode(state))
        self._next_save = self._clock.monotonic() + SAVE_EVERY_S

    def _say(self, state: str, message: str = "") -> None:
        self._statistics.state = state
        self._statistics.message = message
        self._statistics.post(force=True)

    def _report(self, state: str, message: str) -> None:
        """What the source says of itself between batches; the lag grows meanwhile, and is posted too."""
        changed = (state, message) != (self._statistics.state, self._statistics.message)
        if changed and message:
            log.warning("source says", service=self.name, state=state, message=message)
        self._statistics.state, self._statistics.message = state, message
        self._statistics.post(force=changed)

    def _fail(self, error: BaseException) -> None:
        self.error = str(error)
        self._ended = True
        self._errors.labels(self.name, type(error).__name__).inc()
        self._say("failed", self.error)
        log.error("source failed", service=self.name, error=self.error)


def _decode(saved: bytes) -> IngestState:
    try:
        state = msgspec.msgpack.decode(saved, type=IngestState)
    except msgspec.DecodeError as error:
        raise ValueError(f"this is no ingest state ({error}): remove it to begin anew") from None
    if state.version != 1:
        raise ValueError(f"ingest state has version {state.version}, this release reads 1: upgrade first")
    return state


def _text(place: TopicPartition) -> str:
    return f"{place.topic}/{place.partition}"


def _close(batches: Iterator[Batch]) -> None:
    close = getattr(batches, "close", None)  # generators have it, plain iterators need not
    if close is not None:
        close()
