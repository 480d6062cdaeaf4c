"""The NAB score (Lavin & Ahmad 2015, "Evaluating Real-time Anomaly Detection Algorithms").

Each truth is a window. The first report inside a window earns a sigmoid reward, up to 1 at its left
edge and 0 at its right; later reports in it earn nothing more. A report outside costs between 0 (just
behind a window) and the false-positive weight (far from any); a window without a report costs the
false-negative weight. The first 15 % of a file, at most 750 points, are probation and do not count. One
threshold, the best one, serves the whole corpus, and the result is normalised so that a detector that
says nothing has 0 and one that reports at every left edge and nowhere else has 100.

``report_every`` optionally does what an alerting system does anyway: after a report the same file makes
no further report for that many points. This is not part of NAB; figures made with it say so.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import numba
import numpy as np
import numpy.typing as npt

from tidewarden.frames import FloatArray, IntArray, TimeArray

PROBATION_SHARE = 0.15
PROBATION_POINTS = 750  # 15 % of 5,000, where NAB caps it
THRESHOLDS_AT_ONCE = 1000  # thresholds tried in one pass of the de-duplicated sweep; bounds its time


class Profile(NamedTuple):
    """What a correct, a false and a missed report weigh for one kind of user."""

    name: str
    tp_weight: float
    fp_weight: float
    fn_weight: float


# NAB's config/profiles.json.
PROFILES = (
    Profile("standard", 1.0, 0.11, 1.0),
    Profile("reward_low_FP_rate", 1.0, 0.22, 1.0),
    Profile("reward_low_FN_rate", 1.0, 0.11, 2.0),
)


class NabFile(NamedTuple):
    """One series of the corpus: timestamps (n,) in ms, scores (n,), inclusive windows in ms."""

    name: str
    timestamp: TimeArray
    score: FloatArray
    windows: Sequence[tuple[int, int]]


class NabScore(NamedTuple):
    """The corpus under one profile: the normalised score, the threshold that gave it, and what it did."""

    profile: str
    score: float  # 0: as good as saying nothing; 100: perfect
    threshold: float  # report where score >= threshold; inf: never report
    windows: int
    detected: int
    false_reports: int


@dataclass(slots=True, eq=False)
class _Rows:
    """The rows of all files that count, file after file; arrays of shape (n,)."""

    file: IntArray
    score: FloatArray
    window: IntArray  # -1 outside of windows
    position: FloatArray  # sigmoid in [-1, 1]: reward inside of a window, cost outside
    windows: int  # in the corpus, probation included: what the perfect detector finds
    scorable: int  # windows that have a row behind the probation


def scaled_sigmoid(position: FloatArray) -> FloatArray:
    """NAB's S: 0.987 at the left edge of a window (-1), 0 at its right edge, -1 far behind (> 3)."""
    shaped: FloatArray = 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, 4.0))) - 1.0
    return np.where(position > 3.0, -1.0, shaped)


def probation_length(n_points: int) -> int:
    """Points at the start of a file that do not count."""
    return min(int(PROBATION_SHARE * n_points), PROBATION_POINTS)


def _window_rows(timestamp: TimeArray, window: tuple[int, int]) -> tuple[int, int]:
    """First and last row of an inclusive window; last < first where it holds no row."""
    inside = np.flatnonzero((timestamp >= window[0]) & (timestamp <= window[1]))
    if not inside.size:
        return 0, -1
    last = int(inside[-1])
    # Where clocks went back, a time occurs twice; NAB closes the window at the first.
    exact = np.flatnonzero(timestamp == timestamp[last])
    return int(inside[0]), int(exact[0]) if exact[0] >= inside[0] else last


def _file_rows(file: NabFile) -> tuple[IntArray, FloatArray]:
    """Window number of each row (-1: none) and its sigmoid value, shape (n,), unweighted."""
    n = len(file.timestamp)
    index = np.arange(n)
    window = np.full(n, -1, np.int32)
    position = np.full(n, -1.0)
    for number, limits in enumerate(sorted(file.windows)):
        first, last = _window_rows(file.timestamp, limits)
        if last < first:
            continue
        width = last - first + 1
        inside = slice(first, last + 1)
        window[inside] = number
        position[inside] = scaled_sigmoid(-(last - index[inside] + 1) / width) / scaled_sigmoid(np.array(-1.0))
        behind = index[last + 1 :]
        position[last + 1 :] = scaled_sigmoid((behind - last) / max(width - 1, 1))
    return window, position


