"""What a version is learned from: readings of many series in time order, with labels where there are some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from tidewarden.frames import ABSENT, BoolArray, ByteArray, FloatArray, IntArray, SeriesKey, TimeArray
from tidewarden.registry.manifest import Period, Window
from tidewarden.resources.anomalydetector import Select

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULT_INTERVAL_MS = 60_000


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """Readings in time order; arrays (n,).

    Attributes:
        keys: the series.
        series: index into ``keys``.
        timestamp: ms since the epoch, ascending.
        value: NaN where missing.
        label: 0 where normal; None where nothing is labelled. Never shown to a model.
        interval_ms: expected spacing of a series' readings.
    """

    keys: list[SeriesKey]
    series: IntArray
    timestamp: TimeArray
    value: FloatArray
    label: ByteArray | None
    interval_ms: int

    def __len__(self) -> int:
        return len(self.series)

    @classmethod
    def of(
        cls,
        keys: list[SeriesKey],
        series: IntArray,
        timestamp: TimeArray,
        value: FloatArray,
        label: ByteArray | None,
        interval_ms: int | None = None,
    ) -> History:
        """Put readings in time order; without an interval the median spacing of a series' readings is taken."""
        order = np.argsort(timestamp, kind="stable")
        return cls(
            keys, series[order].astype(np.int32), timestamp[order], value[order],
            None if label is None else label[order],
            interval_ms or median_interval_ms(series, timestamp),
        )  # fmt: skip

    @classmethod
    def of_store(cls, readings: pa.Table, interval_ms: int) -> History:
        """Of the table that `Store.readings` gives: names, timestamp, value, label, flags."""
        import pyarrow.compute as pc

        names = ("tenant", "cluster", "node", "metric")
        # What the detector noticed to be absent is no reading; whoever learns from the others notices it again.
        absent = pc.not_equal(pc.bit_wise_and(pc.fill_null(pc.cast(readings["flags"], "int64"), 0), ABSENT), 0)
        readings = readings.filter(pc.invert(absent))
        joined = pc.binary_join_element_wise(*(pc.cast(readings[n], "string") for n in names), "\x1f")
        encoded = joined.combine_chunks().dictionary_encode()
        keys = [SeriesKey(*name.split("\x1f")) for name in encoded.dictionary.to_pylist()]
        label = None
        if readings["label"].null_count < readings.num_rows:
            label = np.asarray(readings["label"].fill_null(0).to_numpy()).astype(np.uint8)
        return cls.of(
            keys,
            np.asarray(encoded.indices.to_numpy(zero_copy_only=False)).astype(np.int32),
            np.asarray(readings["timestamp"].to_numpy()).astype(np.int64),
            np.asarray(readings["value"].to_numpy(zero_copy_only=False)).astype(np.float64),
            label,
            interval_ms,
        )

    @classmethod
    def join(cls, parts: Sequence[History]) -> History:
        """Several histories as one; series of one name are one series, the interval is the first one's."""
        keys: dict[SeriesKey, int] = {}
        series = []
        for part in parts:
            own = np.array([keys.setdefault(key, len(keys)) for key in part.keys], np.int32)
            series.append(own[part.series])
        labelled = any(part.label is not None for part in parts)
        labels = [np.zeros(len(p), np.uint8) if p.label is None else p.label for p in parts]
        return cls.of(
            list(keys),
            np.concatenate(series),
            np.concatenate([part.timestamp for part in parts]),
            np.concatenate([part.value for part in parts]),
            np.concatenate(labels) if labelled else None,
            parts[0].interval_ms,
        )

    def without(self, excluded: Sequence[Period]) -> History:
        """What lies in none of the periods."""
        keep = np.ones(len(self), np.bool_)
        for period in excluded:
            keep &= (self.timestamp < period.from_ms) | (self.timestamp >= period.until_ms)
        return self.take(keep)

    def selected(self, select: Select) -> History:
        """The readings that a detector watches; ValueError where it watches none of them."""
        wanted = np.array([select.matches(*key) for key in self.keys], np.bool_)
        if wanted.all():
            return self
        if not wanted.any():
            raise ValueError(
                f"spec.select matches none of the {len(self.keys)} series of the data, which are like "
                f"{'/'.join(self.keys[0])}: name other data, or another detector"
            )
        return self.of_series(wanted)

    def of_series(self, wanted: BoolArray) -> History:
        """The readings of some series, which keep their numbers; ``wanted`` has one entry a key."""
        return self.take(wanted[self.series])

    def take(self, rows: BoolArray | slice) -> History:
        """Some of the readings."""
        return replace(
            self, series=self.series[rows], timestamp=self.timestamp[rows], value=self.value[rows],
            label=None if self.label is None else self.label[rows],
        )  # fmt: skip

    def split_at(self, share: float) -> int:
        """Time at which the last ``share`` of the time span begins, ms since the epoch."""
        first, last = int(self.timestamp[0]), int(self.timestamp[-1])
        return last - int((last - first) * share)

    def window(self) -> Window:
        """What there is, for the manifest."""
        return Window(
            from_ms=int(self.timestamp[0]),
            to_ms=int(self.timestamp[-1]),
            readings=len(self),
            series=len(np.unique(self.series)),
            interval_ms=self.interval_ms,
        )


def median_interval_ms(series: IntArray, timestamp: TimeArray) -> int:
    """Median spacing of a series' readings; a minute where it cannot be told."""
    order = np.lexsort((timestamp, series))
    step = np.diff(timestamp[order])[np.diff(series[order]) == 0]
    step = step[step > 0]
    return max(1, int(np.median(step))) if len(step) else DEFAULT_INTERVAL_MS
