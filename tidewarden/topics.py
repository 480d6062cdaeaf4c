"""Topics: the only place that names, keys and sizes them.

Readings are keyed by node, so that a node's metrics stay together and in order; everything that
follows is keyed by tenant, so that a rollup sees a whole tenant.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
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
    compacted: bool = False  # keeps the newest record of each key, for ever
    retention_ms: int | None = None  # how long records are kept; None: as the bus has it


@dataclass(frozen=True, slots=True)
class StreamTopics:
    """The topics of one MetricStream: ``<namespace>.<stream>.<purpose>``."""

    namespace: str
    stream: str
    partitions: int = 1
    retention_ms: int | None = None

    @property
    def prefix(self) -> str:
        """What the names of all topics of the stream begin with."""
        return f"{self.namespace}.{self.stream}."

    def name(self, purpose: Purpose) -> str:
        """Full name of the topic for ``purpose``."""
        return f"{self.namespace}.{self.stream}.{purpose}"

    def all(self) -> list[Topic]:
        """Every topic of the flow; ``rejected`` needs no order, so one partition does."""
        return [
            Topic(self.name(purpose), 1 if purpose == "rejected" else self.partitions, retention_ms=self.retention_ms)
            for purpose in PURPOSES
        ]

    def state(self, detector: str | None = None) -> Topic:
        """The compacted topic of snapshots: a detector's own, or the one that the stream's other services share.

        A detector's has as many partitions as its input, so that a pod reads only the snapshots that it takes over.
        """
        if detector is None:
            return Topic(f"{self.prefix}state", 1, compacted=True)
        return Topic(f"{self.prefix}{detector}.state", self.partitions, compacted=True)

    def complete(self, detectors: Iterable[str]) -> list[Topic]:
        """Every topic that the stream has in a cluster: the flow, its snapshots, and those of ``detectors``."""
        return [*self.all(), self.state(), *(self.state(detector) for detector in detectors)]


def consumer_group(namespace: str, service: str) -> str:
    """The consumer group of a service: its name, made unique among namespaces that share a Kafka."""
    return f"{namespace}.{service}"


def partition_of(key: NodeKey | str, partitions: int) -> int:
    """Partition of a key: CRC-32 of its path modulo ``partitions``, the same in every process."""
    text = key if isinstance(key, str) else key.path
    return zlib.crc32(text.encode()) % partitions
