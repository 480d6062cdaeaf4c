"""Anomalies: by filter, by place in the fleet, by id; and those that other systems found."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from tidewarden.events import Anomaly, AnomalyBatch, AnomalyKind, severity_of, stable_id
from tidewarden.resources import MetricStream
from tidewarden.topics import partition_of
from tidewarden_services.api.context import ApiContext, Context, reply
from tidewarden_services.api.parameters import AnomalyFilter, Instant, SourceFilter, Text, store_query
from tidewarden_services.api.problems import ProblemError

router = APIRouter(tags=["anomalies"])

EXTERNAL = "external"
LEVELS = ("tenant", "cluster", "node", "metric")


@router.get("/api/anomalies")
def anomalies(context: Context, parameters: Annotated[AnomalyFilter, Query()]) -> Any:
    """Anomalies that overlap the range, newest onset first."""
    return reply({"anomalies": context.store.anomalies(store_query(parameters))})


@router.get("/api/anomalies/{source:path}")
def anomalies_of(
    context: Context,
    source: Annotated[str, Path(description="tenant[/cluster[/node[/metric]]], or an anomaly's id", max_length=2048)],
    parameters: Annotated[SourceFilter, Query()],
) -> Any:
    """Anomalies of a tenant, cluster, node or series, or the one with that id."""
    parts = source.split("/")
    if len(parts) > len(LEVELS) or not all(parts):
        raise ProblemError(404, f"{source!r} is no source: write tenant, tenant/cluster, … or an anomaly's id")
    if len(parts) == 1:
        one = context.store.anomaly(source)
        if one is not None:
            return reply({"anomalies": [one]})
    scope = dict(zip(LEVELS, parts, strict=False))
    query = store_query(parameters, **scope)
    found = context.store.anomalies(query)
    if not found and context.store.series(replace(query, limit=1)).num_rows == 0:
        raise ProblemError(404, f"no anomaly and no series is called {source!r}; /api/series lists the series")
    return reply({"anomalies": found})


class ExternalFinding(BaseModel):
    """What another system found."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    source: Text = Field(description="tenant/cluster/node")
    metric: Text
    timestamp: Instant = Field(description="ms since the epoch or ISO 8601")
    value: float | None = None
    is_anomaly: bool = True
    anomaly_score: float = Field(1.0, ge=0, le=1)
    anomaly_type: Text = Field("unspecified", description="a kind of anomaly, e.g. spike or level_shift")
    explanation: str | None = Field(None, max_length=2000)


@router.post("/api/alert", status_code=202)
def external(context: Context, finding: ExternalFinding) -> Any:
    """Take in another system's finding; it goes the way of our own, to alerts and receivers.

    The id depends on source, metric and timestamp alone, so a repeated request says the same thing again.
    """
    parts = finding.source.split("/")
    if len(parts) != 3 or not all(parts):
        raise ProblemError(422, f"source = {finding.source!r}: write tenant/cluster/node", field="source")
    stream = _stream_of(context, parts[0])
    if finding.timestamp > context.clock.now_ms() + stream.spec.future:
        raise ProblemError(
            422, f"timestamp = {finding.timestamp}: lies in the future; check the sender's clock", field="timestamp"
        )
    anomaly = _anomaly(stream.metadata.name, parts, finding)
    if finding.is_anomaly:
        topics = context.topics_by_stream[stream.metadata.name]
        batch = AnomalyBatch(detector=EXTERNAL, anomalies=[anomaly], watermarks={})
        partition = partition_of(anomaly.tenant, topics.partitions)
        context.bus.publish(
            topics.name("anomalies"), batch, key=anomaly.tenant, partition=partition, headers={"producer": "api"}
        )
    return reply({"id": anomaly.id, "stream": anomaly.stream, "published": finding.is_anomaly}, 202)


def _stream_of(context: ApiContext, tenant: str) -> MetricStream:
    for stream in context.streams:
        if tenant in stream.spec.tenants and stream.metadata.name in context.topics_by_stream:
            return stream
    known = ", ".join(sorted({t for stream in context.streams for t in stream.spec.tenants})) or "none"
    raise ProblemError(422, f"source: no MetricStream has the tenant {tenant!r}; there are: {known}", field="source")


def _anomaly(stream: str, parts: list[str], finding: ExternalFinding) -> Anomaly:
    try:
        kind = AnomalyKind.parse(finding.anomaly_type)
    except ValueError as error:
        raise ProblemError(422, f"anomaly_type: {error}", field="anomaly_type") from None
    tenant, cluster, node = parts
    value = "" if finding.value is None else f" {finding.value:g}"
    return Anomaly(
        id=stable_id(stream, EXTERNAL, finding.source, finding.metric, finding.timestamp),
        revision=1,
        state="closed",
        stream=stream,
        detector=EXTERNAL,
        model_version=EXTERNAL,
        tenant=tenant,
        cluster=cluster,
        node=node,
        metric=finding.metric,
        onset=finding.timestamp,
        end=finding.timestamp,
        peak_at=finding.timestamp,
        peak_score=finding.anomaly_score,
        p_value=math.pow(10.0, -6.0 * finding.anomaly_score),
        value=finding.value,
        expected=None,
        lower=None,
        upper=None,
        readings=1,
        kind=kind.label,
        direction="none",
        severity=severity_of(finding.anomaly_score),
        node_share=0.0,
        explanation=finding.explanation or f"{finding.metric}{value} reported by another system as {kind.label}",
    )
