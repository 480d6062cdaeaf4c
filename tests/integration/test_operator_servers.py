"""The operator with a real Kafka, and what becomes of topics and indices when resources go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from servers.apiserver import ApiServer
from servers.kafka import KafkaServer
from servers.operator import ROOT, Kube, detector, new_namespace, running_operator, stream, until, with_crds
from tidewarden.bus.kafka.admin import TopicAdmin
from tidewarden.settings import KafkaSettings

pytestmark = [pytest.mark.apiserver, pytest.mark.kafka]

NOBODY = "127.0.0.1:1"


def _admin(kafka: KafkaServer) -> TopicAdmin:
    return TopicAdmin(KafkaSettings(bootstrap_servers=kafka.address), patience_s=30)


def _topics_ready(kube: Kube, namespace: str, name: str) -> dict[str, Any]:
    return kube.condition("mstream", namespace, name, "TopicsReady")


@pytest.mark.timeout(600)
def test_kafka_down_at_apply_heals_by_itself(
    kube: Kube, namespace: str, own_kafka_server: KafkaServer, tmp_path: Path
) -> None:
    """With Kafka away the condition says where and what to do and pods are made all the same; when it comes, topics
    come with it; grown partitions, changed retention and a setting changed by hand are brought about."""
    own_kafka_server.kill()
    address = own_kafka_server.address
    told = {"namespaces": [namespace], "kafka": {"bootstrapServers": address}, "resyncS": 5}
    with running_operator(kube.server, tmp_path, **told):
        kube.apply(namespace, stream("shop", partitions=2), detector("auto", "shop"))
        until("it is said", lambda: _topics_ready(kube, namespace, "shop").get("reason") == "KafkaUnavailable")
        assert address in _topics_ready(kube, namespace, "shop")["message"]
        assert kube.get("statefulset", namespace, "auto-detect")
        own_kafka_server.start()
        until("topics are ready", lambda: _topics_ready(kube, namespace, "shop")["status"] == "True", timeout_s=90)
        admin = _admin(own_kafka_server)
        until("the detector has its topic", lambda: f"{namespace}.shop.auto.state" in admin.names(namespace))
        names = admin.names(f"{namespace}.shop.")
        flow = ["alerts", "anomalies", "auto.state", "readings", "rejected", "rollups", "scores", "state"]
        assert [name.removeprefix(f"{namespace}.shop.") for name in names] == flow
        readings = f"{namespace}.shop.readings"
        kube.apply(namespace, stream("shop", partitions=3, retention="2d"))
        until("partitions are grown", lambda: admin.partitions([readings]) == {readings: 3})
        until("retention is changed", lambda: _retention_ms(admin, readings) == 2 * 86_400_000)
        _set_retention(own_kafka_server, readings, 1_000)
        assert _retention_ms(admin, readings) == 1_000
        until("it is put right", lambda: _retention_ms(admin, readings) == 2 * 86_400_000)


def _retention_ms(admin: TopicAdmin, topic: str) -> int:
    return int(admin.describe([topic])[topic].config["retention.ms"])


def _set_retention(kafka: KafkaServer, topic: str, retention_ms: int) -> None:
    from tidewarden.topics import Topic

    partitions = _admin(kafka).partitions([topic])[topic]
    _admin(kafka).apply([Topic(topic, partitions, retention_ms=retention_ms)])


@pytest.fixture(scope="module")
def collecting(api_server_with_controllers: ApiServer) -> Kube:
    """An API server that collects garbage and deletes namespaces."""
    return with_crds(api_server_with_controllers)


def _gone(kube: Kube, kind: str, namespace: str, name: str) -> bool:
    return not kube.get(kind, namespace, name)


@pytest.mark.timeout(600)
def test_topics_stay_or_go_as_the_deletion_policy_says(
    collecting: Kube, kafka_server: KafkaServer, tmp_path: Path
) -> None:
    """Retain has no finalizer and leaves the topics; Delete takes all of them, a detector's snapshots included, and
    only the stream's own; children go with their owners."""
    namespace = new_namespace(collecting)
    told = {"namespaces": [namespace], "kafka": {"bootstrapServers": kafka_server.address}}
    admin = _admin(kafka_server)
    with running_operator(collecting.server, tmp_path, **told):
        collecting.apply(namespace, stream("keep"), stream("drop", deletionPolicy="Delete"), detector("auto", "drop"))
        for name in ("keep", "drop"):
            until("topics", lambda n=name: _topics_ready(collecting, namespace, n).get("status") == "True")
        until("the detector's topic", lambda: admin.names(f"{namespace}.drop.auto."))
        assert "finalizers" not in collecting.get("mstream", namespace, "keep")["metadata"]
        assert collecting.get("mstream", namespace, "drop")["metadata"]["finalizers"] == ["tidewarden.dev/cleanup"]
        collecting.run("delete", "mstream", "keep", "drop", "-n", namespace, "--timeout=30s")
        assert admin.names(f"{namespace}.drop.") == []
        assert len(admin.names(f"{namespace}.keep.")) == 7
        until("children are gone", lambda: _gone(collecting, "deployment", namespace, "keep-ingest-push"))
        until("the detector says why it rests", lambda: _refused(collecting, namespace) == "StreamNotFound")
        until("its pods are gone", lambda: _gone(collecting, "statefulset", namespace, "auto-detect"))
        collecting.run("delete", "adet", "auto", "-n", namespace, "--timeout=30s")


def _refused(kube: Kube, namespace: str) -> str:
    return str(kube.condition("adet", namespace, "auto", "Accepted").get("reason"))


@pytest.mark.timeout(600)
def test_a_namespace_is_never_stranded(collecting: Kube, tmp_path: Path) -> None:
    """With Kafka away a namespace is deleted within the operator's patience, and an Event says what was left behind;
    without an operator, `operator release` frees it."""
    first, second = new_namespace(collecting), new_namespace(collecting)
    told = {"kafka": {"bootstrapServers": NOBODY}, "cleanupPatienceS": 8}
    with running_operator(collecting.server, tmp_path, namespaces=[first, second], **told) as operator:
        for namespace in (first, second):
            collecting.apply(namespace, stream("drop", deletionPolicy="Delete"), detector("auto", "drop"))
            for kind, name in (("mstream", "drop"), ("adet", "auto")):
                until(
                    "it is held",
                    lambda n=namespace, k=kind, m=name: "finalizers" in collecting.get(k, n, m)["metadata"],
                )
        collecting.run("delete", "mstream", "drop", "-n", first, "--wait=false")
        until(
            "an Event tells of it",
            lambda: [e["message"] for e in collecting.all("events", first) if e["reason"] == "LeftBehind"],
        )
        collecting.run("delete", "namespace", first, "--timeout=60s")
        assert operator.stop() == 0
    collecting.run("delete", "namespace", second, "--wait=false")
    _release(collecting, tmp_path)
    collecting.run("wait", "--for=delete", f"namespace/{second}", "--timeout=60s")


def _release(kube: Kube, home: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "tidewarden_cli.main", "operator", "release"]
    command += ["--settings", str(home / "operator.yaml"), "--kubeconfig", str(kube.server.kubeconfig)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "released MetricStream/" in done.stdout