def _rows(files: Iterable[NabFile]) -> _Rows:
    parts: list[tuple[IntArray, FloatArray, IntArray, FloatArray]] = []
    windows = scorable = 0
    for number, file in enumerate(files):
        if len(file.score) != len(file.timestamp):
            raise ValueError(f"{file.name}: {len(file.score)} scores for {len(file.timestamp)} timestamps")
        window, position = _file_rows(file)
        counts = slice(probation_length(len(window)), None)
        present = np.unique(window[counts])
        present = present[present >= 0]
        renumber = np.full(len(file.windows) + 1, -1, np.int32)  # the last slot answers for -1
        renumber[present] = scorable + np.arange(len(present), dtype=np.int32)
        score = np.nan_to_num(file.score[counts].astype(np.float64), nan=-np.inf)
        parts.append((np.full(len(score), number, np.int32), score, renumber[window[counts]], position[counts]))
        windows += len(file.windows)
        scorable += len(present)
    if not parts:
        raise ValueError("no file to score: the corpus is empty")
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return _Rows(columns[0], columns[1], columns[2], columns[3], windows, scorable)


def _sweep(rows: _Rows, profile: Profile) -> tuple[float, float]:
    """Best (raw score, threshold) where every row over the threshold is a report.

    Each row changes the total by a fixed amount once the threshold comes down to it, given the rows of
    its window above it; so one sort and one running sum serve all thresholds.
    """
    order = np.argsort(-rows.score, kind="stable")
    score, window, position = rows.score[order], rows.window[order], rows.position[order]
    delta = position * profile.fp_weight
    for number in range(rows.scorable):
        inside = np.flatnonzero(window == number)
        best = np.maximum.accumulate(np.maximum(position[inside] * profile.tp_weight, -profile.fn_weight))
        delta[inside] = np.diff(best, prepend=-profile.fn_weight)
    total = -profile.fn_weight * rows.scorable + np.cumsum(delta)
    ends = np.flatnonzero(np.append(score[1:] != score[:-1], True) & np.isfinite(score))
    if not ends.size:
        return -profile.fn_weight * rows.scorable, np.inf
    best_end = ends[np.argmax(total[ends])]
    silent = -profile.fn_weight * rows.scorable
    return (float(total[best_end]), float(score[best_end])) if total[best_end] > silent else (silent, np.inf)


@numba.njit(cache=True, nogil=True)
def _reports_at(
    thresholds: FloatArray,
    file: IntArray,
    score: FloatArray,
    window: IntArray,
    position: FloatArray,
    scorable: int,
    every: int,
    tp_weight: float,
    fp_weight: float,
    fn_weight: float,
    total: FloatArray,
    detected: npt.NDArray[np.int64],
    false_reports: npt.NDArray[np.int64],
) -> None:
    """Raw score, windows found and false reports for each threshold, at most one report per ``every`` rows."""
    best = np.empty(scorable)
    for t in range(len(thresholds)):
        best[:] = -fn_weight
        cost = 0.0
        false = 0
        row = 0
        while row < len(score):
            if score[row] < thresholds[t]:
                row += 1
                continue
            if window[row] >= 0:
                best[window[row]] = max(best[window[row]], position[row] * tp_weight)
            else:
                cost += position[row] * fp_weight
                false += 1
            here = file[row]
            last = row + every
            row += 1
            while row < len(score) and row < last and file[row] == here:
                row += 1
        total[t] = cost + best.sum()
        detected[t] = (best > -fn_weight).sum()
        false_reports[t] = false


