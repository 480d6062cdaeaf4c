"""Every role as a process of its own, on a real Kafka and a real Elasticsearch, as the operator starts them."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from servers.elasticsearch import ElasticsearchServer
from servers.kafka import KafkaServer
from servers.roles import END_S, READINGS, START_S, RoleProcess, Roles, Webhook, settle, whole_stream
from tidewarden.settings import ElasticsearchSettings
from tidewarden.status import SECTIONS, STATUS_FIELDS
from tidewarden.store.elasticsearch import ElasticsearchStore
from tidewarden.store.port import Query

pytestmark = [pytest.mark.kafka, pytest.mark.elasticsearch, pytest.mark.slow, pytest.mark.timeout(900)]

PLAYED_S = 240.0  # kernels may have to be compiled first


@pytest.fixture(scope="module")
def webhook() -> Iterator[Webhook]:
    """Where alerts go."""
    server = Webhook()
    yield server
    server.close()


@pytest.fixture(scope="module")
def stream(
    tmp_path_factory: pytest.TempPathFactory,
    kafka_server: KafkaServer,
    elasticsearch_server: ElasticsearchServer,
    webhook: Webhook,
) -> Iterator[Roles]:
    """All roles, after the simulation has ended by itself."""
    roles = whole_stream(
        tmp_path_factory.mktemp("roles") / "all",
        kafka=kafka_server.address, elasticsearch=elasticsearch_server.url, webhook=webhook.url, namespace="roles",
    )  # fmt: skip
    try:
        roles.start_all()
        others = [one for one in roles.processes.values() if one.name != "simulate"]
        roles.wait("everybody is ready", lambda: all(one.ready() for one in others), START_S)
        settle(roles, PLAYED_S)
        yield roles
    finally:
        roles.close()


def status(process: RoleProcess) -> dict[str, object]:
    found = process.status()
    assert found is not None, process.log
    return found


def test_a_simulation_ends_by_itself_and_leaves_its_evaluation(stream: Roles) -> None:
    """Once all is scored and stored: exit code 0, and the figures in the termination log."""
    simulate = stream.processes["simulate"]
    assert simulate.process is not None
    assert simulate.process.returncode == 0, simulate.log
    words = simulate.last_words
    assert (words["played"], words["total"]) == (READINGS, READINGS)
    (evaluation,) = words["evaluation"]
    assert (evaluation["detector"], evaluation["simulation"]) == ("watch", "fleet")
    assert evaluation["readings"] + evaluation["learning"] >= 0.99 * READINGS
    assert evaluation["events"] >= 3
    assert evaluation["recall"] is not None


def test_anomalies_and_alerts_reach_store_and_receiver(stream: Roles, webhook: Webhook) -> None:
    """What was found lies in Elasticsearch, and the webhook has heard of every alert that fired."""
    store = ElasticsearchStore(ElasticsearchSettings(url=stream.elasticsearch, prefix="tests"), "roles")
    try:
        store.refresh("shop")
        assert store.counts()["readings"] == READINGS
        assert store.counts()["scores"] >= READINGS
        assert store.counts()["rollups"] > 0
        anomalies = store.anomalies(Query(limit=10_000))
        assert len(anomalies) >= 3
        fired = {alert.id for alert, _ in store.alerts(Query(limit=10_000)) if alert.fired_at is not None}
    finally:
        store.close()
    assert fired
    stream.wait("alerts at the webhook", lambda: {one["alert"]["id"] for one in webhook.received} == fired, 30)


def test_the_api_answers_from_store_bus_and_all_pods(stream: Roles) -> None:
    """Statistics, anomalies, rollups and the page, of data and processes that the API has nothing to do with."""
    api = f"http://127.0.0.1:{stream.processes['api'].http_port}"
    statistics = httpx.get(f"{api}/api/statistics", timeout=30).json()
    assert statistics["scored"] >= READINGS
    (detector,) = statistics["detectors"]
    assert (detector["name"], detector["series"], detector["ready"]) == ("watch", 12, 12)
    assert {"detect.watch", "rollup.watch", "alert.page", "archive.shop"} <= {s["name"] for s in statistics["services"]}
    assert statistics["latency_ms"]["p99"] is not None or statistics["scored"] == 0
    assert httpx.get(f"{api}/api/anomalies", timeout=30).json()["anomalies"]
    assert httpx.get(f"{api}/api/health", timeout=30).json()["status"] == "ok"
    assert "<html" in httpx.get(f"{api}/", timeout=30).text


def test_what_is_pushed_is_scored_and_stored(stream: Roles) -> None:
    """A reading posted to the push source is in the API's store soon."""
    push = f"http://127.0.0.1:{stream.processes['ingest'].http_port}/api/v1/readings"
    reading = {
        "tenant": "shop",
        "cluster": "own",
        "node": "n1",
        "timestamp": 1_767_571_200_000,
        "metric": "m",
        "value": 4.5,
    }
    answer = httpx.post(push, json=reading, timeout=30)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 1), answer.text
    api = f"http://127.0.0.1:{stream.processes['api'].http_port}/api/readings"
    wanted = {"tenant": "shop", "cluster": "own", "node": "n1", "metric": "m"}

    def stored() -> bool:
        found = httpx.get(api, params=wanted, timeout=30)
        return found.status_code == 200 and found.json()["columns"]["value"] == [4.5]

    stream.wait("the pushed reading is stored", stored, 30)


