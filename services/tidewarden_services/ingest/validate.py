"""Validation: which readings of a frame pass, why the others do not, and what is remembered of it.

A verdict depends on the readings of a series in their order and on the limit for timestamps from the
future, on nothing else: not on how readings are cut into frames, nor on the numbering of series.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tidewarden.clock import Clock
from tidewarden.events import Rejection, stable_id
from tidewarden.frames import BoolArray, ByteArray, FloatArray, Frame, IntArray, SeriesKey, SeriesTable, TimeArray
from tidewarden.resources import MetricStream
from tidewarden.sources import Batch, Refused
from tidewarden_services.ingest import kernels
from tidewarden_services.ingest.reasons import (
    REFUSED,
    Code,
    bounds_detail,
    iso,
    not_finite_detail,
    unknown_tenant_detail,
)

# Late readings are told from duplicates by remembering timestamps. 16 is room for readings that come up to
# eight times as often as the interval says; 1,024 caps the memory at 8 KB a series, whatever the lateness.
MIN_REMEMBERED = 16
MAX_REMEMBERED = 1_024

NO_LIMIT = 2**63 - 1


@dataclass(slots=True, eq=False)
class Verdict:
    """What validation says of one frame.

    Attributes:
        accepted: the readings that passed, in their order; late ones among them.
        codes: a `reasons.Code` for each reading of the frame, uint8, shape (n,).
        late: accepted readings that were older than the newest one of their series.
        gaps: silences longer than the stream's maxGap that ended with a reading of this frame.
        newest_ms: newest accepted timestamp, None where nothing was accepted.
    """

    accepted: Frame
    codes: ByteArray
    late: int
    gaps: int
    newest_ms: int | None

    @property
    def refused_rows(self) -> list[int]:
        """Row numbers of the readings that did not pass."""
        return np.flatnonzero(self.codes >= REFUSED).tolist()


class _Memory(msgspec.Struct, array_like=True):
    """The snapshot: arrays as little-endian bytes, rows in the order of ``keys``."""

    version: int
    capacity: int
    keys: list[SeriesKey]
    count: bytes
    forgotten: bytes
    recent: bytes  # each row sorted, oldest first, unused places at its end


class Validator:
    """Judges frames of one source against the contract of a stream; one thread at a time.

    Args:
        stream: tenants, lateness, maxGap, future and the metrics' contracts come from its spec.
        table: the process's series; every frame must belong to it.
        clock: "now" for timestamps from the future.
        check_future: False for simulations, which may run ahead of the clock.
    """

    def __init__(self, stream: MetricStream, table: SeriesTable, clock: Clock, *, check_future: bool = True) -> None:
        spec = stream.spec
        self.check_future = check_future
        self._stream = stream.metadata.name
        self._spec = spec
        self._table = table
        self._clock = clock
        self._tenants = frozenset(spec.tenants)
        self._bounds = {metric.name: metric.bounds for metric in spec.metrics}
        self._capacity = _capacity(spec.lateness_ms, spec.interval)
        self._known = 0
        self._allocate(64)

    def check(self, frame: Frame, now_ms: int | None = None) -> Verdict:
        """Judge ``frame``; ``now_ms`` replaces the clock's now where a replay must judge as the first run did."""
        if frame.table is not self._table:
            raise ValueError("the frame belongs to another series table than the validator: build it on the same one")
        self._meet(len(self._table))
        codes = np.zeros(len(frame), np.uint8)
        latest_ms = NO_LIMIT
        if self.check_future:
            latest_ms = (self._clock.now_ms() if now_ms is None else now_ms) + self._spec.future
        refused, late, gaps, newest = self._judge(frame, latest_ms, codes)
        accepted = frame if refused == 0 else frame.take(codes < REFUSED)
        return Verdict(accepted, codes, int(late), int(gaps), int(newest) if len(accepted) else None)

    def advance(self, frame: Frame) -> None:
        """Remember readings that an earlier run accepted, as if they had just been checked."""
        self._meet(len(self._table))
        self._judge(frame, NO_LIMIT, np.zeros(len(frame), np.uint8))

    def detail(self, frame: Frame, row: int, code: Code) -> str:
        """The sentence that explains why the reading at ``row`` was refused."""
        series = int(frame.series[row])
        key, value, timestamp = self._table[series], float(frame.value[row]), int(frame.timestamp[row])
        if code == Code.UNKNOWN_TENANT:
            return unknown_tenant_detail(key.tenant, self._stream, self._spec.tenants)
        if code == Code.NOT_FINITE:
            return not_finite_detail(repr(value))
        if code == Code.OUT_OF_BOUNDS:
            return bounds_detail(key, value, float(self._low[series]), float(self._high[series]))
        if code == Code.FUTURE:
            return (
                f"timestamp {iso(timestamp)} is more than {self._spec.future} ms ahead of the clock: "
                "set the producer's clock, or spec.future of the stream"
            )
        if code == Code.DUPLICATE:
            return f"{key.path} already has a reading at {iso(timestamp)}: the first one is kept"
        last = (self._head[series] + self._count[series] - 1) & (self._capacity - 1)
        return (
            f"timestamp {iso(timestamp)} is older than the lateness of {self._spec.lateness_ms} ms (or the "
            f"{self._capacity} newest readings) allows; the newest is {iso(int(self._recent[series, last]))}: "
            "send in time order, or raise spec.lateness of the stream"
        )

    def snapshot(self) -> bytes:
        """All that is remembered of the series seen so far, as versioned msgpack."""
        seen = np.flatnonzero(self._count[: self._known])
        ring: IntArray = np.arange(self._capacity, dtype=np.int32)
        places: IntArray = self._head[seen][:, np.newaxis] + ring
        places &= self._capacity - 1
        memory = _Memory(
            1,
            self._capacity,
            [self._table[series] for series in seen.tolist()],
            self._count[seen].astype("<i4").tobytes(),
            self._forgotten[seen].astype("<i8").tobytes(),
            np.take_along_axis(self._recent[seen], places, axis=1).astype("<i8").tobytes(),
        )
        return msgspec.msgpack.encode(memory)

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        try:
            memory = msgspec.msgpack.decode(state, type=_Memory)
        except msgspec.DecodeError as error:
            raise ValueError(f"this is no validation state ({error}): remove it to begin anew") from None
        if memory.version != 1:
            raise ValueError(f"validation state has version {memory.version}, this release reads 1: upgrade first")
        series = self._table.ids_of(memory.keys)
        self._known = 0
        self._allocate(max(64, len(self._table)))
        self._meet(len(self._table))
        count = np.frombuffer(memory.count, "<i4").astype(np.int32)
        forgotten = np.frombuffer(memory.forgotten, "<i8").astype(np.int64)
        recent = np.frombuffer(memory.recent, "<i8").reshape(len(series), memory.capacity)
        keep = np.minimum(count, self._capacity)  # the stream's lateness may have changed since
        for row, s in enumerate(series.tolist()):
            n, kept = int(count[row]), int(keep[row])
            self._recent[s, :kept] = recent[row, n - kept : n]
            self._forgotten[s] = max(forgotten[row], recent[row, n - kept - 1]) if n > kept else forgotten[row]
        self._count[series] = keep

    def _judge(self, frame: Frame, latest_ms: int, codes: ByteArray) -> tuple[int, int, int, int]:
        verdict: tuple[int, int, int, int] = kernels.check(
            frame.series, frame.timestamp, frame.value, self._allowed, self._low, self._high,
            self._recent, self._head, self._count, self._forgotten,
            self._spec.lateness_ms, self._spec.max_gap * self._spec.interval, latest_ms, codes,
        )  # fmt: skip
        return verdict

    def _meet(self, total: int) -> None:
        """Make room for the series that the table has learned since."""
        if total > len(self._count):
            self._grow(max(total, 2 * len(self._count)))
        for series in range(self._known, total):
            key = self._table[series]
            self._allowed[series] = key.tenant in self._tenants
            self._low[series], self._high[series] = self._bounds.get(key.metric, (-np.inf, np.inf))
        self._known = total

    def _allocate(self, size: int) -> None:
        self._allowed: BoolArray = np.zeros(size, np.bool_)
        self._low: FloatArray = np.full(size, -np.inf)
        self._high: FloatArray = np.full(size, np.inf)
        self._recent: TimeArray = np.zeros((size, self._capacity), np.int64)
        self._head: IntArray = np.zeros(size, np.int32)
        self._count: IntArray = np.zeros(size, np.int32)
        self._forgotten: TimeArray = np.full(size, kernels.NEVER)

    def _grow(self, size: int) -> None:
        old = self._columns()
        self._allocate(size)
        for before, after in zip(old, self._columns(), strict=True):
            after[: len(before)] = before

    def _columns(self) -> list[npt.NDArray[Any]]:
        return [self._allowed, self._low, self._high, self._recent, self._head, self._count, self._forgotten]


