"""Scores and truth of a file, brought together for `tidewarden.evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from tidewarden.evaluate.curves import runs
from tidewarden.evaluate.events import Intervals
from tidewarden.evaluate.report import Evaluation, LabelledSeries, evaluate
from tidewarden.frames import BoolArray, ByteArray, FloatArray, TimeArray
from tidewarden_cli.offline.reading import InputError, Readings

THRESHOLD = 0.8
QUIET = 10  # calm readings that close an anomaly, as AlertingSpec.quiet


def truth_of(scored: Readings, other: Readings | None) -> ByteArray:
    """A label for each reading of ``scored``, uint8 (n,), from its own file or from ``other``.

    Rows of the other file are matched by position where the two have equally many readings (or one row
    for each of ours), else by time.
    """
    source = scored if other is None else other
    if source.truth is None:
        raise InputError(
            f"{source.path}: has no label or is_anomaly column: give --truth FILE with one, or --windows FILE"
        )
    labels = source.truth[source.row]
    if other is None or len(labels) == len(scored):
        return labels
    if len(source.truth) == len(scored):
        return source.truth
    times, first = np.unique(source.timestamp, return_inverse=True)
    by_time = np.zeros(len(times), np.uint8)
    np.maximum.at(by_time, first, labels)
    at = np.minimum(np.searchsorted(times, scored.timestamp), len(times) - 1)
    if not len(times) or not (times[at] == scored.timestamp).all():
        raise InputError(
            f"{source.path}: its {len(labels)} readings match the {len(scored)} of {scored.path} neither in number "
            "nor in time: give the file that was scored"
        )
    return by_time[at]


def window_labels(timestamp: TimeArray, windows: Sequence[tuple[int, int]]) -> ByteArray:
    """1 inside of the inclusive windows (ms since the epoch), shape (n,)."""
    labels = np.zeros(len(timestamp), np.uint8)
    for start, end in windows:
        labels[(timestamp >= start) & (timestamp <= end)] = 1
    return labels


def written_scores(readings: Readings) -> tuple[FloatArray, BoolArray | None, BoolArray]:
    """Of an output of `score`: score, whether it is called an anomaly (None: not said), and what was learning."""
    table = readings.scores
    score = np.asarray(pc.cast(table["anomaly_score"], "float64").to_numpy(zero_copy_only=False), np.float64)
    above = None
    if "kind" in table.column_names:
        kinds = pc.fill_null(pc.cast(table["kind"], "string"), "none")
        above = np.asarray(pc.not_equal(kinds, "none").to_numpy(zero_copy_only=False), np.bool_)
    learning = np.zeros(len(score), np.bool_)
    if "expected" in table.column_names:
        blank = np.isnan(np.asarray(pc.cast(table["expected"], "float64").to_numpy(zero_copy_only=False), np.float64))
        if not blank.all():  # a model without expectation says nothing of its warm-up
            learning = leading(readings, blank)
    return score, above, learning


def leading(readings: Readings, blank: BoolArray) -> BoolArray:
    """Readings (n,) before the first of their series that is not blank."""
    begins = np.full(len(readings.keys), np.iinfo(np.int64).max)
    np.minimum.at(begins, readings.series[~blank], readings.timestamp[~blank])
    early: BoolArray = readings.timestamp < begins[readings.series]
    return early


def judge(
    readings: Readings,
    label: ByteArray,
    score: FloatArray,
    above: BoolArray,
    learning: BoolArray,
    detector: str,
    name: Path,
) -> Evaluation:
    """Figures over the series of a file; readings marked ``learning`` are left out and counted."""
    rows = np.flatnonzero(~learning & ~np.isnan(score))
    rows = rows[np.lexsort((readings.timestamp[rows], readings.series[rows]))]
    cuts = np.searchsorted(readings.series[rows], np.arange(len(readings.keys) + 1))
    series = []
    for number in range(len(readings.keys)):
        part = rows[cuts[number] : cuts[number + 1]]
        times = readings.timestamp[part]
        series.append(LabelledSeries(times, label[part], score[part], _detections(times, above[part])))
    return evaluate(
        series,
        detector=detector,
        simulation=name.name,
        interval_ms=readings.interval_ms,
        learning=int(learning.sum()),
    )


def _detections(timestamp: TimeArray, above: npt.NDArray[np.bool_]) -> Intervals:
    """Runs above the threshold; those with at most `QUIET` calm readings between them are one anomaly."""
    found = runs(above)
    if len(found) > 1:
        apart = found[1:, 0] - found[:-1, 1] > QUIET + 1
        found = np.stack([found[np.append(True, apart), 0], found[np.append(apart, True), 1]], axis=1)
    return timestamp[found].reshape(-1, 2)
