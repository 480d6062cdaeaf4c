"""One instance of a service: the state of one partition of its input.

It is the unit of everything that must be exact: what is assigned and taken away, what a snapshot holds,
and whose name the ``producer`` header carries. What it says is a function of its partition alone, so it
does not matter which process runs it, nor how many others that process has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import structlog

from tidewarden.bus.port import Bus, Record, TopicPartition, Undecodable
from tidewarden.clock import Clock
from tidewarden.events import Rejection, stable_id
from tidewarden.topics import StreamTopics, partition_of
from tidewarden_services.contract import JoiningService, Output, Service
from tidewarden_services.merge import Merge, MergeState, Waiting
from tidewarden_services.state import StateStore

SNAPSHOT_VERSION = 2
REREAD_RECORDS = 64  # read again at a time
REREAD_TIMEOUT_S = 0.2
REREAD_ATTEMPTS = 150  # of 0.2 s each, without a record: half a minute, as long as a broker may be away

log = structlog.get_logger()


class Snapshot(msgspec.Struct):
    """What is saved."""

    version: int
    begin: int  # offset to go on reading at
    position: int  # records before this one have been dealt with, or are held by the merge
    ends: dict[str, int]  # topic/partition → end of the output topics: what was published since lies behind it
    state: bytes
    merge: MergeState | None = None


class Captured(NamedTuple):
    """What is to be saved, and then committed."""

    states: dict[str, bytes]  # by name
    offsets: dict[TopicPartition, int]  # the bus need no longer go back to what lies before


class Published(msgspec.Struct):
    """How far an output partition answers the input already."""

    offset: int = -1
    part: int = -1  # of the outputs that go to this partition and answer the same record


class Instance:
    """One service over one partition.

    Args:
        name: of the service, without the partition.
        place: the partition of its input.
        service: fresh, for this partition alone.
        stream: names the topics.
        bus: where outputs go.
        state: where snapshots go, under ``<name>/<partition>``.
        clock: says when a record was refused.
    """

    def __init__(
        self,
        name: str,
        place: TopicPartition,
        service: Service,
        *,
        stream: StreamTopics,
        bus: Bus,
        state: StateStore,
        clock: Clock,
    ) -> None:
        self.name = f"{name}/{place.partition}"
        self.refused = 0
        self._place = place
        self._service = service
        self._stream = stream
        self._bus = bus
        self._state = state
        self._clock = clock
        self._merge = Merge(stream.partitions, self._reread) if isinstance(service, JoiningService) else None
        self._position: int | None = None  # None: nothing read and nothing saved yet
        self._saved = False
        self._horizon = 0  # what was published before the restore answers records before this offset
        self._since: Mapping[str, int] = {}
        self._published: dict[TopicPartition, Published] = {}

    def restore(self) -> int | None:
        """Go on from the snapshot; where to begin to read, None where there is no snapshot."""
        saved = self._state.load(self.name)
        if saved is None:
            return None
        snapshot = msgspec.msgpack.decode(saved, type=Snapshot)
        end = self._bus.ends(self._place.topic)[self._place]
        try:
            self._service.restore(snapshot.state)
        except ValueError as error:
            # Its configuration has changed, say: what comes from here on is better than not starting.
            log.warning("cannot go on from the snapshot, starting anew", service=self.name, reason=str(error))
        if snapshot.position > end:  # the journal was removed, or cut by a power failure
            log.warning("ahead of the bus, going on at its end", service=self.name, offset=snapshot.position, end=end)
            self._position = end
            return end
        if self._merge is not None and snapshot.merge is not None:
            self._merge.restore(snapshot.merge)
        self._position, self._horizon, self._since, self._saved = snapshot.position, end, snapshot.ends, True
        log.info("restored", service=self.name, lag_records=end - snapshot.begin)
        return snapshot.begin

    def handle(self, record: Record) -> None:
        """Deal with the next record, and publish what comes of it."""
        if self._position is None:
            self._position = record.offset
        if not self._saved:  # from now on a restart knows what may have been published, and where to look for it
            self._state.save_all(self.capture(output_ends(self._bus, self._stream, self._place.topic)).states)
        answered = _Answers(self, record)
        if isinstance(record.value, Undecodable):
            if record.offset >= self._position:
                answered.reject(record, record.value)
        elif self._merge is None:
            answered.publish(self._service.handle(record), record)
        else:
            for group in self._merge.offer(record):
                answered.publish(self._service.handle(self._joined(group)), group[0])
        self._position = max(self._position, record.offset + 1)

    def capture(self, ends: Mapping[str, int]) -> Captured:
        """A snapshot of this moment, to be saved; nothing where nothing was read yet.

        Args:
            ends: of the output topics (`output_ends`), asked before now: a restart looks for what was published from
                there on, so earlier is further back than need be, and never too little.
        """
        if self._position is None:
            return Captured({}, {})
        begin = self._position if self._merge is None else min(self._merge.begin(), self._position)
        merge = None if self._merge is None else self._merge.snapshot()
        if self._position < self._horizon:
            # We still answer what an earlier process may have answered: the next has to look as far back as we did.
            ends = self._since
        snapshot = Snapshot(SNAPSHOT_VERSION, begin, self._position, dict(ends), self._service.snapshot(), merge)
        if not self._saved:
            self._since, self._saved = ends, True
        return Captured({self.name: msgspec.msgpack.encode(snapshot)}, {self._place: begin})

    def close(self) -> None:
        """Let go."""
        self._service.close()

    def waiting(self) -> Waiting:
        """Who holds up the merge, if anybody does."""
        return Waiting(0, 0, []) if self._merge is None else self._merge.waiting()

    def published(self, place: TopicPartition) -> Published:
        """How far this output partition answers the input already, as found when we first came to it."""
        known = self._published.get(place)
        if known is None:
            known = self._published[place] = Published()
            since = self._since.get(f"{place.topic}/{place.partition}", 0)
            newest = self._bus.last(place.topic, place.partition, self.name, since)
            if newest is not None and "input" in newest.headers:
                known.offset = int(newest.headers["input"].rpartition("/")[2])
                known.part = int(newest.headers.get("part", "0"))
        return known

    def send(self, place: TopicPartition, key: str, value: object, headers: dict[str, str]) -> None:
        """Publish in this instance's name."""
        self._bus.publish(
            place.topic, value, key=key, partition=place.partition, headers={"producer": self.name, **headers}
        )

    def place_of(self, output: Output) -> TopicPartition:
        """Where an output goes: a tenant's partition."""
        return TopicPartition(self._stream.name(output.purpose), partition_of(output.key, self._stream.partitions))

    def rejection(self, record: Record, value: Undecodable) -> Rejection:
        """What is kept of a record that cannot be read."""
        self.refused += 1
        origin = f"{record.topic}/{record.partition}/{record.offset}"
        log.warning("a record cannot be read", service=self.name, record=origin, reason=value.reason)
        return Rejection(
            id=stable_id("undecodable", origin),  # the same whoever reads it: several detectors keep it once
            stream=self._stream.stream,
            source=record.headers.get("producer", "unknown"),
            reason="undecodable",
            detail=f"{value.reason}: see what writes to {record.topic}, it must write what this version reads",
            origin=origin,
            received_at=self._clock.now_ms(),
            raw=value.raw.decode("utf-8", "backslashreplace"),
        )

    def rejected_place(self) -> TopicPartition:
        """Where refused records go."""
        return TopicPartition(self._stream.name("rejected"), 0)

    def _joined(self, group: list[Record]) -> Record:
        if len(group) == 1:
            return group[0]
        assert isinstance(self._service, JoiningService)
        first = group[0]
        value = self._service.join(group)
        return Record(first.topic, first.partition, first.offset, first.key, value, first.headers)

    def _reread(self, offsets: list[int]) -> list[Record]:
        """Records that the merge had to let go of, read again from the bus."""
        consumer = self._bus.consumer([self._place.topic], f"{self.name}.again")
        found: list[Record] = []
        wanted, attempts, passed = set(offsets), 0, False
        try:
            ends = self._bus.ends(self._place.topic)
            consumer.seek({place: offsets[0] if place == self._place else end for place, end in ends.items()})
            while len(found) < len(wanted) and attempts < REREAD_ATTEMPTS and not passed:
                records = [r for r in consumer.poll(REREAD_RECORDS, REREAD_TIMEOUT_S) if r.place == self._place]
                found += [record for record in records if record.offset in wanted]
                passed = any(record.offset > offsets[-1] for record in records)
                attempts = 0 if records else attempts + 1
        finally:
            consumer.close()
        if len(found) < len(wanted):
            raise LookupError(f"{self.name}: {self._place} no longer has offsets {offsets}: raise its retention")
        return found


