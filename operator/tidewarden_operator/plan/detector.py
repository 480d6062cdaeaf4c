"""What an AnomalyDetector becomes: detect as a StatefulSet, its rollup, and how many pods there are."""

from __future__ import annotations

from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan import config, network, pods, scaling
from tidewarden_operator.plan.names import child_name
from tidewarden_operator.plan.pods import Workload
from tidewarden_operator.plan.site import Site
from tidewarden_operator.settings import Role


def children(detector: AnomalyDetector, stream: MetricStream, site: Site) -> list[Manifest]:
    """All objects of the detector. While it is paused nobody scores and nobody rolls up; the state stays."""
    paused = detector.spec.paused
    detect = workload(detector, stream, site, "detect")
    found = [
        pods.config_map(detect),
        network.service(detect, headless=True),
        pods.stateful_set(detect, site, 0 if paused else replicas(detector), detect.name),
        scaling.disruption_budget(detect),
        *scaling.autoscaler(detector, stream, detect, site),
    ]
    if detector.spec.rollup:
        rollup = workload(detector, stream, site, "rollup")
        found += [pods.config_map(rollup), pods.deployment(rollup, site, 0 if paused else 1)]
    return found


def replicas(detector: AnomalyDetector) -> int:
    """Pods wanted: `spec.replicas`, which an autoscaler moves within its bounds."""
    autoscaling = detector.spec.autoscaling
    if autoscaling is None:
        return detector.spec.replicas
    return max(autoscaling.min, min(autoscaling.max, detector.spec.replicas))


def workload(detector: AnomalyDetector, stream: MetricStream, site: Site, role: Role) -> Workload:
    """The detect or rollup workload."""
    name = detector.metadata.name
    kafka, search = config.connections(stream, site.settings)
    member = ("--member", "$(POD_NAME)") if role == "detect" else ()
    secrets = config.secrets_of(kafka, search, role)
    training = detector.spec.training
    if role == "detect" and training is not None and training.secret_ref is not None:
        secrets = list(dict.fromkeys([*secrets, training.secret_ref.name]))
    return Workload(
        key=Key("AnomalyDetector", detector.metadata.namespace, name),
        name=child_name(name, role),
        role=role,
        arguments=("--name", name, *member),
        config=config.files(role, detector.metadata.namespace, [stream, detector], kafka, search, site.settings),
        secrets=secrets,
    )
