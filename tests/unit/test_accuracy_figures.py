"""How `make accuracy` judges, averages and keeps, on scores made by hand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import judging, running, table
from benchmarks.accuracy.cache import Cache
from benchmarks.accuracy.contestants import Own
from benchmarks.accuracy.judging import SMOOTH, THRESHOLDS, Scored, budget_log10_p, detections, judge, smoothed
from benchmarks.accuracy.ours import HOUSE, score_case, top_mean
from benchmarks.accuracy.peer import calibrated, filled, in_spreads
from benchmarks.accuracy.running import Outcome
from benchmarks.accuracy.sets import Case
from benchmarks.accuracy.summary import confusion, estimate, normalised, paired, summarise
from tidewarden.evaluate.curves import average_precision, vus_pr
from tidewarden.evaluate.nab import PROFILES, NabFile, score_by_file, score_corpus

MINUTE = 60_000


def _case(labels: np.ndarray, name: str = "one", windows: list[tuple[int, int]] | None = None) -> Case:
    n = len(labels)
    values = np.zeros((n, labels.shape[1] if labels.ndim == 2 else 1))
    return Case("made", name, np.arange(n, dtype=np.int64) * MINUTE, values, labels, None, windows)


def _with_event(n: int = 1_000, first: int = 500, last: int = 519, kind: int = 2) -> np.ndarray:
    labels = np.zeros(n, np.uint8)
    labels[first : last + 1] = kind
    return labels


def test_curves_are_those_of_the_evaluation_behind_the_probation() -> None:
    """AUC-PR and VUS-PR are computed by `tidewarden.evaluate` on the rows that count, plain and smoothed."""
    labels, score = _with_event(), np.random.default_rng(0).random((1_000, 1))
    figures = judge(_case(labels), Scored(score))
    assert figures.auc_pr[0] == average_precision(labels[150:], score[150:, 0])
    assert figures.vus_pr[0] == vus_pr(labels[150:], score[150:, 0])
    assert figures.vus_pr_smooth[0] == vus_pr(labels[150:], smoothed(score)[150:, 0])
    assert len(figures.false_alarms) == 0  # without p-values no alarm is counted


def test_smoothing_is_a_trailing_mean() -> None:
    """Against the mean taken row by row; the first rows over what there is."""
    score = np.random.default_rng(1).normal(size=(60, 2))
    slow = np.array([score[max(row - SMOOTH + 1, 0) : row + 1].mean(axis=0) for row in range(60)])
    np.testing.assert_allclose(smoothed(score), slow)
    assert smoothed(score[:3]).shape == (3, 2)


def test_detections_join_over_calm_readings_as_alerting_does() -> None:
    """Ten calm readings keep a run open, eleven close it."""
    above = np.zeros(60, np.bool_)
    above[[5, 16, 28]] = True
    assert detections(above).tolist() == [[5, 16], [28, 28]]


def test_events_delays_and_false_alarms_at_each_threshold() -> None:
    """An alarm four readings into the event finds it; one elsewhere is false; a higher threshold loses both."""
    rare = np.zeros((1_000, 1))
    rare[504, 0], rare[800, 0], rare[100, 0] = 5.1, 3.1, 12.0  # the last is in the probation
    figures = judge(_case(_with_event()), Scored(rare / 6.0, rare))
    low, middle, high = (int(np.searchsorted(THRESHOLDS, level)) for level in (2.5, 4.5, 5.5))
    assert figures.delay[:, 0][[low, middle]].tolist() == [4.0, 4.0]
    assert np.isnan(figures.delay[high, 0])
    assert figures.false_alarms[[low, middle, high]].tolist() == [1, 0, 0]
    assert figures.weeks[0] == pytest.approx(850 / 10_080)
    # The budget of one a week asks for one reading in 10,080.
    assert budget_log10_p(MINUTE) == pytest.approx(4.0034, abs=1e-4)
    assert (figures.delay[-1, 0], figures.false_alarms[-1]) == (4.0, 0)


def test_the_kind_said_most_often_within_an_event_counts() -> None:
    """True level shift, called spike twice and level shift thrice: a level shift; the other event was not found."""
    labels = _with_event(kind=4)
    labels[700:710] = 5
    said = np.zeros((1_000, 1), np.uint8)
    said[500:502], said[502:505] = 2, 4
    figures = judge(_case(labels), Scored(np.zeros((1_000, 1)), np.zeros((1_000, 1)), said))
    assert confusion([{0: figures}]) == {(4, 4): 1, (5, 0): 1}


def test_scores_of_another_shape_are_refused() -> None:
    """Train rows left in by mistake would shift every label."""
    with pytest.raises(ValueError, match="made/one: scores"):
        judge(_case(_with_event()), Scored(np.zeros((999, 1))))


def test_a_summary_takes_the_lowest_threshold_that_keeps_the_rate() -> None:
    """With one false alarm in less than a week the threshold rises above it, and the event is still found."""
    rare = np.zeros((1_000, 1))
    rare[504, 0], rare[800, 0] = 5.1, 3.1
    case = _case(_with_event())
    summary = summarise([case], [{0: judge(case, Scored(rare / 6.0, rare))}])
    assert summary.at_rate is not None
    assert 3.1 < summary.at_rate.threshold < 3.4
    assert (summary.at_rate.recall.mean, summary.at_rate.f1, summary.at_rate.delay) == (1.0, 1.0, 4.0)
    assert summary.at_rate.recall_by_kind == {2: 1.0}
    assert summary.nab == {}


def test_a_bootstrap_interval_covers_the_mean_as_often_as_it_says() -> None:
    """Of 60 samples of 40, about 95 % of the intervals hold the true mean; and identical units have none."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(60):
        one = estimate(rng.normal(1.0, 1.0, (1, 40)))
        held += one.low <= 1.0 <= one.high
    assert 50 <= held <= 60
    same = estimate(np.full((3, 5), 0.25))
    assert (same.mean, same.low, same.high, same.seeds_sd) == (0.25, 0.25, 0.25, 0.0)
    seeds = estimate(np.array([[0.0, 0.0], [1.0, 1.0]]))
    assert (seeds.mean, seeds.seeds_sd) == (0.5, pytest.approx(np.sqrt(0.5)))


