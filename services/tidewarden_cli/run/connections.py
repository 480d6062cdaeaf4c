"""Which servers a stream uses: the installation's, unless it names its own."""

from __future__ import annotations

from pathlib import Path

from tidewarden.resources import MetricStream
from tidewarden.settings import ElasticsearchSettings, KafkaSettings, Settings


class MistakeError(ValueError):
    """Something in the files or arguments keeps a role from running: names it, and the remedy. Exit code 2."""


def kafka_of(settings: Settings, stream: MetricStream) -> KafkaSettings:
    """How to reach the Kafka of a stream."""
    own = stream.spec.kafka
    if own is None:
        return settings.kafka
    secret = None if own.secret_ref is None else _secret(settings, own.secret_ref.name, stream, "kafka")
    return settings.kafka.model_copy(
        update={
            "bootstrap_servers": own.bootstrap_servers,
            "security_protocol": own.security_protocol,
            "sasl_mechanism": own.sasl_mechanism,
            "secret_dir": secret,
        }
    )


def elasticsearch_of(settings: Settings, stream: MetricStream) -> ElasticsearchSettings | None:
    """How to reach the Elasticsearch of a stream; None where nothing is archived."""
    own = stream.spec.elasticsearch
    if own is None:
        return settings.elasticsearch
    secret = None if own.secret_ref is None else _secret(settings, own.secret_ref.name, stream, "elasticsearch")
    given = settings.elasticsearch or ElasticsearchSettings(url=str(own.url))
    return given.model_copy(update={"url": str(own.url).rstrip("/"), "secret_dir": secret})


def _secret(settings: Settings, name: str, stream: MetricStream, server: str) -> Path:
    if settings.secrets_dir is None:
        raise MistakeError(
            f"MetricStream/{stream.metadata.name} spec.{server}.secretRef.name: {name!r} is not mounted: "
            "give the settings a secretsDir that has a folder of this name"
        )
    return settings.secrets_dir / name
