"""What only a real Elasticsearch can show of its store: kills, replays, refusals, retention, large reads."""

from __future__ import annotations

import itertools
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from servers.elasticsearch import ElasticsearchServer
from tidewarden.bus.port import Record, TopicPartition
from tidewarden.events import Anomaly, AnomalyBatch, stable_id
from tidewarden.frames import Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch import ElasticsearchStore
from tidewarden.store.elasticsearch.names import DAY_MS, KINDS
from tidewarden.store.port import Query, StoreUnavailableError, WriteBatch
from tidewarden.telemetry import Telemetry
from tidewarden_services.archive.service import ArchiveService

pytestmark = pytest.mark.elasticsearch

MINUTE = 60_000
BEGIN = 20_000 * DAY_MS
NAMESPACES = itertools.count()
KEYS = [SeriesKey("shop", "eu", f"n{i}", metric) for i in range(50) for metric in ("latency_ms", "cpu")]


@pytest.fixture
def store(elasticsearch_server: ElasticsearchServer) -> Iterator[ElasticsearchStore]:
    settings = ElasticsearchSettings(url=elasticsearch_server.url, prefix="integration")
    made = ElasticsearchStore(settings, f"n{next(NAMESPACES)}", refresh_s=-1, refresh_after_write=True)
    yield made
    for stream in ("shop", "shop-eu"):
        made.drop(stream)
    made.close()


def ask(server: ElasticsearchServer, path: str, body: Any = None, method: str = "GET") -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.url + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def tick(table: SeriesTable, at: int, keys: list[SeriesKey] = KEYS) -> tuple[Frame, ScoreFrame]:
    """Readings of all series at a moment, and what a detector says of them."""
    n = len(keys)
    readings = Frame(table, table.ids_of(keys), np.full(n, at, np.int64), np.arange(n) + at % 1_000 / 1_000)
    filled = [np.full(n, x) for x in (0.25, 10**-1.5, 10.0, 9.0, 11.0)]
    none = np.zeros(n, np.uint8)
    return readings, ScoreFrame(
        table, "d", "auto/1", readings.series, readings.timestamp, readings.value, *filled, none, none
    )


def anomaly(at: int, revision: int = 1) -> Anomaly:
    return Anomaly(
        id=stable_id("anomaly", at), revision=revision, state="open" if revision == 1 else "closed", stream="shop",
        detector="d", model_version="auto/1", **KEYS[0]._asdict(), onset=at, end=at + revision * MINUTE, peak_at=at,
        peak_score=0.9, p_value=1e-6, value=412.0, expected=100.0, lower=95.0, upper=None, readings=revision,
        kind="spike", direction="up", severity="critical", node_share=0.7, explanation="…",
    )  # fmt: skip


def records(count: int) -> list[list[Record]]:
    """What a bus would hand out: per tick readings, scores, a rollup and an anomaly that opens and closes."""
    table = SeriesTable(KEYS)
    rounds = []
    for i in range(count):
        at = BEGIN + i * MINUTE
        readings, scores = tick(table, at)
        rollup = RollupFrame(
            "d", [NodeKey("shop", "", "")], np.zeros(1, np.int32), np.array([at]), np.array([0.1]),
            np.array([50], np.int32), np.array([0.2]),
        )  # fmt: skip
        found = AnomalyBatch(
            detector="d", anomalies=[anomaly(at), anomaly(at - MINUTE, revision=2)], watermarks={"shop": at}
        )
        values = {"readings": readings, "scores": scores, "rollups": rollup, "anomalies": found}
        rounds.append([Record(f"n.shop.{name}", 0, i, b"", value, {}) for name, value in values.items()])
    return rounds


def archive(store: ElasticsearchStore) -> ArchiveService:
    spec = {"tenants": ["shop"], "sources": [{"name": "push", "http": {}}]}
    about = {"apiVersion": "tidewarden.dev/v1alpha1", "kind": "MetricStream", "metadata": {"name": "shop"}}
    stream = MetricStream.model_validate({**about, "spec": spec})
    return ArchiveService("archive.shop", stream, store, Telemetry())