def test_a_paired_difference_is_surer_than_its_parts() -> None:
    """Where one detector is better by the same on every file, the difference has no width."""
    theirs = np.random.default_rng(3).random(20)
    gap = paired(theirs + 0.1, theirs)
    assert gap.low == pytest.approx(0.1)
    assert gap.high == pytest.approx(0.1)


def test_parts_by_file_add_up_to_the_corpus_score() -> None:
    """`score_by_file` at the corpus' own threshold gives the NAB score, plain and with fewer reports."""
    rng = np.random.default_rng(4)
    times = np.arange(400, dtype=np.int64) * MINUTE
    files = [NabFile(f"f{i}", times, rng.random(400), [(200 * MINUTE, 240 * MINUTE)] if i else []) for i in range(4)]
    for every in (None, 20):
        for profile, whole in zip(PROFILES, score_corpus(files, report_every=every), strict=True):
            parts = score_by_file(files, profile, whole.threshold, every)
            assert normalised(parts) == pytest.approx(whole.score)


def test_libraries_scores_are_scaled_by_what_came_before_the_judged_rows() -> None:
    """Scale and level of a raw score do not matter, what comes later does not count, and infinity stays finite."""
    raw = np.random.default_rng(5).normal(size=(300, 1))
    one, other = in_spreads(raw, 100), in_spreads(1e6 * raw - 3.0, 100)
    np.testing.assert_allclose(one, other, atol=1e-9)
    changed = raw.copy()
    changed[200:] = 50.0
    np.testing.assert_array_equal(in_spreads(changed, 100)[:200], one[:200])
    changed[250] = np.inf
    assert np.isfinite(in_spreads(changed, 100)).all()


