"""The live half of the API, over a real server and real WebSockets."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tidewarden.bus.memory import MemoryBus
from tidewarden.clock import SystemClock
from tidewarden.events import Alert, Anomaly, AnomalyBatch
from tidewarden.frames import Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.store.memory import MemoryStore
from tidewarden.store.port import StoreUnavailableError, WriteBatch
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics
from tidewarden_services.api import live
from tidewarden_services.api.app import create_app

TOPICS = StreamTopics("local", "shop")
KEY = SeriesKey("shop", "eu", "n1", "cpu")
STREAM = MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": {"tenants": ["shop"]}})
PATIENCE_S = 20.0


class World:
    """A bus, a store and the API over them."""

    def __init__(self, serve: Callable[[FastAPI], Any], store: MemoryStore | None = None) -> None:
        self.table = SeriesTable([KEY])
        self.bus, self.store, self.telemetry = MemoryBus(self.table), store or MemoryStore(), Telemetry()
        app = create_app(
            store=self.store, bus=self.bus, topics_by_stream={"shop": TOPICS}, board=self.telemetry.board,
            telemetry=self.telemetry, resources=[STREAM], clock=SystemClock(), page=None,
        )  # fmt: skip
        served = serve(app)
        self.address, self.stop = served.address, served.stop

    @contextlib.contextmanager
    def client(self, **options: Any) -> Iterator[ClientConnection]:
        with connect(f"ws://{self.address}/ws", **options) as connection:
            yield connection

    def write(self, timestamp: int, value: float, *, scored: bool = True) -> None:
        frame = Frame(self.table, np.zeros(1, np.int32), np.array([timestamp], np.int64), np.array([value]))
        floats = [np.full(1, x) for x in (0.5, 0.001, 1.0, 0.0, 2.0)]
        none = np.zeros(1, np.uint8)
        score = ScoreFrame(self.table, "d", "auto/1", frame.series, frame.timestamp, frame.value, *floats, none, none)
        self.store.write(WriteBatch("shop", readings=[frame], scores=[score] if scored else []))

    def publish_anomalies(self, *names: str, revision: int = 1, score: float = 0.9, size: int = 20) -> None:
        batch = AnomalyBatch(detector="d", anomalies=[anomaly(n, revision, score, size) for n in names], watermarks={})
        self.bus.publish(TOPICS.name("anomalies"), batch, key="shop")


@pytest.fixture(scope="module")
def world(serve: Callable[[FastAPI], Any]) -> Iterator[World]:
    made = World(serve)
    yield made
    made.bus.close()


class StartingStore(MemoryStore):
    """Its shards are missing when it is asked for the first time."""

    asked = 0

    def latest_rollup(self, detector: str | None) -> pa.Table:
        self.asked += 1
        if self.asked == 1:
            raise StoreUnavailableError("http://127.0.0.1:9200 answers 503: missing shards")
        return super().latest_rollup(detector)


def anomaly(name: str, revision: int = 1, score: float = 0.9, size: int = 20) -> Anomaly:
    return Anomaly(
        id=name, revision=revision, state="open", stream="shop", detector="d", model_version="auto/1", **KEY._asdict(),
        onset=1, end=1, peak_at=1, peak_score=score, p_value=1e-6, value=1.0, expected=0.0, lower=0.0, upper=0.0,
        readings=1, kind="spike", direction="up", severity="critical", node_share=1.0, explanation="x" * size,
    )  # fmt: skip


ALERT = Alert(
    id="l1", revision=1, state="firing", stream="shop", policy="p", group={}, tenant="shop", severity="critical",
    title="", summary="", started_at=1, fired_at=1, resolved_at=None, updated_at=1, anomaly_ids=["a"], anomaly_count=1,
    peak_score=0.9, kinds=[], series=[],
)  # fmt: skip


def until(connection: ClientConnection, kind: str, fits: Callable[[Any], bool] = lambda _: True) -> Any:
    """The data of the next message of that kind that fits."""
    while True:
        message = json.loads(connection.recv(timeout=PATIENCE_S))
        if message["type"] == kind and fits(message["data"]):
            return message["data"]


def test_a_client_is_greeted_with_statistics_and_hears_them_each_second(world: World) -> None:
    with world.client() as connection:
        hello = json.loads(connection.recv(timeout=PATIENCE_S))
        assert hello["type"] == "hello"
        assert "readings_per_second" in hello["data"]
        assert until(connection, "statistics")["at"] > hello["data"]["at"]


def test_a_store_that_still_starts_is_waited_for(
    serve: Callable[[FastAPI], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An API that starts beside its Elasticsearch does not end because it was first."""
    monkeypatch.setattr(live, "STORE_RETRY_S", 0.01)
    store = StartingStore()
    world = World(serve, store)
    with world.client() as connection:
        until(connection, "hello")
    assert store.asked > 1
    world.bus.close()


def test_anomalies_and_alerts_arrive_as_they_happen(world: World) -> None:
    """The newest revision of each, for every client."""
    with world.client() as one, world.client() as other:
        for connection in (one, other):
            until(connection, "hello")
        world.publish_anomalies("a1", "a2")
        world.publish_anomalies("a2", revision=2)
        world.bus.publish(TOPICS.name("alerts"), [ALERT], key="shop")
        for connection in (one, other):
            until(connection, "anomaly", lambda data: data["id"] == "a2" and data["revision"] == 2)
        assert until(one, "alert")["acknowledged"] is None
        assert until(other, "alert")["id"] == "l1"


