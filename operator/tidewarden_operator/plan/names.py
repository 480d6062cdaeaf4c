"""Names, labels and owners of everything we make: the only place that decides them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tidewarden_operator.keys import Key, Manifest

MANAGER = "tidewarden-operator"
MANAGED_BY = "app.kubernetes.io/managed-by"
ROLE_LABEL = "app.kubernetes.io/component"
KIND_LABEL = "tidewarden.dev/kind"
RESOURCE_LABEL = "tidewarden.dev/resource"
HTTP_LABEL = "tidewarden.dev/http"
RULES_LABEL = "tidewarden.dev/rules"
CONFIG_HASH = "tidewarden.dev/config-hash"
APPLIED_HASH = "tidewarden.dev/applied-hash"
FINALIZER = "tidewarden.dev/cleanup"

# A StatefulSet's pods carry its name and a hash of ten characters and a dash in a label of 63.
LONGEST_NAME = 52


def child_name(owner: str, role: str, part: str = "") -> str:
    """Name of a workload: ``<owner>-<role>``, of a source's ``<owner>-ingest-<source>``.

    Different (owner, role, part) never share a name: where the plain form could be read in two ways, or is
    too long, a digest of the three follows.
    """
    plain = "-".join(text for text in (owner, role, part) if text)
    if "-ingest" not in owner and len(plain) <= LONGEST_NAME:
        return plain
    digest = hashlib.sha256(f"{owner}/{role}/{part}".encode()).hexdigest()[:8]
    return f"{plain[: LONGEST_NAME - 9].rstrip('-')}-{digest}"


def labels(key: Key, role: str) -> dict[str, str]:
    """Labels of every object that we make for ``key``."""
    return {
        "app.kubernetes.io/name": "tidewarden",
        "app.kubernetes.io/instance": key.name or "tidewarden",
        ROLE_LABEL: role,
        "app.kubernetes.io/part-of": "tidewarden",
        MANAGED_BY: MANAGER,
        KIND_LABEL: key.kind,
        RESOURCE_LABEL: key.name or "tidewarden",
    }


def owner_key(child: Manifest) -> Key | None:
    """Whose child an object is, by its labels; None if it is not one of ours."""
    metadata = child["metadata"]
    found = metadata.get("labels") or {}
    if found.get(MANAGED_BY) != MANAGER or KIND_LABEL not in found:
        return None
    kind = found[KIND_LABEL]
    name = "" if kind == "Namespace" else found.get(RESOURCE_LABEL, "")
    return Key(kind, metadata.get("namespace", ""), name)


def owner_reference(resource: Manifest, *, controller: bool = True) -> Manifest:
    """The reference by which Kubernetes removes a child with its owner."""
    return {
        "apiVersion": resource["apiVersion"],
        "kind": resource["kind"],
        "name": resource["metadata"]["name"],
        "uid": resource["metadata"]["uid"],
        **({"controller": True} if controller else {}),
    }


def digest(content: Any) -> str:
    """A short hash of JSON-able content, the same for the same content."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
