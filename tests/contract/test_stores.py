"""One suite for every store: what goes in comes out the same, once, whatever the implementation."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from servers.elasticsearch import ElasticsearchServer
from tidewarden.bus.port import TopicPartition
from tidewarden.events import Alert, Anomaly, Feedback, Rejection
from tidewarden.frames import ABSENT, MISSING, Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch import ElasticsearchStore
from tidewarden.store.embedded import EmbeddedStore
from tidewarden.store.memory import MemoryStore
from tidewarden.store.port import Acknowledgement, Purgeable, Query, Store, WriteBatch

MINUTE = 60_000
DAY = 1_440 * MINUTE  # a store may keep things by the day
LATENCY = SeriesKey("shop", "eu", "n1", "latency_ms")
ERRORS = SeriesKey("shop", "eu", "n1", "error_rate")
OTHER = SeriesKey("bank", "us", "n9", "latency_ms")
PLACE = TopicPartition("local.shop.readings", 0)
NAMESPACES = itertools.count()


@pytest.fixture(
    params=[
        "memory",
        "embedded in memory",
        "embedded on disk",
        pytest.param("elasticsearch", marks=pytest.mark.elasticsearch),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "elasticsearch":
        yield from elasticsearch_store(request.getfixturevalue("elasticsearch_server"))
        return
    makers: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "embedded in memory": lambda: EmbeddedStore(None),
        "embedded on disk": lambda: EmbeddedStore(tmp_path / "data" / "store.duckdb"),
    }
    made = makers[request.param]()
    yield made
    made.close()


def elasticsearch_store(server: ElasticsearchServer) -> Iterator[Store]:
    """A store in a namespace of its own, where nothing is seen before it is asked for by `refresh_after_write`."""
    settings = ElasticsearchSettings(url=server.url, prefix="suite")
    made = ElasticsearchStore(settings, f"n{next(NAMESPACES)}", refresh_s=-1, refresh_after_write=True)
    yield made
    for stream in ("shop", "bank", "s"):
        made.drop(stream)
    made.close()


def frame(table: SeriesTable, rows: list[tuple[SeriesKey, int, float]], labels: list[int] | None = None) -> Frame:
    return Frame(
        table,
        table.ids_of([key for key, _, _ in rows]),
        np.array([at for _, at, _ in rows], np.int64),
        np.array([value for _, _, value in rows], np.float64),
        None if labels is None else np.array(labels, np.uint8),
    )


def scores(of: Frame, detector: str = "d", score: float = 0.25, flags: int = 0, kind: int = 0) -> ScoreFrame:
    n = len(of)
    filled = [np.full(n, x) for x in (score, 10 ** (-6 * score), 10.0, 9.0, 11.0)]
    kinds, flag = np.full(n, kind, np.uint8), np.full(n, flags, np.uint8)
    return ScoreFrame(of.table, detector, "auto/1", of.series, of.timestamp, of.value, *filled, kinds, flag)


def anomaly(name: str = "a1", revision: int = 1, **changes: Any) -> Anomaly:
    facts: dict[str, Any] = {
        "state": "open", "stream": "shop", "detector": "d", "model_version": "auto/1", **LATENCY._asdict(),
        "onset": 10 * MINUTE, "end": 12 * MINUTE, "peak_at": 11 * MINUTE, "peak_score": 0.9, "p_value": 1e-6,
        "value": 412.0, "expected": 100.0, "lower": 95.0, "upper": None, "readings": 3, "kind": "spike",
        "direction": "up", "severity": "critical", "node_share": 0.7, "explanation": "latency_ms 412 – expected 95…",
    }  # fmt: skip
    return Anomaly(id=name, revision=revision, **(facts | changes))


def alert(name: str = "l1", revision: int = 1, **changes: Any) -> Alert:
    facts: dict[str, Any] = {
        "state": "firing", "stream": "shop", "policy": "p", "group": {"tenant": "shop"}, "tenant": "shop",
        "severity": "critical", "title": "spike", "summary": "…", "started_at": 10 * MINUTE, "fired_at": 11 * MINUTE,
        "resolved_at": None, "updated_at": 12 * MINUTE, "anomaly_ids": ["a1"], "anomaly_count": 1, "peak_score": 0.9,
        "kinds": ["spike"], "series": [LATENCY.path],
    }  # fmt: skip
    return Alert(id=name, revision=revision, **(facts | changes))


def rejection(name: str, reason: str = "malformed", received_at: int = 0, **changes: Any) -> Rejection:
    facts: dict[str, Any] = {"stream": "shop", "source": "push", "detail": "value 'x'", "origin": "a.csv line 3"}
    return Rejection(id=name, reason=reason, received_at=received_at, **(facts | changes))


def feedback(name: str, verdict: str = "wrong", at_ms: int = 0, **changes: Any) -> Feedback:
    facts: dict[str, Any] = {
        "anomaly_id": "a1", "stream": "shop", "detector": "d", **LATENCY._asdict(), "kind": "spike", "from_ms": MINUTE,
        "until_ms": 3 * MINUTE, "p_value": 1e-7, "by": "ann", "note": "the backup, caf\u00e9",
    }  # fmt: skip
    return Feedback(id=name, verdict=verdict, at_ms=at_ms, **(facts | changes))  # type: ignore[arg-type]


def test_what_people_said_of_anomalies_is_kept_once_and_whole(store: Store) -> None:
    """Each word once, newest first, found by the series' names, the detector and when it was said."""
    said = [feedback("f1"), feedback("f2", "revoke", 2), feedback("f3", "right", 3, **OTHER._asdict(), detector="e")]
    store.write(WriteBatch("shop", feedback=said[:2]))
    store.write(WriteBatch("shop", feedback=[said[0], said[2], said[2]]))
    assert store.feedback(Query()) == said[::-1]
    assert store.feedback(Query(metric="latency_ms", tenant="shop", newest_first=False)) == said[:2]
    assert store.feedback(Query(detector="e")) == [said[2]]
    assert store.feedback(Query(since=2, until=3)) == [said[1]]
    assert store.feedback(Query(stream="bank")) == []
    assert store.feedback(Query(limit=1)) == [said[2]]


