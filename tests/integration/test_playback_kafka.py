"""What `tidewarden play` promises of a real Kafka: nothing lost, nothing twice, in order, also across a crash."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from confluent_kafka import Consumer, Producer, TopicPartition
from typer.testing import CliRunner

from tidewarden.clock import SystemClock
from tidewarden.frames import NodeKey
from tidewarden.resources.metricsimulation import Anomalies, Fleet
from tidewarden.topics import partition_of
from tidewarden_simulator.generate import Format, write_fleet
from tidewarden_simulator.playback import Message, Playback, play, producer_config

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
START_MS = 1_767_225_600_000


def consume(address: str, topic: str) -> list[dict[str, Any]]:
    """Everything in ``topic``, partition by partition in order."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "enable.auto.commit": False})
    found: list[dict[str, Any]] = []
    for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
        place = TopicPartition(topic, partition, 0)
        _, end = consumer.get_watermark_offsets(place, timeout=10)
        consumer.assign([place])
        read = 0
        while read < end:
            message = consumer.poll(10)
            assert message is not None, f"partition {partition} ended after {read} of {end} messages"
            assert message.error() is None
            found.append({**msgspec.json.decode(message.value()), "partition": partition, "key": message.key()})
            read = message.offset() + 1
    consumer.close()
    return found


def test_a_generated_file_is_in_the_topic_once_and_each_partition_in_time_order(
    kafka_server: Any, tmp_path: Path
) -> None:
    fleet = Fleet(tenants=["shop"], nodes=20, metrics=["latency_ms", "cpu_percent"])
    write_fleet(fleet, Anomalies(), seed=1, interval_ms=60_000, start_ms=START_MS, points=1000, output_dir=tmp_path,
                format=Format.PARQUET)  # fmt: skip
    app = typer.Typer(rich_markup_mode=None)
    app.command()(play)
    arguments = ["--input", str(tmp_path / "metrics.parquet"), "--topic", "whole", "--speed", "0"]
    result = CliRunner().invoke(app, [*arguments, "--bootstrap-servers", kafka_server.address])
    assert result.exit_code == 0, result.output
    assert "20,000 messages with 40,000 readings" in result.output
    messages = consume(kafka_server.address, "whole")
    assert len({(message["node"], message["timestamp"]) for message in messages}) == len(messages) == 20_000
    for partition in range(3):
        times = [message["timestamp"] for message in messages if message["partition"] == partition]
        assert times == sorted(times)
    for message in messages[::500]:
        node = NodeKey(message["tenant"], message["cluster"], message["node"])
        assert message["partition"] == partition_of(node, 3), "as Tidewarden itself partitions"


def test_a_broker_that_crashes_meanwhile_costs_no_message_and_no_order(own_kafka_server: Any) -> None:
    server = own_kafka_server
    producer = Producer(producer_config(server.address, 100))
    producer.list_topics("crashed", timeout=10)
    playback = Playback(producer, "crashed", speed=0, batch_size=100, clock=SystemClock())
    crash, crashed = threading.Event(), threading.Event()

    def messages() -> Iterator[Message]:
        for number in range(2_000):
            if number == 1_000:
                producer.flush(30)
                assert playback.played.delivered == 1_000, playback.played.first_failure
                crash.set()
                assert crashed.wait(30), "the second half is sent while no broker is there"
            body = msgspec.json.encode({"timestamp": number})
            yield Message(number, b"t/c/n%d" % (number % 7), body, 1)

    # The server belongs to the thread that starts it, so it is the playback that gets one of its own.
    thread = threading.Thread(target=playback.run, args=(messages(),))
    thread.start()
    assert crash.wait(60)
    server.kill()
    crashed.set()
    server.start()
    thread.join(120)
    played = playback.played
    assert (played.delivered, played.failed) == (2_000, 0), played.first_failure
    found = consume(server.address, "crashed")
    assert sorted(message["timestamp"] for message in found) == list(range(2_000)), "none lost, none twice"
    for partition in range(3):
        times = [message["timestamp"] for message in found if message["partition"] == partition]
        assert times == sorted(times)
