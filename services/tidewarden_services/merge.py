"""The merge: what several instances wrote to one partition, in an order that no scheduling changes.

The partitions of a detector's input have an instance of it each, and all of them write to the partition
of a tenant, interleaved as chance will have it. Each instance's own sequence is fixed, though, and every
record of it says how far the instance's time has come (header ``time``) and which input it answers
(header ``input``). So for each producing service and tenant the records are ordered by (time, instance,
input offset), and those of one time are handed on together, once every instance has shown a later time:
then nothing can come before them any more. An instance whose own input is silent shows its time by
heartbeats.

Records that answer an input already seen of their instance are repetitions, written by a process that
did not know that it had been replaced; they are left out. Records of producers without instances (the
API's) pass at once. With one instance everything passes at once.

Bounds. Of an instance that is missing only the time is needed, so reading goes on, but what the others
say must be kept until it is back: at most `HELD_ROWS` rows stay in memory (400,000 scores are 28 MB), of
the rest only the place is remembered, 200 bytes a record, and it is read again when its turn comes. What
lies more than `HELD_RECORDS` records back (100 MB of places; at ten records a second fourteen hours) is handed on
without the missing instance: better late and incomplete than never. That also lets go of the last word
of a detector that no longer exists. Which records these are depends on offsets alone.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from tidewarden.bus.port import Record

HELD_ROWS = 400_000
HELD_RECORDS = 500_000
NEVER = -(2**63)
NOTHING = -1

Reread = Callable[[list[int]], list[Record]]


class MergeState(msgspec.Struct):
    """A snapshot: for each (service, key) what was handed on and shown of each instance."""

    position: int  # records before this offset have been offered
    lanes: list[tuple[str, str, list[int], list[int]]]


class Waiting(NamedTuple):
    """Who is waited for, for people."""

    records: int
    rows: int
    missing: list[str]  # instances that are behind where others have come, as ``detect.fast/3``


class _Held(NamedTuple):
    time: int
    input_offset: int
    number: int  # of the instance
    offset: int
    rows: int
    record: Record | None  # None: to be read again


class _Lane:
    """What one service says of one key."""

    def __init__(self, instances: int) -> None:
        self.queues: list[deque[_Held]] = []
        self.shown: list[int] = []  # ms: how far the instance's time has come
        self.seen: list[int] = []  # newest input that was taken in
        self.handed: list[int] = []  # newest input that was handed on
        self.grow(instances)

    def grow(self, instances: int) -> None:
        for _ in range(len(self.queues), instances):
            self.queues.append(deque())
            self.shown.append(NEVER)
            self.seen.append(NOTHING)
            self.handed.append(NOTHING)

    def oldest(self) -> int | None:
        return min((queue[0].offset for queue in self.queues if queue), default=None)

    def lacking(self) -> Iterator[_Held]:
        """What is held without its record, in the order in which it will be handed on."""
        return heapq.merge(*((held for held in queue if held.record is None) for queue in self.queues))

    def pop_until(self, before: int) -> Iterator[list[_Held]]:
        """Groups of one time, earlier than ``before``, in order."""
        while True:
            heads = [queue[0].time for queue in self.queues if queue]
            if not heads or (time := min(heads)) >= before:
                return
            group: list[_Held] = []
            for number, queue in enumerate(self.queues):
                while queue and queue[0].time == time:
                    group.append(queue.popleft())
                    self.handed[number] = group[-1].input_offset
            yield group


class Merge:
    """Orders the records of one partition.

    Args:
        instances: how many instances each producing service has: the partitions of its input.
        reread: gives the records at these offsets (rising) again, for what was too much to keep.
        held_rows: rows to keep in memory while somebody is missing.
        held_records: how many records back to wait for somebody who is missing.
    """

    def __init__(
        self, instances: int, reread: Reread, *, held_rows: int = HELD_ROWS, held_records: int = HELD_RECORDS
    ) -> None:
        self._instances = instances
        self._reread = reread
        self._held_rows = held_rows
        self._held_records = held_records
        self._stride = max(1, held_records // 100)  # records between looks at what has waited for too long
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._position = 0
        self._rows = 0
        self._records = 0
        self._again: dict[int, Record] = {}  # read again, by offset
        self.overtaken = 0  # groups handed on without an instance that was missing for too long

    def offer(self, record: Record) -> Iterator[list[Record]]:
        """Take in the next record; groups of records come out, those of a group to be dealt with together."""
        before, self._position = self._position, max(self._position, record.offset + 1)
        origin = origin_of(record)
        if origin is None:
            if record.offset >= before:  # else it passed before the snapshot was taken
                yield [record]
            return
        service, number, input_offset, time = origin
        lane = self._lanes.get((service, record.key))
        if lane is None:
            lane = self._lanes[service, record.key] = _Lane(self._instances)
        lane.grow(number + 1)
        if input_offset <= lane.seen[number]:
            return
        lane.seen[number] = input_offset
        lane.shown[number] = max(lane.shown[number], time)
        if len(lane.queues) == 1:
            lane.handed[number] = input_offset
            yield [record]
            return
        self._hold(lane, number, time, input_offset, record)
        for group in lane.pop_until(min(lane.shown)):
            yield self._hand_on(lane, group)
        if before // self._stride != self._position // self._stride:
            yield from self._overtake()

    def begin(self) -> int:
        """The offset of the oldest record that is still needed: where a restart must begin."""
        oldest = [at for lane in self._lanes.values() if (at := lane.oldest()) is not None]
        return min(oldest, default=self._position)

    def waiting(self) -> Waiting:
        """What is held, and whose time is behind that of the others."""
        missing = [
            f"{service}/{number}"
            for (service, _), lane in self._lanes.items()
            if any(lane.queues)
            for number, shown in enumerate(lane.shown)
            if shown == min(lane.shown) and shown < max(lane.shown)
        ]
        return Waiting(self._records, self._rows, sorted(set(missing)))

    def snapshot(self) -> MergeState:
        """What was handed on and shown; what is held is read again."""
        lanes = [(*place, list(lane.handed), list(lane.shown)) for place, lane in sorted(self._lanes.items())]
        return MergeState(self._position, lanes)

    def restore(self, state: MergeState) -> None:
        """Go on from a snapshot; the records from its `begin` on are to be offered again."""
        self._position = state.position
        self._rows = self._records = 0
        self._again = {}
        self._lanes = {}
        for service, key, handed, shown in state.lanes:
            lane = self._lanes[service, key] = _Lane(max(self._instances, len(handed)))
            lane.handed[: len(handed)] = handed
            lane.seen[: len(handed)] = handed
            lane.shown[: len(shown)] = shown

    def _hold(self, lane: _Lane, number: int, time: int, input_offset: int, record: Record) -> None:
        rows = _rows_of(record)
        kept: Record | None = record
        if self._rows + rows > self._held_rows:
            kept = None
        else:
            self._rows += rows
        self._records += 1
        lane.queues[number].append(_Held(time, input_offset, number, record.offset, rows, kept))

    def _hand_on(self, lane: _Lane, group: list[_Held]) -> list[Record]:
        """The records of a group; those that were too much to keep are read again."""
        lacking = [held for held in group if held.record is None and held.offset not in self._again]
        if lacking:
            self._read_again(lane, lacking)
        self._records -= len(group)
        self._rows -= sum(held.rows for held in group if held.record is not None or held.offset in self._again)
        return [held.record if held.record is not None else self._again.pop(held.offset) for held in group]

    def _read_again(self, lane: _Lane, lacking: list[_Held]) -> None:
        """Get these back, and with them what will be needed next, as far as there is room for it."""
        room = max(self._held_rows - self._rows, self._held_rows // 4) - sum(held.rows for held in lacking)
        for held in lane.lacking():
            if held.offset in self._again:
                continue
            if (room := room - held.rows) < 0:
                break
            lacking.append(held)
        self._again |= {record.offset: record for record in self._reread(sorted(held.offset for held in lacking))}
        self._rows += sum(held.rows for held in lacking)

    def _overtake(self) -> Iterator[list[Record]]:
        """Hand on what has waited for more than `HELD_RECORDS` records."""
        if self._records == 0:
            return
        for lane in list(self._lanes.values()):
            while (oldest := lane.oldest()) is not None and oldest < self._position - self._held_records:
                time = next(queue[0].time for queue in lane.queues if queue and queue[0].offset == oldest)
                for group in lane.pop_until(time + 1):
                    self.overtaken += 1
                    yield self._hand_on(lane, group)


def origin_of(record: Record) -> tuple[str, int, int, int] | None:
    """Producing service, its instance, the input offset it answers, its time in ms; None where it has no instances."""
    headers = record.headers
    service, _, number = headers.get("producer", "").rpartition("/")
    if not service or not number.isdecimal() or "input" not in headers or "time" not in headers:
        return None
    return service, int(number), int(headers["input"].rpartition("/")[2]), int(headers["time"])


def _rows_of(record: Record) -> int:
    return max(1, len(record.value) if hasattr(record.value, "__len__") else 1)
