"""The CustomResourceDefinitions of the four kinds, made from the same models as the parsers and the reference.

Pure functions: the same code gives the same text. `tidewarden_cli.reference` writes it to ``crds/`` and into the
chart ``tidewarden-crds``.
"""

from __future__ import annotations

from typing import Any

import yaml

from tidewarden.resources.base import API_VERSION
from tidewarden.resources.crd.columns import SHOWN
from tidewarden.resources.crd.rules import NAME
from tidewarden.resources.crd.schema import plain, structural
from tidewarden.resources.loader import KINDS
from tidewarden.resources.schema import fields_of
from tidewarden.resources.status import STATUSES

GROUP, VERSION = API_VERSION.split("/")
CATEGORY = "tidewarden"
_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


def custom_resource_definition(kind: str) -> dict[str, Any]:
    """The ``apiextensions.k8s.io/v1`` manifest of one kind."""
    shown = SHOWN[kind]
    subresources: dict[str, Any] = {"status": {}}
    if shown.scale:
        subresources["scale"] = dict(_SCALE)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{shown.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/name": "tidewarden", "app.kubernetes.io/part-of": "tidewarden"},
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": shown.plural,
                "singular": kind.lower(),
                "shortNames": [shown.short],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [column.document() for column in shown.columns],
                    "subresources": subresources,
                    "schema": {"openAPIV3Schema": _schema(kind)},
                }
            ],
        },
    }


def to_yaml(definition: dict[str, Any]) -> str:
    """The manifest as text, fields in their order."""
    return yaml.dump(definition, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _schema(kind: str) -> dict[str, Any]:
    model = KINDS[kind]
    spec = fields_of(model)["spec"].model
    assert spec is not None, "every kind has a spec"
    told = {name: {"type": "string", "description": text} for name, text in _ENVELOPE.items()}
    return {
        "description": plain(model.__doc__ or ""),
        "type": "object",
        "required": ["spec"],
        "properties": {
            **told,
            "metadata": {"type": "object"},
            "spec": {"description": _SPECS[kind], **structural(spec)},
            "status": {
                "description": "What the operator says of it; nobody else writes it.",
                **structural(STATUSES[kind], rules=False),
            },
        },
        "x-kubernetes-validations": [NAME.document()],
    }


_ENVELOPE = {
    "apiVersion": f"Version of the format: {API_VERSION}.",
    "kind": "The kind of resource.",
}
_SPECS = {
    "MetricStream": "Whose readings are taken, from where, and how long they are kept.",
    "MetricSimulation": "What is played, how fast, and which detectors it evaluates.",
    "AnomalyDetector": "Which series are watched, by which model, and what counts as an anomaly.",
    "AlertPolicy": "Which anomalies become alerts, who hears of them, and when not.",
}


class _Dumper(yaml.SafeDumper):
    """YAML without anchors: equal parts are written out each time."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the name is yaml's
        return True
