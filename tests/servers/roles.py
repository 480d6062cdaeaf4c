"""The pods' processes, started by hand as the operator has Kubernetes start them: one folder, one process a role."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from servers.processes import free_ports

PAUSE = threading.Event()  # never set: its wait is a pause between two looks
START_S = 120.0  # seven interpreters at once on two cores
END_S = 20.0  # what a role may take from SIGTERM to its end
QUIET_LOOKS = 8  # with 0.2 s in between: several rounds of every service, the notifier's and the archive's among them


@dataclass(slots=True)
class RoleProcess:
    """One `tidewarden run …`: it keeps its ports and its name over restarts, as a pod does."""

    name: str
    arguments: Sequence[str]
    folder: Path
    metrics_port: int
    http_port: int
    starts: int = 0
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again after its end."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} still runs"
        self.starts += 1
        bound = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        command = [*bound, sys.executable, "-m", "tidewarden_cli.main", "run", *self.arguments]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """The end of what it has said."""
        return (self.folder / "log").read_text(errors="replace")[-6_000:]

    @property
    def last_words(self) -> Any:
        """What it left in its termination log."""
        text = (self.folder / "termination-log").read_text()
        return json.loads(text) if text else None

    def get(self, path: str) -> httpx.Response | None:
        """An answer of its side server; None where nobody answers."""
        try:
            # Without certificates to load, which would take longer than all the rest.
            return httpx.get(f"http://127.0.0.1:{self.metrics_port}{path}", timeout=5, verify=False)
        except httpx.TransportError:
            return None

    def status(self) -> dict[str, Any] | None:
        """Its status document."""
        answer = self.get("/status")
        return None if answer is None else answer.json()

    def ready(self) -> bool:
        """Whether it says that it is ready."""
        answer = self.get("/readyz")
        return answer is not None and answer.status_code == 200

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)

    def end(self) -> tuple[int, float]:
        """SIGTERM; the exit code, and the seconds that it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60), time.monotonic() - began

    def rss_mb(self) -> float:
        """Resident memory."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


@dataclass(slots=True)
class Roles:
    """All processes of one namespace.

    Args:
        folder: for files and logs.
        resources: the resources, as the operator would write them for all pods.
        kafka: host:port.
        elasticsearch: URL.
        namespace: of the resources; a namespace of its own keeps topics and indices apart.
    """

    folder: Path
    resources: str
    kafka: str
    elasticsearch: str
    namespace: str
    processes: dict[str, RoleProcess] = field(default_factory=dict)

    def add(self, name: str, *arguments: str) -> RoleProcess:
        """A process by its arguments; it is not started yet."""
        folder = self.folder / name
        folder.mkdir(parents=True)
        metrics_port, http_port = free_ports(2)
        (folder / "termination-log").touch()
        (folder / "resources.yaml").write_text(self.resources)
        files = ["--resources", "resources.yaml", "--settings", "settings.yaml", "--termination-log", "termination-log"]
        self.processes[name] = RoleProcess(name, [*arguments, *files], folder, metrics_port, http_port)
        return self.processes[name]

    def write_settings(self) -> None:
        """Once all processes are added: everybody's settings, with the addresses of all as peers."""
        peers = ",".join(f"127.0.0.1:{one.metrics_port}" for one in self.processes.values())
        for one in self.processes.values():
            settings = {
                "namespace": self.namespace,
                "host": "127.0.0.1",
                "kafka": {"bootstrapServers": self.kafka},
                "elasticsearch": {"url": self.elasticsearch, "prefix": "tests"},
                "peers": peers,
                "metricsPort": one.metrics_port,
                "httpPort": one.http_port,
            }
            (one.folder / "settings.yaml").write_text(yaml.safe_dump(settings))

    def start_all(self) -> None:
        """Start everything at once."""
        for one in self.processes.values():
            one.start()

    def wait(self, what: str, condition: Callable[[], bool], timeout_s: float) -> None:
        """Until the condition holds; fails where a process has ended with an error, or after the timeout."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            for one in self.processes.values():
                code = None if one.process is None else one.process.poll()
                assert code in (None, 0, -signal.SIGKILL), f"{one.name} ended with {code}:\n{one.log}"
            if time.monotonic() > deadline:
                told = "\n".join(
                    f"--- {one.name}: {one.status()}\n{one.log[-1500:]}" for one in self.processes.values()
                )
                raise AssertionError(f"{what}: not within {timeout_s} s\n{told}")
            PAUSE.wait(0.2)

    def close(self) -> None:
        """End what still runs."""
        for one in self.processes.values():
            if one.running:
                one.kill()


def settle(roles: Roles, played_s: float, through_s: float = 120.0) -> None:
    """Until the simulation has ended, and everybody is through with all there is and has been so for a while."""
    roles.wait("the simulation ends", lambda: not roles.processes["simulate"].running, played_s)
    last: list[tuple[float, ...]] = []

    def quiet() -> bool:
        """A gauge is as old as its service's last round: what counts is that nothing has moved over several looks."""
        handled: list[float] = []
        for name in ("detect-0", "detect-1", "rollup", "alert", "archive"):
            status = roles.processes[name].status()
            if status is None or not _through(status):
                last.clear()
                return False
            handled.extend(count for _, count in sorted(status["figures"]["handled"].items()))
        last.append(tuple(handled))
        del last[:-QUIET_LOOKS]
        return len(last) == QUIET_LOOKS and len(set(last)) == 1

    roles.wait("everybody is through", quiet, through_s)