def output_ends(bus: Bus, stream: StreamTopics, reads: str) -> dict[str, int]:
    """topic/partition → end, of all topics that a service which reads this one may write."""
    topics = [topic.name for topic in stream.all() if topic.name != reads]
    return {f"{place.topic}/{place.partition}": end for place, end in bus.ends(*topics).items()}


class _Answers:
    """What is published in answer to one record, numbered for each partition that it goes to."""

    def __init__(self, instance: Instance, record: Record) -> None:
        self._instance = instance
        self._record = record
        self._parts: dict[TopicPartition, int] = {}

    def publish(self, outputs: list[Output], cause: Record) -> None:
        """Publish outputs, except those that an earlier process has published already."""
        for output in outputs:
            headers = {} if output.time is None else {"time": str(output.time)}
            if "arrived" in cause.headers:
                headers["arrived"] = cause.headers["arrived"]
            self._send(self._instance.place_of(output), output.key, output.value, headers)

    def reject(self, record: Record, value: Undecodable) -> None:
        """Put a record that cannot be read aside."""
        self._send(self._instance.rejected_place(), "undecodable", [self._instance.rejection(record, value)], {})

    def _send(self, place: TopicPartition, key: str, value: object, headers: dict[str, str]) -> None:
        part = self._parts[place] = self._parts.get(place, -1) + 1
        record, published = self._record, self._instance.published(place)
        if (record.offset, part) <= (published.offset, published.part):
            return
        headers = {"input": f"{record.topic}/{record.partition}/{record.offset}", **headers}
        if part:
            headers["part"] = str(part)
        self._instance.send(place, key, value, headers)
