"""One detector against the truth of one simulation or labelled file, as the figures people compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from tidewarden.evaluate.curves import average_precision, default_window, vus_pr
from tidewarden.evaluate.events import DAY_MS, TOLERANCE_INTERVALS, Intervals, Match, join, match, truth_events
from tidewarden.events import Anomaly
from tidewarden.frames import LEARNING, FloatArray, SeriesKey, TimeArray

if TYPE_CHECKING:
    import pyarrow as pa


class Evaluation(msgspec.Struct, kw_only=True, frozen=True):
    """What a detector did with events whose truth is known.

    A figure that has no meaning is None: precision without a report, recall without an event, delay
    without a find. Readings that a model was still learning on are left out of everything, and counted.
    """

    detector: str
    simulation: str
    precision: float | None  # events found / (events found + false alarms)
    recall: float | None  # events found / events
    f1: float | None
    vus_pr: float | None  # mean over the series that have an event
    auc_pr: float | None  # mean over the series that have an event
    delay_median_s: float | None  # from an event's start to the onset of its first detection
    false_alarms_per_day: float | None  # of the whole detector, over the time that was scored
    events: int
    detected: int
    false_alarms: int
    series: int  # labelled series that had readings past their warm-up
    readings: int  # of those, past the warm-up
    learning: int  # readings left out because the model was still learning


class LabelledSeries(NamedTuple):
    """One series with its truth and its scores, in time order, without what was learned on; arrays (n,)."""

    timestamp: TimeArray
    label: npt.NDArray[np.uint8]
    score: FloatArray
    detections: Intervals  # (m, 2) onset and end of the anomalies reported


def evaluate(
    series: Sequence[LabelledSeries],
    *,
    detector: str,
    simulation: str,
    interval_ms: int,
    learning: int = 0,
    tolerance_intervals: int = TOLERANCE_INTERVALS,
) -> Evaluation:
    """The figures over ``series``.

    Events are matched within each series and then counted together. AUC-PR and VUS-PR are taken series
    by series, since scores are calibrated for each, and averaged over the series that have an event;
    VUS-PR's window is the series' median event length in readings, at most 300. False alarms a day are
    those of all series together over the time from the first scored reading to the last.

    Args:
        series: what to judge; those without an event still count for false alarms.
        detector: name for the report.
        simulation: name for the report.
        interval_ms: expected spacing of the readings.
        learning: readings that were left out, for the report.
        tolerance_intervals: a detection this many intervals behind an event's end still finds it.
    """
    present = [one for one in series if len(one.timestamp)]
    matches = []
    volumes = []
    areas = []
    for one in present:
        truth = truth_events(one.timestamp, one.label)
        matches.append(match(truth, one.detections, tolerance_intervals * interval_ms))
        if len(truth):
            areas.append(average_precision(one.label, one.score))
            volumes.append(vus_pr(one.label, one.score, default_window(one.label)))
    together: Match = join(matches)
    days = 0.0
    if present:
        first = min(int(one.timestamp[0]) for one in present)
        last = max(int(one.timestamp[-1]) for one in present)
        days = (last - first + interval_ms) / DAY_MS
    false_alarms = int(together.false_alarm.sum())
    return Evaluation(
        detector=detector,
        simulation=simulation,
        precision=together.precision,
        recall=together.recall,
        f1=together.f1,
        vus_pr=float(np.mean(volumes)) if volumes else None,
        auc_pr=float(np.mean(areas)) if areas else None,
        delay_median_s=together.delay_median_s,
        false_alarms_per_day=false_alarms / days if days else None,
        events=len(together.found),
        detected=int(together.found.sum()),
        false_alarms=false_alarms,
        series=len(present),
        readings=sum(len(one.timestamp) for one in present),
        learning=learning,
    )


def latest_revisions(anomalies: Iterable[Anomaly]) -> list[Anomaly]:
    """Each anomaly once, in its newest revision, by onset."""
    newest: dict[str, Anomaly] = {}
    for anomaly in anomalies:
        known = newest.get(anomaly.id)
        if known is None or anomaly.revision > known.revision:
            newest[anomaly.id] = anomaly
    return sorted(newest.values(), key=lambda anomaly: (anomaly.onset, anomaly.id))


def _detections(anomalies: Iterable[Anomaly], detector: str) -> Mapping[SeriesKey, Intervals]:
    spans: dict[SeriesKey, list[tuple[int, int]]] = defaultdict(list)
    for anomaly in latest_revisions(one for one in anomalies if one.detector == detector):
        spans[anomaly.series].append((anomaly.onset, anomaly.end))
    return {key: np.array(pairs, np.int64) for key, pairs in spans.items()}


def _series_ids(readings: pa.Table) -> tuple[list[SeriesKey], npt.NDArray[np.int64]]:
    """Distinct series of the table and the index of each row's, shape (n,)."""
    import pyarrow as pa

    code = np.zeros(readings.num_rows, np.int64)
    names: list[list[str]] = []
    for column in ("tenant", "cluster", "node", "metric"):
        encoded = readings[column].combine_chunks()
        if not isinstance(encoded, pa.DictionaryArray):
            encoded = encoded.dictionary_encode()
        names.append(encoded.dictionary.to_pylist())
        code = code * max(len(names[-1]), 1) + encoded.indices.to_numpy(zero_copy_only=False)
    distinct, ids = np.unique(code, return_inverse=True)
    keys = []
    for number in distinct.tolist():
        parts = []
        for values in reversed(names):
            number, index = divmod(number, len(values))  # noqa: PLW2901  # peels off one column after the other
            parts.append(values[index])
        keys.append(SeriesKey(*reversed(parts)))
    return keys, ids.astype(np.int64)


