"""The charts in a cluster: helm test, upgrade and rollback under running resources, and the one file without helm."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.conftest import READY_S, Installation, remove
from cluster.engine import NEXT, ROOT
from cluster.helm import HERE, RELEASES
from cluster.kubectl import Kubectl, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_200, func_only=True)]

START_S = 240.0  # 60 s measured on two cores that others used, too
OURS = ("-l", "app.kubernetes.io/managed-by=tidewarden-operator")
RESOURCES = """
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec:
  tenants: [shop]
  interval: 1m
  deletionPolicy: Delete   # so the operator holds on to it, until its topics are gone
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


def test_a_list_of_namespaces_is_served_and_no_other(installation: Installation, namespace: Kubectl) -> None:
    """With global.watchNamespaces the operator has rights in these alone and serves them; without it, all again."""
    served, other = namespace, namespace.elsewhere(f"{namespace.namespace}-other")
    values = copy.deepcopy(installation.values)
    values["global"]["watchNamespaces"] = [served.namespace]
    remove(other)
    other("create", "namespace", other.namespace)
    try:
        try:
            installation.helm.install(HERE, RELEASES[HERE], values, READY_S)
            other.apply(RESOURCES)  # first, so that it had all the time that the other one took
            served.apply(RESOURCES)
            served.wait("metricstream/shop", "alertpolicy/oncall", until="condition=Ready", timeout_s=START_S)
            assert "status" not in other.get("metricstream", "shop")
            account = f"--as=system:serviceaccount:{HERE}:{HERE}-operator"
            for kubectl, allowed in ((served, "yes"), (other, "no")):
                for right in ("list metricstreams.tidewarden.dev", "create deployments.apps", "list configmaps"):
                    assert kubectl("auth", "can-i", *right.split(), account, check=False).strip() == allowed, right
            log = installation.kubectl("logs", f"deployment/{HERE}-operator")
            assert "forbidden" not in log.lower(), log
            installation.helm("test", HERE, "--timeout=120s", timeout_s=150)
        finally:
            installation.helm.install(HERE, RELEASES[HERE], installation.values, READY_S)
        other.wait("metricstream/shop", until="condition=Accepted", timeout_s=START_S)
    finally:
        remove(other)


def test_uninstalling_strands_nothing(installation: Installation, namespace: Kubectl) -> None:
    """`helm uninstall` under running resources: nothing waits for an operator that is gone; their pods go with them."""
    namespace.apply(RESOURCES)
    namespace.wait("metricstream/shop", "alertpolicy/oncall", until="condition=Ready", timeout_s=START_S)
    assert namespace.get("metricstream", "shop")["metadata"]["finalizers"] == ["tidewarden.dev/cleanup"]
    try:
        installation.helm("uninstall", HERE, "--wait", f"--timeout={READY_S:.0f}s", timeout_s=READY_S)
        assert not namespace.get("metricstream", "shop")["metadata"].get("finalizers")
        left = installation.kubectl.items("deployments,statefulsets,jobs,pods")
        assert not [found["metadata"]["name"] for found in left if "operator" in found["metadata"]["name"]]
        namespace("delete", "metricstreams,alertpolicies", "--all", "--timeout=30s", timeout_s=60)
        until("their pods are gone", lambda: not namespace.items("deployments,pods,configmaps", *OURS), START_S)
    finally:
        installation.helm.install(HERE, RELEASES[HERE], installation.values, READY_S)
