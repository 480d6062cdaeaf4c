"""The archive: everything on a stream's topics, written down in batches that carry their offsets.

It is a sink (`tidewarden_services.sink`), not a service: it publishes nothing. The store says where to
go on after a crash, so each record is written once, whenever the process was killed.
"""

from __future__ import annotations

from typing import Any

from tidewarden.bus.port import Record, TopicPartition, Undecodable
from tidewarden.events import Alert, AnomalyBatch, Feedback, Rejection
from tidewarden.frames import Frame, RollupFrame, ScoreFrame
from tidewarden.resources import MetricStream
from tidewarden.store.port import Purgeable, Store, WriteBatch
from tidewarden.telemetry import Telemetry

# 100,000 rows are 8 MB of scores and about 40 ms of DuckDB: large enough to amortise the commit,
# small enough to stay within the bus's capacity of 400,000 rows.
FLUSH_ROWS = 100_000
# What a person sees on the page is at most this old.
FLUSH_AFTER_S = 0.25
PURGED: tuple[Purgeable, ...] = ("readings", "scores", "rollups", "anomalies", "alerts", "rejected", "feedback")


class ArchiveService:
    """Writes one stream's records to a store.

    Args:
        name: consumer group and label of its metrics, e.g. ``archive.shop``.
        stream: says whether raw readings are kept, and for how long anything is.
        store: written by this archive alone as far as this stream goes.
        telemetry: counts the rows written.
    """

    def __init__(self, name: str, stream: MetricStream, store: Store, telemetry: Telemetry) -> None:
        self.name = name
        self._stream = stream.metadata.name
        self._spec = stream.spec.archive
        self._store = store
        self._stored = telemetry.stored
        self._batch = WriteBatch(self._stream)
        self._offsets: dict[TopicPartition, int] = {}
        self._rows = 0
        self._newest: int | None = None  # event time in ms of the newest reading this process has seen
        self._oldest: float | None = None  # monotonic seconds at which the oldest collected record was first seen

    def start_offsets(self) -> dict[TopicPartition, int]:
        """Where the store's own record says to go on."""
        return self._store.offsets(self._stream)

    def handle(self, records: list[Record]) -> None:
        """Collect; nothing is written before `flush`.

        Raises:
            TypeError: a record is of no kind that belongs on a stream's topics.
        """
        for record in records:
            self._collect(record.value, record.topic)
            self._offsets[record.place] = record.offset + 1

            if isinstance(record.value, Frame | ScoreFrame) and len(record.value):
                self._newest = max(self._newest or 0, int(record.value.timestamp.max()))

    def _collect(self, value: Any, topic: str) -> None:
        batch = self._batch
        if isinstance(value, Undecodable) or (isinstance(value, Frame | ScoreFrame) and len(value) == 0):
            return  # a runner has put it aside (`runtime.py`); or only time, for those who wait for it
        if isinstance(value, Frame):
            if self._spec.readings:
                batch.readings.append(value)
                self._rows += len(value)
        elif isinstance(value, ScoreFrame):
            kept = value if self._spec.readings else value.take(value.kind != 0)
            batch.scores.append(kept)
            self._rows += len(kept)
        elif isinstance(value, RollupFrame):
            batch.rollups.append(value)
            self._rows += len(value)
        elif isinstance(value, AnomalyBatch):
            batch.anomalies += value.anomalies
            self._rows += len(value.anomalies)
        elif isinstance(value, Feedback):
            batch.feedback.append(value)
            self._rows += 1
        elif isinstance(value, list) and all(isinstance(item, Alert | Rejection) for item in value):
            batch.alerts += [item for item in value if isinstance(item, Alert)]
            batch.rejected += [item for item in value if isinstance(item, Rejection)]
            self._rows += len(value)
        else:
            raise TypeError(f"{topic} carries a {type(value).__name__}, which the archive cannot write down")

    def should_flush(self, now: float) -> bool:
        """Whether it is time to write: 100,000 rows, or 0.25 s since this was first asked about them."""
        if not self._offsets:
            return False
        if self._oldest is None:
            self._oldest = now
        return self._rows >= FLUSH_ROWS or now - self._oldest >= FLUSH_AFTER_S

    def flush(self) -> dict[TopicPartition, int]:
        """Write everything collected in one batch and return the offsets it covers; {} if there is nothing.

        If the store refuses, what was collected is kept and the next `flush` tries again.
        """
        if not self._offsets:
            return {}
        batch, offsets = self._batch, self._offsets
        batch.offsets = offsets
        self._store.write(batch)
        self._batch, self._offsets, self._rows, self._oldest = WriteBatch(self._stream), {}, 0, None
        for kind, rows in _rows_by_kind(batch).items():
            if rows:
                self._stored.labels(self._stream, kind).inc(rows)
        return offsets

    def purge(self, now_ms: int) -> None:
        """Retention: remove what is older than ``spec.archive.retention``.

        Age counts from the newest reading or from ``now_ms`` (since the epoch), whichever is earlier: a
        replay of last year's data would otherwise be removed as soon as it is written.
        """
        if self._newest is None:
            return
        before = min(now_ms, self._newest) - self._spec.retention
        for purpose in PURGED:
            self._store.purge(purpose, self._stream, before)


def _rows_by_kind(batch: WriteBatch) -> dict[Purgeable, int]:
    return {
        "readings": sum(len(frame) for frame in batch.readings),
        "scores": sum(len(frame) for frame in batch.scores),
        "rollups": sum(len(frame) for frame in batch.rollups),
        "anomalies": len(batch.anomalies),
        "alerts": len(batch.alerts),
        "rejected": len(batch.rejected),
        "feedback": len(batch.feedback),
    }
