"""Settings of one process in a cluster: where Kafka, Elasticsearch and the others are.

The operator writes them into the ConfigMap beside the resources; a person may write them by hand. What
is secret is not here: `secret_dir` names a folder with one file a key, as Kubernetes mounts a Secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeVar

import yaml
from pydantic import Field, ValidationError

from tidewarden.resources.base import Model

METRICS_PORT = 9464  # the port that OpenTelemetry's Prometheus exporter made customary
HTTP_PORT = 8000


_M = TypeVar("_M", bound=Model)


class SettingsError(ValueError):
    """The settings cannot be read: says which file and field, and the remedy."""


class KafkaSettings(Model):
    """How to reach Kafka."""

    bootstrap_servers: str = Field(min_length=1, description="Brokers, as host:port,host:port.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How to speak with the brokers."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="How to log in, where the protocol has SASL."
    )
    secret_dir: Path | None = Field(
        None, description="Folder with the files username, password, ca.crt, tls.crt, tls.key, as far as needed."
    )
    replication_factor: int = Field(1, ge=1, le=32, description="Copies of each partition of the topics we make.")
    options: dict[str, str] = Field(default_factory=dict, description="Further librdkafka settings, for all clients.")


class ElasticsearchSettings(Model):
    """How to reach Elasticsearch."""

    url: str = Field(min_length=1, description="Address, http or https.")
    secret_dir: Path | None = Field(
        None, description="Folder with the file apiKey, or username and password, and ca.crt, as far as needed."
    )
    prefix: str = Field("tidewarden", pattern=r"^[a-z0-9][a-z0-9-]*$", description="Beginning of every index's name.")
    shards: int = Field(1, ge=1, le=128, description="Primary shards of each index.")
    replicas: int = Field(0, ge=0, le=16, description="Copies of each shard.")


class Settings(Model):
    """Everything a process in a cluster is told besides its resources."""

    namespace: str = Field("local", description="Namespace of the resources.")
    kafka: KafkaSettings
    elasticsearch: ElasticsearchSettings | None = Field(None, description="Absent: nothing is archived.")
    prometheus_url: str | None = Field(None, description="Default of prometheus sources.")
    alertmanager_url: str | None = Field(None, description="Default of alertmanager receivers.")
    secrets_dir: Path | None = Field(
        None, description="Folder with one folder for each Secret that a source or receiver names in secretRef."
    )
    peers: str | None = Field(
        None,
        description="host:port that resolves to every pod of the namespace; the API gathers their status there. "
        "Several, with commas between them, where processes share a host.",
    )
    page_url: str | None = Field(None, description="Address of the web page, for links in notifications.")
    host: str = Field("0.0.0.0", description="Address to listen on; :: for IPv6.")  # noqa: S104 - a pod's own
    metrics_port: int = Field(METRICS_PORT, ge=0, le=65535, description="Port of /metrics, /healthz, /readyz, /status.")
    http_port: int = Field(HTTP_PORT, ge=0, le=65535, description="Port of the API and of push sources.")


def load_settings(path: Path) -> Settings:
    """The settings of a YAML file; `SettingsError` names file, field, value and remedy."""
    return read_settings(path, Settings, "kafka: {bootstrapServers: host:9092}")


def read_settings(path: Path, model: type[_M], at_least: str) -> _M:
    """A YAML file as ``model``; ``at_least`` is what a file without anything is told to write."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}: give --settings a file that can be read") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{path} is no mapping: write {at_least} at least")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{path}: {field}: {first['msg']} (it is {first['input']!r})") from error
