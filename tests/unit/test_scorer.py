"""The scorer says the same however its readings are cut, and what it says of gaps and thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewarden.frames import ABOVE, ABSENT, LATE, LEARNING, MISSING, SCORE_COLUMNS, Frame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.anomalydetector import Alerting
from tidewarden.scoring.budgets import Budgets
from tidewarden.scoring.decision import DECISION_ROW, Rules, decide
from tidewarden.scoring.gaps import GapFiller
from tidewarden.scoring.scorer import Scorer, ScorerConfig

STEP_MS = 60_000
KEYS = [SeriesKey("shop", "eu", f"n{i // 3}", f"m{i % 3}") for i in range(9)]


def scorer(table: SeriesTable, kind: str = "ewma", **spec) -> Scorer:
    model = (
        {"kind": kind, kind: {"warmup": 40}} if kind in {"auto", "ewma"} else {"kind": kind, **spec.pop("model", {})}
    )
    detector = AnomalyDetectorSpec.model_validate({"stream": "shop", "model": model, **spec})
    return Scorer(ScorerConfig("watch", "shop", detector, STEP_MS, STEP_MS, 5), table)


def feed(table: SeriesTable, n: int = 160, seed: int = 0) -> Frame:
    """Nine series on three nodes: noise, spikes, nulls, absences, duplicates, late readings, a node's silence."""
    rng = np.random.default_rng(seed)
    ids = table.ids_of(KEYS)
    series, timestamp = np.tile(ids, n), np.repeat(np.arange(n, dtype=np.int64) * STEP_MS, len(ids))
    value = rng.normal(100, 5, len(series))
    value[rng.random(len(series)) < 0.01] *= 4
    value[rng.random(len(series)) < 0.01] = np.nan
    silent = (table.node_of[series] == table.node_of[ids[4]]) & (timestamp > 90 * STEP_MS) & (timestamp < 110 * STEP_MS)
    keep = (rng.random(len(series)) > 0.03) & ~silent
    frame = Frame(table, series, timestamp, value).take(keep)
    rows = np.arange(len(frame))
    late = rng.choice(rows[200:], 12, replace=False)
    rows = np.sort(np.concatenate([rows, late]))  # duplicates …
    swap = rng.choice(len(rows) - 40, 12, replace=False)
    rows[swap], rows[swap + 30] = rows[swap + 30].copy(), rows[swap].copy()  # … and late ones
    return frame.take(rows)


def named(scores) -> list[tuple]:
    """Rows of a score frame with names for ids, exact to the bit."""
    columns = [getattr(scores, name) for name in SCORE_COLUMNS[1:]]
    keys = [scores.table[i] for i in scores.series]
    return [(key, *(c[i].tobytes() for c in columns)) for i, key in enumerate(keys)]


@pytest.mark.parametrize("kind", ["ewma", "auto"])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_cutting_and_restarting_change_nothing(kind, data):
    """In one go, or in random pieces with restarts from snapshots into tables with other ids: the same to the bit."""
    table = SeriesTable()
    frame = feed(table)
    first = scorer(table, kind, alerting={"budget": "50/day"})
    whole = first.score(frame)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(frame)), max_size=8)))
    restarts = data.draw(st.sets(st.integers(0, len(cuts)), max_size=3))
    running, current = scorer(table, kind, alerting={"budget": "50/day"}), table
    rows, anomalies = [], []
    for piece, (lo, hi) in enumerate(zip([0, *cuts], [*cuts, len(frame)], strict=True)):
        if piece in restarts:
            state = running.snapshot()
            order = data.draw(st.permutations(range(len(KEYS))))
            current = SeriesTable([SeriesKey("other", "x", "y", "z"), *(KEYS[i] for i in order)])
            running = scorer(current, kind, alerting={"budget": "50/day"})
            running.restore(state)
        part = frame.take(slice(lo, hi))
        ids = current.ids_of(table[i] for i in part.series)
        scored = running.score(Frame(current, ids, part.timestamp, part.value))
        rows += named(scored.scores)
        anomalies += scored.anomalies
    assert rows == named(whole.scores)
    assert anomalies == whole.anomalies