def test_status_is_what_the_reference_says(stream: Roles) -> None:
    """Every field of /status of every role is documented, and what is documented of its section is there."""
    expected = {
        "ingest": "sources", "archive": "archives", "detect-0": "detectors", "alert": "policies", "rollup": "services",
    }  # fmt: skip
    optional = {"message", "held_records", "held_rows", "waiting_for"}
    for name, process in stream.processes.items():
        if name == "simulate":
            continue
        document = status(process)
        assert set(document) == set(STATUS_FIELDS), name
        board = document["board"]
        assert isinstance(board, dict)
        for section, names in board.items():
            for component, facts in names.items():
                assert set(facts) <= set(SECTIONS[section][1]), f"{name}: {section}.{component}"
                assert set(SECTIONS[section][1]) - set(facts) <= optional, f"{name}: {section}.{component}"
        if name in expected:
            assert board[expected[name]], name


def test_a_detectors_members_share_the_partitions(stream: Roles) -> None:
    """Two members have every partition once, and together they know every series."""
    documents = [status(stream.processes[name]) for name in ("detect-0", "detect-1")]
    assert sorted(number for one in documents for number in one["partitions"]) == [0, 1, 2]  # type: ignore[attr-defined]
    facts = [one["board"]["detectors"]["watch"] for one in documents]  # type: ignore[index]
    assert sum(one["series"] for one in facts) >= 12
    assert sum(one["anomalies_last_hour"] for one in facts) >= 3


def test_metrics_are_served_in_prometheus_text(stream: Roles) -> None:
    """Each process has its own counters at /metrics, and says that it is alive."""
    wanted = {"ingest": "tidewarden_readings_total", "detect-0": "tidewarden_scored_readings_total",
              "archive": "tidewarden_stored_rows_total", "alert": "tidewarden_alerts_total"}  # fmt: skip
    for name, metric in wanted.items():
        answer = stream.processes[name].get("/metrics")
        assert answer is not None
        assert f"\n{metric}{{" in answer.text, name
        alive = stream.processes[name].get("/healthz")
        assert alive is not None
        assert (alive.status_code, alive.text) == (200, "ok\n")


def test_sigterm_ends_each_role_cleanly_and_soon(stream: Roles) -> None:
    """Exit code 0 within the time that Kubernetes is asked for, without a traceback."""
    for process in stream.processes.values():
        if process.running:
            code, seconds = process.end()
            assert code == 0, process.log
            assert seconds < END_S, process.log
        assert "Traceback" not in process.log, process.name
