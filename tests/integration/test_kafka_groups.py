"""What sharing partitions promises: handed over in order, kept across a restart, one process for each name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import count

import pytest

from servers.kafka import KafkaServer
from tidewarden.bus.kafka.bus import KafkaBus
from tidewarden.bus.kafka.consumer import FencedError
from tidewarden.bus.port import TopicPartition
from tidewarden.events import AnomalyBatch
from tidewarden.frames import SeriesTable
from tidewarden.settings import KafkaSettings
from tidewarden.topics import Topic

pytestmark = pytest.mark.kafka
PARTITIONS = 4
WAIT_S = 60
_numbers = count()


class Fleet:
    """Members of one group, each a process of its own as far as it can know, and what happened to them in order."""

    def __init__(self, address: str, topic: str) -> None:
        self.topic = topic
        self.settings = KafkaSettings(bootstrap_servers=address)
        self.saved: dict[TopicPartition, int] = {}  # the state store that they share
        self.handled: list[tuple[int, int]] = []  # partition and number, in the order of handling
        self.events: list[tuple[str, str, int]] = []  # member, what, partition
        self.writing = threading.Lock()

    def open(self) -> KafkaBus:
        bus = KafkaBus(self.settings, SeriesTable(), client_id="fleet", namespace=self.topic)
        bus.create([Topic(self.topic, PARTITIONS)])
        return bus


class Member:
    """Reads in a thread of its own until it is stopped (snapshots first) or killed (nothing at all)."""

    def __init__(self, fleet: Fleet, name: str) -> None:
        self.fleet, self.name = fleet, name
        self.owned: dict[TopicPartition, int] = {}
        self.bus = fleet.open()
        self.consumer = self.bus.consumer([fleet.topic], "g", member=name, assignment=self)
        self.error: Exception | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def assigned(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        with self.fleet.writing:
            self.fleet.events += [(self.name, "assigned", place.partition) for place in places]
            self.owned |= {place: self.fleet.saved.get(place, 0) for place in places}
            return {place: self.owned[place] for place in places}

    def revoked(self, places: Collection[TopicPartition]) -> None:
        with self.fleet.writing:
            for place in places:
                self.fleet.saved[place] = self.owned.pop(place)
                self.fleet.events.append((self.name, "revoked", place.partition))

    def lost(self, places: Collection[TopicPartition]) -> None:
        with self.fleet.writing:
            for place in places:
                self.owned.pop(place)
                self.fleet.events.append((self.name, "lost", place.partition))

    def stop(self) -> None:
        self._end.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        self.fleet.saved.update(self.owned)
        self.consumer.commit(self.owned)
        self.consumer.close()
        self.bus.close()

    def _run(self) -> None:
        try:
            while not self._end.is_set():
                for record in self.consumer.poll(8, 0.05):
                    self.fleet.handled.append((record.partition, record.value.watermarks["shop"]))
                    self.owned[record.place] = record.offset + 1
        except Exception as error:
            self.error = error


@pytest.fixture
def fleet(kafka_server: KafkaServer) -> Fleet:
    return Fleet(kafka_server.address, f"group-{next(_numbers)}.shop.readings")


@pytest.fixture
def stream(fleet: Fleet) -> Iterator[Callable[[], int]]:
    """Numbers for all partitions in turn, for as long as the test lasts; what it returns ends it and counts them."""
    bus, stop, published = fleet.open(), threading.Event(), [0]

    def publish() -> None:
        while not stop.wait(0.002):
            value = AnomalyBatch(detector="d", anomalies=[], watermarks={"shop": published[0]})
            bus.publish(fleet.topic, value, key="k", partition=published[0] % PARTITIONS)
            published[0] += 1
        bus.sync()

    writer = threading.Thread(target=publish)
    writer.start()

    def end() -> int:
        stop.set()
        writer.join(WAIT_S)
        return published[0]

    yield end
    end()
    bus.close()


def until(met: Callable[[], bool], *members: Member) -> None:
    """Wait for a condition while the members' threads work."""
    waited, pause = 0.0, threading.Event()
    while not met():
        assert waited < WAIT_S, f"not in {WAIT_S} s"
        assert all(member.error is None for member in members), [member.error for member in members]
        pause.wait(0.02)
        waited += 0.02


def test_partitions_are_handed_over_with_their_state_and_every_record_is_handled_once_in_order(
    fleet: Fleet, stream: Callable[[], int]
) -> None:
    """A second member gets a half, each partition revoked from the first before it is assigned to the second."""
    first = Member(fleet, "pod-0")
    until(lambda: len(first.owned) == PARTITIONS and len(fleet.handled) > 100, first)
    second = Member(fleet, "pod-1")
    until(lambda: len(first.owned) == len(second.owned) == PARTITIONS // 2, first, second)
    handed_over = len(fleet.handled)
    until(lambda: len(fleet.handled) > handed_over + 200, first, second)
    published = stream()
    until(lambda: len(fleet.handled) >= published, first, second)
    for partition in range(PARTITIONS):
        assert [n for p, n in fleet.handled if p == partition] == list(range(partition, published, PARTITIONS))
    for place in second.owned:
        story = [(who, what) for who, what, partition in fleet.events if partition == place.partition]
        assert story == [("pod-0", "assigned"), ("pod-0", "revoked"), ("pod-1", "assigned")]
    for place in first.owned:  # what stays is saved and taken up again, as its owner could be killed meanwhile
        story = [(who, what) for who, what, partition in fleet.events if partition == place.partition]
        assert story == [("pod-0", "assigned"), ("pod-0", "revoked"), ("pod-0", "assigned")]
    first.stop()
    second.stop()


def test_a_member_that_comes_back_finds_its_partitions_and_the_others_notice_nothing(
    fleet: Fleet, stream: Callable[[], int]
) -> None:
    """Restarted within its session, a named member has the same partitions, without a rebalance."""
    first, second = Member(fleet, "pod-0"), Member(fleet, "pod-1")
    until(lambda: len(first.owned) == len(second.owned) == PARTITIONS // 2, first, second)
    before, kept = set(second.owned), set(first.owned)
    events = len([event for event in fleet.events if event[0] == "pod-0"])
    second.stop()
    again = Member(fleet, "pod-1")
    until(lambda: set(again.owned) == before, first, again)
    handled = len(fleet.handled)
    until(lambda: len(fleet.handled) > handled + 200, first, again)
    assert set(first.owned) == kept
    assert len([event for event in fleet.events if event[0] == "pod-0"]) == events
    published = stream()
    until(lambda: len(fleet.handled) >= published, first, again)
    for partition in range(PARTITIONS):
        assert [n for p, n in fleet.handled if p == partition] == list(range(partition, published, PARTITIONS))
    first.stop()
    again.stop()


def test_a_second_process_of_the_same_name_ends_the_first(fleet: Fleet) -> None:
    """Two that write under one name can never both go on: the older one is told to end."""
    first = Member(fleet, "pod-0")
    until(lambda: len(first.owned) == PARTITIONS, first)
    second = Member(fleet, "pod-0")
    until(lambda: first.error is not None)
    assert isinstance(first.error, FencedError)
    until(lambda: len(second.owned) == PARTITIONS, second)
    second.stop()
    first.stop()
