"""Events matched by hand, and evaluations of tables as the store gives them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tidewarden.evaluate.events import join, match, truth_events
from tidewarden.evaluate.report import evaluate_table
from tidewarden.events import Anomaly
from tidewarden.frames import LEARNING

MINUTE = 60_000


def _spans(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, np.int64).reshape(-1, 2)


def test_events_are_found_by_overlap_and_by_what_follows_closely() -> None:
    """Inside, early, just behind and too late: each as the docstring says."""
    truth = _spans((100, 200), (400, 500), (700, 800), (1000, 1100))
    found = match(truth, _spans((150, 160), (350, 420), (820, 830), (1200, 1300)), tolerance_ms=30)
    assert found.found.tolist() == [True, True, True, False]
    assert found.delay_ms[:3].tolist() == [50.0, 0.0, 120.0]
    assert found.false_alarm.tolist() == [False, False, False, True]
    assert (found.precision, found.recall, found.f1) == (0.75, 0.75, 0.75)
    assert found.delay_median_s == 0.05


def test_several_detections_of_one_event_count_once() -> None:
    """Neither precision nor delay changes with a second detection, and one may find two events."""
    once = match(_spans((100, 200)), _spans((120, 125)), 0)
    twice = match(_spans((100, 200)), _spans((120, 125), (180, 250)), 0)
    assert (once.precision, once.recall, once.delay_ms.tolist()) == (1.0, 1.0, [20.0])
    assert (twice.precision, twice.recall, twice.delay_ms.tolist()) == (1.0, 1.0, [20.0])
    both = match(_spans((100, 200), (250, 300)), _spans((150, 260)), 0)
    assert both.found.all()


def test_figures_without_meaning_are_none() -> None:
    """No event and no detection: nothing is claimed."""
    empty = join([])
    assert (empty.precision, empty.recall, empty.f1, empty.delay_median_s) == (None, None, None, None)
    silent = match(_spans((1, 2)), _spans(), 0)
    assert (silent.precision, silent.recall, silent.f1) == (None, 0.0, 0.0)


def test_truth_events_are_runs_of_labelled_readings() -> None:
    """First and last time of each run."""
    times = np.arange(6, dtype=np.int64) * 10
    assert truth_events(times, np.array([0, 2, 3, 0, 0, 1])).tolist() == [[10, 20], [50, 50]]


def _anomaly(node: str, onset: int, end: int, revision: int = 0, detector: str = "d") -> Anomaly:
    return Anomaly(
        id=f"{node}-{onset}-{detector}", revision=revision, state="closed", stream="s", detector=detector,
        model_version="auto/1",
        tenant="t", cluster="c", node=node, metric="cpu", onset=onset * MINUTE, end=end * MINUTE,
        peak_at=onset * MINUTE, peak_score=0.9, p_value=1e-6, value=1.0, expected=0.0, lower=-1.0, upper=1.0,
        readings=1, kind="spike", direction="up", severity="critical", node_share=1.0, explanation="",
    )  # fmt: skip


def _table(n: int = 1440) -> pa.Table:
    """Two labelled nodes and one without truth, a day of minutes, one hour of learning; b has no event."""
    parts = []
    for node in ("a", "b", "unlabelled"):
        label = np.zeros(n, np.uint8)
        score = np.linspace(0.0, 0.1, n)
        if node == "a":
            label[600:620] = 2
            label[900:960] = 4
            score[605:615] = 0.9
        parts.append(
            pa.table(
                {
                    "tenant": ["t"] * n, "cluster": ["c"] * n, "node": [node] * n, "metric": ["cpu"] * n,
                    "timestamp": np.arange(n, dtype=np.int64) * MINUTE, "value": np.zeros(n),
                    "label": pa.array(label) if node != "unlabelled" else pa.nulls(n, pa.uint8()),
                    "detector": ["d"] * n, "anomaly_score": score,
                    "flags": np.where(np.arange(n) < 60, LEARNING, 0).astype(np.uint8),
                }
            )
        )  # fmt: skip
    table = pa.concat_tables(parts)
    return table.take(pa.array(np.random.default_rng(0).permutation(table.num_rows)))


def test_a_table_of_the_store_is_evaluated_series_by_series() -> None:
    """Found, missed and false alarms by event; revisions, other detectors and unlabelled series do not count."""
    anomalies = [
        _anomaly("a", 605, 606), _anomaly("a", 605, 615, revision=1),  # one event found, 5 minutes late
        _anomaly("a", 962, 970),  # three intervals behind the second event
        _anomaly("b", 700, 701), _anomaly("b", 800, 801),  # two false alarms
        _anomaly("b", 300, 301, detector="other"), _anomaly("unlabelled", 300, 301),
    ]  # fmt: skip
    result = evaluate_table(_table(), anomalies, "d", "sim", MINUTE)
    assert (result.detector, result.simulation) == ("d", "sim")
    assert (result.events, result.detected, result.false_alarms, result.series) == (2, 2, 2, 2)
    assert (result.precision, result.recall) == (0.5, 1.0)
    assert result.f1 == pytest.approx(2 / 3)
    assert result.delay_median_s == pytest.approx((5 + 62) / 2 * 60)
    assert result.false_alarms_per_day == pytest.approx(2 / (1380 / 1440))
    assert (result.readings, result.learning) == (2 * 1380, 2 * 60)
    assert result.auc_pr is not None
    assert result.vus_pr is not None
    assert 0.1 < result.auc_pr < 1.0
    assert 0.1 < result.vus_pr < 1.0


def test_rows_of_another_detector_and_without_a_score_are_left_out() -> None:
    """A table may hold several detectors' rows; an evaluation is of one."""
    other = evaluate_table(_table(), [], "nobody", "sim", MINUTE)
    assert (other.series, other.events, other.precision, other.false_alarms_per_day) == (0, 0, None, None)
    assert evaluate_table(_table().slice(0, 0), [], "d", "sim", MINUTE).readings == 0
