"""What simulated fleets promise: the same bytes everywhere, plausible metrics, labelled anomalies."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter

import numpy as np
import pytest

from tidewarden.events import AnomalyKind
from tidewarden.resources.metricsimulation import Anomalies, CustomMetric, Fleet
from tidewarden_simulator.anomalies import SHAPES, TruthEvent
from tidewarden_simulator.draws import Draws
from tidewarden_simulator.fleets import Block, FleetMaker
from tidewarden_simulator.signals import BUILT_IN

START_MS = 1_767_225_600_000  # 2026-01-01, a Thursday
ALL_KINDS = {kind.label: 1.0 for kind in SHAPES}


def maker(
    *,
    anomalies: Anomalies | None = None,
    nodes: int = 50,
    metrics: list[str] | None = None,
    custom: list[CustomMetric] | None = None,
    seed: int = 7,
    points: int | None = 1440,
) -> FleetMaker:
    """A fleet of one tenant with two clusters, a minute a tick."""
    fleet = Fleet(tenants=["shop"], clusters=2, nodes=nodes, metrics=metrics or list(BUILT_IN), custom=custom or [])
    return FleetMaker(fleet, anomalies, seed=seed, interval_ms=60_000, start_ms=START_MS, points=points)


def digest(block: Block) -> str:
    """Hash of every byte of the readings."""
    hashed = hashlib.sha256()
    for column, form in ((block.timestamp, "<i8"), (np.nan_to_num(block.value, nan=-1.0), "<f8"), (block.label, "u1")):
        hashed.update(np.ascontiguousarray(column, form).tobytes())
    return hashed.hexdigest()


def test_the_same_seed_gives_the_same_bytes_on_every_machine() -> None:
    anomalies = Anomalies(mix=ALL_KINDS, incidents=2, per_series=2, ratio=0.5)
    assert digest(maker(anomalies=anomalies).block(0, 1440)) == GOLDEN
    assert digest(maker(anomalies=anomalies, seed=8).block(0, 1440)) != GOLDEN


GOLDEN = "493cb917e269df52540cac6678f7f848b7ba5739e97b4a305dd59b3fa96c7586"


@pytest.mark.parametrize("points", [1440, None])
def test_readings_do_not_depend_on_how_they_are_cut_into_blocks(points: int | None) -> None:
    anomalies = Anomalies(mix=ALL_KINDS, incidents=1, ratio=0.6)
    whole = maker(anomalies=anomalies, points=points, nodes=8).block(1000, 1440)
    fleet = maker(anomalies=anomalies, points=points, nodes=8)
    cuts = [1000, 1001, 1017, 1018, 1100, 1333, 1439, 1440]
    parts = [fleet.block(a, b) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate([p.value for p in parts]), whole.value)
    np.testing.assert_array_equal(np.concatenate([p.label for p in parts]), whole.label)


def test_normal_draws_are_normal_into_the_far_tails() -> None:
    draws = Draws(1, "test").normal(np.arange(1_000), 1_000).ravel()
    assert abs(draws.mean()) < 0.003
    assert abs(draws.std() - 1) < 0.003
    beyond = int((np.abs(draws) > 4.2).sum())  # behind the last cell of the table: 2.7e-5 of the draws, 27 expected
    assert 10 <= beyond <= 50
    assert np.abs(draws).max() > 4.5


def test_metrics_have_their_level_noise_and_season() -> None:
    fleet = maker(nodes=150)
    values = fleet.block(0, 1440).value.reshape(1440, 300, len(BUILT_IN))
    for index, signal in enumerate(BUILT_IN.values()):
        one = values[:, :, index]
        thursday = 0.87  # the mean of the week's cosine over this day
        level = signal.base * (1 + 0.5 * signal.trend + thursday * signal.weekly)
        assert one.mean() == pytest.approx(level, rel=0.02), signal.name
        around_14h, around_2h = one[810:870].mean(), one[90:150].mean()
        assert (around_14h - around_2h) / 2 == pytest.approx(signal.seasonal * signal.base, rel=0.25), signal.name
        noise = np.diff(one, axis=0).std() / math.sqrt(2) / signal.base
        assert noise == pytest.approx(signal.noise, rel=0.15), signal.name


def test_the_metrics_of_a_node_follow_its_load() -> None:
    values = maker(nodes=100).block(0, 1440).value.reshape(1440, 200, len(BUILT_IN))
    names = list(BUILT_IN)
    residual = np.diff(values, axis=0)
    latency, throughput = residual[:, :, names.index("latency_ms")], residual[:, :, names.index("throughput")]
    assert np.corrcoef(latency.ravel(), throughput.ravel())[0, 1] == pytest.approx(0.3, abs=0.05)
    other_node = np.roll(throughput, 1, axis=1)
    assert abs(np.corrcoef(latency.ravel(), other_node.ravel())[0, 1]) < 0.02


def test_no_reading_leaves_the_bounds_of_its_metric() -> None:
    wild = CustomMetric(name="wild", base=5, noise=2.0, min=1, max=9)
    fleet = maker(anomalies=Anomalies(mix=ALL_KINDS, ratio=1, magnitude=5, incidents=5), custom=[wild])
    values = fleet.block(0, 1440).value.reshape(1440, 100, len(BUILT_IN) + 1)
    for index, signal in enumerate(BUILT_IN.values()):
        assert np.nanmin(values[:, :, index]) >= 0, signal.name
        assert np.nanmax(values[:, :, index]) <= signal.highest, signal.name
    assert np.nanmin(values[:, :, -1]) == 1
    assert np.nanmax(values[:, :, -1]) == 9


def test_a_metric_that_is_neither_built_in_nor_described_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'latencyms' is not built in: describe it under custom"):
        maker(metrics=["latencyms"])


# --- anomalies -----------------------------------------------------------------------------------


def truth_of(anomalies: Anomalies, **options: int) -> list[TruthEvent]:
    """The truth of a day."""
    return list(maker(anomalies=anomalies, **options).truth(1440))


def test_without_a_mix_the_five_classic_kinds_have_a_fifth_each() -> None:
    truth = truth_of(Anomalies(ratio=0.5))
    kinds = Counter(event.kind.label for event in truth)
    assert len({event.series for event in truth}) == 350
    assert kinds == dict.fromkeys(("spike", "level_shift", "drift", "missing", "seasonal_change"), 70)


def test_mix_ratio_and_number_per_series_are_kept_to_the_last_anomaly() -> None:
    truth = truth_of(Anomalies(ratio=0.1, mix={"spike": 3, "dip": 1}, per_series=4))
    assert Counter(event.kind for event in truth) == {AnomalyKind.SPIKE: 210, AnomalyKind.DIP: 70}
    assert set(Counter(event.series for event in truth).values()) == {4}


def test_labels_and_truth_say_the_same_and_the_first_fifth_is_clean() -> None:
    fleet = maker(anomalies=Anomalies(mix=ALL_KINDS, ratio=1))
    label = fleet.block(0, 1440).label
    expected = np.zeros_like(label)
    place = {key: index for index, key in enumerate(fleet.keys)}
    for event in fleet.truth(1440):
        expected[event.onset_index : event.end_index + 1, place[event.series]] = event.kind
        assert event.onset == START_MS + event.onset_index * 60_000
        assert event.end == START_MS + event.end_index * 60_000
    np.testing.assert_array_equal(label, expected)
    assert not label[:288].any()
    assert set(np.unique(label)) == {0, *SHAPES}


def test_anomalies_have_the_length_and_size_of_their_kind() -> None:
    for event in truth_of(Anomalies(mix=ALL_KINDS, ratio=1)):
        shape = SHAPES[event.kind]
        assert shape.shortest <= event.end_index - event.onset_index + 1 <= shape.longest
        assert shape.smallest <= abs(event.magnitude) <= shape.largest


def test_only_labelled_readings_differ_from_the_same_fleet_without_anomalies() -> None:
    calm = maker().block(0, 1440)
    hurt = maker(anomalies=Anomalies(mix=ALL_KINDS, ratio=1)).block(0, 1440)
    np.testing.assert_array_equal(hurt.value[hurt.label == 0], calm.value[hurt.label == 0])


def test_each_kind_does_to_the_readings_what_its_name_says() -> None:
    fleet = maker(metrics=["latency_ms"], anomalies=Anomalies(mix=ALL_KINDS, ratio=1), nodes=200)
    calm, hurt = maker(metrics=["latency_ms"], nodes=200).block(0, 1440).value, fleet.block(0, 1440).value
    place = {key: index for index, key in enumerate(fleet.keys)}
    for event in fleet.truth(1440):
        rows, series = slice(event.onset_index, event.end_index + 1), place[event.series]
        before, after = calm[rows, series], hurt[rows, series]
        match event.kind:
            case AnomalyKind.SPIKE:
                np.testing.assert_allclose(after / before, event.magnitude, rtol=0.01)
            case AnomalyKind.DIP:
                np.testing.assert_allclose(before / after, event.magnitude, rtol=0.01)
            case AnomalyKind.LEVEL_SHIFT:
                assert 44 < abs(np.median(after - before)) < 56
            case AnomalyKind.DRIFT:
                assert 26 < abs(after[-1] - before[-1]) < 34
                assert abs(after[0] - before[0]) < 1
            case AnomalyKind.TREND_CHANGE:
                assert abs(after - before)[len(after) // 2] > 50
            case AnomalyKind.MISSING:
                assert np.isnan(after).all()
            case AnomalyKind.FLAT_LINE:
                assert np.ptp(after) == 0
            case AnomalyKind.NOISE | AnomalyKind.SEASONAL_CHANGE:
                assert np.std(after) > 1.5 * np.std(before)


def test_incidents_hit_several_nodes_of_one_cluster_together() -> None:
    truth = truth_of(Anomalies(ratio=0, incidents=8), nodes=10)
    sizes = []
    for number in range(8):
        hit = [event for event in truth if event.incident == number]
        assert len({(event.series.tenant, event.series.cluster) for event in hit}) == 1
        assert max(e.onset_index for e in hit) - min(e.onset_index for e in hit) < 3
        assert all((e.magnitude < 0) == (e.series.metric in ("throughput", "network_mbps")) for e in hit)
        sizes.append(len({event.series.node for event in hit}))
    assert 10 in sizes, "some hit a whole cluster"
    assert 2 <= min(sizes) < 10, "some hit a part of it"


def test_an_endless_simulation_goes_on_with_anomalies_in_every_epoch() -> None:
    fleet = maker(anomalies=Anomalies(), points=None)
    for epoch in range(3):
        label = fleet.block(epoch * 1440, (epoch + 1) * 1440).label
        assert np.any(label, axis=0).mean() == pytest.approx(0.3, abs=0.01)
    assert len(list(fleet.truth(3 * 1440))) == 3 * 210


@pytest.mark.parametrize("points", [1, 2, 3, 5, 10, 60])
def test_a_simulation_may_be_shorter_than_its_anomalies(points: int) -> None:
    fleet = maker(anomalies=Anomalies(mix=ALL_KINDS, ratio=1, incidents=3, per_series=3), points=points)
    label = fleet.block(0, points).label
    assert label.shape == (points, 700)
    assert not label[: math.ceil(0.2 * points)].any()
    assert all(event.end_index < points for event in fleet.truth(points))


def test_a_mix_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"anomalies\.mix: the weights .* give one kind a weight above 0"):
        maker(anomalies=Anomalies(mix={"spike": 0})).block(0, 10)
