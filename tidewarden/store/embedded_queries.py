"""What the embedded store asks DuckDB: pure functions from a `Query` to SQL with parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa

from tidewarden.events import AnomalyKind
from tidewarden.store.port import Purgeable, Query


class Statement(NamedTuple):
    """SQL and its parameters."""

    text: str
    parameters: list[Any]


PURGE: Final[Mapping[Purgeable, str]] = {
    "readings": "DELETE FROM readings WHERE series IN (SELECT id FROM series WHERE stream = ?) AND timestamp < ?",
    "scores": "DELETE FROM scores WHERE series IN (SELECT id FROM series WHERE stream = ?) AND timestamp < ?",
    "rollups": "DELETE FROM rollups WHERE scope IN (SELECT id FROM scopes WHERE stream = ?) AND timestamp < ?",
    "anomalies": "DELETE FROM anomalies WHERE stream = ? AND until < ?",
    "alerts": "DELETE FROM alerts WHERE stream = ? AND until < ?",
    "rejected": "DELETE FROM rejected WHERE stream = ? AND received_at < ?",
    "feedback": "DELETE FROM feedback WHERE stream = ? AND at_ms < ?",
}

COUNTS: Final = Statement(" UNION ALL ".join(f"SELECT '{name}', count(*) FROM {name}" for name in PURGE), [])  # noqa: S608

STATES: Final[Mapping[str, Statement]] = {
    "anomalies": Statement("SELECT state, count(*) FROM anomalies GROUP BY state", []),
    "alerts": Statement("SELECT state, count(*) FROM alerts GROUP BY state", []),
}

SELECT_ALERTS: Final = "SELECT payload, who, noted_at, note FROM alerts LEFT JOIN acknowledgements ON alert_id = id"

# Absent readings have a score row and no reading; where a late reading came after all there are both, so
# the absent row never joins. NaN is how frames say "missing"; readers of the store get null.
# `edge` is the timestamp of the limit-th row from the wanted end: joining only what lies on its near
# side keeps a question for 2,000 rows from joining millions.
_READINGS: Final = """
WITH chosen AS (SELECT * FROM series {chosen}),
r AS (SELECT series, timestamp, value, label FROM readings
      WHERE series IN (SELECT id FROM chosen) {time}),
s AS (SELECT sc.*, d.detector AS detector_name FROM scores sc JOIN detectors d ON sc.detector = d.id
      WHERE series IN (SELECT id FROM chosen) {time} {score}),
edge AS (SELECT {nearest}(
    coalesce((SELECT timestamp FROM {edge_of} ORDER BY timestamp {order} LIMIT 1 OFFSET {last}), {nowhere}),
    coalesce((SELECT timestamp FROM s ORDER BY timestamp {order} LIMIT 1 OFFSET {last}), {nowhere})) AS place),
near_r AS (SELECT * FROM r WHERE timestamp {side} (SELECT place FROM edge)),
near_s AS (SELECT * FROM s WHERE timestamp {side} (SELECT place FROM edge)),
joined AS (
    SELECT coalesce(r.series, s.series) AS series, coalesce(r.timestamp, s.timestamp) AS timestamp,
           coalesce(r.value, s.value) AS value, r.label, s.detector_name AS detector, s.anomaly_score, s.p_value,
           s.expected, s.lower, s.upper, s.kind, s.flags
    FROM near_r r FULL JOIN near_s s
    ON r.series = s.series AND r.timestamp = s.timestamp AND (s.flags & 8) = 0),
picked AS (
    SELECT c.stream, c.tenant, c.cluster, c.node, c.metric, j.timestamp,
           nullif(j.value, 'nan'::DOUBLE) AS value, j.label, j.detector, j.anomaly_score, j.p_value,
           nullif(j.expected, 'nan'::DOUBLE) AS expected, nullif(j.lower, 'nan'::DOUBLE) AS lower,
           nullif(j.upper, 'nan'::DOUBLE) AS upper, j.kind, j.flags
    FROM joined j JOIN chosen c ON j.series = c.id {scored}
    ORDER BY j.timestamp {order} LIMIT {limit})