def _through(status: dict[str, Any]) -> bool:
    if not status["ready"] or status["lag_records"]:
        return False
    return all(receiver["waiting"] == 0 for receiver in status["board"].get("receivers", {}).values())


class Webhook:
    """A receiver of alerts that keeps what it gets."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.bodies: dict[str, list[bytes]] = {}  # by Idempotency-Key, repetitions too
        received, bodies = self.received, self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                received.append(json.loads(body))
                bodies.setdefault(self.headers["Idempotency-Key"], []).append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take nothing more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop, namespace: NAMESPACE}
spec: {tenants: [shop, own], interval: 1m, partitions: 3, sources: [{name: push, http: {}}]}
---
apiVersion: tidewarden.dev/v1alpha1
kind: MetricSimulation
metadata: {name: fleet, namespace: NAMESPACE}
spec:
  stream: shop
  seed: 11
  start: 2026-01-05T00:00:00Z
  fleet: {tenants: [shop], clusters: 2, nodes: 3, metrics: [latency_ms, error_rate]}
  points: 800
  speed: SPEED
  anomalies: {ratio: 0.8}
  evaluate: [watch]
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch, namespace: NAMESPACE}
spec: {stream: shop, alerting: {threshold: 0.7}, rollup: [node, cluster, tenant]}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: page, namespace: NAMESPACE}
spec: {stream: shop, groupBy: [tenant, cluster], minSeverity: info, receivers: [{webhook: {url: "WEBHOOK"}}]}
"""
READINGS = 2 * 3 * 2 * 800


def whole_stream(
    folder: Path, *, kafka: str, elasticsearch: str, webhook: str, namespace: str, speed: float = 0
) -> Roles:
    """Every process of a stream with a push source, a simulation, a detector of two members and a policy."""
    resources = RESOURCES.replace("NAMESPACE", namespace).replace("WEBHOOK", webhook).replace("SPEED", str(speed))
    roles = Roles(folder, resources, kafka, elasticsearch, namespace)
    roles.add("archive", "archive", "--stream", "shop")
    roles.add("alert", "alert", "--name", "page")
    roles.add("rollup", "rollup", "--name", "watch")
    roles.add("detect-0", "detect", "--name", "watch", "--member", "watch-0")
    roles.add("detect-1", "detect", "--name", "watch", "--member", "watch-1")
    roles.add("ingest", "ingest", "--stream", "shop", "--source", "push")
    roles.add("api", "api")
    roles.add("simulate", "simulate", "--name", "fleet")
    roles.write_settings()
    return roles
