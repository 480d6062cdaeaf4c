"""`tidewarden play`: a file of metrics into a Kafka topic, in time order and at a chosen speed.

A message is one node at one instant, ``{"tenant", "cluster", "node", "timestamp", "metrics": {name: value}}``,
with the timestamp in milliseconds, keyed by node. The producer is idempotent: without that, a retry may
put a partition out of time order, and a consumer that scores up to the newest tick loses readings.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import typer
from confluent_kafka import KafkaError, KafkaException, Producer

from tidewarden.clock import Clock, SystemClock
from tidewarden.frames import NodeKey
from tidewarden.resources.metricsimulation import Replay
from tidewarden_simulator import replay

IN_FLIGHT = 100_000  # messages queued at most: about 20 MB, a second or less of a fast broker
DELIVERY_TIMEOUT_MS = 120_000  # a broker may restart meanwhile, a minute on a slow disk; longer counts as failed
CONNECT_TIMEOUT_S = 10.0
_POLL_S = 0.05  # while waiting: delivery reports are taken in this often
_DECODE = 4_096  # rows turned into Python objects at once


class Message(NamedTuple):
    """One message, ready to send."""

    timestamp: int  # ms since the epoch
    key: bytes
    value: bytes
    readings: int


@dataclass(slots=True)
class Played:
    """What a run has done so far."""

    sent: int = 0
    delivered: int = 0
    failed: int = 0
    readings: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0
    first_ms: int | None = None
    last_ms: int | None = None
    interrupted: bool = False
    first_failure: str | None = None


def messages_of(recording: replay.Recording) -> Iterator[Message]:
    """The readings of ``recording`` as messages in time order, the metrics of a node and instant together."""
    keys = recording.keys
    nodes = [NodeKey(key.tenant, key.cluster, key.node) for key in keys]
    place = {node: index for index, node in enumerate(dict.fromkeys(nodes))}
    node_of = np.array([place[node] for node in nodes], np.int32)
    series, timestamp = recording.series, recording.timestamp
    # Series are sorted by name within a tick; one that comes twice at one instant begins a new message.
    same = (np.diff(timestamp) == 0) & (np.diff(node_of[series]) == 0) & (np.diff(series) > 0)
    bounds = np.append(np.flatnonzero(np.concatenate([[True], ~same])), len(series))
    encode = msgspec.json.Encoder().encode
    for begin in range(0, len(bounds) - 1, _DECODE):
        cuts = bounds[begin : begin + _DECODE + 1].tolist()
        offset = cuts[0]
        values = recording.value[offset : cuts[-1]].tolist()
        ids = series[offset : cuts[-1]].tolist()
        for first, last in pairwise(cuts):
            node = nodes[ids[first - offset]]
            instant = int(timestamp[first])
            rows = range(first - offset, last - offset)
            body = {
                "tenant": node.tenant,
                "cluster": node.cluster,
                "node": node.node,
                "timestamp": instant,
                "metrics": {keys[ids[i]].metric: values[i] for i in rows},  # msgspec writes NaN as null
            }
            yield Message(instant, node.path.encode(), encode(body), last - first)


class Playback:
    """Sends messages to a topic.

    Args:
        producer: an idempotent producer (`producer_config`).
        topic: where to.
        speed: times real time; 0: as fast as the broker takes them.
        batch_size: messages sent between two looks at delivery reports and at the clock's progress.
        clock: what pacing waits on.
    """

    def __init__(self, producer: Producer, topic: str, *, speed: float, batch_size: int, clock: Clock) -> None:
        self._producer = producer
        self._topic = topic
        self._speed = speed
        self._batch_size = batch_size
        self._clock = clock
        self._stop = threading.Event()
        self.played = Played()

    def stop(self) -> None:
        """End after the message in hand; `run` then waits for those under way."""
        self._stop.set()

    def run(self, messages: Iterator[Message], on_progress: Callable[[Played], None] = lambda _: None) -> Played:
        """Send ``messages`` and wait for their delivery; returns the end statistics."""
        played, begun = self.played, self._clock.monotonic()
        for message in messages:
            if self._stop.is_set():
                break
            if played.first_ms is None:
                played.first_ms = message.timestamp
            elif self._speed > 0 and message.timestamp > (played.last_ms or 0):
                self._wait_until(begun + (message.timestamp - played.first_ms) / 1000 / self._speed, on_progress)
                if self._stop.is_set():
                    break
            if not self._send(message):
                break
            played.last_ms = message.timestamp
            played.sent += 1
            played.readings += message.readings
            played.sent_bytes += len(message.value)
            if played.sent % self._batch_size == 0:
                self._producer.poll(0)
                played.seconds = self._clock.monotonic() - begun
                on_progress(played)
        played.interrupted = self._stop.is_set()
        left = self._producer.flush(DELIVERY_TIMEOUT_MS / 1000)
        if left:
            played.failed += left
            self._note_failure("the broker did not confirm them in time")
        played.seconds = self._clock.monotonic() - begun
        on_progress(played)
        return played

    def _send(self, message: Message) -> bool:
        """Hand one message to the producer, waiting while its queue is full; False if told to stop meanwhile."""
        while not self._stop.is_set():
            try:
                self._producer.produce(self._topic, message.value, message.key, on_delivery=self._delivered)
                return True
            except BufferError:
                self._producer.poll(_POLL_S)  # bounded: every queued message is delivered or fails in time
        return False

    def _wait_until(self, due: float, on_progress: Callable[[Played], None]) -> None:
        while (left := due - self._clock.monotonic()) > 0:
            self._producer.poll(0)
            on_progress(self.played)
            if self._clock.wait(self._stop, min(left, _POLL_S)):
                return

    def _delivered(self, error: KafkaError | None, _message: Any) -> None:
        if error is None:
            self.played.delivered += 1
        else:
            self.played.failed += 1
            self._note_failure(error.str())

    def _note_failure(self, text: str) -> None:
        if self.played.first_failure is None:
            self.played.first_failure = text


def producer_config(bootstrap_servers: str, batch_size: int) -> dict[str, Any]:
    """Settings of the producer, each with its reason."""
    return {
        "bootstrap.servers": bootstrap_servers,
        "client.id": "tidewarden-play",
        "enable.idempotence": True,  # keeps partitions in time order across retries
        "partitioner": "consistent",  # CRC-32 of the key, as Tidewarden itself partitions
        "compression.type": "lz4",
        "linger.ms": 20,
        "batch.num.messages": batch_size,
        "queue.buffering.max.messages": IN_FLIGHT,
        "message.timeout.ms": DELIVERY_TIMEOUT_MS,
        "log_level": 0,  # connection troubles are told once, by this command
    }


def play(
    input: Annotated[  # noqa: A002 - the option's name
        Path,
        typer.Option(help="CSV (also .gz), Parquet or JSON lines: timestamp,value, wide, long, or one object a node."),
    ],
    topic: Annotated[str, typer.Option(help="Topic to write to.")],
    bootstrap_servers: Annotated[str, typer.Option(help="Kafka brokers, host:port, separated by commas.")] = (
        "127.0.0.1:9092"
    ),
    speed: Annotated[float, typer.Option(min=0, help="Times real time; 0: as fast as possible.")] = 1.0,
    limit: Annotated[int | None, typer.Option(min=1, help="End after so many messages.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most messages in one batch.")] = 1000,
    tenant: Annotated[str, typer.Option(help="Tenant of a file that names none.")] = "replay",
    cluster: Annotated[str, typer.Option(help="Cluster of a file that names none.")] = "default",
) -> None:
    """Play a file into a Kafka topic in time order.

    One JSON message a node and instant: tenant, cluster, node, timestamp (ms), metrics. Labels stay behind.

    Examples:

      tidewarden play --input data/readings.csv --topic metrics --bootstrap-servers 127.0.0.1:9092 --speed 60

      tidewarden play --input readings.parquet --topic metrics --bootstrap-servers 127.0.0.1:9092 --speed 0
    """
    recording = _recording(input, tenant, cluster)
    producer = Producer(producer_config(bootstrap_servers, batch_size))
    _check_broker(producer, topic, bootstrap_servers)
    playback = Playback(producer, topic, speed=speed, batch_size=batch_size, clock=SystemClock())
    before = signal.signal(signal.SIGINT, lambda *_: playback.stop())
    try:
        played = _run_with_progress(playback, recording, limit)
    finally:
        signal.signal(signal.SIGINT, before)
    _tell(played, topic)
    if played.failed:
        raise typer.Exit(1)
    if played.interrupted:
        raise typer.Exit(130)


def _recording(path: Path, tenant: str, cluster: str) -> replay.Recording:
    try:
        found = replay.load(
            Replay(path=str(path), tenant=tenant, cluster=cluster),
            interval_ms=60_000,
            base_dir=Path(),
            points=None,
            labelled=False,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error).replace("replay.path", "--input")) from error
    return replay.join(found, start_ms=None)


def _check_broker(producer: Producer, topic: str, bootstrap_servers: str) -> None:
    """Fail early, and say what to look at, where nothing answers."""
    try:
        producer.list_topics(topic, timeout=CONNECT_TIMEOUT_S)
    except KafkaException as error:
        raise typer.BadParameter(
            f"no Kafka answers at {bootstrap_servers} ({error.args[0].str()}); check --bootstrap-servers"
        ) from error


def _run_with_progress(playback: Playback, recording: replay.Recording, limit: int | None) -> Played:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    first, last = int(recording.timestamp[0]), int(recording.timestamp[-1])
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("playing", total=limit or max(1, last - first), told="")

        def show(played: Played) -> None:
            rate = played.sent / played.seconds if played.seconds else 0.0
            done = played.sent if limit else (played.last_ms or first) - first
            progress.update(task, completed=done, told=f"{played.sent:,} messages, {rate:,.0f}/s")

        return playback.run(islice(messages_of(recording), limit), show)


def _tell(played: Played, topic: str) -> None:
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    seconds = max(played.seconds, 1e-9)
    console.print(
        f"{'Interrupted: ' if played.interrupted else ''}[bold]{played.delivered:,}[/] messages with "
        f"{played.readings:,} readings to {topic} in {played.seconds:.1f} s "
        f"({played.delivered / seconds:,.0f} messages/s, {played.sent_bytes / seconds / 1e6:.1f} MB/s)"
    )
    if played.first_ms is not None and played.last_ms is not None and played.last_ms > played.first_ms:
        span_s = (played.last_ms - played.first_ms) / 1000
        console.print(f"{span_s:,.0f} s of data, {span_s / seconds:,.1f} × real time")
    if played.failed:
        console.print(f"[red]{played.failed:,} messages were not delivered:[/] {played.first_failure}")
