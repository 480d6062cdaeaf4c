"""From the figures of files to those of a set: means over files, intervals by drawing files anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.accuracy.judging import THRESHOLDS, Figures
from benchmarks.accuracy.sets import Case
from tidewarden.evaluate.nab import PROFILES, NabFile, score_by_file, score_corpus
from tidewarden.frames import FloatArray

DRAWS = 2_000  # of a bootstrap: the ends of a 95 % interval are then off by about a hundredth of its width
REPORT_EVERY = 120  # readings; the de-duplication that NAB is given with besides
FALSE_ALARMS = 1.0  # a week and judged series: the budget of the event figures


class Estimate(NamedTuple):
    """A mean with its 95 % bootstrap interval, and how far seeds lie apart."""

    mean: float
    low: float
    high: float
    seeds_sd: float = 0.0


class Events(NamedTuple):
    """What is found of the events of a set at one threshold."""

    threshold: float  # of −log10 p
    recall: Estimate
    f1: float
    delay: float  # median, readings; NaN where nothing was found
    false_alarms_per_week: float  # and judged series
    delay_by_kind: dict[int, float]
    recall_by_kind: dict[int, float]


class Summary(NamedTuple):
    """One detector in one variant on one set; by_unit is a row a series or node with an event, for comparisons."""

    files: int
    seeds: int
    auc_pr: Estimate
    vus_pr: Estimate
    auc_pr_smooth: Estimate
    vus_pr_smooth: Estimate
    vus_by_unit: FloatArray
    auc_by_unit: FloatArray
    at_rate: Events | None  # at the lowest threshold that keeps the rate of false alarms
    at_budget: Events | None  # at the threshold that the budget asks for by itself
    nab: dict[str, Estimate]  # profile, and profile with one report in 120 points


Run = dict[int, Figures]
"""Figures of a case by seed."""


def draws(n: int, statistic: Callable[[npt.NDArray[np.intp]], float]) -> tuple[float, float]:
    """95 % interval of ``statistic`` over n units drawn with replacement; it gets the indices of a draw."""
    rng = np.random.default_rng(20_240_101)  # the same draws for every detector: differences are paired
    values = [statistic(rng.integers(0, n, n)) for _ in range(DRAWS)]
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def estimate(by_seed: FloatArray) -> Estimate:
    """Mean of (seeds, units), its interval over units, and the deviation of the seeds' means."""
    units = by_seed.mean(axis=0)
    if not len(units):
        return Estimate(np.nan, np.nan, np.nan)
    low, high = draws(len(units), lambda rows: float(units[rows].mean()))
    seeds = by_seed.mean(axis=1)
    return Estimate(float(units.mean()), low, high, float(seeds.std(ddof=1)) if len(seeds) > 1 else 0.0)


def paired(ours: FloatArray, theirs: FloatArray) -> Estimate:
    """Mean difference of two detectors over the same units (u,), with its interval."""
    return estimate((ours - theirs)[None, :])


def summarise(cases: Sequence[Case], runs: Sequence[Run]) -> Summary:
    """All figures of one detector over the cases of a set, which all have the same seeds."""
    seeds = sorted(runs[0])

    def column(name: str) -> FloatArray:
        return np.array([np.concatenate([getattr(run[seed], name) for run in runs]) for seed in seeds])

    areas, volumes = column("auc_pr"), column("vus_pr")
    counted = len(runs[0][seeds[0]].false_alarms) > 0
    has_events = counted and any(len(run[seeds[0]].kind) for run in runs)
    return Summary(
        files=len(runs),
        seeds=len(seeds),
        auc_pr=estimate(areas),
        vus_pr=estimate(volumes),
        auc_pr_smooth=estimate(column("auc_pr_smooth")),
        vus_pr_smooth=estimate(column("vus_pr_smooth")),
        vus_by_unit=volumes.mean(axis=0),
        auc_by_unit=areas.mean(axis=0),
        at_rate=_events(runs, seeds, None) if has_events else None,
        at_budget=_events(runs, seeds, -1) if has_events else None,
        nab=_nab(cases, runs, seeds) if cases[0].windows is not None else {},
    )


def _events(runs: Sequence[Run], seeds: Sequence[int], level: int | None) -> Events:
    """At threshold number ``level``, or at the lowest one that keeps the rate; all seeds together."""
    false = np.sum([run[seed].false_alarms for run in runs for seed in seeds], axis=0)
    weeks = float(np.sum([run[seed].weeks[0] for run in runs for seed in seeds]))
    if level is None:
        keeps = np.flatnonzero(false[: len(THRESHOLDS)] <= FALSE_ALARMS * weeks)
        level = int(keeps[0]) if len(keeps) else len(THRESHOLDS) - 1
    delay = np.concatenate([run[seed].delay[level] for run in runs for seed in seeds])
    kind = np.concatenate([run[seed].kind for run in runs for seed in seeds])
    found = np.isfinite(delay)
    n_false = float(false[level])
    low, high = draws(len(found), lambda rows: float(found[rows].mean()))
    return Events(
        threshold=float(THRESHOLDS[level]) if 0 <= level < len(THRESHOLDS) else np.nan,
        recall=Estimate(float(found.mean()), low, high),
        f1=2.0 * float(found.sum()) / (len(found) + float(found.sum()) + n_false),
        delay=_median(delay),
        false_alarms_per_week=n_false / weeks,
        delay_by_kind={int(one): _median(delay[kind == one]) for one in np.unique(kind)},
        recall_by_kind={int(one): float(found[kind == one].mean()) for one in np.unique(kind)},
    )


def _median(delay: npt.NDArray[np.float32]) -> float:
    found = delay[np.isfinite(delay)]
    return float(np.median(found)) if len(found) else np.nan


def _nab(cases: Sequence[Case], runs: Sequence[Run], seeds: Sequence[int]) -> dict[str, Estimate]:
    """NAB scores; the intervals draw files anew at the threshold that was best for the corpus of the first seed."""
    by_seed: dict[str, list[float]] = {}
    intervals: dict[str, tuple[float, float]] = {}
    for seed in seeds:
        files = [
            NabFile(case.name, case.timestamp, run[seed].score.astype(np.float64), case.windows or ())
            for case, run in zip(cases, runs, strict=True)
        ]
        for suffix, every in (("", None), (f", one report in {REPORT_EVERY}", REPORT_EVERY)):
            for profile, score in zip(PROFILES, score_corpus(files, report_every=every), strict=True):
                name = profile.name + suffix
                by_seed.setdefault(name, []).append(score.score)
                if seed == seeds[0]:
                    parts = score_by_file(files, profile, score.threshold, every)
                    intervals[name] = draws(len(files), lambda rows, parts=parts: normalised(parts[rows]))  # type: ignore[misc]
    return {
        name: Estimate(
            float(np.mean(values)), *intervals[name], float(np.std(values, ddof=1)) if len(values) > 1 else 0
        )
        for name, values in by_seed.items()
    }


def normalised(parts: FloatArray) -> float:
    """The NAB score of files whose rows `score_by_file` gave; NaN where none has a window."""
    raw, silent, perfect = parts.sum(axis=0)
    return float(100.0 * (raw - silent) / (perfect - silent)) if perfect > silent else np.nan


def confusion(runs: Sequence[Run]) -> dict[tuple[int, int], int]:
    """Events by (true kind, said kind), 0 where nothing was said."""
    counts: dict[tuple[int, int], int] = {}
    for run in runs:
        for figures in run.values():
            for true, said in zip(figures.kind.tolist(), figures.said.tolist(), strict=True):
                counts[true, said] = counts.get((true, said), 0) + 1
    return counts
