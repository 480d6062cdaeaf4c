"""Pods, broker and store killed with -9 in mid-stream: what is found and who is told equals the undisturbed run."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from servers.elasticsearch import ElasticsearchServer
from servers.kafka import KafkaServer
from servers.pushing import NODES, PushClient
from servers.roles import READINGS, START_S, Roles, Webhook, settle, whole_stream
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch import ElasticsearchStore
from tidewarden.store.port import Query

pytestmark = [pytest.mark.kafka, pytest.mark.elasticsearch, pytest.mark.slow, pytest.mark.timeout(1_200)]

ROUNDS = 3  # so often each of the eight processes is killed, in an order drawn anew for each round
# 800 points of a minute in so many seconds of play: more than all kills take, and the play stands still whenever the
# simulation is killed, and while it starts without Elasticsearch.
STREAM_S = 110.0
SPEED = 800 * 60 / STREAM_S
PUSHED_TICKS = 400
PUSH_EVERY_S = 0.25
PAUSES_S = (0.3, 2.5)  # between kills: some hit a process that still works off its last death
UP_S = 4.0  # so long a process that is to be killed may take to be up again; then it is killed while it starts
OUTAGE_S = 30.0
PLAYED_S = 400.0
PAUSE = threading.Event()


@pytest.fixture
def kafka(own_kafka_server: KafkaServer) -> KafkaServer:
    """A broker that may be killed."""
    return own_kafka_server


@pytest.fixture
def elasticsearch(own_elasticsearch_server: ElasticsearchServer) -> ElasticsearchServer:
    """A store that may be killed."""
    return own_elasticsearch_server


@pytest.fixture
def webhooks() -> Iterator[tuple[Webhook, Webhook]]:
    """One receiver for each of the two runs."""
    calm, disturbed = Webhook(), Webhook()
    yield calm, disturbed
    calm.close()
    disturbed.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything a run has found and told, as the bytes of its JSON."""

    anomalies: dict[str, bytes]  # by id
    alerts: dict[str, bytes]  # by id, the newest revision
    told: dict[str, bytes]  # by Idempotency-Key
    counts: dict[str, int]  # of what is stored, by kind
    accepted: int  # readings that the push source took in
    evaluation: object  # what the simulation left in its termination log


def outcome(roles: Roles, webhook: Webhook) -> Outcome:
    store = ElasticsearchStore(ElasticsearchSettings(url=roles.elasticsearch, prefix="tests"), roles.namespace)
    try:
        store.refresh("shop")
        everything = Query(limit=10_000)
        anomalies = {one.id: msgspec.json.encode(one) for one in store.anomalies(everything)}
        alerts = {one.id: msgspec.json.encode(one) for one, _ in store.alerts(everything)}
        counts = {kind: count for kind, count in store.counts().items() if kind in {"readings", "scores", "rollups"}}
    finally:
        store.close()
    status = roles.processes["ingest"].status()
    assert status is not None, roles.processes["ingest"].log
    accepted = status["board"]["sources"]["shop/push"]["accepted"]
    # A delivery that was answered just before a kill is made again: under the same key, with the same words.
    for key, bodies in webhook.bodies.items():
        assert len(set(bodies)) == 1, f"{key} was told in {len(set(bodies))} versions: {bodies}"
    told = {key: bodies[0] for key, bodies in webhook.bodies.items()}
    return Outcome(anomalies, alerts, told, counts, accepted, roles.processes["simulate"].last_words)


def played(roles: Roles) -> int:
    """Readings that the simulation has played; 0 while it says nothing."""
    status = roles.processes["simulate"].status() or {"board": {}}
    facts = status["board"].get("simulations", {}).get("fleet", {})
    return int(facts.get("played", 0))


def push(roles: Roles) -> PushClient:
    """A client that pushes to the stream's own source."""
    return PushClient(f"http://127.0.0.1:{roles.processes['ingest'].http_port}", PUSHED_TICKS, PUSH_EVERY_S)


