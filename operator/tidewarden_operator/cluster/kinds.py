"""The kinds of object that we read or make, and where the API server has them."""

from __future__ import annotations

from dataclasses import dataclass

from tidewarden.resources.base import API_VERSION


@dataclass(frozen=True, slots=True)
class KindInfo:
    """One kind.

    Args:
        kind: as in manifests.
        api_version: group and version, or ``v1``.
        plural: as in URLs.
        ours: one of the four resources; the others are children.
        optional: of another project: it may be absent from the cluster.
        pruned: children of it that are no longer wanted are deleted; pods are not ours to delete.
    """

    kind: str
    api_version: str
    plural: str
    ours: bool = False
    optional: bool = False
    pruned: bool = True

    @property
    def group(self) -> str:
        """API group, empty for the core."""
        return self.api_version.partition("/")[0] if "/" in self.api_version else ""

    @property
    def version(self) -> str:
        """Version within the group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str = "", name: str = "") -> str:
        """URL path of an object, of all of a namespace, or of all."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        space = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{space}/{self.plural}" + (f"/{name}" if name else "")


OURS = (
    KindInfo("MetricStream", API_VERSION, "metricstreams", ours=True),
    KindInfo("MetricSimulation", API_VERSION, "metricsimulations", ours=True),
    KindInfo("AnomalyDetector", API_VERSION, "anomalydetectors", ours=True),
    KindInfo("AlertPolicy", API_VERSION, "alertpolicies", ours=True),
)
CHILDREN = (
    KindInfo("Deployment", "apps/v1", "deployments"),
    KindInfo("StatefulSet", "apps/v1", "statefulsets"),
    KindInfo("Job", "batch/v1", "jobs"),
    KindInfo("Service", "v1", "services"),
    KindInfo("ConfigMap", "v1", "configmaps"),
    KindInfo("ServiceAccount", "v1", "serviceaccounts"),
    KindInfo("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
    KindInfo("PodDisruptionBudget", "policy/v1", "poddisruptionbudgets"),
    KindInfo("HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers"),
    KindInfo("ScaledObject", "keda.sh/v1alpha1", "scaledobjects", optional=True),
    KindInfo("TriggerAuthentication", "keda.sh/v1alpha1", "triggerauthentications", optional=True),
    KindInfo("PodMonitor", "monitoring.coreos.com/v1", "podmonitors", optional=True),
    KindInfo("PrometheusRule", "monitoring.coreos.com/v1", "prometheusrules", optional=True),
    KindInfo("Pod", "v1", "pods", pruned=False),
)
KINDS: dict[str, KindInfo] = {info.kind: info for info in (*OURS, *CHILDREN)}
