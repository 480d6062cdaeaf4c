"""Runs of readings above the threshold become anomalies, each told once and the same however it arrives."""

from dataclasses import fields
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.events import AnomalyKind, stable_id
from tidewarden.frames import ABOVE, LATE, MISSING, SCORE_COLUMNS, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.scoring.anomalies import AnomalyTracker
from tidewarden.scoring.rollup import combine
from tidewarden.scoring.runs import LASTING_READINGS, MAX_REVISIONS

MINUTE = 60_000
KEYS = [SeriesKey("shop", "eu", node, metric) for node in ("n1", "n2") for metric in ("cpu", "latency_ms", "errors")]


def scores_of(table, series, minute, value, sd=5.0, expected=100.0, score=None, flags=None):
    """A score frame of a model that knows that values are normal around ``expected``."""
    value = np.asarray(value, np.float64)
    n = len(value)
    z = np.abs(value - expected) / sd
    p = np.where(np.isnan(z), 1e-6, np.clip(np.exp(-(np.where(np.isnan(z), 0, z) ** 2) / 2), 1e-12, 1))
    score = np.minimum(1, -np.log10(p) / 6) if score is None else np.asarray(score, np.float64)
    bits = np.where(score >= 0.8, ABOVE, 0) | np.where(np.isnan(value), MISSING, 0)
    flags = bits if flags is None else bits | np.asarray(flags)
    band = np.full(n, expected)
    return ScoreFrame(
        table, "fast", "auto/1", np.broadcast_to(np.asarray(series, np.int32), (n,)).copy(),
        np.asarray(minute, np.int64) * MINUTE, value, score, 10.0 ** (-6 * score), band, band - 13, band + 13,
        np.zeros(n, np.uint8), flags.astype(np.uint8),
    )  # fmt: skip


def tracker_of(table, quiet=10):
    return AnomalyTracker("fast", "shop", "auto/1", table, quiet=quiet, interval_ms=MINUTE)


def one_series(value, quiet=10, **more):
    """What is told about one series with a reading a minute, and the kinds of its readings."""
    table = SeriesTable(KEYS[:1])
    scores = scores_of(table, 0, np.arange(len(value)), value, **more)
    return tracker_of(table, quiet).observe(scores), scores.kind


def calm(n, seed=0):
    return 100 + np.random.default_rng(seed).normal(0, 4, n).clip(-12, 12)


def busy_scores(table, seed, n_ticks=120):
    """Interleaved readings of all KEYS with runs of every sort in them, in one arrival order."""
    rng = np.random.default_rng(seed)
    value = 100 + rng.normal(0, 5, (n_ticks, len(KEYS)))
    for series in range(len(KEYS)):
        for _ in range(3):
            start, length = rng.integers(20, n_ticks), rng.integers(1, 40)
            shape = rng.choice(["up", "down", "missing", "noise", "drift"])
            part = value[start : start + length, series]
            part += {"up": 60.0, "down": -50.0, "missing": np.nan, "noise": rng.normal(0, 40, len(part)),
                     "drift": np.linspace(0, 80, len(part))}[shape]  # fmt: skip
    ids = table.ids_of(KEYS)
    minute = np.repeat(np.arange(n_ticks), len(KEYS))
    return scores_of(table, np.tile(ids, n_ticks), minute, value.ravel())


def cut(scores, places):
    edges = [0, *sorted(places), len(scores)]
    return [scores.take(slice(a, b)) for a, b in pairwise(edges)]


def told_in_parts(table, parts, tracker=None):
    tracker = tracker or tracker_of(table)
    return [anomaly for part in parts for anomaly in tracker.observe(part)], np.concatenate([p.kind for p in parts])


