"""A stream of several partitions: the same results as with one, whatever the threads do, and time for everybody."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tidewarden.bus.memory import MemoryBus, MemoryConsumer
from tidewarden.bus.port import Record, TopicPartition, Undecodable
from tidewarden.clock import ManualClock, SystemClock
from tidewarden.events import Anomaly, AnomalyBatch, Rejection
from tidewarden.frames import Frame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.resources.loader import load
from tidewarden.sources import Batch
from tidewarden.store.port import Query
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics, partition_of
from tidewarden_cli.local.pipeline import LocalPipeline
from tidewarden_services import instances
from tidewarden_services.contract import Output
from tidewarden_services.detect.service import DetectService
from tidewarden_services.ingest.service import IngestService
from tidewarden_services.merge import HELD_ROWS, Merge
from tidewarden_services.runtime import Runner
from tidewarden_services.state import MemoryState

RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec: {tenants: [shop, bank], interval: 1m}
---
apiVersion: tidewarden.dev/v1alpha1
kind: MetricSimulation
metadata: {name: fleet}
spec:
  stream: shop
  seed: 12
  start: 2026-01-05T00:00:00Z
  fleet: {tenants: [shop, bank], clusters: 2, nodes: 4, metrics: [latency_ms, error_rate, throughput]}
  points: 1200
  speed: SPEED
  anomalies: {ratio: 0.6}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch}
spec: {stream: shop, select: {metrics: [latency_ms, throughput]}, alerting: {threshold: 0.6}}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: errors}
spec: {stream: shop, select: {metrics: [error_rate], clusters: [c1]}, model: {kind: ewma}, alerting: {threshold: 0.6}}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: page}
spec: {stream: shop, groupBy: [tenant, cluster, detector], minSeverity: info}
"""
MINUTE = 60_000
START = 1_767_571_200_000
STREAM = MetricStream.model_validate({"metadata": {"name": "s"}, "spec": {"tenants": ["t", "u"], "interval": "1m"}})
DETECTOR = AnomalyDetector.model_validate(
    {"metadata": {"name": "d"}, "spec": {"stream": "s", "model": {"kind": "ewma"}}}
)


def until(condition: Callable[[], Any], timeout: float = 20.0) -> None:
    """Wait for a condition; the event is only there to be waited on."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        pause.wait(0.005)


class Whims:
    """Lets polls take as few records as chance wants, after a wait that chance chooses: no two runs are alike."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._pause = threading.Event()

    def wrap(self, poll: Callable[[MemoryConsumer, int, float], list[Record]]) -> Any:
        def whimsical(consumer: MemoryConsumer, max_records: int, timeout: float) -> list[Record]:
            if self._dice.random() < 0.3:
                self._pause.wait(self._dice.uniform(0, 0.02))
            return poll(consumer, self._dice.randint(1, max_records), timeout)

        return whimsical


def results(tmp_path: Path, partitions: int, speed: str) -> dict[str, Any]:
    """Everything that one run of the pipeline leaves in the store, in an order of its own."""
    path = tmp_path / "resources.yaml"
    path.write_text(RESOURCES.replace("SPEED", speed))
    pipeline = LocalPipeline(load([path]), None, partitions=partitions)
    pipeline.start()
    until(lambda: pipeline.finished() or pipeline.crew.failed.is_set(), 120)
    assert pipeline.crew.failure is None
    everything = Query(limit=10_000_000, newest_first=False)
    by_series = [(name, "ascending") for name in ("detector", "tenant", "cluster", "node", "metric", "timestamp")]
    by_scope = [(name, "ascending") for name in ("detector", "tenant", "cluster", "node", "timestamp")]
    store = pipeline.store
    found: dict[str, Any] = {
        "readings": store.readings(everything).sort_by(by_series),
        "rollups": store.rollups(everything).sort_by(by_scope),
        "anomalies": sorted(store.anomalies(everything), key=lambda a: a.id),
        "alerts": sorted((alert for alert, _ in store.alerts(everything)), key=lambda a: a.id),
    }
    pipeline.stop()
    return found


def same(found: Any, expected: Any) -> bool:
    return bool(found.equals(expected)) if isinstance(expected, pa.Table) else found == expected


