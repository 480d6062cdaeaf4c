"""A real server with known data, and a real Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import uvicorn

from tidewarden.bus.memory import MemoryBus
from tidewarden.clock import SystemClock
from tidewarden.events import Alert, Anomaly, AnomalyBatch, AnomalyKind, Feedback, Rejection, severity_of, stable_id
from tidewarden.frames import ABOVE, MISSING, Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import AlertPolicy, AnomalyDetector, MetricStream
from tidewarden.store.embedded import EmbeddedStore
from tidewarden.store.port import WriteBatch
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics
from tidewarden_services.api.app import create_app

INTERVAL_MS = 60_000
TICKS = 300
BASE = {"latency_ms": 100.0, "cpu_percent": 40.0}
HOT = SeriesKey("shop", "eu", "n2", "latency_ms")
GAPPY = SeriesKey("shop", "us", "n1", "cpu_percent")
EXPLANATION = "latency_ms 412, expected 85–115, 9 min; drives 71 % of node n2"
CHROMIUM_ARGS = [
    "--no-sandbox",  # containers have no user namespaces to build a sandbox from
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str | None:
    """Chromium as TIDEWARDEN_CHROMIUM names it, or as it is on the PATH."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return os.environ.get("TIDEWARDEN_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="session")
def browser():
    """One Chromium for the session."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the Python package playwright is not installed")
    path = chromium_path()
    if path is None:
        pytest.skip("no Chromium: install chromium or set TIDEWARDEN_CHROMIUM to its path")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()


@dataclass
class Site:
    """A running server, what is behind it, and where it is."""

    url: str
    bus: MemoryBus
    store: EmbeddedStore
    topics: StreamTopics
    now: int
    server: uvicorn.Server
    thread: threading.Thread

    def publish(self, anomaly: Anomaly) -> None:
        """As the detect service does."""
        batch = AnomalyBatch(detector="shop-auto", anomalies=[anomaly], watermarks={anomaly.tenant: anomaly.end})
        self.bus.publish(self.topics.name("anomalies"), batch, key=anomaly.tenant)

    def words(self, count: int) -> list[Feedback]:
        """Archive what the page said of anomalies; all of it, once there are so many words."""
        readings = self.topics.name("readings")
        reader = self.bus.consumer([readings], "words")
        reader.seek(dict.fromkeys(self.bus.ends(readings), 0))
        found: list[Feedback] = []
        deadline = time.monotonic() + 20
        while len(found) < count:
            assert time.monotonic() < deadline, found
            found += [record.value for record in reader.poll(100, 0.1)]
        reader.close()
        self.store.write(WriteBatch("shop", feedback=found))
        return found

    def restart(self, *, populated: bool) -> Site:
        """Another server at the address of this one, which has been stopped."""
        return start(populated=populated, port=int(self.url.rpartition(":")[2]))

    def stop(self) -> None:
        """End the server as Ctrl-C does; a second call does nothing."""
        if self.server.should_exit:
            return
        self.server.should_exit = True
        self.thread.join(10)
        self.bus.close()
        self.store.close()


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """The application on a free loopback port, with five hours of one small fleet."""
    running = start(populated=True)
    yield running
    running.stop()


@pytest.fixture
def empty_site() -> Iterator[Site]:
    """The application before its first reading."""
    running = start(populated=False)
    yield running
    running.stop()


def start(*, populated: bool, port: int = 0) -> Site:
    """Build store, bus and application, and serve it."""
    clock = SystemClock()
    now = clock.now_ms() // INTERVAL_MS * INTERVAL_MS
    keys = [
        SeriesKey(tenant, cluster, f"n{node}", metric)
        for tenant in ("bank", "shop") for cluster in ("eu", "us") for node in range(1, 4) for metric in BASE
    ]  # fmt: skip
    table = SeriesTable(keys)
    store = EmbeddedStore(None)
    bus = MemoryBus(table)
    telemetry = Telemetry()
    topics = StreamTopics("local", "shop")
    bus.create(topics.all())
    if populated:
        store.write(history(table, keys, now))
        post_status(telemetry, len(keys))
    resources = [
        MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": {"tenants": ["shop", "bank"]}}),
        AnomalyDetector.model_validate({"metadata": {"name": "shop-auto"}, "spec": {"stream": "shop"}}),
        AlertPolicy.model_validate({"metadata": {"name": "default"}, "spec": {"stream": "shop"}}),
    ]
    app = create_app(
        store=store, bus=bus, topics_by_stream={"shop": topics}, board=telemetry.board, telemetry=telemetry,
        resources=resources, clock=clock,
    )  # fmt: skip
    listener = socket.create_server(("127.0.0.1", port))  # listening already: a browser that comes early waits
    config = uvicorn.Config(app, ws="websockets-sansio", log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page-server")
    thread.start()
    return Site(f"http://127.0.0.1:{listener.getsockname()[1]}", bus, store, topics, now, server, thread)


def history(table: SeriesTable, keys: list[SeriesKey], now: int) -> WriteBatch:
    """Calm readings, one open anomaly at the end of HOT, and a gap in GAPPY."""
    rng = np.random.default_rng(5)
    count = len(keys)
    series = np.tile(np.arange(count, dtype=np.int32), TICKS)
    at = np.repeat(now - INTERVAL_MS * np.arange(TICKS - 1, -1, -1, dtype=np.int64), count)
    expected = np.tile(np.array([BASE[key.metric] for key in keys]), TICKS)
    value = expected * (1 + 0.04 * rng.standard_normal(len(series)))
    score = np.minimum(0.4, rng.exponential(0.05, len(series)))
    kind = np.zeros(len(series), np.uint8)
    flags = np.zeros(len(series), np.uint8)
    hot = (series == keys.index(HOT)) & (at > now - 9 * INTERVAL_MS)
    value[hot], score[hot], kind[hot], flags[hot] = 412.0, 0.97, AnomalyKind.SPIKE, ABOVE
    gap = (series == keys.index(GAPPY)) & (at > now - 40 * INTERVAL_MS) & (at <= now - 30 * INTERVAL_MS)
    value[gap], flags[gap] = np.nan, MISSING
    scores = ScoreFrame(
        table, "shop-auto", "auto/1", series, at, value, score, 10 ** (-6 * score), expected,
        expected * 0.85, expected * 1.15, kind, flags,
    )  # fmt: skip
    alerts = [
        make_alert(make_anomaly(HOT, now, minutes=9, score=0.97), "latency_ms spike on shop/eu/n2"),
        make_alert(make_anomaly(GAPPY, now, minutes=6, score=0.7), "cpu_percent unusual on shop/us/n1"),
    ]
    rejected = [
        Rejection(
            id=f"r{i}", stream="shop", source="push", reason=reason, detail=detail, origin="127.0.0.1:5000",
            received_at=now, tenant="shop", raw='{"value": "abc"}',
        )
        for i, (reason, detail) in enumerate([
            ("malformed", "value 'abc' is not a number: send a number or null"),
            ("unknown_tenant", "tenant 'acme' is not in spec.tenants of stream shop: add it"),
        ])
    ]  # fmt: skip
    return WriteBatch(
        "shop", readings=[Frame(table, series, at, value)], scores=[scores], rollups=[rollup(keys, now)],
        anomalies=[make_anomaly(HOT, now, minutes=9, score=0.97)], alerts=alerts, rejected=rejected,
    )  # fmt: skip


def rollup(keys: list[SeriesKey], now: int) -> RollupFrame:
    """The newest tick: everything calm but the hot node and what is above it."""
    nodes = sorted({NodeKey(*key[:3]) for key in keys})
    clusters = sorted({NodeKey(*key[:2], "") for key in keys})
    tenants = sorted({NodeKey(key.tenant, "", "") for key in keys})
    scopes = [*tenants, *clusters, *nodes]
    hot = {NodeKey("shop", "", ""): 0.6, NodeKey("shop", "eu", ""): 0.8, NodeKey("shop", "eu", "n2"): 0.97}
    score = np.array([hot.get(scope, 0.1) for scope in scopes])
    count = len(scopes)
    return RollupFrame(
        "shop-auto", scopes, np.arange(count, dtype=np.int32), np.full(count, now), score,
        np.full(count, 2, np.int32), score,
    )  # fmt: skip


def make_anomaly(key: SeriesKey, now: int, *, minutes: int, score: float, explanation: str = EXPLANATION) -> Anomaly:
    """An open anomaly of the last ``minutes``."""
    onset = now - (minutes - 1) * INTERVAL_MS
    base = BASE[key.metric]
    return Anomaly(
        id=stable_id("shop", "shop-auto", key.path, onset), revision=1, state="open", stream="shop",
        detector="shop-auto", model_version="auto/1", **key._asdict(), onset=onset, end=now, peak_at=onset,
        peak_score=score, p_value=10 ** (-6 * score), value=412.0, expected=base, lower=0.85 * base,
        upper=1.15 * base, readings=minutes, kind="spike", direction="up", severity=severity_of(score),
        node_share=0.71, explanation=explanation,
    )  # fmt: skip


def make_alert(anomaly: Anomaly, title: str) -> Alert:
    """A firing alert about one anomaly."""
    return Alert(
        id=stable_id("default", anomaly.id), revision=1, state="firing", stream="shop", policy="default",
        group={"cluster": anomaly.cluster}, tenant=anomaly.tenant, severity=anomaly.severity, title=title,
        summary=anomaly.explanation, started_at=anomaly.onset, fired_at=anomaly.onset, resolved_at=None,
        updated_at=anomaly.end, anomaly_ids=[anomaly.id], anomaly_count=1, peak_score=anomaly.peak_score,
        kinds=[anomaly.kind], series=[anomaly.series.path],
    )  # fmt: skip


def post_status(telemetry: Telemetry, series: int) -> None:
    """What sources and detectors say of themselves."""
    telemetry.readings.labels("shop", "fleet").inc(series * TICKS)
    telemetry.rejected.labels("shop", "push", "malformed").inc()
    telemetry.rejected.labels("shop", "push", "unknown_tenant").inc()
    telemetry.board.post(
        "sources", "fleet", stream="shop", kind="simulation", state="running", accepted=series * TICKS, rejected=0,
        success_rate=1.0, late=0, lag_s=1.0,
    )  # fmt: skip
    telemetry.board.post(
        "detectors", "shop-auto", stream="shop", model="auto/1", series=series, ready=series, learning=0, warmup=120,
        message="ready", state_bytes=series * 8000, threshold=0.8,
    )  # fmt: skip
    telemetry.board.post(
        "detectors", "shop-new", stream="shop", model="auto/1", series=series, ready=0, learning=series, warmup=120,
        message="learning, 34 of 120 readings", state_bytes=0, threshold=0.8,
    )  # fmt: skip


@pytest.fixture
def new_anomaly():
    """A maker of open anomalies; see `make_anomaly`."""
    return make_anomaly


@dataclass
class Log:
    """Everything a page asked for and complained about."""

    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@pytest.fixture
def open_page(browser):
    """Open pages with a look of their own; afterwards none may have complained or left its origin."""
    opened = []

    def opener(site: Site, path: str = "/", *, expect_problems: bool = False, **context_options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 860}} | context_options))
        context.set_default_timeout(10_000)
        log = Log()
        page = context.new_page()
        page.on("request", lambda request: log.requests.append(request.url))
        page.on("websocket", lambda ws: log.requests.append(ws.url))
        page.on("console", lambda m: log.problems.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: log.problems.append(str(error)))
        page.goto(site.url + path)
        page.log = log
        opened.append((context, site, log, expect_problems))
        return page

    yield opener
    for context, site, log, expect_problems in opened:
        context.close()
        origin = site.url.removeprefix("http")
        foreign = [
            url for url in log.requests if not url.startswith(("http" + origin, "ws" + origin, "data:", "blob:"))
        ]
        assert foreign == []
        assert expect_problems or log.problems == []
