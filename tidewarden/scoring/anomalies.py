"""Anomalies from scores: runs of readings above the threshold, each told once, however long it lasts.

One compiled kernel goes over the scores in arrival order and keeps a run a series in arrays. A run

* opens at the first reading above the threshold,
* goes on while readings exceed it; up to ``quiet - 1`` calm ones in between belong to it,
* closes after ``quiet`` calm readings, or after `LASTING_READINGS` above: then it is the new normal,
  has been told, and the series is mute until it has calmed. Missing and stuck series stay open, for
  nobody gets used to those.

What is said depends on the readings of the series, and for ``node_share`` on those of its node, in
their order; never on how they are cut into frames or numbered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.events import Anomaly, AnomalyKind, severity_of, stable_id
from tidewarden.frames import (
    ABOVE,
    LATE,
    LEARNING,
    MISSING,
    ByteArray,
    FloatArray,
    IntArray,
    ScoreFrame,
    SeriesTable,
    TimeArray,
)
from tidewarden.models.contract import State
from tidewarden.scoring import kinds
from tidewarden.scoring.explanation import Story, explain

LASTING_READINGS = 240
"""Readings above the threshold after which a shift is the new normal: four hours at one a minute."""

MAX_REVISIONS = 6
"""Times that one anomaly is published at most, opening and closing included."""

_PEAK_STEP = 0.1  # the peak is told again when it has grown by this much, more than half a decade of rarity
_EVENTS_AT_ONCE = 1024  # events the kernel hands over at a time; it is called again until the frame is through
_MEMORY = 256.0  # calm readings over which the usual deviation is averaged
_RECENT = 8.0  # calm readings over which the level before an onset is averaged
_SELDOM = 0.3  # a series that repeats its value more often than this is never called stuck
_KIND_MISSING = int(AnomalyKind.MISSING)
_KIND_FLAT_LINE = int(AnomalyKind.FLAT_LINE)

_RUN = np.dtype(
    [
        ("latest", "f8"),  # anomaly score of the newest reading, NaN before the first
        ("last_value", "f8"),
        ("stuck_since", "i8"),  # when the value that is being repeated came first
        ("repeats", "i4"),  # how often it has been repeated
        ("repeat_rate", "f8"),  # share of calm readings that repeat the one before
        ("calm_seen", "f8"),  # calm readings so far, up to _MEMORY
        ("variance", "f8"),  # of the residual in calm readings
        ("level", "f8"),  # mean of the recent calm values
        ("recent_z", "f8"),  # mean of the recent calm residuals, in usual deviations
        ("open", "u1"),
        ("mute", "u1"),
        ("kind", "u1"),
        ("opposite_before", "u1"),
        ("told_kind", "u1"),
        ("previous_side", "i1"),  # of the run before this one, 0 where it was short
        ("revision", "i4"),
        ("count", "i4"),  # readings above the threshold
        ("calm", "i4"),  # calm readings since the newest one above
        ("review_at", "i4"),  # length at which the kind is looked at again
        ("previous_end", "i8"),
        ("onset", "i8"),
        ("end", "i8"),
        ("scale", "f8"),  # usual deviation, as of the onset
        ("told_peak", "f8"),
        ("peak_at", "i8"),
        ("peak_score", "f8"),
        ("peak_p", "f8"),
        ("peak_value", "f8"),
        ("peak_expected", "f8"),
        ("peak_lower", "f8"),
        ("peak_upper", "f8"),
        ("share", "f8"),  # of the node's score, at the peak
        ("siblings", "i4"),  # series of the node with a score, at the peak
    ],
    align=True,
)


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
        self._runs = _blank_runs(0)
        self._tally = np.zeros((0, kinds.TALLY_COLUMNS))
        self._live = np.zeros((0, kinds.TALLY_COLUMNS))
        self._siblings = np.zeros(0, np.int32)
        self._first_sibling = np.zeros(1, np.int32)
        self._node_of = np.zeros(0, np.int32)
        self._events = np.zeros(_EVENTS_AT_ONCE, _RUN)
        self._event_series = np.zeros(_EVENTS_AT_ONCE, np.int32)

    @property
    def state_bytes_per_series(self) -> int:
        """Memory that one more series costs."""
        return _RUN.itemsize + 2 * 8 * kinds.TALLY_COLUMNS + 8

    def resize(self, n_series: int) -> None:
        """Make room for series ids below ``n_series``; known series keep their state."""
        have = len(self._runs)
        if n_series <= have:
            return
        if n_series > len(self._table):
            raise ValueError(f"n_series is {n_series}, but the table knows {len(self._table)} series: add them first")
        more = n_series - have
        self._runs = np.concatenate([self._runs, _blank_runs(more)])
        self._tally = np.concatenate([self._tally, np.zeros((more, kinds.TALLY_COLUMNS))])
        self._live = np.concatenate([self._live, np.zeros((more, kinds.TALLY_COLUMNS))])
        self._node_of = self._table.node_of[:n_series].copy()
        self._siblings, self._first_sibling = siblings_by_node(self._table, n_series)

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
            row, n_events = _follow(
                row, scores.series, scores.timestamp, scores.value, scores.anomaly_score, scores.p_value,
                scores.expected, scores.lower, scores.upper, scores.flags, scores.kind,
                self._runs, self._tally, self._live, self._node_of, self._siblings, self._first_sibling,
                self._events, self._event_series, self._quiet, self._season_ms,
            )  # fmt: skip
            for event in range(n_events):
                told.append(self._tell(self._events[event], self._table[int(self._event_series[event])]))
        return told

    def _tell(self, run: Any, key: Any) -> Anomaly:
        """The anomaly that ``run``, a record as the kernel left it, stands for."""
        kind = AnomalyKind(int(run["kind"]))
        value, expected = float(run["peak_value"]), float(run["peak_expected"])
        onset, end = int(run["onset"]), int(run["end"])
        since = min(onset, int(run["stuck_since"])) if kind is AnomalyKind.FLAT_LINE else onset
        score, share = float(run["peak_score"]), float(run["share"])
        story = Story(
            metric=key.metric,
            node=key.node,
            kind=kind,
            value=value,
            expected=expected,
            lower=float(run["peak_lower"]),
            upper=float(run["peak_upper"]),
            duration_ms=end - since + self._interval_ms,
            usual=float(run["scale"]),
            share=share,
            siblings=int(run["siblings"]),
        )
        return Anomaly(
            id=stable_id("anomaly", self.stream, self.detector, key.path, onset),
            revision=int(run["revision"]),
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
            peak_at=int(run["peak_at"]),
            peak_score=score,
            p_value=float(run["peak_p"]),
            value=_known(value),
            expected=_known(expected),
            lower=_known(story.lower),
            upper=_known(story.upper),
            readings=int(run["count"]),
            kind=kind.label,
            direction=_direction(kind, value, expected),
            severity=severity_of(score),
            node_share=share,
            explanation=explain(story),
        )

    def snapshot(self) -> State:
        """The whole state: plain arrays (copies) whose first axis is the series, in the order of their ids.

        Whoever writes it down writes the keys of the series beside it.
        """
        state: State = {name: np.ascontiguousarray(self._runs[name]) for name in _RUN.names or ()}
        return {**state, "tally": self._tally.copy(), "live": self._live.copy()}

    def restore(self, state: State, rows: IntArray | npt.NDArray[np.intp] | Sequence[int]) -> None:
        """Go on from a snapshot; what was known before is forgotten.

        Args:
            state: as `snapshot` gave it.
            rows: the id that series number i of the snapshot has now in ``table``, shape (n,).

        Raises:
            ValueError: an array is missing or has a wrong shape.
        """
        at = np.asarray(rows, np.intp)
        wanted = {name: (len(at),) for name in _RUN.names or ()}
        square = (len(at), kinds.TALLY_COLUMNS)
        for name, shape in {**wanted, "tally": square, "live": square}.items():
            found = state[name].shape if name in state else None
            if found != shape:
                raise ValueError(f"snapshot of anomalies: {name} has shape {found}, expected {shape}: discard it")
        self._runs, self._tally, self._live = _blank_runs(0), self._tally[:0], self._live[:0]
        if len(at) == 0:
            return
        self.resize(int(at.max()) + 1)
        for name in wanted:
            self._runs[name][at] = state[name]
        self._tally[at] = state["tally"]
        self._live[at] = state["live"]


def _blank_runs(n: int) -> npt.NDArray[Any]:
    runs = np.zeros(n, _RUN)
    for name in ("latest", "last_value", "level"):
        runs[name] = np.nan
    runs["previous_end"] = np.iinfo(np.int64).min
    return runs


def siblings_by_node(table: SeriesTable, n_series: int) -> tuple[IntArray, IntArray]:
    """Series ids grouped by node: node k has ``ids[first[k]:first[k + 1]]``, ordered by metric.

    By name and not by id, so that sums over siblings add up in the same order in every process.
    """
    node_of = table.node_of[:n_series]
    metrics = np.array([key.metric for key in table.keys[:n_series]])
    order = np.lexsort((metrics, node_of)).astype(np.int32)
    counts = np.bincount(node_of, minlength=1)
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)


def _known(number: float) -> float | None:
    return number if math.isfinite(number) else None


_SIDELESS = {AnomalyKind.MISSING, AnomalyKind.FLAT_LINE, AnomalyKind.NOISE, AnomalyKind.SEASONAL_CHANGE}


def _direction(kind: AnomalyKind, value: float, expected: float) -> Literal["up", "down", "none"]:
    if kind in _SIDELESS or math.isnan(value) or math.isnan(expected) or value == expected:
        return "none"
    return "up" if value > expected else "down"


@njit(cache=True, nogil=True)
def _follow(
    row: int,
    series: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    score: FloatArray,
    p_value: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
    flags: ByteArray,
    kind: ByteArray,
    runs: npt.NDArray[Any],
    tally: FloatArray,
    live: FloatArray,
    node_of: IntArray,
    siblings: IntArray,
    first_sibling: IntArray,
    events: npt.NDArray[Any],
    event_series: IntArray,
    quiet: int,
    season_ms: int,
) -> tuple[int, int]:
    """Go over the scores from ``row`` on; returns the row to go on from and the number of events."""
    n_events = 0
    for i in range(row, len(series)):
        if n_events == len(events):  # a reading makes at most one event
            return i, n_events
        s = series[i]
        run = runs[s]
        late = flags[i] & LATE != 0
        above = flags[i] & ABOVE != 0
        missing = flags[i] & MISSING != 0 or math.isnan(value[i])
        kind[i] = 0
        told = False
        if not late:
            run.latest = score[i]
            if not missing:
                _note_repeat(run, value[i], timestamp[i])
        stuck = not missing and run.repeats >= kinds.STUCK_REPEATS and run.repeat_rate < _SELDOM
        if run.open == 0:
            # A late reading that lies within a run already told belongs to that one.
            fresh = not late or timestamp[i] > run.previous_end
            if above and fresh and (run.mute == 0 or missing):
                _open(run, tally[s], timestamp[i], lower[i], upper[i], season_ms)
                live[s, :] = tally[s]
            elif above:
                run.calm = 0
                kind[i] = run.kind
            elif not late:
                _stay_calm(run, value[i], expected[i], flags[i] & LEARNING != 0 or missing, quiet)
        if run.open != 0 and (above or not late):
            if not late:
                z = (value[i] - expected[i]) / run.scale
                kinds.add_reading(live[s], z, (value[i] - run.level) / run.scale, missing, stuck)
            if above:
                tally[s, :] = live[s]
                run.count += 1
                run.calm = 0
                run.end = max(run.end, timestamp[i])
                if score[i] > run.peak_score or (score[i] == run.peak_score and p_value[i] < run.peak_p):
                    first, last = first_sibling[node_of[s]], first_sibling[node_of[s] + 1]
                    _take_peak(run, i, timestamp, value, score, p_value, expected, lower, upper)
                    run.share, run.siblings = _share_of(runs, siblings[first:last], score[i])
                told = _go_on(run, tally[s], live[s], flags[i], missing)
                kind[i] = run.kind
            else:
                run.calm += 1
                if run.calm >= quiet:
                    _close(run, tally[s], live[s], False)
                    told = True
        if told:
            events[n_events] = runs[s]
            event_series[n_events] = s
            n_events += 1
    return len(series), n_events


@njit(cache=True, nogil=True)
def _note_repeat(run: Any, value: float, timestamp: int) -> None:
    if value == run.last_value:
        run.repeats += 1
    else:
        run.repeats = 0
        run.stuck_since = timestamp
        run.last_value = value


@njit(cache=True, nogil=True)
def _stay_calm(run: Any, value: float, expected: float, unknown: bool, quiet: int) -> None:
    """A calm reading outside a run: it says what is usual."""
    run.calm = min(run.calm + 1, quiet)
    if run.calm >= quiet:
        run.mute = 0
    if unknown or math.isnan(expected):
        return
    run.calm_seen = min(run.calm_seen + 1.0, _MEMORY)
    weight = 1.0 / run.calm_seen
    residual = value - expected
    if run.calm_seen > _RECENT:  # a reading that only just stayed below the threshold must not widen it all
        bound = 5.0 * math.sqrt(run.variance)
        residual = min(bound, max(-bound, residual)) if bound > 0.0 else residual
    run.variance += weight * (residual * residual - run.variance)
    run.repeat_rate += weight * ((1.0 if run.repeats > 0 else 0.0) - run.repeat_rate)
    recent = max(weight, 1.0 / _RECENT)
    run.level = value if math.isnan(run.level) else run.level + recent * (value - run.level)
    deviation = math.sqrt(run.variance)
    if deviation > 0.0:
        run.recent_z += recent * (residual / deviation - run.recent_z)


@njit(cache=True, nogil=True)
def _open(run: Any, tally: FloatArray, timestamp: int, lower: float, upper: float, season_ms: int) -> None:
    run.open = 1
    run.kind = 0
    run.told_kind = 0
    run.revision = 0
    run.count = 0
    run.review_at = 1
    run.onset = timestamp
    run.end = timestamp
    run.peak_score = -1.0
    run.scale = math.sqrt(run.variance)
    if run.calm_seen < _RECENT or not run.scale > 0.0:
        run.scale = (upper - lower) / 5.15  # the band holds 99 %: 2.58 deviations to each side
    if not (run.scale > 0.0 and math.isfinite(run.scale)):
        run.scale = max(1e-9, 1e-6 * abs(run.last_value)) if math.isfinite(run.last_value) else 1.0
    if timestamp - run.previous_end > season_ms // 2 or run.previous_end == np.iinfo(np.int64).min:
        run.previous_side = 0
    tally[:] = 0.0


@njit(cache=True, nogil=True)
def _take_peak(
    run: Any,
    i: int,
    timestamp: TimeArray,
    value: FloatArray,
    score: FloatArray,
    p_value: FloatArray,
    expected: FloatArray,
    lower: FloatArray,
    upper: FloatArray,
) -> None:
    run.peak_at = timestamp[i]
    run.peak_score = score[i]
    run.peak_p = p_value[i]
    run.peak_value = value[i]
    run.peak_expected = expected[i]
    run.peak_lower = lower[i]
    run.peak_upper = upper[i]


@njit(cache=True, nogil=True)
def _share_of(runs: npt.NDArray[Any], siblings: IntArray, score: float) -> tuple[float, int]:
    """Share of the node's score that a series with ``score`` has, weighted as in the rollup, and of how many."""
    total = 0.0
    n = 0
    for sibling in siblings:
        latest = runs[sibling].latest
        if not math.isnan(latest):
            total += 10.0 ** (6.0 * latest)
            n += 1
    return min(1.0, 10.0 ** (6.0 * score) / total) if total > 0.0 else 1.0, max(n, 1)


