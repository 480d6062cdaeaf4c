"""Frames: readings and scores as columns, the unit in which every room works.

A frame does not carry series names row by row. It carries int32 series ids that point into a
`SeriesTable`, the process's own list of series. Ids are local to one process: on the wire a frame
brings the names of its own series along, and the reader maps them to its own ids (`codec.py`).
Nothing that is published may therefore depend on the value of an id, only on the names behind it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int32]
TimeArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
ByteArray = npt.NDArray[np.uint8]
BoolArray = npt.NDArray[np.bool_]


class SeriesKey(NamedTuple):
    """The name of one series."""

    tenant: str
    cluster: str
    node: str
    metric: str

    @property
    def path(self) -> str:
        """``tenant/cluster/node/metric``, as people write it."""
        return "/".join(self)


class NodeKey(NamedTuple):
    """The name of one node; readings are keyed by it, so that a node's metrics stay together."""

    tenant: str
    cluster: str
    node: str

    @property
    def path(self) -> str:
        """``tenant/cluster/node``."""
        return "/".join(self)


class SeriesTable:
    """The series that one process knows, in the order in which it met them.

    Append-only and safe to read from several threads while one of them adds to it. Each series also
    has a node id, so that a kernel can find the siblings of a series without touching a string.
    """

    def __init__(self, keys: Iterable[SeriesKey] = ()) -> None:
        self._lock = threading.Lock()
        self._keys: list[SeriesKey] = []
        self._ids: dict[SeriesKey, int] = {}
        self._nodes: list[NodeKey] = []
        self._node_ids: dict[NodeKey, int] = {}
        self._node_of = np.zeros(64, np.int32)
        for key in keys:
            self.id_of(key)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, series: int) -> SeriesKey:
        return self._keys[series]

    def id_of(self, key: SeriesKey) -> int:
        """The id of ``key``, given now if it is new."""
        known = self._ids.get(key)
        if known is not None:
            return known
        with self._lock:
            known = self._ids.get(key)
            if known is not None:
                return known
            node_key = NodeKey(key.tenant, key.cluster, key.node)
            node = self._node_ids.get(node_key)
            if node is None:
                node = len(self._nodes)
                self._nodes.append(node_key)
                self._node_ids[node_key] = node
            series = len(self._keys)
            if series == len(self._node_of):
                # A new array, not a resize: readers may hold the old one.
                self._node_of = np.concatenate([self._node_of, np.zeros(series, np.int32)])
            self._node_of[series] = node
            self._keys.append(key)
            self._ids[key] = series  # last: whoever finds the id finds everything behind it
            return series

    def ids_of(self, keys: Iterable[SeriesKey]) -> IntArray:
        """The ids of ``keys`` as an int32 array, new ones given now."""
        return np.fromiter((self.id_of(key) for key in keys), np.int32)

    def find(self, key: SeriesKey) -> int | None:
        """The id of ``key``, or None where it is not known."""
        return self._ids.get(key)

    @property
    def keys(self) -> Sequence[SeriesKey]:
        """All keys; the index is the id."""
        return self._keys

    @property
    def nodes(self) -> Sequence[NodeKey]:
        """All nodes; the index is the node id."""
        return self._nodes

    @property
    def node_of(self) -> IntArray:
        """Node id of each series, shape (len(self),)."""
        return self._node_of[: len(self._keys)]


@dataclass(slots=True, eq=False)
class Frame:
    """Readings as columns, in arrival order; all arrays have shape (n,).

    Attributes:
        table: names behind the ids of ``series``.
        series: series id of each reading, int32.
        timestamp: milliseconds since the epoch, UTC, int64.
        value: float64; NaN means that the reading says "missing".
        label: truth for evaluation only, an `events.AnomalyKind` as uint8 (0 is normal), or None.
    """

    table: SeriesTable
    series: IntArray
    timestamp: TimeArray
    value: FloatArray
    label: ByteArray | None = None

    def __len__(self) -> int:
        return len(self.series)

    def take(self, rows: IntArray | BoolArray | npt.NDArray[np.intp] | slice) -> Frame:
        """The readings at ``rows`` (indices, a mask or a slice), in that order."""
        label = None if self.label is None else self.label[rows]
        return Frame(self.table, self.series[rows], self.timestamp[rows], self.value[rows], label)

    @classmethod
    def concat(cls, frames: Sequence[Frame]) -> Frame:
        """Several frames of one table as one; unlabelled ones count as normal if any has labels."""
        if len(frames) == 1:
            return frames[0]
        table = frames[0].table
        if any(frame.table is not table for frame in frames):
            raise ValueError("frames of different series tables cannot be joined: decode them into one table")
        label = None
        if any(frame.label is not None for frame in frames):
            label = np.concatenate([np.zeros(len(f), np.uint8) if f.label is None else f.label for f in frames])
        return cls(
            table,
            np.concatenate([f.series for f in frames]),
            np.concatenate([f.timestamp for f in frames]),
            np.concatenate([f.value for f in frames]),
            label,
        )

    @classmethod
    def empty(cls, table: SeriesTable) -> Frame:
        """A frame without readings."""
        return cls(table, np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.float64))


