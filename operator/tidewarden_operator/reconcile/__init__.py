"""Reconcile: what is brought about, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tidewarden_operator.keys import Key
from tidewarden_operator.reconcile import detector, policy, shared, simulation, stream
from tidewarden_operator.reconcile.context import Context

RECONCILERS: Mapping[str, Callable[[Context, Key], None]] = {
    "MetricStream": stream.reconcile,
    "MetricSimulation": simulation.reconcile,
    "AnomalyDetector": detector.reconcile,
    "AlertPolicy": policy.reconcile,
    "Namespace": shared.reconcile,
}


def reconcile(context: Context, key: Key) -> None:
    """Make the cluster what the resource of ``key`` says. Safe to repeat, at rest without a single write."""
    RECONCILERS[key.kind](context, key)
