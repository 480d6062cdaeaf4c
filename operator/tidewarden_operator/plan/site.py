"""What plans know of their surroundings."""

from __future__ import annotations

from dataclasses import dataclass, field

from tidewarden_operator.settings import OperatorSettings


@dataclass(frozen=True, slots=True)
class Site:
    """Settings of the operator, and which optional kinds the cluster has.

    Args:
        settings: of the operator.
        kinds: those of ScaledObject, PodMonitor and PrometheusRule that exist.
    """

    settings: OperatorSettings
    kinds: frozenset[str] = field(default_factory=frozenset)