def test_readings_come_back_with_their_scores_oldest_first(store: Store) -> None:
    """A reading has the score that a detector gave it; one without a score is there all the same."""
    table = SeriesTable()
    readings = frame(table, [(LATENCY, 2 * MINUTE, 12.0), (LATENCY, MINUTE, 11.0), (ERRORS, MINUTE, 1.0)], [0, 2, 0])
    store.write(WriteBatch("shop", readings=[readings], scores=[scores(readings.take(slice(0, 1)), kind=2)]))
    rows = store.readings(Query(stream="shop", limit=10)).to_pylist()
    assert [(row["metric"], row["timestamp"], row["value"], row["label"]) for row in rows] == [
        ("error_rate", MINUTE, 1.0, 0), ("latency_ms", MINUTE, 11.0, 2), ("latency_ms", 2 * MINUTE, 12.0, 0),
    ]  # fmt: skip
    assert rows[2]["anomaly_score"] == 0.25
    assert rows[2]["kind"] == "spike"
    assert (rows[2]["detector"], rows[2]["expected"], rows[2]["lower"], rows[2]["upper"]) == ("d", 10.0, 9.0, 11.0)
    assert rows[0]["detector"] is None
    assert rows[0]["kind"] is None


def test_missing_values_and_absent_readings_are_null(store: Store) -> None:
    """NaN never leaves the store; a reading that never came appears with the score that noticed it."""
    table = SeriesTable()
    missing = frame(table, [(LATENCY, MINUTE, float("nan"))])
    absent = frame(table, [(LATENCY, 2 * MINUTE, float("nan"))])
    late = frame(table, [(LATENCY, 2 * MINUTE, 5.0)])
    store.write(WriteBatch("shop", readings=[missing], scores=[scores(missing, flags=MISSING)]))
    store.write(WriteBatch("shop", scores=[scores(absent, flags=MISSING | ABSENT, score=0.8, kind=6)]))
    rows = store.readings(Query(limit=10)).to_pylist()
    assert [(row["timestamp"], row["value"], row["kind"]) for row in rows] == [
        (MINUTE, None, "none"), (2 * MINUTE, None, "missing"),
    ]  # fmt: skip
    store.write(WriteBatch("shop", readings=[late]))
    rows = store.readings(Query(since=2 * MINUTE, limit=10)).to_pylist()
    assert sorted((row["value"] is None, row["kind"] or "") for row in rows) == [(False, ""), (True, "missing")]


