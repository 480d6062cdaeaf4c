"""The embedded store: one DuckDB file, written by one archive, read by many threads.

Each `write` is one transaction that also holds the bus offsets it covers, so a process that dies in
the middle of it has written nothing of it and reads the same records again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from tidewarden.bus.port import TopicPartition
from tidewarden.events import Alert, Anomaly, Feedback, Rejection
from tidewarden.frames import Frame, RollupFrame, ScoreFrame
from tidewarden.store import embedded_queries as queries
from tidewarden.store import embedded_schema as schema
from tidewarden.store.dimensions import Dimension, SeriesIds, StoredDetector, StoredScope, StoredSeries
from tidewarden.store.port import Acknowledgement, Purgeable, Query, StoreError, WriteBatch

E = TypeVar("E", Anomaly, Alert)


class EmbeddedStore:
    """A `Store` in one DuckDB file.

    Args:
        path: The file, made with its folder if missing; None keeps everything in memory.
        threads: DuckDB's worker threads. Two: the detectors want the cores more than the archive does.
        memory_mb: DuckDB's memory limit; beyond it, it spills beside the file, or into a temporary folder.

    Raises:
        StoreError: The file is held by another process, or was written by a newer version.
    """

    def __init__(self, path: Path | None = None, *, threads: int = 2, memory_mb: int = 1024) -> None:
        self.path = path
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = self._open(threads, memory_mb)
        self._lock = threading.Lock()
        self._prepare()
        self._series: Dimension[StoredSeries] = Dimension(map(StoredSeries._make, self._dimension("series")))
        self._detectors: Dimension[StoredDetector] = Dimension(map(StoredDetector._make, self._dimension("detectors")))
        self._scopes: Dimension[StoredScope] = Dimension(map(StoredScope._make, self._dimension("scopes")))
        self._series_ids = SeriesIds(self._series)

    def _open(self, threads: int, memory_mb: int) -> Any:
        # WAL 256 MB: a checkpoint rewrites the open row groups, so it should be rare; replaying 256 MB
        # after a crash takes about a second.
        config: dict[str, Any] = {
            "threads": threads, "memory_limit": f"{memory_mb}MB", "checkpoint_threshold": "256MB"
        }  # fmt: skip
        if self.path is None:  # DuckDB would spill into a folder .tmp wherever the process was started
            config["temp_directory"] = tempfile.mkdtemp(prefix="tidewarden-")
            weakref.finalize(self, shutil.rmtree, config["temp_directory"], ignore_errors=True)
        try:
            if self.path is not None and not self.path.exists():
                _create(self.path)
            return duckdb.connect(":memory:" if self.path is None else str(self.path), config=config)
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise StoreError(
                    f"cannot open the store {self.path}: {error}; choose another --data-dir or move the file away"
                ) from error
            raise StoreError(
                f"another process holds the store {self.path}: stop it, or choose another --data-dir ({error})"
            ) from error

    def _prepare(self) -> None:
        self._connection.execute(schema.TABLES)
        row = self._connection.execute("SELECT max(version) FROM meta").fetchone()
        if row[0] is None:
            self._connection.execute("INSERT INTO meta VALUES (?)", [schema.VERSION])
        elif row[0] != schema.VERSION:
            self._connection.close()
            raise StoreError(
                f"the store {self.path} has format {row[0]}, this version of Tidewarden reads {schema.VERSION}: "
                "start the version that wrote it, or choose another --data-dir"
            )

    def _dimension(self, table: str) -> list[tuple[str, ...]]:
        rows = self._connection.execute(f"SELECT * FROM {table} ORDER BY id").fetchall()  # noqa: S608 - own names
        return [row[1:] for row in rows]

    # Writing -----------------------------------------------------------------------------------------

    def write(self, batch: WriteBatch) -> None:
        """Write all of ``batch`` with its offsets in one transaction, or nothing."""
        with self._transaction() as cursor:
            self._write_readings(cursor, batch.stream, batch.readings)
            self._write_scores(cursor, batch.stream, batch.scores)
            self._write_rollups(cursor, batch.stream, batch.rollups)
            self._write_dimensions(cursor)
            _insert(cursor, schema.UPSERT_ANOMALIES, _anomaly_table(_newest(batch.anomalies)))
            _insert(cursor, schema.UPSERT_ALERTS, _alert_table(_newest(batch.alerts)))
            _insert(cursor, schema.INSERT_REJECTED, _rejected_table(batch.rejected))
            _insert(cursor, schema.INSERT_FEEDBACK, _feedback_table(batch.feedback))
            _insert(cursor, schema.UPSERT_OFFSETS, _offset_table(batch))

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        """A cursor in a transaction; commits, or rolls back and forgets the ids it gave."""
        with self._lock, self._connection.cursor() as cursor:
            cursor.begin()
            try:
                yield cursor
                cursor.commit()
            except BaseException:
                cursor.rollback()
                for dimension in (self._series, self._detectors, self._scopes):
                    dimension.revert()
                self._series_ids.forget()
                raise
            for dimension in (self._series, self._detectors, self._scopes):
                dimension.settle()

    def _write_readings(self, cursor: Any, stream: str, frames: Sequence[Frame]) -> None:
        frames = [frame for frame in frames if len(frame)]
        if not frames:
            return
        labels = [
            pa.nulls(len(frame), pa.uint8()) if frame.label is None else pa.array(frame.label) for frame in frames
        ]
        table = pa.table(
            {
                "series": np.concatenate([self._series_ids.translate(stream, f.table, f.series) for f in frames]),
                "timestamp": np.concatenate([f.timestamp for f in frames]),
                "value": np.concatenate([f.value for f in frames]),
                "label": pa.concat_arrays(labels),
            }
        )
        _insert(cursor, "INSERT INTO readings SELECT * FROM incoming", table)

    def _write_scores(self, cursor: Any, stream: str, frames: Sequence[ScoreFrame]) -> None:
        frames = [frame for frame in frames if len(frame)]
        if not frames:
            return
        names = ("timestamp", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "kind", "flags")
        detectors = [self._detectors.id_of(StoredDetector(stream, f.detector, f.model_version)) for f in frames]
        columns = {
            "series": np.concatenate([self._series_ids.translate(stream, f.table, f.series) for f in frames]),
            "detector": np.repeat(np.array(detectors, np.int32), [len(f) for f in frames]),
        }
        columns |= {name: np.concatenate([getattr(f, name) for f in frames]) for name in names}
        _insert(cursor, "INSERT INTO scores SELECT * FROM incoming", pa.table(columns))

    def _write_rollups(self, cursor: Any, stream: str, frames: Sequence[RollupFrame]) -> None:
        frames = [frame for frame in frames if len(frame)]
        if not frames:
            return
        scopes = []
        for frame in frames:
            ids = [self._scopes.id_of(StoredScope(stream, frame.detector, *scope)) for scope in frame.scopes]
            scopes.append(np.array(ids, np.int32)[frame.scope])
        columns = {"scope": np.concatenate(scopes)}
        columns |= {
            name: np.concatenate([getattr(f, name) for f in frames])
            for name in ("timestamp", "score", "children", "peak")
        }
        _insert(cursor, "INSERT INTO rollups SELECT * FROM incoming", pa.table(columns))

    def _write_dimensions(self, cursor: Any) -> None:
        for name, dimension in (("series", self._series), ("detectors", self._detectors), ("scopes", self._scopes)):
            added = dimension.added()
            if added:
                ids = pa.array([i for i, _ in added], pa.int32())
                texts = [pa.array(column, pa.string()) for column in zip(*(key for _, key in added), strict=True)]
                table = pa.table([ids, *texts], names=[f"c{i}" for i in range(len(texts) + 1)])
                _insert(cursor, f"INSERT INTO {name} SELECT * FROM incoming", table)  # noqa: S608 - own names

    def acknowledge(self, acknowledgement: Acknowledgement) -> bool:
        """Record it, in place of an earlier one; false where no alert has that id."""
        a = acknowledgement
        with self._transaction() as cursor:
            if cursor.execute("SELECT 1 FROM alerts WHERE id = ?", [a.alert_id]).fetchone() is None:
                return False
            cursor.execute(
                "INSERT INTO acknowledgements VALUES (?, ?, ?, ?) ON CONFLICT (alert_id) "
                "DO UPDATE SET who = excluded.who, noted_at = excluded.noted_at, note = excluded.note",
                [a.alert_id, a.by, a.at, a.note],
            )
        return True

    def purge(self, purpose: Purgeable, stream: str, before: int) -> int:
        """Retention: remove what is older than ``before`` (ms since the epoch); how many rows went."""
        with self._transaction() as cursor:
            removed = cursor.execute(queries.PURGE[purpose], [stream, before]).fetchone()
            if purpose == "alerts":
                cursor.execute("DELETE FROM acknowledgements WHERE alert_id NOT IN (SELECT id FROM alerts)")
        return int(removed[0])

    def close(self) -> None:
        """Write the WAL into the file and let go of it."""
        with self._lock:
            self._connection.close()

    # Reading: each call has a cursor of its own, so threads neither wait for one another nor for a write

    def _table(self, statement: queries.Statement) -> pa.Table:
        with self._connection.cursor() as cursor:
            return cursor.sql(statement.text, params=statement.parameters).to_arrow_table()

    def _rows(self, statement: queries.Statement) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            rows: list[tuple[Any, ...]] = cursor.execute(statement.text, statement.parameters).fetchall()
            return rows

    def offsets(self, stream: str) -> dict[TopicPartition, int]:
        """The offsets up to which this store covers the bus."""
        rows = self._rows(queries.Statement("SELECT topic, part, position FROM offsets WHERE stream = ?", [stream]))
        return {TopicPartition(topic, partition): position for topic, partition, position in rows}

    def readings(self, query: Query) -> pa.Table:
        """Readings with scores where there are any, oldest first, at most ``limit`` newest ones."""
        return queries.name_kinds(self._table(queries.readings(query)))

    def series(self, query: Query) -> pa.Table:
        """One row a series: stream, tenant, cluster, node, metric, readings, first, last, last_value."""
        return self._table(queries.series(query))

    def rollups(self, query: Query) -> pa.Table:
        """Rollup rows, oldest first, at most ``limit`` newest ones."""
        return self._table(queries.rollups(query))

    def latest_rollup(self, detector: str | None) -> pa.Table:
        """For each scope its newest rollup row."""
        return self._table(queries.latest_rollup(detector))

    def anomalies(self, query: Query) -> list[Anomaly]:
        """Anomalies that overlap the query's range, newest onset first unless the query says otherwise."""
        rows = self._rows(queries.anomalies(query))
        return [msgspec.json.decode(payload, type=Anomaly) for (payload,) in rows]

    def anomaly(self, anomaly_id: str) -> Anomaly | None:
        """One anomaly by id."""
        rows = self._rows(queries.Statement("SELECT payload FROM anomalies WHERE id = ?", [anomaly_id]))
        return msgspec.json.decode(rows[0][0], type=Anomaly) if rows else None

    def alerts(self, query: Query) -> list[tuple[Alert, Acknowledgement | None]]:
        """Alerts with who acknowledged them, newest first."""
        return [_alert(*row) for row in self._rows(queries.alerts(query))]

    def alert(self, alert_id: str) -> tuple[Alert, Acknowledgement | None] | None:
        """One alert by id."""
        rows = self._rows(queries.Statement(f"{queries.SELECT_ALERTS} WHERE id = ?", [alert_id]))
        return _alert(*rows[0]) if rows else None

    def states(self, purpose: Literal["anomalies", "alerts"]) -> dict[str, int]:
        """Number of anomalies or alerts by state."""
        return dict(self._rows(queries.STATES[purpose]))

    def rejected(self, query: Query) -> list[Rejection]:
        """Rejected readings, newest first."""
        return [msgspec.json.decode(payload, type=Rejection) for (payload,) in self._rows(queries.rejected(query))]

    def feedback(self, query: Query) -> list[Feedback]:
        """What people said of anomalies, by when they said it."""
        return [msgspec.json.decode(payload, type=Feedback) for (payload,) in self._rows(queries.feedback(query))]

    def rejected_counts(self, stream: str | None) -> dict[str, int]:
        """Number of rejections kept, by reason."""
        text = "SELECT reason, count(*) FROM rejected WHERE ? IS NULL OR stream = ? GROUP BY reason ORDER BY reason"
        return dict(self._rows(queries.Statement(text, [stream, stream])))

    def counts(self) -> dict[Purgeable, int]:
        """Rows of each kind in the store."""
        return dict(self._rows(queries.COUNTS))