def test_an_acknowledgement_reaches_every_client_and_stays(world: World) -> None:
    """Also when the alert itself changes afterwards."""
    world.store.write(WriteBatch("shop", alerts=[ALERT]))
    with world.client() as connection:
        until(connection, "hello")
        answer = httpx.post(f"http://{world.address}/api/alerts/l1/acknowledge", json={"by": "ann"})
        assert answer.status_code == 200
        assert until(connection, "alert")["acknowledged"]["by"] == "ann"
        changed = msgspec.structs.replace(ALERT, revision=2, state="resolved")
        world.bus.publish(TOPICS.name("alerts"), [changed], key="shop")
        told = until(connection, "alert", lambda data: data["revision"] == 2)
        assert (told["state"], told["acknowledged"]["by"]) == ("resolved", "ann")


def test_rollups_are_told_when_they_change(world: World) -> None:
    """A list with the newest score of each scope."""

    def rollup(at: int, score: float) -> RollupFrame:
        scope, one = np.zeros(1, np.int32), np.ones(1, np.int32)
        times, scores = np.array([at], np.int64), np.array([score])
        return RollupFrame("d", [NodeKey("shop", "eu", "n1")], scope, times, scores, one, scores)

    with world.client() as connection:
        world.bus.publish(TOPICS.name("rollups"), rollup(60_000, 0.25), key="shop")
        first = until(connection, "rollup", bool)
        assert first == [
            {
                "tenant": "shop",
                "cluster": "eu",
                "node": "n1",
                "score": 0.25,
                "peak": 0.25,
                "at": 60_000,
                "detector": "d",
            }
        ]
        world.bus.publish(TOPICS.name("rollups"), rollup(120_000, 0.5), key="shop")
        assert until(connection, "rollup", lambda rows: rows[0]["at"] == 120_000)[0]["score"] == 0.5


def test_a_subscribed_series_is_followed(world: World) -> None:
    """What is there at once, what is new each second, a reading again once it has its score, and no other series."""
    world.write(60_000, 1.0)
    with world.client() as connection:
        connection.send(json.dumps({"subscribe": {"series": KEY.path}}))
        first = until(connection, "readings")
        assert first["series"] == KEY._asdict()
        assert first["columns"]["timestamp"] == [60_000]
        world.write(120_000, 2.0, scored=False)
        unscored = until(connection, "readings")["columns"]
        assert (unscored["timestamp"], unscored["p_value"]) == ([120_000], [None])
        world.write(180_000, 3.0)
        again = until(connection, "readings", lambda data: 180_000 in data["columns"]["timestamp"])
        assert again["columns"]["timestamp"] == [120_000, 180_000]


def test_what_makes_no_sense_is_answered_not_punished(world: World) -> None:
    with world.client() as connection:
        for text in ("{", "[]", '{"subscribe": 5}', '{"subscribe": {"series": "shop/eu"}}', '{"shout": 1}'):
            connection.send(text)
            assert until(connection, "error")["detail"], text
        connection.send(json.dumps({"subscribe": {"series": "a/b/c/unknown"}}))
        until(connection, "statistics")


def test_a_page_of_another_origin_may_not_listen(world: World) -> None:
    with pytest.raises(InvalidStatus) as refused, world.client(origin="https://evil.example"):  # type: ignore[arg-type]
        pass
    assert refused.value.response.status_code == 403
    with world.client(origin=f"http://{world.address}") as connection:
        until(connection, "hello")


def test_a_slow_client_is_dropped_and_blocks_nobody(world: World) -> None:
    """One that reads nothing is closed with "try again later"; the pipeline and the other client go on."""
    lazy = socket.socket()
    lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, _, port = world.address.partition(":")
    lazy.connect((host, int(port)))
    # Reads nothing until the flood is over: the library would otherwise buffer on its behalf.
    lazy.sendall(
        f"GET /ws HTTP/1.1\r\nHost: {world.address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    with contextlib.closing(lazy), world.client(max_queue=None) as healthy:
        until(healthy, "hello")
        for wave in range(60):
            world.publish_anomalies(*(f"w{wave}-{i}" for i in range(live.EVENTS_PER_BEAT)), size=20_000)
            until(healthy, "anomaly", lambda data, wave=wave: data["id"].startswith(f"w{wave}-"))  # type: ignore[misc]
            dropped = world.telemetry.registry.get_sample_value(
                "tidewarden_errors_total", {"service": "api", "error": "slow_client"}
            )
            if dropped:
                break
        assert dropped == 1
        until(healthy, "statistics")


def test_the_pipeline_is_never_held_back_by_the_api(world: World) -> None:
    """A flood beyond the bus's capacity goes through although a client is connected, and the worst are told."""
    with world.client(max_queue=None) as connection:
        until(connection, "hello")
        flood = [anomaly(f"f{i}", score=0.7) for i in range(2000)]
        for _ in range(300):  # 600,000 anomalies, the bus holds 400,000
            batch = AnomalyBatch(detector="d", anomalies=flood, watermarks={})
            world.bus.publish(TOPICS.name("anomalies"), batch, key="shop")
        world.publish_anomalies("worst", score=1.0)
        until(connection, "anomaly", lambda data: data["id"] == "worst")


def test_the_end_of_the_process_closes_the_clients_and_hangs_on_nobody(serve: Callable[[FastAPI], Any]) -> None:
    """Without the bus statistics go on; when the server stops, clients are told, and it does stop."""
    world = World(serve)
    with world.client(max_queue=None) as connection:
        until(connection, "hello")
        world.bus.close()
        until(connection, "statistics")
        world.stop()
        with pytest.raises(ConnectionClosed) as closed:
            until(connection, "never")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code in {1001, 1012}
