"""What snapshots on a real Kafka promise: whole or not at all, found again by whoever comes next."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from servers.kafka import KafkaServer
from tidewarden.bus.kafka.bus import KafkaBus
from tidewarden.bus.kafka.state import CHUNK_BYTES, KafkaState, SnapshotError
from tidewarden.bus.port import TopicPartition
from tidewarden.frames import SeriesTable
from tidewarden.settings import KafkaSettings
from tidewarden.topics import StreamTopics, Topic

pytestmark = pytest.mark.kafka
NAME = "detect.shop-latency/2"
_numbers = count()

Open = Callable[[], KafkaState]


class KilledError(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def topic() -> Topic:
    return StreamTopics(f"state-{next(_numbers)}", "shop", 3).state("shop-latency")


@pytest.fixture
def open_state(kafka_server: KafkaServer, topic: Topic) -> Iterator[Open]:
    """Each call is a process of its own."""
    buses: list[KafkaBus] = []

    def make() -> KafkaState:
        bus = KafkaBus(KafkaSettings(bootstrap_servers=kafka_server.address), SeriesTable(), client_id="state")
        buses.append(bus)
        bus.create([topic])
        return bus.state(topic)

    yield make
    for bus in buses:
        bus.close()


def incompressible(chunks: float) -> bytes:
    return os.urandom(int(chunks * CHUNK_BYTES))


def test_the_newest_snapshot_is_found_by_the_next_process(open_state: Open) -> None:
    """Large, small, empty and large again: the last one saved is what is loaded, each name for itself."""
    state = open_state()
    assert state.load(NAME) is None
    for saved in (incompressible(3.5), b"small", b"", incompressible(1)):
        state.save(NAME, saved)
        state.save("detect.shop-latency/1", b"another's")
        assert state.load(NAME) == saved
        assert open_state().load(NAME) == saved
    assert open_state().load("detect.shop-latency/0") is None
    assert open_state().load("detect.shop-latency/1") == b"another's"


def test_several_saved_together_are_each_whole(open_state: Open) -> None:
    """Instances of a process save together; each finds its own again, also where they share a partition."""
    names = [f"detect.shop-latency/{number}" for number in range(3)] + ["ingest.shop.a", "ingest.shop.b"]
    for turn in range(3):
        saved = {name: incompressible(0.3 * (number + turn)) for number, name in enumerate(names)}
        open_state().save_all(saved)
        fresh = open_state()
        assert {name: fresh.load(name) for name in names} == saved


def test_a_process_killed_before_the_manifest_leaves_the_snapshot_before(
    open_state: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often saves are cut off, what was saved last as a whole is loaded, and the next save works."""
    state = open_state()
    state.save(NAME, b"first")
    state.save(NAME, b"second")

    def killed(self: KafkaState, *_: object) -> None:
        self._producer.flush()  # the chunks are there, the manifest is not
        raise KilledError

    for _ in range(3):
        with monkeypatch.context() as patch:
            patch.setattr(KafkaState, "_complete", killed)
            torn = open_state()
            with pytest.raises(KilledError):
                torn.save(NAME, incompressible(2.5))
        assert open_state().load(NAME) == b"second"
    open_state().save(NAME, b"third")
    assert open_state().load(NAME) == b"third"


def test_damage_is_never_taken_for_a_snapshot(open_state: Open, topic: Topic) -> None:
    """One damaged copy: the one before is loaded. Both damaged: an error that names the topic, not a fresh start."""
    state = open_state()
    state.save(NAME, b"first")
    state.save(NAME, b"second")
    place = TopicPartition(topic.name, 2)
    for expected in (b"second", b"first"):
        assert state.load(NAME) == expected
        newest = state._progress[NAME].slot
        state._producer.send(place, f"{NAME}#{newest}#0", b"x" * 40, ())
        state._producer.flush()
    with pytest.raises(SnapshotError, match=f"{topic.name} is damaged in both"):
        open_state().load(NAME)


def test_an_instance_without_a_partition_of_its_own_is_told_so(open_state: Open, topic: Topic) -> None:
    """A state topic that has not grown with the readings is an error that says what to do, not a lost snapshot."""
    with pytest.raises(ValueError, match=f"{topic.name} has 3 partitions and detect.shop-latency/3"):
        open_state().save("detect.shop-latency/3", b"x")


def test_chunks_of_a_larger_snapshot_do_not_stay_for_ever(open_state: Open) -> None:
    """What a smaller snapshot no longer needs is marked for removal: the topic stays as large as its snapshots."""
    state = open_state()
    for size in (4.5, 4.5, 0.5, 0.5):
        state.save(NAME, incompressible(size))
    state._producer.flush()
    slots: dict[str, Any] = open_state()._read(NAME)
    assert {letter: len(slot.chunks) for letter, slot in slots.items()} == {"a": 1, "b": 1}