def _capacity(lateness_ms: int, interval_ms: int) -> int:
    """How many timestamps to remember: a power of two that holds twice the lateness at the stream's interval."""
    wanted = min(max(2 * (lateness_ms // interval_ms + 1), MIN_REMEMBERED), MAX_REMEMBERED)
    return 1 << (wanted - 1).bit_length()


class Rejections:
    """Turns what did not pass into events, with ids that a replay gives again."""

    def __init__(self, stream: str, source: str) -> None:
        self._stream = stream
        self._source = source

    def of(self, batch: Batch, verdict: Verdict, validator: Validator, place: str, now_ms: int) -> list[Rejection]:
        """Everything of ``batch`` that was refused: first by its source, then by validation.

        Args:
            batch: as the source gave it.
            verdict: of its frame.
            validator: that gave the verdict.
            place: what is this batch's own among all of the source, its position for one.
            now_ms: when it was received.
        """
        refused = [self._parsed(item, f"{place}#r{row}", now_ms) for row, item in enumerate(batch.refused)]
        for row in verdict.refused_rows:
            code = Code(int(verdict.codes[row]))
            key = batch.frame.table[int(batch.frame.series[row])]
            value = float(batch.frame.value[row])
            refused.append(
                Rejection(
                    id=stable_id(self._stream, self._source, place, row, code.reason),
                    stream=self._stream,
                    source=self._source,
                    reason=code.reason,
                    detail=validator.detail(batch.frame, row, code),
                    origin=batch.origins[row] if batch.origins is not None else f"{batch.origin} row {row}".strip(),
                    received_at=now_ms,
                    tenant=key.tenant,
                    cluster=key.cluster,
                    node=key.node,
                    metric=key.metric,
                    timestamp=int(batch.frame.timestamp[row]),
                    value=value if np.isfinite(value) else None,
                )
            )
        return refused

    def _parsed(self, item: Refused, place: str, now_ms: int) -> Rejection:
        fields = item.fields
        timestamp, value = fields.get("timestamp"), fields.get("value")
        names = {name: str(fields[name]) for name in ("tenant", "cluster", "node", "metric") if fields.get(name)}
        return Rejection(
            id=stable_id(self._stream, self._source, place, item.reason),
            stream=self._stream,
            source=self._source,
            reason=item.reason,
            detail=item.detail,
            origin=item.origin,
            received_at=now_ms,
            timestamp=timestamp if isinstance(timestamp, int) else None,
            value=value if isinstance(value, float) and np.isfinite(value) else None,
            raw=item.raw,
            **names,
        )
