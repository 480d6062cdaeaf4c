"""Scoring arrays and data frames: the same code path as the stream, for `tidewarden.score`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from tidewarden.events import Anomaly, AnomalyKind
from tidewarden.frames import ABSENT, ByteArray, FloatArray, Frame, SeriesKey, SeriesTable, TimeArray
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.base import parse_duration
from tidewarden.resources.models import at_defaults
from tidewarden.scoring.scorer import Scorer, ScorerConfig

NEVER_READ = ("label", "is_anomaly")
START_MS = 1_704_067_200_000  # 2024-01-01, a Monday: where rows without timestamps begin
LEAST_ROWS_FOR_SPACING = 3


@dataclass(slots=True, eq=False)
class Scores:
    """Scores in the order and shape of the input: (n,) for one series, (n, m) for m metrics.

    Attributes:
        metrics: names of the m metrics; a plain array's only one is ``value``.
        timestamp: milliseconds since the epoch, UTC, shape (n,).
        value: the readings.
        anomaly_score: in [0, 1], 0 while the series learns.
        p_value: in (0, 1].
        expected: what the model expected, NaN while it learns.
        lower: lower end of the expected band, NaN while it learns.
        upper: upper end of the expected band, NaN while it learns.
        kind: an `events.AnomalyKind` where the score passed the threshold, else 0.
        flags: bits of `frames` (LEARNING, MISSING, LATE, ABOVE).
        anomalies: runs above the threshold, in their latest state, in order of their onset.
    """

    metrics: list[str]
    timestamp: TimeArray
    value: FloatArray
    anomaly_score: FloatArray
    p_value: FloatArray
    expected: FloatArray
    lower: FloatArray
    upper: FloatArray
    kind: ByteArray
    flags: ByteArray
    anomalies: list[Anomaly]

    def __len__(self) -> int:
        return len(self.timestamp)

    def to_arrow(self) -> Any:
        """A `pyarrow.Table` with one row per reading: timestamp, metric, value, scores, band, kind as text."""
        import pyarrow as pa

        m = len(self.metrics)
        columns: dict[str, Any] = {
            "timestamp": pa.array(np.repeat(self.timestamp, m), pa.timestamp("ms", tz="UTC")),
            "metric": np.tile(np.array(self.metrics, object), len(self)),
        }
        for field in fields(self):
            if field.name not in {"metrics", "timestamp", "anomalies"}:
                columns[field.name] = getattr(self, field.name).ravel()
        names = np.array([kind.label for kind in AnomalyKind], object)
        columns["kind"] = names[columns["kind"]]
        return pa.table(columns)


def score(
    data: Any,
    timestamps: Any = None,
    *,
    model: str | Mapping[str, Any] = "auto",
    interval: str | int | None = None,
    seasonality: Sequence[str | int] = ("1d",),
    threshold: float | None = None,
    warm: Any = None,
) -> Scores:
    """Scores of readings, each judged by what came before it; see `tidewarden.score`."""
    names, values, times = _columns(data)
    if timestamps is not None:
        times = timestamps
    step_ms = _interval_ms(times, interval)
    timestamp = _times(times, len(values), START_MS, step_ms)
    spec = AnomalyDetectorSpec.model_validate(
        {
            "stream": "offline",
            "model": at_defaults(model) if isinstance(model, str) else dict(model),
            "seasonality": list(seasonality),
            "alerting": {} if threshold is None else {"threshold": threshold},
        }
    )
    table = SeriesTable(SeriesKey("local", "default", "data", name) for name in names)
    scorer = Scorer(ScorerConfig("score", "offline", spec, step_ms, step_ms), table)
    if warm is not None:
        warm_names, warm_values, warm_times = _columns(warm)
        if warm_names != names:
            raise ValueError(f"warm has columns {warm_names}, data has {names}: they must agree")
        before = timestamp[0] - len(warm_values) * step_ms if len(timestamp) else START_MS
        scorer.score(_frame(table, warm_values, _times(warm_times, len(warm_values), int(before), step_ms)))
    scored = scorer.score(_frame(table, values, timestamp))
    rows = np.flatnonzero((scored.scores.flags & ABSENT) == 0)
    s = scored.scores.take(rows)
    shape = (len(values),) if np.ndim(data) == 1 and len(names) == 1 else values.shape
    latest = {anomaly.id: anomaly for anomaly in scored.anomalies}
    return Scores(
        names, timestamp, s.value.reshape(shape), s.anomaly_score.reshape(shape), s.p_value.reshape(shape),
        s.expected.reshape(shape), s.lower.reshape(shape), s.upper.reshape(shape),
        s.kind.reshape(shape), s.flags.reshape(shape),
        sorted(latest.values(), key=lambda anomaly: (anomaly.onset, anomaly.metric)),
    )  # fmt: skip


def _frame(table: SeriesTable, values: FloatArray, timestamp: TimeArray) -> Frame:
    n, m = values.shape
    return Frame(table, np.tile(np.arange(m, dtype=np.int32), n), np.repeat(timestamp, m), values.ravel())


def _columns(data: Any) -> tuple[list[str], FloatArray, Any]:
    """Metric names, values (n, m), and the column ``timestamp`` if there is one."""
    if isinstance(data, Mapping):
        columns = {str(name): np.asarray(column) for name, column in data.items()}
    elif hasattr(data, "__arrow_c_stream__") and hasattr(data, "columns"):
        import pyarrow as pa

        arrow = pa.table(data)
        columns = {name: arrow[name].to_numpy() for name in arrow.column_names}
    elif hasattr(data, "__dataframe__"):
        from pyarrow.interchange import from_dataframe

        arrow = from_dataframe(data)
        columns = {name: arrow[name].to_numpy() for name in arrow.column_names}
    else:
        array = np.asarray(data.to_numpy() if hasattr(data, "to_numpy") else data, np.float64)
        if array.ndim not in {1, 2}:
            raise ValueError(f"values have shape {array.shape}: give one series (n,) or one column a metric (n, m)")
        if array.ndim == 1:
            return ["value"], array[:, None], None
        return [f"m{i}" for i in range(array.shape[1])], array, None
    times = columns.pop("timestamp", None)
    names = [name for name in columns if name not in NEVER_READ]
    if not names:
        raise ValueError("no metric column: besides timestamp, label and is_anomaly the data must have some")
    lengths = {name: len(columns[name]) for name in names}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns differ in length: {lengths}")
    return names, np.stack([columns[name].astype(np.float64) for name in names], axis=1), times


def _times(times: Any, n: int, start_ms: int, step_ms: int) -> TimeArray:
    if times is None:
        return start_ms + np.arange(n, dtype=np.int64) * step_ms
    timestamp = _milliseconds(times)
    if len(timestamp) != n:
        raise ValueError(f"{len(timestamp)} timestamps for {n} rows of values")
    return timestamp


def _milliseconds(times: Any) -> TimeArray:
    """Integers are milliseconds since the epoch; everything else goes through datetime64, taken as UTC."""
    array = np.asarray(times.to_numpy() if hasattr(times, "to_numpy") else times)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f":
        raise ValueError("timestamps are floats: give integer milliseconds since the epoch, or datetimes")
    milliseconds: npt.NDArray[np.int64] = array.astype("datetime64[ms]").astype(np.int64)
    return milliseconds


def _interval_ms(times: Any, interval: str | int | None) -> int:
    if interval is not None:
        return parse_duration(interval)
    if times is None:
        return 60_000
    timestamp = _milliseconds(times)
    gaps = np.diff(timestamp)
    gaps = gaps[gaps > 0]
    return int(np.median(gaps)) if len(gaps) >= LEAST_ROWS_FOR_SPACING else 60_000
