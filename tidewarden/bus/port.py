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


@dataclass(frozen=True, slots=True)
class Undecodable:
    """What stands in a record's place of a value that cannot be read: whoever polls puts it aside and goes on."""

    raw: bytes  # as it lies on the bus
    reason: str  # for people: what is wrong with it


@dataclass(slots=True, eq=False)
class Record:
    """One record as it is read."""

    topic: str
    partition: int
    offset: int
    key: str
    value: Any  # Frame, ScoreFrame, RollupFrame, AnomalyBatch, list[Alert], list[Rejection], or Undecodable
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
        """Records published but not yet polled; never 0 while there are any, or while that cannot be known."""

    def known_lag(self) -> int:
        """The same as far as the reader has heard, for gauges: returns at once, where `lag` may ask the bus and wait.

        At least 1 while nothing has been heard of one of the partitions.
        """

    def close(self) -> None:
        """Leave; blocked publishers no longer wait for this reader. The assignment is not told: this is its wish."""


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
    ) -> int | None:
        """Append; the offset where the bus knows it at once. Blocks while the bus is full; never drops.

        What is published may be under way still: `sync` waits for it. Records of one partition keep their order.
        Raises UndeliveredError where an earlier record cannot be delivered any more.
        """

    def sync(self) -> None:
        """Wait until everything published by now is as safe as this bus makes it; UndeliveredError where it never is.

        To be called before a snapshot is saved that assumes its outputs to be published.
        """

    def consumer(
        self, topics: Sequence[str], group: str, *, member: str | None = None, assignment: Assignment | None = None
    ) -> Consumer:
        """A reader that starts at the group's committed offsets, or at the oldest record.

        Without ``assignment`` it reads all partitions by itself. With it, it shares the partitions with the group's
        other members and is told which are its own; ``member`` is then its name, the same after a restart.
        """

    def ends(self, *topics: str) -> dict[TopicPartition, int]:
        """The offset that the next record of each partition of these topics will get, in one question."""

    def last(self, topic: str, partition: int, producer: str | None = None, since: int = 0) -> Record | None:
        """The newest record of a partition, or of one producer in it (by the header ``producer``).

        It tells a producer how far it had come before it was killed. Only offset, key and headers are
        promised; ``value`` may be None. None where there is no such record from offset ``since`` on; a bus that
        has no index of producers looks no further back.
        """

    def close(self) -> None:
        """Wake everyone who waits, and release files."""


class UndeliveredError(Exception):
    """A record was published and refused for good: end the process, its next start publishes it again."""


class BusClosedError(Exception):
    """The bus was closed while waiting: the process is ending."""
