"""The rollup as a tree that explains itself: each score is the sum of its children's contributions.

The tree is made of the scores in the store by the same rule as the rollup service makes its rows, so
at a closed tick both say the same, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Query

from tidewarden.resources import AnomalyDetector
from tidewarden.scoring.rollup import combine
from tidewarden.store.port import Query as StoreQuery
from tidewarden_services.api.context import ApiContext, Context, reply
from tidewarden_services.api.parameters import RollupFilter
from tidewarden_services.api.problems import ProblemError

router = APIRouter(tags=["rollup"])

MAX_SERIES = 100_000  # of one tenant in one tick: about a second and 40 MB of JSON
LEVELS = ("tenant", "cluster", "node", "metric")

Row = dict[str, Any]
Fleet = dict[str, Any]  # name → Fleet, and on the lowest level metric → Row


@router.get("/api/rollup")
def rollup(context: Context, parameters: Annotated[RollupFilter, Query()]) -> Any:
    """Scores of tenants, clusters, nodes and metrics at one tick, with what each child contributed.

    Without ``at`` each tenant is shown at its own newest closed tick.
    """
    latest = [
        row
        for row in context.store.latest_rollup(parameters.detector).to_pylist()
        if parameters.tenant in (None, row["tenant"])
    ]
    detector = parameters.detector or min((row["detector"] for row in latest), default=None)
    newest: dict[str, int] = {}
    for row in latest:
        if row["detector"] == detector:
            newest[row["tenant"]] = max(row["timestamp"], newest.get(row["tenant"], row["timestamp"]))
    if detector is None or not newest:
        _check_detector(context, parameters.detector)
        return reply({"detector": detector, "at": None, "tenants": []})
    interval = _interval_ms(context, detector)
    tenants = []
    for tenant, tick in sorted(newest.items()):
        at = tick if parameters.at is None else parameters.at // interval * interval
        tenants += tree(_fleet(context, detector, tenant, at, interval))
    shown_at = max((tenant["at"] for tenant in tenants), default=parameters.at)
    return reply({"detector": detector, "at": shown_at, "tenants": tenants})


def _fleet(context: ApiContext, detector: str, tenant: str, at: int, interval: int) -> Fleet:
    """The highest score of each series in the tick that begins at ``at``, nested by name."""
    query = StoreQuery(
        detector=detector, tenant=tenant, since=at, until=at + interval, min_score=0.0, limit=MAX_SERIES
    )  # fmt: skip
    fleet: Fleet = {}
    for row in context.store.readings(query).to_pylist():
        node = fleet.setdefault(row["tenant"], {}).setdefault(row["cluster"], {}).setdefault(row["node"], {})
        known = node.get(row["metric"])
        if known is None or row["anomaly_score"] > known["anomaly_score"]:
            node[row["metric"]] = row | {"tick": at}
    return fleet


def tree(fleet: Fleet) -> list[Row]:
    """Tenants with everything below them; ``fleet`` is nested tenant → cluster → node → metric → scored reading."""
    return [_branch(tenant, 0, below) for tenant, below in sorted(fleet.items())]


def _branch(name: str, level: int, below: Mapping[str, Any]) -> Row:
    lowest = level == len(LEVELS) - 2
    if lowest:
        children = [_leaf(metric, row) for metric, row in sorted(below.items())]
    else:
        children = [_branch(child, level + 1, rest) for child, rest in sorted(below.items())]
    score, contributions = combine([child["score"] for child in children])
    for child, contribution in zip(children, contributions, strict=True):
        child["contribution"] = contribution
    return {
        "name": name,
        "level": LEVELS[level],
        "score": score,
        "peak": max(child["peak"] for child in children),
        "at": children[0]["at"],
        "contribution": score,
        "metrics" if lowest else "children": children,
    }


def _leaf(metric: str, row: Row) -> Row:
    return {
        "name": metric,
        "metric": metric,
        "level": "metric",
        "score": row["anomaly_score"],
        "peak": row["anomaly_score"],
        "at": row["tick"],
        "contribution": row["anomaly_score"],
        "value": row["value"],
        "expected": row["expected"],
        "kind": row["kind"],
    }


def _check_detector(context: ApiContext, detector: str | None) -> None:
    known = [resource.metadata.name for resource in context.resources if isinstance(resource, AnomalyDetector)]
    if detector is not None and detector not in known:
        raise ProblemError(404, f"no AnomalyDetector is called {detector!r}; there are: {', '.join(known) or 'none'}")


def _interval_ms(context: ApiContext, detector: str) -> int:
    """Interval of the stream that the detector watches, which is what its ticks are long."""
    intervals = {stream.metadata.name: stream.spec.interval for stream in context.streams}
    for resource in context.resources:
        if isinstance(resource, AnomalyDetector) and resource.metadata.name == detector:
            return intervals.get(resource.spec.stream, 60_000)
    return 60_000
