"""How Prometheus finds a namespace's pods and rules.

Where the kinds of the Prometheus operator exist: a PodMonitor and a PrometheusRule. Else pods carry scrape
annotations (they always do, see `plan.pods`) and the rules lie in a ConfigMap with the label that says so.
"""

from __future__ import annotations

import json
from typing import Any

import yaml

from tidewarden_operator.keys import Key, Manifest
from tidewarden_operator.plan.names import MANAGED_BY, MANAGER, RULES_LABEL, labels
from tidewarden_operator.plan.site import Site

RuleGroups = list[dict[str, Any]]


def children(key: Key, site: Site, groups: RuleGroups) -> list[Manifest]:
    """Monitoring objects of a namespace; ``groups`` are Prometheus' rule groups, empty: no rules."""
    found: list[Manifest] = []
    if "PodMonitor" in site.kinds:
        found.append(_pod_monitor(key))
    if groups and "PrometheusRule" in site.kinds:
        found.append(_object("monitoring.coreos.com/v1", "PrometheusRule", key, {"spec": {"groups": groups}}))
    elif groups:
        plain = json.loads(json.dumps(groups))  # YAML would write shared parts as anchors
        rules = _object("v1", "ConfigMap", key, {"data": {"tidewarden.yaml": yaml.safe_dump({"groups": plain})}})
        rules["metadata"]["labels"][RULES_LABEL] = "true"
        found.append(rules)
    return found


def _pod_monitor(key: Key) -> Manifest:
    role = {"sourceLabels": ["__meta_kubernetes_pod_label_app_kubernetes_io_component"], "targetLabel": "role"}
    spec = {
        "selector": {"matchLabels": {MANAGED_BY: MANAGER}},
        "jobLabel": "app.kubernetes.io/name",  # rules and dashboards know our processes by job="tidewarden"
        "podMetricsEndpoints": [
            {"port": "metrics", "path": "/metrics", "interval": "15s", "relabelings": [role]},
        ],
    }
    return _object("monitoring.coreos.com/v1", "PodMonitor", key, {"spec": spec})


def _object(version: str, kind: str, key: Key, content: Manifest) -> Manifest:
    name = "tidewarden-rules" if kind != "PodMonitor" else "tidewarden-pods"
    metadata = {"name": name, "namespace": key.namespace, "labels": labels(key, "monitoring")}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **content}
