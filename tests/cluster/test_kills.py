"""Pods of the data plane killed with SIGKILL in mid-stream: the anomalies are those of an undisturbed run."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from cluster.conftest import Installation, remove
from cluster.kubectl import Kubectl, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1_500, func_only=True)]

START_S = 240.0
PLAY_S = 600.0  # the time below, once more for restarts, and three times that
KILLS = 6  # each of the roles once: a second kill of the same container would wait 20 s for kubelet
PLAYS_S = 120  # that long undisturbed: a kill every 20 s, of which 10 s pass until the status tells what was played
MANY = 10
FIRST_AFTER = 200  # readings of each series: past the warm-up of 120, so that there is state to lose
RESOURCES = """
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec: {tenants: [shop], interval: 1m, partitions: 2, deletionPolicy: Delete}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: shop-auto}
spec: {stream: shop, seasonality: [1d], alerting: {threshold: 0.5}}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: shop-oncall}
spec: {stream: shop}
---
apiVersion: tidewarden.dev/v1alpha1
kind: MetricSimulation
metadata: {name: shop-rehearsal}
spec:
  stream: shop
  seed: 11
  start: START
  fleet: {tenants: [shop], clusters: 2, nodes: 4, metrics: [latency_ms, error_rate]}
  points: 1800
  speed: SPEED
  anomalies: {ratio: 0.5}
  evaluate: [shop-auto]
"""


def _played(kubectl: Kubectl) -> int:
    return int(kubectl.get("metricsimulation", "shop-rehearsal").get("status", {}).get("played", 0))


def _ended(kubectl: Kubectl) -> bool:
    status = kubectl.get("metricsimulation", "shop-rehearsal").get("status", {})
    return status.get("phase") == "Completed" and bool(status.get("evaluation"))


def _stored(installation: Installation, namespace: str) -> list[str]:
    """Every anomaly in the store, whole, as it was last said."""
    found = installation.elasticsearch(f"tidewarden.{namespace}.shop.anomalies/_search?size=10000")
    return sorted(json.dumps(hit["_source"], sort_keys=True) for hit in found["hits"]["hits"])


def _archived(kubectl: Kubectl) -> bool:
    """Nothing waits to be written; the status is seconds old, the evaluation before it already needed every score."""
    return kubectl.get("metricstream", "shop").get("status", {}).get("lagRecords") == 0


def _play(kubectl: Kubectl, start: str, speed: int) -> None:
    kubectl.apply(RESOURCES.replace("START", start).replace("SPEED", str(speed)))


def _kill_some(installation: Installation, kubectl: Kubectl) -> list[str]:
    """Kill one random pod after another while the simulation plays; who was killed."""
    assert installation.kind is not None
    chance, killed = random.Random(5), []
    while len(killed) < KILLS and not _ended(kubectl):
        running = kubectl.items("pods", "--field-selector=status.phase=Running")
        ready = [pod for pod in running if all(status["ready"] for status in pod["status"]["containerStatuses"])]
        roles = [pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in ready]
        fewest = min((killed.count(role) for role in roles), default=0)
        candidates = [pod for pod, role in zip(ready, roles, strict=True) if killed.count(role) == fewest]
        if not candidates:
            continue
        victim: dict[str, Any] = chance.choice(candidates)
        role = victim["metadata"]["labels"]["app.kubernetes.io/component"]
        before = _played(kubectl)
        if installation.kind.kill(victim["metadata"]["uid"]):
            killed.append(role)
            # The next when the stream has moved on, or when this one is back: whichever shows that something lives.
            until("life after a kill", lambda at=before: _played(kubectl) > at or _ended(kubectl), START_S)
    return killed


def test_killed_pods_change_no_anomaly(
    installation: Installation, namespace: Kubectl, told: Callable[[str, str], None], request: pytest.FixtureRequest
) -> None:
    """The same simulation twice, once left alone and once under fire: the same anomalies, to the last digit."""
    if installation.kind is None:
        pytest.skip("processes are killed on the node, which only kind lets us reach")
    stormy, calm = namespace, namespace.elsewhere(f"{namespace.namespace}-calm")
    remove(calm)
    calm("create", "namespace", calm.namespace)
    try:
        start = time.strftime("%Y-%m-%dT%H:%M:00Z", time.gmtime(time.time() - 1_800 * 60))
        _play(calm, start, 0)
        until("the undisturbed run ends", lambda: _ended(calm), START_S + PLAY_S)
        _play(stormy, start, 1_800 * 60 // PLAYS_S)
        until("it plays", lambda: _played(stormy) > FIRST_AFTER, START_S)
        killed = _kill_some(installation, stormy)
        until("the run under fire ends", lambda: _ended(stormy), PLAY_S)
        told("killed in mid-stream", f"{len(killed)}: {', '.join(killed)}")
        assert len(killed) == KILLS
        until("all of it is archived", lambda: _archived(calm) and _archived(stormy), START_S)
        expected = _stored(installation, calm.namespace)
        assert len(expected) >= MANY, "too few anomalies to tell anything"
        assert _stored(installation, stormy.namespace) == expected
        told("anomalies, the same with and without kills", str(len(expected)))
    finally:
        if not request.config.getoption("keep"):
            remove(calm)