def test_four_partitions_and_any_schedule_give_what_one_partition_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, rollups, anomalies and alerts of runs with whimsical threads are the plain run's, bit by bit.

    The last run has so little memory for what waits that most of it is read again.
    """
    expected = results(tmp_path, 1, "0")
    assert len(expected["anomalies"]) >= 8
    assert len(expected["alerts"]) >= 4
    assert expected["rollups"].num_rows >= 1190 * (16 + 4 + 2)
    poll, reread = MemoryConsumer.poll, instances.Instance._reread
    again: list[int] = []

    def noted(instance: instances.Instance, offsets: list[int]) -> list[Record]:
        again.extend(offsets)
        return reread(instance, offsets)

    monkeypatch.setattr(instances.Instance, "_reread", noted)
    for seed, (speed, held_rows) in enumerate((("0", HELD_ROWS), ("36000", HELD_ROWS), ("0", 100))):
        monkeypatch.setattr(MemoryConsumer, "poll", Whims(seed).wrap(poll))
        monkeypatch.setattr(instances, "Merge", partial(Merge, held_rows=held_rows))
        found = results(tmp_path, 4, speed)
        for what, content in expected.items():
            assert same(found[what], content), (what, seed)
        assert (len(again) > 0) == (held_rows < HELD_ROWS)


class Spoken:
    """A detect instance of one of two partitions, and what it says."""

    def __init__(self, partition: int = 0, partitions: int = 2) -> None:
        self.table = SeriesTable()
        self.service = DetectService(
            DETECTOR, STREAM, self.table, Telemetry(), ManualClock(), partition=partition, partitions=partitions
        )
        self.offset = 0

    def hear(self, keys: list[SeriesKey], minute: int, time: str | None) -> list[Output]:
        """One reading of each series at a minute, with ingest's word on time."""
        value = 100 + np.random.default_rng(minute).normal(0, 1, len(keys))
        at = np.full(len(keys), START + minute * MINUTE)
        frame = Frame(self.table, self.table.ids_of(keys).astype(np.int32), at, value)
        self.offset += 1
        headers = {} if time is None else {"time": time}
        return self.service.handle(Record("x.s.readings", 0, self.offset - 1, "k", frame, headers))


def word(minute: float, *tenants: str) -> str:
    return "{" + ",".join(f'"{tenant}":{int(START + minute * MINUTE)}' for tenant in tenants) + "}"


def anomalies(outputs: list[Output]) -> list[Anomaly]:
    return [a for output in outputs if isinstance(output.value, AnomalyBatch) for a in output.value.anomalies]


def test_a_node_that_is_alone_in_its_partition_can_fall_silent() -> None:
    """Ingest's word on time is enough to notice that the only node of a partition says nothing any more."""
    spoken = Spoken()
    lonely = [SeriesKey("t", "c", "n", "m")]
    for minute in range(60):
        assert anomalies(spoken.hear(lonely, minute, word(minute, "t"))) == []
    found: list[Anomaly] = []
    for minute in range(60, 75):
        found += anomalies(spoken.hear([], minute, word(minute, "t")))
    assert {(a.node, a.kind) for a in found} == {("n", "missing")}
    assert found[0].onset == START + 61 * MINUTE  # one absent reading is not rare enough, the second is