def _at(
    rows: _Rows, profile: Profile, thresholds: FloatArray, every: int
) -> tuple[FloatArray, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    total = np.zeros(len(thresholds))
    detected = np.zeros(len(thresholds), np.int64)
    false_reports = np.zeros(len(thresholds), np.int64)
    _reports_at(
        thresholds, rows.file, rows.score, rows.window, rows.position, rows.scorable, every,
        profile.tp_weight, profile.fp_weight, profile.fn_weight, total, detected, false_reports,
    )  # fmt: skip
    return total, detected, false_reports


def _sweep_suppressed(rows: _Rows, profile: Profile, every: int) -> tuple[float, float]:
    """Best (raw score, threshold) with suppression: which rows report now depends on the threshold.

    Every unique score is tried where there are few; else a grid, dense among the highest scores, is
    tried first and then the scores between the neighbours of its best.
    """
    candidates = np.unique(rows.score[np.isfinite(rows.score)])[::-1].copy()
    best, threshold = -profile.fn_weight * rows.scorable, np.inf
    while candidates.size:
        n = len(candidates)
        if n > THRESHOLDS_AT_ONCE:
            spread = np.geomspace(1, n, THRESHOLDS_AT_ONCE).astype(np.int64) - 1
            chosen = np.unique(spread)
        else:
            chosen = np.arange(n)
        total, _, _ = _at(rows, profile, candidates[chosen], every)
        top = int(np.argmax(total))
        if total[top] > best:
            best, threshold = float(total[top]), float(candidates[chosen[top]])
        if len(chosen) == n:
            break
        low, high = chosen[max(top - 1, 0)], chosen[min(top + 1, len(chosen) - 1)]
        if high - low + 1 >= n:
            break
        candidates = candidates[low : high + 1]
    return best, threshold


def score_corpus(
    files: Iterable[NabFile], profiles: Sequence[Profile] = PROFILES, report_every: int | None = None
) -> list[NabScore]:
    """The NAB score of ``files`` under each profile, each with its own best threshold.

    Args:
        files: scores and windows; NaN scores are never reports. Row 0 is the start of the probation.
        profiles: weights, NAB's three by default.
        report_every: None for NAB as published; n for at most one report per n points and file.

    Returns:
        One NabScore a profile, in their order; 0 is silence, 100 perfection.
    """
    rows = _rows(files)
    if not rows.windows:
        raise ValueError("the corpus has no window, so there is nothing to find: pass labelled files")
    scores = []
    for profile in profiles:
        if report_every is None or report_every <= 1:
            raw, threshold = _sweep(rows, profile)
        else:
            raw, threshold = _sweep_suppressed(rows, profile, report_every)
        silent = -profile.fn_weight * rows.scorable
        perfect = profile.tp_weight * rows.windows
        _, detected, false_reports = _at(rows, profile, np.array([threshold]), report_every or 1)
        normalised = 100.0 * (raw - silent) / (perfect - silent)
        scores.append(
            NabScore(profile.name, normalised, threshold, rows.windows, int(detected[0]), int(false_reports[0]))
        )
    return scores


def score_by_file(
    files: Sequence[NabFile], profile: Profile, threshold: float, report_every: int | None = None
) -> FloatArray:
    """What each file adds to the corpus score at one threshold: to draw files anew, for an interval around the score.

    Returns:
        (f, 3): raw score, that of silence, that of perfection. Of any files, by their sums, the NAB score is
        ``100 · (raw − silent) / (perfect − silent)``.
    """
    parts = np.zeros((len(files), 3))
    for number, file in enumerate(files):
        rows = _rows([file])
        total, _, _ = _at(rows, profile, np.array([threshold]), report_every or 1)
        parts[number] = total[0], -profile.fn_weight * rows.scorable, profile.tp_weight * rows.windows
    return parts


def parse_time(text: str) -> int:
    """Milliseconds since the epoch of an ISO 8601 time; without a zone it is UTC."""
    try:
        moment = datetime.datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a time: write it like 2014-04-10 07:15:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return round(moment.timestamp() * 1000)


def parse_windows(raw: bytes) -> dict[str, list[tuple[int, int]]]:
    """NAB's ``combined_windows.json``: file name → inclusive windows, here in ms since the epoch."""
    try:
        found = msgspec.json.decode(raw, type=dict[str, list[tuple[str, str]]])
    except msgspec.DecodeError as error:
        raise ValueError(f'windows must be JSON like {{"folder/file.csv": [["start", "end"]]}}: {error}') from None
    return {name: [(parse_time(start), parse_time(end)) for start, end in pairs] for name, pairs in found.items()}


def parse_profiles(raw: bytes) -> tuple[Profile, ...]:
    """NAB's ``profiles.json`` as profiles, in its order."""
    try:
        found = msgspec.json.decode(raw, type=dict[str, dict[str, dict[str, float]]])
        costs = {name: matrix["CostMatrix"] for name, matrix in found.items()}
        return tuple(Profile(name, c["tpWeight"], c["fpWeight"], c["fnWeight"]) for name, c in costs.items())
    except (msgspec.DecodeError, KeyError) as error:
        raise ValueError(f"profiles must be JSON as in NAB's config/profiles.json: {error}") from None


class CorpusFile(NamedTuple):
    """One file of a corpus folder, not yet scored: timestamps (n,) in ms, values (n,), windows in ms."""

    name: str
    timestamp: TimeArray
    value: FloatArray
    windows: list[tuple[int, int]]

    def scored(self, score: FloatArray) -> NabFile:
        """The same file with its scores (n,)."""
        return NabFile(self.name, self.timestamp, score, self.windows)


def read_corpus(folder: Path) -> list[CorpusFile]:
    """A folder as NAB's: ``labels/combined_windows.json`` and the files it names under ``data/``.

    Windows may also lie at ``combined_windows.json`` beside the files, and the files directly in the
    folder. A file that the windows do not name is not part of the corpus.
    """
    from pyarrow import csv

    listed = (folder / "labels/combined_windows.json", folder / "combined_windows.json")
    found = [path for path in listed if path.exists()]
    if not found:
        raise ValueError(f"{folder}: no labels/combined_windows.json in it; pass a folder laid out as NAB's")
    windows: Mapping[str, list[tuple[int, int]]] = parse_windows(found[0].read_bytes())
    files = []
    for name in sorted(windows):
        likely = (folder / "data" / name, folder / name, folder / f"{name}.gz")
        places = [path for path in likely if path.exists()]
        if not places:
            continue  # a part of the corpus is fine: its windows are then no part of it either
        table = csv.read_csv(places[0])
        timestamp = table["timestamp"].cast("timestamp[ms]").cast("int64").to_numpy()
        files.append(CorpusFile(name, timestamp, table["value"].cast("float64").to_numpy(), windows[name]))
    if not files:
        raise ValueError(f"{folder}: none of the {len(windows)} files that {found[0].name} names is there")
    return files