SELECT * FROM picked ORDER BY timestamp, stream, tenant, cluster, node, metric, detector"""


def readings(query: Query) -> Statement:
    """Readings joined with scores, ordered by time and name."""
    chosen, parameters = _where(query, ("stream", "tenant", "cluster", "node", "metric"))
    time, times = _range(query, "timestamp", "timestamp")
    score, scores = "", list[Any]()
    if query.detector is not None:
        score, scores = "AND d.detector = ?", [query.detector]
    if query.min_score is not None:
        score, scores = score + " AND sc.anomaly_score >= ?", [*scores, query.min_score]
    newest = query.newest_first
    text = _READINGS.format(
        chosen=chosen,
        time=time,
        score=score,
        # With a lowest score the readings without a score are not wanted, so they set no edge.
        edge_of="r" if query.min_score is None else "s",
        scored="" if query.min_score is None else "WHERE j.anomaly_score IS NOT NULL",
        order="DESC" if newest else "ASC",
        nearest="greatest" if newest else "least",
        side=">=" if newest else "<=",
        nowhere=-(2**63) if newest else 2**63 - 1,
        last=max(query.limit, 1) - 1,
        limit=query.limit,
    )
    return Statement(text, [*parameters, *times, *times, *scores])


def series(query: Query) -> Statement:
    """Series with what is known of their readings, in the order of their names."""
    where, parameters = _where(query, ("stream", "tenant", "cluster", "node", "metric"))
    time, times = _range(query, "timestamp", "timestamp")
    text = f"""
        WITH chosen AS (SELECT * FROM series {where}),
        seen AS (SELECT series, count(*) AS readings, min(timestamp) AS first, max(timestamp) AS last,
                 arg_max(value, timestamp) AS last_value FROM readings
                 WHERE series IN (SELECT id FROM chosen) {time} GROUP BY series)
        SELECT stream, tenant, cluster, node, metric, coalesce(readings, 0) AS readings, first, last,
               nullif(last_value, 'nan'::DOUBLE) AS last_value
        FROM chosen c LEFT JOIN seen ON seen.series = c.id
        ORDER BY stream, tenant, cluster, node, metric LIMIT {query.limit}"""  # noqa: S608 - own text, int limit
    return Statement(text, [*parameters, *times])


def rollups(query: Query) -> Statement:
    """Rollup rows, oldest first; the limit counts from the newest unless the query says otherwise."""
    where, parameters = _where(query, ("stream", "tenant", "cluster", "node", "detector"))
    time, times = _range(query, "timestamp", "timestamp")
    if query.min_score is not None:
        time, times = time + " AND score >= ?", [*times, query.min_score]
    text = f"""
        WITH chosen AS (SELECT * FROM scopes {where}),
        picked AS (SELECT detector, tenant, cluster, node, timestamp, score, children, peak
            FROM rollups JOIN chosen ON chosen.id = rollups.scope
            WHERE scope IN (SELECT id FROM chosen) {time}
            ORDER BY timestamp {"DESC" if query.newest_first else "ASC"} LIMIT {query.limit})
        SELECT * FROM picked ORDER BY timestamp, detector, tenant, cluster, node"""  # noqa: S608 - own text, int limit
    return Statement(text, [*parameters, *times])


def latest_rollup(detector: str | None) -> Statement:
    """The newest row of each scope."""
    where = "" if detector is None else "WHERE detector = ?"
    text = f"""
        SELECT s.detector, s.tenant, s.cluster, s.node, max(r.timestamp) AS timestamp,
               arg_max(r.score, r.timestamp) AS score, arg_max(r.children, r.timestamp) AS children,
               arg_max(r.peak, r.timestamp) AS peak
        FROM rollups r JOIN (SELECT * FROM scopes {where}) s ON s.id = r.scope
        GROUP BY s.id, s.detector, s.tenant, s.cluster, s.node
        ORDER BY s.detector, s.tenant, s.cluster, s.node"""  # noqa: S608 - own text
    return Statement(text, [] if detector is None else [detector])


def anomalies(query: Query) -> Statement:
    """Anomalies that overlap the range."""
    fields = ("stream", "tenant", "cluster", "node", "metric", "detector", "state")
    return _events(query, "SELECT payload FROM anomalies", fields, "onset")


def alerts(query: Query) -> Statement:
    """Alerts with their acknowledgement; cluster, node and metric ask for alerts that name such a series."""
    inside, parameters = [], []
    for place, name in ((2, query.cluster), (3, query.node), (4, query.metric)):
        if name is not None:
            inside.append(f"split_part(path, '/', {place}) = ?")
            parameters.append(name)
    extra = f"EXISTS (SELECT 1 FROM unnest(series) AS s(path) WHERE {' AND '.join(inside)})" if inside else ""  # noqa: S608
    return _events(query, SELECT_ALERTS, ("stream", "tenant", "state"), "onset", extra, parameters)


def rejected(query: Query) -> Statement:
    """Rejections by when they were received."""
    where, parameters = _where(query, ("stream", "tenant", "cluster", "node", "metric", "reason", "source"))
    time, times = _range(query, "received_at", "received_at")
    text = f"""SELECT payload FROM rejected {where or "WHERE true"} {time}
        ORDER BY received_at {"DESC" if query.newest_first else "ASC"}, id LIMIT {query.limit}"""  # noqa: S608
    return Statement(text, [*parameters, *times])


def feedback(query: Query) -> Statement:
    """What people said, by when they said it."""
    where, parameters = _where(query, ("stream", "tenant", "cluster", "node", "metric", "detector"))
    time, times = _range(query, "at_ms", "at_ms")
    text = f"""SELECT payload FROM feedback {where or "WHERE true"} {time}
        ORDER BY at_ms {"DESC" if query.newest_first else "ASC"}, id LIMIT {query.limit}"""  # noqa: S608
    return Statement(text, [*parameters, *times])


def _events(
    query: Query,
    select: str,
    fields: tuple[str, ...],
    order_by: str,
    extra: str = "",
    extra_parameters: list[Any] | None = None,
) -> Statement:
    where, parameters = _where(query, fields)
    time, times = _range(query, "until", "onset")
    if query.min_score is not None:
        time, times = time + " AND score >= ?", [*times, query.min_score]
    if extra:
        time, times = f"{time} AND {extra}", [*times, *(extra_parameters or [])]
    direction = "DESC" if query.newest_first else "ASC"
    text = f"{select} {where or 'WHERE true'} {time} ORDER BY {order_by} {direction}, id LIMIT {query.limit}"
    return Statement(text, [*parameters, *times])


def _where(query: Query, fields: tuple[str, ...]) -> tuple[str, list[Any]]:
    given = [(name, getattr(query, name)) for name in fields if getattr(query, name) is not None]
    if not given:
        return "", []
    return "WHERE " + " AND ".join(f"{name} = ?" for name, _ in given), [value for _, value in given]


def _range(query: Query, reaches: str, begins: str) -> tuple[str, list[Any]]:
    """What begins before ``until`` and reaches ``since``: what a chart of that range shows a part of."""
    text, parameters = "", list[Any]()
    if query.since is not None:
        text, parameters = f" AND {reaches} >= ?", [query.since]
    if query.until is not None:
        text, parameters = f"{text} AND {begins} < ?", [*parameters, query.until]
    return text, parameters


def name_kinds(table: pa.Table) -> pa.Table:
    """The same table with ``kind`` as text, null where a reading has no score."""
    labels = pa.array([kind.label for kind in AnomalyKind], pa.string())
    column = table.column("kind")
    place = table.schema.get_field_index("kind")
    return table.set_column(place, "kind", labels.take(column.combine_chunks()))
