"""How much a real Elasticsearch takes and gives: readings with scores and anomalies a second, and what the page asks.

    python benchmarks/bench_elasticsearch.py

It starts a server of its own, from the jars that the tests use too. Beside the wall's time stand the
seconds of a core that the server and this process spent, which a busy machine hardly changes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tidewarden.events import Anomaly, stable_id
from tidewarden.frames import Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch import ElasticsearchStore
from tidewarden.store.elasticsearch.documents import Documents
from tidewarden.store.elasticsearch.names import StreamNames
from tidewarden.store.port import Query, WriteBatch

SERIES, TICKS, MINUTE = 2_000, 25, 60_000
BEGIN = 1_700_006_400_000
ANOMALIES = 10_000


@contextmanager
def server() -> Iterator[Any]:
    """A running server of our own."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from servers.elasticsearch import ElasticsearchServer, home

    with tempfile.TemporaryDirectory() as folder:
        own = ElasticsearchServer(home(), Path(folder) / "server")
        own.start()
        try:
            yield own
        finally:
            own.kill()


def batch(table: SeriesTable, first: int, ticks: int, *, scored: bool) -> WriteBatch:
    rng = np.random.default_rng(first)
    n = SERIES * ticks
    series = np.tile(np.arange(SERIES, dtype=np.int32), ticks)
    at = BEGIN + (first + np.repeat(np.arange(ticks, dtype=np.int64), SERIES)) * MINUTE
    value = rng.normal(100, 10, n)
    readings = Frame(table, series, at, value)
    p = rng.random(n)
    score = np.minimum(1, -np.log10(p) / 6)
    kind, flags = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    scores = ScoreFrame(
        table, "latency", "auto/1", series, at, value, score, p, value + 1, value - 20, value + 20, kind, flags
    )
    nodes = [NodeKey("shop", "eu", f"n{i}") for i in range(SERIES // 4)]
    rollup = RollupFrame(
        "latency", nodes, np.arange(len(nodes), dtype=np.int32), np.full(len(nodes), at[-1]),
        np.full(len(nodes), 0.1), np.full(len(nodes), 4, np.int32), np.full(len(nodes), 0.2),
    )  # fmt: skip
    return WriteBatch("shop", readings=[readings], scores=[scores] if scored else [], rollups=[rollup])


def anomalies(count: int) -> list[Anomaly]:
    return [
        Anomaly(
            id=stable_id("a", i), revision=1, state="closed", stream="shop", detector="latency", model_version="auto/1",
            tenant="shop", cluster="eu", node=f"n{i % 500}", metric="latency_ms", onset=BEGIN + i * 1000,
            end=BEGIN + i * 1000 + MINUTE, peak_at=BEGIN + i * 1000, peak_score=0.9, p_value=1e-6, value=412.0,
            expected=100.0, lower=90.0, upper=110.0, readings=2, kind="spike", direction="up", severity="critical",
            node_share=0.7, explanation="latency_ms 412 – expected 90 to 110 at this time of day",
        )
        for i in range(count)
    ]  # fmt: skip


def core_seconds(pid: int) -> float:
    """What a process has spent of a core so far."""
    spent = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(spent[11]) + int(spent[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    table = SeriesTable(
        SeriesKey("shop", "eu", f"n{i // 4}", ("latency_ms", "error_rate", "throughput", "cpu")[i % 4])
        for i in range(SERIES)
    )
    rows = SERIES * TICKS
    with server() as own:

        def timed(what: str, rows: int, work: Callable[[], object]) -> None:
            server_began, we_began, began = core_seconds(own.pid), time.process_time(), time.perf_counter()
            work()
            took, ours = time.perf_counter() - began, time.process_time() - we_began
            theirs = core_seconds(own.pid) - server_began
            print(
                f"{what:44} {rows:>8,} rows {took:7.2f} s  server {theirs:6.2f} s of a core "
                f"({rows / theirs if theirs else 0:>9,.0f} rows/s)  client {ours:5.2f} s ({rows / ours:>9,.0f} rows/s)"
            )

        settings = ElasticsearchSettings(url=own.url, prefix="benchmark")
        store = ElasticsearchStore(settings, "here")
        try:
            store.write(batch(table, 0, 5, scored=True))  # warms the server's code
            alone = batch(table, 10, TICKS, scored=False)
            scored = batch(table, 100, TICKS, scored=True)
            encoder = Documents(StreamNames("benchmark", "here", "shop"), 1)
            timed("encode readings with scores (no server)", rows, lambda: encoder.of(scored))
            timed("write readings", rows, lambda: store.write(alone))
            timed("write readings with scores", rows, lambda: store.write(scored))
            timed("write them again", rows, lambda: store.write(scored))
            timed("write anomalies", ANOMALIES, lambda: store.write(WriteBatch("shop", anomalies=anomalies(ANOMALIES))))
            store.refresh("shop")
            one = {"stream": "shop", "node": "n7", "metric": "latency_ms"}
            timed("read the newest 1,000 of a series", 1_000, lambda: store.readings(Query(limit=1_000, **one)))  # type: ignore[arg-type]
            timed("read 1,000 above a score", 1_000, lambda: store.readings(Query(limit=1_000, min_score=0.5)))
            timed("read 100,000 readings with scores", rows, lambda: store.readings(Query(limit=rows)))
            timed("list 100 series with what is known of them", 100, lambda: store.series(Query(limit=100)))
            timed("newest rollup of every scope", SERIES // 4, lambda: store.latest_rollup(None))
            timed("newest 100 anomalies", 100, lambda: store.anomalies(Query(limit=100)))
            timed("anomalies by state", 1, lambda: store.states("anomalies"))
            timed("counts of everything", 1, store.counts)
        finally:
            store.drop("shop")
            store.close()


if __name__ == "__main__":
    main()
