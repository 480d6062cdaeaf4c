"""Dashboards and rules on a real Prometheus that scrapes the running product, and one that scrapes the operator."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml

from servers.apiserver import bound_to_us
from servers.elasticsearch import ElasticsearchServer
from servers.kafka import KafkaServer
from servers.operator import Kube, detector, new_namespace, policy, running_operator, simulation, stream, until
from servers.roles import Webhook, settle, whole_stream
from tidewarden_operator.plan.dashboards import PanelQuery, panel_queries
from tidewarden_operator.plan.rules import all_groups

pytestmark = [pytest.mark.prometheus, pytest.mark.slow, pytest.mark.timeout(400)]
PATIENCE_S = 180.0  # a loaded machine that compiles kernels for the first time

# One simulated day within about twenty seconds: long enough for forty scrapes, then it is judged.
RESOURCES = """\
apiVersion: tidewarden.dev/v1alpha1
kind: MetricStream
metadata: {name: shop}
spec: {tenants: [shop], interval: 1m}
---
apiVersion: tidewarden.dev/v1alpha1
kind: MetricSimulation
metadata: {name: rehearsal}
spec:
  stream: shop
  seed: 7
  fleet: {tenants: [shop], clusters: 2, nodes: 5, metrics: [latency_ms, error_rate]}
  points: 1440
  speed: 4320
  anomalies: {ratio: 0.3}
  evaluate: [watch]
---
apiVersion: tidewarden.dev/v1alpha1
kind: AnomalyDetector
metadata: {name: watch}
spec:
  stream: shop
  model: {kind: ewma, ewma: {halfLife: 20, warmup: 60}}
  seasonality: []
  alerting: {threshold: 0.8}
