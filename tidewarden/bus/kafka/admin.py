"""Topics as they are and as they should be: what the operator makes, grows, mends and removes.

Everything is level-triggered and idempotent: `TopicAdmin.apply` compares, and asks Kafka for nothing where
nothing differs. Each call has a timeout and ends in `KafkaUnavailableError` where Kafka does not answer, and in
ValueError where what was asked for cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection
from confluent_kafka import TopicPartition as KafkaPlace
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from tidewarden.bus.kafka.connection import MESSAGE_MAX_BYTES, Connection
from tidewarden.bus.port import TopicPartition
from tidewarden.settings import KafkaSettings
from tidewarden.topics import Topic

# The broker measures a batch with its headers and frame; ours are a few hundred bytes.
_BATCH_OVERHEAD_BYTES = 4_096
# Snapshots are written again and again: what the newest ones replaced is reclaimed once a segment is full, so a state
# topic holds about twice its live snapshots and one segment for each partition.
_STATE_SEGMENT_BYTES = 64 * 1024 * 1024
OPERATOR_PATIENCE_S = 15.0  # the operator tries again by itself, and says meanwhile what it waits for


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is."""

    name: str
    partitions: int
    replicas: int
    config: Mapping[str, str]  # only what we set ourselves


@dataclass(frozen=True, slots=True)
class TopicChange:
    """One thing that was changed: ``before`` is None where there was nothing."""

    topic: str
    field: str  # "topic", "partitions" or the name of a setting
    before: str | None
    after: str


def wanted_config(topic: Topic, replication_factor: int) -> dict[str, str]:
    """The settings that we set of a topic; the broker's own stand for the others."""
    config = {
        "cleanup.policy": "compact" if topic.compacted else "delete",
        "compression.type": "producer",  # the broker stores batches as they come, without work of its own
        "max.message.bytes": str(MESSAGE_MAX_BYTES + _BATCH_OVERHEAD_BYTES),
    }
    if topic.compacted:
        config["segment.bytes"] = str(_STATE_SEGMENT_BYTES)
    elif topic.retention_ms is not None:
        config["retention.ms"] = str(topic.retention_ms)
    if replication_factor >= 3:
        config["min.insync.replicas"] = "2"  # one broker may be away, and acknowledged is still on two
    return config