def contents(store: ElasticsearchStore) -> dict[str, Any]:
    """All that a reader can see of a stream."""
    everything = Query(stream="shop", limit=1_000_000)
    return {
        "readings": store.readings(everything).to_pylist(),
        "series": store.series(everything).to_pylist(),
        "rollups": store.rollups(everything).to_pylist(),
        "latest": store.latest_rollup(None).to_pylist(),
        "anomalies": store.anomalies(everything),
        "counts": store.counts(),
        "offsets": store.offsets("shop"),
    }


def test_a_replay_doubles_nothing_even_by_another_process(
    store: ElasticsearchStore, elasticsearch_server: ElasticsearchServer
) -> None:
    """A second archive that knows nothing of the first writes the second half again: readers see no difference."""
    rounds = records(6)
    first = archive(store)
    for each in rounds:
        first.handle(each)
        first.flush()
    before = contents(store)
    assert before["counts"]["readings"] == before["counts"]["scores"] == 6 * len(KEYS)
    assert len(before["anomalies"]) == 7
    second = ElasticsearchStore(store._settings, store._namespace, refresh_after_write=True)
    again = archive(second)
    again.handle([record for each in rounds[3:] for record in each])
    again.flush()
    second.close()
    assert contents(store) == before


def test_killed_in_the_middle_of_a_write_nothing_is_lost_or_doubled(
    own_elasticsearch_server: ElasticsearchServer,
) -> None:
    """kill -9 while the archive writes, seconds of silence, a restart: the store holds what an undisturbed one holds.

    The archive keeps the batch that failed and writes it again; then its process dies too, and another one
    goes on from the offsets in the store.
    """
    server = own_elasticsearch_server
    rounds = records(60)
    settings = ElasticsearchSettings(url=server.url)
    calm = ElasticsearchStore(settings, "calm", refresh_s=-1)
    undisturbed = archive(calm)
    for each in rounds:
        undisturbed.handle(each)
        undisturbed.flush()
    calm.refresh("shop")
    expected = contents(calm)

    wild = ElasticsearchStore(settings, "wild", refresh_s=-1)
    disturbed = archive(wild)
    begun, refusals = threading.Event(), 0

    def work() -> None:
        nonlocal refusals
        for position, each in enumerate(rounds[:40]):
            disturbed.handle(each)
            while True:
                try:
                    disturbed.flush()
                    break
                except StoreUnavailableError:
                    refusals += 1
            if position == 5:
                begun.set()

    writer = threading.Thread(target=work)
    writer.start()
    assert begun.wait(120)
    server.kill()
    # Down until the archive has noticed, which takes its 3 s of patience; then back with what was acknowledged.
    waiting = threading.Event()
    for _ in range(600):
        if refusals:
            break
        waiting.wait(0.05)
    assert refusals
    server.start()
    writer.join(200)
    assert not writer.is_alive()
    wild.close()

    heir = ElasticsearchStore(settings, "wild")
    goes_on = archive(heir)
    position = goes_on.start_offsets()[TopicPartition("n.shop.readings", 0)]
    assert position == 40
    goes_on.handle([record for each in rounds[position - 2 :] for record in each])  # two rounds too many: a replay
    goes_on.flush()
    heir.refresh("shop")
    found = contents(heir)
    assert found == expected
    calm.close()
    heir.close()


def test_a_document_that_the_server_refuses_is_kept_with_the_reason(store: ElasticsearchStore) -> None:
    """A name too long for an index term: the other readings are stored, this one is a rejection that holds it."""
    table = SeriesTable()
    long = SeriesKey("shop", "eu", "n" * 40_000, "cpu")
    readings, _ = tick(table, BEGIN, [KEYS[0], long, KEYS[1]])
    store.write(WriteBatch("shop", readings=[readings], offsets={TopicPartition("n.shop.readings", 0): 1}))
    assert store.readings(Query(stream="shop", limit=9)).num_rows == 2
    kept = store.rejected(Query(stream="shop", reason="store_refused", limit=9))
    assert {each.node for each in kept} == {long.node}
    assert all("immense term" in each.detail for each in kept)
    assert any('"value":1.0' in (each.raw or "") for each in kept)
    assert store.offsets("shop") == {TopicPartition("n.shop.readings", 0): 1}


