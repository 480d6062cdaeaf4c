"""MetricSimulation: a Job or a Deployment, and what came of it."""

from __future__ import annotations

from tidewarden.resources import MetricSimulation
from tidewarden_operator import status
from tidewarden_operator.keys import Key
from tidewarden_operator.plan import simulation as plan
from tidewarden_operator.reconcile.context import Context
from tidewarden_operator.reconcile.report import write_status
from tidewarden_operator.reconcile.resource import establish, look


def reconcile(context: Context, key: Key) -> None:
    """Bring one MetricSimulation about."""
    subject = look(context, key, MetricSimulation)
    if subject is None:
        return
    simulation, bundle = subject.resource, subject.bundle
    stream = bundle.streams[simulation.spec.stream]
    detectors = [bundle.detectors[name] for name in simulation.spec.evaluate]
    if not establish(context, subject, plan.children(simulation, stream, detectors, context.site())):
        return
    report = status.simulation(simulation, context.observe(key), subject.body.get("status") or {})
    write_status(context, key, subject.body, report)
