"""A detector that begins with a registered version: which one, once, and what it takes over."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import Record, TopicPartition
from tidewarden.clock import ManualClock
from tidewarden.frames import ABSENT, LEARNING, Frame, NodeKey, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.registry.objects import FolderObjects
from tidewarden.registry.registry import Registry
from tidewarden.registry.start import start_of
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden.scoring.snapshots import unpack
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics, partition_of
from tidewarden.training.history import History
from tidewarden.training.train import draft, train
from tidewarden_services.detect.service import DetectService
from tidewarden_services.instances import Instance, output_ends
from tidewarden_services.state import MemoryState

MINUTE = 60_000
BEGIN = 1_767_571_200_000
TRAINED = 400  # minutes of history
KEYS = [SeriesKey("t", "c", f"n{node}", metric) for node in range(6) for metric in ("latency", "errors")]
STREAM = MetricStream.model_validate({"metadata": {"name": "s"}, "spec": {"tenants": ["t"], "interval": "1m"}})


def detector(registry: Path | None = None, version: str | int = "champion", **spec: Any) -> AnomalyDetector:
    given: dict[str, Any] = {"stream": "s", "model": {"kind": "ewma"}, **spec}
    if registry is not None:
        given["training"] = {"registry": str(registry), "from": str(version)}
    return AnomalyDetector.model_validate({"metadata": {"name": "d"}, "spec": given})


def values(first: int, last: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Values of all series at minutes first … last - 1, whatever the range that is asked for."""
    noise = np.random.default_rng(5).normal(0, 1, (2 * TRAINED, len(KEYS)))
    return 100 + 10 * np.arange(len(KEYS)) + noise[first:last]


def frame(table: SeriesTable, first: int, last: int, keys: list[SeriesKey] = KEYS) -> Frame:
    ids = table.ids_of(keys)
    columns = [KEYS.index(key) for key in keys]
    minutes = np.repeat(np.arange(first, last), len(keys))
    return Frame(table, np.tile(ids, last - first), BEGIN + minutes * MINUTE, values(first, last)[:, columns].ravel())


def history(first: int = 0, last: int = TRAINED) -> History:
    made = frame(SeriesTable(), first, last)
    return History.of(KEYS, made.series, made.timestamp, made.value, None)


def registered(folder: Path, **spec: Any) -> int:
    """Train a version on the history, and keep it."""
    config = ScorerConfig.of(detector(**spec), STREAM)
    trained = train(config, history())
    registry = Registry(FolderObjects(folder))
    return registry.register(draft(config, history(), trained, created_at_ms=1), trained.state).version


class Played:
    """A service over one partition, and what it has said of each reading."""

    def __init__(self, made: AnomalyDetector, partition: int = 0, partitions: int = 1) -> None:
        self.table = SeriesTable()
        self.telemetry = Telemetry()
        self.service = DetectService(
            made, STREAM, self.table, self.telemetry, ManualClock(),
            partition=partition, partitions=partitions, start=start_of(made),
        )  # fmt: skip
        self.said: list[ScoreFrame] = []

    def play(self, first: int, last: int, keys: list[SeriesKey] = KEYS) -> None:
        for output in self.service.handle(Record("x.s.readings", 0, first, "k", frame(self.table, first, last, keys))):
            if isinstance(output.value, ScoreFrame):
                self.said.append(output.value)

    def scores(self) -> ScoreFrame:
        return ScoreFrame.concat(self.said)

    def began_with(self) -> list[int]:
        found: list[int] = self.telemetry.board.read()["detectors"]["d"]["began_with"]
        return found


