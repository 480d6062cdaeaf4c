"""AlertPolicy: one alert workload."""

from __future__ import annotations

from tidewarden.resources import AlertPolicy
from tidewarden_operator import status
from tidewarden_operator.keys import Key
from tidewarden_operator.plan import policy as plan
from tidewarden_operator.reconcile.context import Context
from tidewarden_operator.reconcile.report import write_status
from tidewarden_operator.reconcile.resource import establish, look


def reconcile(context: Context, key: Key) -> None:
    """Bring one AlertPolicy about."""
    subject = look(context, key, AlertPolicy)
    if subject is None:
        return
    policy = subject.resource
    stream = subject.bundle.streams[policy.spec.stream]
    if not establish(context, subject, plan.children(policy, stream, context.site())):
        return
    write_status(context, key, subject.body, status.policy(policy, context.observe(key)))
