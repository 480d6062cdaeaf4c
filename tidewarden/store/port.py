"""The store port: where everything is written down for people and the API to read.

Writing happens in one place, the archive service, in batches that carry the bus offsets they cover.
A store either makes the write and the offsets one transaction (embedded) or writes under
deterministic ids (Elasticsearch); either way a replay changes nothing.
Reading is for the API, the page and evaluation. Detect never reads the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import pyarrow as pa

from tidewarden.bus.port import TopicPartition
from tidewarden.events import Alert, Anomaly, Feedback, Rejection
from tidewarden.frames import Frame, RollupFrame, ScoreFrame

Purgeable = Literal["readings", "scores", "rollups", "anomalies", "alerts", "rejected", "feedback"]


@dataclass(slots=True, eq=False)
class WriteBatch:
    """Everything written at once, and the offsets up to which it covers the bus."""

    stream: str
    readings: list[Frame] = field(default_factory=list)
    scores: list[ScoreFrame] = field(default_factory=list)
    rollups: list[RollupFrame] = field(default_factory=list)
    anomalies: list[Anomaly] = field(default_factory=list)
    alerts: list[Alert] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    feedback: list[Feedback] = field(default_factory=list)
    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """What a reader wants to see; None means "any". Times are ms since the epoch, ``until`` exclusive."""

    stream: str | None = None
    tenant: str | None = None
    cluster: str | None = None
    node: str | None = None
    metric: str | None = None
    detector: str | None = None
    since: int | None = None
    until: int | None = None
    min_score: float | None = None
    state: str | None = None
    reason: str | None = None
    source: str | None = None
    limit: int = 100
    newest_first: bool = True


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Somebody has taken note of an alert."""

    alert_id: str
    by: str
    at: int
    note: str = ""


class Store(Protocol):
    """A place to keep readings, scores, rollups, anomalies, alerts and rejections."""

    def write(self, batch: WriteBatch) -> None:
        """Write all of ``batch``. A newer revision of an anomaly or alert replaces the older one.

        A batch that cannot be encoded changes nothing. Where a store has no transactions, one that failed half-way
        (`StoreUnavailableError`) is written again whole, which changes nothing of what is there already.
        """

    def offsets(self, stream: str) -> dict[TopicPartition, int]:
        """The offsets up to which this store covers the bus, for the archive to go on from."""

    def readings(self, query: Query) -> pa.Table:
        """Readings with scores where there are any, oldest first, at most ``limit`` newest ones.

        Columns: stream, tenant, cluster, node, metric, timestamp (int64 ms), value, label (uint8 or null),
        detector, anomaly_score, p_value, expected, lower, upper, kind (string), flags. A reading that
        several detectors scored has a row for each; ``absent`` ones have value null.
        """

    def series(self, query: Query) -> pa.Table:
        """One row a series: stream, tenant, cluster, node, metric, readings, first, last, last_value."""

    def rollups(self, query: Query) -> pa.Table:
        """Rollup rows: detector, tenant, cluster, node ("": all below), timestamp, score, children, peak.

        ``cluster=""`` or ``node=""`` in the query asks for exactly that level.
        """

    def latest_rollup(self, detector: str | None) -> pa.Table:
        """For each scope its newest rollup row."""

    def anomalies(self, query: Query) -> list[Anomaly]:
        """Anomalies, newest onset first unless the query says otherwise; the newest revision of each."""

    def anomaly(self, anomaly_id: str) -> Anomaly | None:
        """One anomaly by id."""

    def alerts(self, query: Query) -> list[tuple[Alert, Acknowledgement | None]]:
        """Alerts with who acknowledged them, newest first."""

    def alert(self, alert_id: str) -> tuple[Alert, Acknowledgement | None] | None:
        """One alert by id."""

    def states(self, purpose: Literal["anomalies", "alerts"]) -> dict[str, int]:
        """Number of anomalies (open, closed) or alerts (pending, firing, resolved) by state."""

    def acknowledge(self, acknowledgement: Acknowledgement) -> bool:
        """Record it; false where no alert has that id."""

    def rejected(self, query: Query) -> list[Rejection]:
        """Rejected readings, newest first."""

    def rejected_counts(self, stream: str | None) -> dict[str, int]:
        """Number of rejections kept, by reason."""

    def feedback(self, query: Query) -> list[Feedback]:
        """All that people said of anomalies, by when they said it, newest first unless the query says otherwise."""

    def counts(self) -> dict[Purgeable, int]:
        """Rows of each kind in the store."""

    def purge(self, purpose: Purgeable, stream: str, before: int) -> int:
        """Retention: remove what is older than ``before`` (ms since the epoch); how many rows went.

        A store may keep a row for longer than that, by at most the days that it keeps together.
        """

    def close(self) -> None:
        """Flush and release."""


class StoreError(Exception):
    """A store cannot be opened or used: says which, why, and the remedy."""


class StoreUnavailableError(StoreError):
    """A store is away, slow or too busy for now: nothing is wrong with what was asked; try again later.

    After a `Store.write` that ended so, a part may have been written; the same batch again changes nothing of it.
    """
