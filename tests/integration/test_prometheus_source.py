"""The prometheus source on a real Prometheus that scrapes an exporter of the test."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from servers.processes import until
from tidewarden.bus.memory import MemoryBus
from tidewarden.clock import ManualClock, SystemClock
from tidewarden.credentials import http_client
from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.sources import Batch
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics
from tidewarden_services.ingest.service import IngestService
from tidewarden_services.ingest.sources.prometheus import PrometheusSource

pytestmark = pytest.mark.prometheus


class Exporter:
    """Two nodes, each with a counter that restarts at every seventh scrape, and a gauge, which is NaN on node b."""

    def __init__(self) -> None:
        self.scrapes = 0
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = exporter.page().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def page(self) -> str:
        self.scrapes += 1
        n = self.scrapes
        lines = ["# TYPE requests_total counter", "# TYPE depth gauge"]
        for node, gauge in (("a", str(n)), ("b", "NaN")):
            lines += [f'requests_total{{node="{node}",region="eu"}} {n % 7 * 10}', f'depth{{node="{node}"}} {gauge}']
        return "\n".join(lines) + "\n"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def scraped(prometheus_server: Callable[[str], Any]) -> Iterator[Any]:
    """A Prometheus that has scraped the exporter for about six seconds, ten times a second."""
    exporter = Exporter()
    server = prometheus_server(
        f"""
global: {{scrape_interval: 100ms, scrape_timeout: 100ms}}
scrape_configs:
  - job_name: test
    static_configs: [{{targets: ["{exporter.address}"]}}]
