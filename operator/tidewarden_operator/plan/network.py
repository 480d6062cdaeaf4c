"""Services and who may reach whom.

Ingress is closed but for what is needed. Egress is left open unless the settings say otherwise: a policy sees
addresses and ports behind the Service, and brokers name further addresses themselves; the operator knows none of
them, and a rule by guess would cut pods off.
"""

from __future__ import annotations

from tidewarden.settings import HTTP_PORT, METRICS_PORT
from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan.names import HTTP_LABEL, MANAGED_BY, MANAGER, labels
from tidewarden_operator.plan.pods import Workload
from tidewarden_operator.plan.site import Site


def service(workload: Workload, *, headless: bool = False) -> Manifest:
    """A stable name for a workload's pods: on the HTTP port, or only for their names where headless."""
    spec: Manifest = {
        "selector": workload.selector,
        "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": "http", "protocol": "TCP"}],
    }
    if headless:
        spec = {
            "selector": workload.selector,
            "clusterIP": "None",
            "ports": [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"}],
        }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": workload.name, "namespace": workload.key.namespace, "labels": workload.labels},
        "spec": spec,
    }


def peers_service(key: Key, name: str) -> Manifest:
    """All pods of the namespace, also those not ready: the API asks them how they are."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": key.namespace, "labels": labels(key, "peers")},
        "spec": {
            "selector": {MANAGED_BY: MANAGER},
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "ports": [{"name": "metrics", "port": METRICS_PORT, "targetPort": "metrics", "protocol": "TCP"}],
        },
    }


def policies(key: Key, site: Site) -> list[Manifest]:
    """Two for a namespace: status and metrics for those who ask, HTTP for everybody."""
    settings = site.settings
    spaces = list(dict.fromkeys([settings.namespace, *settings.monitoring_namespaces]))
    watchers: list[Manifest] = [{"podSelector": {"matchLabels": {MANAGED_BY: MANAGER}}}]
    watchers += [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space}}} for space in spaces]
    everyone: Manifest = {
        "podSelector": {"matchLabels": {MANAGED_BY: MANAGER}},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": watchers, "ports": [{"port": METRICS_PORT, "protocol": "TCP"}]}],
    }
    if settings.egress is not None:
        everyone["policyTypes"] = ["Ingress", "Egress"]
        everyone["egress"] = settings.egress
    http: Manifest = {
        "podSelector": {"matchLabels": {MANAGED_BY: MANAGER, HTTP_LABEL: "true"}},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": HTTP_PORT, "protocol": "TCP"}]}],
    }
    return [_policy(key, "tidewarden-pods", everyone), _policy(key, "tidewarden-http", http)]


def _policy(key: Key, name: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": key.namespace, "labels": labels(key, "network")},
        "spec": spec,
    }
