"""The embedded store's tables.

Facts (readings, scores, rollups) are narrow, without keys or indices: DuckDB's zone maps find a time
range because rows arrive about in time order, and an index would cost more than everything else
together. Dimensions and events are small and keyed.
"""

from __future__ import annotations

from typing import Final

VERSION: Final = 1

TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS series (
    id INTEGER, stream VARCHAR, tenant VARCHAR, cluster VARCHAR, node VARCHAR, metric VARCHAR);
CREATE TABLE IF NOT EXISTS detectors (id INTEGER, stream VARCHAR, detector VARCHAR, model_version VARCHAR);
CREATE TABLE IF NOT EXISTS scopes (
    id INTEGER, stream VARCHAR, detector VARCHAR, tenant VARCHAR, cluster VARCHAR, node VARCHAR);
CREATE TABLE IF NOT EXISTS readings (series INTEGER, timestamp BIGINT, value DOUBLE, label UTINYINT);
CREATE TABLE IF NOT EXISTS scores (
    series INTEGER, detector INTEGER, timestamp BIGINT, value DOUBLE, anomaly_score DOUBLE, p_value DOUBLE,
    expected DOUBLE, lower DOUBLE, upper DOUBLE, kind UTINYINT, flags UTINYINT);
CREATE TABLE IF NOT EXISTS rollups (scope INTEGER, timestamp BIGINT, score DOUBLE, children INTEGER, peak DOUBLE);
CREATE TABLE IF NOT EXISTS anomalies (
    id VARCHAR PRIMARY KEY, revision INTEGER, stream VARCHAR, detector VARCHAR, tenant VARCHAR, cluster VARCHAR,
    node VARCHAR, metric VARCHAR, state VARCHAR, onset BIGINT, until BIGINT, score DOUBLE, payload VARCHAR);
CREATE TABLE IF NOT EXISTS alerts (
    id VARCHAR PRIMARY KEY, revision INTEGER, stream VARCHAR, tenant VARCHAR, state VARCHAR, onset BIGINT,
    until BIGINT, score DOUBLE, series VARCHAR[], payload VARCHAR);
CREATE TABLE IF NOT EXISTS rejected (
    id VARCHAR PRIMARY KEY, stream VARCHAR, source VARCHAR, reason VARCHAR, tenant VARCHAR, cluster VARCHAR,
    node VARCHAR, metric VARCHAR, received_at BIGINT, payload VARCHAR);
CREATE TABLE IF NOT EXISTS feedback (
    id VARCHAR PRIMARY KEY, stream VARCHAR, detector VARCHAR, tenant VARCHAR, cluster VARCHAR, node VARCHAR,
    metric VARCHAR, at_ms BIGINT, payload VARCHAR);
CREATE TABLE IF NOT EXISTS acknowledgements (alert_id VARCHAR PRIMARY KEY, who VARCHAR, noted_at BIGINT, note VARCHAR);
CREATE TABLE IF NOT EXISTS offsets (
    stream VARCHAR, topic VARCHAR, part INTEGER, position BIGINT, PRIMARY KEY (stream, topic, part));
"""

# A newer revision replaces the older one; the same revision again (a replay) changes nothing.
UPSERT_ANOMALIES: Final = """
INSERT INTO anomalies SELECT * FROM incoming ON CONFLICT (id) DO UPDATE SET
    revision = excluded.revision, state = excluded.state, onset = excluded.onset, until = excluded.until,
    score = excluded.score, payload = excluded.payload
WHERE excluded.revision > anomalies.revision"""

UPSERT_ALERTS: Final = """
INSERT INTO alerts SELECT * FROM incoming ON CONFLICT (id) DO UPDATE SET
    revision = excluded.revision, state = excluded.state, onset = excluded.onset, until = excluded.until,
    score = excluded.score, series = excluded.series, payload = excluded.payload
WHERE excluded.revision > alerts.revision"""

INSERT_REJECTED: Final = "INSERT INTO rejected SELECT * FROM incoming ON CONFLICT (id) DO NOTHING"

INSERT_FEEDBACK: Final = "INSERT INTO feedback SELECT * FROM incoming ON CONFLICT (id) DO NOTHING"

UPSERT_OFFSETS: Final = """
INSERT INTO offsets SELECT * FROM incoming
ON CONFLICT (stream, topic, part) DO UPDATE SET position = excluded.position"""
