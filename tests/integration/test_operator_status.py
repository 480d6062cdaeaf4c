"""What the operator says in the status of the four kinds, on a real API server whose pods the tests play."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from servers.operator import Kube, StatusServer, detector, run_pods, running_operator, simulation, stream, until

pytestmark = pytest.mark.apiserver


def test_the_status_tells_what_the_pods_say(kube: Kube, namespace: str, pods_say: StatusServer, tmp_path: Path) -> None:
    """Series, learning, lag and anomalies reach the columns, the model becomes ready, and events tell of it."""
    facts = {"stream": "shop", "model": "auto", "series": 120, "learning": 86, "ready": 34, "warmup": 120}
    pods_say.board = {"detectors": {"auto": {**facts, "message": "learning 34 of 120", "anomalies_last_hour": 2}}}
    with running_operator(kube.server, tmp_path, namespaces=[namespace], countsS=1):
        kube.apply(namespace, stream("shop"), detector("auto", "shop", rollup=[]))
        workload = until("it is planned", lambda: kube.get("statefulset", namespace, "auto-detect"))
        run_pods(kube, namespace, workload, pods_say.port)
        until(
            "it is learning",
            lambda: kube.condition("adet", namespace, "auto", "ModelReady").get("message") == "learning 34 of 120",
        )
        status = kube.get("adet", namespace, "auto")["status"]
        assert (status["series"], status["learning"], status["ready"]) == (120, 86, 34)
        assert (status["anomaliesLastHour"], status["replicas"], status["readyReplicas"]) == (2, 1, 1)
        assert status["selector"].split(",") == [
            "app.kubernetes.io/component=detect",
            "tidewarden.dev/kind=AnomalyDetector",
            "tidewarden.dev/resource=auto",
        ]
        pods_say.board = {"detectors": {"auto": {**facts, "learning": 0, "ready": 120, "message": ""}}}
        pods_say.figures = {"scored": 10}
        until("it has learned", lambda: kube.condition("adet", namespace, "auto", "ModelReady")["status"] == "True")
        until(
            "events tell that it could not become ready",
            lambda: any(e["reason"] == "KafkaUnavailable" for e in kube.all("events", namespace)),
        )


def test_a_finished_simulation_tells_its_evaluation(kube: Kube, namespace: str, tmp_path: Path) -> None:
    """What the process left at its end is in the status, and stays when its pod is gone; its stream counts it."""
    with running_operator(kube.server, tmp_path, namespaces=[namespace]):
        kube.apply(namespace, stream("shop"), detector("auto", "shop"), simulation("r", "shop", evaluate=["auto"]))
        job = until("its Job is there", lambda: kube.all("jobs", namespace))[0]
        name = job["metadata"]["name"]
        spec = job["spec"]["template"]["spec"]
        pod = {"apiVersion": "v1", "kind": "Pod", "spec": spec}
        pod["metadata"] = {"name": f"{name}-x", "labels": job["spec"]["template"]["metadata"]["labels"]}
        kube.run("create", "-n", namespace, "-f", "-", given=json.dumps(pod))
        verdict = {"detector": "auto", "precision": 0.9, "recall": 0.8, "f1": 0.847, "events": 10}
        verdict |= {"detected": 8, "delay_median_s": 90.0}
        word = json.dumps({"played": 10, "total": 10, "evaluation": [verdict]})
        ended = {"exitCode": 0, "reason": "Completed", "message": word, "finishedAt": "2026-01-01T00:00:00Z"}
        container = {"name": "tidewarden", "image": "x", "imageID": "x", "ready": False, "restartCount": 0}
        told = {"phase": "Succeeded", "containerStatuses": [{**container, "state": {"terminated": ended}}]}
        kube.run(
            "patch", "pod", f"{name}-x", "-n", namespace, "--subresource=status", "-p", json.dumps({"status": told})
        )
        now = "2026-01-01T00:00:00Z"
        done = [{"type": t, "status": "True", "reason": "Done"} for t in ("SuccessCriteriaMet", "Complete")]
        told = {
            "conditions": done,
            "succeeded": 1,
            "startTime": now,
            "completionTime": now,
            "uncountedTerminatedPods": {},
        }
        kube.run("patch", "job", name, "-n", namespace, "--subresource=status", "-p", json.dumps({"status": told}))

        def evaluation() -> list[dict[str, Any]]:
            return list(kube.get("msim", namespace, "r").get("status", {}).get("evaluation", []))

        until("the evaluation is there", evaluation)
        assert (evaluation()[0]["recall"], evaluation()[0]["delay"]) == (0.8, "1m30s")
        assert kube.get("msim", namespace, "r")["status"]["phase"] == "Completed"
        counted = lambda: kube.get("mstream", namespace, "shop")["status"].get("readings")  # noqa: E731 - asked again
        until("its stream counts what it played", lambda: counted() == 10)
        kube.run("delete", "pod", f"{name}-x", "-n", namespace, "--grace-period=0", "--force")
        kube.run("annotate", "msim", "r", "-n", namespace, "note=x")
        until("it is seen again", lambda: not kube.all("pods", namespace))
        assert evaluation()[0]["recall"] == 0.8


def test_a_secret_that_is_missing_is_named_and_another_name_restarts_the_pods(
    kube: Kube, namespace: str, tmp_path: Path
) -> None:
    """The condition names Secret and remedy, heals once it is there, and the pods mount it by its new name."""
    server = {"bootstrapServers": "127.0.0.1:1", "securityProtocol": "SASL_PLAINTEXT"}
    with running_operator(kube.server, tmp_path, namespaces=[namespace], resyncS=2):
        kube.apply(namespace, stream("shop", kafka={**server, "secretRef": {"name": "login"}}))
        ready = lambda: kube.condition("mstream", namespace, "shop", "TopicsReady")  # noqa: E731 - asked again and again
        until("it is missed", lambda: ready().get("reason") == "SecretNotFound")
        assert ready()["message"] == (
            f"there is no Secret 'login' in namespace '{namespace}': create it, or correct secretRef"
        )
        kube.run("create", "secret", "generic", "login", "-n", namespace, "--from-literal=username=a")
        until("a key is missed", lambda: "needs the key password" in ready().get("message", ""))
        kube.run("delete", "secret", "login", "-n", namespace)
        login = ["--from-literal=username=a", "--from-literal=password=b"]
        kube.run("create", "secret", "generic", "other", "-n", namespace, *login)
        kube.apply(namespace, stream("shop", kafka={**server, "secretRef": {"name": "other"}}))
        until("only Kafka itself is missing", lambda: ready().get("reason") == "KafkaUnavailable")
        template = kube.get("deployment", namespace, "shop-ingest-push")["spec"]["template"]["spec"]
        assert [v["secret"]["secretName"] for v in template["volumes"] if "secret" in v] == ["other"]
