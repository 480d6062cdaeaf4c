"""Scores in, rollups of closed ticks out: the same rows however the scores were cut, numbered or interrupted."""

import json
from collections import defaultdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.bus.port import Record
from tidewarden.codec import Codec
from tidewarden.frames import ABSENT, MISSING, NodeKey, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.rollup import combine
from tidewarden_services.rollup.service import RollupService

MINUTE = 60_000
START = 1_700_000_040_000  # the start of a minute
KEYS = [
    SeriesKey(tenant, cluster, node, metric)
    for tenant in ("shop", "bank")
    for cluster in ("eu", "us")
    for node in ("n1", "n2")
    for metric in ("cpu", "latency_ms")
]
LATENESS = 1  # intervals
WAIT = LATENESS + 3  # intervals past its start after which a tick closes by time


def resources(levels=("node", "cluster", "tenant")):
    head = {"apiVersion": "tidewarden.dev/v1alpha1"}
    detector = {
        **head, "kind": "AnomalyDetector", "metadata": {"name": "fast"}, "spec": {"stream": "s", "rollup": levels},
    }  # fmt: skip
    stream = {**head, "kind": "MetricStream", "metadata": {"name": "s"}, "spec": {"tenants": ["shop", "bank"]}}
    return AnomalyDetector.model_validate(detector), MetricStream.model_validate(stream)


def service_of(table, levels=("node", "cluster", "tenant")):
    return RollupService(*resources(levels), table)


def scores_of(table, readings, detector="fast"):
    """A score frame of (key, minute, score) triples, or (key, minute, score, flags)."""
    n = len(readings)
    series = table.ids_of(reading[0] for reading in readings)
    minute = np.array([reading[1] for reading in readings], np.float64)
    score = np.array([reading[2] for reading in readings], np.float64)
    flags = np.array([reading[3] if len(reading) > 3 else 0 for reading in readings], np.uint8)
    nothing = np.zeros(n)
    return ScoreFrame(
        table, detector, "auto/1", series, (START + minute * MINUTE).astype(np.int64), nothing, score,
        10.0 ** (-6 * score), nothing, nothing, nothing, np.zeros(n, np.uint8), flags,
    )  # fmt: skip


def feed(service, table, readings, places=()):
    """Rows (scope, minute, score, children, peak) that come of readings cut at ``places``."""
    rows = []
    edges = [0, *sorted(places), len(readings)]
    for offset, (a, b) in enumerate(pairwise(edges)):
        for output in service.handle(Record("scores", 0, offset, "shop", scores_of(table, readings[a:b]))):
            assert (output.purpose, output.key) == ("rollups", "shop")
            rows += rows_of(output.value)
    return rows


