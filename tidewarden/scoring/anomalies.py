"""Anomalies from scores: runs of readings above the threshold, each told once, however long it lasts.

One compiled kernel goes over the scores in arrival order and keeps a run a series in arrays. A run

* opens at the first reading above the threshold,
* goes on while readings exceed it, or stay outside the expected band on the side of its peak; up to
  ``quiet - 1`` calm ones in between belong to it,
* closes after ``quiet`` calm readings, or after `runs.LASTING_READINGS` above: then it is the new normal,
  has been told, and the series is mute until it has calmed. Missing and stuck series stay open, for
  nobody gets used to those;
* closes, too, when its series has gone silent (`close_silent`), unless silence is what it is about.

What is said depends on the readings of the series, and for ``node_share`` on those of its node, in
their order; never on how they are cut into frames or numbered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tidewarden.events import Anomaly, AnomalyKind, Feedback, severity_of, stable_id
from tidewarden.frames import FloatArray, IntArray, ScoreFrame, SeriesTable
from tidewarden.models.contract import State
from tidewarden.scoring import kinds
from tidewarden.scoring.explanation import Story, explain
from tidewarden.scoring.feedback import Marks
from tidewarden.scoring.growth import NameOrder, with_room
from tidewarden.scoring.runs import RUN, blank_runs, close_unfinished, follow

_FIELDS = RUN.names or ()
_EVENTS_AT_ONCE = 1024  # events the kernel hands over at a time; it is called again until the frame is through


class AnomalyTracker:
    """Turns the scores of one detector into anomalies.

    Args:
        detector: name of the AnomalyDetector.
        stream: name of the MetricStream.
        model_version: as in `ScoreFrame`.
        table: the series; ids in `observe` are its own.
        quiet: calm readings after which an anomaly closes.
        interval_ms: expected spacing of the readings of a series.
        season_ms: the longest season; two long runs to opposite sides within half of it are one
            seasonal change, not two shifts.
    """

    def __init__(
        self,
        detector: str,
        stream: str,
        model_version: str,
        table: SeriesTable,
        *,
        quiet: int,
        interval_ms: int,
        season_ms: int = 86_400_000,
    ) -> None:
        if quiet < 1 or interval_ms < 1:
            raise ValueError(f"quiet is {quiet} and interval_ms {interval_ms}: both must be at least 1")
        self.detector = detector
        self.stream = stream
        self.model_version = model_version
        self._table = table
        self._quiet = quiet
        self._interval_ms = interval_ms
        self._season_ms = season_ms
        self._n_series = 0
        self._runs = blank_runs(0)
        self._tally = _blank_tally(0)
        self._live = _blank_tally(0)
        self._siblings = NameOrder()
        self.marks = Marks(table)
        self._events = np.zeros(_EVENTS_AT_ONCE, RUN)
        self._event_series = np.zeros(_EVENTS_AT_ONCE, np.int32)

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        return RUN.itemsize + 2 * 8 * kinds.TALLY_COLUMNS + 8

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``; known series keep their state."""
        if n_series <= self._n_series:
            return
        if n_series > len(self._table):
            raise ValueError(f"n_series is {n_series}, but the table knows {len(self._table)} series: add them first")
        self._runs = with_room(self._runs, n_series, blank_runs)
        self._tally = with_room(self._tally, n_series, _blank_tally)
        self._live = with_room(self._live, n_series, _blank_tally)
        for series in range(self._n_series, n_series):
            self._siblings.add(int(self._table.node_of[series]), series, self._table[series].metric)
        self._n_series = n_series
        self.marks.resize(n_series)

    def mark(self, feedback: Feedback, at: int) -> list[Anomaly]:
        """Take a person's word in; the series' open anomaly is told again where that changes who hears of it.

        Args:
            feedback: about an anomaly of this detector, of a series that need not be known yet.
            at: event time of the series' tenant, milliseconds since the epoch.
        """
        series = self._table.find(feedback.series)
        if series is None or series >= self._n_series or not self._runs["open"][series]:
            self.marks.take(feedback, at)
            return []
        run = self._runs[series]
        before = self._is_suppressed(run, series)
        self.marks.take(feedback, at)
        if self._is_suppressed(run, series) == before:
            return []
        run["revision"] += 1
        return [self._tell(dict(zip(_FIELDS, run.item(), strict=True)), series)]

    def _is_suppressed(self, run: Any, series: int) -> bool:
        onset, p_value = int(run["onset"]), float(run["peak_p"])
        return self.marks.suppresses(series, int(run["kind"]), onset, p_value, running=bool(run["open"]))

    def observe(self, scores: ScoreFrame) -> list[Anomaly]:
        """Take scores in, in arrival order, and return the anomalies that opened, changed or closed.

        Reads all columns; writes ``scores.kind`` in place: the kind of the running anomaly, as known at
        that reading, where flags has ABOVE, else 0.
        """
        if len(scores) == 0:
            return []
        self.resize(int(scores.series.max()) + 1)
        told: list[Anomaly] = []
        row = 0
        while row < len(scores):
            row, n_events = follow(
                row, scores.series, scores.timestamp, scores.value, scores.anomaly_score, scores.p_value,
                scores.expected, scores.lower, scores.upper, scores.flags, scores.kind,
                self._runs, self._tally, self._live, self._table.node_of, self._siblings.first, self._siblings.after,
                self._events, self._event_series, self.marks.row_of, self.marks.bars, self._quiet, self._season_ms,
            )  # fmt: skip
            events = zip(self._events[:n_events].tolist(), self._event_series[:n_events].tolist(), strict=True)
            told.extend(self._tell(dict(zip(_FIELDS, run, strict=True)), series) for run, series in events)
        return told

    def close_silent(self, watermarks: Mapping[str, int], silence_ms: int) -> list[Anomaly]:
        """Close runs of series that went silent in the middle of one, by the time of their tenant.

        A run closes after ``quiet`` calm readings; where no readings come at all, time has to count
        instead. Runs of missing readings stay open: silence is what they are about.

        Args:
            watermarks: newest reading of each tenant, milliseconds since the epoch.
            silence_ms: time without a reading of the run after which it is over.
        """
        told: list[Anomaly] = []
        runs = self._runs[: self._n_series]
        for s in np.flatnonzero((runs["open"] == 1) & (runs["kind"] != int(AnomalyKind.MISSING))).tolist():
            over_at = int(runs["end"][s]) + silence_ms
            if watermarks.get(self._table[s].tenant, over_at) > over_at:
                close_unfinished(self._runs, self._tally, self._live, s, over_at)
                told.append(self._tell(dict(zip(_FIELDS, self._runs[s].item(), strict=True)), s))
        return told

    def _tell(self, run: dict[str, Any], series: int) -> Anomaly:
        """The anomaly that ``run``, the fields of a record as the kernel left it, stands for."""
        key = self._table[series]
        kind = AnomalyKind(run["kind"])
        value, expected = run["peak_value"], run["peak_expected"]
        onset, end = run["onset"], run["end"]
        since = run["flat_since"] if kind is AnomalyKind.FLAT_LINE else onset
        score, share = run["peak_score"], run["share"]
        story = Story(
            metric=key.metric,
            node=key.node,
            kind=kind,
            value=value,
            expected=expected,
            lower=run["peak_lower"],
            upper=run["peak_upper"],
            duration_ms=end - since + self._interval_ms,
            usual=run["scale"],
            share=share,
            siblings=run["siblings"],
            ongoing=bool(run["open"]),
        )
        return Anomaly(
            id=stable_id("anomaly", self.stream, self.detector, key.path, onset),
            revision=run["revision"],
            state="open" if run["open"] else "closed",
            stream=self.stream,
            detector=self.detector,
            model_version=self.model_version,
            tenant=key.tenant,
            cluster=key.cluster,
            node=key.node,
            metric=key.metric,
            onset=onset,
            end=end,
            peak_at=run["peak_at"],
            peak_score=score,
            p_value=run["peak_p"],
            value=_known(value),
            expected=_known(expected),
            lower=_known(story.lower),
            upper=_known(story.upper),
            readings=run["count"],
            kind=kind.label,
            direction=_direction(kind, value, expected),
            severity=severity_of(score),
            node_share=share,
            explanation=explain(story),
            updated_at=run["updated_at"],
            suppressed=self._is_suppressed(run, series),
        )

    def snapshot(self) -> State:
        """The whole state: plain arrays (copies) whose first axis is the series, in the order of their ids.

        Whoever writes it down writes the keys of the series beside it.
        """
        n = self._n_series
        state: State = {name: self._runs[name][:n].copy() for name in _FIELDS}
        return {**state, "tally": self._tally[:n].copy(), "live": self._live[:n].copy()}

    def restore(self, state: State, rows: IntArray | npt.NDArray[np.intp] | Sequence[int]) -> None:
        """Go on from a snapshot; what was known before is forgotten.

        Args:
            state: as `snapshot` gave it.
            rows: the id that series number i of the snapshot has now in ``table``, shape (n,).

        Raises:
            ValueError: an array is missing or has a wrong shape.
        """
        at = np.asarray(rows, np.intp)
        wanted = {name: (len(at),) for name in _FIELDS}
        square = (len(at), kinds.TALLY_COLUMNS)
        for name, shape in {**wanted, "tally": square, "live": square}.items():
            found = state[name].shape if name in state else None
            if found != shape:
                raise ValueError(f"snapshot of anomalies: {name} has shape {found}, expected {shape}: discard it")
        self._n_series, self._siblings = 0, NameOrder()
        self._runs, self._tally, self._live = blank_runs(0), _blank_tally(0), _blank_tally(0)
        if len(at) == 0:
            return
        self.resize(int(at.max()) + 1)
        for name in wanted:
            self._runs[name][at] = state[name]
        self._tally[at] = state["tally"]
        self._live[at] = state["live"]


def _blank_tally(n: int) -> FloatArray:
    return np.zeros((n, kinds.TALLY_COLUMNS))


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None


_SIDELESS = {AnomalyKind.MISSING, AnomalyKind.FLAT_LINE, AnomalyKind.NOISE, AnomalyKind.SEASONAL_CHANGE}


def _direction(kind: AnomalyKind, value: float, expected: float) -> Literal["up", "down", "none"]:
    if kind in _SIDELESS or math.isnan(value) or math.isnan(expected) or value == expected:
        return "none"
    return "up" if value > expected else "down"
