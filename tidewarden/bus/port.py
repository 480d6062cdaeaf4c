"""The bus port: topics of ordered, keyed partitions, read by offset. `memory` and `kafka` implement it.

Semantics are Kafka's, because that is what runs in a cluster: at-least-once, order within a
partition, offsets owned by the reader. Values are objects of `codec.py`'s kinds; whether they are
encoded on the way is the adapter's business.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from tidewarden.topics import Topic


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


@dataclass(slots=True, eq=False)
class Record:
    """One record as it is read."""

    topic: str
    partition: int
    offset: int
    key: str
    value: Any  # Frame, ScoreFrame, RollupFrame, AnomalyBatch, list[Alert], list[Rejection]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def place(self) -> TopicPartition:
        """The partition it came from."""
        return TopicPartition(self.topic, self.partition)


class Assignment(Protocol):
    """Whoever has state for each partition that it reads; called by `Consumer.poll`, in its thread."""

    def assigned(self, places: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """These are ours from now on: where to begin in them, where that is not the group's commit."""

    def revoked(self, places: Collection[TopicPartition]) -> None:
        """These are ours until this returns: take snapshots, commit, let go."""

    def lost(self, places: Collection[TopicPartition]) -> None:
        """These have gone to another member already: let go without writing anything."""


class Consumer(Protocol):
    """A reader of one or several topics on behalf of a group."""

    def poll(self, max_records: int, timeout: float) -> list[Record]:
        """Up to ``max_records`` records, in order per partition; empty after ``timeout`` seconds."""

    def seek(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Read on from these offsets; partitions not named stay where they are."""

    def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Everything before these offsets is dealt with and need not be kept for this group."""

    def lag(self) -> int:
        """Records published but not yet polled."""

    def close(self) -> None:
        """Leave; blocked publishers no longer wait for this reader."""


class Bus(Protocol):
    """Where rooms meet."""

    def create(self, topics: Iterable[Topic]) -> None:
        """Make sure that the topics exist; raises ValueError where one exists with fewer partitions."""

    def publish(
        self,
        topic: str,
        value: Any,
        *,
        key: str,
        partition: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Append and return the offset. Blocks while a reader is too far behind; never drops."""

    def consumer(
        self, topics: Sequence[str], group: str, *, member: str | None = None, assignment: Assignment | None = None
    ) -> Consumer:
        """A reader that starts at the group's committed offsets, or at the oldest record.

        Without ``assignment`` it reads all partitions by itself. With it, it shares the partitions with the group's
        other members and is told which are its own; ``member`` is then its name, the same after a restart.
        """

    def ends(self, topic: str) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition will get."""

    def last(self, topic: str, partition: int, producer: str | None = None, since: int = 0) -> Record | None:
        """The newest record of a partition, or of one producer in it (by the header ``producer``).

        It tells a producer how far it had come before it was killed. Only offset, key and headers are
        promised; ``value`` may be None. None where there is no such record from offset ``since`` on; a bus that
        has no index of producers looks no further back.
        """

    def close(self) -> None:
        """Wake everyone who waits, and release files."""


class BusClosedError(Exception):
    """The bus was closed while waiting: the process is ending."""
