"""Readings in tables: which columns mean what, and whole batches of columns into frames at once.

Three shapes: *long* has ``metric`` and ``value``; *wide* has a column a metric; ``timestamp,value`` is
wide with one metric called value. ``tenant``, ``cluster`` and ``node`` may be columns, or are the
source's own. ``label`` or ``is_anomaly`` is truth for evaluation, never a metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tidewarden.events import AnomalyKind
from tidewarden.frames import ByteArray, FloatArray, Frame, IntArray, TimeArray
from tidewarden_services.ingest.reasons import MISSING_FIELD, WRONG_TYPE
from tidewarden_services.ingest.sources.columns import Columns, Refusal, SeriesIndex
from tidewarden_services.ingest.sources.times import LAST_MS, SECONDS_BELOW, timestamp_ms

TIME_NAMES = ("timestamp", "time", "datetime", "ts", "date")
LABEL_NAMES = ("label", "is_anomaly")
KIND_NAMES = ("kind", "anomaly_kind", "anomaly_type")
PLACE_NAMES = ("tenant", "cluster", "node")
NULLS = frozenset({"", "nan", "null", "none", "na", "n/a", "-nan"})  # what spreadsheets and data frames write

Value = str | int | float | bool | None


class UnfitError(Exception):
    """A batch cannot be converted as a whole; row by row will say which rows are to blame."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Which column of a table means what.

    Attributes:
        timestamp: column of the time.
        metrics: wide: the columns of values. Empty in a long table.
        metric: long: the column of the metric's name.
        value: long: the column of the value.
        places: columns of tenant, cluster and node, as far as there are any.
        defaults: tenant, cluster and node of rows that name none; an empty text means that they must.
        label: column of the truth, if any.
        kind: column of the kind of anomaly, next to a label.
    """

    timestamp: str
    metrics: tuple[str, ...]
    metric: str | None
    value: str | None
    places: dict[str, str]
    defaults: dict[str, str]
    label: str | None
    kind: str | None

    @classmethod
    def of(cls, names: list[str], defaults: dict[str, str]) -> Layout:
        """The layout of a table with these columns; ValueError names what is missing, and what is there."""
        by_word = {name.strip().lower(): name for name in reversed(names)}
        listed = ", ".join(names[:20])
        timestamp = next((by_word[word] for word in TIME_NAMES if word in by_word), None)
        if timestamp is None:
            raise ValueError(f"no column is called timestamp (there are: {listed}): name the column of the time so")
        places = {word: by_word[word] for word in PLACE_NAMES if word in by_word}
        label = next((by_word[word] for word in LABEL_NAMES if word in by_word), None)
        kind = next((by_word[word] for word in KIND_NAMES if word in by_word), None) if label is not None else None
        metric, value = by_word.get("metric"), by_word.get("value")
        metrics: tuple[str, ...] = ()
        if metric is None or value is None:
            metric = value = None
            special = {timestamp, *places.values(), label, kind}
            special |= {by_word[word] for word in LABEL_NAMES if word in by_word}
            metrics = tuple(name for name in names if name not in special)
            if not metrics:
                raise ValueError(f"no column holds values (there are: {listed}): add metric and value, or one a metric")
        return cls(timestamp, metrics, metric, value, places, defaults, label, kind)

    @property
    def readings_per_row(self) -> int:
        """How many readings one row holds."""
        return max(1, len(self.metrics))


def take_batch(batch: pa.RecordBatch, layout: Layout, index: SeriesIndex) -> tuple[Frame, IntArray]:
    """A batch as a frame, and the row of each reading; `UnfitError` where anything in it is amiss."""
    try:
        timestamp = _times(batch.column(layout.timestamp))
        label = None if layout.label is None else _labels(batch, layout)
        if layout.metric is not None and layout.value is not None:
            series = _series_long(batch, layout, index)
            return Frame(index.table, series, timestamp, _floats(batch.column(layout.value)), label), _count(len(batch))
        width = len(layout.metrics)
        series = _series_wide(batch, layout, index).ravel()
        value = np.stack([_floats(batch.column(metric)) for metric in layout.metrics], axis=1).ravel()
    except (pa.ArrowException, Refusal, ValueError, KeyError, TypeError, OverflowError) as error:
        raise UnfitError(str(error)) from None
    label = None if label is None else np.repeat(label, width)
    return Frame(index.table, series, np.repeat(timestamp, width), value, label), np.repeat(_count(len(batch)), width)


def take_row(row: dict[str, Value], layout: Layout, columns: Columns, number: int, raw: str) -> None:
    """One row, the slow and exact way: what is right of it is taken, what is wrong is refused by name."""
    fields: dict[str, object] = {}
    try:
        for word in PLACE_NAMES:
            fields[word] = _name(row, layout.places.get(word), word, layout.defaults)
        fields["timestamp"] = _row_time(row.get(layout.timestamp))
        cells: dict[str, Value]
        if layout.metric is not None and layout.value is not None:
            cells = {_name(row, layout.metric, "metric", {}): row.get(layout.value)}
        else:
            cells = {metric: row.get(metric) for metric in layout.metrics}
        label = 0 if layout.label is None else _row_label(row, layout)
    except Refusal as refusal:
        refusal.fields.update(fields)
        columns.refuse(number, refusal, raw)
        return
    for metric, cell in cells.items():
        try:
            value = _row_value(metric, cell)
            series = columns.index.id_of(str(fields["tenant"]), str(fields["cluster"]), str(fields["node"]), metric)
        except Refusal as refusal:
            refusal.fields.update(fields, metric=metric)
            columns.refuse(number, refusal, raw)
            continue
        columns.add(number, series, _row_time(row.get(layout.timestamp)), value)
        if columns.label is not None:
            columns.label.append(label)


# --- whole columns -------------------------------------------------------------------------------


def _count(rows: int) -> IntArray:
    return np.arange(rows, dtype=np.int32)


def _times(column: pa.Array) -> TimeArray:
    if column.null_count:
        raise ValueError("a timestamp is missing")
    if pa.types.is_dictionary(column.type):
        places: IntArray = column.indices.to_numpy(zero_copy_only=False)
        return _times(column.dictionary)[places]
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _times_of_text(pc.utf8_trim_whitespace(column))
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        ticks: TimeArray = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
        per_second = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}[column.type.unit]
        ms = ticks * 1000 if per_second == 1 else ticks // (per_second // 1000)
    elif pa.types.is_integer(column.type):
        ticks = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
        ms = np.where(np.abs(ticks) < SECONDS_BELOW, ticks * 1000, ticks)
    else:
        numbers: FloatArray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        if not np.isfinite(numbers).all():
            raise ValueError("a timestamp is not finite")
        ms = np.rint(np.where(np.abs(numbers) < SECONDS_BELOW, numbers * 1000, numbers)).astype(np.int64)
    if len(ms) and (ms.min() < -LAST_MS or ms.max() > LAST_MS):
        raise ValueError("a timestamp is beyond the calendar")
    return ms.astype(np.int64)


def _times_of_text(column: pa.Array) -> pa.Array:
    for target in (pa.int64(), pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.float64()):
        try:
            return column.cast(target)
        except pa.ArrowInvalid:
            continue
    raise ValueError("a timestamp cannot be read")


def _floats(column: pa.Array) -> FloatArray:
    """Values; null is NaN, which is missing, and in binary columns NaN means the same."""
    if pa.types.is_boolean(column.type) or pa.types.is_temporal(column.type):
        raise TypeError("values are numbers")
    if pa.types.is_decimal(column.type) or not pa.types.is_floating(column.type):
        column = column.cast(pa.float64())
    return np.array(column.to_numpy(zero_copy_only=False), np.float64)


def _labels(batch: pa.RecordBatch, layout: Layout) -> ByteArray:
    label = batch.column(layout.label)
    names = label.to_pylist()
    kinds = [None] * len(names) if layout.kind is None else batch.column(layout.kind).to_pylist()
    pairs = {pair: label_of(*pair) for pair in set(zip(names, kinds, strict=True))}
    return np.array([pairs[pair] for pair in zip(names, kinds, strict=True)], np.uint8)


def _series_wide(batch: pa.RecordBatch, layout: Layout, index: SeriesIndex) -> IntArray:
    codes, nodes = _nodes(batch, layout)
    ids = [[_id_of(index, node, metric) for metric in layout.metrics] for node in nodes]
    return np.array(ids, np.int32)[codes]


def _series_long(batch: pa.RecordBatch, layout: Layout, index: SeriesIndex) -> IntArray:
    codes, nodes = _nodes(batch, layout)
    metric_codes, metrics = _encoded(batch.column(layout.metric))
    pairs, inverse = _distinct(codes * len(metrics) + metric_codes, len(nodes) * len(metrics))
    ids = [_id_of(index, nodes[pair // len(metrics)], metrics[pair % len(metrics)]) for pair in pairs.tolist()]
    return np.array(ids, np.int32)[inverse]


def _id_of(index: SeriesIndex, node: tuple[str, str, str], metric: str) -> int:
    return index.id_of(node[0], node[1], node[2], metric)


def _nodes(batch: pa.RecordBatch, layout: Layout) -> tuple[npt.NDArray[np.int64], list[tuple[str, str, str]]]:
    """Distinct (tenant, cluster, node) of a batch, and for each row which of them it is."""
    codes = np.zeros(len(batch), np.int64)
    nodes: list[tuple[str, ...]] = [()]
    for word in PLACE_NAMES:
        column = layout.places.get(word)
        if column is None:
            nodes = [(*node, layout.defaults[word]) for node in nodes]
            continue
        own, names = _encoded(batch.column(column), layout.defaults[word])
        pairs, codes = _distinct(codes * len(names) + own, len(nodes) * len(names))
        nodes = [(*nodes[pair // len(names)], names[pair % len(names)]) for pair in pairs.tolist()]
    return codes, [(tenant, cluster, node) for tenant, cluster, node in nodes]


def _encoded(column: pa.Array, default: str = "") -> tuple[npt.NDArray[np.int64], list[str]]:
    """Codes of a column of names, and the names; several codes may mean the same name."""
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    names = [("" if name is None else str(name).strip()) or default for name in column.dictionary.to_pylist()]
    codes = column.indices.cast(pa.int64())
    if codes.null_count:
        codes = codes.fill_null(len(names))
        names.append(default)
    return codes.to_numpy(zero_copy_only=False), names


def _distinct(codes: npt.NDArray[np.int64], size: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Like `numpy.unique` with inverse, without its sort where the codes are small numbers below ``size``."""
    if size > 4 * len(codes) + 1024:
        values, inverse = np.unique(codes, return_inverse=True)
        return values, inverse
    present = np.zeros(size, np.bool_)
    present[codes] = True
    place = np.cumsum(present) - 1
    return np.flatnonzero(present), place[codes]


