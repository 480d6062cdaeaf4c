"""The bus inside one process: bounded, ordered, and with a journal able to survive a kill.

Records are handed over as objects, never encoded, except into the journal where there is one. A
publisher blocks while any reader of the topic is more than ``capacity_rows`` rows behind: that is the
back-pressure that reaches from the store to the sources. Nothing a reader still needs is ever dropped.

Threads: one condition guards everything. Work under it is a few list operations a record, and records
carry up to 10,000 readings, so it is never contended for long; the journal encodes outside of it.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from tidewarden.bus.journal import Entry, PartitionJournal
from tidewarden.bus.port import Assignment, BusClosedError, Record, TopicPartition
from tidewarden.codec import Codec
from tidewarden.frames import SeriesTable
from tidewarden.topics import Topic

CAPACITY_ROWS = 400_000  # per partition: 28 MB of scores, more than a second at full speed
RETAINED_ROWS = 50_000  # read by everybody, kept for whoever attaches later

log = structlog.get_logger()


@dataclass(slots=True)
class _Stored:
    record: Record
    rows_before: int  # rows of the partition published before this record
    rows: int


@dataclass(slots=True)
class _Partition:
    journal: PartitionJournal | None
    codec: Codec
    kept: deque[_Stored] = field(default_factory=deque)
    start: int = 0  # offset of kept[0]
    end: int = 0
    rows: int = 0  # rows published in this process
    last: dict[str, Record] = field(default_factory=dict)
    publishing: threading.Lock = field(default_factory=threading.Lock)


class MemoryBus:
    """A `Bus` for one process.

    Args:
        table: series of the process; frames on this bus point into it.
        journal: folder to keep records in, so that a new process goes on where this one was killed.
        capacity_rows: how far a reader may fall behind before publishers wait.
    """

    def __init__(
        self,
        table: SeriesTable | None = None,
        *,
        journal: Path | None = None,
        capacity_rows: int = CAPACITY_ROWS,
    ) -> None:
        self._table = table if table is not None else SeriesTable()
        self._journal = journal
        self._capacity_rows = capacity_rows
        self._partitions: dict[TopicPartition, _Partition] = {}
        self._topics: dict[str, int] = {}
        self._consumers: dict[tuple[str, TopicPartition], MemoryConsumer] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._committed: dict[str, dict[TopicPartition, int]] = {}

    def create(self, topics: Iterable[Topic]) -> None:
        """Make sure that the topics exist; ValueError where one exists with fewer partitions."""
        with self._changed:
            for topic in topics:
                known = self._topics.get(topic.name)
                if known is not None and known < topic.partitions:
                    raise ValueError(f"topic {topic.name} has {known} partitions, {topic.partitions} are asked for")
                if known is not None:
                    continue
                self._topics[topic.name] = topic.partitions
                for number in range(topic.partitions):
                    self._partitions[TopicPartition(topic.name, number)] = self._open(topic.name, number)

    def publish(
        self, topic: str, value: Any, *, key: str, partition: int = 0, headers: Mapping[str, str] | None = None
    ) -> int:
        """Append and return the offset. Blocks while a reader is too far behind; never drops."""
        place = TopicPartition(topic, partition)
        store = self._partition(place)
        rows = max(1, len(value) if hasattr(value, "__len__") else 1)
        # Waits without the lock: `sync` takes it, called by the very readers that make room. Several
        # publishers may find the same room, so a topic can exceed its capacity by a record for each.
        self._await_room(place, store)
        with store.publishing:  # keeps the journal's order and the memory's order the same
            offset = store.end
            headers = dict(headers or {})
            if store.journal is not None:
                kind, data = store.codec.encode(value)
                offset = store.journal.append(key, headers, kind, data)
            record = Record(topic, partition, offset, key, value, headers)
            with self._changed:
                store.kept.append(_Stored(record, store.rows, rows))
                store.rows += rows
                store.end = offset + 1
                store.last[""] = record
                if "producer" in headers:
                    store.last[headers["producer"]] = record
                self._trim(place, store)
                self._changed.notify_all()
        return offset

    def consumer(
        self,
        topics: Sequence[str],
        group: str,
        *,
        member: str | None = None,  # noqa: ARG002 - a group has one member here
        assignment: Assignment | None = None,
    ) -> MemoryConsumer:
        """A reader that starts at the group's committed offsets, or the oldest record; all partitions are its own."""
        with self._changed:
            places = [TopicPartition(topic, n) for topic in topics for n in range(self._partition_count(topic))]
            taken = [place for place in places if (group, place) in self._consumers]
            if taken:
                raise ValueError(f"group {group!r} already reads {taken[0].topic}: this bus has one reader a group")
            consumer = MemoryConsumer(self, places, group, self._read_commits(group), assignment)
            for place in places:
                self._consumers[group, place] = consumer
            return consumer

    def ends(self, *topics: str) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will get."""
        with self._changed:
            places = [TopicPartition(topic, n) for topic in topics for n in range(self._partition_count(topic))]
            return {place: self._partitions[place].end for place in places}

    def last(self, topic: str, partition: int, producer: str | None = None, since: int = 0) -> Record | None:
        """The newest record of a partition, or of one producer in it; its value may be None."""
        store = self._partition(TopicPartition(topic, partition))
        with self._changed:
            newest = store.last.get(producer or "")
            return newest if newest is not None and newest.offset >= since else None

    def sync(self) -> None:
        """Force the journal to the disk; nothing to do without one."""
        for store in list(self._partitions.values()):
            if store.journal is not None:
                with store.publishing:
                    store.journal.sync()

    def close(self) -> None:
        """Wake everyone who waits, and release files."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for store in self._partitions.values():
            with store.publishing:
                if store.journal is not None:
                    store.journal.close()

    # --- for publishers -------------------------------------------------------------------------

    def _open(self, topic: str, number: int) -> _Partition:
        if self._journal is None:
            return _Partition(None, Codec(self._table))
        journal = PartitionJournal(self._journal / topic / str(number))
        last = {
            producer: Record(topic, number, offset, "", None, headers)
            for producer, (offset, headers) in journal.producers.items()
        }
        return _Partition(journal, Codec(self._table), start=journal.end, end=journal.end, last=last)

    def _partition(self, place: TopicPartition) -> _Partition:
        try:
            return self._partitions[place]
        except KeyError:
            raise KeyError(f"no topic {place.topic} with a partition {place.partition}: create it first") from None

    def _partition_count(self, topic: str) -> int:
        if topic not in self._topics:
            raise KeyError(f"no topic {topic}: create it first")
        return self._topics[topic]

    def _readers(self, place: TopicPartition) -> Iterator[MemoryConsumer]:
        return (consumer for (_, at), consumer in list(self._consumers.items()) if at == place)

    def _await_room(self, place: TopicPartition, store: _Partition) -> None:
        with self._changed:
            while not self._closed and any(
                reader.rows_behind(place, store) >= self._capacity_rows for reader in self._readers(place)
            ):
                self._changed.wait()
            if self._closed:
                raise BusClosedError(f"the bus was closed while publishing to {place.topic}")

    def _trim(self, place: TopicPartition, store: _Partition) -> None:
        """Forget what every reader has polled (with a journal) or committed (without one)."""
        needed = store.end
        for reader in self._readers(place):
            needed = min(needed, reader.needs(place, journaled=store.journal is not None))
        kept = store.kept
        while kept and kept[0].record.offset < needed and store.rows - kept[0].rows_before > RETAINED_ROWS:
            kept.popleft()
        store.start = kept[0].record.offset if kept else store.end

    # --- for readers ----------------------------------------------------------------------------

    def _committed_by(self, reader: MemoryConsumer) -> None:
        """Persist a group's offsets, and drop journal segments that no group needs any more."""
        with self._changed:
            for place in reader.places:
                store = self._partitions[place]
                self._trim(place, store)
                if store.journal is not None:
                    store.journal.trim(min(r.needs(place, journaled=False) for r in self._readers(place)))
            self._changed.notify_all()
        path = self._commit_path(reader.group)
        if path is not None:
            offsets = {f"{place.topic}/{place.partition}": at for place, at in reader.committed.items()}
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(offsets))
            os.replace(fresh, path)
        else:
            self._committed[reader.group] = dict(reader.committed)

    def _read_commits(self, group: str) -> dict[TopicPartition, int]:
        path = self._commit_path(group)
        if path is None:
            return dict(self._committed.get(group, {}))
        if not path.exists():
            return {}
        offsets: dict[TopicPartition, int] = {}
        for name, offset in json.loads(path.read_text()).items():
            topic, _, number = name.rpartition("/")
            offsets[TopicPartition(topic, int(number))] = int(offset)
        return offsets

    def _commit_path(self, group: str) -> Path | None:
        if self._journal is None:
            return None
        return self._journal / "_groups" / (re.sub(r"[^A-Za-z0-9._-]", "_", group) + ".json")


