"""Many small messages of JSON at once: compiled where they are usual, by `json_readings` where they are not.

Both roads say the same of a message, to the bit. The compiled one (`compiled/messages.py`) leaves alone what it does
not understand at once: names that it has not met, escapes, broken JSON, all that is to be refused. What comes
back by the other road teaches it the names, so a series is read slowly about once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tidewarden.frames import BoolArray, FloatArray, Frame, IntArray, SeriesTable, TimeArray
from tidewarden.sources import Refused
from tidewarden_services.ingest.compiled.messages import parse
from tidewarden_services.ingest.compiled.names import learn, place_all
from tidewarden_services.ingest.compiled.words import PAD, WordArray
from tidewarden_services.ingest.sources.columns import Columns, SeriesIndex
from tidewarden_services.ingest.sources.json_readings import parse_lines

TOGETHER = 500  # messages decoded together: one that is broken sends no more of them down the slow road
ROWS = 65_536  # readings of one call of the kernel, 36 bytes each: 2.4 MB, kept from call to call
PIECE_BYTES = 4_194_304  # joined at a time, or one longer message alone
FIRST_ENTRIES = 1_024
# What is beyond is read by the slow road: 1,048,576 series of 40 bytes and their slots of 8 are 50 MB, as many nodes
# as many again, and names of 64 on the average 67 MB.
MAX_SERIES = 1_048_576
MAX_NAME_BYTES = 67_108_864


@dataclass(slots=True, eq=False)
class Parsed:
    """What became of some messages.

    Attributes:
        frame: their readings, in order.
        rows: number of the message of each reading, int32.
        refused: what could not become one, in order.
        slow: how many messages the compiled road has left to the other one.
    """

    frame: Frame
    rows: IntArray
    refused: list[Refused]
    slow: int


class NameTable:
    """Series by the bytes of their names, for the kernel.

    Args:
        table: the process's series.
        max_series: how many are learned.
        max_name_bytes: how long all their names may be together.
    """

    def __init__(
        self, table: SeriesTable, *, max_series: int = MAX_SERIES, max_name_bytes: int = MAX_NAME_BYTES
    ) -> None:
        self._table = table
        self._max_series = max_series
        self._max_name_bytes = max_name_bytes
        self._met: BoolArray = np.zeros(0, np.bool_)
        self.filled: TimeArray = np.zeros(3, np.int64)  # bytes of names, nodes, series
        self.names: npt.NDArray[np.uint8] = np.zeros(64 * FIRST_ENTRIES + len(PAD), np.uint8)
        self.nodes: TimeArray = np.zeros((FIRST_ENTRIES, 5), np.int64)
        self.series: TimeArray = np.zeros((FIRST_ENTRIES, 5), np.int64)
        self.node_slots: IntArray = np.full(2 * FIRST_ENTRIES, -1, np.int32)
        self.series_slots: IntArray = np.full(2 * FIRST_ENTRIES, -1, np.int32)

    def __len__(self) -> int:
        return int(self.filled[2])

    def learn(self, series: IntArray) -> None:
        """Learn the names of these ids, as far as there is room and the kernel could find them in a message."""
        if len(self._table) > len(self._met):
            self._met = np.concatenate([self._met, np.zeros(len(self._table) - len(self._met), np.bool_)])
        ids = np.unique(series[~self._met[series]])
        self._met[ids] = True
        ids = ids[: max(0, self._max_series - len(self))]
        texts = [(text, number) for number in ids.tolist() if (text := _as_written(self._table[number]))]
        joined = b"".join(text for text, _ in texts)
        if not texts or int(self.filled[0]) + len(joined) > self._max_name_bytes:
            return
        self._make_room(len(joined), len(texts))
        learn(
            np.frombuffer(joined + PAD, np.uint8), np.array([number for _, number in texts], np.int32),
            self.names, self.nodes, self.node_slots, self.series, self.series_slots, self.filled,
        )  # fmt: skip

    def _make_room(self, name_bytes: int, entries: int) -> None:
        """So that all of it could be new; slots stay at most half full."""
        held, nodes, series = self.filled.tolist()
        if held + name_bytes + len(PAD) > len(self.names):
            self.names = np.concatenate([self.names, np.zeros(len(self.names) + name_bytes, np.uint8)])
        self.nodes, self.node_slots = _grown(self.nodes, self.node_slots, nodes, entries)
        self.series, self.series_slots = _grown(self.series, self.series_slots, series, entries)


def _grown(entries: TimeArray, slots: IntArray, count: int, more: int) -> tuple[TimeArray, IntArray]:
    size = len(entries)
    while count + more > size:
        size *= 2
    if size == len(entries):
        return entries, slots
    larger = np.zeros((size, entries.shape[1]), np.int64)
    larger[:count] = entries[:count]
    slots = np.full(2 * size, -1, np.int32)
    place_all(larger, count, slots)
    return larger, slots


def _as_written(names: Sequence[str]) -> bytes:
    """A series' names, each with the quote behind it; nothing where JSON has to escape one of them."""
    if any(char < " " or char in '"\\' for name in names for char in name):
        return b""
    try:
        return "".join(f'{name}"' for name in names).encode()
    except UnicodeEncodeError:  # half of a pair of surrogates, which only an escape can write
        return b""


