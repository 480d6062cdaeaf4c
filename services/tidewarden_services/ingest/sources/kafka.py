"""The `kafka` source: a topic of JSON that somebody else writes, a reading or a node's metrics in each message.

The position is the offset of the next message of every partition. A batch is what one poll brings, so its
end is chance; after a crash the source is told where the batches ended that were published, and ends its
own there (`cut_at`). Within a batch messages are ordered by partition and offset. A replay thus validates
the same readings in the same order, as long as a series stays in one partition, which is what producers
that key by node or series see to.

A topic that is not there and brokers that are away are waited for. New partitions are read from their beginning.
"""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Literal

import structlog

from tidewarden.bus.kafka.raw import MAX_MESSAGES, KafkaAwayError, RawConsumer, RawMessages
from tidewarden.clock import Clock
from tidewarden.frames import Frame, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.resources.metricstream import Source as SourceSpec
from tidewarden.sources import Batch, SourceError
from tidewarden_services.ingest.sources.columns import RowOrigins, SeriesIndex
from tidewarden_services.ingest.sources.json_messages import MessageParser

LISTEN_S = 0.1  # how soon a stop is seen
RETRY_S = 1.0  # how often it is asked whether what is away is back
GROWTH_S = 10.0  # how often new partitions are looked for

Say = Callable[[Literal["running", "waiting"], str], None]
Offsets = dict[int, int]  # partition → offset of the next message

log = structlog.get_logger()


