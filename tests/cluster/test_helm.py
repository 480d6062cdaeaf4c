"""The charts in a cluster: helm test, upgrade and rollback under running resources, and the one file without helm."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.conftest import READY_S, Installation
from cluster.engine import NEXT, ROOT
from cluster.helm import HERE, RELEASES
from cluster.kubectl import Kubectl, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

START_S = 180.0
RESOURCES = """
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec:
  tenants: [shop]
  interval: 1m
  sources: [{name: push, http: {}}]
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: oncall}
spec: {stream: shop}
"""


def test_helm_test_finds_the_installation_whole(installation: Installation) -> None:
    """`helm test` passes, and says what it looked at."""
    told = installation.helm("test", HERE, "--logs", "--timeout=120s", timeout_s=150)
    assert "Phase:          Succeeded" in told


def test_upgrade_and_rollback_carry_running_resources_along(installation: Installation, namespace: Kubectl) -> None:
    """An upgrade to another image rolls the pods of the resources too; a rollback brings them back; none is remade."""
    if installation.kind is None:
        pytest.skip("a second image is loaded into kind only")
    kubectl = namespace
    kubectl.apply(RESOURCES)
    before = installation.values["global"]["image"]["tag"]

    def images() -> set[str]:
        pods = kubectl.items("pods", "--field-selector=status.phase=Running")
        return {container["image"].rpartition(":")[2] for pod in pods for container in pod["spec"]["containers"]}

    def ready() -> bool:
        kubectl("wait", "deployments", "--all", "--for=condition=Available", "--timeout=10s")
        return True

    until("deployments", lambda: len(kubectl.items("deployments")) >= 4, START_S)
    until("all available", ready, START_S)
    uids = {found["metadata"]["uid"] for found in kubectl.items("deployments")}
    assert images() == {before}

    newer: dict[str, Any] = copy.deepcopy(installation.values)
    newer["global"]["image"]["tag"] = f"{before}{NEXT}"
    try:
        installation.helm.install(HERE, RELEASES[HERE], newer, READY_S)
        until("pods of the next image", lambda: images() == {f"{before}{NEXT}"}, START_S)
        until("all available", ready, START_S)
    finally:
        installation.helm("rollback", HERE, "--wait", f"--timeout={READY_S:.0f}s", timeout_s=READY_S)
    until("pods of the image before", lambda: images() == {before}, START_S)
    until("all available", ready, START_S)
    assert {found["metadata"]["uid"] for found in kubectl.items("deployments")} == uids


def test_the_one_file_is_accepted_by_the_api_server(installation: Installation) -> None:
    """manifests/install.yaml is valid to the last field."""
    file = ROOT / "manifests" / "install.yaml"
    installation.kubectl("apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", str(file))
