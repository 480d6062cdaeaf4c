"""The story of the README, as one test: from the samples to nothing left."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from cluster.conftest import Installation
from cluster.engine import ROOT
from cluster.helm import HERE
from cluster.kubectl import Kubectl, condition, fetch, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_500, func_only=True)]

SAMPLES = ROOT / "manifests" / "samples" / "cluster"
KINDS = "metricstreams,metricsimulations,anomalydetectors,alertpolicies"
# Twelve processes start at once: 60 s to the first readings scored, 160 s to anomalies in Elasticsearch, 290 s to both
# simulations evaluated, measured on two cores that twenty other processes wanted. Each step is given that three times.
START_S = 240.0
PLAY_S = 600.0
END_S = 90  # seconds are what it takes; 25 measured with fifty processes waiting for two cores


def _all_ready(kubectl: Kubectl) -> bool:
    found = kubectl.items(KINDS)
    return bool(found) and all(condition(resource, "Ready").get("status") == "True" for resource in found)


def test_from_samples_to_anomalies_alerts_and_a_page_and_nothing_left(
    installation: Installation, namespace: Kubectl, told: Callable[[str, str], None]
) -> None:
    """What the README says of a cluster is so, from `kubectl apply` to `kubectl delete`."""
    kubectl, began = namespace, time.monotonic()
    kubectl("apply", "-f", str(SAMPLES))
    until("a first detector with series", lambda: _detectors(kubectl, "series"), START_S)
    told("apply to first readings scored", f"{time.monotonic() - began:.0f} s")
    until("anomalies in Elasticsearch", lambda: _anomalies(installation, kubectl.namespace), PLAY_S)
    told("apply to first anomaly in Elasticsearch", f"{time.monotonic() - began:.0f} s")
    until("everything Ready", lambda: _all_ready(kubectl), START_S)
    told("apply to all Ready", f"{time.monotonic() - began:.0f} s")
    sizes = installation.memory()

    shown = kubectl("get", "anomalydetectors")
    assert "shop-auto" in shown
    assert "cloud-auto" in shown
    _prometheus_scrapes_all_of_it(installation, kubectl)
    _an_alert_reaches_alertmanager(installation, kubectl.namespace)
    _the_page_shows_it(kubectl)

    for simulation in ("shop-rehearsal", "cloud-replay"):
        evaluation = until(f"{simulation} evaluated", lambda name=simulation: _evaluation(kubectl, name), PLAY_S)
        assert 0 < evaluation["precision"] <= 1, evaluation
        assert 0 < evaluation["recall"] <= 1, evaluation
        told(f"{simulation}", f"precision {evaluation['precision']:.2f}, recall {evaluation['recall']:.2f}")
    told("apply to both evaluated", f"{time.monotonic() - began:.0f} s")
    for pod, size in installation.memory().items():
        sizes[pod] = max(size, sizes.get(pod, 0))
    for pod, size in sorted(sizes.items()):
        if pod.startswith((f"{kubectl.namespace}/", f"{HERE}/")):
            told(f"memory of {pod.partition('/')[2]}", f"{size / 2**20:.0f} MiB")

    _readings_of_your_own(kubectl)
    statuses = [status for pod in kubectl.items("pods") for status in pod["status"]["containerStatuses"]]
    assert sum(status["restartCount"] for status in statuses) == 0, "a pod was started again, without anybody's asking"
    ended = time.monotonic()
    kubectl("delete", "-f", str(SAMPLES), f"--timeout={END_S}s", timeout_s=END_S + 30)
    told("kubectl delete", f"{time.monotonic() - ended:.0f} s")
    owned = "deployments,statefulsets,jobs,services,configmaps,poddisruptionbudgets,networkpolicies,pods"
    ours = ("-l", "app.kubernetes.io/managed-by=tidewarden-operator")
    until("no children left", lambda: not kubectl.items(owned, *ours), 90)
    theirs = f"{kubectl.namespace}."
    until("no topics left", lambda: not {name for name in installation.topics() if name.startswith(theirs)}, 60)
    until("no indices left", lambda: not {name for name in installation.indices if theirs in name}, 60)


def _detectors(kubectl: Kubectl, field: str) -> list[dict[str, Any]]:
    return [found for found in kubectl.items("anomalydetectors") if found.get("status", {}).get(field)]


def _anomalies(installation: Installation, namespace: str) -> int:
    found = installation.elasticsearch(f"tidewarden.{namespace}.*.anomalies/_count")
    return int(found["count"])


def _evaluation(kubectl: Kubectl, simulation: str) -> dict[str, Any] | None:
    found = kubectl.get("metricsimulation", simulation).get("status", {}).get("evaluation", [])
    return found[0] if found and found[0].get("precision") is not None else None


def _prometheus_scrapes_all_of_it(installation: Installation, kubectl: Kubectl) -> None:
    """Every running pod of ours is a target, and up."""
    with installation.kubectl.forward(f"service/{HERE}-prometheus", 9090) as url:

        def up() -> bool:
            found = fetch(f"{url}/api/v1/query?query=up%7Bnamespace%3D%22{kubectl.namespace}%22%7D")["data"]["result"]
            there = {sample["metric"]["pod"] for sample in found if sample["value"][1] == "1"}
            running = kubectl.items("pods", "--field-selector=status.phase=Running")
            return {pod["metadata"]["name"] for pod in running} <= there

        until("all pods are targets that are up", up, 60)


def _an_alert_reaches_alertmanager(installation: Installation, namespace: str) -> None:
    """Alertmanager shows an alert of this namespace, with what a person needs to know."""
    with installation.kubectl.forward(f"service/{HERE}-alertmanager", 9093) as url:
        ours = f"{url}/api/v2/alerts?filter=namespace%3D%22{namespace}%22"
        alerts = until("an alert at Alertmanager", lambda: fetch(ours), 60)
    assert alerts[0]["labels"].keys() >= {"stream", "policy", "severity"}, alerts[0]
    assert alerts[0]["annotations"]["summary"], alerts[0]


def _the_page_shows_it(kubectl: Kubectl) -> None:
    with kubectl.forward("service/tidewarden-api", 8000) as url:
        assert "<title>Tidewarden" in fetch(url)
        until("the API shows anomalies", lambda: fetch(f"{url}/api/anomalies?limit=5")["anomalies"], 30)


def _readings_of_your_own(kubectl: Kubectl) -> None:
    """The http source takes readings through a port-forward."""
    now = int(time.time() * 1000)
    reading = {"tenant": "shop", "cluster": "mine", "node": "n1", "timestamp": now, "metrics": {"latency_ms": 120.5}}
    with kubectl.forward("service/shop-ingest-push", 8000) as url:
        answer = until("a reading is taken", lambda: fetch(f"{url}/api/v1/readings", [reading]), 30)
        assert answer["accepted"] == 1, answer
