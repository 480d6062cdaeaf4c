"""The NAB score against a slow reading of the paper, and its fixed points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from tidewarden.evaluate.nab import (
    PROFILES,
    NabFile,
    Profile,
    parse_profiles,
    parse_time,
    parse_windows,
    probation_length,
    scaled_sigmoid,
    score_corpus,
)

MINUTE = 60_000


def _slow_raw(files: Sequence[NabFile], profile: Profile, threshold: float, every: int = 1) -> float:
    """One threshold, point by point, as Lavin & Ahmad describe it."""

    def sigmoid(y: float) -> float:
        return -1.0 if y > 3 else 2 / (1 + math.exp(5 * y)) - 1

    total = 0.0
    for file in files:
        n = len(file.score)
        spans = [[i for i in range(n) if start <= file.timestamp[i] <= end] for start, end in sorted(file.windows)]
        best = {k: -profile.fn_weight for k, span in enumerate(spans) if any(i >= probation_length(n) for i in span)}
        quiet_until = 0
        for i in range(probation_length(n), n):
            if file.score[i] < threshold or i < quiet_until:
                continue
            quiet_until = i + every
            inside = [k for k, span in enumerate(spans) if i in span]
            if inside:
                span = spans[inside[0]]
                reward = profile.tp_weight * sigmoid(-(span[-1] - i + 1) / len(span)) / sigmoid(-1.0)
                best[inside[0]] = max(best[inside[0]], reward)
            else:
                behind = [span for span in spans if span[-1] < i]
                y = (i - behind[-1][-1]) / (len(behind[-1]) - 1) if behind else math.inf
                total += profile.fp_weight * sigmoid(y)
        total += sum(best.values())
    return total


def _slow(files: Sequence[NabFile], profile: Profile, every: int = 1) -> float:
    thresholds = {float(s) for file in files for s in file.score} | {math.inf}
    raw = max(_slow_raw(files, profile, threshold, every) for threshold in thresholds)
    silent = _slow_raw(files, profile, math.inf)
    perfect = profile.tp_weight * sum(len(file.windows) for file in files)
    return 100 * (raw - silent) / (perfect - silent)


def _corpus(seed: int, ties: bool = False) -> list[NabFile]:
    rng = np.random.default_rng(seed)
    files = []
    for k in range(3):
        n = int(rng.integers(60, 120))
        timestamp = np.arange(n, dtype=np.int64) * MINUTE
        starts = np.sort(rng.choice(np.arange(20, n - 15, 16), 2, replace=False))
        windows = [(int(s) * MINUTE, int(s + rng.integers(3, 14)) * MINUTE) for s in starts]
        score = rng.random(n)
        files.append(NabFile(f"f{k}", timestamp, np.round(score, 1) if ties else score, windows))
    return files


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_the_sweep_finds_what_trying_every_threshold_finds(seed: int, ties: bool) -> None:
    """The sorted running sum gives the same best score as the slow definition, ties included."""
    files = _corpus(seed, ties)
    for found, profile in zip(score_corpus(files), PROFILES, strict=True):
        assert found.score == pytest.approx(_slow(files, profile), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_de_duplication_counts_one_report_in_every_n_points(seed: int) -> None:
    """With report_every the compiled sweep agrees with the slow one that suppresses by hand."""
    files = _corpus(seed)
    for found, profile in zip(score_corpus(files, report_every=7), PROFILES, strict=True):
        assert found.score == pytest.approx(_slow(files, profile, every=7), abs=1e-9)


def test_the_null_detector_scores_0_and_a_perfect_one_100() -> None:
    """The two points that define the scale, under all three profiles."""
    files = _corpus(1)
    for constant in (0.5, 0.0, np.nan):
        silent = [file._replace(score=np.full(len(file.score), constant)) for file in files]
        assert [found.score for found in score_corpus(silent)] == [0.0, 0.0, 0.0]
    perfect = [
        file._replace(score=np.isin(file.timestamp, [start for start, _ in file.windows]).astype(float))
        for file in files
    ]
    for found in score_corpus(perfect):
        assert found.score == pytest.approx(100.0)
        assert (found.detected, found.false_reports) == (found.windows, 0)


def test_the_sigmoid_has_the_published_values() -> None:
    """Positions -1, -0.5, 0 and 1 of a window as NAB documents them; far behind it is -1."""
    values = scaled_sigmoid(np.array([-1.0, -0.5, 0.0, 1.0, 3.1]))
    assert values == pytest.approx([0.98661, 0.84828, 0.0, -0.98661, -1.0], abs=1e-5)


def test_probation_is_15_percent_and_at_most_750_points() -> None:
    """What happens in the first part of a file is not counted."""
    assert [probation_length(n) for n in (100, 4000, 5000, 22695)] == [15, 600, 750, 750]
    timestamp = np.arange(100, dtype=np.int64) * MINUTE
    score = np.zeros(100)
    score[[3, 60]] = 1.0
    (standard, *_) = score_corpus([NabFile("f", timestamp, score, [(60 * MINUTE, 70 * MINUTE)])])
    assert standard.score == pytest.approx(100.0)
    assert standard.false_reports == 0


def test_hand_computed_corpus() -> None:
    """One window found half-way and one false report far from it: S(-0.5) and one full cost."""
    timestamp = np.arange(200, dtype=np.int64) * MINUTE
    score = np.zeros(200)
    score[50] = 1.0  # before any window: costs 0.11
    score[105] = 1.0  # the sixth of ten points: position -0.5
    (standard, low_fp, low_fn) = score_corpus([NabFile("f", timestamp, score, [(100 * MINUTE, 109 * MINUTE)])])
    reward = 0.848284 / 0.986614
    assert standard.score == pytest.approx(100 * (reward - 0.11 + 1) / 2, abs=1e-3)
    assert low_fp.score == pytest.approx(100 * (reward - 0.22 + 1) / 2, abs=1e-3)
    assert low_fn.score == pytest.approx(100 * (reward - 0.11 + 2) / 3, abs=1e-3)


def test_many_distinct_scores_still_find_the_best_threshold() -> None:
    """The de-duplicated sweep refines its grid: a lone good threshold among thousands is found."""
    rng = np.random.default_rng(3)
    n = 6000
    score = rng.random(n) * 0.5
    score[3000] = 0.9
    timestamp = np.arange(n, dtype=np.int64) * MINUTE
    file = NabFile("f", timestamp, score, [(3000 * MINUTE, 3100 * MINUTE)])
    assert score_corpus([file], report_every=120)[0].score == pytest.approx(100.0)


def test_files_of_nab_are_read_and_mistakes_are_named() -> None:
    """Windows and profiles parse as NAB writes them; anything else says what was expected."""
    windows = parse_windows(b'{"a/b.csv": [["2014-04-10 07:15:00.000000", "2014-04-11 16:45:00.000000"]]}')
    assert windows == {"a/b.csv": [(1397114100000, 1397234700000)]}
    weights = b'{"standard": {"CostMatrix": {"tpWeight": 1.0, "fnWeight": 1.0, "fpWeight": 0.11, "tnWeight": 1.0}}}'
    assert parse_profiles(weights) == (PROFILES[0],)
    assert parse_time("1970-01-01T01:00:00+01:00") == 0
    with pytest.raises(ValueError, match="'soon' is not a time"):
        parse_time("soon")
    with pytest.raises(ValueError, match="windows must be JSON like"):
        parse_windows(b"[1]")
    with pytest.raises(ValueError, match="profiles must be JSON"):
        parse_profiles(b'{"x": {}}')
    with pytest.raises(ValueError, match="no window"):
        score_corpus([NabFile("f", np.arange(10, dtype=np.int64), np.zeros(10), [])])
    with pytest.raises(ValueError, match="9 scores for 10 timestamps"):
        score_corpus([NabFile("f", np.arange(10, dtype=np.int64), np.zeros(9), [])])