def test_a_spike_is_told_when_it_opens_and_when_it_closes_under_one_id():
    value = calm(60)
    value[30:34] = [180, 220, 190, 170]
    told, kind = one_series(value, score=np.where((np.arange(60) >= 30) & (np.arange(60) < 34), 0.9, 0.1))
    assert [(a.state, a.revision) for a in told] == [("open", 1), ("closed", 2)]
    closed = told[-1]
    assert closed.id == told[0].id == stable_id("anomaly", "shop", "fast", "shop/eu/n1/cpu", 30 * MINUTE)
    assert (closed.onset, closed.end, closed.readings) == (30 * MINUTE, 33 * MINUTE, 4)
    assert (closed.kind, closed.direction, closed.severity) == ("spike", "up", "critical")
    assert [a.updated_at // MINUTE for a in told] == [30, 43]  # closed by the tenth calm reading
    assert closed.series == KEYS[0]
    assert kind.nonzero()[0].tolist() == [30, 31, 32, 33]


def test_readings_within_quiet_belong_to_the_same_anomaly_and_beyond_it_to_the_next():
    value = calm(80)
    value[[20, 29, 50]] = 200  # 8 calm readings between the first two, 20 before the third
    told, _ = one_series(value, quiet=9)
    closed = [a for a in told if a.state == "closed"]
    assert [(a.onset // MINUTE, a.end // MINUTE, a.readings) for a in closed] == [(20, 29, 2), (50, 50, 1)]


def test_readings_that_stay_outside_the_band_keep_a_run_open_below_the_threshold():
    """Calibration gets used to an anomaly before it is over; its end is when the values are back."""
    value = calm(60)
    value[30:42] += 100
    told, kind = one_series(value, quiet=3, score=np.where((np.arange(60) >= 30) & (np.arange(60) < 33), 0.9, 0.5))
    assert [(a.state, a.onset // MINUTE, a.end // MINUTE, a.readings) for a in told] == [
        ("open", 30, 30, 1),
        ("closed", 30, 41, 3),
    ]
    assert told[-1].kind == "spike"
    assert kind.nonzero()[0].tolist() == [30, 31, 32]


def test_a_lasting_shift_is_told_once_and_the_series_is_armed_again_after_it_has_calmed():
    value = calm(900)
    value[100:600] += 80
    value[700:705] += 80
    told, kind = one_series(value)
    assert len({a.id for a in told}) == 2
    shift = [a for a in told if a.onset == 100 * MINUTE]
    assert shift[-1].state == "closed"
    assert shift[-1].kind == "level_shift"
    assert shift[-1].readings == LASTING_READINGS
    assert told[-1].onset == 700 * MINUTE
    assert (kind[100:600] == AnomalyKind.LEVEL_SHIFT).sum() > 450  # its readings still say what they are part of


def test_missing_readings_during_a_shift_that_is_already_known_are_told():
    value = calm(600)
    value[100:] += 80
    value[500:520] = np.nan
    told, _ = one_series(value)
    assert ("missing", 500) in {(a.kind, a.onset // MINUTE) for a in told}


def test_a_series_that_stays_missing_stays_open():
    value = calm(900)
    value[100:] = np.nan
    told, _ = one_series(value)
    assert [(a.kind, a.state) for a in told] == [("missing", "open")]


def test_an_anomaly_is_published_at_most_six_times_and_its_revisions_count_up():
    value = calm(500)
    grows = np.linspace(0.8, 1, 200)
    score = np.full(500, 0.1)
    score[100:300] = grows
    value[100:300] += np.linspace(30, 400, 200) * np.where(np.arange(200) % 37 < 18, 1, -1)
    told, _ = one_series(value, score=score)
    assert len(told) <= MAX_REVISIONS
    assert [a.revision for a in told] == list(range(1, len(told) + 1))
    assert [a.state for a in told[:-1]] == ["open"] * (len(told) - 1)


def test_a_late_reading_neither_calms_a_run_nor_opens_one_within_the_past():
    table = SeriesTable(KEYS[:1])
    value = [100.0] * 30 + [200.0, 100.0, 100.0, 190.0, 100.0] + [100.0] * 30 + [210.0]
    minute = [*range(30), 32, 33, 10, 31, 34, *range(35, 65), 32]
    flags = np.zeros(len(value), np.int64)
    flags[[32, 33, -1]] = LATE
    told = tracker_of(table).observe(scores_of(table, 0, minute, value, flags=flags))
    assert [(a.state, a.onset // MINUTE, a.end // MINUTE, a.readings) for a in told] == [
        ("open", 32, 32, 1),
        ("closed", 32, 32, 2),
    ]


def test_node_share_is_the_contribution_of_the_rollup():
    table = SeriesTable(KEYS)
    tracker = tracker_of(table)
    tracker.observe(scores_of(table, [0, 1], [0, 0], [100, 100], score=[0.3, 0.75]))
    (anomaly,) = tracker.observe(scores_of(table, [2], [0], [200], score=[0.85]))
    score, contributions = combine([0.3, 0.75, 0.85])
    assert anomaly.node_share == pytest.approx(contributions[2] / score, abs=1e-9)
    assert "drives 80 % of node n1" in anomaly.explanation


def test_where_values_are_unknown_an_anomaly_says_null():
    value = calm(40)
    value[30:] = np.nan
    (anomaly,), _ = one_series(value)
    assert anomaly.value is None
    assert anomaly.direction == "none"
    assert anomaly.explanation == "cpu no readings for 1 min or more"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 720), max_size=12))
def test_any_cut_into_frames_gives_the_same_anomalies_and_kinds(seed, places):
    table = SeriesTable(KEYS)
    whole = busy_scores(table, seed)
    parts = cut(whole, places)
    expected, kinds = told_in_parts(table, [whole])
    found, found_kinds = told_in_parts(table, parts)
    assert found == expected
    np.testing.assert_array_equal(found_kinds, kinds)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.permutations(range(len(KEYS))), st.integers(0, 720))
def test_neither_the_numbering_of_series_nor_a_restart_changes_what_is_told(seed, order, stop):
    first = SeriesTable(KEYS)
    expected, kinds = told_in_parts(first, [busy_scores(first, seed)])
    before = tracker_of(first)
    head = busy_scores(first, seed).take(slice(0, stop))
    told = before.observe(head)
    # A new process that met another series first and numbers the rest differently.
    second = SeriesTable([SeriesKey("other", "c", "n", "m"), *(KEYS[i] for i in order)])
    after = tracker_of(second)
    state = before.snapshot()
    n_known = len(state["tally"])
    after.restore(state, second.ids_of(first.keys[:n_known]))
    tail = busy_scores(second, seed).take(slice(stop, None))
    told += after.observe(tail)
    assert told == expected
    np.testing.assert_array_equal(np.concatenate([head.kind, tail.kind]), kinds)


def runs_by_hand(above, quiet):
    """The slow, obvious oracle: (first, last, number above) of each run that has closed or is open."""
    runs = []
    rows = np.flatnonzero(above)
    for row in rows:
        if runs and row - runs[-1][1] <= quiet:
            runs[-1] = (runs[-1][0], row, runs[-1][2] + 1)
        else:
            runs.append((row, row, 1))
    return runs


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=150), st.integers(1, 6))
def test_runs_are_those_that_one_finds_by_hand(above, quiet):
    score = np.where(above, 0.9, 0.2)
    told, kind = one_series(np.where(above, 190.0, 100.0), quiet=quiet, score=score)
    newest = {a.id: a for a in told}
    by_hand = runs_by_hand(above, quiet)
    assert [a.onset // MINUTE for a in newest.values()] == [run[0] for run in by_hand]
    closed = [(a.onset // MINUTE, a.end // MINUTE, a.readings) for a in newest.values() if a.state == "closed"]
    assert closed == [run for run in by_hand if len(above) - 1 - run[1] >= quiet]
    np.testing.assert_array_equal(kind != 0, above)


def test_more_events_than_one_call_of_the_kernel_hands_over_come_all_and_in_order():
    table = SeriesTable([SeriesKey("t", "c", f"n{i}", "m") for i in range(3000)])
    scores = scores_of(table, np.arange(3000), np.zeros(3000), np.full(3000, 200.0))
    told = tracker_of(table).observe(scores)
    assert [a.node for a in told] == [f"n{i}" for i in range(3000)]


def test_a_series_costs_less_than_two_kilobytes():
    assert tracker_of(SeriesTable()).state_bytes_per_series <= 2048


def test_a_snapshot_that_does_not_fit_is_refused_with_the_array_and_its_shape():
    table = SeriesTable(KEYS)
    tracker = tracker_of(table)
    tracker.observe(busy_scores(table, 1))
    state = tracker.snapshot()
    del state["onset"]
    with pytest.raises(ValueError, match=r"onset has shape None, expected \(6,\)"):
        tracker_of(table).restore(state, list(range(6)))


def test_only_the_kind_of_the_scores_is_written():
    table = SeriesTable(KEYS)
    scores, before = busy_scores(table, 3), busy_scores(table, 3)
    tracker_of(table).observe(scores)
    for field in fields(ScoreFrame):
        if field.name in SCORE_COLUMNS and field.name != "kind":
            np.testing.assert_array_equal(getattr(scores, field.name), getattr(before, field.name))


def test_a_run_of_a_series_that_went_silent_closes_by_its_tenants_time() -> None:
    """A series that stops in the middle of an anomaly does not keep it open for ever, and closes it once."""
    table = SeriesTable([SeriesKey("t", "c", "n", "m"), SeriesKey("other", "c", "n", "m")])
    tracker = AnomalyTracker("d", "s", "auto/1", table, quiet=5, interval_ms=60_000)
    n = 12
    value = np.full(n, 10.0)
    value[-1] = 50.0
    scores = ScoreFrame(
        table, "d", "auto/1", np.zeros(n, np.int32), np.arange(n, dtype=np.int64) * 60_000, value,
        np.where(value > 20, 0.95, 0.1), np.where(value > 20, 1e-6, 0.3), np.full(n, 10.0), np.full(n, 8.0),
        np.full(n, 12.0), np.zeros(n, np.uint8), np.where(value > 20, ABOVE, 0).astype(np.uint8),
    )  # fmt: skip
    (opened,) = tracker.observe(scores)
    assert opened.state == "open"
    over_at = opened.end + 600_000
    assert tracker.close_silent({"t": over_at, "other": over_at * 9}, 600_000) == []
    (closed,) = tracker.close_silent({"t": over_at + 60_000}, 600_000)
    assert (closed.id, closed.state, closed.end) == (opened.id, "closed", opened.end)
    assert closed.updated_at == over_at
    assert tracker.close_silent({"t": over_at * 2}, 600_000) == []
