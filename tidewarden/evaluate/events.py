"""Truth and detections as events: what was found, how late, and what was cried over nothing.

A truth event is a run of labelled readings of one series. A detection is an interval [onset, end] of
that series. It finds every event whose interval, lengthened by a tolerance at its end, it overlaps:
the tolerance allows for anomalies that show only in their aftermath. Several detections of one event
count once; a detection that touches no event is a false alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tidewarden.evaluate.curves import runs
from tidewarden.frames import BoolArray, FloatArray, TimeArray

Intervals = npt.NDArray[np.int64]
"""Shape (k, 2): start and end of each, inclusive, ms since the epoch, ascending."""

DAY_MS = 86_400_000
TOLERANCE_INTERVALS = 3


class Match(NamedTuple):
    """Truth and detections of one series, or of several joined together."""

    found: BoolArray  # (events,): some detection touched it
    delay_ms: FloatArray  # (events,): first detection's onset after the event's start, ≥ 0; NaN where not found
    false_alarm: BoolArray  # (detections,)

    @property
    def precision(self) -> float | None:
        """Events found / (events found + false alarms); None where nothing was reported."""
        reported = int(self.found.sum()) + int(self.false_alarm.sum())
        return float(self.found.sum()) / reported if reported else None

    @property
    def recall(self) -> float | None:
        """Events found / events; None where there is no event."""
        return float(self.found.mean()) if len(self.found) else None

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None where there is no event."""
        if not len(self.found):
            return None
        return 2.0 * float(self.found.sum()) / (len(self.found) + float(self.found.sum() + self.false_alarm.sum()))

    @property
    def delay_median_s(self) -> float | None:
        """Median delay of the events found, seconds; None where none was."""
        found = self.delay_ms[self.found]
        return float(np.median(found)) / 1000.0 if len(found) else None


def truth_events(timestamp: TimeArray, label: npt.NDArray[Any]) -> Intervals:
    """Runs of label > 0 in readings (n,) of one series in time order, as intervals."""
    spans: Intervals = timestamp[runs(label)].astype(np.int64).reshape(-1, 2)
    return spans


def match(truth: Intervals, detections: Intervals, tolerance_ms: int) -> Match:
    """Compare the events and the detections of one series; both disjoint and in time order."""
    found = np.zeros(len(truth), np.bool_)
    delay = np.full(len(truth), np.nan)
    first = np.searchsorted(truth[:, 1] + tolerance_ms, detections[:, 0], side="left")
    behind = np.searchsorted(truth[:, 0], detections[:, 1], side="right")
    for (onset, _), low, high in zip(detections, first, behind, strict=True):
        for event in range(low, high):
            late = max(0, int(onset - truth[event, 0]))
            delay[event] = late if not found[event] else min(delay[event], late)
            found[event] = True
    return Match(found, delay, behind <= first)


def join(matches: Sequence[Match]) -> Match:
    """Several series as one: their events and detections in a row."""
    if not matches:
        return Match(np.zeros(0, np.bool_), np.zeros(0), np.zeros(0, np.bool_))
    found, delay, false_alarm = (np.concatenate(column) for column in zip(*matches, strict=True))
    return Match(found, delay, false_alarm)
