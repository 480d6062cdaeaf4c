"""AnomalyDetector: its state topic, detect and rollup."""

from __future__ import annotations

from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden_operator import status
from tidewarden_operator.backends import Request
from tidewarden_operator.keys import Key, Ref
from tidewarden_operator.plan import config
from tidewarden_operator.plan import detector as plan
from tidewarden_operator.plan.site import Site
from tidewarden_operator.reconcile.cleanup import finalize, hold
from tidewarden_operator.reconcile.context import Context
from tidewarden_operator.reconcile.report import write_status
from tidewarden_operator.reconcile.resource import establish, look
from tidewarden_operator.reconcile.stream import CALM_S, topics_of


def reconcile(context: Context, key: Key) -> None:
    """Bring one AnomalyDetector about."""
    subject = look(context, key, AnomalyDetector)
    site = context.site()
    if subject is None:
        finalize(context, key, AnomalyDetector, lambda gone, site: _last_request(context, gone, site))
        return
    detector = subject.resource
    stream = subject.bundle.streams[detector.spec.stream]
    hold(context, key, subject.body, wanted=stream.spec.deletion_policy == "Delete")
    standing = context.keeper.want(key, request(detector, stream, site))
    if not establish(context, subject, plan.children(detector, stream, site)):
        return
    seen = context.observe(key)
    scored = sum(int((said.get("figures") or {}).get("scored") or 0) for said in seen.said_by("detect"))
    flowing = context.flowing(key, scored, max(CALM_S, 3 * stream.spec.interval / 1000))
    selector = plan.workload(detector, stream, site, "detect").selector
    before = subject.body.get("status") or {}
    report = status.detector(detector, seen, standing, selector, before, flowing=flowing)
    write_status(context, key, subject.body, report)


def request(detector: AnomalyDetector, stream: MetricStream, site: Site) -> Request:
    """The topic of a detector's snapshots."""
    topics = topics_of(stream)
    kafka, _ = config.connections(stream, site.settings)
    return Request(kafka=kafka, topics=(topics.state(detector.metadata.name),))


def _last_request(context: Context, gone: AnomalyDetector, site: Site) -> Request | None:
    """What a deleted detector leaves behind; its stream may be on its way out, too. Once that is gone, nothing is."""
    body = context.mirror.get(Ref("MetricStream", gone.metadata.namespace, gone.spec.stream))
    stream = None if body is None else context.parsed(body)
    return request(gone, stream, site) if isinstance(stream, MetricStream) else None
