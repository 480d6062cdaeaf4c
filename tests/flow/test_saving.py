"""Snapshots are saved beside the work: nothing waits for them, and nothing is lost or doubled because of that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import Record, TopicPartition
from tidewarden.clock import SystemClock
from tidewarden.events import AnomalyBatch
from tidewarden.frames import SeriesTable
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics
from tidewarden_services.contract import Output
from tidewarden_services.instances import Snapshot
from tidewarden_services.runtime import Runner
from tidewarden_services.state import MemoryState

TOPICS = StreamTopics("local", "s")
READINGS, ANOMALIES = TOPICS.name("readings"), TOPICS.name("anomalies")
PLACE = TopicPartition(READINGS, 0)


class Sums:
    """Answers each number with the sum of all so far."""

    def __init__(self) -> None:
        self.sum = 0

    def handle(self, record: Record) -> list[Output]:
        self.sum += record.value.watermarks["t"]
        return [Output("anomalies", "t", AnomalyBatch(detector="d", anomalies=[], watermarks={"t": self.sum}))]

    def snapshot(self) -> bytes:
        return str(self.sum).encode()

    def restore(self, state: bytes) -> None:
        self.sum = int(state)

    def close(self) -> None:
        pass


class HeldState(MemoryState):
    """Lets the first save through, which comes before the first record; every later one waits for `release`."""

    def __init__(self) -> None:
        super().__init__()
        self.saves = 0
        self.held = threading.Event()
        self.release = threading.Event()
        self.kept: list[Mapping[str, bytes]] = []  # what was held, once it is saved

    def save_all(self, states: Mapping[str, bytes]) -> None:
        self.saves += bool(states)
        if self.saves > 1 and states:
            self.held.set()
            assert self.release.wait(20)
            self.kept.append(dict(states))
        super().save_all(states)


@pytest.fixture
def bus() -> Iterator[MemoryBus]:
    """A bus that forgets nothing, because somebody never commits."""
    bus = MemoryBus(SeriesTable())
    bus.create(TOPICS.all())
    bus.consumer([READINGS, ANOMALIES], "keeps everything")
    yield bus
    bus.close()


def runner_of(bus: MemoryBus, state: MemoryState, every_s: float) -> Runner:
    return Runner(
        "sums", "readings", lambda _: Sums(), stream=TOPICS, bus=bus, state=state,
        telemetry=Telemetry(), clock=SystemClock(), snapshot_every_s=every_s,
    )  # fmt: skip


def publish(bus: MemoryBus, numbers: range) -> None:
    for number in numbers:
        bus.publish(READINGS, AnomalyBatch(detector="d", anomalies=[], watermarks={"t": number}), key="t")


def until(condition: Callable[[], Any]) -> None:
    deadline, pause = time.monotonic() + 20, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        pause.wait(0.005)


def answers(bus: MemoryBus, group: str) -> list[tuple[str, int]]:
    """Which input each answer names, and the sum it says."""
    consumer = bus.consumer([ANOMALIES], group)
    found: list[tuple[str, int]] = []
    while consumer.lag():
        found += [(r.headers["input"], r.value.watermarks["t"]) for r in consumer.poll(100, 0.1)]
    consumer.close()
    return found


def test_records_are_handled_while_a_snapshot_is_being_saved_and_committed_only_after_it(bus: MemoryBus) -> None:
    """However long a save takes, answers go on; what the bus may forget is what the saved snapshot contains."""
    state, stop = HeldState(), threading.Event()
    runner = runner_of(bus, state, 0.0)
    working = threading.Thread(target=runner.run, args=(stop,))
    working.start()
    publish(bus, range(1, 6))
    assert state.held.wait(20)
    committed: dict[TopicPartition, int] = runner._consumer.committed  # type: ignore[attr-defined]
    before = dict(committed)
    publish(bus, range(6, 11))
    until(lambda: bus.ends(ANOMALIES)[TopicPartition(ANOMALIES, 0)] == 10)
    assert committed == before
    assert committed.get(PLACE, 0) <= 5
    state.release.set()
    until(lambda: committed.get(PLACE) == 10)
    stop.set()
    working.join(20)
    assert not working.is_alive()


def test_a_kill_after_a_snapshot_that_was_overtaken_doubles_and_loses_nothing(bus: MemoryBus) -> None:
    """A snapshot saved when later records had long been answered restores the state; the answers are recognised."""
    state, stop = HeldState(), threading.Event()
    working = threading.Thread(target=runner_of(bus, state, 0.0).run, args=(stop,))
    working.start()
    publish(bus, range(1, 6))
    assert state.held.wait(20)
    publish(bus, range(6, 11))
    until(lambda: bus.ends(ANOMALIES)[TopicPartition(ANOMALIES, 0)] == 10)
    state.release.set()
    until(lambda: state.kept)
    stop.set()
    working.join(20)
    left = MemoryState()  # what a process that is killed right after this save leaves behind
    left.save_all(state.kept[0])
    (saved,) = state.kept[0].values()
    assert msgspec.msgpack.decode(saved, type=Snapshot).position <= 5
    publish(bus, range(11, 13))
    stop = threading.Event()
    again = runner_of(bus, left, 60.0)
    working = threading.Thread(target=again.run, args=(stop,))
    working.start()
    until(lambda: bus.ends(ANOMALIES)[TopicPartition(ANOMALIES, 0)] >= 12 and again.idle())
    stop.set()
    working.join(20)
    expected = [(f"{READINGS}/0/{n - 1}", n * (n + 1) // 2) for n in range(1, 13)]
    assert answers(bus, "afterwards") == expected


def test_a_save_that_fails_ends_the_runner(bus: MemoryBus) -> None:
    """What a save beside the work raises is raised where the work is done: nobody goes on without snapshots."""

    class Full(MemoryState):
        saves = 0

        def save_all(self, states: Mapping[str, bytes]) -> None:
            self.saves += bool(states)
            if self.saves > 1:
                raise OSError("no space left")
            super().save_all(states)

    publish(bus, range(1, 3))
    with pytest.raises(OSError, match="no space left"):
        runner_of(bus, Full(), 0.0).run(threading.Event())
