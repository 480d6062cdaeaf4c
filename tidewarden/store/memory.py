"""The memory store: the same answers as the embedded one, from lists and arrays, gone with the process.

Bounded: of readings, scores and rollups the oldest-written rows fall out beyond ``max_rows`` each, of
anomalies, alerts and rejections the oldest-written beyond ``max_events`` each.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from tidewarden.bus.port import TopicPartition
from tidewarden.events import Alert, Anomaly, Feedback, Rejection
from tidewarden.store.dimensions import Dimension, SeriesIds, StoredDetector, StoredScope, StoredSeries
from tidewarden.store.memory_rows import (
    SCORE_FACTS,
    Columns,
    Rows,
    in_range,
    joined,
    names_fit,
    names_some,
    null,
    ordered,
    overlaps,
    within,
)
from tidewarden.store.port import Acknowledgement, Purgeable, Query, WriteBatch

MAX_ROWS = 2_000_000  # 200 MB of scores
MAX_EVENTS = 100_000

_ROLLUPS = ("timestamp", "score", "children", "peak")
_READINGS_SCHEMA = pa.schema([
    *((name, pa.string()) for name in ("stream", "tenant", "cluster", "node", "metric")),
    ("timestamp", pa.int64()), ("value", pa.float64()), ("label", pa.uint8()), ("detector", pa.string()),
    *((name, pa.float64()) for name in ("anomaly_score", "p_value", "expected", "lower", "upper")),
    ("kind", pa.string()), ("flags", pa.uint8()),
])  # fmt: skip
_SERIES_SCHEMA = pa.schema([
    *((name, pa.string()) for name in ("stream", "tenant", "cluster", "node", "metric")),
    ("readings", pa.int64()), ("first", pa.int64()), ("last", pa.int64()), ("last_value", pa.float64()),
])  # fmt: skip
_ROLLUP_SCHEMA = pa.schema([
    *((name, pa.string()) for name in ("detector", "tenant", "cluster", "node")),
    ("timestamp", pa.int64()), ("score", pa.float64()), ("children", pa.int32()), ("peak", pa.float64()),
])  # fmt: skip


class MemoryStore:
    """A `Store` in plain Python, for tests and for looking at one run.

    Args:
        max_rows: readings, scores and rollup rows kept, each.
        max_events: anomalies, alerts and rejections kept, each.
    """

    def __init__(self, max_rows: int = MAX_ROWS, max_events: int = MAX_EVENTS) -> None:
        self._lock = threading.RLock()
        self._max_events = max_events
        self._rows = {name: Rows(max_rows) for name in ("readings", "scores", "rollups")}
        self._anomalies: dict[str, Anomaly] = {}
        self._alerts: dict[str, Alert] = {}
        self._rejected: dict[str, Rejection] = {}
        self._feedback: dict[str, Feedback] = {}
        self._acknowledgements: dict[str, Acknowledgement] = {}
        self._offsets: dict[str, dict[TopicPartition, int]] = {}
        self._series: Dimension[StoredSeries] = Dimension()
        self._detectors: Dimension[StoredDetector] = Dimension()
        self._scopes: Dimension[StoredScope] = Dimension()
        self._series_ids = SeriesIds(self._series)

    # Writing -----------------------------------------------------------------------------------------

    def write(self, batch: WriteBatch) -> None:
        """Write all of ``batch``: what could fail is done before anything is changed."""
        with self._lock:
            chunks = [*self._reading_chunks(batch), *self._score_chunks(batch), *self._rollup_chunks(batch)]
            for name, columns in chunks:
                self._rows[name].append(columns)
            self._upsert(self._anomalies, batch.anomalies)
            self._upsert(self._alerts, batch.alerts)
            for rejection in batch.rejected:
                self._rejected.setdefault(rejection.id, rejection)
            self._bound(self._rejected)
            for feedback in batch.feedback:
                self._feedback.setdefault(feedback.id, feedback)
            self._bound(self._feedback)
            self._offsets.setdefault(batch.stream, {}).update(batch.offsets)

    def _reading_chunks(self, batch: WriteBatch) -> Iterable[tuple[str, Columns]]:
        for frame in batch.readings:
            label = np.zeros(len(frame), np.uint8) if frame.label is None else frame.label
            yield (
                "readings",
                {
                    "series": self._series_ids.translate(batch.stream, frame.table, frame.series),
                    "timestamp": frame.timestamp.copy(),
                    "value": frame.value.copy(),
                    "label": label.copy(),
                    "labelled": np.full(len(frame), frame.label is not None),
                },
            )

    def _score_chunks(self, batch: WriteBatch) -> Iterable[tuple[str, Columns]]:
        for frame in batch.scores:
            detector = self._detectors.id_of(StoredDetector(batch.stream, frame.detector, frame.model_version))
            yield (
                "scores",
                {
                    "series": self._series_ids.translate(batch.stream, frame.table, frame.series),
                    "detector": np.full(len(frame), detector, np.int32),
                    **{name: getattr(frame, name).copy() for name in SCORE_FACTS},
                },
            )

    def _rollup_chunks(self, batch: WriteBatch) -> Iterable[tuple[str, Columns]]:
        for frame in batch.rollups:
            ids = [self._scopes.id_of(StoredScope(batch.stream, frame.detector, *scope)) for scope in frame.scopes]
            yield (
                "rollups",
                {
                    "scope": np.array(ids, np.int32)[frame.scope],
                    **{name: getattr(frame, name).copy() for name in _ROLLUPS},
                },
            )

    def _upsert(self, kept: dict[str, Any], events: Iterable[Anomaly | Alert]) -> None:
        for event in events:
            known = kept.get(event.id)
            if known is None or event.revision > known.revision:
                kept[event.id] = event
        self._bound(kept)

    def _bound(self, kept: dict[str, Any]) -> None:
        while len(kept) > self._max_events:
            del kept[next(iter(kept))]

    def acknowledge(self, acknowledgement: Acknowledgement) -> bool:
        """Record it, in place of an earlier one; false where no alert has that id."""
        with self._lock:
            if acknowledgement.alert_id not in self._alerts:
                return False
            self._acknowledgements[acknowledgement.alert_id] = acknowledgement
            return True

    def purge(self, purpose: Purgeable, stream: str, before: int) -> int:
        """Retention: remove what is older than ``before`` (ms since the epoch); how many rows went."""
        with self._lock:
            if purpose in self._rows:
                keys: list[Any] = self._scopes.keys if purpose == "rollups" else self._series.keys
                column = "scope" if purpose == "rollups" else "series"
                of_stream = np.array([key.stream == stream for key in keys], bool)
                return self._rows[purpose].remove(lambda c: (c["timestamp"] < before) & of_stream[c[column]])
            kept, age = self._events(purpose)
            old = [key for key, event in kept.items() if event.stream == stream and age(event) < before]
            for key in old:
                del kept[key]
                self._acknowledgements.pop(key, None)
            return len(old)

    def _events(self, purpose: Purgeable) -> tuple[dict[str, Any], Callable[[Any], int]]:
        if purpose == "anomalies":
            return self._anomalies, lambda event: int(event.end)
        if purpose == "alerts":
            return self._alerts, lambda event: int(event.updated_at)
        if purpose == "feedback":
            return self._feedback, lambda event: int(event.at_ms)
        return self._rejected, lambda event: int(event.received_at)

    def close(self) -> None:
        """Nothing to release."""

    # Reading -----------------------------------------------------------------------------------------

    def offsets(self, stream: str) -> dict[TopicPartition, int]:
        """The offsets up to which this store covers the bus."""
        with self._lock:
            return dict(self._offsets.get(stream, {}))

    def readings(self, query: Query) -> pa.Table:
        """Readings with scores where there are any, oldest first, at most ``limit`` newest ones."""
        with self._lock:
            chosen = np.array([names_fit(query, key) for key in self._series.keys], bool)
            detectors = np.array([query.detector in (None, key.detector) for key in self._detectors.keys], bool)
            readings = self._rows["readings"].select(lambda c: chosen[c["series"]] & in_range(query, c["timestamp"]))
            scores = self._rows["scores"].select(
                lambda c: (
                    chosen[c["series"]]
                    & in_range(query, c["timestamp"])
                    & detectors[c["detector"]]
                    & (c["anomaly_score"] >= (-1.0 if query.min_score is None else query.min_score))
                )
            )
            rows = joined(readings, scores, only_scored=query.min_score is not None)
            picked = [(*self._series[row["series"]], row) for row in rows]
            for *_, row in picked:
                detector = row.pop("detector_id")
                row["detector"] = None if detector is None else self._detectors[detector].detector
        newest = sorted(picked, key=lambda p: p[5]["timestamp"], reverse=query.newest_first)[: query.limit]
        newest.sort(key=lambda p: (p[5]["timestamp"], *p[:5], p[5]["detector"] or "\uffff"))
        names = _READINGS_SCHEMA.names[:5]
        return pa.Table.from_pylist(
            [{**dict(zip(names, p[:5], strict=True)), **p[5]} for p in newest], schema=_READINGS_SCHEMA
        )

    def series(self, query: Query) -> pa.Table:
        """One row a series: stream, tenant, cluster, node, metric, readings, first, last, last_value."""
        with self._lock:
            keys = self._series.keys
            fits = [names_fit(query, key) for key in keys]
            rows = self._rows["readings"].select(lambda c: in_range(query, c["timestamp"]))
        found = []
        for number in sorted((n for n, fit in enumerate(fits) if fit), key=lambda n: keys[n])[: query.limit]:
            of = np.zeros(0, np.intp) if rows is None else np.flatnonzero(rows["series"] == number)
            facts: dict[str, Any] = {**keys[number]._asdict(), "readings": len(of)}
            if rows is not None and len(of):
                times = rows["timestamp"][of]
                facts |= {"first": times.min(), "last": times.max()}
                facts["last_value"] = null(rows["value"][of[times.argmax()]])
            found.append(facts)
        return pa.Table.from_pylist(found, schema=_SERIES_SCHEMA)

    def rollups(self, query: Query) -> pa.Table:
        """Rollup rows, oldest first, at most ``limit`` newest ones."""
        rows = self._rollup_rows(query)
        rows.sort(key=lambda row: row["timestamp"], reverse=query.newest_first)
        return self._rollup_table(rows[: query.limit], "timestamp")

    def latest_rollup(self, detector: str | None) -> pa.Table:
        """For each scope its newest rollup row."""
        latest: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in self._rollup_rows(Query(detector=detector)):
            key = (row["stream"], row["detector"], row["tenant"], row["cluster"], row["node"])
            if key not in latest or row["timestamp"] >= latest[key]["timestamp"]:
                latest[key] = row
        return self._rollup_table(list(latest.values()), None)

    def _rollup_rows(self, query: Query) -> list[dict[str, Any]]:
        lowest = -1.0 if query.min_score is None else query.min_score
        with self._lock:
            keys = self._scopes.keys
            fits = [query.detector in (None, key.detector) and names_fit(query, key) for key in keys]
            chosen = np.array(fits, bool)
            rows = self._rows["rollups"].select(
                lambda c: chosen[c["scope"]] & in_range(query, c["timestamp"]) & (c["score"] >= lowest)
            )
        if rows is None:
            return []
        facts = zip(*(rows[name].tolist() for name in ("scope", *_ROLLUPS)), strict=True)
        return [{**keys[scope]._asdict(), **dict(zip(_ROLLUPS, values, strict=True))} for scope, *values in facts]

    def _rollup_table(self, rows: list[dict[str, Any]], first: str | None) -> pa.Table:
        names = ("detector", "tenant", "cluster", "node")
        rows.sort(key=lambda row: (*([row[first]] if first else []), *(row[name] for name in names)))
        return pa.Table.from_pylist(rows, schema=_ROLLUP_SCHEMA)

    def anomalies(self, query: Query) -> list[Anomaly]:
        """Anomalies that overlap the query's range, newest onset first unless the query says otherwise."""
        with self._lock:
            events = list(self._anomalies.values())
        found = [
            event
            for event in events
            if names_fit(query, event)
            and query.detector in (None, event.detector)
            and query.state in (None, event.state)
            and overlaps(query, event.onset, event.end, event.peak_score)
        ]
        return ordered(query, found, lambda event: event.onset)

    def anomaly(self, anomaly_id: str) -> Anomaly | None:
        """One anomaly by id."""
        return self._anomalies.get(anomaly_id)

    def alerts(self, query: Query) -> list[tuple[Alert, Acknowledgement | None]]:
        """Alerts with who acknowledged them, newest first."""
        with self._lock:
            events = list(self._alerts.values())
            noted = dict(self._acknowledgements)
        found = [
            event
            for event in events
            if query.stream in (None, event.stream)
            and query.tenant in (None, event.tenant)
            and query.state in (None, event.state)
            and names_some(query, event.series)
            and overlaps(query, event.started_at, event.updated_at, event.peak_score)
        ]
        return [(event, noted.get(event.id)) for event in ordered(query, found, lambda event: event.started_at)]

    def alert(self, alert_id: str) -> tuple[Alert, Acknowledgement | None] | None:
        """One alert by id."""
        with self._lock:
            found = self._alerts.get(alert_id)
            return None if found is None else (found, self._acknowledgements.get(alert_id))

    def states(self, purpose: Literal["anomalies", "alerts"]) -> dict[str, int]:
        """Number of anomalies or alerts by state."""
        with self._lock:
            return dict(Counter(event.state for event in self._events(purpose)[0].values()))

    def rejected(self, query: Query) -> list[Rejection]:
        """Rejected readings, newest first."""
        with self._lock:
            events = list(self._rejected.values())
        found = [
            event
            for event in events
            if names_fit(query, event)
            and query.reason in (None, event.reason)
            and query.source in (None, event.source)
            and within(query, event.received_at)
        ]
        return ordered(query, found, lambda event: event.received_at)

    def feedback(self, query: Query) -> list[Feedback]:
        """What people said of anomalies, by when they said it."""
        with self._lock:
            events = list(self._feedback.values())
        found = [
            event
            for event in events
            if names_fit(query, event) and query.detector in (None, event.detector) and within(query, event.at_ms)
        ]
        return ordered(query, found, lambda event: event.at_ms)

    def rejected_counts(self, stream: str | None) -> dict[str, int]:
        """Number of rejections kept, by reason."""
        with self._lock:
            reasons = Counter(event.reason for event in self._rejected.values() if stream in (None, event.stream))
        return dict(sorted(reasons.items()))

    def counts(self) -> dict[Purgeable, int]:
        """Rows of each kind in the store."""
        with self._lock:
            return {
                "readings": self._rows["readings"].count,
                "scores": self._rows["scores"].count,
                "rollups": self._rows["rollups"].count,
                "anomalies": len(self._anomalies),
                "alerts": len(self._alerts),
                "rejected": len(self._rejected),
                "feedback": len(self._feedback),
            }
