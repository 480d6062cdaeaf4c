"""The operator as a process on a real API server without nodes: children, pauses, upgrades, mending, kills."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from servers.operator import (
    Kube,
    OperatorProcess,
    detector,
    new_namespace,
    policy,
    running_operator,
    settled,
    simulation,
    stream,
    until,
)

pytestmark = pytest.mark.apiserver

CHILDREN = "deployments,statefulsets,jobs,services,configmaps,serviceaccounts,networkpolicies,poddisruptionbudgets,hpa"
ELASTICSEARCH = {"url": "http://127.0.0.1:2"}


def _shop() -> list[dict[str, Any]]:
    return [
        stream("shop"),
        detector("auto", "shop", autoscaling={"min": 1, "max": 4}),
        simulation("rehearsal", "shop", evaluate=["auto"]),
        policy("oncall", "shop"),
    ]


def _children(kube: Kube, namespace: str) -> dict[str, dict[str, Any]]:
    """Children by kind and name, less what every object has of its own."""
    found = {}
    for child in kube.all(CHILDREN, namespace):
        if child["metadata"].get("labels", {}).get("app.kubernetes.io/managed-by") != "tidewarden-operator":
            continue
        metadata = child["metadata"]
        for own in ("uid", "resourceVersion", "creationTimestamp", "generation", "namespace", "managedFields"):
            metadata.pop(own, None)
        child.pop("status", None)
        found[f"{child['kind']}/{metadata['name']}"] = child
    return found


def _names(kube: Kube, namespace: str) -> set[str]:
    return set(_children(kube, namespace))


SHOP = {
    "ConfigMap/auto-detect",
    "ConfigMap/auto-rollup",
    "ConfigMap/oncall-alert",
    "ConfigMap/shop-archive",
    "ConfigMap/shop-ingest-push",
    "ConfigMap/tidewarden-api",
    "ConfigMap/tidewarden-rules",
    "Deployment/auto-rollup",
    "Deployment/oncall-alert",
    "Deployment/shop-archive",
    "Deployment/shop-ingest-push",
    "Deployment/tidewarden-api",
    "HorizontalPodAutoscaler/auto-detect",
    "NetworkPolicy/tidewarden-http",
    "NetworkPolicy/tidewarden-pods",
    "PodDisruptionBudget/auto-detect",
    "PodDisruptionBudget/tidewarden-api",
    "Service/auto-detect",
    "Service/shop-ingest-push",
    "Service/tidewarden-api",
    "Service/tidewarden-peers",
    "ServiceAccount/tidewarden-pods",
    "StatefulSet/auto-detect",
}


def _is_shop(names: set[str]) -> bool:
    """Whether these are the children of `_shop`; what a Job is called depends on its scenario."""
    jobs = {name for name in names if "rehearsal-simulate-" in name}
    return names - jobs == SHOP and {name.split("/")[0] for name in jobs} == {"Job", "ConfigMap"}


def test_four_resources_become_their_children(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """Every workload, service, policy and budget appears, owned by its resource, and pods pass restricted admission."""
    with running_operator(kube.server, tmp_path, namespaces=[namespace], elasticsearch=ELASTICSEARCH):
        kube.apply(namespace, *_shop())
        until("all children are there", lambda: _is_shop(_names(kube, namespace)))
        children = _children(kube, namespace)
        for name, child in children.items():
            owners = [owner["kind"] for owner in child["metadata"]["ownerReferences"]]
            shared = "tidewarden-" in name
            assert owners == (["MetricStream"] if shared or "shop-" in name else owners), name
            assert len(owners) == 1, name
        for child in children.values():
            if child["kind"] in {"Deployment", "StatefulSet", "Job"}:
                template = child["spec"]["template"]
                pod = {"apiVersion": "v1", "kind": "Pod", "spec": {**template["spec"], "restartPolicy": "Never"}}
                pod["metadata"] = {"name": "probe"}
                kube.run("create", "-n", namespace, "--dry-run=server", "-f", "-", given=json.dumps(pod))


def test_a_wrong_reference_is_told_in_the_status_and_heals(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """A detector of an unknown stream says which streams there are, and is accepted once the stream exists."""
    with running_operator(kube.server, tmp_path, namespaces=[namespace]):
        kube.apply(namespace, detector("auto", "shop"), stream("shops"))
        told = until(
            "it is refused", lambda: kube.condition("anomalydetector", namespace, "auto", "Accepted").get("message")
        )
        assert told == "spec.stream: no MetricStream is called 'shop': did you mean 'shops'?"
        kube.apply(namespace, stream("shop"))
        until(
            "it is accepted",
            lambda: kube.condition("anomalydetector", namespace, "auto", "Accepted").get("status") == "True",
        )
        until("its pods are planned", lambda: kube.get("statefulset", namespace, "auto-detect"))


def test_children_deleted_or_edited_by_hand_are_mended_within_5_s(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """A deleted Deployment comes back, a scaled one and an edited ConfigMap are put right, each within five seconds."""
    with running_operator(kube.server, tmp_path, namespaces=[namespace], elasticsearch=ELASTICSEARCH):
        kube.apply(namespace, *_shop())
        until("all children are there", lambda: _is_shop(_names(kube, namespace)))
        uid = kube.get("deployment", namespace, "shop-archive")["metadata"]["uid"]
        kube.run("delete", "deployment", "shop-archive", "-n", namespace)
        until(
            "it is there again",
            lambda: kube.get("deployment", namespace, "shop-archive").get("metadata", {}).get("uid", uid) != uid,
            timeout_s=5,
        )
        kube.run("scale", "deployment", "auto-rollup", "--replicas=3", "-n", namespace)
        until(
            "it has one replica again",
            lambda: kube.get("deployment", namespace, "auto-rollup")["spec"]["replicas"] == 1,
            timeout_s=5,
        )
        kube.run("patch", "configmap", "auto-detect", "-n", namespace, "-p", '{"data":{"settings.yaml":"nothing"}}')
        until(
            "its content is right again",
            lambda: kube.get("configmap", namespace, "auto-detect")["data"]["settings.yaml"] != "nothing",
            timeout_s=5,
        )


def test_a_removed_source_loses_its_workload_and_no_other_is_touched(
    kube: Kube, namespace: str, tmp_path: Path
) -> None:
    """Children that a changed spec no longer wants are deleted; somebody else's object of our namespace stays."""
    with running_operator(kube.server, tmp_path, namespaces=[namespace]):
        two = [{"name": "push", "http": {}}, {"name": "other", "http": {}}]
        kube.apply(namespace, stream("shop", sources=two))
        kube.run("create", "configmap", "mine", "-n", namespace, "--from-literal=a=b")
        until(
            "both are there",
            lambda: {"Deployment/shop-ingest-push", "Deployment/shop-ingest-other"} <= _names(kube, namespace),
        )
        before = kube.get("deployment", namespace, "shop-ingest-push")["metadata"]
        kube.apply(namespace, stream("shop", sources=two[:1]))
        until("one is gone", lambda: not any("other" in name for name in _names(kube, namespace)))
        assert kube.get("configmap", namespace, "mine")
        assert kube.get("deployment", namespace, "shop-ingest-push")["metadata"]["generation"] == before["generation"]


