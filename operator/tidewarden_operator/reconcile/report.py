"""Writing the status: only when it says something new, and not for counts alone too often."""

from __future__ import annotations

import uuid
from typing import Any

import structlog

from tidewarden.resources.base import API_VERSION
from tidewarden_operator.cluster.client import ClusterError
from tidewarden_operator.cluster.compare import differences
from tidewarden_operator.conditions import Conditions, Transition, merged, transitions
from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan.names import MANAGER, digest
from tidewarden_operator.reconcile.context import Context
from tidewarden_operator.status import Report

# People hear of these, when they change; the others are to be seen in the status.
_TOLD = ("Accepted", "TopicsReady", "StoreReady", "Ready", "Paused", "Degraded", "Completed")
_GOOD = {"Paused": {"True", "False"}, "Degraded": {"False"}}

log = structlog.get_logger()


def write_status(context: Context, key: Key, body: Manifest, report: Report) -> None:
    """Write ``report`` if the resource does not say so already, and tell people of transitions.

    Raises:
        ClusterError: the API server refused or did not answer.
    """
    metadata = body["metadata"]
    generation = int(metadata.get("generation") or 0)
    before: dict[str, Any] = body.get("status") or {}
    known: Conditions = before.get("conditions") or []
    status = {
        **report.fields,
        "observedGeneration": generation,
        "conditions": merged(report.conditions, known, generation, context.now()),
    }
    stamp = digest(status)
    if _says_so_already(context, key, status, before, stamp):
        return
    now = context.clock.monotonic()
    pause = context.site().settings.counts_s
    written = context.memory.written_s.get(key, float("-inf"))
    if _sense(status) == _sense(before) and now - written < pause:
        context.again(key, pause - (now - written))
        return
    manifest = {
        "apiVersion": API_VERSION,
        "kind": body["kind"],
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "status": status,
    }
    answer = context.writer.apply(manifest, "status")
    context.mirror.put(answer)
    context.memory.written_s[key] = now
    # What the CRD's schema leaves out, because it is older or newer than we are, would differ for ever.
    context.memory.said[key] = (stamp, frozenset(differences(status, answer.get("status") or {})))
    context.metrics.statuses.labels(key.kind).inc()
    for transition in transitions(report.conditions, known):
        if _is_news(transition):
            tell(context, body, transition.now.reason, transition.now.message, warning=_is_bad(transition))


def tell(context: Context, body: Manifest, reason: str, message: str, *, warning: bool) -> None:
    """An Event of Kubernetes about a resource. One that cannot be written is only logged: it decides nothing."""
    metadata = body["metadata"]
    now = context.now()
    content = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": body["apiVersion"],
            "kind": body["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
        },
        "reason": reason,
        "message": message[:1_024],
        "type": "Warning" if warning else "Normal",
        "source": {"component": MANAGER},
        "reportingComponent": MANAGER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
    try:
        context.writer.event(metadata["namespace"], content)
    except ClusterError as error:
        log.warning("event not written", resource=f"{body['kind']}/{metadata['name']}", error=str(error))


def _says_so_already(context: Context, key: Key, status: dict[str, Any], before: dict[str, Any], stamp: str) -> bool:
    known = context.memory.said.get(key)
    if known is not None and known[0] != stamp:
        return False
    # Without a memory, after our own start, fields that the status still has and we no longer say may stay.
    return frozenset(differences(status, before)) <= (known[1] if known is not None else frozenset())


def _sense(status: dict[str, Any]) -> object:
    """What counts as news at once: everything but counts and messages."""
    conditions = [
        (c["type"], c["status"], c["reason"], c.get("observedGeneration")) for c in status.get("conditions", [])
    ]
    return (
        conditions,
        status.get("phase"),
        status.get("replicas"),
        status.get("readyReplicas"),
        status.get("evaluation"),
    )


def _is_news(transition: Transition) -> bool:
    if transition.now.type not in _TOLD:
        return False
    if transition.before is None:  # the first word on a resource is worth telling only where nothing will come of it
        return _is_bad(transition) and transition.now.type == "Accepted"
    return not transition.before.startswith(f"{transition.now.status}/")


def _is_bad(transition: Transition) -> bool:
    return transition.now.status not in _GOOD.get(transition.now.type, {"True"})