def _alert(payload: str, who: str | None, at: int, note: str) -> tuple[Alert, Acknowledgement | None]:
    alert = msgspec.json.decode(payload, type=Alert)
    return alert, None if who is None else Acknowledgement(alert.id, who, at, note)


def _insert(cursor: Any, statement: str, table: pa.Table | None) -> None:
    if table is None or table.num_rows == 0:
        return
    cursor.register("incoming", table)
    try:
        cursor.execute(statement)
    finally:
        cursor.unregister("incoming")


def _newest(events: Iterable[E]) -> list[E]:
    """The newest revision of each id, in order of first appearance: one statement may touch a row once."""
    newest: dict[str, E] = {}
    for event in events:
        known = newest.get(event.id)
        if known is None or event.revision > known.revision:
            newest[event.id] = event
    return list(newest.values())


def _texts(values: Iterable[str | None]) -> pa.Array:
    return pa.array(list(values), pa.string())


def _payload(events: Iterable[msgspec.Struct]) -> pa.Array:
    return _texts(msgspec.json.encode(event).decode() for event in events)


def _anomaly_table(events: Sequence[Anomaly]) -> pa.Table | None:
    if not events:
        return None
    texts = ("stream", "detector", "tenant", "cluster", "node", "metric", "state")
    return pa.table(
        {
            "id": _texts(e.id for e in events),
            "revision": pa.array([e.revision for e in events], pa.int32()),
            **{name: _texts(getattr(e, name) for e in events) for name in texts},
            "onset": pa.array([e.onset for e in events], pa.int64()),
            "until": pa.array([e.end for e in events], pa.int64()),
            "score": pa.array([e.peak_score for e in events], pa.float64()),
            "payload": _payload(events),
        }
    )


