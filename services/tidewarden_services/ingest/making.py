"""From an entry of a stream's sources to the source itself, the same in one process and in pods."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tidewarden.clock import Clock
from tidewarden.credentials import http_client, secret_folder
from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.resources.metricstream import KafkaSource as KafkaSpec
from tidewarden.resources.metricstream import Source as SourceSpec
from tidewarden.settings import KafkaSettings
from tidewarden.sources import Source

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a source finds where it runs, besides its spec.

    Attributes:
        base_dir: what a file's relative path is relative to.
        kafka: default of kafka sources.
        prometheus_url: default of prometheus sources.
        secrets_dir: holds one folder for each Secret that a source names.
    """

    base_dir: Path
    kafka: KafkaSettings | None = None
    prometheus_url: str | None = None
    secrets_dir: Path | None = None


def make_source(
    stream: MetricStream, spec: SourceSpec, table: SeriesTable, clock: Clock, around: Surroundings
) -> Source:
    """The source that ``spec`` describes; ValueError names the field that lacks something, and the remedy."""
    try:
        return _made(stream, spec, table, clock, around)
    except ValueError as error:
        raise ValueError(f"MetricStream/{stream.metadata.name} source {spec.name!r}: {error}") from error


def _made(stream: MetricStream, spec: SourceSpec, table: SeriesTable, clock: Clock, around: Surroundings) -> Source:
    # Each kind brings libraries of its own, which a process that has no such source need not load.
    if spec.kafka is not None:
        from tidewarden.bus.kafka.raw import client_config
        from tidewarden_services.ingest.sources.kafka import KafkaSource

        return KafkaSource(stream, spec, table, clock, client_config(_brokers(stream, spec.kafka, around)))
    if spec.prometheus is not None:
        from tidewarden_services.ingest.sources.prometheus import PrometheusSource

        url = str(spec.prometheus.url) if spec.prometheus.url is not None else around.prometheus_url
        if url is None:
            raise ValueError("prometheus.url is absent and there is no default here: give the server's address")
        secret, folder = spec.prometheus.secret_ref, None
        if secret is not None:
            folder = secret_folder(around.secrets_dir, secret.name, "prometheus.secretRef")
        client = partial(http_client, folder, spec.prometheus.timeout / 1000)
        return PrometheusSource(stream, spec, table, clock, url, client)
    if spec.file is not None:
        from tidewarden_services.ingest.sources.file import FileSource

        return FileSource(stream, spec, table, around.base_dir)
    from tidewarden_services.ingest.sources.http import HttpSource

    return HttpSource(stream, spec, table, clock)


def _brokers(stream: MetricStream, spec: KafkaSpec, around: Surroundings) -> KafkaSettings:
    """The source's own brokers, else those of the process, else those of the stream."""
    own = stream.spec.kafka
    if spec.bootstrap_servers is not None:
        folder = None
        if spec.secret_ref is not None:
            folder = secret_folder(around.secrets_dir, spec.secret_ref.name, "kafka.secretRef")
        protocol = _protocol_of(folder) if own is None else own.security_protocol
        mechanism = "SCRAM-SHA-512" if own is None else own.sasl_mechanism
        return KafkaSettings(
            bootstrap_servers=spec.bootstrap_servers,
            security_protocol=protocol,
            sasl_mechanism=mechanism,
            secret_dir=folder,
        )
    if around.kafka is not None:
        return around.kafka
    if own is None:
        raise ValueError("kafka.bootstrapServers is absent and there is no default here: write host:port")
    folder = None
    if own.secret_ref is not None:
        folder = secret_folder(around.secrets_dir, own.secret_ref.name, "spec.kafka.secretRef")
    return KafkaSettings(
        bootstrap_servers=own.bootstrap_servers,
        security_protocol=own.security_protocol,
        sasl_mechanism=own.sasl_mechanism,
        secret_dir=folder,
    )


def _protocol_of(folder: Path | None) -> Protocol:
    """What a Secret's keys call for, where no spec.kafka says it: a password is never sent without encryption."""
    if folder is None:
        return "PLAINTEXT"
    return "SASL_SSL" if (folder / "username").is_file() else "SSL"
