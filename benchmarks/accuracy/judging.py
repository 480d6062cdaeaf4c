"""From scores to figures: what is kept of one detector on one case.

Everyone is judged by the same rules. Curves (AUC-PR, VUS-PR) are taken of the score as a user sees it, in [0, 1], and
once more of its trailing mean over `SMOOTH` readings. Events are matched at a row of thresholds of −log10 p, so that
the summary can ask what a detector finds at a given rate of false alarms over a whole set, and at the threshold that
the budget asks for by itself (the last of the row).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy.sets import Case, as_one, labels_by_series
from tidewarden.evaluate.curves import average_precision, runs, vus_pr
from tidewarden.evaluate.events import DAY_MS, TOLERANCE_INTERVALS, match, truth_events
from tidewarden.frames import ByteArray, FloatArray
from tidewarden.scoring.calibration import Calibrator
from tidewarden.scoring.decision import DECADES

SMOOTH = 15  # readings of the trailing mean
QUIET = 10  # calm readings that close an anomaly, as Alerting.quiet
WEEK_MS = 7 * DAY_MS
# −log10 p; where alarms are counted. The threshold of the budget is put behind them.
THRESHOLDS = np.concatenate([np.arange(2.0, 6.0, 0.2), np.arange(6.0, 12.1, 0.5)])


class Scored(NamedTuple):
    """What a detector said of a case, rows before the judged ones left out.

    Attributes:
        score: as a user sees it, higher is more anomalous, (n, s) for s judged series or nodes.
        log10_p: −log10 of the calibrated p-value, (n, s); None where nothing was calibrated.
        kind: `AnomalyKind` said of each reading, (n, s); None where it says none.
    """

    score: FloatArray
    log10_p: FloatArray | None = None
    kind: ByteArray | None = None


class Figures(NamedTuple):
    """Kept for the summary; s series or nodes with an event, e events, g thresholds, the budget's the last."""

    auc_pr: FloatArray  # (s,)
    vus_pr: FloatArray  # (s,)
    auc_pr_smooth: FloatArray  # (s,)
    vus_pr_smooth: FloatArray  # (s,)
    delay: npt.NDArray[np.float32]  # (g, e), readings; NaN where the event was not found; g = 0 without p-values
    false_alarms: npt.NDArray[np.int32]  # (g,)
    weeks: FloatArray  # (1,), judged series × weeks
    kind: ByteArray  # (e,) of the truth
    said: ByteArray  # (e,) what the detector said it was, at its own threshold; 0: not found
    score: npt.NDArray[np.float32]  # (n,) of NAB's files, for the corpus score; else empty


def smoothed(score: FloatArray) -> FloatArray:
    """Trailing mean over `SMOOTH` rows of (n, s); the first rows over what there is."""
    filled = np.nan_to_num(score)
    # No running sum: after one huge score, small ones would be lost in its rounding.
    total = np.zeros_like(filled)
    for back in range(min(SMOOTH, len(filled))):
        total[back:] += filled[: len(filled) - back]
    count = np.minimum(np.arange(1, len(filled) + 1), SMOOTH)[:, None]
    mean: FloatArray = total / count
    return mean


def budget_log10_p(interval_ms: int) -> float:
    """The threshold that one false alarm a week and series asks for: one reading of a week's."""
    return math.log10(WEEK_MS / interval_ms)


def detections(above: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """First and last row (m, 2) of runs above the threshold; at most `QUIET` calm rows between two join them."""
    found = runs(above)
    if len(found) > 1:
        apart = found[1:, 0] - found[:-1, 1] > QUIET + 1
        found = np.stack([found[np.append(True, apart), 0], found[np.append(apart, True), 1]], axis=1)
    return found


def node_log10_p(score: FloatArray) -> FloatArray:
    """Calibrated −log10 p (n,) of a node's score, over train and test: a mean of opinions is no p-value by itself."""
    calibrator = Calibrator()
    calibrator.resize(1)
    surprise = np.nan_to_num(score) * DECADES * math.log(10.0)
    return calibrator.observe(np.zeros(len(score), np.int32), surprise, np.ones(len(score), np.bool_))


def judge(case: Case, scored: Scored) -> Figures:
    """The figures of ``scored``, whose rows are those of ``case.values``."""
    start = 0 if case.train is not None else as_one(case)[2]
    labels = labels_by_series(case)[start:]
    score = scored.score[start:]
    if scored.score.shape != (len(case.values), labels.shape[1]):
        raise ValueError(f"{case.set}/{case.name}: scores {scored.score.shape}, expected {labels.shape}")
    curves: list[tuple[float, float, float, float]] = []
    calm = smoothed(scored.score)[start:]
    for column in np.flatnonzero(labels.any(axis=0)):
        truth = labels[:, column]
        curves.append(
            (
                average_precision(truth, score[:, column]),
                vus_pr(truth, score[:, column]),
                average_precision(truth, calm[:, column]),
                vus_pr(truth, calm[:, column]),
            )
        )
    table = np.array(curves).reshape(-1, 4)
    delay, false_alarms, kind, said = _events(case, scored, labels, start)
    return Figures(
        table[:, 0],
        table[:, 1],
        table[:, 2],
        table[:, 3],
        delay,
        false_alarms,
        np.array([labels.size * case.interval_ms / WEEK_MS]),
        kind,
        said,
        scored.score[:, 0].astype(np.float32) if case.windows is not None else np.zeros(0, np.float32),
    )


def _events(
    case: Case, scored: Scored, labels: ByteArray, start: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32], ByteArray, ByteArray]:
    """Delays (g, e), false alarms (g,), true kinds (e,) and said kinds (e,). Time is counted in rows here."""
    rows = np.arange(len(labels), dtype=np.int64)
    asked = [] if scored.log10_p is None else [*THRESHOLDS, budget_log10_p(case.interval_ms)]
    levels = np.array(asked)
    events = [truth_events(rows, labels[:, column]) for column in range(labels.shape[1])]
    of_kind = [labels[spans[:, 0], column] for column, spans in enumerate(events)]
    kind = np.concatenate(of_kind).astype(np.uint8)
    delay = np.full((len(levels), len(kind)), np.nan, np.float32)
    false_alarms = np.zeros(len(levels), np.int32)
    said = np.zeros(len(kind), np.uint8)
    if scored.log10_p is None:
        return delay, false_alarms, kind, said
    first = 0
    for column, spans in enumerate(events):
        here = slice(first, first + len(spans))
        first += len(spans)
        rare = scored.log10_p[start:, column]
        for level, needed in enumerate(levels):
            found = match(spans, detections(rare >= needed), TOLERANCE_INTERVALS)
            delay[level, here] = found.delay_ms
            false_alarms[level] += int(found.false_alarm.sum())
        if scored.kind is not None:
            said[here] = [_said(scored.kind[start:, column], span) for span in spans]
    return delay, false_alarms, kind, said


def _said(kind: ByteArray, span: npt.NDArray[np.int64]) -> int:
    """The kind said most often within an event and its tolerance; 0 where none was."""
    within = kind[span[0] : span[1] + TOLERANCE_INTERVALS + 1]
    within = within[within > 0]
    return int(np.bincount(within).argmax()) if len(within) else 0
