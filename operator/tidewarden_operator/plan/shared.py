"""What the resources of a namespace share: API, peers, account, network policies, monitoring."""

from __future__ import annotations

from collections.abc import Callable

from tidewarden.resources import AnyResource, MetricStream
from tidewarden.settings import ElasticsearchSettings, KafkaSettings
from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan import config, monitoring, network, pods, scaling
from tidewarden_operator.plan.bundle import NamespaceBundle
from tidewarden_operator.plan.monitoring import RuleGroups
from tidewarden_operator.plan.names import labels
from tidewarden_operator.plan.pods import ACCOUNT, Workload
from tidewarden_operator.plan.site import Site

API = "tidewarden-api"
RulesOf = Callable[[str], RuleGroups]
"""Alert rules of a namespace."""


def children(namespace: str, bundle: NamespaceBundle, site: Site, rules: RulesOf) -> list[Manifest]:
    """All shared objects of a namespace that has streams; nothing where there are none."""
    if not bundle.streams:
        return []
    key = Key("Namespace", namespace)
    found = [
        _account(key),
        network.peers_service(key, config.PEERS),
        *network.policies(key, site),
        *monitoring.children(key, site, rules(namespace)),
    ]
    api = _api(key, bundle, site)
    if api is not None:
        found += [
            pods.config_map(api),
            network.service(api),
            pods.deployment(api, site, 1),
            scaling.disruption_budget(api),
        ]
    return found


def served(
    bundle: NamespaceBundle, site: Site
) -> tuple[list[MetricStream], KafkaSettings, ElasticsearchSettings | None]:
    """The streams that the namespace's API shows, and their connections.

    One API speaks with one Kafka and one Elasticsearch: where streams differ, the most common pair is served.
    """
    groups: dict[str, list[MetricStream]] = {}
    for _, stream in sorted(bundle.streams.items()):
        kafka, search = config.connections(stream, site.settings)
        groups.setdefault(f"{kafka!r} {search!r}", []).append(stream)
    chosen = max(groups.values(), key=len)
    return chosen, *config.connections(chosen[0], site.settings)


def _api(key: Key, bundle: NamespaceBundle, site: Site) -> Workload | None:
    streams, kafka, search = served(bundle, site)
    if search is None:
        return None
    shown = {stream.metadata.name for stream in streams}
    resources: list[AnyResource] = [r for r in bundle.all() if isinstance(r, MetricStream) and r.metadata.name in shown]
    resources += [r for r in bundle.all() if not isinstance(r, MetricStream) and r.spec.stream in shown]
    sources = {source.name for stream in streams for source in stream.spec.sources}
    return Workload(
        key=key,
        name=API,
        role="api",
        arguments=(),
        config=config.files("api", key.namespace, resources, kafka, search, site.settings, sources=sources),
        secrets=config.secrets_of(kafka, search, "api"),
        http=True,
    )


def _account(key: Key) -> Manifest:
    """The pods' account: no rights, no token."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": ACCOUNT, "namespace": key.namespace, "labels": labels(key, "account")},
        "automountServiceAccountToken": False,
    }