class MemoryConsumer:
    """A `Consumer` of a `MemoryBus`."""

    def __init__(
        self,
        bus: MemoryBus,
        places: list[TopicPartition],
        group: str,
        committed: dict[TopicPartition, int],
        assignment: Assignment | None = None,
    ) -> None:
        self._bus = bus
        self.places = places
        self.group = group
        self.committed = {place: committed.get(place, self._oldest(place)) for place in places}
        self._position = dict(self.committed)
        self._replay: dict[TopicPartition, Iterator[Entry]] = {}
        self._codec = Codec(bus._table)
        self._turn = 0
        self._unassigned = assignment

    def poll(self, max_records: int, timeout: float) -> list[Record]:
        """Up to ``max_records`` records, in order per partition; empty after ``timeout`` seconds."""
        bus = self._bus
        if self._unassigned is not None:
            assignment, self._unassigned = self._unassigned, None
            self.seek(assignment.assigned(self.places))
        with bus._changed:
            if not bus._closed and not self._behind():
                bus._changed.wait_for(lambda: bus._closed or self._behind(), timeout)
            if bus._closed:
                raise BusClosedError(f"the bus was closed while {self.group} was reading")
            records: list[Record] = []
            for step in range(len(self.places)):
                place = self.places[(self._turn + step) % len(self.places)]
                records += self._take(place, max_records - len(records))
            self._turn += 1
            if records:
                for place in {record.place for record in records}:
                    bus._trim(place, bus._partitions[place])
                bus._changed.notify_all()
            return records

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read on from these offsets, at most from the end; partitions not named stay where they are."""
        with self._bus._changed:
            for place, offset in offsets.items():
                if place not in self._position:
                    raise ValueError(f"{self.group} does not read {place.topic}/{place.partition}")
                end = self._bus._partitions[place].end
                if offset > end:  # the journal was removed, or cut by a power failure
                    log.warning("ahead of the bus, going on at its end", group=self.group, offset=offset, end=end)
                self._position[place] = min(offset, end)
                self._replay.pop(place, None)

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Everything before these offsets is dealt with and need not be kept for this group."""
        self.committed.update(offsets)
        self._bus._committed_by(self)

    def lag(self) -> int:
        """Records published but not yet polled."""
        with self._bus._changed:
            return sum(self._bus._partitions[place].end - self._position[place] for place in self.places)

    known_lag = lag  # there is nobody to be asked

    def close(self) -> None:
        """Leave; blocked publishers no longer wait for this reader."""
        with self._bus._changed:
            for place in self.places:
                self._bus._consumers.pop((self.group, place), None)
            self._bus._changed.notify_all()

    def rows_behind(self, place: TopicPartition, store: _Partition) -> int:
        """Rows in memory that this reader has not polled."""
        at = self._position[place]
        if at >= store.end:
            return 0
        if at <= store.start:
            return store.rows - (store.kept[0].rows_before if store.kept else store.rows)
        return store.rows - store.kept[at - store.start].rows_before

    def needs(self, place: TopicPartition, *, journaled: bool) -> int:
        """The oldest offset that must stay in memory for this reader."""
        return self._position[place] if journaled else min(self._position[place], self.committed[place])

    def _oldest(self, place: TopicPartition) -> int:
        store = self._bus._partition(place)
        return store.start if store.journal is None else store.journal.start

    def _behind(self) -> bool:
        return any(self._position[place] < self._bus._partitions[place].end for place in self.places)

    def _take(self, place: TopicPartition, count: int) -> list[Record]:
        store = self._bus._partitions[place]
        records: list[Record] = []
        while len(records) < count and self._position[place] < store.end:
            at = self._position[place]
            if at < store.start:
                record = self._from_journal(place, store)
                if record is None:  # caught up with what memory holds
                    continue
            else:
                record = store.kept[at - store.start].record
            records.append(record)
            self._position[place] = record.offset + 1
        return records

    def _from_journal(self, place: TopicPartition, store: _Partition) -> Record | None:
        if store.journal is None:
            self._position[place] = store.start  # older records are gone: the reader was never promised them
            return None
        if place not in self._replay:
            self._replay[place] = store.journal.read(self._position[place])
        entry = next(self._replay[place], None)
        if entry is None or entry.offset >= store.start:
            self._replay.pop(place, None)
            self._position[place] = max(self._position[place], store.start)
            return None
        value = self._codec.decode(entry.kind, entry.data)
        return Record(place.topic, place.partition, entry.offset, entry.key, value, entry.headers)
