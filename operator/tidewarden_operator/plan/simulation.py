"""What a MetricSimulation becomes: a Job where it ends, a Deployment where it is endless."""

from __future__ import annotations

from tidewarden.resources import AnomalyDetector, AnyResource, MetricSimulation, MetricStream
from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan import config, pods
from tidewarden_operator.plan.names import child_name, digest
from tidewarden_operator.plan.pods import Workload
from tidewarden_operator.plan.site import Site


def is_finite(simulation: MetricSimulation) -> bool:
    """Whether it ends: a fleet by its points, a replay with its recording."""
    return simulation.spec.points is not None or simulation.spec.replay is not None


def children(
    simulation: MetricSimulation, stream: MetricStream, detectors: list[AnomalyDetector], site: Site
) -> list[Manifest]:
    """All objects of the simulation.

    A Job's pods cannot be changed, and one that has ended must not run again for a new image or a new detector:
    its name carries what is played, so only another scenario is another Job.
    """
    name = simulation.metadata.name
    kafka, search = config.connections(stream, site.settings)
    resources: list[AnyResource] = [stream, simulation, *detectors]
    files = config.files("simulate", simulation.metadata.namespace, resources, kafka, search, site.settings)
    finite = is_finite(simulation)
    scenario = simulation.spec.model_dump(mode="json", by_alias=True, exclude={"paused", "evaluate"})
    part = digest(scenario)[:8] if finite else ""
    workload = Workload(
        key=Key("MetricSimulation", simulation.metadata.namespace, name),
        name=child_name(name, "simulate", part),
        role="simulate",
        arguments=("--name", name),
        config=files,
        secrets=config.secrets_of(kafka, search, "simulate"),
    )
    paused = simulation.spec.paused
    run = pods.job(workload, site, suspended=paused) if finite else pods.deployment(workload, site, 0 if paused else 1)
    return [pods.config_map(workload), run]
