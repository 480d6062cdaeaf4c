"""`tidewarden up` as a user runs it: a process, its exit code, what it prints and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

FLEET = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec: {tenants: [shop], interval: 1m, sources: [{name: push, http: {}}]}
---
apiVersion: tidewarden.dev/v1alpha1
kind: MetricSimulation
metadata: {name: fleet}
spec:
  stream: shop
  seed: 3
  start: 2026-01-05T00:00:00Z
  fleet: {tenants: [shop], clusters: 1, nodes: 4, metrics: [latency_ms, error_rate]}
  points: 1000
  speed: SPEED
  anomalies: {ratio: 1.0, mix: {spike: 1}}
  evaluate: [watch]
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch}
spec: {stream: shop}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: page}
spec: {stream: shop}
"""
COMMAND = [sys.executable, "-m", "tidewarden_cli.main"]
START_S = 120  # a loaded machine compiling kernels for the first time
pytestmark = [pytest.mark.timeout(400)]


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """A resource file whose fleet is played as fast as the pipeline takes it."""
    path = tmp_path / "shop.yaml"
    path.write_text(FLEET.replace("SPEED", "0"))
    return path


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """The same fleet in real time: it does not end while a test runs."""
    path = tmp_path / "shop.yaml"
    path.write_text(FLEET.replace("SPEED", "1"))
    return path


PAUSE = threading.Event()  # never set: its wait is a pause between two looks


def push(running: Running, reading: dict[str, object]) -> httpx.Response:
    """Post as a good client does: while the process starts it answers 503, so try again."""
    for _ in range(200):
        answer = httpx.post(f"{running.address}/api/v1/readings", json=reading, timeout=30)
        if answer.status_code != 503:
            break
        PAUSE.wait(0.1)
    return answer


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *map(str, args)], capture_output=True, text=True, timeout=300, check=False)


class Running:
    """`tidewarden up` in the background, its address read from what it prints."""

    def __init__(self, *args: str | Path) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "up", "--port", "0", *map(str, args)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.lines: list[str] = []
        self._address = threading.Event()
        self.address = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._address.wait(START_S), "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "http://" in line and not self.address:
                self.address = "http://" + line.split("http://")[1].split()[0]
                self._address.set()

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        code = self.process.wait(60)
        self._reader.join(10)
        return code


@pytest.fixture
def start() -> Iterator[type[Running]]:
    """Starts processes and ends what a failing test has left."""
    started: list[Running] = []

    class Tracked(Running):
        def __init__(self, *args: str | Path) -> None:
            super().__init__(*args)
            started.append(self)

    yield Tracked
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.wait(30)
        for pipe in (one.process.stdout, one.process.stderr):
            if pipe is not None:
                pipe.close()


def test_the_last_line_is_one_json_object(fleet: Path) -> None:
    """--exit-when-done --json ends with the documented counts, and they fit what was simulated."""
    done = run("up", "-f", fleet, "--exit-when-done", "--json", "--headless")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["readings"] == 8000
    assert summary["rejected"] == 0
    assert summary["anomalies"] >= 1
    assert summary["alerts"] >= 1
    assert summary["seconds"] > 0
    assert summary["readings_per_second"] == pytest.approx(8000 / summary["seconds"], rel=0.01)
    (evaluation,) = summary["evaluation"]
    assert (evaluation["detector"], evaluation["simulation"]) == ("watch", "fleet")
    for figure in ("precision", "recall", "f1", "vus_pr"):
        assert 0 <= evaluation[figure] <= 1
    assert evaluation["recall"] >= 0.5, "spikes of two to four times the mean are not hard to find"
    assert {"delay_median_s", "false_alarms_per_day"} <= set(evaluation)


def test_data_survives_a_restart(fleet: Path, tmp_path: Path) -> None:
    """The same --data-dir a second time: nothing is played again, everything is still there."""
    args = ("up", "-f", fleet, "--exit-when-done", "--json", "--headless", "--data-dir", tmp_path / "data")
    first = json.loads(run(*args).stdout.splitlines()[-1])
    second = json.loads(run(*args).stdout.splitlines()[-1])
    for count in ("readings", "rejected", "anomalies", "alerts", "evaluation"):
        assert second[count] == first[count]