def evaluate_table(
    readings: pa.Table, anomalies: Iterable[Anomaly], detector: str, simulation: str, interval_ms: int
) -> Evaluation:
    """The figures of one detector from the columns of `Store.readings` and its anomalies.

    A series counts if any of its readings carries a label; anomalies of other series are not looked at.
    Rows that another detector scored, that have no score, or that the model was still learning on are
    left out; what was learned on is counted in ``learning``. An event that began while the model was
    learning counts from its first scored reading. Absent readings have no label of their own and count
    as normal unless they stand in the row of a labelled, empty reading.

    Args:
        readings: tenant, cluster, node, metric, timestamp (int64 ms), label (uint8 or null), detector,
            anomaly_score, flags; further columns are ignored.
        anomalies: all revisions or only the newest; those of other detectors are ignored.
        detector: name of the AnomalyDetector.
        simulation: name of the MetricSimulation, for the report.
        interval_ms: expected spacing of the stream's readings.
    """
    import pyarrow.compute as pc

    if "detector" in readings.column_names:
        readings = readings.filter(pc.equal(readings["detector"], detector))
    keys, ids = _series_ids(readings)
    timestamp = readings["timestamp"].to_numpy().astype(np.int64)
    labelled = readings["label"].is_valid().to_numpy(zero_copy_only=False).astype(np.bool_)
    label = readings["label"].fill_null(0).to_numpy().astype(np.uint8)
    score = readings["anomaly_score"].to_numpy(zero_copy_only=False).astype(np.float64)
    flags = readings["flags"].fill_null(0).to_numpy().astype(np.uint8)
    watched = np.zeros(len(keys), np.bool_)
    watched[ids[labelled]] = True
    counts = watched[ids] if len(keys) else np.zeros(0, np.bool_)
    learned = counts & ((flags & LEARNING) != 0)
    rows = np.flatnonzero(counts & ~learned & ~np.isnan(score))
    rows = rows[np.lexsort((timestamp[rows], ids[rows]))]
    detections = _detections(anomalies, detector)
    nothing = np.zeros((0, 2), np.int64)
    cuts = np.searchsorted(ids[rows], np.arange(len(keys) + 1))
    series = []
    for number, key in enumerate(keys):
        part = rows[cuts[number] : cuts[number + 1]]
        series.append(LabelledSeries(timestamp[part], label[part], score[part], detections.get(key, nothing)))
    return evaluate(
        series, detector=detector, simulation=simulation, interval_ms=interval_ms, learning=int(learned.sum())
    )
