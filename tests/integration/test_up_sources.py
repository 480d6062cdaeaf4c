"""`tidewarden up` with sources and receivers that are real servers, as a user starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

pytestmark = [pytest.mark.kafka, pytest.mark.prometheus, pytest.mark.slow, pytest.mark.timeout(400)]
COMMAND = [sys.executable, "-m", "tidewarden_cli.main"]
PATIENCE_S = 180  # a loaded machine compiling kernels for the first time

STREAM = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec:
  tenants: [shop]
  interval: 1m
  sources:
    - {name: raw, kafka: {topic: up-raw, bootstrapServers: KAFKA}}
    - {name: ask, prometheus: {url: PROMETHEUS, every: 1s, query: "up", metric: up, labels: {node: job}}}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch}
spec:
  stream: shop
  select: {metrics: [latency_ms]}
  model: {kind: ewma, ewma: {halfLife: 20, warmup: 60}}
  seasonality: []
  alerting: {threshold: 0.8}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: oncall}
spec:
  stream: shop
  groupBy: [cluster]
  receivers: [{alertmanager: {url: ALERTMANAGER}}]
"""


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what}: this did not happen in time"
        pause.wait(0.05)


def test_from_kafka_and_prometheus_to_alertmanager(
    kafka_server: Any,
    prometheus_server: Callable[[str], Any],
    alertmanager_server: Callable[[str], Any],
    tmp_path: Path,
) -> None:
    """Readings of a topic become an alert in Alertmanager, beside a query that is asked; a restart repeats nothing."""
    prometheus = prometheus_server(
        "global: {scrape_interval: 1s}\n"
        'scrape_configs: [{job_name: nobody, static_configs: [{targets: ["127.0.0.1:9"]}]}]\n'
    )
    alertmanager = alertmanager_server("http://127.0.0.1:9/")
    admin = AdminClient({"bootstrap.servers": kafka_server.address})
    admin.create_topics([NewTopic("up-raw", 2, 1)])["up-raw"].result(30)
    end_ms = int(time.time()) // 60 * 60_000
    producer = Producer({"bootstrap.servers": kafka_server.address, "enable.idempotence": True})
    for tick in range(300):
        value = 900.0 if tick >= 297 else 100.0 + (tick * 7919) % 13
        reading = {"tenant": "shop", "cluster": "eu", "node": "web", "timestamp": end_ms - (300 - tick) * 60_000}
        producer.produce("up-raw", msgspec.json.encode({**reading, "metrics": {"latency_ms": value}}), key="web")
    assert producer.flush(60) == 0
    file = tmp_path / "shop.yaml"
    file.write_text(
        STREAM.replace("KAFKA", kafka_server.address)
        .replace("ALERTMANAGER", alertmanager.url)
        .replace("PROMETHEUS", prometheus.url)
    )
    command = [*COMMAND, "up", "-f", str(file), "--data-dir", str(tmp_path / "data"), "--port", "0", "--json"]

    def life(done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        try:
            address = next(
                "http://" + line.split("http://")[1].split()[0] for line in process.stderr if "http://" in line
            )
            until(lambda: done(_sources(address)), "the sources deliver")
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
        assert process.returncode == 0
        summary: dict[str, Any] = json.loads(out.splitlines()[-1])
        return summary

    def fired(sources: dict[str, Any]) -> bool:
        found = alertmanager.get("/api/v2/alerts?active=true")
        return sources["shop/raw"]["accepted"] == 300 and sources["shop/ask"]["accepted"] >= 2 and bool(found)

    life(fired)
    [alert] = alertmanager.get("/api/v2/alerts?active=true")
    assert alert["labels"]["alertname"] == "TidewardenAnomaly"
    assert (alert["labels"]["cluster"], alert["labels"]["stream"], alert["labels"]["policy"]) == (
        "eu",
        "shop",
        "oncall",
    )
    asked: list[int] = []

    def goes_on(sources: dict[str, Any]) -> bool:
        asked.append(sources["shop/ask"]["accepted"])
        return bool(sources["shop/ask"]["accepted"] > asked[0] and sources["shop/raw"]["accepted"] == 300)

    life(goes_on)
    assert asked[0] >= 2, "the second life goes on with the counts of the first"


def _sources(address: str) -> dict[str, Any]:
    try:
        found = httpx.get(f"{address}/api/statistics", timeout=5).json()["sources"]
    except httpx.HTTPError:
        found = []
    none = {"shop/raw": {"accepted": 0}, "shop/ask": {"accepted": 0}}
    return {**none, **{f"{one['stream']}/{one['source']}": one for one in found}}


@pytest.mark.parametrize(
    ("absent", "told"),
    [
        (", bootstrapServers: KAFKA", "MetricStream/shop source 'raw': kafka.bootstrapServers is absent"),
        ("url: PROMETHEUS, ", "MetricStream/shop source 'ask': prometheus.url is absent"),
        ("url: ALERTMANAGER", "AlertPolicy/oncall receiver 'alertmanager': alertmanager.url is absent"),
    ],
    ids=["kafka", "prometheus", "alertmanager"],
)
def test_an_address_that_is_absent_is_a_mistake_that_is_named(tmp_path: Path, absent: str, told: str) -> None:
    """Exit 2 before anything starts; the message names resource, source or receiver, field and remedy."""
    file = tmp_path / "shop.yaml"
    text = STREAM.replace(absent, "").replace("KAFKA", "127.0.0.1:9")
    file.write_text(text.replace("PROMETHEUS", "http://127.0.0.1:9").replace("ALERTMANAGER", "http://127.0.0.1:9"))
    done = subprocess.run([*COMMAND, "up", "-f", str(file), "--headless"], check=False, capture_output=True, text=True)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr
