"""The one idempotent producer of a process: order kept, nothing lost, nothing silent, memory bounded."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import Producer as KafkaClient

from tidewarden.bus.kafka.connection import Connection
from tidewarden.bus.port import BusClosedError, TopicPartition, UndeliveredError

LINGER_MS = 5  # a frame is a batch by itself; this gathers the small records of a round
# Measured with frames of 10,000 readings: polled and decoded at 38 M readings per CPU second with lz4, 18 M with zstd,
# which takes half the room (2.8 instead of 5.6 bytes a reading). Room is cheaper; kafka.options can say otherwise.
COMPRESSION = "lz4"
QUEUE_KBYTES = 65_536  # waiting for the broker at most: 250 frames of 10,000 readings; then `send` waits
QUEUE_MESSAGES = 50_000  # the same for small records
CLOSE_FLUSH_S = 5.0  # at the end; what is not delivered by then is published again by the next process
_SLICE_S = 0.05

log = structlog.get_logger()


class KafkaProducer:
    """Sends in order. A record is delivered, or waits as long as the broker is away, or ends in `UndeliveredError`.

    Args:
        connection: how to reach Kafka.
        compression: of the producer's batches.
    """

    def __init__(self, connection: Connection, *, compression: str = COMPRESSION) -> None:
        self._connection = connection
        self._counting = threading.Lock()
        self._sent: dict[TopicPartition, int] = {}
        self._delivered: dict[TopicPartition, int] = {}
        self._failure: str | None = None
        self._client = KafkaClient(
            connection.config(
                on_fatal=self._on_fatal,
                enable_idempotence=True,  # with it, acks=all and order across retries
                message_timeout_ms=0,  # never given up because of time: a broker that is away comes back
                linger_ms=LINGER_MS,
                # Whole batches by the producer, not columns within frames: 20 to 40 % smaller, and unpacked by the
                # client's own thread beside the one that decodes.
                compression_type=compression,
                queue_buffering_max_kbytes=QUEUE_KBYTES,
                queue_buffering_max_messages=QUEUE_MESSAGES,
            )
        )

    def send(self, place: TopicPartition, key: str, value: bytes | None, headers: Sequence[tuple[str, str]]) -> None:
        """Queue one record; waits while the queue is full. Called by one thread at a time for each partition."""
        while True:
            self.check()
            try:
                self._client.produce(
                    place.topic, value, key, place.partition, headers=list(headers), on_delivery=self._reported
                )
                break
            except BufferError:
                self._client.poll(_SLICE_S)  # room comes with the broker's answers
            except KafkaException as error:
                raise UndeliveredError(f"{place.topic}/{place.partition}: {error.args[0].str()}") from error
        with self._counting:
            self._sent[place] = self._sent.get(place, 0) + 1
        self._client.poll(0)

    def learn(self, topic: str, partitions: int) -> None:
        """Wait until the client knows of so many partitions of a topic that exists."""

        def ask(timeout_s: float) -> None:
            found = self._client.list_topics(topic, timeout_s).topics[topic]
            if found.error is not None:
                raise KafkaException(found.error)
            if len(found.partitions) < partitions:
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))

        self._connection.patiently(ask)

    def flush(self) -> None:
        """Wait until everything sent before this call is acknowledged, however long the broker is away."""
        with self._counting:
            awaited = dict(self._sent)
        while True:
            self._client.flush(_SLICE_S)
            self.check()
            with self._counting:
                if all(self._delivered.get(place, 0) >= count for place, count in awaited.items()):
                    return

    def check(self) -> None:
        """Raise what ends this producer: a record that was refused, or a closed bus."""
        if self._failure is not None:
            raise UndeliveredError(self._failure)
        if self._connection.closed.is_set():
            raise BusClosedError("the bus was closed while publishing")

    def close(self) -> None:
        """Deliver what can be delivered within seconds; says so where that is not all."""
        deadline = time.monotonic() + CLOSE_FLUSH_S
        left = len(self._client)
        while left and self._failure is None and time.monotonic() < deadline:
            left = self._client.flush(_SLICE_S)
        if left:
            log.warning("closed before everything was delivered", records=left, address=self._connection.address)
            self._client.purge()
            self._client.flush(1.0)

    def _on_fatal(self, error: KafkaError) -> None:
        """The client can no longer promise order and no loss."""
        if self._failure is None:
            self._failure = f"Kafka's client has given up: {error.str()}"

    def _reported(self, error: KafkaError | None, message: Any) -> None:
        """One record's fate; records of a partition are reported in their order."""
        place = TopicPartition(message.topic(), message.partition())
        if error is None and (message.offset() is None or message.offset() < 0):
            # Either never written, or a duplicate whose original the broker has forgotten. Not knowing is a failure:
            # the next process finds out by the newest record of this producer.
            if self._failure is None:
                self._failure = f"a record for {place.topic}/{place.partition} was acknowledged without an offset"
        elif error is None:
            with self._counting:
                self._delivered[place] = self._delivered.get(place, 0) + 1
        elif self._failure is None and error.code() not in {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}:
            self._failure = f"a record for {place.topic}/{place.partition} was refused: {error.str()}"
            log.error("a record was refused", topic=place.topic, partition=place.partition, error=error.str())