def test_pausing_scales_to_zero_in_place_and_back(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """A paused detector has no pods and keeps its StatefulSet; unpaused it has as many as before; scale scales."""
    with running_operator(kube.server, tmp_path, namespaces=[namespace]):
        kube.apply(namespace, stream("shop"), detector("auto", "shop"), simulation("rehearsal", "shop"))

        def replicas() -> int:
            return int(kube.get("statefulset", namespace, "auto-detect").get("spec", {}).get("replicas", -1))

        until("one pod is planned", lambda: replicas() == 1)
        kube.run("scale", "anomalydetector", "auto", "--replicas=3", "-n", namespace)
        until("three are planned", lambda: replicas() == 3)
        kube.run("patch", "adet", "auto", "-n", namespace, "--type=merge", "-p", '{"spec":{"paused":true}}')
        kube.run("patch", "msim", "rehearsal", "-n", namespace, "--type=merge", "-p", '{"spec":{"paused":true}}')
        until("none is planned", lambda: replicas() == 0)
        until("it says so", lambda: kube.condition("adet", namespace, "auto", "Paused").get("status") == "True")
        until("the Job is suspended", lambda: all(j["spec"]["suspend"] for j in kube.all("jobs", namespace)))
        kube.run("patch", "adet", "auto", "-n", namespace, "--type=merge", "-p", '{"spec":{"paused":false}}')
        until("three are planned again", lambda: replicas() == 3)


def test_another_image_rolls_all_but_a_running_job(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """An operator of a newer version rolls every workload to its image; a Job ends with the one it began with."""
    told = {"namespaces": [namespace], "elasticsearch": ELASTICSEARCH}
    with running_operator(kube.server, tmp_path, "old", **told):
        kube.apply(namespace, *_shop())
        until("all children are there", lambda: _is_shop(_names(kube, namespace)))
    image = "registry.example/tidewarden:2"
    with running_operator(
        kube.server, tmp_path, "new", namespaces=[namespace], elasticsearch=ELASTICSEARCH, image=image
    ):

        def images(kinds: str) -> set[str]:
            items = kube.all(kinds, namespace)
            return {c["image"] for item in items for c in item["spec"]["template"]["spec"]["containers"]}

        until("all are of the new image", lambda: images("deployments,statefulsets") == {image})
        assert images("jobs") == {"registry.example/tidewarden:1"}


def test_what_cannot_be_changed_is_made_anew(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """A StatefulSet with another fixed field, of an older version, is replaced; a refused value deletes nothing."""
    with running_operator(kube.server, tmp_path, "old", namespaces=[namespace]):
        kube.apply(namespace, stream("shop"), detector("auto", "shop"))
        until("it is there", lambda: kube.get("statefulset", namespace, "auto-detect"))
    old = kube.get("statefulset", namespace, "auto-detect")
    kube.run("delete", "statefulset", "auto-detect", "-n", namespace)
    old["spec"]["podManagementPolicy"] = "OrderedReady"
    for own in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        old["metadata"].pop(own, None)
    kube.run("create", "-n", namespace, "-f", "-", given=json.dumps(old))
    with running_operator(kube.server, tmp_path, "new", namespaces=[namespace]):
        until(
            "it is made anew",
            lambda: (
                kube.get("statefulset", namespace, "auto-detect").get("spec", {}).get("podManagementPolicy")
                == "Parallel"
            ),
        )
    uid = kube.get("statefulset", namespace, "auto-detect")["metadata"]["uid"]
    wrong = {"detect": {"requests": {"cpu": "a lot"}}}
    with running_operator(kube.server, tmp_path, "wrong", namespaces=[namespace], resources=wrong) as operator:
        until("it is refused", lambda: operator.metric("tidewarden_operator_errors_total") > 1)
        assert kube.get("statefulset", namespace, "auto-detect")["metadata"]["uid"] == uid


def test_two_operators_in_two_namespaces_do_not_fight(kube: Kube, tmp_path: Path) -> None:
    """Each acts in its own namespace only: two images, no child of the other, nothing written once both rest."""
    one, two = new_namespace(kube), new_namespace(kube)
    with (
        running_operator(kube.server, tmp_path, "one", namespaces=[one], image="example/one:1") as first,
        running_operator(kube.server, tmp_path, "two", namespaces=[two], image="example/two:1") as second,
    ):
        for namespace in (one, two):
            kube.apply(namespace, stream("shop"), detector("auto", "shop"))
        for namespace, image in ((one, "example/one:1"), (two, "example/two:1")):
            until("it is there", lambda n=namespace: kube.get("statefulset", n, "auto-detect"))
            child = kube.get("statefulset", namespace, "auto-detect")
            assert child["spec"]["template"]["spec"]["containers"][0]["image"] == image
        for operator in (first, second):
            settled(operator)
        before = [o.metric("tidewarden_operator_applied_objects_total") for o in (first, second)]
        kube.run("annotate", "mstream", "shop", "-n", one, "note=x")
        kube.run("annotate", "mstream", "shop", "-n", two, "note=x")
        settled(first)
        settled(second)
        assert [o.metric("tidewarden_operator_applied_objects_total") for o in (first, second)] == before


def test_the_same_end_after_kills_at_random_moments(kube: Kube, tmp_path: Path) -> None:
    """Killed with −9 twelve times while resources are applied, it ends where an undisturbed operator ends."""
    calm, rough = new_namespace(kube), new_namespace(kube)
    resources = [r for n in range(4) for r in (stream(f"s{n}"), detector(f"d{n}", f"s{n}"), policy(f"p{n}", f"s{n}"))]
    with running_operator(kube.server, tmp_path, "calm", namespaces=[calm], elasticsearch=ELASTICSEARCH) as operator:
        kube.apply(calm, *resources)
        settled(operator)
    expected = _children(kube, calm)
    assert len(expected) > 40
    draw = random.Random(7)
    victim = OperatorProcess(kube.server, tmp_path, "rough", namespaces=[rough], elasticsearch=ELASTICSEARCH)
    kube.apply(rough, *resources)
    moments = []
    for _ in range(12):
        victim.start()
        until("it writes or is ready", lambda: victim.get("/healthz")[0] == 200)
        time.sleep(draw.uniform(0.0, 0.6))  # the moment is what is drawn
        victim.kill()
        moments.append(len(_children(kube, rough)))
    assert len(set(moments)) > 2, f"the kills hit nothing: {moments}"
    with running_operator(kube.server, tmp_path, "after", namespaces=[rough], elasticsearch=ELASTICSEARCH) as operator:
        settled(operator)
    assert _comparable(_children(kube, rough), rough) == _comparable(expected, calm)


def _comparable(children: dict[str, dict[str, Any]], namespace: str) -> dict[str, Any]:
    """Without what differs between two namespaces by nature: names, uids, addresses."""
    text = json.dumps(children, sort_keys=True).replace(namespace, "NAMESPACE")
    found: dict[str, Any] = json.loads(text)
    for child in found.values():
        for owner in child["metadata"].get("ownerReferences", []):
            owner.pop("uid")
        child["metadata"]["annotations"].pop("tidewarden.dev/applied-hash")  # it covers the owners' uids
        spec = child.get("spec", {})
        for own in ("clusterIP", "clusterIPs"):
            spec.pop(own, None)
        if "template" in spec:  # the ConfigMaps, which are compared themselves, name the namespace
            spec["template"]["metadata"]["annotations"].pop("tidewarden.dev/config-hash")
    return found