def test_an_instance_says_how_far_it_has_come_even_where_it_has_nothing_to_say() -> None:
    """For each tenant whose time moved on by an interval there is a frame of scores and a batch, empty or not."""
    spoken = Spoken()
    first = spoken.hear([], 0, word(0, "t", "u"))
    assert [(o.purpose, o.key, o.time) for o in first] == [
        (purpose, tenant, START) for tenant in ("t", "u") for purpose in ("scores", "anomalies")
    ]
    assert [len(o.value) for o in first if isinstance(o.value, ScoreFrame)] == [0, 0]
    assert anomalies(first) == []
    assert spoken.hear([], 0, word(0, "t", "u")) == []
    half = spoken.hear([SeriesKey("u", "c", "n", "m")], 0, word(0.5, "t", "u"))
    assert [(o.purpose, o.key, o.time, len(o.value)) for o in half] == [("scores", "u", START + MINUTE // 2, 1)]
    later = spoken.hear([], 1, word(1, "u"))
    assert [(o.key, o.time) for o in later] == [("u", START + MINUTE)] * 2
    assert later[1].value.watermarks == {"u": START + MINUTE}


def test_scores_and_anomalies_are_cut_by_tenant() -> None:
    """A record goes to the partition of its tenant, so it holds nothing of any other."""
    spoken = Spoken()
    keys = [SeriesKey(tenant, "c", node, "m") for node in ("n", "o") for tenant in ("u", "t")]
    outputs = spoken.hear(keys, 0, word(0, "t", "u"))
    assert [(o.purpose, o.key) for o in outputs] == [
        ("scores", "t"), ("anomalies", "t"), ("scores", "u"), ("anomalies", "u"),
    ]  # fmt: skip
    for output in outputs:
        if isinstance(output.value, ScoreFrame):
            assert [spoken.table[s].node for s in output.value.series.tolist()] == ["n", "o"]
            assert {spoken.table[s].tenant for s in output.value.series.tolist()} == {output.key}
        else:
            assert output.value.watermarks == {output.key: START}


def test_a_budget_is_shared_over_the_partitions() -> None:
    """An instance that has all series of its detector asks for a rarer reading than the detector alone would."""
    from tidewarden.scoring.decision import Rules

    budget = DETECTOR.model_copy(deep=True).spec.alerting.model_copy(update={"budget": 2.0, "threshold": None})
    whole, share = Rules.of(budget, MINUTE), Rules.of(budget, MINUTE, 1 / 4)
    assert share.budget_per_reading * 4 == whole.budget_per_reading
    assert share.needed_log10_p(25) == whole.needed_log10_p(100)


class World:
    """A bus of two partitions and what is needed to run a detector on it."""

    def __init__(self) -> None:
        self.table, self.telemetry, self.state = SeriesTable(), Telemetry(), MemoryState()
        self.bus, self.topics = MemoryBus(self.table), StreamTopics("local", "s", 2)
        self.bus.create(self.topics.all())

    def runner(self) -> Runner:
        def detect(partition: int) -> DetectService:
            return DetectService(
                DETECTOR, STREAM, self.table, self.telemetry, SystemClock(), partition=partition, partitions=2
            )

        return Runner(
            "detect.d", "readings", detect, stream=self.topics, bus=self.bus, state=self.state,
            telemetry=self.telemetry, clock=SystemClock(),
        )  # fmt: skip

    def publish(self, node: str, minute: int) -> None:
        key = SeriesKey("t", "c", node, "m")
        at = np.array([START + minute * MINUTE])
        frame = Frame(self.table, self.table.ids_of([key]).astype(np.int32), at, np.array([1.0]))
        place = partition_of(self.table.nodes[int(self.table.node_of[frame.series[0]])], 2)
        self.bus.publish(
            self.topics.name("readings"), frame, key="k", partition=place, headers={"time": word(minute, "t")}
        )

    def run(self, runner: Runner) -> None:
        """Until everything published is handled, then stop as a process does."""
        stop = threading.Event()
        thread = threading.Thread(target=runner.run, args=(stop,))
        thread.start()
        until(runner.idle)
        stop.set()
        thread.join(20)
        assert not thread.is_alive()

    def scores(self) -> list[tuple[str, str, int]]:
        """Producer, input and first timestamp of everything on the topic of scores."""
        place = TopicPartition(self.topics.name("scores"), partition_of("t", 2))
        return [
            (s.record.headers["producer"], s.record.headers["input"], int(s.record.headers["time"]))
            for s in self.bus._partitions[place].kept
        ]


def nodes_of_both_partitions(world: World) -> tuple[str, str]:
    names = [f"n{i}" for i in range(20)]
    of = {partition_of(f"t/c/{name}", world.topics.partitions): name for name in names}
    return of[0], of[1]


class Minutes:
    """A source that says one batch a minute: all nodes, until one of them falls silent."""

    name, kind = "minutes", "file"

    def __init__(self, table: SeriesTable, nodes: list[str], silent: str, since: int, minutes: int) -> None:
        self._table, self._nodes, self._silent, self._since, self._minutes = table, nodes, silent, since, minutes

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        for minute in range(int(position or 0), self._minutes):
            nodes = [node for node in self._nodes if minute < self._since or node != self._silent]
            series = self._table.ids_of(SeriesKey("t", "c", node, "m") for node in nodes)
            value = 100 + np.random.default_rng(minute).normal(0, 1, len(nodes))
            at = np.full(len(nodes), START + minute * MINUTE)
            yield Batch(Frame(self._table, series, at, value), position=str(minute + 1), origin="test")

    def progress(self) -> tuple[int, int | None]:
        return 0, None


def test_a_lonely_node_that_falls_silent_is_an_anomaly_from_source_to_topic() -> None:
    """Ingest goes on telling the partition of a silent node what time it is, and the detector opens an anomaly."""
    world = World()
    left, right = nodes_of_both_partitions(world)
    runner = world.runner()
    kept: list[bytes] = []
    source = Minutes(world.table, [left, right], left, since=60, minutes=80)
    ingest = IngestService(
        STREAM, source, world.bus, world.topics, world.table, SystemClock(), world.telemetry, lambda: None, kept.append
    )
    ingest.run(threading.Event())
    place = TopicPartition(world.topics.name("readings"), 0)
    frames = [stored.record for stored in world.bus._partitions[place].kept]
    assert [len(record.value) for record in frames] == [1] * 60 + [0] * 21  # a word a minute, and one at the end
    assert frames[70].headers["time"] == word(70, "t")
    assert frames[80].headers["time"] == word(79, "t").replace("000}", "001}")
    world.run(runner)
    found = [
        anomaly
        for number in range(2)
        for stored in world.bus._partitions[TopicPartition(world.topics.name("anomalies"), number)].kept
        for anomaly in stored.record.value.anomalies
    ]
    assert {(anomaly.node, anomaly.kind) for anomaly in found} == {(left, "missing")}


def test_an_instance_has_its_own_snapshot_and_name_and_can_move_to_another_process() -> None:
    """A partition that is taken away is saved, committed and let go; whoever gets it goes on, and repeats nothing."""
    world = World()
    left, right = nodes_of_both_partitions(world)
    runner = world.runner()
    for minute in range(3):
        world.publish(left, minute)
        world.publish(right, minute)
    topic = world.topics.name("readings")
    both = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
    for record in runner._consumer.poll(100, 1.0):
        runner._handle(record)
    assert set(world.state._states) == {"detect.d/0", "detect.d/1"}
    runner.revoked(both[:1])
    assert runner._consumer.committed == {both[0]: 3, both[1]: 0}
    assert world.telemetry.board.read()["detectors"]["d"]["series"] == 0  # each instance had a board of its own
    runner.lost(both[1:])  # killed, as far as partition 1 is concerned
    assert runner.assigned(both) == {both[0]: 3, both[1]: 0}
    said = world.scores()
    assert len(said) == 6
    runner._consumer.seek({both[1]: 0})
    for record in runner._consumer.poll(100, 1.0):
        runner._handle(record)
    assert world.scores() == said
    world.publish(right, 3)
    for record in runner._consumer.poll(100, 1.0):
        runner._handle(record)
    assert world.scores()[6:] == [("detect.d/1", f"{topic}/1/3", START + 3 * MINUTE)]


def test_a_record_that_cannot_be_read_is_put_aside_once() -> None:
    """Poison goes to rejected with its raw bytes and its place, is counted, and what follows it is scored."""
    world = World()
    left, _ = nodes_of_both_partitions(world)
    readings = world.topics.name("readings")
    world.publish(left, 0)
    world.bus.publish(readings, Undecodable(b"\xff{broken", "no frame"), key="k", partition=0)
    world.publish(left, 1)
    saved = world.state
    world.state = MemoryState()
    world.run(world.runner())
    rejected = TopicPartition(world.topics.name("rejected"), 0)
    (stored,) = world.bus._partitions[rejected].kept
    (rejection,) = stored.record.value
    assert isinstance(rejection, Rejection)
    assert (rejection.reason, rejection.raw, rejection.origin) == ("undecodable", "\\xff{broken", f"{readings}/0/1")
    assert len(world.scores()) == 2
    labels = {"service": "detect.d", "error": "Undecodable"}
    assert world.telemetry.registry.get_sample_value("tidewarden_errors_total", labels) == 1
    # A process that knows nothing of the first one's end finds what is there already.
    assert saved.load("detect.d/0") is None
