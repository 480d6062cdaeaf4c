"""The rollup service: scores in, scores of nodes, clusters and tenants at closed ticks out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tidewarden.bus.port import Record
from tidewarden.frames import ABSENT, IntArray, NodeKey, RollupFrame, ScoreFrame, SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.rollup import combine_segments, peak_segments
from tidewarden.scoring.snapshots import pack, unpack
from tidewarden.scoring.ticks import ClosedTicks, Ticks
from tidewarden.topics import Purpose
from tidewarden_services.contract import Output

SNAPSHOT_FORMAT = "rollup/1"

_ABSENCE_INTERVALS = 2
"""What an incomplete tick waits on top of interval + lateness: the detector says that a reading is absent
when its node has gone *past* that, so one interval later, and the other nodes need one to get there."""


class RollupService:
    """Rolls up the scores of one detector, node → cluster → tenant.

    Rows go out in the order in which ticks close; which rows there are depends on the scores in their
    order alone. The score of a series in a tick is the highest of its readings in it; a series that
    still learns counts as 0.
    """

    reads: Purpose = "scores"

    def __init__(self, detector: AnomalyDetector, stream: MetricStream, table: SeriesTable) -> None:
        self._detector = detector.metadata.name
        self._levels = frozenset(detector.spec.rollup)
        self._interval_ms = stream.spec.interval
        self._table = table
        self._ticks = Ticks(
            table,
            interval_ms=stream.spec.interval,
            wait_ms=(1 + _ABSENCE_INTERVALS) * stream.spec.interval + stream.spec.lateness_ms,
            max_gap=stream.spec.max_gap,
        )
        self._n_nodes = 0
        self._clusters: dict[NodeKey, int] = {}
        self._tenants: dict[NodeKey, int] = {}
        self._cluster_of_node = np.zeros(0, np.int32)
        self._tenant_of_cluster = np.zeros(0, np.int32)

    @property
    def late(self) -> dict[str, int]:
        """Scores that came after their tick had closed, by tenant."""
        return self._ticks.late

    def handle(self, record: Record) -> list[Output]:
        """Take one frame of scores in; frames of other detectors are passed over."""
        scores = record.value
        assert isinstance(scores, ScoreFrame)
        if scores.detector != self._detector or len(scores) == 0:
            return []
        if scores.table is not self._table:
            raise ValueError("the scores belong to another series table than the rollup: decode them into its own")
        absent = (scores.flags & ABSENT) != 0
        closed = self._ticks.observe(scores.series, scores.timestamp, scores.anomaly_score, absent)
        if len(closed.tick) == 0:
            return []
        rollup = self._roll_up(closed)
        return [Output("rollups", record.key, rollup)] if len(rollup) else []

    def _roll_up(self, closed: ClosedTicks) -> RollupFrame:
        """All rows of the ticks that closed: nodes, then clusters, then tenants."""
        self._meet_nodes()
        parts: list[tuple[Sequence[NodeKey], list[npt.NDArray[Any]]]] = []
        closing, scope = closed.closing, self._table.node_of[closed.series]
        score = peak = closed.score
        clusters, tenants = list(self._clusters), list(self._tenants)
        steps: tuple[tuple[str, Sequence[NodeKey], IntArray | None], ...] = (
            ("node", self._table.nodes, None),
            ("cluster", clusters, self._cluster_of_node),
            ("tenant", tenants, self._tenant_of_cluster),
        )
        for level, keys, parent_of in steps:
            scope = scope if parent_of is None else parent_of[scope]
            starts = _starts(closing, scope)
            children = np.diff(starts, append=len(scope)).astype(np.int32)
            score, peak = combine_segments(score, starts), peak_segments(peak, starts)
            closing, scope = closing[starts], scope[starts]
            if level in self._levels:
                parts.append((keys, [scope, closed.tick[closing] * self._interval_ms, score, children, peak]))
        return self._frame(parts)

    def _frame(self, parts: list[tuple[Sequence[NodeKey], list[npt.NDArray[Any]]]]) -> RollupFrame:
        """One frame of several levels, with the scopes that occur in it."""
        scopes: list[NodeKey] = []
        columns: list[list[npt.NDArray[Any]]] = []
        for keys, (scope, *rest) in parts:
            ids, place = np.unique(scope, return_inverse=True)
            columns.append([(place + len(scopes)).astype(np.int32), *rest])
            scopes.extend(keys[int(i)] for i in ids)
        if not columns:
            return RollupFrame(self._detector)
        return RollupFrame(self._detector, scopes, *(np.concatenate(column) for column in zip(*columns, strict=True)))

    def _meet_nodes(self) -> None:
        """Number the clusters and tenants of nodes that the table has learned since."""
        nodes = self._table.nodes[self._n_nodes :]
        if not nodes:
            return
        clusters, tenants = [], []
        for node in nodes:
            cluster = NodeKey(node.tenant, node.cluster, "")
            if cluster not in self._clusters:
                self._clusters[cluster] = len(self._clusters)
                tenants.append(self._tenants.setdefault(NodeKey(node.tenant, "", ""), len(self._tenants)))
            clusters.append(self._clusters[cluster])
        self._n_nodes += len(nodes)
        self._cluster_of_node = np.concatenate([self._cluster_of_node, np.array(clusters, np.int32)])
        self._tenant_of_cluster = np.concatenate([self._tenant_of_cluster, np.array(tenants, np.int32)])

    def join(self, records: list[Record]) -> ScoreFrame:
        """Scores of one instant from several instances, in the order of time.

        An instance's scores of an hour would otherwise close the ticks that another's of the same hour belong to.
        Late scores stay behind what came before them, so however the readings were cut, ticks hold the same.
        """
        frames = [record.value for record in records]
        time = np.concatenate([np.maximum.accumulate(frame.timestamp) for frame in frames])
        return ScoreFrame.concat(frames).take(np.argsort(time, kind="stable"))

    def close(self) -> None:
        """Nothing is said of it anywhere."""

    def snapshot(self) -> bytes:
        """Open ticks, by the names of tenants and series; checksummed and compressed, no pickles."""
        names, arrays = self._ticks.snapshot()
        return pack({**self._identity(), **names}, arrays)

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        header, arrays = unpack(state)
        for name, mine in self._identity().items():
            if header.get(name) != mine:
                raise ValueError(
                    f"the rollup snapshot has {name} {header.get(name)!r}, this rollup {mine!r}: "
                    "start without the snapshot"
                )
        self._ticks.restore(header, arrays)

    def _identity(self) -> dict[str, Any]:
        return {"format": SNAPSHOT_FORMAT, "detector": self._detector, "interval_ms": self._interval_ms}


def _starts(closing: IntArray, scope: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Where a new family begins: rows are ordered by closing, and by name within it."""
    fresh = np.ones(len(scope), np.bool_)
    fresh[1:] = (closing[1:] != closing[:-1]) | (scope[1:] != scope[:-1])
    return np.flatnonzero(fresh).astype(np.int64)