def test_a_mistake_in_a_resource_is_named_with_line_path_value_and_remedy(tmp_path: Path) -> None:
    """A wrong file ends with code 2 and one line a mistake, no traceback."""
    path = tmp_path / "shop.yaml"
    path.write_text(FLEET.replace("interval: 1m", "interval: 1 minute"))
    done = run("up", "-f", path)
    assert done.returncode == 2
    assert f"{path}:4" in done.stderr
    assert "spec.interval" in done.stderr
    assert "'1 minute'" in done.stderr
    assert "as in 5m" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ("kind: MetricSimulation\nmetadata: {name: x}\nspec: {stream: s, replay: {path: gone.csv, tenant: t}}", 2),
        ("kind: AlertPolicy\nmetadata: {name: x}\nspec: {stream: s}", 1),
    ],
)
def test_a_recording_that_is_not_there_is_named(tmp_path: Path, spec: str, code: int) -> None:
    """A replay or a file source whose file is missing: the exit code and the message say so, no traceback."""
    source = "{name: f, file: {path: gone.csv}}" if code == 1 else "{name: push, http: {}}"
    head = "apiVersion: tidewarden.dev/v1alpha1\n"
    stream = f"kind: MetricStream\nmetadata: {{name: s}}\nspec: {{tenants: [t], sources: [{source}]}}"
    path = tmp_path / "s.yaml"
    path.write_text(f"{head}{stream}\n---\n{head}{spec}\n")
    done = run("up", "-f", path, "--headless", "--exit-when-done")
    assert done.returncode == code
    assert "gone.csv" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_model_starts_anew_on_the_same_data(fleet: Path, tmp_path: Path) -> None:
    """Another model in the resource does not keep the process from starting: it says so and learns anew."""
    args = ("up", "-f", fleet, "--exit-when-done", "--headless", "--data-dir", tmp_path / "data")
    assert run(*args).returncode == 0
    fleet.write_text(
        fleet.read_text().replace("spec: {stream: shop}\n---", "spec: {stream: shop, model: {kind: mad}}\n---")
    )
    again = run(*args)
    assert again.returncode == 0, again.stderr
    assert "starting anew" in again.stderr


def test_a_taken_port_is_an_error_with_a_remedy(endless: Path) -> None:
    """No second process on one port: the message says which port and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("up", "-f", endless, "--port", str(port))
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_cleanly_with_a_summary(start: type[Running], endless: Path, number: int) -> None:
    """Ctrl-C and SIGTERM: exit code 0, a summary, no traceback."""
    running = start("-f", endless)
    assert running.end(number) == 0
    text = "".join(running.lines)
    assert "readings in" in text
    assert "Traceback" not in text


def test_what_was_answered_with_200_outlives_a_kill(start: type[Running], endless: Path, tmp_path: Path) -> None:
    """A pushed reading that was acknowledged is in the store after kill -9 and a restart, once."""
    data = tmp_path / "data"
    running = start("-f", endless, "--data-dir", data)
    reading = {
        "tenant": "shop",
        "cluster": "own",
        "node": "n1",
        "timestamp": 1767571200000,
        "metric": "m",
        "value": 4.5,
    }
    answer = push(running, reading)
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == 1
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait(30)

    again = start("-f", endless, "--data-dir", data)
    twice = push(again, reading)
    assert twice.status_code == 422, "a client that repeats itself after the crash is told that it is a duplicate"
    wanted = {"tenant": "shop", "cluster": "own", "node": "n1", "metric": "m"}
    values: list[float] = []
    for _ in range(200):
        found = httpx.get(f"{again.address}/api/readings", params=wanted, timeout=30)
        values = found.json()["columns"]["value"] if found.status_code == 200 else []
        if values:
            break
        PAUSE.wait(0.1)
    assert values == [4.5]
    assert again.end(signal.SIGINT) == 0


def test_on_the_loopback_only_its_own_names_are_answered(start: type[Running], endless: Path) -> None:
    """A web site whose name resolves to 127.0.0.1 cannot read the API through a browser (DNS rebinding)."""
    running = start("-f", endless)
    foreign = httpx.get(f"{running.address}/api/statistics", headers={"host": "evil.example:80"}, timeout=30)
    assert foreign.status_code == 421
    assert "127.0.0.1" in foreign.json()["detail"]
    by_name = running.address.replace("127.0.0.1", "localhost")
    assert httpx.get(f"{by_name}/api/statistics", timeout=30).status_code == 200
    assert running.end(signal.SIGTERM) == 0


def test_help_has_examples_and_is_quick_to_import() -> None:
    """--help needs neither kernels nor web server: it would make every look-up slow."""
    done = run("up", "--help")
    assert done.returncode == 0
    assert "tidewarden up -f shop.yaml" in done.stdout
    code = (
        "import sys, tidewarden_cli.main, tidewarden_cli.local.command; "
        "print(sorted({'numba', 'duckdb', 'fastapi', 'pyarrow'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert loaded.stdout.strip() == "[]"
