"""Pods, broker and store killed with -9 in mid-stream: what is found and who is told equals the undisturbed run."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from servers.elasticsearch import ElasticsearchServer
from servers.kafka import KafkaServer
from servers.roles import READINGS, Roles, Webhook, settle, whole_stream
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch import ElasticsearchStore
from tidewarden.store.port import Query

pytestmark = [pytest.mark.kafka, pytest.mark.elasticsearch, pytest.mark.slow, pytest.mark.timeout(1_800)]

KILLS = 20
# 800 points of a minute in 120 s: kills, outages and restarts fall into the stream, not after it.
SPEED = 800 * 60 / 120
OUTAGE_S = 30.0
PLAYED_S = 600.0
PAUSE = threading.Event()


@pytest.fixture
def kafka(own_kafka_server: KafkaServer) -> KafkaServer:
    """A broker that may be killed."""
    return own_kafka_server


@pytest.fixture
def elasticsearch(own_elasticsearch_server: ElasticsearchServer) -> ElasticsearchServer:
    """A store that may be killed."""
    return own_elasticsearch_server


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a run has found, as the bytes of its JSON by id."""

    anomalies: dict[str, bytes]
    alerts: dict[str, bytes]
    scores: int
    told: set[tuple[str, int]]  # alerts at the receiver: id and revision


def outcome(roles: Roles, webhook: Webhook) -> Outcome:
    store = ElasticsearchStore(ElasticsearchSettings(url=roles.elasticsearch, prefix="tests"), roles.namespace)
    try:
        store.refresh("shop")
        everything = Query(limit=10_000)
        anomalies = {one.id: msgspec.json.encode(one) for one in store.anomalies(everything)}
        alerts = {one.id: msgspec.json.encode(one) for one, _ in store.alerts(everything)}
        counts = store.counts()
    finally:
        store.close()
    assert counts["readings"] == READINGS
    told = {(one["alert"]["id"], one["alert"]["revision"]) for one in webhook.received}
    return Outcome(anomalies, alerts, counts["scores"], told)


@pytest.fixture
def webhooks() -> Iterator[tuple[Webhook, Webhook]]:
    """One receiver for each of the two runs."""
    calm, disturbed = Webhook(), Webhook()
    yield calm, disturbed
    calm.close()
    disturbed.close()


def played(roles: Roles) -> int:
    status = roles.processes["simulate"].status() or {"board": {}}
    facts = status["board"].get("simulations", {}).get("fleet", {})
    return int(facts.get("played", 0))


def disturb(
    roles: Roles, kafka: KafkaServer, elasticsearch: ElasticsearchServer, moments: random.Random
) -> dict[str, int]:
    """Kill and start again, over all roles, with an outage of each server in between; how often whom."""
    kills: dict[str, int] = {}
    names = [name for name in roles.processes if name not in {"api", "ingest"}]
    outages = {KILLS // 3: kafka, 2 * KILLS // 3: elasticsearch}
    simulate = roles.processes["simulate"]
    while sum(kills.values()) < KILLS:
        server = outages.pop(sum(kills.values()), None)
        if server is not None:
            server.kill()
            PAUSE.wait(OUTAGE_S)
            server.start()
        PAUSE.wait(moments.uniform(0.3, 4.0))
        assert simulate.running, f"the stream ended before all kills had been made: {kills}\n{simulate.log}"
        process = roles.processes[moments.choice(names)]
        process.kill()
        process.start()
        kills[process.name] = kills.get(process.name, 0) + 1
    return kills


def test_twenty_kills_and_two_outages_change_nothing(
    tmp_path: Path, kafka: KafkaServer, elasticsearch: ElasticsearchServer, webhooks: tuple[Webhook, Webhook]
) -> None:
    """The set of anomalies, of alerts and of notifications is the undisturbed run's, byte for byte by id."""
    calm_hook, hook = webhooks
    servers = {"kafka": kafka.address, "elasticsearch": elasticsearch.url}
    calm = whole_stream(tmp_path / "calm", webhook=calm_hook.url, namespace="calm", **servers)
    try:
        calm.start_all()
        settle(calm, PLAYED_S)
        expected = outcome(calm, calm_hook)
    finally:
        calm.close()
    assert len(expected.anomalies) >= 3
    assert expected.told

    roles = whole_stream(tmp_path / "disturbed", webhook=hook.url, namespace="calm2", speed=SPEED, **servers)
    moments = random.Random(20261124)
    try:
        roles.start_all()
        roles.wait("the stream flows", lambda: played(roles) > 0, 120)
        kills = disturb(roles, kafka, elasticsearch, moments)
        settle(roles, PLAYED_S)
        found = outcome(roles, hook)
    finally:
        roles.close()
    assert sum(kills.values()) == KILLS
    assert found.anomalies == expected.anomalies
    assert found.alerts == expected.alerts
    assert found.scores == expected.scores
    assert found.told == expected.told
