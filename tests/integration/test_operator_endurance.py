"""The operator at rest, in a crowd, and with an API server that stalls, dies and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from servers.apiserver import ApiServer
from servers.operator import (
    Kube,
    OperatorProcess,
    StatusServer,
    detector,
    new_namespace,
    policy,
    run_pods,
    running_operator,
    settled,
    simulation,
    stream,
    until,
    with_crds,
)

pytestmark = pytest.mark.apiserver

ELASTICSEARCH = {"url": "http://127.0.0.1:2"}
REST_S = 60.0


def _crowd(count: int) -> list[dict[str, Any]]:
    """``count`` resources of all kinds: a stream, two detectors, a policy and a simulation for every five."""
    found: list[dict[str, Any]] = []
    for n in range(count // 5):
        name = f"s{n}"
        found += [stream(name), detector(f"a{n}", name), detector(f"b{n}", name, rollup=[])]
        found += [policy(f"p{n}", name), simulation(f"r{n}", name)]
    return found


def _all_seen(kube: Kube, namespace: str) -> Callable[[], bool]:
    """Whether the status of every resource speaks of its newest generation."""

    def seen() -> bool:
        return all(
            item.get("status", {}).get("observedGeneration") == item["metadata"]["generation"]
            for item in kube.all("tidewarden", namespace)
        )

    return seen


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_at_rest_it_writes_nothing_in_60_s_with_50_resources(
    own_api_server: ApiServer, pods_say: StatusServer, tmp_path: Path
) -> None:
    """The API server counts no write of anybody within a minute, though resources are resynced every five seconds,
    pods are asked every second, and some say the same again and again."""
    kube = with_crds(own_api_server)
    namespace = new_namespace(kube)
    facts = {"stream": "s0", "series": 10, "learning": 0, "ready": 10, "threshold": 0.8}
    pods_say.board = {"detectors": {"a0": facts}}
    with running_operator(kube.server, tmp_path, elasticsearch=ELASTICSEARCH, resyncS=5, countsS=1) as operator:
        kube.apply(namespace, *_crowd(50))
        until("all are seen", _all_seen(kube, namespace), timeout_s=180)
        run_pods(kube, namespace, kube.get("statefulset", namespace, "a0-detect"), pods_say.port)
        settled(operator)
        reconciled = operator.metric("tidewarden_operator_reconcile_seconds_count")
        before = kube.writes()
        time.sleep(REST_S)  # what is promised is that nothing happens in this time
        written = {name: count - before.get(name, 0) for name, count in kube.writes().items()}
        assert {name: count for name, count in written.items() if count} == {}
        assert operator.metric("tidewarden_operator_reconcile_seconds_count") - reconciled > 500, "it did not resync"
        assert operator.metric("tidewarden_operator_errors_total") == 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_200_resources_at_once_are_all_reconciled(own_api_server: ApiServer, tmp_path: Path) -> None:
    """Every one of 200 resources has its children and its status; time and memory are printed."""
    kube = with_crds(own_api_server)
    namespace = new_namespace(kube)
    with running_operator(kube.server, tmp_path, elasticsearch=ELASTICSEARCH) as operator:
        began = time.monotonic()
        kube.server.kubectl("apply", "-n", namespace, "-f", "-", given=yaml.safe_dump_all(_crowd(200)), timeout_s=300)
        applied_s = time.monotonic() - began
        until("all are seen", _all_seen(kube, namespace), timeout_s=600)
        took_s = time.monotonic() - began
        count = operator.metric("tidewarden_operator_applied_objects_total")
        print(  # noqa: T201 - the figures are a part of what is promised
            f"200 resources: applied in {applied_s:.1f} s, reconciled {took_s:.1f} s after the first, {count:.0f} "
            f"objects written, {operator.rss_bytes() / 1e6:.0f} MB resident"
        )
        assert len(kube.all("statefulsets", namespace)) == 80
        assert len(kube.all("jobs", namespace)) == 40
        assert operator.rss_bytes() < 400e6


@pytest.mark.timeout(600)
def test_it_goes_on_after_the_api_server_was_killed(own_api_server: ApiServer, tmp_path: Path) -> None:
    """The API server dies with −9 and comes back: what was applied and what was deleted afterwards is dealt with."""
    kube = with_crds(own_api_server)
    namespace = new_namespace(kube)
    with running_operator(kube.server, tmp_path, namespaces=[namespace]) as operator:
        kube.apply(namespace, stream("one"))
        until("it is there", lambda: kube.get("deployment", namespace, "one-ingest-push"))
        own_api_server.kill("kube-apiserver")
        own_api_server.start()
        kube.apply(namespace, stream("two"))
        until("it is there", lambda: kube.get("deployment", namespace, "two-ingest-push"), timeout_s=120)
        kube.run("delete", "deployment", "one-ingest-push", "-n", namespace)
        until("it is there again", lambda: kube.get("deployment", namespace, "one-ingest-push"), timeout_s=30)
        assert operator.stop() == 0


@pytest.mark.timeout(600)
def test_liveness_fails_while_a_watch_hangs_and_only_then(own_api_server: ApiServer, tmp_path: Path) -> None:
    """With a stalled API server /healthz fails once the watches are silent for too long, and names them; when it
    goes on, so do they, without a restart."""
    kube = with_crds(own_api_server)
    namespace = new_namespace(kube)
    with running_operator(kube.server, tmp_path, namespaces=[namespace], watchPatienceS=75) as operator:
        kube.apply(namespace, stream("one"))
        until("it is there", lambda: kube.get("deployment", namespace, "one-ingest-push"))
        assert operator.get("/healthz") == (200, "ok\n")
        own_api_server.freeze()
        try:
            told = until("liveness fails", lambda: _unhealthy(operator), timeout_s=180)
        finally:
            own_api_server.thaw()
        assert "the watch of" in told
        until("liveness is back", lambda: operator.get("/healthz")[0] == 200, timeout_s=180)
        kube.apply(namespace, stream("two"))
        until("it works", lambda: kube.get("deployment", namespace, "two-ingest-push"), timeout_s=60)


def _unhealthy(operator: OperatorProcess) -> str:
    status, told = operator.get("/healthz")
    return told if status == 503 else ""


OPTIONAL = {
    "scaledobjects.keda.sh": ("keda.sh", "v1alpha1", "ScaledObject"),
    "triggerauthentications.keda.sh": ("keda.sh", "v1alpha1", "TriggerAuthentication"),
    "podmonitors.monitoring.coreos.com": ("monitoring.coreos.com", "v1", "PodMonitor"),
    "prometheusrules.monitoring.coreos.com": ("monitoring.coreos.com", "v1", "PrometheusRule"),
}


def _optional_crd(name: str, group: str, version: str, kind: str) -> dict[str, Any]:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    served = {"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    plural = name.partition(".")[0]
    names = {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"}
    spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [served]}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
        "spec": spec,
    }


@pytest.mark.timeout(600)
def test_kinds_of_other_projects_are_used_where_they_exist(own_api_server: ApiServer, tmp_path: Path) -> None:
    """Without KEDA's and the Prometheus operator's kinds there is an autoscaler; once they are installed, the next
    resync replaces it by a ScaledObject on lag and adds a PodMonitor, and restarts no pod."""
    kube = with_crds(own_api_server)
    namespace = new_namespace(kube)
    kafka = {"bootstrapServers": "127.0.0.1:1", "securityProtocol": "SASL_SSL", "secretRef": {"name": "kafka"}}
    with running_operator(kube.server, tmp_path, namespaces=[namespace], kafka=kafka, resyncS=2):
        kube.apply(namespace, stream("shop"), detector("auto", "shop", autoscaling={"min": 1, "max": 4}))
        scaler = until("there is an autoscaler", lambda: kube.get("hpa", namespace, "auto-detect"))
        assert scaler["spec"]["scaleTargetRef"]["kind"] == "AnomalyDetector"
        generation = kube.get("statefulset", namespace, "auto-detect")["metadata"]["generation"]
        for name, (group, version, kind) in OPTIONAL.items():
            kube.apply("default", _optional_crd(name, group, version, kind))
        until("KEDA scales", lambda: kube.get("crd", "", "scaledobjects.keda.sh") and _scaled(kube, namespace))
        until("the autoscaler is gone", lambda: not kube.get("hpa", namespace, "auto-detect"))
        until("there is a PodMonitor", lambda: kube.all("podmonitors.monitoring.coreos.com", namespace))
        trigger = _scaled(kube, namespace)["spec"]["triggers"][0]
        assert trigger["metadata"]["consumerGroup"] == f"{namespace}.detect.auto"
        assert trigger["metadata"]["topic"] == f"{namespace}.shop.readings"
        assert trigger["authenticationRef"] == {"name": "auto-detect"}
        assert kube.get("statefulset", namespace, "auto-detect")["metadata"]["generation"] == generation


def _scaled(kube: Kube, namespace: str) -> dict[str, Any]:
    code, _, _ = kube.server.kubectl("get", "scaledobjects.keda.sh", "auto-detect", "-n", namespace)
    return kube.get("scaledobjects.keda.sh", namespace, "auto-detect") if code == 0 else {}
