"""The resources of one namespace, parsed: what plans look each other up in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tidewarden.resources import AlertPolicy, AnomalyDetector, AnyResource, MetricSimulation, MetricStream


@dataclass(slots=True)
class NamespaceBundle:
    """Resources of one namespace by name; ``incomplete`` where some could not be parsed."""

    streams: dict[str, MetricStream] = field(default_factory=dict)
    simulations: dict[str, MetricSimulation] = field(default_factory=dict)
    detectors: dict[str, AnomalyDetector] = field(default_factory=dict)
    policies: dict[str, AlertPolicy] = field(default_factory=dict)
    incomplete: bool = False

    @classmethod
    def of(cls, resources: Iterable[AnyResource], *, incomplete: bool = False) -> NamespaceBundle:
        """A bundle of parsed resources."""
        bundle = cls(incomplete=incomplete)
        for resource in resources:
            name = resource.metadata.name
            match resource:
                case MetricStream():
                    bundle.streams[name] = resource
                case MetricSimulation():
                    bundle.simulations[name] = resource
                case AnomalyDetector():
                    bundle.detectors[name] = resource
                case AlertPolicy():
                    bundle.policies[name] = resource
        return bundle

    def all(self) -> list[AnyResource]:
        """All resources, by kind and name, so that what is made of them is the same every time."""
        groups: list[Mapping[str, AnyResource]] = [self.streams, self.simulations, self.detectors, self.policies]
        return [resource for group in groups for _, resource in sorted(group.items())]
