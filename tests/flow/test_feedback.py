"""Feedback as a person gives it: the real process, the real command, and what becomes of the next anomaly."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec: {tenants: [shop], interval: 1m, sources: [{name: push, http: {}}]}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch}
spec: {stream: shop, model: {kind: ewma}, alerting: {threshold: 0.6}}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: page}
spec: {stream: shop, minSeverity: info, resolveAfter: 2m}
"""
COMMAND = [sys.executable, "-m", "tidewarden_cli.main"]
START_S = 120  # a loaded machine compiling kernels for the first time
BEGIN_S = 1_767_571_200
PAUSE = threading.Event()  # never set: its wait is a pause between two looks
pytestmark = [pytest.mark.timeout(400)]


class Shop:
    """`tidewarden up` over a data directory, one series that is pushed to it, and its API."""

    def __init__(self, folder: Path) -> None:
        self._resources, self._data = folder / "shop.yaml", folder / "data"
        self._resources.write_text(RESOURCES)
        self._noise = np.random.default_rng(1)
        self._minute = 0
        self.start()

    def start(self) -> None:
        arguments = [*COMMAND, "up", "--port", "0", "--data-dir", str(self._data), "-f", str(self._resources)]
        self.process = subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        self.url, up = "", threading.Event()
        self._reader = threading.Thread(target=self._read, args=(up,), daemon=True)
        self._reader.start()
        if not up.wait(START_S):
            self.kill()
            pytest.fail("it did not start")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
        self._reader.join(10)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _read(self, up: threading.Event) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "http://" in line and not self.url:
                self.url = "http://" + line.split("http://")[1].split()[0]
                up.set()

    def push(self, minutes: int, spike: float = 0.0) -> int:
        """Push so many calm minutes, the first of them with a spike; the minute that the spike lay at."""
        values = 100 + self._noise.normal(0, 1, minutes)
        values[0] += spike
        readings = [
            {"tenant": "shop", "cluster": "eu", "node": "n1", "timestamp": BEGIN_S + 60 * (self._minute + i),
             "metrics": {"latency_ms": float(value)}}
            for i, value in enumerate(values)
        ]  # fmt: skip
        began, self._minute = self._minute, self._minute + minutes
        last = readings[-1]["timestamp"]

        def taken() -> bool:
            return httpx.post(f"{self.url}/api/v1/readings", json=readings, timeout=30).status_code == 200

        eventually(taken)
        eventually(lambda: self._scored_until(last))
        return began

    def _scored_until(self, second: Any) -> bool:
        where = {"tenant": "shop", "cluster": "eu", "node": "n1", "metric": "latency_ms", "limit": 1}
        answer = httpx.get(f"{self.url}/api/readings", params=where, timeout=30)
        if answer.status_code != 200:
            return False
        columns = answer.json()["columns"]
        return columns["timestamp"] == [second * 1000] and columns["p_value"][0] is not None

    def closed(self, minute: int) -> dict[str, Any]:
        """The anomaly that began at that minute, once it is closed."""

        def find() -> dict[str, Any] | None:
            found = httpx.get(f"{self.url}/api/anomalies", params={"state": "closed"}, timeout=30).json()["anomalies"]
            return next((a for a in found if a["onset"] == (BEGIN_S + 60 * minute) * 1000), None)

        found = eventually(find)
        assert found is not None
        return found

    def alerted(self, anomaly: dict[str, Any]) -> bool:
        alerts = httpx.get(f"{self.url}/api/alerts", timeout=30).json()["alerts"]
        return any(anomaly["id"] in alert["anomaly_ids"] for alert in alerts)

    def say(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "feedback", *arguments, "--url", self.url]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def eventually(ask: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """The first answer that is true; AssertionError after the time."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()):
        assert time.monotonic() < deadline, "it did not come"
        PAUSE.wait(0.05)
    return answer


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    yield made
    if made.process.poll() is None:
        made.kill()


def test_a_word_changes_who_hears_of_the_next_one_until_it_is_revoked(shop: Shop) -> None:
    """Wrong: the next one like it is kept, and nobody is alerted, also after a kill -9; revoked: they are again."""
    shop.push(150)
    first = shop.closed(shop.push(40, spike=12))
    assert not first["suppressed"]
    eventually(lambda: shop.alerted(first))

    said = shop.say(first["id"], "wrong", "--note", "the backup", "--by", "ann", "--json")
    assert said.returncode == 0, said.stderr
    word = json.loads(said.stdout)
    assert (word["anomaly_id"], word["verdict"], word["by"]) == (first["id"], "wrong", "ann")
    eventually(lambda: httpx.get(f"{shop.url}/api/v1/feedback", timeout=30).json()["feedback"] == [word])
    second = shop.closed(shop.push(40, spike=12))
    assert second["suppressed"]

    shop.kill()
    shop.start()
    third = shop.closed(shop.push(40, spike=12))
    assert third["suppressed"]

    assert shop.say(first["id"], "revoke", "--by", "ann").returncode == 0
    fourth = shop.closed(shop.push(40, spike=12))
    assert not fourth["suppressed"]
    eventually(lambda: shop.alerted(fourth))
    assert not shop.alerted(second)
    assert not shop.alerted(third)
    listed = shop.say("list").stdout.splitlines()
    assert ["revoke" in line for line in listed] == [True, False]
    assert "by ann  “the backup”" in listed[1]


def test_what_cannot_be_is_said_in_one_line(shop: Shop) -> None:
    """An unknown anomaly, an unknown verdict: exit code 2; a server that is away: 1."""
    cases = [
        (("0" * 16, "wrong"), 2, "/api/anomalies lists them"),
        (("0" * 16, "perhaps"), 2, "right, wrong, revoke"),
        (("list", "wrong"), 2, "list takes no verdict"),
    ]
    for arguments, code, text in cases:
        said = shop.say(*arguments)
        assert (said.returncode, said.stdout) == (code, "")
        assert text in said.stderr
        assert len(said.stderr.splitlines()) == 1
    assert shop.say("list").stdout == "nothing was said yet\n"
    shop.kill()
    assert shop.say("list").returncode == 1
