"""A real Prometheus and a real Alertmanager for the tests, from the programs that distributions package.

Where the programs are missing, the tests say so and are skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from servers.processes import bound_to_us, free_ports

START_TIMEOUT_S = 30  # 0.1 s on an idle machine


class Program:
    """A server on a free loopback port that can be killed and started again with its port and its data.

    Start it on the main thread: where the system allows, it ends with the thread that started it.
    """

    def __init__(self, command: Callable[[int], list[str]], ready: str, home: Path) -> None:
        [port] = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*bound_to_us(), *command(port)]
        self._ready = ready
        self._log = home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                told = self._log.read_text(errors="replace")[-2_000:]
                raise RuntimeError(f"{self._command} did not come up; its log ends with:\n{told}")
            time.sleep(0.02)  # between two looks at the condition

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self._ready}", timeout=1) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        """Kill it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def get(self, path: str) -> Any:
        """The JSON at a path."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=10) as response:
            return json.loads(response.read())


def _program(*names: str) -> str:
    found = next((path for path in map(shutil.which, names) if path is not None), None)
    if found is None:
        pytest.skip(f"needs the program {' or '.join(names)} (Debian: prometheus, prometheus-alertmanager)")
    return found


@pytest.fixture(scope="module")
def prometheus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Program]]:
    """Starts a Prometheus with the configuration (YAML) that the test gives."""
    binary = _program("prometheus")
    started: list[Program] = []

    def start(config: str) -> Program:
        home = tmp_path_factory.mktemp("prometheus")
        (home / "prometheus.yml").write_text(config)

        def command(port: int) -> list[str]:
            return [
                binary, f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}", "--web.enable-lifecycle",
                "--web.enable-remote-write-receiver", "--log.level=warn",
            ]  # fmt: skip

        server = Program(command, "/-/ready", home)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()


@pytest.fixture(scope="module")
def alertmanager_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Program]]:
    """Starts an Alertmanager that sends everything to the webhook whose address the test gives, at once."""
    binary = _program("prometheus-alertmanager", "alertmanager")
    started: list[Program] = []

    def start(webhook: str) -> Program:
        home = tmp_path_factory.mktemp("alertmanager")
        config = {
            "route": {
                "receiver": "test", "group_by": ["..."],
                "group_wait": "100ms", "group_interval": "200ms", "repeat_interval": "1h",
            },
            "receivers": [{"name": "test", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
        }  # fmt: skip
        (home / "alertmanager.yml").write_text(json.dumps(config))

        def command(port: int) -> list[str]:
            return [
                binary, f"--config.file={home / 'alertmanager.yml'}", f"--storage.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=warn",
            ]  # fmt: skip

        server = Program(command, "/-/ready", home)
        started.append(server)
        server.start()
        return server

    yield start
    for server in started:
        server.kill()