class KafkaSource:
    """Reads a foreign topic.

    Args:
        stream: whose readings they are.
        spec: an entry of the stream's sources with ``kafka`` set.
        table: the process's series.
        clock: for waiting, and the time of arrival.
        config: how to reach the brokers, as librdkafka's settings.
        growth_s: how often new partitions are looked for, seconds.
        max_messages: of one batch.
    """

    kind = "kafka"

    def __init__(
        self,
        stream: MetricStream,
        spec: SourceSpec,
        table: SeriesTable,
        clock: Clock,
        config: Mapping[str, str | int],
        *,
        growth_s: float = GROWTH_S,
        max_messages: int = MAX_MESSAGES,
    ) -> None:
        if spec.kafka is None:
            raise ValueError(f"source {spec.name!r} is no kafka source: give it kafka.topic")
        self.name = spec.name
        self._topic = spec.kafka.topic
        self._latest = spec.kafka.start == "latest"
        self._config = config
        self._growth_s = growth_s
        self._max_messages = max_messages
        self._clock = clock
        self._table = table
        self._parser = MessageParser(SeriesIndex(stream, table))
        self._cuts: list[str] = []
        self._say: Say = lambda state, message: None  # noqa: ARG005
        self._read = 0

    def progress(self) -> tuple[int, int | None]:
        """Readings yielded so far; there is no end."""
        return self._read, None

    def cut_at(self, positions: Sequence[str]) -> None:
        """End a batch at exactly each of these positions."""
        self._cuts = list(positions)

    def report_to(self, say: Say) -> None:
        """Say to ``say`` what is waited for."""
        self._say = say

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        """Yield what the topic brings from ``position`` on, until ``stop`` is set."""
        reader = RawConsumer(self._topic, self._config)
        try:
            yield from self._batches(reader, position, stop)
        finally:
            reader.close()

    def _batches(self, reader: RawConsumer, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        cuts = sorted(map(self._parsed, self._cuts), key=lambda cut: sum(cut.values()))  # offsets only grow
        if position is not None:
            at = self._parsed(position)
        elif cuts:  # the state is lost, what was published is not
            at = dict(cuts[0])
            yield self._beginning(at)
        else:
            begin = self._first(reader, stop)
            if begin is None:
                return
            at = begin
            yield self._beginning(at)
        for cut in cuts:
            if any(at.get(partition, 0) < offset for partition, offset in cut.items()):
                yield from self._replay(reader, at, cut, stop)
            elif cut != at:  # the topics lost their newest records, the state did not
                yield self._beginning(cut)
                yield self._beginning(at)
        yield from self._live(reader, at, stop)

    def _first(self, reader: RawConsumer, stop: threading.Event) -> Offsets | None:
        """Where to begin the first time; None where the stop comes earlier."""
        while not stop.is_set():
            try:
                return {p: reader.watermarks(p)[self._latest] for p in reader.partitions()}
            except KafkaAwayError as error:
                self._say("waiting", str(error))
            self._clock.wait(stop, RETRY_S)
        return None

    def _replay(self, reader: RawConsumer, at: Offsets, cut: Offsets, stop: threading.Event) -> Iterator[Batch]:
        """From ``at`` exactly to ``cut``; moves ``at``."""
        behind = {p: at.get(p, 0) for p, end in cut.items() if at.get(p, 0) < end}
        reader.assign(behind)
        while behind and not stop.is_set():
            arrived = self._clock.now_ms() / 1000
            parts: list[RawMessages] = []
            before = len(behind)
            for part in reader.poll(LISTEN_S, self._max_messages):
                end = cut[part.partition]
                keep = bisect_left(part.offsets, end)
                if keep:
                    at[part.partition] = part.offsets[keep - 1] + 1
                    parts.append(RawMessages(part.partition, part.offsets[:keep], part.values[:keep]))
                if keep < len(part.offsets) or at[part.partition] >= end:
                    at[part.partition] = end
                    behind.pop(part.partition, None)
            if not parts and before == len(behind):
                self._pass_over_removed(reader, at, cut, behind)
            if len(behind) < before and behind:
                reader.assign({p: at.get(p, 0) for p in behind})
            if not behind:
                at.clear()
                at.update(cut)
            if parts or not behind:
                yield self._batch(parts, at, arrived)

    def _pass_over_removed(self, reader: RawConsumer, at: Offsets, cut: Offsets, behind: Offsets) -> None:
        """What retention has removed from before the cut cannot be read again, and was published already."""
        try:
            for partition in list(behind):
                oldest, end = reader.watermarks(partition)
                if oldest >= cut[partition]:
                    log.warning("messages that were published already are gone", topic=self._topic, partition=partition)
                    at[partition] = cut[partition]
                    del behind[partition]
                elif end < cut[partition]:
                    self._say("waiting", self._made_anew(partition, end, cut[partition]))
        except KafkaAwayError as error:
            self._say("waiting", str(error))

    def _live(self, reader: RawConsumer, at: Offsets, stop: threading.Event) -> Iterator[Batch]:
        if at and not stop.is_set():
            reader.assign(at)
        look_at = 0.0
        message = ""
        while not stop.is_set():
            now = self._clock.monotonic()
            if now >= look_at:
                message = self._look(reader, at)
                look_at = self._clock.monotonic() + (RETRY_S if message else self._growth_s)
            parts = reader.poll(LISTEN_S, self._max_messages)
            if parts:
                arrived = self._clock.now_ms() / 1000
                for part in parts:
                    self._note_jump(part, at[part.partition])
                    at[part.partition] = part.offsets[-1] + 1
                yield self._batch(parts, at, arrived)
            elif reader.failure and not message:
                look_at = 0.0  # away, or only one of several brokers: the next look says
            self._say("waiting" if message else "running", message)

    def _look(self, reader: RawConsumer, at: Offsets) -> str:
        """Look for new partitions; a sentence where nobody answers."""
        try:
            found = reader.partitions()
        except KafkaAwayError as error:
            return str(error)
        new = [partition for partition in found if partition not in at]
        if new:
            log.info("new partitions", topic=self._topic, partitions=new)
            at.update(dict.fromkeys(new, 0))  # all of it was written after the beginning, whichever that was
            reader.assign(at)
        return ""

    def _note_jump(self, part: RawMessages, expected: int) -> None:
        if part.offsets[0] < expected:
            log.warning("the topic was made anew", topic=self._topic, partition=part.partition, expected=expected)
        elif part.offsets[0] > expected:  # removed by retention, compacted, or the mark of a transaction
            log.debug("offsets passed over", topic=self._topic, partition=part.partition, expected=expected)

    def _made_anew(self, partition: int, end: int, offset: int) -> str:
        return (
            f"{self._topic}/{partition} ends at offset {end}, but was read up to {offset} before: "
            "the topic was made anew, so give the source another name"
        )

    # --- batches ---------------------------------------------------------------------------------

    def _beginning(self, at: Offsets) -> Batch:
        return Batch(Frame.empty(self._table), position=self._text(at), origin=self._topic)

    def _batch(self, parts: list[RawMessages], at: Offsets, arrived: float) -> Batch:
        starts = list(accumulate((len(part.values) for part in parts), initial=0))

        def origin(row: int) -> str:
            of = bisect_right(starts, row) - 1
            part = parts[of]
            return f"{self._topic}/{part.partition} offset {part.offsets[row - starts[of]]}"

        parsed = self._parser.parse([value for part in parts for value in part.values], origin)
        self._read += len(parsed.frame)
        return Batch(
            parsed.frame,
            parsed.refused,
            position=self._text(at),
            origins=RowOrigins(parsed.rows, origin),
            origin=self._topic,
            arrived=arrived,
        )

    def _text(self, at: Offsets) -> str:
        return f"{self._topic}@" + ",".join(f"{partition}:{at[partition]}" for partition in sorted(at))

    def _parsed(self, position: str) -> Offsets:
        topic, _, places = position.rpartition("@")
        if topic != self._topic:
            raise SourceError(
                f"source {self.name!r} has read topic {topic!r} before, now it is to read {self._topic!r}: "
                "give it another name"
            )
        return {int(number): int(offset) for number, _, offset in (place.partition(":") for place in places.split(","))}
