"""The rollup as a tree that explains itself: each score is the sum of its children's contributions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from tidewarden.store.port import Query as StoreQuery
from tidewarden_services.api.context import ApiContext, Context, reply
from tidewarden_services.api.parameters import RollupFilter
from tidewarden_services.api.problems import ProblemError

router = APIRouter(tags=["rollup"])

MAX_SERIES = 100_000
LEVELS = ("tenant", "cluster", "node", "metric")


def combine(scores: list[float]) -> tuple[float, list[float]]:
    """The score of a parent and what each child contributed to it."""
    total = sum(s * s for s in scores) or 1.0
    score = max(scores, default=0.0)
    return score, [score * s * s / total for s in scores]


@router.get("/api/rollup")
def rollup(context: Context, parameters: Annotated[RollupFilter, Query()]) -> Any:
    """Scores of tenants, clusters, nodes and metrics at one tick, with what each child contributed."""
    latest = context.store.latest_rollup(parameters.detector).to_pylist()
    if parameters.tenant is not None:
        latest = [row for row in latest if row["tenant"] == parameters.tenant]
    detector = parameters.detector or min((row["detector"] for row in latest), default=None)
    if detector is None:
        return reply({"detector": None, "at": None, "tenants": []})
    newest = max((row["timestamp"] for row in latest if row["detector"] == detector), default=None)
    moment = parameters.at if parameters.at is not None else newest
    if moment is None:
        raise ProblemError(404, f"detector = {detector!r}: no rollup of that detector; /api/statistics lists detectors")
    interval = _interval_ms(context, detector)
    at = moment // interval * interval
    query = StoreQuery(
        detector=detector, tenant=parameters.tenant, since=at, until=at + interval, min_score=0.0, limit=MAX_SERIES
    )
    rows = context.store.readings(query).to_pylist()
    leaves: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[level] for level in LEVELS)
        known = leaves.get(key)
        if known is None or row["anomaly_score"] >= known["anomaly_score"]:
            leaves[key] = row
    return reply({"detector": detector, "at": at, "tenants": tree(leaves)})


def tree(leaves: dict[tuple[str, ...], dict[str, Any]]) -> list[dict[str, Any]]:
    """Nested tenants from scored readings by (tenant, cluster, node, metric)."""
    return [_node((tenant,), leaves) for tenant in sorted({key[0] for key in leaves})]


def _node(path: tuple[str, ...], leaves: dict[tuple[str, ...], dict[str, Any]]) -> dict[str, Any]:
    below = {key: row for key, row in leaves.items() if key[: len(path)] == path}
    if len(path) == len(LEVELS) - 1:
        children = [_leaf(key, row) for key, row in sorted(below.items())]
    else:
        names = sorted({key[len(path)] for key in below})
        children = [_node((*path, name), below) for name in names]
    score, contributions = combine([child["score"] for child in children])
    for child, contribution in zip(children, contributions, strict=True):
        child["contribution"] = contribution
    leaf = len(path) == len(LEVELS) - 1
    return {
        "name": path[-1],
        "level": LEVELS[len(path) - 1],
        "score": score,
        "peak": max(child["score"] if leaf else child["peak"] for child in children),
        "at": max(child["at"] for child in children),
        "contribution": score,
        "metrics" if leaf else "children": children,
    }


def _leaf(key: tuple[str, ...], row: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": key[-1],
        "metric": key[-1],
        "level": "metric",
        "score": row["anomaly_score"],
        "contribution": row["anomaly_score"],
        "value": row["value"],
        "expected": row["expected"],
        "kind": row["kind"],
        "at": row["timestamp"],
    }


def _interval_ms(context: ApiContext, detector: str) -> int:
    streams = {stream.metadata.name: stream.spec.interval for stream in context.streams}
    for resource in context.resources:
        if resource.kind == "AnomalyDetector" and resource.metadata.name == detector:
            return streams.get(resource.spec.stream, 60_000)
    return 60_000
