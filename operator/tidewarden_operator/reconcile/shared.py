"""A namespace with streams: what its resources share."""

from __future__ import annotations

from tidewarden_operator.keys import Key
from tidewarden_operator.plan import shared as plan
from tidewarden_operator.plan.names import owner_reference
from tidewarden_operator.reconcile.children import bring_about
from tidewarden_operator.reconcile.context import Context


def reconcile(context: Context, key: Key) -> None:
    """Bring API, peers, policies and monitoring of one namespace about; its streams own them together."""
    bundle = context.bundle(key.namespace)
    streams = [
        body
        for body in context.mirror.of_kind("MetricStream", key.namespace)
        if body["metadata"]["name"] in bundle.streams
    ]
    owners = [owner_reference(body, controller=False) for body in streams]
    bring_about(context, key, owners, plan.children(key.namespace, bundle, context.site(), context.rules))