def rows_of(frame):
    assert len(set(frame.scopes)) == len(frame.scopes)
    return [
        (frame.scopes[scope], (at - START) // MINUTE, score, children, peak)
        for scope, at, score, children, peak in zip(
            frame.scope.tolist(), frame.timestamp.tolist(), frame.score.tolist(), frame.children.tolist(),
            frame.peak.tolist(), strict=True,
        )
    ]  # fmt: skip


def regular(n_ticks, seed=0, keys=KEYS):
    rng = np.random.default_rng(seed)
    return [(key, minute, float(rng.uniform()) ** 4) for minute in range(n_ticks) for key in keys]


def ragged(seed, n_ticks=14):
    """Readings with gaps, absences, late ones, repeats within a tick, nodes that come late and go, in one order."""
    rng = np.random.default_rng(seed)
    first = {key: int(rng.choice([0, 0, 0, 4])) for key in KEYS}
    readings = []
    for minute in range(n_ticks):
        for place in rng.permutation(len(KEYS)):
            key = KEYS[place]
            if minute < first[key] or rng.uniform() < 0.1:
                continue
            flags = ABSENT | MISSING if rng.uniform() < 0.05 else 0
            behind = int(rng.integers(1, 6)) if rng.uniform() < 0.05 else 0
            readings.append((key, minute - behind, float(rng.uniform()), flags))
            if rng.uniform() < 0.02:
                readings.append((key, minute + 0.5, float(rng.uniform())))
    return readings


def test_a_tick_closes_as_soon_as_every_series_has_a_score_once_the_fleet_is_known():
    table = SeriesTable()
    service = service_of(table)
    readings = regular(12)
    feed(service, table, readings[:-1])
    rows = feed(service, table, readings[-1:])
    assert {row[1] for row in rows} == {11}
    assert {row[0] for row in rows if row[0].tenant == "bank"} == {row[0] for row in rows}


def test_every_row_is_the_combination_of_its_children():
    table = SeriesTable()
    rows = feed(service_of(table), table, regular(12))
    found = {(scope, minute): (score, children, peak) for scope, minute, score, children, peak in rows}
    assert {minute for _, minute in found} == set(range(12))
    by_key = {(key, minute): score for key, minute, score in regular(12)}
    for minute in range(12):
        for tenant in ("shop", "bank"):
            clusters = []
            for cluster in ("eu", "us"):
                nodes = []
                for node in ("n1", "n2"):
                    below = [by_key[SeriesKey(tenant, cluster, node, m), minute] for m in ("cpu", "latency_ms")]
                    expected = combine(below)[0]
                    assert found[NodeKey(tenant, cluster, node), minute] == (expected, 2, max(below))
                    nodes.append(expected)
                clusters.append(combine(nodes)[0])
                assert found[NodeKey(tenant, cluster, ""), minute][:2] == (clusters[-1], 2)
            hottest = max(score for (key, at), score in by_key.items() if key.tenant == tenant and at == minute)
            assert found[NodeKey(tenant, "", ""), minute] == (combine(clusters)[0], 2, hottest)


def test_only_the_levels_of_the_spec_go_out():
    table = SeriesTable()
    rows = feed(service_of(table, ("tenant",)), table, regular(12))
    assert {row[0] for row in rows} == {NodeKey("shop", "", ""), NodeKey("bank", "", "")}
    everything = feed(service_of(table), table, regular(12))
    assert rows == [row for row in everything if row[0].cluster == ""]
    assert feed(service_of(table, ()), table, regular(12)) == []


def test_a_tick_without_a_silent_series_closes_by_time_and_without_it():
    table = SeriesTable()
    service = service_of(table)
    keys = KEYS[:8]
    silent = keys[0]
    readings = [r for r in regular(20, keys=keys) if not (r[0] == silent and r[1] >= 10)]
    cutoff = next(i for i, r in enumerate(readings) if r[1] == 10 + WAIT)
    assert max(row[1] for row in feed(service, table, readings[:cutoff])) == 9
    rows = feed(service, table, readings[cutoff : cutoff + 1])
    assert {row[1] for row in rows} == {10}
    assert {row[0]: row[3] for row in rows}[NodeKey("shop", "eu", "n1")] == 1


def test_an_absent_reading_that_the_detector_notices_takes_part_in_its_tick():
    table = SeriesTable()
    service = service_of(table)
    keys = KEYS[:8]
    readings = [r for r in regular(13, keys=keys) if r[:2] != (keys[0], 10)]
    # Noticed as the detector does: when the node has passed the tick by interval + lateness.
    readings += [(keys[0], 10, 0.9, ABSENT | MISSING)]
    rows = feed(service, table, readings)
    row = next(row for row in rows if row[0] == NodeKey("shop", "eu", "n1") and row[1] == 10)
    assert row[3:] == (2, 0.9)
    assert service.late == {"shop": 0}


def test_a_series_that_is_gone_for_max_gap_ticks_is_no_longer_waited_for():
    table = SeriesTable()
    service = service_of(table)
    keys = KEYS[:8]
    readings = [r for r in regular(40, keys=keys) if not (r[0] == keys[0] and r[1] >= 10)]
    feed(service, table, readings[:-1])
    rows = feed(service, table, readings[-1:])
    assert {row[1] for row in rows} == {39}


def test_scores_after_their_tick_has_closed_are_counted_and_change_nothing():
    table = SeriesTable()
    service = service_of(table)
    feed(service, table, regular(12))
    assert service.late == {"shop": 0, "bank": 0}
    assert feed(service, table, [(KEYS[0], 3, 1.0), (KEYS[0], 11, 1.0)]) == []
    assert service.late == {"shop": 2, "bank": 0}


def test_several_readings_in_a_tick_count_with_the_highest():
    table = SeriesTable()
    readings = [(KEYS[0], minute + part, 0.1 + part) for minute in range(12) for part in (0.0, 0.5, 0.25)]
    service = service_of(table)
    rows = feed(service, table, readings)
    assert {row[4] for row in rows} == {0.6}
    assert service.late == {"shop": 0}


def test_frames_of_other_detectors_are_passed_over():
    table = SeriesTable()
    service = service_of(table)
    assert service.handle(Record("scores", 0, 0, "shop", scores_of(table, regular(12), detector="other"))) == []
    assert service.late == {}


def test_a_reading_far_in_the_future_closes_what_is_open_and_costs_no_memory():
    table = SeriesTable()
    service = service_of(table)
    rows = feed(service, table, [(KEYS[0], 0, 0.5), (KEYS[0], 50_000_000, 0.5)])
    assert {row[1] for row in rows} == {0}
    assert len(service.snapshot()) < 2_000


def rows_by_hand(readings):
    """The slow, obvious oracle for time alone: each tick of a tenant with all that came before it had passed."""
    newest = defaultdict(lambda: -10_000)
    open_ticks = defaultdict(dict)
    closed = {}
    for key, minute, score, *_ in readings:
        tick = int(minute // 1)
        newest[key.tenant] = max(newest[key.tenant], minute)
        for old in [t for t in open_ticks[key.tenant] if newest[key.tenant] >= t + WAIT]:
            closed[key.tenant, old] = open_ticks[key.tenant].pop(old)
        if newest[key.tenant] < tick + WAIT:
            below = open_ticks[key.tenant].setdefault(tick, {})
            below[key] = max(below.get(key, 0), score)
    return closed


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_ticks_that_wait_for_time_hold_what_one_finds_by_hand(seed):
    """Two readings a tick keep completeness out of it, so time alone decides."""
    twice = [reading for r in ragged(seed) for reading in (r, (r[0], r[1] + 0.01, r[2]))]
    table = SeriesTable()
    service = service_of(table, ("tenant",))
    warm = [(key, minute + part, 0.1) for minute in range(-3, 0) for key in KEYS for part in (0.1, 0.2)]
    rows = feed(service, table, warm + twice)
    by_hand = rows_by_hand(warm + twice)
    found = {(scope.tenant, minute): peak for scope, minute, _, _, peak in rows}
    assert found == {place: max(below.values()) for place, below in by_hand.items()}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 200), max_size=15))
