"""The shape of every answer, for OpenAPI; the tests decode real answers strictly into these types.

Answers are written straight from events and plain values, so nothing here is in their path.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from tidewarden.events import Alert, Anomaly, Feedback, Rejection
from tidewarden_services.api.problems import PROBLEM


class Document(msgspec.Struct, forbid_unknown_fields=True):
    """Base of every answer."""


class Problem(msgspec.Struct):
    """RFC 9457 problem details; more members may follow."""

    type: str
    title: str
    status: int
    detail: str
    instance: str


class Check(Document):
    """One thing that health depends on."""

    status: Literal["ok", "degraded"]
    detail: str


class Health(Document):
    """Answer of /api/health."""

    status: Literal["ok", "degraded"]
    version: str
    uptime_s: float
    checks: dict[str, Check]


class Latency(Document):
    """From a reading's arrival to its score, over the last minute; null before there is one."""

    p50: float | None
    p99: float | None


class Statistics(Document):
    """Answer of /api/statistics; sources, detectors, simulations and services as they describe themselves."""

    at: int
    uptime_s: float
    readings: int
    readings_per_second: float
    rejected: int
    rejected_by_reason: dict[str, int]
    late: int
    scored: int
    anomalies: int
    anomalies_open: int
    alerts: int
    alerts_firing: int
    lag_records: int
    latency_ms: Latency
    sources: list[dict[str, Any]]
    detectors: list[dict[str, Any]]
    simulations: list[dict[str, Any]]
    policies: list[dict[str, Any]]
    services: list[dict[str, Any]]
    store: dict[str, int]


class Anomalies(Document):
    """Answer of /api/anomalies."""

    anomalies: list[Anomaly]


class Acknowledged(Document):
    """Who took note of an alert, and when (ms since the epoch)."""

    by: str
    at: int
    note: str


class ShownAlert(Alert, kw_only=True, frozen=True):
    """An alert with its acknowledgement or null."""

    acknowledged: Acknowledged | None


class Alerts(Document):
    """Answer of /api/alerts."""

    alerts: list[ShownAlert]


class Finding(Document):
    """Answer of POST /api/alert."""

    id: str
    stream: str
    published: bool


class Said(Document):
    """Answer of /api/v1/feedback."""

    feedback: list[Feedback]


class Rejected(Document):
    """Answer of /api/rejected."""

    rejected: list[Rejection]
    counts: dict[str, int]


class SeriesRow(Document):
    """One series and what is known of its readings."""

    stream: str
    tenant: str
    cluster: str
    node: str
    metric: str
    readings: int
    first: int | None
    last: int | None
    last_value: float | None


class SeriesList(Document):
    """Answer of /api/series."""

    series: list[SeriesRow]


class SeriesName(Document):
    """The name of one series."""

    tenant: str
    cluster: str
    node: str
    metric: str


class Columns(Document):
    """Readings with scores, all lists equally long, oldest first; null: missing, or not scored."""

    timestamp: list[int]
    value: list[float | None]
    anomaly_score: list[float | None]
    p_value: list[float | None]
    expected: list[float | None]
    lower: list[float | None]
    upper: list[float | None]
    kind: list[str | None]


class Readings(Document):
    """Answer of /api/readings."""

    series: SeriesName
    detector: str | None
    detectors: list[str]
    columns: Columns


class Branch(Document):
    """A tenant, cluster, node or metric; contributions of the children add up to the score exactly."""

    name: str
    level: Literal["tenant", "cluster", "node", "metric"]
    score: float
    peak: float
    at: int
    contribution: float
    children: list[Branch] | None = None
    metrics: list[Branch] | None = None
    metric: str | None = None
    value: float | None = None
    expected: float | None = None
    kind: str | None = None


class Rollup(Document):
    """Answer of /api/rollup."""

    detector: str | None
    at: int | None
    tenants: list[Branch]


class Resources(Document):
    """Answer of /api/resources."""

    resources: list[dict[str, Any]]


ANSWERS: dict[tuple[str, str], type[msgspec.Struct]] = {
    ("get", "/api/health"): Health,
    ("get", "/api/statistics"): Statistics,
    ("get", "/api/anomalies"): Anomalies,
    ("get", "/api/anomalies/{source}"): Anomalies,
    ("get", "/api/alerts"): Alerts,
    ("post", "/api/alerts/{alert_id}/acknowledge"): ShownAlert,
    ("post", "/api/alert"): Finding,
    ("post", "/api/v1/anomalies/{anomaly_id}/feedback"): Feedback,
    ("get", "/api/v1/feedback"): Said,
    ("get", "/api/rejected"): Rejected,
    ("get", "/api/series"): SeriesList,
    ("get", "/api/readings"): Readings,
    ("get", "/api/rollup"): Rollup,
    ("get", "/api/resources"): Resources,
}


def describe(app: FastAPI) -> None:
    """Make ``app``'s OpenAPI document say what each answer looks like, problems included."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _with_answers(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _with_answers(document: dict[str, Any]) -> dict[str, Any]:
    types = [*dict.fromkeys(ANSWERS.values()), Problem]
    refs, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    document.setdefault("components", {}).setdefault("schemas", {}).update(components)
    schemas = dict(zip(types, refs, strict=True))
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            responses = operation["responses"]
            responses.pop("422", None)  # FastAPI's own shape, which `problems` replaces
            responses["default"] = {"description": "Problem", "content": {PROBLEM: {"schema": schemas[Problem]}}}
            answer = ANSWERS.get((method, path))
            if answer is not None:
                success = next(code for code in responses if code.startswith("2"))
                responses[success]["content"] = {"application/json": {"schema": schemas[answer]}}
    return document
