"""The two files a pod is told: resources that concern it, and settings.

They hold only what concerns the pod, so that an unrelated change restarts nobody: no replicas, no pause, no
retention for those who keep nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from tidewarden.resources import AnyResource, MetricStream
from tidewarden.resources.metricstream import Source
from tidewarden.settings import ElasticsearchSettings, KafkaSettings, Settings
from tidewarden_operator.settings import OperatorSettings, Role

SECRETS = Path("/etc/tidewarden/secrets")
CLAIM = Path("/data")  # where a file source's volume is mounted
PEERS = "tidewarden-peers"
_ARCHIVING: frozenset[Role] = frozenset({"archive", "api", "simulate"})
# What the operator acts upon itself; a pod does not know it.
_OPERATORS = {
    "MetricStream": {"deletionPolicy", "paused", "kafka", "elasticsearch"},
    "MetricSimulation": {"paused"},
    "AnomalyDetector": {"paused", "replicas", "autoscaling"},
    "AlertPolicy": {"paused"},
}
_KEEPERS_ONLY = {"archive", "retention"}


def connections(stream: MetricStream, site: OperatorSettings) -> tuple[KafkaSettings, ElasticsearchSettings | None]:
    """How a stream's pods reach Kafka and Elasticsearch: by the stream's own connections, or the installation's."""
    own = stream.spec.kafka
    if own is not None:
        kafka = KafkaSettings(
            bootstrap_servers=own.bootstrap_servers,
            security_protocol=own.security_protocol,
            sasl_mechanism=own.sasl_mechanism,
            secret_dir=None if own.secret_ref is None else SECRETS / own.secret_ref.name,
            replication_factor=site.kafka.replication_factor,
            options=site.kafka.options,
        )
    else:
        kafka = installed_kafka(site)
    search = stream.spec.elasticsearch
    if search is None:
        return kafka, installed_elasticsearch(site)
    shared = site.elasticsearch.model_dump(include={"prefix", "shards", "replicas"}) if site.elasticsearch else {}
    secret = None if search.secret_ref is None else SECRETS / search.secret_ref.name
    return kafka, ElasticsearchSettings(url=str(search.url), secret_dir=secret, **shared)


def installed_kafka(site: OperatorSettings) -> KafkaSettings:
    """The installation's Kafka, as pods see it."""
    ref = site.kafka.secret_ref
    content = site.kafka.model_dump(exclude={"secret_dir", "secret_ref"})
    return KafkaSettings(**content, secret_dir=None if ref is None else SECRETS / ref.name)


def installed_elasticsearch(site: OperatorSettings) -> ElasticsearchSettings | None:
    """The installation's Elasticsearch, as pods see it."""
    if site.elasticsearch is None:
        return None
    ref = site.elasticsearch.secret_ref
    content = site.elasticsearch.model_dump(exclude={"secret_dir", "secret_ref"})
    return ElasticsearchSettings(**content, secret_dir=None if ref is None else SECRETS / ref.name)


def files(
    role: Role,
    namespace: str,
    resources: Sequence[AnyResource],
    kafka: KafkaSettings,
    elasticsearch: ElasticsearchSettings | None,
    site: OperatorSettings,
    *,
    sources: Iterable[str] = (),
) -> dict[str, str]:
    """Content of a workload's ConfigMap.

    Args:
        role: of the workload.
        namespace: of the resources.
        resources: those that concern it.
        kafka: see `connections`.
        elasticsearch: see `connections`; left out for roles that do not use it.
        site: settings of the operator.
        sources: names of the sources that concern it.
    """
    kept = set(sources)
    documents = [_document(resource, role, kept) for resource in resources]
    settings = Settings(
        namespace=namespace,
        kafka=kafka,
        elasticsearch=elasticsearch if role in _ARCHIVING else None,
        prometheus_url=site.prometheus_url if role == "ingest" else None,
        alertmanager_url=site.alertmanager_url if role == "alert" else None,
        secrets_dir=SECRETS if role in {"ingest", "alert"} else None,
        peers=f"{PEERS}.{namespace}.svc:{Settings.model_fields['metrics_port'].default}" if role == "api" else None,
        page_url=site.page_url if role == "alert" else None,
    )
    told = settings.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return {
        "resources.yaml": yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True),
        "settings.yaml": yaml.safe_dump(told, sort_keys=True, allow_unicode=True),
    }


def secrets_of(kafka: KafkaSettings, elasticsearch: ElasticsearchSettings | None, role: Role) -> list[str]:
    """Names of the Secrets that a role needs to reach the servers."""
    folders = [kafka.secret_dir]
    if elasticsearch is not None and role in _ARCHIVING:
        folders.append(elasticsearch.secret_dir)
    return [folder.name for folder in folders if folder is not None]


def _document(resource: AnyResource, role: Role, sources: set[str]) -> dict[str, Any]:
    content = resource.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    hidden = set(_OPERATORS[resource.kind])
    if role not in {"archive", "api"}:
        hidden |= _KEEPERS_ONLY
    if resource.kind == "AnomalyDetector" and role != "detect":
        hidden.add("training")
    spec = {name: value for name, value in content["spec"].items() if name not in hidden}
    if isinstance(resource, MetricStream):
        spec["sources"] = [_source(source) for source in resource.spec.sources if source.name in sources]
    metadata: dict[str, Any] = {"name": resource.metadata.name, "namespace": resource.metadata.namespace}
    created = resource.metadata.creation_timestamp
    if resource.kind == "MetricSimulation" and created is not None:
        metadata["creationTimestamp"] = created.isoformat()  # an absent start is derived from it
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": metadata,
        "spec": spec,
    }


def _source(source: Source) -> dict[str, Any]:
    content: dict[str, Any] = source.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_unset=True)
    if source.file is not None and source.file.claim is not None:
        content["file"]["path"] = str(CLAIM / source.file.path.lstrip("/"))
        del content["file"]["claim"]
    return content
