"""Instances of a service that are killed at any moment, also while they catch up with what was published before."""

from __future__ import annotations

import random

import pytest

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import Record, TopicPartition
from tidewarden.clock import ManualClock
from tidewarden.events import Rejection
from tidewarden.frames import SeriesTable
from tidewarden.topics import StreamTopics
from tidewarden_services.contract import Output
from tidewarden_services.instances import Instance, output_ends
from tidewarden_services.state import MemoryState

RECORDS = 30


class Echo:
    """Two answers to each record; both instances write to the one partition of the tenant."""

    def handle(self, record: Record) -> list[Output]:
        return [Output("alerts", "t", record.value), Output("alerts", "t", record.value)]

    def snapshot(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None:
        assert state == b""

    def close(self) -> None:
        pass


def _rejection(number: int) -> Rejection:
    return Rejection(
        id=str(number), stream="s", source="push", reason="nan", detail="", origin="o", received_at=0, raw=""
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(40))
def test_killed_while_it_catches_up_an_instance_repeats_nothing(seed: int) -> None:
    """A snapshot from the middle of a replay lets the next process see all that was published before the first kill.

    What the one has published lies before much that the other publishes meanwhile.
    """
    dice = random.Random(seed)
    bus, topics, state = MemoryBus(SeriesTable()), StreamTopics("local", "s", 2), MemoryState()
    bus.create(topics.all())
    readings = topics.name("readings")
    for place in (0, 1):
        for number in range(RECORDS):
            bus.publish(readings, [_rejection(number)], key="k", partition=place)
    inputs = {
        place: [stored.record for stored in bus._partitions[TopicPartition(readings, place)].kept] for place in (0, 1)
    }

    def started(place: int) -> tuple[Instance, int]:
        made = Instance(
            "echo", TopicPartition(readings, place), Echo(), stream=topics, bus=bus, state=state, clock=ManualClock()
        )
        return made, made.restore() or 0

    running = {place: started(place) for place in (0, 1)}
    while any(at < RECORDS for _, at in running.values()):
        place = dice.randint(0, 1)
        instance, at = running[place]
        for record in inputs[place][at : at + dice.randint(1, 6)]:
            instance.handle(record)
            at += 1
            if dice.random() < 0.2:
                state.save_all(instance.capture(output_ends(bus, topics, readings)).states)
        running[place] = started(place) if dice.random() < 0.4 else (instance, at)
    said: dict[str, list[tuple[int, int]]] = {"echo/0": [], "echo/1": []}
    for number in range(topics.partitions):
        for stored in bus._partitions[TopicPartition(topics.name("alerts"), number)].kept:
            headers = stored.record.headers
            answered = int(headers["input"].rpartition("/")[2]), int(headers.get("part", "0"))
            said[headers["producer"]].append(answered)
    everything = [(number, part) for number in range(RECORDS) for part in (0, 1)]
    assert said == {"echo/0": everything, "echo/1": everything}
