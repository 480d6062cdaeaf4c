"""Workloads: one image, restricted security, role by argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidewarden.settings import HTTP_PORT, METRICS_PORT
from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan.config import CLAIM, SECRETS
from tidewarden_operator.plan.names import (
    CONFIG_HASH,
    HTTP_LABEL,
    KIND_LABEL,
    RESOURCE_LABEL,
    ROLE_LABEL,
    digest,
    labels,
)
from tidewarden_operator.plan.site import Site
from tidewarden_operator.settings import Role

USER = 10001  # of the image
ACCOUNT = "tidewarden-pods"
# A process ends within 20 s of SIGTERM (snapshot, commit, leave); a detector with many series writes for longer.
GRACE_S: Mapping[Role, int] = {"detect": 60}
GRACE_DEFAULT_S = 30
# Starting: imports and a restored snapshot take 5 s, 60 s where kernels must be compiled on a busy machine; up to
# 60 × 3 s = 3 min are granted. Alive: three answers missing, 30 s, and the pod starts anew. Ready: within 5 s.
STARTUP = {"periodSeconds": 3, "failureThreshold": 60, "timeoutSeconds": 3}
LIVENESS = {"periodSeconds": 10, "failureThreshold": 3, "timeoutSeconds": 5}
READINESS = {"periodSeconds": 5, "failureThreshold": 2, "timeoutSeconds": 3}
SCRATCH = "256Mi"


@dataclass(frozen=True, slots=True)
class Workload:
    """One set of equal pods.

    Args:
        key: whose it is.
        name: of the workload and of its ConfigMap.
        role: what its process does.
        arguments: behind ``tidewarden run <role>``.
        config: the two files; see `plan.config`.
        secrets: names of Secrets to mount.
        claim: volume of a file source.
        http: whether it listens on the port for people and pushing clients.
        part: label of a stream's several workloads: the source's name.
    """

    key: Key
    name: str
    role: Role
    arguments: tuple[str, ...]
    config: Mapping[str, str]
    secrets: Sequence[str] = field(default_factory=tuple)
    claim: str | None = None
    http: bool = False
    part: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """Labels of all its objects and pods."""
        extra = {"tidewarden.dev/source": self.part} if self.part else {}
        return {**labels(self.key, self.role), **extra}

    @property
    def selector(self) -> dict[str, str]:
        """Labels that only its pods have."""
        chosen = (KIND_LABEL, RESOURCE_LABEL, ROLE_LABEL, "tidewarden.dev/source")
        return {name: value for name, value in self.labels.items() if name in chosen}


def config_map(workload: Workload) -> Manifest:
    """What the workload's pods are told."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(workload),
        "data": dict(workload.config),
    }


def deployment(workload: Workload, site: Site, replicas: int) -> Manifest:
    """Pods of which two never write at the same time: replaced by Recreate; only those that just read roll."""
    rolling = workload.role == "api"
    strategy: Manifest = {"type": "Recreate"}
    if rolling:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(workload),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "strategy": strategy,
            "selector": {"matchLabels": workload.selector},
            "template": pod_template(workload, site),
        },
    }


def stateful_set(workload: Workload, site: Site, replicas: int, service: str) -> Manifest:
    """Pods with stable names. They start together: partitions are shared out by Kafka, not by order."""
    template = pod_template(workload, site)
    template["spec"]["topologySpreadConstraints"] = [
        {
            "maxSkew": 1,
            "topologyKey": topology,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": workload.selector},
        }
        for topology in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": _metadata(workload),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 3,
            "serviceName": service,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": workload.selector},
            "template": template,
        },
    }


def job(workload: Workload, site: Site, *, suspended: bool) -> Manifest:
    """A pod that ends. It resumes exactly after a kill, so it is started again in place, and never twice at once."""
    template = pod_template(workload, site)
    template["spec"]["restartPolicy"] = "OnFailure"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(workload),
        "spec": {
            # Kubernetes waits 10 s, 20 s … 5 min between starts: 20 of them are more than an hour of trying.
            "backoffLimit": 20,
            "podReplacementPolicy": "Failed",
            "suspend": suspended,
            "template": template,
        },
    }


def pod_template(workload: Workload, site: Site) -> Manifest:
    """The pod of a workload: read-only root, no rights, three probes."""
    settings = site.settings
    spec: Manifest = {
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S.get(workload.role, GRACE_DEFAULT_S),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(workload, site)],
        "volumes": _volumes(workload),
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    extra = {HTTP_LABEL: "true"} if workload.http else {}
    return {
        "metadata": {
            "labels": {**workload.labels, **extra},
            # Always there, also beside a PodMonitor: whoever installs the Prometheus operator later restarts nobody.
            "annotations": {
                CONFIG_HASH: digest(dict(workload.config)),
                "prometheus.io/scrape": "true",
                "prometheus.io/port": str(METRICS_PORT),
                "prometheus.io/path": "/metrics",
            },
        },
        "spec": spec,
    }


def _container(workload: Workload, site: Site) -> Manifest:
    settings = site.settings
    resources = settings.resources_of(workload.role)
    ports: list[Manifest] = [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
    if workload.http:
        ports.append({"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"})
    mounts: list[Manifest] = [
        {"name": "config", "mountPath": "/etc/tidewarden", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a volume of the pod's own
        {"name": "cache", "mountPath": "/var/cache/tidewarden"},
    ]
    mounts += [
        {"name": f"secret-{position}", "mountPath": str(SECRETS / name), "readOnly": True}
        for position, name in enumerate(_secrets(workload))
    ]
    if workload.claim is not None:
        mounts.append({"name": "data", "mountPath": str(CLAIM), "readOnly": True})
    return {
        "name": "tidewarden",
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "args": ["run", workload.role, *workload.arguments],
        "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
        "ports": ports,
        "resources": resources.model_dump(exclude_defaults=True),
        "startupProbe": {"httpGet": _get("/healthz"), **STARTUP},
        "livenessProbe": {"httpGet": _get("/healthz"), **LIVENESS},
        "readinessProbe": {"httpGet": _get("/readyz"), **READINESS},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _volumes(workload: Workload) -> list[Manifest]:
    volumes: list[Manifest] = [
        {"name": "config", "configMap": {"name": workload.name}},
        {"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}},
        {"name": "cache", "emptyDir": {"sizeLimit": SCRATCH}},
    ]
    volumes += [
        {"name": f"secret-{position}", "secret": {"secretName": name, "defaultMode": 0o440}}
        for position, name in enumerate(_secrets(workload))
    ]
    if workload.claim is not None:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": workload.claim, "readOnly": True}})
    return volumes


def _secrets(workload: Workload) -> list[str]:
    return list(dict.fromkeys(workload.secrets))


def _get(path: str) -> Manifest:
    return {"path": path, "port": "metrics", "scheme": "HTTP"}


def _metadata(workload: Workload) -> Manifest:
    return {"name": workload.name, "namespace": workload.key.namespace, "labels": workload.labels}