class MessageParser:
    """Parses the messages of one source; one thread at a time."""

    def __init__(self, index: SeriesIndex) -> None:
        self._index = index
        self._known = NameTable(index.table)
        self._serial = 0
        self._row: IntArray = np.zeros(ROWS, np.int32)
        self._series: IntArray = np.zeros(ROWS, np.int32)
        self._timestamp: TimeArray = np.zeros(ROWS, np.int64)
        self._value: FloatArray = np.zeros(ROWS, np.float64)
        self._metric: TimeArray = np.zeros(ROWS, np.int64)
        self._where = np.zeros(4, np.int64)
        self._hashes = np.zeros(4, np.uint64)
        self._hashed: WordArray = np.zeros(ROWS, np.uint64)

    def parse(self, messages: Sequence[bytes], origin: Callable[[int], str]) -> Parsed:
        """Readings and refusals of ``messages``, a reading or a node's metrics each; empty ones are refused.

        Args:
            messages: their bytes.
            origin: says of a number among them where it came from.
        """
        columns = Columns(self._index, origin)
        found: list[tuple[IntArray, IntArray, TimeArray, FloatArray]] = []
        left: list[IntArray] = []
        lengths = np.fromiter(map(len, messages), np.int64, len(messages))
        ends = np.cumsum(lengths + 1)
        first = 0
        while first < len(messages):
            before = int(ends[first - 1]) if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + PIECE_BYTES)))
            self._parse_piece(messages[first:last], ends[first:last] - (before + 1), first, found, left)
            first = last
        slow = np.concatenate(left) if left else np.zeros(0, np.int32)
        for begin, end in _runs(slow):
            parse_lines(messages[begin:end], columns, begin, refuse_empty=True)
        if len(slow):
            others = columns.frame()
            self._known.learn(others.series)
            found.append((columns.rows(), others.series, others.timestamp, others.value))
        return Parsed(*self._in_order(found, mixed=len(slow) > 0), columns.refused, len(slow))

    def _parse_piece(
        self,
        messages: Sequence[bytes],
        ends: TimeArray,
        first_row: int,
        found: list[tuple[IntArray, IntArray, TimeArray, FloatArray]],
        left: list[IntArray],
    ) -> None:
        known = self._known
        text = np.frombuffer(b"\0".join((*messages, PAD)), np.uint8)
        leaving = np.zeros(len(messages), np.int32)
        at = 0
        while at < len(messages):
            at, count, leaves = parse(
                text, ends, at, self._serial, known.names, known.nodes, known.node_slots, known.series,
                known.series_slots, known.filled, self._row, self._series, self._timestamp, self._value, self._metric,
                self._hashed, leaving, self._where, self._hashes,
            )  # fmt: skip
            if count:
                rows = self._row[:count] + np.int32(first_row)
                found.append(
                    (rows, self._series[:count].copy(), self._timestamp[:count].copy(), self._value[:count].copy())
                )
            if leaves:
                left.append(leaving[:leaves] + np.int32(first_row))
        self._serial += len(messages)

    def _in_order(
        self, found: list[tuple[IntArray, IntArray, TimeArray, FloatArray]], *, mixed: bool
    ) -> tuple[Frame, IntArray]:
        table = self._index.table
        if not found:
            return Frame.empty(table), np.zeros(0, np.int32)
        if len(found) == 1:
            rows, series, timestamp, value = found[0]
            return Frame(table, series, timestamp, value), rows
        rows = np.concatenate([part[0] for part in found])
        frame = Frame(table, *(np.concatenate([part[n] for part in found]) for n in (1, 2, 3)))
        if not mixed:
            return frame, rows
        order = np.argsort(rows, kind="stable")  # a message came by one road, so its readings stay in their order
        return frame.take(order), rows[order]


def _runs(rows: IntArray) -> list[tuple[int, int]]:
    """Rows, which ascend, as stretches without a gap, of at most `TOGETHER`: (first, behind the last)."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    stretches = zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True)
    return [
        (int(rows[begin]), int(rows[min(begin + TOGETHER, end) - 1]) + 1)
        for start, end in stretches
        for begin in range(start, end, TOGETHER)
    ]