@njit(cache=True, nogil=True)
def _go_on(run: Any, tally: FloatArray, live: FloatArray, flags: int, missing: bool) -> bool:
    """A reading above within a run: look at the kind again where due; whether that is worth telling."""
    if tally[kinds.ALL] >= run.review_at or run.kind == 0:
        _review(run, tally, live, False, False)
        length = int(tally[kinds.ALL])
        # At lengths 1, 2, 4, 8, 17, 34 …: a kind that changes at every reading would help nobody.
        run.review_at = kinds.SHORT_READINGS + 1 if kinds.SHORT_READINGS // 2 <= length else 2 * length
        if length > kinds.SHORT_READINGS:
            run.review_at = 2 * length
    stays = run.kind == _KIND_MISSING or run.kind == _KIND_FLAT_LINE
    if run.count >= LASTING_READINGS and not stays:
        _close(run, tally, live, True)
        return True
    grown = run.kind != run.told_kind or run.peak_score >= run.told_peak + _PEAK_STEP
    if run.revision > 0 and (not grown or run.revision >= MAX_REVISIONS - 1):
        return False
    run.revision += 1
    run.told_kind = run.kind
    run.told_peak = run.peak_score
    return True


@njit(cache=True, nogil=True)
def _review(run: Any, tally: FloatArray, live: FloatArray, closing: bool, lasting: bool) -> None:
    opposite = run.previous_side != 0 and run.previous_side == -kinds.side_of(tally)
    run.kind = kinds.classify(tally, live, run.recent_z, opposite, closing, lasting)
    if run.kind == 0 or (run.kind == 1 and tally[kinds.VALUED] == 0.0):
        run.kind = 1


@njit(cache=True, nogil=True)
def _close(run: Any, tally: FloatArray, live: FloatArray, lasting: bool) -> None:
    """The run is over: its final kind, and what the series remembers of it."""
    _review(run, tally, live, True, lasting)
    run.revision += 1
    run.open = 0
    run.mute = 1 if lasting else 0
    run.previous_end = run.end
    run.previous_side = kinds.side_of(tally) if tally[kinds.ALL] > kinds.SHORT_READINGS else 0
    calm = live[kinds.VALUED] - tally[kinds.VALUED]
    if calm > 0.0:  # what is usual now is what came after the run
        run.level += run.scale * (live[kinds.RAW] - tally[kinds.RAW]) / calm
        run.recent_z = (live[kinds.SUM_Z] - tally[kinds.SUM_Z]) / calm