# What is noteworthy about a scored reading besides its score; bits of ScoreFrame.flags.
LEARNING = 1  # the model is still warming up: anomaly_score is 0 and p_value 1
MISSING = 2  # there was no value: a null reading, or one that the detector found absent
LATE = 4  # older than the newest reading of its series: scored, not learned from
ABSENT = 8  # together with MISSING: no reading came at all, the detector noticed it itself
ABOVE = 16  # the score passed the detector's threshold


@dataclass(slots=True, eq=False)
class ScoreFrame:
    """What one detector says of each reading; all arrays have shape (n,).

    Readings that the detector found absent appear here too (flags MISSING | ABSENT, value NaN), at the
    place in the order where it noticed, so a score frame can be longer than the frame it answers.

    Attributes:
        table: names behind the ids of ``series``.
        detector: name of the AnomalyDetector.
        model_version: kind and version of the model, as ``auto/1``; of several that answered, as ``auto/1+ewma/1``.
        series: series id, int32.
        timestamp: milliseconds since the epoch, UTC, int64.
        value: the reading, float64, NaN where missing.
        anomaly_score: in [0, 1], ``min(1, -log10(p_value) / 6)``, never NaN.
        p_value: in (0, 1], calibrated on the series' own past.
        expected: what the model expected, NaN while it learns.
        lower: lower end of the expected band, NaN while it learns.
        upper: upper end of the expected band, NaN while it learns.
        kind: an `events.AnomalyKind` as uint8; 0 unless the score passed the threshold.
        flags: bits LEARNING, MISSING, LATE, ABSENT, ABOVE, uint8.
    """

    table: SeriesTable
    detector: str
    model_version: str
    series: IntArray
    timestamp: TimeArray
    value: FloatArray
    anomaly_score: FloatArray
    p_value: FloatArray
    expected: FloatArray
    lower: FloatArray
    upper: FloatArray
    kind: ByteArray
    flags: ByteArray

    def __len__(self) -> int:
        return len(self.series)

    def take(self, rows: IntArray | BoolArray | npt.NDArray[np.intp] | slice) -> ScoreFrame:
        """The scores at ``rows`` (indices, a mask or a slice), in that order."""
        columns = [getattr(self, name)[rows] for name in SCORE_COLUMNS]
        return ScoreFrame(self.table, self.detector, self.model_version, *columns)

    @classmethod
    def concat(cls, frames: Sequence[ScoreFrame]) -> ScoreFrame:
        """Several frames of one detector and table as one, in their order."""
        first = frames[0]
        if len(frames) == 1:
            return first
        columns = [np.concatenate([getattr(frame, name) for frame in frames]) for name in SCORE_COLUMNS]
        versions = dict.fromkeys(v for f in frames if len(f) for v in f.model_version.split("+"))
        return cls(first.table, first.detector, "+".join(versions) or first.model_version, *columns)


SCORE_COLUMNS = (
    "series", "timestamp", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "kind", "flags",
)  # fmt: skip


@dataclass(slots=True, eq=False)
class RollupFrame:
    """Scores of nodes, clusters and tenants at closed ticks; all arrays have shape (n,).

    Attributes:
        detector: name of the AnomalyDetector.
        scopes: distinct (tenant, cluster, node) triples; an empty string means "all of the level below",
            so ("shop", "", "") is the tenant and ("shop", "eu", "") the cluster.
        scope: index into ``scopes``, int32.
        timestamp: start of the tick, milliseconds since the epoch, UTC, int64.
        score: anomaly score of the scope in [0, 1].
        children: number of children that took part, int32.
        peak: highest score among the series below, so that a calm parent never hides a hot child.
    """

    detector: str
    scopes: list[NodeKey] = field(default_factory=list)
    scope: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    timestamp: TimeArray = field(default_factory=lambda: np.zeros(0, np.int64))
    score: FloatArray = field(default_factory=lambda: np.zeros(0, np.float64))
    children: IntArray = field(default_factory=lambda: np.zeros(0, np.int32))
    peak: FloatArray = field(default_factory=lambda: np.zeros(0, np.float64))

    def __len__(self) -> int:
        return len(self.scope)
