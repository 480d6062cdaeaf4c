"""What the simulation source promises: labelled frames in time order, paced, and the same after any restart."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidewarden.clock import ManualClock
from tidewarden.frames import SeriesTable
from tidewarden.resources.metricsimulation import MetricSimulation
from tidewarden.sources import Batch, SourceError
from tidewarden_simulator.source import SimulationSource, series_keys, truth

START_MS = 1_767_225_600_000


def simulation(**spec: Any) -> MetricSimulation:
    """A simulation of stream shop."""
    return MetricSimulation.model_validate({"metadata": {"name": "sim"}, "spec": {"stream": "shop", **spec}})


def fleet(**spec: Any) -> MetricSimulation:
    """A fleet of 2 × 2 × 10 nodes with four metrics."""
    return simulation(
        fleet={"tenants": ["shop", "bank"], "clusters": 2, "nodes": 10}, anomalies={"incidents": 1}, **spec
    )


def source(resource: MetricSimulation, clock: ManualClock | None = None, **options: Any) -> SimulationSource:
    """Its source, on a table of its own."""
    return SimulationSource(resource, table=SeriesTable(), start_ms=START_MS, clock=clock or ManualClock(), **options)


def play(resource: MetricSimulation, position: str | None = None, **options: Any) -> list[Batch]:
    """All batches from ``position`` on."""
    return list(source(resource, **options).batches(position, threading.Event()))


def same(left: list[Batch], right: list[Batch]) -> None:
    """Assert that the batches are equal to the last bit."""
    assert [batch.position for batch in left] == [batch.position for batch in right]
    for a, b in zip(left, right, strict=True):
        for column in ("series", "timestamp", "value", "label"):
            np.testing.assert_array_equal(getattr(a.frame, column), getattr(b.frame, column))


@pytest.mark.parametrize("speed", [0, 60, 600])
@pytest.mark.parametrize("origin", ["fleet", "replay"])
def test_from_any_position_exactly_the_batches_follow_that_would_have_followed(origin: str, speed: float) -> None:
    resource = (
        fleet(points=200, speed=speed)
        if origin == "fleet"
        else simulation(replay={"dataset": "nab-cloud", "include": ["ec2-5f5533", "rogue"]}, points=1500, speed=speed)
    )
    whole = play(resource)
    for cut in sorted({0, len(whole) // 2, len(whole) - 1}):
        same(play(resource, whole[cut].position), whole[cut + 1 :])


@pytest.mark.parametrize("speed", [0, 600])
def test_batches_end_where_those_of_a_killed_process_ended(speed: float) -> None:
    """Whatever the speed is now, ingest finds the positions that the topics hold, and the readings are the same."""
    told = source(fleet(points=200, speed=speed))
    told.cut_at(["150", "7", "3"])
    batches = list(told.batches("3", threading.Event()))
    assert {"7", "150", "200"} <= {batch.position for batch in batches}
    whole = play(fleet(points=200, speed=speed), "3")
    for column in ("series", "timestamp", "value", "label"):
        left, right = (np.concatenate([getattr(one.frame, column) for one in some]) for some in (batches, whole))
        np.testing.assert_array_equal(left, right)


def test_frames_are_in_time_order_and_hold_whole_ticks() -> None:
    batches = play(fleet(points=300, speed=0))
    times = np.concatenate([batch.frame.timestamp for batch in batches])
    assert (np.diff(times) >= 0).all()
    assert all(len(batch.frame) % 160 == 0 for batch in batches)
    assert 5_000 < len(batches[0].frame) <= 10_000
    assert sum(len(batch.frame) for batch in batches) == 300 * 160


def test_missing_readings_are_nan_and_carry_their_label() -> None:
    batches = play(
        simulation(fleet={"tenants": ["t"]}, points=400, speed=0, anomalies={"ratio": 1, "mix": {"missing": 1}})
    )
    values = np.concatenate([batch.frame.value for batch in batches])
    labels = np.concatenate([batch.frame.label for batch in batches if batch.frame.label is not None])
    np.testing.assert_array_equal(np.isnan(values), labels == 6)
    assert np.isnan(values).any()


def test_a_paced_source_keeps_to_its_speed() -> None:
    clock = ManualClock()
    begun = clock.monotonic()
    arrivals = [(b.arrived - begun, b.frame.timestamp[-1]) for b in source(fleet(points=61, speed=60), clock).batches(
        None, threading.Event()
    )]  # fmt: skip
    assert len(arrivals) == 61, "a tick a second: nothing is held back longer than 50 ms"
    for at, timestamp in arrivals:
        assert at == pytest.approx((timestamp - START_MS) / 1000 / 60, abs=0.001)


def test_a_fast_paced_source_gathers_about_fifty_milliseconds() -> None:
    clock = ManualClock()
    batches = list(source(fleet(points=600, speed=6000), clock).batches(None, threading.Event()))
    assert len(batches) == 120
    gaps = np.diff([batch.arrived for batch in batches])
    np.testing.assert_allclose(gaps, 0.05, atol=0.002)


def test_an_endless_simulation_ends_when_told_to_stop() -> None:
    stop = threading.Event()
    playing = source(fleet(speed=0))
    assert playing.progress() == (0, None)
    for count, _ in enumerate(playing.batches(None, stop)):
        if count == 3:
            stop.set()
    assert playing.progress()[0] == 4 * 62 * 160


def test_progress_counts_from_the_position_it_went_on_from() -> None:
    playing = source(fleet(points=200, speed=0))
    list(playing.batches("186", threading.Event()))
    assert playing.progress() == (200 * 160, 200 * 160)


def test_truth_of_a_fleet_is_what_its_frames_are_labelled_with() -> None:
    resource = fleet(points=400, speed=0)
    labels: dict[tuple[str, int], int] = {}
    for batch in play(resource):
        frame = batch.frame
        assert frame.label is not None
        for row in np.flatnonzero(frame.label):
            labels[frame.table[frame.series[row]].path, int(frame.timestamp[row])] = int(frame.label[row])
    told: dict[tuple[str, int], int] = {}
    for event in sorted(truth(resource, START_MS), key=lambda e: e.incident):  # incidents are applied last
        for at in range(event.onset, event.end + 1, 60_000):
            told[event.series.path, at] = event.kind
    assert told == labels


def test_the_truth_of_an_endless_simulation_needs_an_end() -> None:
    with pytest.raises(ValueError, match="endless: say for how many points"):
        truth(fleet(), START_MS)
    assert truth(fleet(), START_MS, points=1440)


def test_without_a_start_the_last_reading_is_now() -> None:
    resource = fleet(points=100)
    now = START_MS + 12_345
    start = SimulationSource.start_for(resource, now)
    assert 0 <= now - (start + 99 * 60_000) < 60_000
    assert start % 60_000 == 0


def test_series_keys_are_those_of_the_source_in_order() -> None:
    for resource in (fleet(), simulation(replay={"dataset": "nab-cloud"})):
        table = SeriesTable()
        SimulationSource(resource, table=table, start_ms=START_MS, clock=ManualClock())
        assert list(table.keys) == series_keys(resource)


# --- replays -------------------------------------------------------------------------------------


def test_the_shipped_cloud_metrics_have_their_known_incidents_as_labels() -> None:
    resource = simulation(replay={"dataset": "nab-cloud"}, speed=0)
    batches = play(resource)
    assert sum(len(batch.frame) for batch in batches) == 137_301
    assert len(series_keys(resource)) == 24
    assert len(truth(resource, START_MS)) == 49, "one event a window"
    first = batches[0].frame
    assert set(first.timestamp[:24].tolist()) == {START_MS}, "every series begins at the start"
    paths = {key.path for key in series_keys(resource)}
    assert "replay/aws/ec2-5f5533/cpu_utilization" in paths
    assert "replay/known-cause/ec2-requests/latency" in paths


def test_a_rebased_replay_keeps_the_spacing_and_one_that_is_not_keeps_the_time() -> None:
    only = {"dataset": "nab-cloud", "include": ["ec2-5f5533"]}
    rebased = play(simulation(replay=only, speed=0, points=50))[0].frame
    recorded = play(simulation(replay={**only, "rebase": False}, speed=0, points=50))[0].frame
    assert recorded.timestamp[0] == 1_392_388_020_000  # 2014-02-14 14:27:00 UTC
    np.testing.assert_array_equal(np.diff(rebased.timestamp), np.diff(recorded.timestamp))
    np.testing.assert_array_equal(rebased.value, recorded.value)


FILES = {
    "plain.csv": ("timestamp,value,label\n2026-01-01T00:00:00Z,1,0\n2026-01-01T00:01:00Z,,1\n",
                  [("t/c/plain/value", 0, 1.0, 0), ("t/c/plain/value", 1, None, 1)]),
    "wide.csv": ("timestamp,cpu,mem,is_anomaly\n2026-01-01 00:00:00,1,2,false\n2026-01-01 00:01:00,3,4,true\n",
                 [("t/c/wide/cpu", 0, 1.0, 0), ("t/c/wide/mem", 0, 2.0, 0),
                  ("t/c/wide/cpu", 1, 3.0, 1), ("t/c/wide/mem", 1, 4.0, 1)]),
    "long.csv": ("timestamp,tenant,cluster,node,metric,value,is_anomaly,kind\n"
                 "1767225660,x,y,n,cpu,2,1,spike\n1767225600,x,y,n,cpu,1,0,\n1767225600,x,y,m,cpu,5,0,\n",
                 [("x/y/m/cpu", 0, 5.0, 0), ("x/y/n/cpu", 0, 1.0, 0), ("x/y/n/cpu", 1, 2.0, 2)]),
    "nodes.jsonl": ('{"node":"a","timestamp":1767225600000,"metrics":{"cpu":1,"mem":2}}\n'
                    '{"node":"b","timestamp":1767225600000,"metrics":{"cpu":3}}\n',
                    [("t/c/a/cpu", 0, 1.0, 0), ("t/c/a/mem", 0, 2.0, 0), ("t/c/b/cpu", 0, 3.0, 0)]),
    "still.csv": ("value\n1\n2\n", [("t/c/still/value", 0, 1.0, 0), ("t/c/still/value", 1, 2.0, 0)]),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_shape_of_file_is_read_into_the_same_readings(name: str, tmp_path: Path) -> None:
    text, expected = FILES[name]
    (tmp_path / name).write_text(text)
    resource = simulation(replay={"path": name, "tenant": "t", "cluster": "c"}, speed=0)
    frame = play(resource, base_dir=tmp_path)[0].frame
    assert frame.label is not None
    minutes = ((frame.timestamp - START_MS) // 60_000).tolist()
    paths = [frame.table[series].path for series in frame.series]
    values = [None if np.isnan(value) else value for value in frame.value.tolist()]
    assert list(zip(paths, minutes, values, frame.label.tolist(), strict=True)) == expected


MISTAKES = {
    "empty.csv": ("timestamp,value\n", "has no rows"),
    "text.csv": ("timestamp,value\nnever,1\nnot,2\n", "column 'timestamp' holds no timestamps"),
    "words.csv": (
        "timestamp,value\n2026-01-01T00:00:00Z,high\n",
        r"no column holds numbers; there are: timestamp \(timestamp.*value \(string\)",
    ),
    "nothing.csv": ("timestamp,note\n2026-01-01T00:00:00Z,hello\n", "no column holds numbers"),
    "kind.csv": ("timestamp,value,label\n2026-01-01T00:00:00Z,1,spikey\n", "no anomaly kind is called 'spikey'"),
    "gap.csv": ("timestamp,value\n2026-01-01T00:00:00Z,1\n,2\n", "1 empty timestamps"),
    "ragged.csv": ("timestamp,value\n1,2,3\n", "cannot be read"),
    "order.csv": ("metric,value\ncpu,1\n", "no timestamp column"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_file_that_cannot_be_played_is_named_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    text, message = MISTAKES[name]
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message) as caught:
        source(simulation(replay={"path": name}), base_dir=tmp_path)
    assert name in str(caught.value)


def test_a_path_that_is_not_there_and_a_series_that_is_not_there_are_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no file or folder .*none\.csv; it is relative to the resource file"):
        source(simulation(replay={"path": "none.csv"}), base_dir=tmp_path)
    with pytest.raises(SourceError, match="no series whose name contains one of"):
        source(simulation(replay={"dataset": "nab-cloud", "include": ["mars"]}))