---
apiVersion: tidewarden.dev/v1alpha1
kind: AlertPolicy
metadata: {name: oncall}
spec: {stream: shop, groupBy: [cluster], resolveAfter: 10m, receivers: [{log: {}}]}
"""


class Scraped(NamedTuple):
    """A Prometheus, and since when (s) it has scraped."""

    prometheus: Any
    since: float

    def values(self, expr: str) -> list[float]:
        """Every value of a query over the whole time, by half seconds; NaN and infinities left out."""
        span = {"query": expr, "start": self.since, "end": time.time(), "step": "0.5"}
        answer = self.prometheus.get(f"/api/v1/query_range?{urllib.parse.urlencode(span)}")
        found = (float(value) for line in answer["data"]["result"] for _, value in line["values"])
        return [value for value in found if math.isfinite(value)]

    def empty(self, *needs: str) -> list[str]:
        """Panels of dashboards, of those with these needs, that have shown nothing in all that time."""
        queries = [query for query in panel_queries(rate_interval="5s") if query.needs in needs]
        assert queries
        return [f"{_name(query)}: {query.expr}" for query in queries if not self.values(query.expr)]


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`tidewarden up` as a user starts it, and its address."""
    home = tmp_path_factory.mktemp("product")
    (home / "shop.yaml").write_text(RESOURCES)
    command = [sys.executable, "-m", "tidewarden_cli.main", "up", "-f", str(home / "shop.yaml"), "--port", "0"]
    with (home / "log").open("w") as log:
        process = subprocess.Popen([*bound_to_us(), *command], stderr=log, stdout=log, text=True)
    try:
        [address] = until("it serves", lambda: re.findall(r"http://(\S+)", (home / "log").read_text())[:1])
        yield process, address
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def scraped(
    prometheus_server: Callable[[str], Any],
    product: tuple[subprocess.Popen[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Scraped:
    """A Prometheus that has seen the product play a simulation to its end and be judged."""
    rules = tmp_path_factory.mktemp("rules") / "tidewarden.yaml"
    rules.write_text(yaml.safe_dump({"groups": [_at_once(group) for group in all_groups()]}))
    labels = {"namespace": "here", "pod": "up-0", "role": "up"}
    found = Scraped(prometheus_server(_config(product[1], labels, rule_files=[str(rules)])), time.time())
    until("the simulation is judged", lambda: found.values("tidewarden_evaluation_f1_ratio"), timeout_s=PATIENCE_S)
    return found


@pytest.fixture(scope="module")
def operator_scraped(
    prometheus_server: Callable[[str], Any], kube: Kube, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scraped]:
    """A Prometheus that has seen an operator reconcile a resource of each kind on a real API server."""
    namespace = new_namespace(kube)
    with running_operator(kube.server, tmp_path_factory.mktemp("operator"), namespaces=[namespace]) as operator:
        port = re.findall(r"port=(\d+)", operator.log())[-1]
        found = Scraped(prometheus_server(_config(f"127.0.0.1:{port}", {"namespace": "there"})), time.time())
        until("the operator is scraped", lambda: found.values("tidewarden_operator_queue_depth"))
        kube.apply(namespace, stream("shop"), detector("watch", "shop"), policy("oncall", "shop"))
        kube.apply(namespace, simulation("rehearsal", "shop"))
        until(
            "its writes are scraped",
            lambda: max(found.values("sum(tidewarden_operator_status_writes_total)"), default=0) >= 4,
        )
        yield found


def _config(target: str | list[str], labels: dict[str, str], rule_files: Sequence[str] = ()) -> str:
    targets = [target] if isinstance(target, str) else target
    pace = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
    job = {"job_name": "tidewarden", "static_configs": [{"targets": targets, "labels": labels}]}
    return json.dumps({"global": pace, "rule_files": list(rule_files), "scrape_configs": [job]})


def _at_once(group: dict[str, Any]) -> dict[str, Any]:
    """A group of rules that do not wait, for tests."""
    return {**group, "interval": "500ms", "rules": [{**rule, "for": "0s"} for rule in group["rules"]]}


def _name(query: PanelQuery) -> str:
    return f"{query.dashboard}: {query.panel}"


def test_every_panel_about_the_pipeline_shows_data(scraped: Scraped) -> None:
    """Every query of every panel but the operator's; there is no panel that stays empty by nature."""
    empty = scraped.empty("pipeline", "evaluation")
    assert not empty, "\n".join(empty)


def test_every_panel_about_the_operator_shows_data(operator_scraped: Scraped) -> None:
    """Every query of the operator's panels, from an operator that reconciles."""
    try:
        # A rate is there from the second scrape of its counter on.
        until("all panels have data", lambda: not operator_scraped.empty("operator"))
    finally:
        print(operator_scraped.empty("operator"))  # noqa: T201 - pytest shows it where the test failed


def test_a_namespace_that_is_chosen_is_the_only_one_shown(scraped: Scraped) -> None:
    """Each query about the pipeline is empty, or 0 where it counts nothing, for a namespace that does not exist."""
    for query in panel_queries(rate_interval="5s", namespace="nowhere"):
        if query.needs != "operator" and "ALERTS" not in query.expr:
            assert not any(scraped.values(query.expr)), _name(query)


def test_the_rules_are_evaluated_without_errors(scraped: Scraped) -> None:
    """A real Prometheus loads all of them and evaluates each, on real metrics, without a complaint."""

    def evaluated() -> bool:
        groups = scraped.prometheus.get("/api/v1/rules")["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert all(not rule.get("lastError") for rule in rules), [rule.get("lastError") for rule in rules]
        return len(rules) == sum(len(group["rules"]) for group in all_groups()) and all(
            rule["health"] == "ok" for rule in rules
        )

    until("all rules are evaluated", evaluated)


def test_a_process_that_ends_is_told_of(scraped: Scraped, product: tuple[subprocess.Popen[str], str]) -> None:
    """kill -9 of the product fires TidewardenServiceDown with its name in the summary and a page to read."""
    product[0].kill()
    product[0].wait(10)

    def firing() -> list[dict[str, Any]]:
        alerts = scraped.prometheus.get("/api/v1/alerts")["data"]["alerts"]
        return [one for one in alerts if one["labels"]["alertname"] == "TidewardenServiceDown"]

    [alert] = until("the alert fires", firing)
    assert alert["labels"]["severity"] == "critical"
    assert "here/up-0" in alert["annotations"]["summary"]
    assert alert["annotations"]["runbook_url"].endswith("/docs/runbooks/TidewardenServiceDown.md")


@pytest.mark.kafka
@pytest.mark.elasticsearch
@pytest.mark.timeout(900)
def test_panels_show_data_of_the_pods_on_real_servers(
    prometheus_server: Callable[[str], Any],
    kafka_server: KafkaServer,
    elasticsearch_server: ElasticsearchServer,
    tmp_path: Path,
) -> None:
    """Each role as a process of its own, on Kafka and Elasticsearch: no panel about the pipeline is empty."""
    webhook = Webhook()
    roles = whole_stream(
        tmp_path / "all",
        kafka=kafka_server.address, elasticsearch=elasticsearch_server.url, webhook=webhook.url, namespace="panels",
    )  # fmt: skip
    targets = [f"127.0.0.1:{one.metrics_port}" for one in roles.processes.values()]
    found = Scraped(prometheus_server(_config(targets, {"namespace": "panels"})), time.time())
    try:
        roles.start_all()
        settle(roles, PATIENCE_S)
        # The silence of a source is told from its first delivery on, and the simulation's is over.
        reading = {"tenant": "shop", "cluster": "own", "node": "n1", "timestamp": 1_767_571_200_000}
        push = f"http://127.0.0.1:{roles.processes['ingest'].http_port}/api/v1/readings"
        assert httpx.post(push, json={**reading, "metric": "m", "value": 4.5}, timeout=30).status_code == 200
        roles.wait("all panels have data", lambda: not found.empty("pipeline"), 10)
    finally:
        print(found.empty("pipeline"))  # noqa: T201 - pytest shows it where the test failed
        roles.close()
        webhook.close()
