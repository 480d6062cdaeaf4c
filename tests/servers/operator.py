"""The operator as a process beside a real API server, and what tests ask the two."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from servers.apiserver import ApiServer
from servers.processes import bound_to_us

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0  # for what takes a second on an idle machine
WRITES = ("POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION")
# What the API server and Kubernetes' own controllers write by themselves.
NOT_OURS = {
    "leases",
    "flowschemas",
    "prioritylevelconfigurations",
    "apiservices",
    "tokenreviews",
    "subjectaccessreviews",
}


def until(what: str, holds: Callable[[], Any], timeout_s: float = PATIENCE_S) -> Any:
    """Wait until ``holds`` returns something true, and return that."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = holds()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what} (last: {answer!r})")
        time.sleep(0.05)


class OperatorProcess:
    """``tidewarden operator`` as a subprocess; `kill` and `start` as a crash and kubelet would."""

    def __init__(self, server: ApiServer, home: Path, name: str = "operator", **settings: Any) -> None:
        self._server = server
        self._log = home / f"{name}.log"
        self._file = home / f"{name}.yaml"
        self._process: subprocess.Popen[bytes] | None = None
        self.settings = {
            "image": "registry.example/tidewarden:1",
            "kafka": {"bootstrapServers": "127.0.0.1:1"},  # nobody listens there
            "statusS": 1,
            "metricsPort": 0,
            **settings,
        }

    def start(self) -> None:
        """Start it; it need not be ready when this returns."""
        self._file.write_text(yaml.safe_dump(self.settings))
        command = [sys.executable, "-m", "tidewarden_cli.main", "operator", "--settings", str(self._file)]
        command += ["--kubeconfig", str(self._server.kubeconfig), "--host", "127.0.0.1", "--log-format", "text"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([*bound_to_us(), *command], stdout=log, stderr=log, cwd=ROOT)

    def kill(self) -> None:
        """Kill it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def stop(self) -> int:
        """End it in order; returns its exit code."""
        assert self._process is not None
        self._process.terminate()
        code = self._process.wait(30)
        self._process = None
        return code

    def log(self) -> str:
        """What it has told so far."""
        return self._log.read_text(errors="replace")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of one of its own pages; 0 while nobody listens."""
        ports = re.findall(r"operator starts.*port=(\d+)", self.log())
        if not ports:
            return 0, ""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[-1]}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str) -> float:
        """Sum of one of its metrics over all labels."""
        _, text = self.get("/metrics")
        return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}(\{{| )", line))

    def rss_bytes(self) -> int:
        """Resident memory."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024


@contextlib.contextmanager
def running_operator(
    server: ApiServer, home: Path, name: str = "operator", **settings: Any
) -> Iterator[OperatorProcess]:
    """A running operator that has listed the cluster; on a failed test its log is printed."""
    process = OperatorProcess(server, home, name, **settings)
    process.start()
    try:
        until("the operator is ready", lambda: process.get("/readyz")[0] == 200)
        yield process
    finally:
        process.kill()
        print(f"--- log of {name}\n{process.log()[-8_000:]}")  # noqa: T201 - pytest shows it where the test failed


class Kube:
    """kubectl with JSON."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    def run(self, *arguments: str, given: str | None = None) -> str:
        """Output of kubectl, which must succeed."""
        code, told, wrong = self.server.kubectl(*arguments, given=given)
        assert code == 0, f"kubectl {' '.join(arguments)}: {wrong}"
        return told

    def apply(self, namespace: str, *resources: dict[str, Any]) -> None:
        """Apply resources."""
        self.run("apply", "-n", namespace, "-f", "-", given=yaml.safe_dump_all(resources))

    def get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        """One object; empty where there is none."""
        told = self.run("get", kind, name, "-n", namespace, "-o", "json", "--ignore-not-found")
        return dict(json.loads(told)) if told.strip() else {}

    def all(self, kinds: str, namespace: str) -> list[dict[str, Any]]:
        """All objects of kinds in a namespace."""
        return list(json.loads(self.run("get", kinds, "-n", namespace, "-o", "json"))["items"])

    def condition(self, kind: str, namespace: str, name: str, condition: str) -> dict[str, Any]:
        """One condition of a resource; empty where there is none."""
        conditions = self.get(kind, namespace, name).get("status", {}).get("conditions", [])
        return next((dict(c) for c in conditions if c["type"] == condition), {})

    def set_status(self, kind: str, namespace: str, name: str, status: dict[str, Any]) -> None:
        """Say what a controller or kubelet would."""
        content = json.dumps({"status": status})
        self.run("patch", kind, name, "-n", namespace, "--subresource=status", "-p", content)

    def writes(self) -> dict[str, float]:
        """Write requests that the API server has counted so far, by verb and resource."""
        found: dict[str, float] = {}
        for line in self.server.get("/metrics").decode().splitlines():
            if not line.startswith("apiserver_request_total{"):
                continue
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            if labels["verb"] in WRITES and labels["resource"] not in NOT_OURS:
                name = f"{labels['verb']} {labels['resource']}/{labels['subresource']}"
                found[name] = found.get(name, 0) + float(line.rsplit(" ", 1)[1])
        return found


def stream(name: str, **spec: Any) -> dict[str, Any]:
    """A MetricStream with a push source."""
    return _resource("MetricStream", name, {"tenants": ["shop"], "sources": [{"name": "push", "http": {}}], **spec})


def detector(name: str, of: str, **spec: Any) -> dict[str, Any]:
    """An AnomalyDetector."""
    return _resource("AnomalyDetector", name, {"stream": of, **spec})


def simulation(name: str, of: str, **spec: Any) -> dict[str, Any]:
    """A MetricSimulation, finite unless told otherwise."""
    return _resource("MetricSimulation", name, {"stream": of, "fleet": {"tenants": ["shop"]}, "points": 10, **spec})


def policy(name: str, of: str, **spec: Any) -> dict[str, Any]:
    """An AlertPolicy."""
    return _resource("AlertPolicy", name, {"stream": of, **spec})


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "tidewarden.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def with_crds(server: ApiServer) -> Kube:
    """Kubectl on a server that knows the four kinds."""
    kube = Kube(server)
    kube.run("apply", "-f", str(ROOT / "crds"))
    kube.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    return kube


@pytest.fixture(scope="session")
def kube(api_server: ApiServer) -> Kube:
    """kubectl on an API server that knows the four kinds."""
    return with_crds(api_server)


@pytest.fixture
def namespace(kube: Kube) -> str:
    """A namespace of the test's own that admits only restricted pods."""
    return new_namespace(kube)


def new_namespace(kube: Kube) -> str:
    """Make a namespace that admits only restricted pods."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    kube.run("create", "namespace", name)
    kube.run("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return name


def settled(operator: OperatorProcess) -> None:
    """Wait until it has written nothing for two rounds of its status clock."""

    def written() -> float:
        names = ("applied_objects", "status_writes", "deleted_objects", "reconcile_seconds_count")
        return sum(operator.metric(f"tidewarden_operator_{n}" + ("" if "count" in n else "_total")) for n in names[:3])

    def still() -> bool:
        before = written()
        time.sleep(2.0)  # what is waited for is that nothing happens
        return before == written() and operator.metric("tidewarden_operator_queue_depth") == 0

    until("it rests", still, timeout_s=120)


class StatusServer:
    """What a pod would serve at /status, for pods that no kubelet runs."""

    def __init__(self) -> None:
        self.board: dict[str, Any] = {}
        self.figures: dict[str, Any] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said = {"at": time.time_ns() // 1_000_000, "board": outer.board, "figures": outer.figures}
                body = json.dumps(said).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def pods_say() -> Iterator[StatusServer]:
    """A status page for pods that a test makes."""
    server = StatusServer()
    yield server
    server.close()


def run_pods(kube: Kube, namespace: str, workload: dict[str, Any], port: int) -> None:
    """Do as controllers and kubelet would: a ready pod for a workload, and the workload's status."""
    name = workload["metadata"]["name"]
    replicas = workload["spec"]["replicas"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{name}-0", "labels": workload["spec"]["template"]["metadata"]["labels"]},
        "spec": workload["spec"]["template"]["spec"] | {"restartPolicy": "Always"},
    }
    for container in pod["spec"]["containers"]:
        container["ports"] = [{"name": "metrics", "containerPort": port}]
    kube.run("create", "-n", namespace, "-f", "-", given=json.dumps(pod))
    told = {"phase": "Running", "podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    told["conditions"] = [{"type": "Ready", "status": "True"}]
    kube.set_status("pod", namespace, f"{name}-0", told)
    status = {"observedGeneration": workload["metadata"]["generation"], "replicas": replicas}
    status |= {"readyReplicas": replicas, "updatedReplicas": replicas}
    kind = workload["kind"].lower()
    kube.set_status(kind, namespace, name, status)