def _alert_table(events: Sequence[Alert]) -> pa.Table | None:
    if not events:
        return None
    return pa.table(
        {
            "id": _texts(e.id for e in events),
            "revision": pa.array([e.revision for e in events], pa.int32()),
            **{name: _texts(getattr(e, name) for e in events) for name in ("stream", "tenant", "state")},
            "onset": pa.array([e.started_at for e in events], pa.int64()),
            "until": pa.array([e.updated_at for e in events], pa.int64()),
            "score": pa.array([e.peak_score for e in events], pa.float64()),
            "series": pa.array([e.series for e in events], pa.list_(pa.string())),
            "payload": _payload(events),
        }
    )


def _rejected_table(events: Sequence[Rejection]) -> pa.Table | None:
    if not events:
        return None
    unique = list({event.id: event for event in events}.values())
    texts = ("id", "stream", "source", "reason", "tenant", "cluster", "node", "metric")
    return pa.table(
        {
            **{name: _texts(getattr(e, name) for e in unique) for name in texts},
            "received_at": pa.array([e.received_at for e in unique], pa.int64()),
            "payload": _payload(unique),
        }
    )


def _feedback_table(events: Sequence[Feedback]) -> pa.Table | None:
    if not events:
        return None
    unique = list({event.id: event for event in events}.values())
    texts = ("id", "stream", "detector", "tenant", "cluster", "node", "metric")
    return pa.table(
        {
            **{name: _texts(getattr(e, name) for e in unique) for name in texts},
            "at_ms": pa.array([e.at_ms for e in unique], pa.int64()),
            "payload": _payload(unique),
        }
    )


def _offset_table(batch: WriteBatch) -> pa.Table | None:
    if not batch.offsets:
        return None
    return pa.table(
        {
            "stream": _texts(batch.stream for _ in batch.offsets),
            "topic": _texts(place.topic for place in batch.offsets),
            "part": pa.array([place.partition for place in batch.offsets], pa.int32()),
            "position": pa.array(list(batch.offsets.values()), pa.int64()),
        }
    )


def _create(path: Path) -> None:
    """Make an empty database beside ``path`` and move it there: a kill on the way leaves no half of one behind."""
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    duckdb.connect(str(fresh)).close()
    os.replace(fresh, path)
