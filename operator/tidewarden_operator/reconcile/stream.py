"""MetricStream: topics and templates, ingest and archive, and on its end what its deletion policy says."""

from __future__ import annotations

from dataclasses import replace

from tidewarden.resources import MetricStream
from tidewarden.topics import StreamTopics
from tidewarden_operator import status
from tidewarden_operator.backends import Request
from tidewarden_operator.keys import Key, Ref
from tidewarden_operator.observation import Observation
from tidewarden_operator.plan import config
from tidewarden_operator.plan import stream as plan
from tidewarden_operator.plan.site import Site
from tidewarden_operator.reconcile.cleanup import finalize, hold
from tidewarden_operator.reconcile.context import Context
from tidewarden_operator.reconcile.report import write_status
from tidewarden_operator.reconcile.resource import establish, look

CALM_S = 60.0  # at least so long without a reading, and three intervals, and data no longer flows


def reconcile(context: Context, key: Key) -> None:
    """Bring one MetricStream about."""
    subject = look(context, key, MetricStream)
    if subject is None:
        finalize(context, key, MetricStream, lambda gone, site: _last_request(context, gone, site))
        return
    stream = subject.resource
    site = context.site()
    hold(context, key, subject.body, wanted=stream.spec.deletion_policy == "Delete")
    standing = context.keeper.want(key, request(stream, site))
    if not establish(context, subject, plan.children(stream, site)):
        return
    seen = context.observe(key)
    watchers = sum(d.spec.stream == key.name for d in subject.bundle.detectors.values())
    arrived = _arrivals(context, stream, seen)
    flowing = context.flowing(key, arrived.readings, max(CALM_S, 3 * stream.spec.interval / 1000))
    report = status.stream(stream, seen, standing, arrived, watchers, flowing=flowing)
    write_status(context, key, subject.body, report)


def topics_of(stream: MetricStream) -> StreamTopics:
    """The topics of a stream."""
    return StreamTopics(stream.metadata.namespace, stream.metadata.name, stream.spec.partitions, stream.spec.retention)


def request(stream: MetricStream, site: Site) -> Request:
    """Topics and indices of a stream."""
    topics = topics_of(stream)
    kafka, search = config.connections(stream, site.settings)
    return Request(
        kafka=kafka,
        topics=(*topics.all(), topics.state()),
        elasticsearch=search,
        stream=stream.metadata.name,
        retention_ms=stream.spec.archive.retention,
    )


def _last_request(context: Context, gone: MetricStream, site: Site) -> Request:
    """All that a deleted stream leaves behind, the snapshots of its detectors included: nothing else reads them."""
    asked = request(gone, site)
    topics = topics_of(gone)
    detectors = context.mirror.of_kind("AnomalyDetector", gone.metadata.namespace)
    watching = [body for body in detectors if body["spec"].get("stream") == gone.metadata.name]
    return replace(asked, topics=(*asked.topics, *(topics.state(body["metadata"]["name"]) for body in watching)))


def _arrivals(context: Context, stream: MetricStream, seen: Observation) -> status.Arrivals:
    """What sources and simulations have delivered to the stream; of a simulation that has ended, what it played."""
    found = status.Arrivals.of(seen.board())
    namespace = stream.metadata.namespace
    for simulation in context.bundle(namespace).simulations.values():
        if simulation.spec.stream != stream.metadata.name:
            continue
        name = simulation.metadata.name
        board = context.observe(Key("MetricSimulation", namespace, name)).board()
        if "sources" in board:
            found = found.plus(status.Arrivals.of(board))
            continue
        body = context.mirror.get(Ref("MetricSimulation", namespace, name)) or {}
        found = found.plus(status.Arrivals(int((body.get("status") or {}).get("played") or 0)))
    return found
