"""A topic that somebody else writes, as raw messages: no group, no commits, the reader keeps its own offsets.

Everything that belongs to the client library ends here: what comes out are columns of plain values. A
broker that is away and a topic that is not there are states of the reader, never an exception from `poll`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tidewarden.bus.kafka.connection import Connection
from tidewarden.settings import KafkaSettings

MAX_MESSAGES = 10_000  # of one poll; 40,000 readings where a message carries four
QUEUED_KB = 32_768  # fetched ahead and not yet polled: what a reader's memory is bounded by
# What was written together comes in several fetches, one a partition, some ms apart. Taken together it makes one record
# a partition of ours; apart, twice as many, each with its cost in every pod that follows. Whoever catches up gets
# thousands at once and does not wait.
GATHER_S = 0.004
FEW = 1_000
METADATA_S = 2.0  # how long a question to the cluster may take, and so a stop; asked again with the next round
REFRESH_MS = 10_000  # how soon new partitions are seen

_GONE = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}


class KafkaAwayError(Exception):
    """The brokers do not answer, or the topic is not there: says which, and the remedy. Ask again later."""


@dataclass(slots=True, eq=False)
class RawMessages:
    """Messages of one partition in order; the columns have the same length.

    Attributes:
        partition: they came from.
        offsets: of each message.
        values: their bytes; empty for a tombstone.
    """

    partition: int
    offsets: list[int]
    values: list[bytes]


class RawConsumer:
    """Reads the partitions that it is told to, from the offsets that it is told.

    Args:
        topic: to read.
        config: of librdkafka, with at least ``bootstrap.servers``.
        refresh_ms: how often the client asks for the topic's partitions.
    """

    def __init__(self, topic: str, config: Mapping[str, str | int], *, refresh_ms: int = REFRESH_MS) -> None:
        self.topic = topic
        self._failure = ""
        self._assigned: dict[int, int] = {}
        self._client = Consumer(
            {
                "fetch.queue.backoff.ms": 10,  # the default of 1000 stalls catching up with an idle CPU: 7 times slower
                "queued.max.messages.kbytes": QUEUED_KB,
                "queued.min.messages": 100_000,
                "fetch.wait.max.ms": 50,
                "reconnect.backoff.max.ms": 2_000,
                "socket.connection.setup.timeout.ms": 5_000,
                **config,
                "group.id": "tidewarden-raw",  # the library wants one; without subscription or commit nobody sees it
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",  # what retention has removed is passed over, and told by the offsets
                "allow.auto.create.topics": False,
                "topic.metadata.refresh.interval.ms": refresh_ms,
                "error_cb": self._on_error,
                "log_level": 0,  # said by the status instead, once
            }
        )

    @property
    def failure(self) -> str:
        """What keeps messages from coming, or an empty text."""
        return self._failure

    def partitions(self, timeout_s: float = METADATA_S) -> list[int]:
        """Numbers of the topic's partitions; KafkaAwayError where nobody answers or the topic is not there."""
        try:
            found = self._client.list_topics(self.topic, timeout=timeout_s).topics[self.topic]
        except KafkaException as error:
            raise KafkaAwayError(self._away(error.args[0])) from None
        if found.error is not None:
            raise KafkaAwayError(self._away(found.error))
        if not found.partitions:
            raise KafkaAwayError(f"topic {self.topic!r} does not exist: create it, or correct kafka.topic")
        self._failure = ""
        return sorted(found.partitions)

    def watermarks(self, partition: int, timeout_s: float = METADATA_S) -> tuple[int, int]:
        """Oldest offset of a partition, and the one that its next message will get; KafkaAwayError as above."""
        try:
            found = self._client.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=timeout_s)
        except KafkaException as error:
            raise KafkaAwayError(self._away(error.args[0])) from None
        if found is None:
            raise KafkaAwayError(f"no answer for {self.topic}/{partition} within {timeout_s:g} s: is the broker up?")
        return int(found[0]), int(found[1])

    def assign(self, offsets: Mapping[int, int]) -> None:
        """Read these partitions and no others, each from its offset on."""
        self._assigned = dict(offsets)
        self._client.assign([TopicPartition(self.topic, p, at or OFFSET_BEGINNING) for p, at in offsets.items()])

    def poll(self, timeout_s: float, max_messages: int = MAX_MESSAGES) -> list[RawMessages]:
        """What has come, at most ``max_messages``, by partition in order; empty after ``timeout_s`` seconds.

        Waits for the first message: whatever else is there by then comes along, and where that is little, also what
        comes within `GATHER_S`.
        """
        first = self._client.poll(timeout_s)
        if first is None:
            return []
        messages = [first, *self._client.consume(max_messages - 1, 0)]
        if len(messages) < min(FEW, max_messages):
            messages += self._client.consume(max_messages - len(messages), GATHER_S)
        if list(map(Message.error, messages)).count(None) < len(messages):
            messages = [message for message in messages if self._is_sound(message)]
        else:
            self._failure = ""
        return _by_partition(messages)

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def _is_sound(self, message: Any) -> bool:
        error = message.error()
        if error is None:
            return True
        if error.code() != KafkaError._PARTITION_EOF:
            self._failure = self._away(error)
        return False

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN or not self._failure:
            self._failure = self._away(error)

    def _away(self, error: KafkaError) -> str:
        if error.code() in _GONE:
            return f"topic {self.topic!r} does not exist: create it, or correct kafka.topic"
        if error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._TIMED_OUT):
            return f"no broker answers ({error.str()}): trying again; is kafka.bootstrapServers right?"
        return f"{error.name()}: {error.str()}"


def _by_partition(messages: list[Any]) -> list[RawMessages]:
    """Messages as columns; a poll brings long runs of each partition, so runs are what is moved, not messages."""
    numbers = list(map(Message.partition, messages))
    offsets = list(map(Message.offset, messages))
    values = [value or b"" for value in map(Message.value, messages)]
    found: dict[int, RawMessages] = {}
    ends = [*(np.flatnonzero(np.diff(np.asarray(numbers, np.int32))) + 1).tolist(), len(numbers)]
    start = 0
    for end in ends if numbers else ():
        part = found.setdefault(numbers[start], RawMessages(numbers[start], [], []))
        part.offsets += offsets[start:end]
        part.values += values[start:end]
        start = end
    return [found[number] for number in sorted(found)]


def client_config(settings: KafkaSettings) -> dict[str, str | int]:
    """Address and credentials as librdkafka's settings; ValueError names the key that the Secret lacks."""
    return Connection(settings, "tidewarden-source").config()