def test_preparing_writes_once_and_mends_what_was_changed(
    store: ElasticsearchStore, elasticsearch_server: ElasticsearchServer
) -> None:
    """The second time nothing is written; an edited or removed template is put right; a drop leaves nothing."""
    assert len(store.prepare("shop", 30 * DAY_MS)) == len(KINDS)
    assert store.prepare("shop", 30 * DAY_MS) == []
    store.prepare("shop-eu", 30 * DAY_MS)
    base = f"integration.{store._namespace}.shop"
    found = ask(elasticsearch_server, f"/_index_template/{base}.scores")["index_templates"][0]["index_template"]
    edited = {**found, "priority": 301}
    ask(elasticsearch_server, f"/_index_template/{base}.scores", edited, "PUT")
    ask(elasticsearch_server, f"/_index_template/{base}.alerts", None, "DELETE")
    assert sorted(store.prepare("shop", 30 * DAY_MS)) == [
        f"_index_template/{base}.{kind}" for kind in ("alerts", "scores")
    ]
    store.write(WriteBatch("shop", readings=[tick(SeriesTable(), BEGIN)[0]]))
    dropped = store.drop("shop")
    assert [name for name in dropped if name.startswith(f"{base}.readings.")] == [f"{base}.readings.2024.10.04"]
    assert store.drop("shop") == []
    assert store.prepare("shop-eu", 30 * DAY_MS) == []
    assert store.readings(Query(stream="shop")).num_rows == 0


def test_retention_drops_whole_dated_indices_and_no_younger_one(
    store: ElasticsearchStore, elasticsearch_server: ElasticsearchServer
) -> None:
    """Only indices whose last day is over go; with a retention of a quarter an index holds three days."""
    store.prepare("shop", 90 * DAY_MS)
    table = SeriesTable()
    store.write(WriteBatch("shop", readings=[tick(table, BEGIN + day * DAY_MS, KEYS[:2])[0] for day in range(9)]))
    base = f"integration.{store._namespace}.shop.readings"
    there = sorted(ask(elasticsearch_server, f"/{base}.*/_alias"))
    assert len(there) == 4  # BEGIN is the last day of its three
    assert all(name.endswith("-3d") for name in there)
    assert store.purge("readings", "shop", BEGIN + 3 * DAY_MS) == 2
    assert store.purge("readings", "shop", BEGIN + 4 * DAY_MS) == 6
    assert sorted(ask(elasticsearch_server, f"/{base}.*/_alias")) == there[2:]
    oldest = store.readings(Query(stream="shop", limit=1, newest_first=False)).column("timestamp").to_pylist()
    assert oldest == [BEGIN + 4 * DAY_MS]


def test_more_rows_than_one_answer_holds_are_read_page_by_page(store: ElasticsearchStore) -> None:
    """12,500 readings with scores, over the server's bound of 10,000 a page: all, in order, or exactly the newest."""
    table = SeriesTable(KEYS)
    ticks = [tick(table, BEGIN + i * MINUTE) for i in range(125)]
    store.write(WriteBatch("shop", readings=[r for r, _ in ticks], scores=[s for _, s in ticks]))
    rows = store.readings(Query(stream="shop", limit=1_000_000))
    assert rows.num_rows == 12_500
    times = rows.column("timestamp").to_numpy()
    assert (np.diff(times) >= 0).all()
    assert rows.column("anomaly_score").null_count == 0
    newest = store.readings(Query(stream="shop", limit=11_050))
    assert newest.num_rows == 11_050
    assert newest.column("timestamp").to_numpy().min() == BEGIN + 14 * MINUTE
    assert newest.column("anomaly_score").null_count == 0
    assert store.readings(Query(stream="shop", limit=150)).column("timestamp").to_numpy().min() == BEGIN + 123 * MINUTE