def test_several_detectors_give_a_row_each_and_one_can_be_asked_for(store: Store) -> None:
    readings = frame(SeriesTable(), [(LATENCY, MINUTE, 1.0)])
    store.write(WriteBatch("shop", readings=[readings], scores=[scores(readings, "a"), scores(readings, "b", 0.5)]))
    assert store.readings(Query(limit=9)).column("detector").to_pylist() == ["a", "b"]
    assert store.readings(Query(detector="b", limit=9)).column("anomaly_score").to_pylist() == [0.5]
    assert store.readings(Query(detector="none", limit=9)).column("anomaly_score").to_pylist() == [None]
    assert store.readings(Query(min_score=0.4, limit=9)).column("detector").to_pylist() == ["b"]


def test_the_limit_keeps_the_newest_readings(store: Store) -> None:
    """Newest ones by default, oldest ones on request, oldest first either way; the range is half-open."""
    readings = frame(SeriesTable(), [(LATENCY, i * MINUTE, float(i)) for i in range(100)])
    store.write(WriteBatch("shop", readings=[readings], scores=[scores(readings)]))
    assert store.readings(Query(limit=3)).column("value").to_pylist() == [97.0, 98.0, 99.0]
    assert store.readings(Query(limit=3, newest_first=False)).column("value").to_pylist() == [0.0, 1.0, 2.0]
    inside = store.readings(Query(since=10 * MINUTE, until=12 * MINUTE, limit=50))
    assert inside.column("value").to_pylist() == [10.0, 11.0]
    assert store.readings(Query(min_score=0.9, limit=3)).num_rows == 0


def test_every_name_filters_and_streams_do_not_mix(store: Store) -> None:
    table = SeriesTable()
    store.write(WriteBatch("shop", readings=[frame(table, [(LATENCY, 1, 1.0), (ERRORS, 1, 2.0)])]))
    store.write(WriteBatch("bank", readings=[frame(table, [(OTHER, 1, 3.0), (LATENCY, 1, 4.0)])]))

    def values(**names: str) -> list[float]:
        return sorted(store.readings(Query(limit=10, **names)).column("value").to_pylist())  # type: ignore[arg-type]

    assert values(stream="shop") == [1.0, 2.0]
    assert values(tenant="bank") == [3.0]
    assert values(cluster="eu", metric="latency_ms") == [1.0, 4.0]
    assert values(stream="bank", node="n1") == [4.0]
    assert values(metric="nothing") == []


def test_the_numbering_of_series_in_a_process_does_not_matter(store: Store) -> None:
    """Two processes number the same series differently; the store goes by name."""
    one, two = SeriesTable([LATENCY, ERRORS]), SeriesTable([ERRORS, OTHER, LATENCY])
    store.write(WriteBatch("shop", readings=[frame(one, [(LATENCY, 1, 1.0), (ERRORS, 1, 2.0)])]))
    store.write(WriteBatch("shop", readings=[frame(two, [(LATENCY, 2, 3.0), (ERRORS, 2, 4.0)])]))
    assert store.readings(Query(metric="latency_ms")).column("value").to_pylist() == [1.0, 3.0]
    for i in range(200):  # beyond the first size of any table by number
        one.id_of(SeriesKey("shop", "eu", f"x{i}", "latency_ms"))
    store.write(WriteBatch("shop", readings=[frame(one, [(SeriesKey("shop", "eu", "x199", "latency_ms"), 3, 9.0)])]))
    assert store.readings(Query(node="x199")).column("value").to_pylist() == [9.0]


def test_series_are_listed_with_what_is_known_of_them(store: Store) -> None:
    readings = frame(SeriesTable(), [(LATENCY, 2, 7.0), (LATENCY, 1, 6.0), (ERRORS, 1, float("nan"))])
    store.write(WriteBatch("shop", readings=[readings]))
    assert store.series(Query(limit=10)).to_pylist() == [
        {"stream": "shop", **ERRORS._asdict(), "readings": 1, "first": 1, "last": 1, "last_value": None},
        {"stream": "shop", **LATENCY._asdict(), "readings": 2, "first": 1, "last": 2, "last_value": 7.0},
    ]
    assert store.series(Query(metric="latency_ms", limit=1)).num_rows == 1
    assert store.series(Query(tenant="bank")).num_rows == 0


def rollup(at: int, *rows: tuple[NodeKey, float]) -> RollupFrame:
    return RollupFrame(
        "d", [scope for scope, _ in rows], np.arange(len(rows), dtype=np.int32), np.full(len(rows), at, np.int64),
        np.array([score for _, score in rows]), np.full(len(rows), 4, np.int32), np.ones(len(rows)),
    )  # fmt: skip