def test_libraries_get_our_calibration_and_rule_for_missing_readings() -> None:
    """A wild score is rare, an ordinary one is not; three missing readings in a row are as rare as in ours."""
    rng = np.random.default_rng(6)
    raw, values = rng.exponential(size=(3_000, 1)), np.zeros((3_000, 1))
    raw[2_000] = 60.0
    values[2_500:2_503] = np.nan
    rare = calibrated(raw, values, MINUTE)[:, 0]
    assert rare[2_000] > 6.0
    assert np.median(rare) < 1.0
    assert rare[2_502] > 6.0
    assert rare[2_503] < 4.0


def test_what_a_library_cannot_take_is_filled_with_the_last_value() -> None:
    """Missing readings are carried forward, 0 before the first."""
    values = np.array([[np.nan, 1.0], [2.0, np.nan], [np.nan, np.nan], [3.0, 4.0]])
    assert filled(values).tolist() == [[0.0, 1.0], [2.0, 1.0], [2.0, 1.0], [3.0, 4.0]]


def test_a_node_is_the_mean_of_its_three_most_unusual_metrics() -> None:
    """Fewer than three: of all of them."""
    assert top_mean(np.array([[0.1, 0.9, 0.5, 0.4]])).tolist() == [pytest.approx(0.6)]
    assert top_mean(np.array([[0.2, 0.4]])).tolist() == [pytest.approx(0.3)]


def test_our_models_score_series_and_nodes_with_rows_as_in_the_case() -> None:
    """A spike in the test rows gets the highest score, for a series and for a node warmed on a train file."""
    rng = np.random.default_rng(7)
    values = rng.normal(size=(600, 4))
    values[450, :] = 25.0
    times = np.arange(600, dtype=np.int64) * MINUTE
    series = Case("made", "s", times, values[:, :1], np.zeros(600, np.uint8))
    node = Case("made", "n", times, values, np.zeros(600, np.uint8), rng.normal(size=(500, 4)))
    alone = score_case(series, "ewma", 0)["shipped"]
    assert alone.score.shape == (600, 1)
    assert int(np.argmax(alone.score)) == 450
    both = score_case(node, "ewma", 0)
    assert set(both) == {"shipped", "metrics only"}
    for scored in both.values():
        assert scored.score.shape == (600, 1)
        assert int(np.argmax(scored.score)) == 450


def test_kept_results_come_back_and_another_key_does_not(tmp_path: Path) -> None:
    """A killed write leaves nothing that reads as a result."""
    cache = Cache(tmp_path)
    (tmp_path / "cut.part").write_bytes(b"half")
    cache.put(("a", "1"), {"x": np.arange(3)})
    kept = cache.get(("a", "1"))
    assert kept is not None
    assert kept["x"].tolist() == [0, 1, 2]
    assert cache.get(("a", "2")) is None
    assert ("a", "1") in cache