def test_any_cut_into_frames_gives_the_same_rows_in_the_same_order_of_closing(seed, places):
    readings = ragged(seed)
    places = [place for place in places if place <= len(readings)]
    first, second = SeriesTable(), SeriesTable()
    whole, parts = service_of(first), service_of(second)
    expected = feed(whole, first, readings)
    assert sorted(feed(parts, second, readings, places)) == sorted(expected)
    assert len({row[:2] for row in expected}) == len(expected)  # a tick of a scope comes once
    assert parts.late == whole.late


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.permutations(KEYS), st.floats(0, 1))
def test_neither_the_numbering_of_series_nor_a_restart_changes_a_row(seed, order, stop):
    readings = ragged(seed)
    at = int(stop * len(readings))
    first = SeriesTable()
    expected = feed(service_of(first), first, readings)
    before = service_of(first)
    rows = feed(before, first, readings[:at])
    second = SeriesTable([SeriesKey("bank", "aa", "stranger", "m"), *order])
    after = service_of(second)
    after.restore(before.snapshot())
    assert after.late == before.late
    rows += feed(after, second, readings[at:])
    assert sorted(rows) == sorted(expected)


def test_rollups_travel_on_the_bus():
    table = SeriesTable()
    (output,) = service_of(table).handle(Record("scores", 0, 0, "shop", scores_of(table, regular(12))))
    codec = Codec(table)
    assert rows_of(codec.decode(*codec.encode(output.value))) == rows_of(output.value)


def test_a_snapshot_of_another_detector_or_interval_is_refused():
    table = SeriesTable()
    state = service_of(table).snapshot()
    detector, stream = resources()
    hourly = stream.model_copy(update={"spec": stream.spec.model_copy(update={"interval": 3_600_000})})
    with pytest.raises(ValueError, match=r"interval_ms 60000, this rollup 3600000"):
        RollupService(detector, hourly, table).restore(state)
    patient = stream.model_copy(update={"spec": stream.spec.model_copy(update={"lateness": 600_000})})
    with pytest.raises(ValueError, match="lateness has changed"):
        RollupService(detector, patient, table).restore(state)


def test_a_snapshot_names_its_series_and_holds_no_pickle():
    table = SeriesTable()
    service = service_of(table)
    feed(service, table, regular(3))
    assert json.dumps(service.late) == '{"shop": 0, "bank": 0}'
    assert b"pickle" not in service.snapshot()
    with pytest.raises(ValueError, match="snapshot"):
        service.restore(b"\x80\x04not a snapshot")
