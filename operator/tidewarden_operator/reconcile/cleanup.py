"""The end of a resource whose topics and indices are to go with it.

A finalizer holds the resource until they are gone: workloads first, so that nobody writes, then topics, then indices.
It never strands a namespace: where Kafka or Elasticsearch stay away for `cleanup_patience_s`, an Event says what was
left behind and the resource goes. Where there is nothing to delete there is no finalizer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import structlog

from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.resources.base import API_VERSION
from tidewarden_operator.backends import BackendError, Request
from tidewarden_operator.cluster.client import ClusterError
from tidewarden_operator.keys import Key, Manifest, Ref
from tidewarden_operator.plan.names import FINALIZER
from tidewarden_operator.plan.site import Site
from tidewarden_operator.reconcile.children import bring_about
from tidewarden_operator.reconcile.context import Context, Mistake
from tidewarden_operator.reconcile.report import tell

R = TypeVar("R", MetricStream, AnomalyDetector)
LOOK_AGAIN_S = 1.0

log = structlog.get_logger()


def hold(context: Context, key: Key, body: Manifest, *, wanted: bool) -> None:
    """Put the finalizer on the resource, or take it off, if that is not so already."""
    if (FINALIZER in (body["metadata"].get("finalizers") or [])) != wanted:
        _set_finalizer(context, key, body, wanted=wanted)


def finalize(context: Context, key: Key, model: type[R], request: Callable[[R, Site], Request | None]) -> None:
    """Clean up after a resource that is being deleted and has our finalizer; nothing else is touched."""
    body = context.mirror.get(Ref(key.kind, key.namespace, key.name))
    if body is None or "deletionTimestamp" not in body["metadata"]:
        return
    if FINALIZER not in (body["metadata"].get("finalizers") or []):
        return
    now = context.clock.monotonic()
    since = context.memory.leaving_s.setdefault(key, now)
    late = now - since >= context.site().settings.cleanup_patience_s
    context.keeper.forget(key)
    bring_about(context, key, [], [])
    running = [child["metadata"]["name"] for child in context.mirror.children(key) if child["kind"] == "Pod"]
    if running and not late:
        context.again(key, LOOK_AGAIN_S)
        return
    parsed = context.parsed(body)
    wish = None if isinstance(parsed, Mistake) or not isinstance(parsed, model) else request(parsed, context.site())
    if wish is not None:
        try:
            context.keeper.remove(wish, key.namespace)
        except BackendError as error:
            if not late:
                log.info("cleaning up is not possible yet", resource=str(key), error=str(error))
                context.again(key, LOOK_AGAIN_S * 2)
                return
            names = ", ".join(topic.name for topic in wish.topics)
            what = f"topics {names}" + (f" and the indices of {wish.stream}" if wish.elasticsearch else "")
            tell(context, body, "LeftBehind", f"{what} were left behind: {error}", warning=True)
    _set_finalizer(context, key, body, wanted=False)
    context.memory.forget(key)


def _set_finalizer(context: Context, key: Key, body: Manifest, *, wanted: bool) -> None:
    metadata = {"name": key.name, "namespace": key.namespace, "uid": body["metadata"]["uid"]}
    manifest = {"apiVersion": API_VERSION, "kind": key.kind, "metadata": metadata}
    # Applied, so that only our own entry comes and goes and those of others stay.
    manifest["metadata"] = {**metadata, "finalizers": [FINALIZER] if wanted else []}
    try:
        context.mirror.put(context.writer.apply(manifest))
    except ClusterError as error:
        # The uid is that of the resource we have seen: where it is gone, there is nothing to hold or to release.
        if error.status not in {404, 409}:
            raise
        log.debug("gone already", resource=str(key), error=str(error))