# --- one row -------------------------------------------------------------------------------------


def _name(row: dict[str, Value], column: str | None, word: str, defaults: dict[str, str]) -> str:
    given = None if column is None else row.get(column)
    name = "" if given is None else str(given).strip()
    name = name or defaults.get(word, "")
    if not name:
        raise Refusal(MISSING_FIELD, f"{word} is absent: every reading names its {word}")
    return name


def _row_time(value: Value) -> int:
    if value is None or value == "":
        raise Refusal(MISSING_FIELD, "timestamp is absent: every reading has one")
    try:
        return timestamp_ms(value)
    except ValueError as error:
        raise Refusal(WRONG_TYPE, str(error)) from None


def _row_value(metric: str, cell: Value) -> float:
    if cell is None:
        return math.nan
    if isinstance(cell, str):
        text = cell.strip()
        if text.lower() in NULLS:
            return math.nan
        try:
            if "_" in text:
                raise ValueError(text)
            return float(text)
        except ValueError:
            shown = text if len(text) <= 80 else text[:80] + "…"
            raise Refusal(
                WRONG_TYPE, f"{metric} is {shown!r}: write a number, or nothing where it is missing"
            ) from None
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        raise Refusal(WRONG_TYPE, f"{metric} is {cell!r}: write a number, or nothing where it is missing")
    return float(cell)


def _row_label(row: dict[str, Value], layout: Layout) -> int:
    try:
        return label_of(row.get(layout.label or ""), row.get(layout.kind or ""))
    except ValueError as error:
        raise Refusal(WRONG_TYPE, str(error)) from None


def label_of(label: Value, kind: Value = None) -> int:
    """The `events.AnomalyKind` number of a truth cell: a boolean, 0 or 1, or the name of a kind."""
    text = "" if label is None else str(label).strip().lower()
    if text in {"", "0", "0.0", "false", "no", "normal", "none", "nan"}:
        return 0
    if text in {"1", "1.0", "true", "yes", "anomaly"}:
        name = "" if kind is None else str(kind).strip().lower()
        return int(AnomalyKind.parse(name)) if name and name != "none" else int(AnomalyKind.UNSPECIFIED)
    return int(AnomalyKind.parse(text))
