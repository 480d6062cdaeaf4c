"""Topics: the only place that names, keys and sizes them.

Readings are keyed by node, so that a node's metrics stay together and in order; everything that
follows is keyed by tenant, so that a rollup sees a whole tenant.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

from tidewarden.frames import NodeKey

Purpose = Literal["readings", "rejected", "scores", "rollups", "anomalies", "alerts"]
PURPOSES: tuple[Purpose, ...] = ("readings", "rejected", "scores", "rollups", "anomalies", "alerts")


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the bus must have it."""

    name: str
    partitions: int
    compacted: bool = False


@dataclass(frozen=True, slots=True)
class StreamTopics:
    """The topics of one MetricStream: ``<namespace>.<stream>.<purpose>``."""

    namespace: str
    stream: str
    partitions: int = 1

    def name(self, purpose: Purpose) -> str:
        """Full name of the topic for ``purpose``."""
        return f"{self.namespace}.{self.stream}.{purpose}"

    def all(self) -> list[Topic]:
        """Every topic of the flow; ``rejected`` needs no order, so one partition does."""
        return [Topic(self.name(purpose), 1 if purpose == "rejected" else self.partitions) for purpose in PURPOSES]

    def state(self, detector: str | None = None) -> Topic:
        """The compacted topic of snapshots: a detector's own, or the one that the stream's other services share."""
        middle = "" if detector is None else f".{detector}"
        return Topic(f"{self.namespace}.{self.stream}{middle}.state", 1, compacted=True)


def partition_of(key: NodeKey | str, partitions: int) -> int:
    """Partition of a key: CRC-32 of its path modulo ``partitions``, the same in every process."""
    text = key if isinstance(key, str) else key.path
    return zlib.crc32(text.encode()) % partitions
