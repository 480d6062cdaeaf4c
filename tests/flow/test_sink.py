"""The archive and a store that is away: nothing lost, nothing doubled, nothing piling up, and an end in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import TopicPartition
from tidewarden.clock import ManualClock
from tidewarden.events import Rejection
from tidewarden.resources import MetricStream
from tidewarden.store.memory import MemoryStore
from tidewarden.store.port import Query, StoreError, StoreUnavailableError, WriteBatch
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics
from tidewarden_services.archive.service import ArchiveService
from tidewarden_services.sink import LAST_RETRY_S, SinkRunner

STREAM = MetricStream.model_validate({"metadata": {"name": "s"}, "spec": {"tenants": ["t"], "interval": "1m"}})
TOPICS = StreamTopics("local", "s")
REJECTED = TopicPartition(TOPICS.name("rejected"), 0)


def until(condition: Callable[[], Any], timeout: float = 20.0) -> None:
    """Wait for a condition; the event is only there to be waited on."""
    deadline, pause = time.monotonic() + timeout, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        pause.wait(0.005)


class Flaky(MemoryStore):
    """A store that goes away and comes back, or refuses for good; counts the attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.error: StoreError | None = None
        self.attempts = 0

    def write(self, batch: WriteBatch) -> None:
        self.attempts += 1
        if self.error is not None:
            raise self.error
        super().write(batch)

    def offsets(self, stream: str) -> dict[TopicPartition, int]:
        if self.error is not None:
            raise self.error
        return super().offsets(stream)


class ImpatientClock(ManualClock):
    """Notes how long somebody meant to wait, and waits a moment only."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, event: threading.Event, timeout: float) -> bool:
        self.waits.append(timeout)
        self.advance(timeout)
        return event.wait(0.001)


class World:
    """An archive in a thread of its own."""

    def __init__(self) -> None:
        self.store, self.clock, self.telemetry = Flaky(), ImpatientClock(), Telemetry()
        self.bus = MemoryBus()
        self.bus.create(TOPICS.all())
        self.stop, self.raised = threading.Event(), None
        self.published = 0
        sink = ArchiveService("archive.s", STREAM, self.store, self.telemetry)
        self.runner = SinkRunner(sink, stream=TOPICS, bus=self.bus, telemetry=self.telemetry, clock=self.clock)
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self.runner.run(self.stop)
        except StoreError as error:
            self.raised = error

    def publish(self, count: int) -> None:
        for _ in range(count):
            rejection = Rejection(
                id=f"r{self.published}", stream="s", source="x", reason="malformed", detail="", origin="", received_at=1
            )
            self.bus.publish(REJECTED.topic, [rejection], key="x")
            self.published += 1

    def committed(self) -> int:
        return self.runner._consumer.committed[REJECTED]

    def end(self) -> None:
        self.stop.set()
        self.thread.join(20)
        assert not self.thread.is_alive()

    def state(self) -> Any:
        return self.telemetry.board.read()["services"]["archive.s"]["state"]


@pytest.fixture
def world():
    """An archive that is ended after the test."""
    world = World()
    yield world
    if world.thread.is_alive():
        world.end()
    world.bus.close()


def test_a_store_that_is_away_is_waited_for_and_then_has_everything_once(world: World) -> None:
    """Offsets wait, nothing more is polled, waits grow to their bound; when the store is back all of it is written."""
    world.thread.start()
    world.publish(3)
    until(world.runner.idle)
    assert world.committed() == 3
    world.store.error = StoreUnavailableError("connection refused: start it")
    world.publish(1)
    until(lambda: len(world.clock.waits) > 12)
    world.publish(200)
    until(lambda: len(world.clock.waits) > 15)
    assert world.state() == "waiting"
    assert world.committed() == 3
    assert world.runner._consumer.lag() == 200
    assert world.clock.waits[:3] == [0.25, 0.5, 1.0]
    assert max(world.clock.waits) == LAST_RETRY_S
    labels = {"service": "archive.s"}
    assert world.telemetry.registry.get_sample_value("tidewarden_store_available", labels) == 0
    world.store.error = None
    until(world.runner.idle)
    assert world.state() == "running"
    assert world.telemetry.registry.get_sample_value("tidewarden_store_available", labels) == 1
    assert world.committed() == 204
    assert len(world.store.rejected(Query(limit=1000))) == 204


def test_told_to_stop_while_the_store_is_away_it_ends_and_the_next_start_loses_nothing(world: World) -> None:
    """The end comes in time and without a commit, so whoever starts next reads the records again."""
    world.store.error = StoreUnavailableError("connection refused: start it")
    world.thread.start()
    until(lambda: world.clock.waits)
    world.publish(5)
    world.end()
    assert world.committed() == 0
    world.store.error = None
    sink = ArchiveService("archive.s", STREAM, world.store, world.telemetry)
    again = SinkRunner(sink, stream=TOPICS, bus=world.bus, telemetry=world.telemetry, clock=world.clock)
    stop = threading.Event()
    thread = threading.Thread(target=again.run, args=(stop,))
    thread.start()
    until(again.idle)
    stop.set()
    thread.join(20)
    assert len(world.store.rejected(Query(limit=1000))) == 5


def test_a_store_that_refuses_for_good_ends_the_archive(world: World) -> None:
    """What no waiting mends is an error, not an endless loop."""
    world.thread.start()
    world.store.error = StoreError("the index has another mapping: remove it")
    world.publish(1)
    world.thread.join(20)
    assert not world.thread.is_alive()
    assert "another mapping" in str(world.raised)
    assert world.committed() == 0