def test_rollups_are_found_by_level_and_the_newest_of_each_scope_is_known(store: Store) -> None:
    tenant, cluster, node = NodeKey("shop", "", ""), NodeKey("shop", "eu", ""), NodeKey("shop", "eu", "n1")
    store.write(WriteBatch("shop", rollups=[rollup(1, (tenant, 0.1), (cluster, 0.2), (node, 0.3))]))
    store.write(WriteBatch("shop", rollups=[rollup(2, (node, 0.6), (tenant, 0.4))]))
    assert store.rollups(Query(cluster="", limit=9)).column("score").to_pylist() == [0.1, 0.4]
    assert store.rollups(Query(cluster="eu", node="", limit=9)).column("score").to_pylist() == [0.2]
    assert store.rollups(Query(limit=2)).column("timestamp").to_pylist() == [2, 2]
    latest = store.latest_rollup("d").to_pylist()
    assert [(row["cluster"], row["node"], row["timestamp"], row["score"]) for row in latest] == [
        ("", "", 2, 0.4), ("eu", "", 1, 0.2), ("eu", "n1", 2, 0.6),
    ]  # fmt: skip
    assert store.latest_rollup("other").num_rows == 0
    assert store.latest_rollup(None).num_rows == 3


def test_a_newer_revision_replaces_and_an_older_one_does_not(store: Store) -> None:
    """A replay changes nothing: the same revision again, or an older one after a newer one."""
    store.write(WriteBatch("shop", anomalies=[anomaly(revision=1), anomaly(revision=3, state="closed", value=None)]))
    store.write(WriteBatch("shop", anomalies=[anomaly(revision=2)], alerts=[alert(revision=2, state="resolved")]))
    store.write(WriteBatch("shop", anomalies=[anomaly(revision=3, value=1.0)], alerts=[alert(revision=1)]))
    assert store.anomalies(Query()) == [anomaly(revision=3, state="closed", value=None)]
    assert store.anomaly("a1") == anomaly(revision=3, state="closed", value=None)
    assert store.anomaly("unknown") is None
    assert [found.revision for found, _ in store.alerts(Query())] == [2]
    assert store.states("anomalies") == {"closed": 1}
    assert store.states("alerts") == {"resolved": 1}


ANOMALY_QUERIES: list[tuple[Query, list[str]]] = [
    (Query(), ["late", "early"]),
    (Query(newest_first=False), ["early", "late"]),
    (Query(limit=1), ["late"]),
    (Query(state="open"), ["late"]),
    (Query(detector="d2"), ["early"]),
    (Query(metric="error_rate"), ["late"]),
    (Query(tenant="bank"), []),
    (Query(min_score=0.8), ["late"]),
    (Query(since=12 * MINUTE), ["late", "early"]),  # early ends at 12 min: it reaches into the range
    (Query(since=12 * MINUTE + 1), ["late"]),
    (Query(until=20 * MINUTE), ["early"]),
]


def test_anomalies_are_found_by_each_filter(store: Store) -> None:
    early = anomaly("early", state="closed", detector="d2", peak_score=0.7)
    late = anomaly("late", onset=20 * MINUTE, end=21 * MINUTE, metric="error_rate")
    store.write(WriteBatch("shop", anomalies=[early, late]))
    for query, expected in ANOMALY_QUERIES:
        assert [found.id for found in store.anomalies(query)] == expected, query


def test_alerts_are_found_by_the_series_they_name_and_can_be_acknowledged(store: Store) -> None:
    store.write(
        WriteBatch("shop", alerts=[alert("one"), alert("two", series=[OTHER.path, ERRORS.path], tenant="shop")])
    )
    assert [found.id for found, _ in store.alerts(Query(cluster="eu", metric="error_rate"))] == ["two"]
    assert [found.id for found, _ in store.alerts(Query(cluster="us", metric="error_rate"))] == []
    assert not store.acknowledge(Acknowledgement("three", "eve", 5))
    assert store.acknowledge(Acknowledgement("one", "ann", 5))
    assert store.acknowledge(Acknowledgement("one", "bob", 6, "on it"))
    assert {found.id: note for found, note in store.alerts(Query())} == {
        "one": Acknowledgement("one", "bob", 6, "on it"), "two": None,
    }  # fmt: skip
    store.write(WriteBatch("shop", alerts=[alert("one", revision=2, state="resolved")]))
    found = store.alert("one")
    assert found is not None
    assert (found[0].state, found[1]) == ("resolved", Acknowledgement("one", "bob", 6, "on it"))
    assert store.alert("three") is None


