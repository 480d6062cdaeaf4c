"""How many detector pods there are, and how many may be missing.

An autoscaler's target is the AnomalyDetector, by its scale subresource, not the StatefulSet: `spec.replicas` of the
resource stays the one place that says how many pods there are, whoever turns it: `kubectl scale`, an autoscaler or a
person's editor. The operator alone writes the StatefulSet, so pausing needs no agreement with an autoscaler.
"""

from __future__ import annotations

from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.resources.base import API_VERSION
from tidewarden.settings import KafkaSettings
from tidewarden.topics import StreamTopics, consumer_group
from tidewarden_operator.keys import Manifest
from tidewarden_operator.plan.config import connections
from tidewarden_operator.plan.pods import Workload
from tidewarden_operator.plan.site import Site

# A detector process uses one core at most: above 70 % of it there is little left to catch up with. Not a share
# of the request, which says what an ordinary pod takes, a tenth of that.
CPU_TARGET = "700m"
# A rebalance costs a restored snapshot on each side, seconds: pods are taken away slowly, one at a time.
CALM_S = 300


def disruption_budget(workload: Workload) -> Manifest:
    """One pod at a time may be missing while a node is drained.

    Only for what has several pods: of the single ones a budget would either forbid nothing or block every drain.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": _metadata(workload),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": workload.selector}},
    }


def autoscaler(detector: AnomalyDetector, stream: MetricStream, workload: Workload, site: Site) -> list[Manifest]:
    """KEDA's ScaledObject on lag where the cluster has that kind, else a HorizontalPodAutoscaler on CPU."""
    spec = detector.spec.autoscaling
    if spec is None:
        return []
    target = {"apiVersion": API_VERSION, "kind": "AnomalyDetector", "name": detector.metadata.name}
    if "ScaledObject" not in site.kinds:
        return [_horizontal(workload, target, spec.min, spec.max)]
    kafka, _ = connections(stream, site.settings)
    trigger: Manifest = {
        "type": "kafka",
        "metadata": {
            "bootstrapServers": kafka.bootstrap_servers,
            "consumerGroup": consumer_group(stream.metadata.namespace, f"detect.{detector.metadata.name}"),
            "topic": StreamTopics(stream.metadata.namespace, stream.metadata.name).name("readings"),
            "lagThreshold": str(spec.lag_per_replica),
            "offsetResetPolicy": "earliest",
            **_login(kafka),
        },
    }
    made: list[Manifest] = []
    if kafka.secret_dir is not None:
        trigger["authenticationRef"] = {"name": workload.name}
        made.append(_authentication(workload, kafka, kafka.secret_dir.name))
    scaled: Manifest = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(workload),
        "spec": {
            "scaleTargetRef": target,
            "minReplicaCount": spec.min,
            "maxReplicaCount": spec.max,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior()}},
            "triggers": [trigger],
        },
    }
    return [*made, scaled]


def _horizontal(workload: Workload, target: Manifest, low: int, high: int) -> Manifest:
    cpu = {"name": "cpu", "target": {"type": "AverageValue", "averageValue": CPU_TARGET}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": _metadata(workload),
        "spec": {
            "scaleTargetRef": target,
            "minReplicas": low,
            "maxReplicas": high,
            "behavior": _behavior(),
            "metrics": [{"type": "Resource", "resource": cpu}],
        },
    }


def _behavior() -> Manifest:
    calm = {"stabilizationWindowSeconds": CALM_S, "policies": [{"type": "Pods", "value": 1, "periodSeconds": CALM_S}]}
    return {"scaleDown": calm}


def _login(kafka: KafkaSettings) -> dict[str, str]:
    mechanisms = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}
    told = {}
    if kafka.security_protocol.startswith("SASL"):
        told["sasl"] = mechanisms[kafka.sasl_mechanism]
    if kafka.security_protocol.endswith("SSL"):
        told["tls"] = "enable"
    return told


def _authentication(workload: Workload, kafka: KafkaSettings, secret: str) -> Manifest:
    keys = {"username": "username", "password": "password"} if kafka.security_protocol.startswith("SASL") else {}
    if kafka.security_protocol.endswith("SSL"):
        keys["ca"] = "ca.crt"
    if kafka.security_protocol == "SSL":
        keys |= {"cert": "tls.crt", "key": "tls.key"}
    references = [{"parameter": parameter, "name": secret, "key": key} for parameter, key in sorted(keys.items())]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": _metadata(workload),
        "spec": {"secretTargetRef": references},
    }


def _metadata(workload: Workload) -> Manifest:
    return {"name": workload.name, "namespace": workload.key.namespace, "labels": workload.labels}