def assert_same(one: ScoreFrame, other: ScoreFrame) -> None:
    for name in ("timestamp", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "flags"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("kind", ["ewma", "auto", "loda"])
def test_it_says_the_same_as_if_it_had_seen_the_history(tmp_path: Path, kind: str) -> None:
    """To the last bit, from the first reading on, for models with and without a calibration of their own."""
    registered(tmp_path, model={"kind": kind})
    played = Played(detector(tmp_path, "latest", model={"kind": kind}))
    played.play(TRAINED, TRAINED + 50)
    table = SeriesTable()
    fed = Scorer(ScorerConfig.of(detector(model={"kind": kind}), STREAM), table)
    fed.score(frame(table, 0, TRAINED))
    assert_same(played.scores(), fed.score(frame(table, TRAINED, TRAINED + 50)).scores)
    assert not (played.scores().flags & LEARNING).any()
    assert played.began_with() == [1]


def test_the_champion_is_looked_up_once(tmp_path: Path) -> None:
    """A restart goes on from its snapshot, from the same version, although another one is the champion by then."""
    registry = Registry(FolderObjects(tmp_path))
    registered(tmp_path)
    registered(tmp_path)
    registry.promote("d", 1, at_ms=1)
    first = Played(detector(tmp_path))
    snapshot = first.service.snapshot()  # as it is saved before the first record is answered
    registry.promote("d", 2, at_ms=2)
    second = Played(detector(tmp_path))
    second.service.restore(snapshot)
    first.play(TRAINED, TRAINED + 20)
    second.play(TRAINED, TRAINED + 20)
    assert_same(first.scores(), second.scores())
    assert second.began_with() == [1]
    third = Played(detector(tmp_path))
    third.play(TRAINED, TRAINED + 1)
    assert third.began_with() == [2], "a detector without a snapshot takes the champion of now"


@pytest.mark.parametrize("seed", range(8))
def test_killed_at_any_moment_it_says_what_it_would_have_said(tmp_path: Path, seed: int) -> None:
    """Another champion after a kill changes no score: a snapshot holds the version before anything is published."""
    dice = random.Random(seed)
    registry = Registry(FolderObjects(tmp_path))
    registered(tmp_path)
    registered(tmp_path, model={"kind": "ewma", "ewma": {"half_life": 3}})  # which would not even fit
    registry.promote("d", 1, at_ms=1)
    table, topics, state = SeriesTable(), StreamTopics("local", "s", 1), MemoryState()
    bus = MemoryBus(table)
    bus.create(topics.all())
    readings = topics.name("readings")
    for minute in range(TRAINED, TRAINED + 20):
        bus.publish(readings, frame(table, minute, minute + 1), key="k", partition=0)
    records = [stored.record for stored in bus._partitions[TopicPartition(readings, 0)].kept]

    def started() -> tuple[Instance, int]:
        made = detector(tmp_path)
        service = DetectService(made, STREAM, table, Telemetry(), ManualClock(), start=start_of(made))
        place = TopicPartition(readings, 0)
        instance = Instance("detect.d", place, service, stream=topics, bus=bus, state=state, clock=ManualClock())
        return instance, instance.restore() or 0

    instance, at = started()
    while at < len(records):
        for record in records[at : at + dice.randint(1, 6)]:
            instance.handle(record)
            at += 1
            if dice.random() < 0.2:
                state.save_all(instance.capture(output_ends(bus, topics, readings)).states)
        if dice.random() < 0.6:
            registry.promote("d", dice.choice([1, 2]), at_ms=at)
            instance, at = started()
    said = ScoreFrame.concat(
        [stored.record.value for stored in bus._partitions[TopicPartition(topics.name("scores"), 0)].kept]
    )
    undisturbed = Played(detector(tmp_path, 1))
    undisturbed.play(TRAINED, TRAINED + 20)
    assert_same(said, undisturbed.scores())


def test_another_reference_begins_anew_and_none_goes_on(tmp_path: Path) -> None:
    """Asking for another version is a change of configuration; not asking any more is none."""
    registered(tmp_path)
    registered(tmp_path)
    one = Played(detector(tmp_path, 1))
    one.play(TRAINED, TRAINED + 1)
    snapshot = one.service.snapshot()
    other = Played(detector(tmp_path, 2))
    with pytest.raises(ValueError, match="began with '1', this detector is to begin with '2'"):
        other.service.restore(snapshot)
    other.play(TRAINED, TRAINED + 1)
    assert other.began_with() == [2]
    without = Played(detector())
    without.service.restore(snapshot)
    assert without.began_with() == [1]


def test_time_between_training_and_stream_is_no_gap(tmp_path: Path) -> None:
    """A stream that begins an hour later, with half of the nodes, owes nothing for the hour nor for the others."""
    registered(tmp_path)
    played = Played(detector(tmp_path, 1))
    for minute in range(TRAINED + 60, TRAINED + 120):
        played.play(minute, minute + 1, KEYS[:6])
    said = played.scores()
    assert len(said) == 60 * 6
    assert not (said.flags & ABSENT).any()


def test_each_partition_takes_over_what_comes_by_it(tmp_path: Path) -> None:
    """Two partitions hold every series once, and say together what one would have said with its share of the budget."""
    registered(tmp_path, alerting={"budget": "2/day"})
    parts = [Played(detector(tmp_path, 1, alerting={"budget": "2/day"}), n, 2) for n in range(2)]
    held = []
    for number, part in enumerate(parts):
        mine = [key for key in KEYS if partition_of(NodeKey(*key[:3]), 2) == number]
        assert 0 < len(mine) < len(KEYS), "the nodes' names are to lie in both"
        part.play(TRAINED, TRAINED + 5, mine)
        table = SeriesTable()
        fed = Scorer(ScorerConfig.of(detector(alerting={"budget": "2/day"}), STREAM, 2), table)
        fed.score(frame(table, 0, TRAINED, mine))
        assert_same(part.scores(), fed.score(frame(table, TRAINED, TRAINED + 5, mine)).scores)
        held.append(part.telemetry.board.read()["detectors"]["d"]["series"])
    assert sum(held) == len(KEYS)


def test_series_that_are_no_longer_selected_are_left_behind(tmp_path: Path) -> None:
    """The state holds what the resource watches now."""
    registered(tmp_path)
    played = Played(detector(tmp_path, 1, select={"metrics": ["latency"]}))
    played.play(TRAINED, TRAINED + 1)
    assert played.telemetry.board.read()["detectors"]["d"]["series"] == 6


def test_a_version_of_another_model_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """The detector stops before it says anything, and the message says what to write."""
    registered(tmp_path)
    played = Played(detector(tmp_path, 1, model={"kind": "mad"}))
    with pytest.raises(ValueError, match=r"AnomalyDetector/d: cannot begin with version 1 .*ewma.*spec\.model"):
        played.play(TRAINED, TRAINED + 1)


@pytest.mark.parametrize(
    ("word", "told"),
    [(3, "write it in quotation marks, '3'"), ("newest", "should match pattern"), ("0", "should match pattern")],
)
def test_what_is_no_version_is_refused(word: Any, told: str) -> None:
    """A number without quotation marks too, since the API server would not take it."""
    made = {"stream": "s", "training": {"registry": "models", "from": word}}
    with pytest.raises(ValueError, match=told):
        AnomalyDetector.model_validate({"metadata": {"name": "d"}, "spec": made})


def test_the_origin_stands_in_the_header_of_every_snapshot(tmp_path: Path) -> None:
    """Detector, version, reference and checksum: enough to say what a running detector came from."""
    registered(tmp_path)
    config = ScorerConfig.of(detector(tmp_path, 1), STREAM)
    start = start_of(detector(tmp_path, 1))
    assert start is not None
    scorer = Scorer(config, SeriesTable())
    scorer.begin(*start())
    again = Scorer(config, SeriesTable())
    again.restore(scorer.snapshot())
    sha256 = Registry(FolderObjects(tmp_path)).manifest("d", 1).state_sha256
    expected = {"detector": "d", "version": 1, "reference": "1", "sha256": sha256}
    assert unpack(again.snapshot())[0]["origin"] == expected