def naive_gaps(frame: Frame, interval: int, lateness: int, max_gap: int) -> list[tuple[int, int, bool, bool]]:  # noqa: C901 - all rules in one place, to read beside the kernel
    """(series, timestamp, absent, late) by plain rules over plain Python objects."""
    newest: dict[int, int] = {}
    last: dict[int, int] = {}
    run: dict[int, int] = {}
    gaps: dict[int, list[int]] = {}
    clock: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    out: list[tuple[int, int, bool, bool]] = []

    def spacing(s: int) -> int:
        return max(interval, sorted(gaps[s][-7:])[3])

    def absent(s: int) -> None:
        last[s] += spacing(s)
        run[s] += 1
        out.append((s, last[s], True, False))

    for s, t in zip(frame.series.tolist(), frame.timestamp.tolist(), strict=True):
        node = int(frame.table.node_of[s])
        if s not in newest:
            members.setdefault(node, []).append(s)
        if t > clock.get(node, -(2**62)):
            clock[node] = t
            for other in members[node]:
                if other in newest and len(gaps[other]) >= 7:
                    while run[other] < max_gap and last[other] + 2 * spacing(other) + lateness < t:
                        absent(other)
        late = s in newest and t <= newest[s]
        if not late:
            if s in newest:
                if len(gaps[s]) >= 7:
                    while run[s] < max_gap and last[s] + spacing(s) + spacing(s) // 2 < t:
                        absent(s)
                gaps[s].append(t - newest[s])
            else:
                gaps[s] = []
            newest[s] = last[s] = t
            run[s] = 0
        out.append((s, t, False, late))
    return out


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("interval", "lateness", "max_gap"), [(STEP_MS, STEP_MS, 5), (STEP_MS, 0, 2), (1_000, 9_000, 40)]
)
def test_absent_readings_are_those_of_the_plain_rules(seed, interval, lateness, max_gap):
    """The gap kernel puts the same absent and late readings at the same places as an obvious implementation."""
    table = SeriesTable()
    frame = feed(table, seed=seed)
    filler = GapFiller(interval, lateness, max_gap)
    filler.resize(len(table), len(table.nodes))
    filled = filler.fill(frame.series, frame.timestamp, frame.value, table.node_of)
    columns = (filled.series, filled.timestamp, filled.absent, filled.late)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == naive_gaps(frame, interval, lateness, max_gap)


def line(table: SeriesTable, values, start: int = 0) -> Frame:
    """One series, a reading a minute."""
    n = len(values)
    ids = np.full(n, table.id_of(KEYS[0]), np.int32)
    return Frame(table, ids, (start + np.arange(n, dtype=np.int64)) * STEP_MS, np.asarray(values, np.float64))


def test_warmup_is_declared_and_visible():
    """While a series learns its score is 0, p is 1, there is no band, and the message says how far it is."""
    table = SeriesTable()
    watch = scorer(table)
    rng = np.random.default_rng(0)
    assert watch.learning().message == "waiting for the first reading"
    scores = watch.score(line(table, rng.normal(100, 5, 34))).scores
    assert (scores.flags == LEARNING).all()
    assert (scores.anomaly_score == 0).all()
    assert (scores.p_value == 1).all()
    assert np.isnan(scores.expected).all()
    assert watch.learning().message == "learning, 34 of 40 readings"
    after = watch.score(line(table, rng.normal(100, 5, 10), 34)).scores
    assert (after.flags[:6] == LEARNING).all()
    assert (after.flags[6:] & LEARNING == 0).all()
    assert watch.learning().n_ready == 1
    assert watch.learning().message == "ready"


def test_missing_is_mild_once_and_certain_thrice():
    """In a regular series one missing reading scores about 0.45, two 0.9, three in a row 1, be they null or absent."""
    table = SeriesTable()
    watch = scorer(table)
    rng = np.random.default_rng(0)
    watch.score(line(table, rng.normal(100, 5, 100)))
    null = watch.score(line(table, [np.nan] * 3, 100)).scores
    assert (null.flags & MISSING).all()
    np.testing.assert_allclose(null.anomaly_score, [0.45, 0.9, 1.0], atol=0.02)
    resumed = watch.score(line(table, rng.normal(100, 5, 60), 103))
    assert (resumed.scores.flags & MISSING == 0).all()
    gone = watch.score(line(table, rng.normal(100, 5, 2), 166)).scores
    assert (gone.flags & ABSENT > 0).tolist() == [True, True, True, False, False]
    assert gone.anomaly_score[2] == 1.0
    assert gone.flags[2] & ABOVE


def test_absences_are_bounded():
    """A series silent for an hour is absent max_gap times, not sixty."""
    table = SeriesTable()
    watch = scorer(table)
    watch.score(line(table, np.arange(50.0)))
    scores = watch.score(line(table, [1.0], 110)).scores
    assert (scores.flags & ABSENT > 0).sum() == 5


def test_late_readings_are_scored_but_not_learned():
    """A late reading is flagged and scored, and what follows is as if it had not come."""
    table = SeriesTable()
    rng = np.random.default_rng(0)
    with_late, without = scorer(table), scorer(table)
    start, rest = line(table, rng.normal(100, 5, 100)), line(table, rng.normal(100, 5, 50), 100)
    for watch in (with_late, without):
        watch.score(start)
    late = with_late.score(line(table, [500.0], 97)).scores
    assert late.flags[0] & LATE
    assert late.anomaly_score[0] > 0.5
    after, plain = with_late.score(rest).scores, without.score(rest).scores
    assert after.anomaly_score.tobytes() == plain.anomaly_score.tobytes()


