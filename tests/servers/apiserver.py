"""A real Kubernetes API server without nodes: etcd and kube-apiserver on loopback ports, up in seconds.

The programs come from the folder in ``KUBEBUILDER_ASSETS``, as is the custom of controller-runtime's envtest
(``setup-envtest use -p path``), or from the PATH. Where they are missing, the tests say so and are skipped.

There are no controllers unless a test asks for them: nothing collects garbage, deletes namespaces or makes pods.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from servers.processes import bound_to_us, free_ports

START_TIMEOUT_S = 90  # 6 s on an idle machine, 40 s seen on one with eight other test runs
TOKEN = "tests-only"  # loopback, random port, gone with the test
GARBAGE_AND_NAMESPACES = ("garbage-collector-controller", "namespace-controller")


class ApiServer:
    """One API server with its own etcd, all rights for whoever holds `kubeconfig`.

    `kill` or `stop` and then `start` keep its ports and its data. Start it on the main thread: where the
    system allows, it ends with the thread that started it.

    Args:
        home: folder for data, certificates and logs.
        controllers: controllers of kube-controller-manager to run beside it, by its names.
    """

    def __init__(self, home: Path, controllers: Sequence[str] = ()) -> None:
        self._home = home
        self._controllers = tuple(controllers)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._etcd_port, self._peer_port, self._port = free_ports(3)
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = home / "kubeconfig"
        self._certificate = home / "certificates" / "apiserver.crt"
        (home / "tokens.csv").write_text(f'{TOKEN},tests,tests,"system:masters"\n')
        key = ["openssl", "genrsa", "-out", str(home / "accounts.key"), "2048"]
        subprocess.run(key, check=True, capture_output=True, timeout=60)

    def start(self) -> None:
        """Start what is not running, and wait until it answers and has its own namespaces."""
        self._run("etcd", self._etcd_options())
        self._run("kube-apiserver", self._server_options())
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            ended = [name for name, process in self._processes.items() if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                told = self.log(ended[0] if ended else "kube-apiserver")[-2_000:]
                self.kill()
                raise RuntimeError(f"the API server did not come up; the log of {ended or 'it'} ends with:\n{told}")
            time.sleep(0.1)
        self._write_kubeconfig()
        if self._controllers:
            self._run("kube-controller-manager", self._manager_options())

    def kill(self, name: str | None = None) -> None:
        """Kill everything, or the program called ``name``, as a crash would."""
        for one in [name] if name is not None else list(reversed(self._processes)):
            process = self._processes.pop(one)
            process.kill()
            process.wait(10)

    def stop(self) -> None:
        """Stop everything in order, or kill what has not ended after ten seconds."""
        for name in reversed(self._processes.copy()):
            process = self._processes[name]
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            del self._processes[name]

    def freeze(self) -> None:
        """Stall the API server: connections stay open, nothing is answered, until `thaw`."""
        self._processes["kube-apiserver"].send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen API server go on."""
        self._processes["kube-apiserver"].send_signal(signal.SIGCONT)

    def log(self, name: str = "kube-apiserver") -> str:
        """What the program called ``name`` has told so far."""
        return (self._home / f"{name}.log").read_text(errors="replace")

    def get(self, path: str, timeout_s: float = 10) -> bytes:
        """Body of a GET of ``path``, such as ``/metrics``, with all rights.

        Raises:
            OSError: it does not answer, or not with a success.
        """
        trust = ssl.create_default_context(cafile=str(self._certificate))
        request = urllib.request.Request(f"{self.url}{path}", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=timeout_s, context=trust) as answer:
            return bytes(answer.read())

    def kubectl(self, *arguments: str, given: str | None = None, timeout_s: float = 60) -> tuple[int, str, str]:
        """Run kubectl; ``given`` is its standard input. Returns exit code, output and errors."""
        program = _program("kubectl")
        assert program is not None, "require_programs asked for it"
        environment = {"HOME": str(self._home), "PATH": os.environ.get("PATH", ""), "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            [program, *arguments],
            input=given,
            env=environment,
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        return done.returncode, done.stdout, done.stderr

    def _run(self, name: str, options: dict[str, object]) -> None:
        running = self._processes.get(name)
        if running is not None and running.poll() is None:
            return
        program = _program(name)
        assert program is not None, "require_programs asked for it"
        command = [*bound_to_us(), program, *(f"--{option}={value}" for option, value in options.items())]
        with (self._home / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._home)

    def _is_ready(self) -> bool:
        try:
            self.get("/readyz", timeout_s=2)
            return bool(self.get("/api/v1/namespaces/default", timeout_s=2))
        except OSError:  # refused, not found, not yet with a certificate
            return False

    def _etcd_options(self) -> dict[str, object]:
        clients, peers = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._peer_port))
        return {
            "data-dir": self._home / "etcd",
            "listen-client-urls": clients,
            "advertise-client-urls": clients,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
            "unsafe-no-fsync": "true",  # survives the death of the process, if not of the machine
            "log-level": "warn",
        }

    def _server_options(self) -> dict[str, object]:
        return {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": self._port,
            "cert-dir": self._home / "certificates",  # it signs its own certificate there
            "service-account-issuer": self.url,
            "service-account-key-file": self._home / "accounts.key",
            "service-account-signing-key-file": self._home / "accounts.key",
            "service-cluster-ip-range": "10.0.0.0/24",
            "token-auth-file": self._home / "tokens.csv",
            "authorization-mode": "RBAC",
            "endpoint-reconciler-type": "none",  # it refuses to announce a loopback address
            # Pods would wait for a default service account that no controller makes.
            "disable-admission-plugins": "ServiceAccount",
        }

    def _manager_options(self) -> dict[str, object]:
        return {
            "kubeconfig": self.kubeconfig,
            "controllers": ",".join(self._controllers),
            "leader-elect": "false",
            "secure-port": 0,
            "service-account-private-key-file": self._home / "accounts.key",
            "root-ca-file": self._certificate,
        }

    def _write_kubeconfig(self) -> None:
        cluster = {"server": self.url, "certificate-authority": str(self._certificate)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": TOKEN}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
            "current-context": "tests",
        }
        self.kubeconfig.write_text(json.dumps(config, indent=1))  # JSON is YAML


def require_programs(*names: str) -> None:
    """Skip the test, saying what is missing, unless all programs are there."""
    missing = [name for name in (*names, "kubectl") if _program(name) is None]
    missing += [] if shutil.which("openssl") else ["openssl"]
    if missing:
        pytest.skip(f"a real API server needs {', '.join(missing)} in $KUBEBUILDER_ASSETS or on the PATH")


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A running API server for all tests of the session; use namespaces of your own."""
    require_programs("etcd", "kube-apiserver")
    yield from _running(ApiServer(tmp_path_factory.mktemp("apiserver")))


@pytest.fixture
def own_api_server(tmp_path: Path) -> Iterator[ApiServer]:
    """A running API server for one test, which may kill, freeze and start it again."""
    require_programs("etcd", "kube-apiserver")
    yield from _running(ApiServer(tmp_path))


@pytest.fixture(scope="session")
def api_server_with_controllers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A running API server that deletes namespaces and collects garbage, for all tests of the session."""
    require_programs("etcd", "kube-apiserver", "kube-controller-manager")
    yield from _running(ApiServer(tmp_path_factory.mktemp("apiserver"), GARBAGE_AND_NAMESPACES))


def _running(server: ApiServer) -> Iterator[ApiServer]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _program(name: str) -> str | None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    return (shutil.which(name, path=assets) if assets else None) or shutil.which(name)