def test_a_rerun_scores_nothing_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second run reads all figures from the cache, and they are the same."""
    rng = np.random.default_rng(8)
    times = np.arange(400, dtype=np.int64) * MINUTE
    case = Case("made", "s", times, rng.normal(size=(400, 1)), _with_event(400, 300, 310))
    key = running.key_of(Own("ewma"), case, 0)
    running.work(Own("ewma"), case, 0, str(tmp_path), 1.0)
    (again,) = running.outcomes([Own("ewma")], [case], 5, Cache(tmp_path), 1.0)
    assert capsys.readouterr().err == ""
    kept = Cache(tmp_path).get(key)
    assert kept is not None
    assert again.variants["shipped"].vus_pr[0] == kept["shipped/vus_pr"][0]
    assert again.seed == 0  # ewma has no seed, so there is one run, whatever was asked for


def test_a_killed_run_takes_its_processes_along(tmp_path: Path) -> None:
    """A pool whose parent is killed outright ends by itself: what its processes hold open is closed by them."""
    program = (
        "import os, sys, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from benchmarks.accuracy.running import _end_with_parent\n"
        "if __name__ == '__main__':\n"
        "    pool = ProcessPoolExecutor(1, get_context('spawn'), _end_with_parent)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    script = tmp_path / "killed.py"
    script.write_text(program)
    # Returns once all ends of the pipe are closed. The pool's process holds one: as long as it lives, this waits.
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=HOUSE, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HOUSE), os.environ.get("PYTHONPATH", "")])},
    )  # fmt: skip
    assert done.returncode == -9
    assert int(done.stdout) > 0


def test_a_detector_that_lacks_a_file_has_no_mean() -> None:
    """Over fewer files a mean would not compare."""
    cases = [_case(_with_event(), "a"), _case(_with_event(), "b")]
    figures = judge(cases[0], Scored(np.zeros((1_000, 1))))
    found = [
        Outcome(Own("ewma"), cases[0], 0, {"shipped": figures}, 0.1),
        Outcome(Own("ewma"), cases[1], 0, {}, 0.1, "too slow"),
    ]
    assert running.by_case(found, Own("ewma"), "shipped", cases) is None
    assert running.by_case(found, Own("ewma"), "shipped", cases[:1]) is not None


def test_the_page_names_detectors_sets_and_failures_and_lines_are_sorted() -> None:
    """Every row has as many cells as its table has columns, and NAB and kinds have their tables."""
    case = _case(_with_event(), "a", [(500 * MINUTE, 519 * MINUTE)])
    rng = np.random.default_rng(9)
    rare = rng.exponential(size=(1_000, 1))
    figures = judge(case, Scored(rare, rare, np.zeros((1_000, 1), np.uint8)))
    summary = summarise([case], [{0: figures}])
    rows = [table.Row("fleets", "auto", "shipped", True, summary), table.Row("fleets", "x", "raw", False, summary)]
    page = table.markdown(rows, {"auto": confusion([{0: figures}])}, ["rrcf on nab: slow"], "About.")
    for heading in ("# Accuracy", "## fleets", "**auto**", "x, raw", "| NAB |", "true \\ said", "- rrcf on nab: slow"):
        assert heading in page
    assert "`auto` against x, raw" in page
    widths = [line.count(" | ") for line in page.splitlines() if line.startswith("| ")]
    assert min(widths) >= 1
    lines = table.json_lines([Outcome(Own("auto"), case, seed, {"shipped": figures}, 0.0) for seed in (1, 0)])
    assert [line.split('"seed": ')[1][0] for line in lines.splitlines()] == ["0", "1"]


def test_the_overview_is_generous_to_libraries() -> None:
    """One row a library, with the best of its variants for each figure; ours have a row a variant."""
    case = _case(_with_event())
    score = _with_event()[:, None] + np.random.default_rng(10).random((1_000, 1))
    good, bad = (summarise([case], [{0: judge(case, Scored(one))}]) for one in (score, -score))
    rows = [
        table.Row("asd", "auto", "shipped", True, bad),
        table.Row("asd", "x", "calibrated", False, bad),
        table.Row("asd", "x", "raw", False, good),
    ]
    lines = table.markdown(rows, {}, [], "").splitlines()
    ours, library = lines[lines.index("|---|---:|") + 1 :][:2]
    assert library.startswith("| x | **")
    assert library.count("**") == 4
    assert ours.startswith("| **auto** | .0")


def test_every_threshold_of_the_row_is_a_rarity_that_alerting_could_ask_for() -> None:
    """They rise, from one in a hundred readings on."""
    assert (np.diff(judging.THRESHOLDS) > 0).all()
    assert judging.THRESHOLDS[0] == 2.0
