"""What `tidewarden play` promises, against librdkafka's own mock cluster: everything, in order, at speed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from confluent_kafka import Consumer, Producer, TopicPartition
from typer.testing import CliRunner

from tidewarden.clock import ManualClock
from tidewarden_simulator.generate import generate
from tidewarden_simulator.playback import Message, Playback, play, producer_config

app = typer.Typer(rich_markup_mode=None)
app.command("generate")(generate)
app.command("play")(play)


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and output of the command, spaces and line breaks alike."""
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})
    return result.exit_code, " ".join(result.output.split())


@pytest.fixture
def kafka() -> Iterator[str]:
    """Address of a mock cluster with one broker, which lives as long as the producer that runs it."""
    host = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    broker = next(iter(host.list_topics(timeout=10).brokers.values()))
    yield f"{broker.host}:{broker.port}"
    host.flush(1)


def consume(address: str, topic: str, count: int) -> list[dict[str, Any]]:
    """``count`` messages of ``topic``, decoded; fewer where no more come within ten seconds."""
    consumer = Consumer(
        {"bootstrap.servers": address, "group.id": "test", "auto.offset.reset": "earliest", "log_level": 0}
    )
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    messages: list[dict[str, Any]] = []
    while len(messages) < count:
        batch = consumer.consume(count - len(messages), 10)
        if not batch:
            break
        for message in batch:
            assert message.error() is None
            body = json.loads(message.value())
            assert message.key() == "/".join((body["tenant"], body["cluster"], body["node"])).encode()
            messages.append({**body, "partition": message.partition()})
    consumer.close()
    return messages


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_generated_file_arrives_whole_in_time_order_and_without_labels(kafka: str, kind: str, tmp_path: Path) -> None:
    assert run("generate", "--n-series", "5", "--n-points", "60", "--anomaly-ratio", "1", "--kinds", "missing",
               "--format", kind, "--output-dir", str(tmp_path))[0] == 0  # fmt: skip
    code, output = run("play", "--input", str(tmp_path / f"metrics.{kind}"), "--topic", "metrics",
                       "--bootstrap-servers", kafka, "--speed", "0")  # fmt: skip
    assert code == 0, output
    assert "300 messages with 900 readings to metrics" in output
    messages = consume(kafka, "metrics", 300)
    assert len(messages) == 300
    assert set(messages[0]) == {"tenant", "cluster", "node", "timestamp", "metrics", "partition"}
    assert set(messages[0]["metrics"]) == {"latency_ms", "error_rate", "throughput"}
    assert any(value is None for message in messages for value in message["metrics"].values()), "missing is null"
    for partition in {message["partition"] for message in messages}:
        times = [message["timestamp"] for message in messages if message["partition"] == partition]
        assert times == sorted(times)


def test_json_lines_in_any_order_are_played_in_time_order_up_to_the_limit(kafka: str, tmp_path: Path) -> None:
    lines = [
        {"tenant": "shop", "cluster": "c1", "node": node, "timestamp": 1_767_225_600_000 + minute * 60_000,
         "metrics": {"cpu": minute} if node == "n1" else {"mem": minute}}
        for minute in (2, 0, 1) for node in ("n1", "n2")
    ]  # fmt: skip
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, output = run("play", "--input", str(path), "--topic", "t", "--bootstrap-servers", kafka, "--limit", "5",
                       "--speed", "0", "--batch-size", "2")  # fmt: skip
    assert code == 0, output
    messages = consume(kafka, "t", 5)
    assert len(messages) == 5
    assert {json.dumps(m["metrics"]) for m in messages if m["node"] == "n1"} == {f'{{"cpu": {i}.0}}' for i in range(3)}
    assert sorted(m["timestamp"] for m in messages) == [1_767_225_600_000 + 60_000 * i for i in (0, 0, 1, 1, 2)]


def messages(count: int) -> Iterator[Message]:
    """One message a minute."""
    for minute in range(count):
        yield Message(minute * 60_000, b"t/c/n", b"{}", 1)


def test_speed_is_a_multiple_of_real_time(kafka: str) -> None:
    clock = ManualClock()
    playback = Playback(Producer(producer_config(kafka, 10)), "paced", speed=120, batch_size=10, clock=clock)
    played = playback.run(messages(21))
    assert played.delivered == 21
    assert played.seconds == pytest.approx(20 * 60 / 120, abs=0.06)


def test_told_to_stop_it_delivers_what_is_under_way_and_says_so(kafka: str) -> None:
    clock = ManualClock()
    playback = Playback(Producer(producer_config(kafka, 10)), "stopped", speed=60, batch_size=1, clock=clock)

    def stop_at_five(played: Any) -> None:
        if played.sent == 5:
            playback.stop()

    played = playback.run(messages(1_000), stop_at_five)
    assert played.interrupted
    assert played.sent == played.delivered == 5
    assert played.failed == 0


def test_no_broker_and_no_file_are_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidewarden_simulator.playback.CONNECT_TIMEOUT_S", 0.5)
    path = tmp_path / "a.csv"
    path.write_text("timestamp,value\n2026-01-01T00:00:00Z,1\n")
    code, output = run("play", "--input", str(path), "--topic", "t", "--bootstrap-servers", "127.0.0.1:1")
    assert code == 2
    assert "no Kafka answers at 127.0.0.1:1" in output
    assert "check --bootstrap-servers" in output
    code, output = run("play", "--input", str(tmp_path / "b.csv"), "--topic", "t")
    assert code == 2
    assert "--input: there is no file or folder" in output