class TopicAdmin:
    """What can be asked of Kafka about topics and groups. Safe to use from several threads.

    Args:
        settings: where Kafka is, or a connection that is shared with others.
        client_id: how the broker's logs name us.
        patience_s: how long Kafka may be away before a call fails.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        client_id: str = "tidewarden-admin",
        patience_s: float = OPERATOR_PATIENCE_S,
        connection: Connection | None = None,
    ) -> None:
        self._connection = connection or Connection(settings, client_id, patience_s=patience_s)
        self._replication_factor = settings.replication_factor
        self._client = AdminClient(self._connection.config())

    def apply(self, topics: Iterable[Topic]) -> list[TopicChange]:
        """Make what is missing, grow what has too few partitions, mend settings; returns what was changed.

        Raises ValueError for a topic that has more partitions than asked for, since Kafka cannot take any away.
        """
        wanted = list(topics)
        existing = self.describe([topic.name for topic in wanted])
        for topic in wanted:
            found = existing.get(topic.name)
            if found is not None and found.partitions > topic.partitions:
                raise ValueError(
                    f"topic {topic.name} has {found.partitions} partitions, {topic.partitions} are asked for: Kafka "
                    f"cannot take partitions away, so set partitions to {found.partitions} or delete the topic"
                )
        changes = self._create([topic for topic in wanted if topic.name not in existing])
        present = [(topic, existing[topic.name]) for topic in wanted if topic.name in existing]
        changes += self._grow([(t, found) for t, found in present if found.partitions < t.partitions])
        return changes + self._mend(present)

    def create_missing(self, topics: Iterable[Topic]) -> list[TopicChange]:
        """Make what is missing and touch nothing else; ValueError where one exists with fewer partitions."""
        wanted = list(topics)
        existing = self.partitions([topic.name for topic in wanted])
        for topic in wanted:
            found = existing.get(topic.name, topic.partitions)
            if found < topic.partitions:
                raise ValueError(
                    f"topic {topic.name} has {found} partitions, {topic.partitions} are asked for: the operator grows "
                    f"it, or do it yourself: kafka-topics.sh --alter --partitions {topic.partitions}"
                )
        return self._create([topic for topic in wanted if topic.name not in existing])

    def partitions(self, names: Iterable[str]) -> dict[str, int]:
        """Number of partitions of those topics that exist."""
        return {name: len(found.partitions) for name, found in self._found(names).items()}

    def describe(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Those of the topics that exist, as they are."""
        found = self._found(names)
        if not found:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in found]
        answers = self._ask(lambda t: self._client.describe_configs(resources, request_timeout=t))
        states = {}
        for resource, entries in answers.items():
            config = {name: entry.value for name, entry in entries.items() if _is_own(entry)}
            partitions = found[resource.name].partitions
            replicas = min(len(one.replicas) for one in partitions)
            states[resource.name] = TopicState(resource.name, len(partitions), replicas, config)
        return states

    def names(self, prefix: str) -> list[str]:
        """Names of the topics that begin with ``prefix``, sorted."""
        names = self._connection.patiently(lambda t: self._client.list_topics(timeout=t)).topics
        # A client goes on telling for a while of topics that are gone: asked by name it does not.
        return sorted(self._found(name for name in names if name.startswith(prefix)))

    def delete(self, names: Collection[str]) -> list[str]:
        """Remove topics with all that is in them; returns those that were there."""
        there = list(self._found(names))
        if there:
            self._ask(
                lambda t: self._client.delete_topics(there, operation_timeout=t, request_timeout=t),
                fine={KafkaError.UNKNOWN_TOPIC_OR_PART},
            )
            self._await(dict.fromkeys(there, 0))
        return there

    def delete_groups(self, groups: Collection[str]) -> list[str]:
        """Forget the committed offsets of groups that nobody is a member of; returns those that were there."""
        if not groups:
            return []
        fine = {KafkaError.GROUP_ID_NOT_FOUND}
        names = list(groups)
        return sorted(self._ask(lambda t: self._client.delete_consumer_groups(names, request_timeout=t), fine=fine))

    def ends(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition of the topics will get; KeyError where one is missing."""
        return self._offsets(topics, OffsetSpec.latest())

    def starts(self, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """The offset of the oldest record that each partition still has; KeyError where a topic is missing."""
        return self._offsets(topics, OffsetSpec.earliest())

    def committed(self, group: str, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """What a group has committed of the topics; partitions without a commit are left out."""
        counts = self.partitions(topics)
        places = [KafkaPlace(name, number) for name, count in counts.items() for number in range(count)]
        if not places:
            return {}
        # By a reader that never joins: the administrative request for this crashes the client (2.16, a null pointer)
        # as soon as the group's coordinator answers with an error, as it does while a broker starts.
        reader = Consumer(self._connection.config(group_id=group, enable_auto_commit=False))
        try:
            found = self._connection.patiently(lambda t: reader.committed(places, t))
        finally:
            reader.close()
        return {TopicPartition(place.topic, place.partition): place.offset for place in found if place.offset >= 0}

    def lag(self, group: str, topics: Iterable[str]) -> dict[TopicPartition, int]:
        """Records of each partition that the group has not committed yet."""
        names = list(topics)
        ends, starts, committed = self.ends(names), self.starts(names), self.committed(group, names)
        return {place: end - min(end, max(starts[place], committed.get(place, 0))) for place, end in ends.items()}

    # --- steps -------------------------------------------------------------------------------------

    def _create(self, topics: list[Topic]) -> list[TopicChange]:
        if not topics:
            return []
        copies = self._replication_factor
        new = [NewTopic(t.name, t.partitions, copies, config=wanted_config(t, copies)) for t in topics]
        made = self._ask(
            lambda t: self._client.create_topics(new, operation_timeout=t, request_timeout=t),
            fine={KafkaError.TOPIC_ALREADY_EXISTS},  # another process was faster
        )
        self._await({topic.name: topic.partitions for topic in topics})
        return [TopicChange(t.name, "topic", None, f"{t.partitions} partitions") for t in topics if t.name in made]

    def _grow(self, topics: list[tuple[Topic, TopicState]]) -> list[TopicChange]:
        if not topics:
            return []
        new = [NewPartitions(topic.name, topic.partitions) for topic, _ in topics]
        self._ask(lambda t: self._client.create_partitions(new, operation_timeout=t, request_timeout=t))
        self._await({topic.name: topic.partitions for topic, _ in topics})
        return [TopicChange(t.name, "partitions", str(found.partitions), str(t.partitions)) for t, found in topics]

    def _mend(self, topics: list[tuple[Topic, TopicState]]) -> list[TopicChange]:
        changes: list[TopicChange] = []
        for topic, found in topics:
            wanted = wanted_config(topic, min(found.replicas, self._replication_factor))
            changes += [
                TopicChange(topic.name, name, found.config.get(name), value)
                for name, value in wanted.items()
                if found.config.get(name) != value
            ]
        if not changes:
            return []
        resources = [
            ConfigResource(
                ResourceType.TOPIC,
                name,
                incremental_configs=[
                    ConfigEntry(change.field, change.after, incremental_operation=AlterConfigOpType.SET)
                    for change in changes
                    if change.topic == name
                ],
            )
            for name in dict.fromkeys(change.topic for change in changes)
        ]
        self._ask(lambda t: self._client.incremental_alter_configs(resources, request_timeout=t))
        return changes

    def _await(self, partitions: Mapping[str, int]) -> None:
        """Wait until brokers tell of what their controller has done, so that the next question is answered by it."""

        def look(_timeout_s: float) -> None:
            found = self.partitions(partitions)
            if any(found.get(name, 0) != count for name, count in partitions.items()):
                raise KafkaException(KafkaError(KafkaError._UNKNOWN_PARTITION))

        self._connection.patiently(look)

    # --- questions ---------------------------------------------------------------------------------

    def _found(self, names: Iterable[str]) -> dict[str, Any]:
        wanted = list(dict.fromkeys(names))
        if not wanted:
            return {}
        # Not list_topics(name): on many a broker that would make the topic.
        return self._ask(
            lambda t: self._client.describe_topics(TopicCollection(wanted), request_timeout=t),
            fine={KafkaError.UNKNOWN_TOPIC_OR_PART},
        )

    def _offsets(self, topics: Iterable[str], which: OffsetSpec) -> dict[TopicPartition, int]:
        names = list(dict.fromkeys(topics))
        counts = self.partitions(names)
        for name in names:
            if name not in counts:
                raise KeyError(f"no topic {name}: create it first")
        request = {KafkaPlace(name, number): which for name, count in counts.items() for number in range(count)}
        answers = self._ask(lambda t: self._client.list_offsets(request, request_timeout=t))
        return {TopicPartition(place.topic, place.partition): answer.offset for place, answer in answers.items()}

    def _ask(self, request: Callable[[float], Mapping[Any, Future[Any]]], fine: Collection[int] = ()) -> dict[Any, Any]:
        """The answers by subject, without those whose error is ``fine``; other refusals are a ValueError."""

        def once(timeout_s: float) -> dict[Any, Any]:
            answers = {}
            for subject, future in request(timeout_s).items():
                try:
                    answers[subject] = future.result(timeout_s + 1)
                except TimeoutError as error:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from error
                except KafkaException as error:
                    self._client.poll(0)  # says why: a log-in that fails is told of by the callback alone
                    code = error.args[0].code()
                    if code in fine:
                        continue
                    if code in _REFUSED:
                        raise ValueError(f"Kafka refuses {_name(subject)}: {error.args[0].str()}") from error
                    raise
            return answers

        return self._connection.patiently(once)


_REFUSED = {
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.INVALID_REQUEST,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.NON_EMPTY_GROUP,
}


def _is_own(entry: Any) -> bool:
    return bool(entry.value is not None and ConfigSource(entry.source) == ConfigSource.DYNAMIC_TOPIC_CONFIG)


def _name(subject: Any) -> str:
    return str(getattr(subject, "name", None) or getattr(subject, "topic", None) or subject)
