"""Health, statistics, metrics, resources, rejected readings."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from tidewarden_services.api.context import Context, reply
from tidewarden_services.api.parameters import RejectedFilter, store_query
from tidewarden_services.api.statistics import Statistics

router = APIRouter()


def _statistics(request: Request) -> Statistics:
    statistics: Statistics = request.app.state.statistics
    return statistics


@router.get("/api/health", tags=["status"])
def health(request: Request) -> Any:
    """Whether everything works; 503 and ``degraded`` name what does not."""
    document = _statistics(request).health()
    return reply(document, 200 if document["status"] == "ok" else 503)


@router.get("/api/statistics", tags=["status"])
def statistics(request: Request) -> Any:
    """Counts, rates, latency, and what each source, detector, simulation and service says of itself."""
    return reply(_statistics(request).read())


@router.get("/metrics", tags=["status"])
def metrics(context: Context) -> Response:
    """Prometheus text of everything the process measures."""
    return Response(generate_latest(context.telemetry.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/api/resources", tags=["status"])
def resources(context: Context) -> Any:
    """The resources that this process runs, as in their YAML."""
    documents = [resource.model_dump(mode="json", by_alias=True, exclude_none=True) for resource in context.resources]
    return reply({"resources": documents})


@router.get("/api/rejected", tags=["readings"])
def rejected(context: Context, parameters: Annotated[RejectedFilter, Query()]) -> Any:
    """Readings that were refused, newest first, with reason, origin and raw form; and how many of each reason."""
    query = store_query(parameters)
    found = context.store.rejected(query)
    return reply({"rejected": found, "counts": context.store.rejected_counts(query.stream)})