class Outage:
    """A server that is killed, and started again once its time is over."""

    def __init__(self, server: KafkaServer | ElasticsearchServer) -> None:
        self._server = server
        self._back_at = time.monotonic() + OUTAGE_S
        server.kill()

    def over(self, *, wait: bool = False) -> bool:
        """Whether the server is back; where it is time, or waited for, it is started here, on the main thread."""
        left_s = self._back_at - time.monotonic()
        if left_s > 0 and not wait:
            return False
        PAUSE.wait(max(0.0, left_s))
        self._server.start()
        return True


def disturb(roles: Roles, servers: list[KafkaServer | ElasticsearchServer], moments: random.Random) -> Counter[str]:
    """Kill and start again, over all roles, with an outage of each server meanwhile; how often whom."""
    kills: Counter[str] = Counter()
    outage: Outage | None = None
    for _ in range(ROUNDS):
        names = sorted(roles.processes)
        moments.shuffle(names)
        for name in names:
            if outage is not None and outage.over():
                outage = None
            if outage is None and servers and kills.total() >= 2:
                outage = Outage(servers.pop(0))
            PAUSE.wait(moments.uniform(*PAUSES_S))
            process = roles.processes[name]
            up_until = time.monotonic() + UP_S
            while not process.ready() and time.monotonic() < up_until:
                PAUSE.wait(0.2)
            assert process.running, f"{name} ended by itself, with {process.process}:\n{process.log}"
            process.kill()
            process.start()
            kills[name] += 1
    if outage is not None:
        outage.over(wait=True)
    assert not servers, "there was no time for an outage of each server"
    return kills


def test_more_than_twenty_kills_and_two_outages_change_nothing(
    tmp_path: Path, kafka: KafkaServer, elasticsearch: ElasticsearchServer, webhooks: tuple[Webhook, Webhook]
) -> None:
    """Anomalies, alerts and notifications are the undisturbed run's, byte for byte, whoever was killed meanwhile."""
    calm_hook, hook = webhooks
    addresses = {"kafka": kafka.address, "elasticsearch": elasticsearch.url}
    with closing(whole_stream(tmp_path / "one", webhook=calm_hook.url, namespace="one", **addresses)) as calm:
        calm.start_all()
        with closing(push(calm)) as client:
            client.finish()
            calm.wait("all is pushed", lambda: not client.running, PLAYED_S)
        assert not client.failure
        settle(calm, PLAYED_S)
        expected = outcome(calm, calm_hook)
    assert expected.accepted == PUSHED_TICKS * NODES
    assert expected.counts["readings"] == READINGS + PUSHED_TICKS * NODES
    assert sum(b'"tenant":"own"' in one for one in expected.anomalies.values()) >= 3
    assert sum(b'"tenant":"shop"' in one for one in expected.anomalies.values()) >= 3
    assert len(expected.told) >= 4

    with ExitStack() as stack:
        roles = whole_stream(tmp_path / "two", webhook=hook.url, namespace="two", speed=SPEED, **addresses)
        stack.callback(roles.close)
        roles.start_all()
        roles.wait("the stream flows", lambda: played(roles) > 0, START_S)
        client = stack.enter_context(closing(push(roles)))
        kills = disturb(roles, [kafka, elasticsearch], random.Random(20261124))
        roles.wait("the simulation plays again", lambda: played(roles) > 0, START_S)
        assert played(roles) < READINGS, f"the simulation ended before the last kill: {kills}"
        assert client.running, f"the client ended before the last kill ({client.failure}): {kills}"
        client.finish()
        roles.wait("all is pushed", lambda: not client.running, PLAYED_S)
        assert not client.failure
        settle(roles, PLAYED_S)
        found = outcome(roles, hook)
    assert min(kills.values()) == ROUNDS
    assert kills.total() - kills["api"] > 20
    assert client.repeated > 0
    assert found.accepted == expected.accepted
    assert found.counts == expected.counts
    assert found.anomalies == expected.anomalies
    assert found.alerts == expected.alerts
    assert found.told == expected.told
    assert found.evaluation == expected.evaluation
