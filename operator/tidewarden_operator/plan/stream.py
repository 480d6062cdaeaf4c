"""What a MetricStream becomes: an ingest workload for each source, one archive."""

from __future__ import annotations

from tidewarden.resources import MetricStream
from tidewarden.resources.metricstream import Source
from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan import config, network, pods
from tidewarden_operator.plan.names import child_name
from tidewarden_operator.plan.pods import Workload
from tidewarden_operator.plan.site import Site


def children(stream: MetricStream, site: Site) -> list[Manifest]:
    """All objects of the stream. While it is paused its sources rest; what they have delivered is still archived."""
    found: list[Manifest] = []
    for source in stream.spec.sources:
        workload = ingest(stream, source, site)
        found += [pods.config_map(workload), pods.deployment(workload, site, 0 if stream.spec.paused else 1)]
        if source.http is not None:
            found.append(network.service(workload))
    archive = _archive(stream, site)
    if archive is not None:
        found += [pods.config_map(archive), pods.deployment(archive, site, 1)]
    return found


def ingest(stream: MetricStream, source: Source, site: Site) -> Workload:
    """The workload of one source."""
    name = stream.metadata.name
    kafka, search = config.connections(stream, site.settings)
    secrets = config.secrets_of(kafka, search, "ingest")
    for kind in (source.kafka, source.prometheus):
        if kind is not None and kind.secret_ref is not None:
            secrets.append(kind.secret_ref.name)
    return Workload(
        key=Key("MetricStream", stream.metadata.namespace, name),
        name=child_name(name, "ingest", source.name),
        role="ingest",
        arguments=("--stream", name, "--source", source.name),
        config=config.files(
            "ingest", stream.metadata.namespace, [stream], kafka, search, site.settings, sources=[source.name]
        ),
        secrets=secrets,
        claim=None if source.file is None else source.file.claim,
        http=source.http is not None,
        part=source.name,
    )


def _archive(stream: MetricStream, site: Site) -> Workload | None:
    name = stream.metadata.name
    kafka, search = config.connections(stream, site.settings)
    if search is None:
        return None
    return Workload(
        key=Key("MetricStream", stream.metadata.namespace, name),
        name=child_name(name, "archive"),
        role="archive",
        arguments=("--stream", name),
        config=config.files("archive", stream.metadata.namespace, [stream], kafka, search, site.settings),
        secrets=config.secrets_of(kafka, search, "archive"),
    )
