"""Settings of the operator: what pods are made of, where the servers are, which namespaces are ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from tidewarden.resources.base import Model, Name, SecretRef
from tidewarden.settings import METRICS_PORT, ElasticsearchSettings, KafkaSettings, read_settings

Role = Literal["ingest", "simulate", "detect", "rollup", "alert", "archive", "api"]
ROLES: tuple[Role, ...] = ("ingest", "simulate", "detect", "rollup", "alert", "archive", "api")


class KafkaAccess(KafkaSettings):
    """Kafka of the installation: how the operator reaches it itself, and what it tells the pods."""

    secret_ref: SecretRef | None = Field(
        None,
        description="Secret with the pods' credentials; every namespace with streams needs one of this name. "
        "secretDir is where the operator's own credentials are.",
    )


class ElasticsearchAccess(ElasticsearchSettings):
    """Elasticsearch of the installation, as `KafkaAccess`."""

    secret_ref: SecretRef | None = Field(
        None, description="Secret with the pods' credentials, by this name in every namespace with streams."
    )


class Resources(Model):
    """Requests and limits of a container, as Kubernetes writes them."""

    requests: dict[str, str] = Field(default_factory=dict, description="What is set aside, e.g. {cpu: 100m}.")
    limits: dict[str, str] = Field(default_factory=dict, description="What is never exceeded, e.g. {memory: 1Gi}.")


# Requests are what the scheduler sets aside, so they say what an ordinary pod takes, and limits what it may take.
# Memory: what the samples' pods were measured at in a cluster (alert 60 MiB, ingest 86, rollup 110, api 114, detect
# 116, archive 161, simulate 200) and a quarter more. Detect adds 5 KB for each series (50,000 series: 250 MB), twice
# that while a snapshot is written: beyond some 10,000 series raise its request. CPU: who waits takes a hundredth of a
# core. The samples' twelve pods are 260m, so that they have room beside a control plane (950m) and this chart's servers
# (320m) on a machine of two cores. No CPU limits: a throttled consumer falls behind for no gain.
DEFAULT_RESOURCES: dict[Role, Resources] = {
    "ingest": Resources(requests={"cpu": "20m", "memory": "128Mi"}, limits={"memory": "1Gi"}),
    "simulate": Resources(requests={"cpu": "20m", "memory": "256Mi"}, limits={"memory": "1Gi"}),
    "detect": Resources(requests={"cpu": "50m", "memory": "192Mi"}, limits={"memory": "2Gi"}),
    "rollup": Resources(requests={"cpu": "10m", "memory": "144Mi"}, limits={"memory": "1Gi"}),
    "alert": Resources(requests={"cpu": "10m", "memory": "96Mi"}, limits={"memory": "512Mi"}),
    "archive": Resources(requests={"cpu": "20m", "memory": "208Mi"}, limits={"memory": "1Gi"}),
    "api": Resources(requests={"cpu": "20m", "memory": "144Mi"}, limits={"memory": "1Gi"}),
}


class OperatorSettings(Model):
    """Everything the operator is told at its start."""

    image: str = Field(min_length=1, description="Image of all pods.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="As Kubernetes'.")
    image_pull_secrets: list[Name] = Field(default_factory=list, description="Secrets of the pods' namespaces.")
    namespaces: list[Name] = Field(default_factory=list, description="Whose resources are ours; empty: all.")
    namespace: Name = Field("tidewarden", description="Where the operator itself runs.")
    monitoring_namespaces: list[Name] = Field(
        default_factory=list, description="From where pods may be scraped, besides the operator's own namespace."
    )
    kafka: KafkaAccess
    elasticsearch: ElasticsearchAccess | None = Field(None, description="Absent: nothing is archived.")
    prometheus_url: str | None = Field(None, description="Default of prometheus sources.")
    alertmanager_url: str | None = Field(None, description="Default of alertmanager receivers.")
    page_url: str | None = Field(None, description="Address of the web page, for links in notifications.")
    resources: dict[Role, Resources] = Field(default_factory=dict, description="By role; absent: our defaults.")
    egress: list[dict[str, Any]] | None = Field(
        None, description="NetworkPolicy egress rules for all pods; absent: egress is not restricted."
    )
    workers: int = Field(4, ge=1, le=64, description="Resources reconciled at the same time.")
    resync_s: float = Field(120.0, ge=1, le=3_600, description="All resources are looked at again so often.")
    status_s: float = Field(10.0, ge=0.1, le=600, description="Pods are asked for their status so often.")
    counts_s: float = Field(15.0, ge=0, le=600, description="A status whose counts alone changed is written so often.")
    cleanup_patience_s: float = Field(
        60.0, ge=1, le=3_600, description="How long a deletion waits for Kafka and Elasticsearch, at most."
    )
    # A watch request ends after 60 s by our own wish (see main.py) and is made anew at once; one that is silent for
    # 70 s is cut off. Kopf pauses for at most 21 s between attempts at a server that is away. 60 + 70 + 21 = 151 s is
    # the longest silence of a watch that lives; twice that, and it is dead.
    watch_patience_s: float = Field(
        300.0, ge=1, le=3_600, description="A watch that is silent for longer makes the liveness probe fail."
    )
    metrics_port: int = Field(METRICS_PORT, ge=0, le=65535, description="Port of /metrics, /healthz, /readyz.")

    @model_validator(mode="after")
    def _unique(self) -> OperatorSettings:
        twice = sorted({n for n in self.namespaces if self.namespaces.count(n) > 1})
        if twice:
            raise ValueError(f"namespaces has {twice[0]!r} twice: name each once")
        return self

    def resources_of(self, role: Role) -> Resources:
        """Requests and limits of a role's container."""
        return self.resources.get(role, DEFAULT_RESOURCES[role])


def load_operator_settings(path: Path) -> OperatorSettings:
    """The settings of a YAML file.

    Raises:
        SettingsError: with file, field, value and remedy.
    """
    return read_settings(path, OperatorSettings, "image and kafka: {bootstrapServers: host:9092}")