"""
    )
    until(lambda: exporter.scrapes >= 60, "sixty scrapes")
    yield server
    exporter.close()


def stream(url: str, **prometheus: Any) -> MetricStream:
    source = {"name": "ask", "prometheus": {"url": url, "every": "1s", "labels": {"node": "node"}, **prometheus}}
    return MetricStream.model_validate(
        {"metadata": {"name": "s"}, "spec": {"tenants": ["shop"], "interval": "1s", "sources": [source]}}
    )


def source(resource: MetricStream, clock: Any, folder: Path | None = None) -> PrometheusSource:
    spec = resource.spec.sources[0]
    url = str(spec.prometheus.url)
    return PrometheusSource(resource, spec, SeriesTable(), clock, url, lambda: http_client(folder, 5.0))


def rows(batch: Batch) -> list[tuple[str, int, str]]:
    f = batch.frame
    return [
        (f.table[series].path, at, repr(value))
        for series, at, value in zip(f.series.tolist(), f.timestamp.tolist(), f.value.tolist(), strict=True)
    ]


def taken(feed: PrometheusSource, position: str, steps: int) -> list[Batch]:
    """The batches that make up the next steps."""
    stop, found, end = threading.Event(), [], int(position) + steps * 1_000
    for batch in feed.batches(position, stop):
        found.append(batch)
        if int(batch.position or 0) >= end:
            stop.set()
    return found


def test_instant_and_range_queries_give_the_same_readings_for_the_same_steps(scraped: Any) -> None:
    """Step by step as live, or all at once as after a pause: the same series, times and values, NaN as missing."""
    query = '{__name__="depth"} or rate(requests_total[1s])'
    resource = stream(scraped.url, query=query, metric="m")
    now_ms = int(time.time() * 1000)
    start_ms = (now_ms - 5_000) // 1_000 * 1_000
    live: list[tuple[str, int, str]] = []
    for step in range(4):  # the clock says that exactly one step is due
        clock = ManualClock(start_ms + (step + 1) * 1_000)
        batches = taken(source(resource, clock), str(start_ms + step * 1_000), 1)
        assert len(batches) == 1
        live += rows(batches[0])
    late = taken(source(resource, ManualClock(start_ms + 4_000)), str(start_ms), 4)
    assert [batch.position for batch in late] == [str(start_ms + 4_000)], "one range query"
    assert rows(late[0]) == live
    assert {at for _, at, _ in live} == {start_ms + step * 1_000 for step in (1, 2, 3, 4)}
    rates = [float(value) for path, _, value in live if path.startswith('shop/default/a/m{instance="127.0.0.1:')]
    assert rates
    depth = [value for path, _, value in live if "region" not in path]
    assert all(float(value) >= 0 for value in (v for path, _, v in live if "region" in path)), "resets are no dips"
    assert depth.count("nan") == 4


def test_a_replay_is_cut_where_it_is_told(scraped: Any) -> None:
    """Positions given to `cut_at` end a range query, and the steps together are the same as without."""
    resource = stream(scraped.url, query="sum by (node) (depth)", metric="m")
    start_ms = int(time.time()) * 1_000 - 5_000
    clock = ManualClock(start_ms + 4_000)
    whole = taken(source(resource, clock), str(start_ms), 4)
    feed = source(resource, clock)
    feed.cut_at([str(start_ms + 3_000), str(start_ms + 1_000)])
    cut = taken(feed, str(start_ms), 4)
    assert [batch.position for batch in cut] == [str(start_ms + ms) for ms in (1_000, 3_000, 4_000)]
    assert [row for batch in cut for row in rows(batch)] == [row for batch in whole for row in rows(batch)]


def test_backfill_then_live_through_ingest_and_a_restart_misses_no_step(scraped: Any) -> None:
    """Every step from the backfill on has its readings exactly once, also those of the time when nobody ran."""
    resource = stream(scraped.url, query="sum by (node) (requests_total)", metric="total", backfill="3s")
    table = SeriesTable()
    bus, topics, telemetry = MemoryBus(table), StreamTopics("local", "s"), Telemetry()
    bus.create(topics.all())
    reader = bus.consumer([topics.name("readings")], "test")
    state: list[bytes] = []
    seen: list[tuple[str, int]] = []

    def look() -> list[tuple[str, int]]:
        for record in reader.poll(100, 0):
            f = record.value
            seen.extend((f.table[s].path, at) for s, at in zip(f.series.tolist(), f.timestamp.tolist(), strict=True))
        return seen

    def life(readings: int) -> None:
        spec = resource.spec.sources[0]
        feed = PrometheusSource(resource, spec, table, SystemClock(), scraped.url, lambda: http_client(None, 5.0))
        service = IngestService(
            resource, feed, bus, topics, table, SystemClock(), telemetry,
            lambda: state[-1] if state else None, state.append,
        )  # fmt: skip
        stop = threading.Event()
        thread = threading.Thread(target=service.run, args=(stop,), daemon=True)
        thread.start()
        until(lambda: len(look()) >= readings, "readings")
        stop.set()
        thread.join(10)

    life(12)  # four steps of backfill, two live ones
    last = max(at for _, at in look())
    until(lambda: time.time() * 1000 > last + 3_000, "three steps go by")
    life(len(look()) + 8)
    for node in ("a", "b"):
        times = [at for path, at in look() if path == f"shop/default/{node}/total"]
        assert times == list(range(times[0], times[-1] + 1, 1_000))
    assert telemetry.board.read()["sources"]["s/ask"]["rejected"] == 0


def test_a_missing_label_is_refused_by_name_and_a_wrong_query_is_said(scraped: Any) -> None:
    """Results without a node are kept as rejections with the remedy; a broken query makes the status wait."""
    start_ms = int(time.time()) * 1_000 - 3_000
    clock = ManualClock(start_ms + 1_000)
    [batch] = taken(source(stream(scraped.url, query="sum(depth)", metric="m"), clock), str(start_ms), 1)
    assert not len(batch.frame)
    assert [(r.reason, "label 'node'" in r.detail, "sum by" in r.detail) for r in batch.refused] == [
        ("missing_field", True, True)
    ]
    [batch] = taken(source(stream(scraped.url, query="rate(requests_total[1s])"), clock), str(start_ms), 1)
    assert {r.reason for r in batch.refused} == {"missing_field"}
    assert "set prometheus.metric" in batch.refused[0].detail

    for query, told in (("sum(", "the query failed (bad_data)"), ("depth[1m]", "gives a matrix")):
        stop, said = threading.Event(), []
        feed = source(stream(scraped.url, query=query), clock)
        feed.report_to(lambda state, message, said=said, stop=stop: (said.append((state, message)), stop.set()))
        assert list(feed.batches(str(start_ms), stop)) == []
        assert said[0][0] == "waiting"
        assert told in said[0][1]


def test_a_server_that_is_away_is_waited_for(prometheus_server: Callable[[str], Any]) -> None:
    """The status says that it cannot be reached; once it is back, the steps missed meanwhile are made up."""
    server = prometheus_server("global: {}\n")
    server.kill()
    said: list[tuple[str, str]] = []
    start_ms = int(time.time()) * 1_000 - 3_000
    feed = source(
        stream(server.url, query="label_replace(vector(time()), 'node', 'n', '', '')", metric="m"), SystemClock()
    )
    feed.report_to(lambda state, message: said.append((state, message)))
    stop, found = threading.Event(), []

    def run() -> None:
        found.extend(
            batch for batch in feed.batches(str(start_ms), stop) if not (stop.set() if batch.refused else None)
        )

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: said, "it waits")
    assert said[0][0] == "waiting"
    assert "cannot be reached" in said[0][1]
    server.start()
    until(lambda: said[-1][0] == "running", "it goes on")
    until(lambda: feed.progress()[0] >= 3, "the steps")
    stop.set()
    thread.join(10)
    readings = [row for batch in found for row in rows(batch)]
    assert [at for _, at, _ in readings] == list(range(start_ms + 1_000, start_ms + 1_000 * len(readings) + 1, 1_000))
    assert all(float(value) * 1000 == at for _, at, value in readings), "each step was evaluated at its own time"


def test_a_token_or_a_password_of_a_secret_logs_in(tmp_path: Path) -> None:
    """Keys are read for every request, so a renewed token is used without a restart."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers["Authorization"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    with http_client(tmp_path, 5.0) as client:
        (tmp_path / "token").write_text("one\n")
        client.get(url)
        (tmp_path / "token").write_text("two\n")
        client.get(url)
        (tmp_path / "token").unlink()
        (tmp_path / "username").write_text("u")
        (tmp_path / "password").write_text("p")
        client.get(url)
    server.shutdown()
    server.server_close()
    assert isinstance(client, httpx.Client)
    assert seen == ["Bearer one", "Bearer two", f"Basic {base64.b64encode(b'u:p').decode()}"]
