"""Keys: what the work queue holds and what a child is looked up by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

OwnerKind = Literal["MetricStream", "MetricSimulation", "AnomalyDetector", "AlertPolicy"]
OWNER_KINDS: tuple[OwnerKind, ...] = ("MetricStream", "MetricSimulation", "AnomalyDetector", "AlertPolicy")


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One resource, or with kind ``Namespace`` what all resources of a namespace share."""

    kind: str
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}".rstrip("/")


@dataclass(frozen=True, slots=True, order=True)
class Ref:
    """One object of the cluster."""

    kind: str
    namespace: str
    name: str

    @classmethod
    def of(cls, manifest: Manifest) -> Ref:
        """The address of an object."""
        metadata = manifest["metadata"]
        return cls(manifest["kind"], metadata.get("namespace", ""), metadata["name"])

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"