def test_rejections_are_kept_once_and_counted_by_reason(store: Store) -> None:
    kept = [
        rejection("r1", received_at=1),
        rejection("r2", "late", 2, tenant="shop", raw="caf\u00e9 \\xff"),
        rejection("r1"),
    ]
    store.write(WriteBatch("shop", rejected=kept))
    store.write(
        WriteBatch("shop", rejected=[rejection("r1", received_at=9), rejection("r3", "late", 3, source="file")])
    )
    assert [found.id for found in store.rejected(Query())] == ["r3", "r2", "r1"]
    assert [found.id for found in store.rejected(Query(reason="late", source="push"))] == ["r2"]
    assert store.rejected(Query(tenant="shop"))[0].raw == "caf\u00e9 \\xff"
    assert [found.id for found in store.rejected(Query(since=2, until=3))] == ["r2"]
    assert store.rejected_counts("shop") == {"late": 2, "malformed": 1}
    assert store.rejected_counts(None) == {"late": 2, "malformed": 1}
    assert store.rejected_counts("bank") == {}


def test_offsets_are_kept_by_stream(store: Store) -> None:
    store.write(WriteBatch("shop", offsets={PLACE: 5, TopicPartition("local.shop.scores", 1): 7}))
    store.write(WriteBatch("shop", offsets={PLACE: 9}))
    assert store.offsets("shop") == {PLACE: 9, TopicPartition("local.shop.scores", 1): 7}
    assert store.offsets("bank") == {}


def test_a_batch_that_cannot_be_written_changes_nothing(store: Store) -> None:
    """All or nothing, offsets included; the next batch goes through, with series it has never seen."""
    table = SeriesTable()
    good = frame(table, [(LATENCY, 1, 1.0)])
    broken = Frame(table, table.ids_of([ERRORS]), np.array([1], np.int64), None)  # type: ignore[arg-type]
    with pytest.raises(Exception):  # noqa: B017, PT011 - each store fails in its own words
        store.write(WriteBatch("shop", readings=[good, broken], rejected=[rejection("r")], offsets={PLACE: 5}))
    assert store.counts() == dict.fromkeys(store.counts(), 0)
    assert store.offsets("shop") == {}
    store.write(WriteBatch("shop", readings=[frame(table, [(OTHER, 1, 2.0)]), good], offsets={PLACE: 5}))
    rows = store.readings(Query()).to_pylist()
    assert {(row["tenant"], row["value"]) for row in rows} == {("bank", 2.0), ("shop", 1.0)}


def test_purge_removes_what_is_older_and_only_of_its_stream(store: Store) -> None:
    table = SeriesTable()
    readings = frame(table, [(LATENCY, i * DAY, 1.0) for i in range(20)])
    batch = WriteBatch(
        "shop", readings=[readings], scores=[scores(readings)], rollups=[rollup(1, (NodeKey("shop", "", ""), 0.1))],
        anomalies=[anomaly("old"), anomaly("new", end=30 * DAY)],
        alerts=[alert("old"), alert("new", updated_at=30 * DAY)],
        rejected=[rejection("old"), rejection("new", received_at=30 * DAY)],
        feedback=[feedback("old"), feedback("new", at_ms=30 * DAY)],
    )  # fmt: skip
    store.write(batch)
    store.write(WriteBatch("bank", readings=[readings]))
    assert store.counts() == {
        "readings": 40, "scores": 20, "rollups": 1, "anomalies": 2, "alerts": 2, "rejected": 2,
        "feedback": 2,
    }  # fmt: skip
    edge = 15 * DAY
    assert store.purge("readings", "shop", edge) == 15
    assert store.purge("scores", "shop", edge) == 15
    events: tuple[Purgeable, ...] = ("rollups", "anomalies", "alerts", "rejected", "feedback")
    assert [store.purge(what, "shop", edge) for what in events] == [1, 1, 1, 1, 1]
    assert store.counts() == {
        "readings": 25, "scores": 5, "rollups": 0, "anomalies": 1, "alerts": 1, "rejected": 1,
        "feedback": 1,
    }  # fmt: skip
    assert store.purge("readings", "shop", edge) == 0


