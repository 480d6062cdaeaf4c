"""The bus on Kafka: what `MemoryBus` is to one process, this is to a cluster.

Publishing returns before the broker has answered; `sync` waits for the answers. While a broker is away,
publishers wait once 64 MB are queued, readers find nothing, and both go on by themselves when it is back:
nothing is lost, and no partition changes its order. What Kafka refuses for good ends in `UndeliveredError`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidewarden.bus.kafka.admin import TopicAdmin
from tidewarden.bus.kafka.connection import MESSAGE_MAX_BYTES, PATIENCE_S, Connection
from tidewarden.bus.kafka.consumer import KafkaConsumer
from tidewarden.bus.kafka.producer import KafkaProducer
from tidewarden.bus.kafka.ranges import RangeReader
from tidewarden.bus.kafka.records import KIND, RecordReader, headers_of, key_of
from tidewarden.bus.kafka.state import KafkaState
from tidewarden.bus.port import Assignment, Record, TopicPartition
from tidewarden.codec import Codec
from tidewarden.frames import SeriesTable
from tidewarden.settings import KafkaSettings
from tidewarden.topics import Topic, consumer_group

# Looking for a producer's newest record: first the newest of all, then ever more.
_FIRST_STEP = 1
_STEP_FACTOR = 16
_STEP_MAX = 65_536


class KafkaBus:
    """A `Bus` on Kafka, for one process.

    Args:
        settings: where Kafka is and how to log in.
        table: series of the process; frames on this bus point into it.
        client_id: how the broker's logs name us.
        namespace: of the resources; consumer groups carry it, since namespaces share a Kafka.
        patience_s: how long Kafka may be away before a question to it (not publishing, not reading) fails.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        table: SeriesTable,
        *,
        client_id: str,
        namespace: str = "local",
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._table = table
        self._namespace = namespace
        self._connection = Connection(settings, client_id, patience_s=patience_s)
        self._admin = TopicAdmin(settings, connection=self._connection)
        self._producer = KafkaProducer(self._connection)
        self._publishing = threading.Lock()  # order on the topic is the order of calls
        self._codecs: dict[TopicPartition, Codec] = {}
        self._counts: dict[str, int] = {}
        self._ranges: RangeReader | None = None
        self._state_producer: KafkaProducer | None = None
        self._opening = threading.Lock()

    def create(self, topics: Iterable[Topic]) -> None:
        """Make the topics that are missing; ValueError where one exists with fewer partitions.

        Those that exist are left as they are: growing and mending them is the operator's (`TopicAdmin.apply`), whose
        newer wishes a process with older resources must not undo.
        """
        self._admin.create_missing(topics)

    def publish(
        self, topic: str, value: Any, *, key: str, partition: int = 0, headers: Mapping[str, str] | None = None
    ) -> None:
        """Append. Waits while the queue to the broker is full; `UndeliveredError` where Kafka has refused a record."""
        place = TopicPartition(topic, partition)
        with self._publishing:
            kind, data = self._codec(place).encode(value)
            if len(data) > MESSAGE_MAX_BYTES:
                raise ValueError(
                    f"a record of {len(data)} bytes for {topic} is larger than {MESSAGE_MAX_BYTES}: cut it into several"
                )
            self._producer.send(place, key, data, [(KIND, kind), *(headers or {}).items()])

    def sync(self) -> None:
        """Wait until everything published by now is acknowledged by all in-sync replicas."""
        self._producer.flush()

    def consumer(
        self, topics: Sequence[str], group: str, *, member: str | None = None, assignment: Assignment | None = None
    ) -> KafkaConsumer:
        """A reader that starts at the group's committed offsets, or at the oldest record."""
        self._known(topics)
        return KafkaConsumer(
            self._connection,
            topics,
            consumer_group(self._namespace, group),
            RecordReader(self._table),
            self._known,
            member=member,
            assignment=assignment,
        )

    def ends(self, *topics: str) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will get, of what is acknowledged by now."""
        return self._admin.ends(topics)

    def last(self, topic: str, partition: int, producer: str | None = None, since: int = 0) -> Record | None:
        """The newest record of a partition, or of one producer in it; its value is None.

        There is no index of producers: reads back in growing steps, down to ``since``.
        """
        place = TopicPartition(topic, partition)
        oldest = max(since, self._admin.starts([topic])[place])
        end = self._admin.ends([topic])[place]
        step = _FIRST_STEP
        while end > oldest:
            begin = max(oldest, end - step)
            newest: Record | None = None
            for message in self._range_reader().read(place, begin, end):
                headers = headers_of(message)
                if producer is None or headers.get("producer") == producer:
                    headers.pop(KIND, None)
                    newest = Record(topic, partition, message.offset(), key_of(message), None, headers)
            if newest is not None:
                return newest
            end, step = begin, min(step * _STEP_FACTOR, _STEP_MAX)
        return None

    def state(self, topic: Topic) -> KafkaState:
        """The snapshots on a compacted topic (`StreamTopics.state`), which exists; it closes with the bus."""
        with self._opening:
            if self._state_producer is None:
                self._state_producer = KafkaProducer(self._connection, compression="none")
            producer = self._state_producer
        return KafkaState(topic.name, admin=self._admin, ranges=self._range_reader(), producer=producer)

    def close(self) -> None:
        """Wake everyone who waits; what is published by now is delivered if that takes only seconds."""
        self._connection.closed.set()
        self._producer.close()
        with self._opening:
            if self._state_producer is not None:
                self._state_producer.close()
                self._state_producer = None
            if self._ranges is not None:
                self._ranges.close()
                self._ranges = None

    # --- what there is -----------------------------------------------------------------------------

    def _codec(self, place: TopicPartition) -> Codec:
        codec = self._codecs.get(place)
        if codec is None:
            count = self._counts.get(place.topic, 0)
            if place.partition >= count:
                count = self._known([place.topic])[place.topic]
                if place.partition >= count:
                    raise KeyError(f"topic {place.topic} has no partition {place.partition}, it has {count}")
                # A broker that does not lead a new partition yet refuses its first record, and the client (2.16) then
                # reports that record as delivered, without an offset. So: first an answer from each leader.
                self._admin.ends([place.topic])
                self._producer.learn(place.topic, count)
                self._counts[place.topic] = count
            codec = self._codecs[place] = Codec(self._table)
        return codec

    def _known(self, topics: Iterable[str]) -> dict[str, int]:
        names = list(topics)
        counts = self._admin.partitions(names)
        for name in names:
            if name not in counts:
                raise KeyError(f"no topic {name}: create it first")
        return counts

    def _range_reader(self) -> RangeReader:
        with self._opening:
            if self._ranges is None:
                self._ranges = RangeReader(self._connection)
            return self._ranges
