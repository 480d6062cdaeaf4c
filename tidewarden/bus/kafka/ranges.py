"""Reading a given range of a partition once: for the newest record of a producer, and for snapshots."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from confluent_kafka import Consumer as KafkaClient
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPlace

from tidewarden.bus.kafka.connection import Connection
from tidewarden.bus.port import BusClosedError, TopicPartition

QUEUED_KBYTES = 16_384  # read ahead at most; the reader takes messages as fast as they come
_BATCH = 512
_SLICE_S = 0.1  # so soon a closing bus is noticed


class RangeReader:
    """Reads ranges with one client of its own, one at a time.

    Args:
        connection: how to reach Kafka.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._one_at_a_time = threading.Lock()
        self._client = KafkaClient(
            connection.config(
                group_id="tidewarden-ranges",  # the client wants a name; nothing is ever committed to it
                enable_auto_commit=False,
                auto_offset_reset="earliest",  # what retention has removed is not there to be read
                enable_partition_eof=True,
                fetch_wait_max_ms=50,
                fetch_queue_backoff_ms=10,
                queued_max_messages_kbytes=QUEUED_KBYTES,
                fetch_message_max_bytes=4 * 1024 * 1024,
            )
        )

    def read(self, place: TopicPartition, begin: int, end: int) -> Iterator[Any]:
        """The client's messages from offset ``begin`` to before ``end``, in order; waits while the broker is away.

        Raises `KafkaUnavailableError` where nothing comes for as long as patience lasts.
        """
        with self._one_at_a_time:
            if begin >= end:
                return
            self._client.assign([KafkaPlace(place.topic, place.partition, begin)])
            try:
                yield from self._until(end)
            finally:
                self._client.unassign()

    def _until(self, end: int) -> Iterator[Any]:
        heard = time.monotonic()
        while True:
            messages = self._next()
            for message in messages:
                error = message.error()
                if error is None and message.offset() < end:
                    yield message
                if error is None and message.offset() >= end - 1:
                    return
                if error is not None and error.code() == KafkaError._PARTITION_EOF:
                    return  # what compaction left out at the end never comes
                if error is not None and not error.retriable():
                    raise self._connection.failure(KafkaException(error), time.monotonic() - heard)
            silent_s = time.monotonic() - heard
            if messages:
                heard = time.monotonic()
            elif silent_s > self._connection.patience_s:
                raise self._connection.failure("no record came", silent_s)
            if self._connection.closed.is_set():
                raise BusClosedError("the bus was closed while reading a range")

    def _next(self) -> list[Any]:
        messages: list[Any] = self._client.consume(_BATCH, 0)
        if not messages:
            first = self._client.poll(_SLICE_S)
            messages = [] if first is None else [first]
        return messages

    def close(self) -> None:
        """Let go of the client."""
        with self._one_at_a_time:
            self._client.close()