def test_an_empty_batch_and_an_empty_store_are_nothing_special(store: Store) -> None:
    table = SeriesTable()
    store.write(WriteBatch("shop", readings=[Frame.empty(table)]))
    store.write(WriteBatch("shop"))
    for answer in (store.readings(Query()), store.series(Query()), store.rollups(Query()), store.latest_rollup(None)):
        assert answer.num_rows == 0
    assert store.anomalies(Query()) == []
    assert store.alerts(Query()) == []


def test_columns_are_the_same_whatever_the_store(store: Store) -> None:
    """Names and types of every table, so that a reader need not know which store it reads."""
    texts = ["stream", "tenant", "cluster", "node", "metric"]
    readings = store.readings(Query()).schema
    assert readings.names == [
        *texts, "timestamp", "value", "label", "detector", "anomaly_score", "p_value", "expected", "lower", "upper",
        "kind", "flags",
    ]  # fmt: skip
    assert [str(readings.field(name).type) for name in ("timestamp", "value", "label", "kind", "flags")] == [
        "int64", "double", "uint8", "string", "uint8",
    ]  # fmt: skip
    series = store.series(Query()).schema
    assert series.names == [*texts, "readings", "first", "last", "last_value"]
    assert str(series.field("readings").type) == "int64"
    names = ["detector", "tenant", "cluster", "node", "timestamp", "score", "children", "peak"]
    assert store.rollups(Query()).schema.names == names
    assert store.latest_rollup(None).schema.names == names
    assert str(store.rollups(Query()).schema.field("children").type) == "int32"


def test_names_with_quotes_and_any_alphabet_are_only_names(store: Store) -> None:
    """No name can be read as SQL or break a path."""
    key = SeriesKey("shöp'; DROP TABLE readings; --", "?", "n\u00f81%", 'me"tric')
    store.write(WriteBatch("shop", readings=[frame(SeriesTable(), [(key, 1, 1.0)])]))
    assert store.readings(Query(tenant=key.tenant, metric=key.metric)).column("node").to_pylist() == [key.node]
    assert store.readings(Query(node="n%")).num_rows == 0


def test_threads_read_whole_batches_while_the_archive_writes(store: Store) -> None:
    """Each reader sees the readings of a batch together with its scores, or neither, and never goes back."""
    table = SeriesTable()
    keys = [SeriesKey("shop", "eu", f"n{i}", "cpu") for i in range(50)]
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        seen = 0
        while not done.is_set():
            rows = store.readings(Query(limit=50)).to_pylist()
            newest = max((row["timestamp"] for row in rows), default=0)
            whole = sum(row["timestamp"] == newest and row["anomaly_score"] is not None for row in rows)
            if rows and (whole != 50 or newest < seen):
                failures.append(f"{whole} scored rows of 50 at {newest} after {seen}")
            seen = newest

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for at in range(1, 11):
        readings = frame(table, [(key, at, float(at)) for key in keys])
        store.write(WriteBatch("shop", readings=[readings], scores=[scores(readings)], offsets={PLACE: at}))
    done.set()
    for reader in readers:
        reader.join(20)
    assert not failures
    assert store.counts()["scores"] == 500


def test_a_random_history_reads_the_same_from_every_store(store: Store) -> None:
    """The memory store is the slow oracle of the others: 30 random questions, the same answers."""
    rng = np.random.default_rng(5)
    table = SeriesTable(SeriesKey(t, c, n, m) for t in "ab" for c in "xy" for n in "12" for m in ("p", "q"))
    both: list[Store] = [MemoryStore(), store]
    for round_ in range(5):
        rows = [(table[int(i)], round_ * 40 + at, float(rng.normal())) for at in range(40) for i in rng.permutation(16)]
        readings = frame(table, rows)
        part = readings.take(rng.random(len(rows)) < 0.7)
        judged = scores(part, "d" if round_ % 2 else "e")
        judged.anomaly_score[:] = rng.random(len(part)).round(2)
        for each in both:
            each.write(WriteBatch("s", readings=[readings], scores=[judged]))
    choices: dict[str, list[Any]] = {
        "tenant": [None, "a"], "cluster": [None, "x"], "metric": [None, "p"], "detector": [None, "d"],
        "since": [None, 30, 150], "until": [None, 60, 170], "min_score": [None, 0.5],
    }  # fmt: skip
    for _ in range(30):
        query = Query(limit=10_000, **{name: values[rng.integers(len(values))] for name, values in choices.items()})
        memory, other = (each.readings(query) for each in both)
        assert memory.to_pylist() == other.to_pylist()
        assert both[0].series(query).to_pylist() == both[1].series(query).to_pylist()