@pytest.mark.parametrize(
    ("direction", "up", "down"), [("both", True, True), ("up", True, False), ("down", False, True)]
)
def test_direction_and_least_deviation(direction, up, down):
    """Only deviations to the wanted side, and of at least min_deviation, pass the threshold."""
    table = SeriesTable()
    rng = np.random.default_rng(0)
    values = rng.normal(100, 5, 400)
    values[300], values[350] = 400, -200
    for least, passes in ((0.0, True), (1000.0, False)):
        alerting = {"threshold": 0.5, "direction": direction, "minDeviation": least}
        scores = scorer(table, alerting=alerting).score(line(table, values)).scores
        above = scores.flags & ABOVE > 0
        assert (above[300], above[350]) == (up and passes, down and passes)


def test_a_budget_asks_more_of_larger_fleets():
    """With a budget the p-value a reading needs falls in proportion to the series that report."""
    watch = scorer(SeriesTable(), alerting={"budget": "2/day"})
    rules = watch._rules
    assert 10 ** -rules.needed_log10_p(1) == pytest.approx(2 / 1440)
    assert 10 ** -rules.needed_log10_p(1000) == pytest.approx(2 / 1_440_000)


@pytest.mark.parametrize(("scope", "sharing"), [("detector", 5), ("tenant", 4), ("series", 1)])
@pytest.mark.parametrize(("times", "passes"), [(0.98, False), (1.02, True)])
def test_a_budget_is_shared_by_those_of_its_scope(scope, sharing, times, passes):
    """One tenant has four series, another one: a reading must be as rare as those ask who share its budget."""
    keys = [SeriesKey("big", "c", f"n{i}", "m") for i in range(4)] + [SeriesKey("small", "c", "n", "m")]
    rules = Rules.of(Alerting.model_validate({"budget": "10/day", "scope": scope}), STEP_MS)
    budgets, rows = Budgets(scope), np.zeros((5, DECISION_ROW))
    budgets.adopt(keys)
    series = np.array([0, 1, 2, 3, 4, 0], np.int32)
    log10_p = np.array([0, 0, 0, 0, 0, np.log10(times * sharing * 1440 / 10)])
    blank, flags = np.full(6, np.nan), np.zeros(6, np.uint8)
    decide(
        series, np.zeros(6), log10_p, np.ones(6, np.bool_), np.zeros(6, np.bool_), blank, blank.copy(), blank.copy(),
        flags, rows, budgets.group_of, budgets.n_active, 0, rules,
    )  # fmt: skip
    assert bool(flags[5] & ABOVE) == passes
    again = Budgets(scope)
    again.adopt(keys)
    again.count(rows)
    assert again.n_active.tolist() == budgets.n_active.tolist()


def test_unselected_series_are_passed_over():
    """Series that select leaves out have no scores and cost no state."""
    table = SeriesTable()
    watch = scorer(table, select={"metrics": ["m1"], "nodes": ["n0", "n2"]})
    scores = watch.score(feed(table)).scores
    assert {table[i] for i in set(scores.series.tolist())} == {KEYS[1], KEYS[7]}
    assert watch.n_series == 2


def test_scores_follow_their_definition():
    """anomaly_score is min(1, -log10 p / 6), p is in (0, 1], nothing is NaN, and fixed limits score 1 outside."""
    table = SeriesTable()
    scores = scorer(table).score(feed(table, 400)).scores
    assert ((scores.p_value > 0) & (scores.p_value <= 1)).all()
    expected = np.minimum(1, -np.log10(scores.p_value) / 6)
    np.testing.assert_allclose(scores.anomaly_score, expected, atol=1e-9)
    limits = scorer(table, "static", model={"static": {"upper": 10}}).score(line(table, [5, 11, 10])).scores
    assert limits.anomaly_score.tolist() == [0, 1, 0]


def test_a_damaged_or_foreign_snapshot_is_refused():
    """A flipped byte, other bytes, and a snapshot of another model are errors that say what to do."""
    table = SeriesTable()
    watch = scorer(table)
    watch.score(feed(table))
    state = watch.snapshot()
    broken = bytearray(state)
    broken[len(state) // 2] ^= 1
    with pytest.raises(ValueError, match="damaged"):
        scorer(table).restore(bytes(broken))
    with pytest.raises(ValueError, match="not a scorer snapshot"):
        scorer(table).restore(b"hello")
    with pytest.raises(ValueError, match="start without the snapshot"):
        scorer(table, "mad").restore(state)


def test_memory_is_stated():
    """State of `auto` with calibration and all costs at most 10 KB a series."""
    watch = scorer(SeriesTable(), "auto")
    assert watch.state_bytes_per_series <= 10_240
    assert not math.isnan(watch.state_bytes)
