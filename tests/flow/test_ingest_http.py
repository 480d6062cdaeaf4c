"""The http source through a real server and a real bus: what comes back, and what is kept."""

from __future__ import annotations

import gzip
import json
import math
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cramjam
import httpx
import numpy as np
import pyarrow as pa
import pytest
import uvicorn
from fastapi import FastAPI

from tidewarden.bus.memory import MemoryBus
from tidewarden.clock import SystemClock
from tidewarden.events import Rejection
from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics
from tidewarden_services.ingest.service import IngestService
from tidewarden_services.ingest.sources.http import HttpSource
from tidewarden_services.ingest.sources.remote_write import message_classes

STREAM = MetricStream.model_validate(
    {
        "kind": "MetricStream",
        "metadata": {"name": "shop"},
        "spec": {
            "tenants": ["shop"],
            "interval": "1m",
            "metrics": [{"name": "error_rate", "unit": "percent"}],
            "sources": [{"name": "push", "http": {"maxBodyBytes": 16_000_000}}],
        },
    }
)
NOW = time.time_ns() // 1_000_000


@dataclass
class House:
    """A server, a bus and an ingest service, all real."""

    url: str
    bus: MemoryBus
    topics: StreamTopics
    source: HttpSource
    service: IngestService
    stop: threading.Event
    thread: threading.Thread
    table: SeriesTable
    readings: object
    rejected: object
    telemetry: Telemetry

    def post(self, body: object, path: str = "/api/v1/readings", **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return httpx.post(self.url + path, content=content, headers=named, timeout=20)

    def kept(self) -> list[tuple[str, int, float]]:
        """Readings on the bus since the last call, as (path, timestamp, value)."""
        rows = []
        for record in self.readings.poll(100, 0.0):
            f = record.value
            for s, t, v in zip(f.series.tolist(), f.timestamp.tolist(), f.value.tolist(), strict=True):
                rows.append((self.table[s].path, t, v))
        return rows

    def refused(self) -> list[Rejection]:
        return [item for record in self.rejected.poll(100, 0.0) for item in record.value]


@pytest.fixture(scope="module")
def shared() -> Iterator[House]:
    table, clock = SeriesTable(), SystemClock()
    bus, topics = MemoryBus(table), StreamTopics("local", "shop")
    bus.create(topics.all())
    source = HttpSource(STREAM, STREAM.spec.sources[0], table, clock)
    states: list[bytes] = []
    telemetry = Telemetry()
    service = IngestService(STREAM, source, bus, topics, table, clock, telemetry, lambda: None, states.append)
    app = FastAPI()
    app.include_router(source.router)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, ws="none"))
    web = threading.Thread(target=server.run)
    web.start()
    wait_for(lambda: server.started)
    stop = threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,))
    thread.start()
    port = server.servers[0].sockets[0].getsockname()[1]
    readings = bus.consumer([topics.name("readings")], "test-readings")
    rejected = bus.consumer([topics.name("rejected")], "test-rejected")
    yield House(
        f"http://127.0.0.1:{port}", bus, topics, source, service, stop, thread, table, readings, rejected, telemetry
    )  # fmt: skip
    stop.set()
    thread.join(10)
    server.should_exit = True
    web.join(10)


@pytest.fixture
def house(shared: House) -> House:
    wait_for(lambda: shared.service.stats()["state"] == "running")
    shared.kept()
    shared.refused()
    return shared


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "waited ten seconds in vain"
        threading.Event().wait(0.005)


def reading(node: str, at: int = 0, **metrics: float | None) -> dict:
    return {"tenant": "shop", "cluster": "eu", "node": node, "timestamp": NOW + at, "metrics": metrics}


def test_one_reading_is_on_the_bus_before_the_answer(house: House) -> None:
    answer = house.post(reading("one", latency_ms=12.5, error_rate=None))
    assert (answer.status_code, answer.json()) == (200, {"accepted": 2, "rejected": 0, "late": 0, "errors": []})
    rows = house.kept()
    assert rows[0] == ("shop/eu/one/latency_ms", NOW, 12.5)
    assert rows[1][:2] == ("shop/eu/one/error_rate", NOW)
    assert math.isnan(rows[1][2])


def test_the_last_push_is_on_the_board_although_nothing_follows(house: House) -> None:
    """What came within the quarter of a second between two posts is told of later, and the lag goes on growing."""

    def told() -> dict:
        return house.telemetry.board.read()["sources"]["shop/push"]

    for at in range(1, 4):
        assert house.post(reading("last", at, m=1.0)).status_code == 200
    wait_for(lambda: told()["accepted"] == house.service.stats()["accepted"])
    lag_s = told()["lag_seconds"]
    wait_for(lambda: told()["lag_seconds"] > lag_s)


def test_every_shape_and_encoding_means_the_same(house: House) -> None:
    flat = {"tenant": "shop", "cluster": "eu", "timestamp": NOW, "metric": "m", "value": 1, "extra": [1]}
    lines = b"\n".join(json.dumps({**flat, "node": f"lines{n}"}).encode() for n in range(2))
    table = pa.table(
        {"tenant": ["shop"] * 2, "cluster": ["eu"] * 2, "node": ["arrow0", "arrow1"], "timestamp": [NOW, NOW],
         "metric": ["m", "m"], "value": [1.0, 1.0]}
    )  # fmt: skip
    stream, file = pa.BufferOutputStream(), pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.set_column(2, "node", [["file0", "file1"]]))
    arrow = "application/vnd.apache.arrow.stream"
    requests = [
        ("list", [{**flat, "node": "list0"}, {**flat, "node": "list1"}], {}),
        ("wrapped", {"readings": [{**flat, "node": f"wrapped{n}"} for n in range(2)]}, {}),
        ("lines", lines, {"content_type": "application/x-ndjson"}),
        ("zip", gzip.compress(lines.replace(b"lines", b"zip")), {"content_encoding": "gzip"}),
        ("arrow", stream.getvalue().to_pybytes(), {"content_type": arrow}),
        ("file", file.getvalue().to_pybytes(), {"content_type": arrow}),
    ]
    for name, body, headers in requests:
        answer = house.post(body, **headers)
        assert answer.status_code == 200, answer.text
        assert house.kept() == [(f"shop/eu/{name}{n}/m", NOW, 1.0) for n in range(2)]


def test_a_mixed_batch_keeps_what_is_right_and_lists_what_is_wrong(house: House) -> None:
    right = reading("mixed", m=1.0)
    batch = [
        right,
        {**right, "tenant": "stranger"},
        {**right, "timestamp": "yesterday"},
        {**right, "metrics": {"a": "text", "b": 2.0}},
        7,
        {"tenant": "shop"},
        {**right, "metrics": {"error_rate": 140.0}},
        right,
        {**right, "timestamp": NOW + 10**9},
        {**right, "node": "y" * 1000},
        {**right, "metrics": {}},
    ]
    answer = house.post(batch)
    assert answer.status_code == 200
    facts = answer.json()
    assert [(error["row"], error["reason"]) for error in facts["errors"]] == [
        (1, "unknown_tenant"),
        (2, "wrong_type"),
        (3, "wrong_type"),
        (4, "wrong_type"),
        (5, "missing_field"),
        (6, "out_of_bounds"),
        (7, "duplicate"),
        (8, "future"),
        (9, "too_large"),
        (10, "missing_field"),
    ]
    assert (facts["accepted"], facts["rejected"]) == (2, 10)
    assert [path for path, _, _ in house.kept()] == ["shop/eu/mixed/m", "shop/eu/mixed/b"]
    kept = house.refused()
    assert len({item.id for item in kept}) == len(kept) == 10
    assert all(item.origin.startswith("http 127.0.0.1 row ") for item in kept)
    stranger = next(item for item in kept if item.reason == "unknown_tenant")
    assert json.loads(stranger.raw) == batch[1]
    assert not any(key.tenant == "stranger" for key in house.table.keys)


def test_literal_nan_and_infinity_are_refused_and_null_is_missing(house: House) -> None:
    body = json.dumps([reading("nan", a=float("nan"), b=float("-inf"), c=None, d=1.0)]).encode()
    facts = house.post(body.replace(b'"d": 1.0', b'"d": 1e999')).json()
    assert [error["reason"] for error in facts["errors"]] == ["not_finite"] * 3
    assert [path for path, _, _ in house.kept()] == ["shop/eu/nan/c"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"\xff\xfe broken", {}, 400, "not JSON"),
        (b"", {}, 400, "empty"),
        (b"5", {}, 400, "the number '5'"),
        (b"[" * 100_000, {}, 400, "not JSON"),
        (b"not gzip", {"content_encoding": "gzip"}, 400, "gzip"),
        (gzip.compress(b"[]", mtime=0)[:-4], {"content_encoding": "gzip"}, 400, "too early"),
        (b"[]", {"content_encoding": "br"}, 415, "gzip"),
        (b"[]", {"content_type": "text/html"}, 415, "application/json"),
        (b"nonsense", {"content_type": "application/vnd.apache.arrow.stream"}, 400, "Arrow"),
        (b" " * 16_000_001, {}, 413, "maxBodyBytes"),
        (gzip.compress(b" " * 16_000_001, mtime=0), {"content_encoding": "gzip"}, 413, "once unpacked"),
    ],
)
def test_what_cannot_be_read_is_a_problem_detail(
    house: House, body: bytes, headers: dict, status: int, says: str
) -> None:
    answer = house.post(body, **headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert says in answer.json()["detail"]
    kept = house.refused()
    assert len(kept) == (0 if status == 415 else 1)
    if status == 400 and b"\xff" in body[:1]:
        assert kept[0].raw == r"\xff\xfe broken"


def test_when_every_reading_is_refused_the_answer_is_422_with_the_same_members(house: House) -> None:
    answer = house.post([{**reading("n", m=1.0), "tenant": "stranger"}])
    assert answer.status_code == 422
    facts = answer.json()
    assert (facts["accepted"], facts["rejected"], facts["errors"][0]["reason"]) == (0, 1, "unknown_tenant")


def test_a_ten_megabyte_text_costs_only_its_own_reading(house: House) -> None:
    batch = [reading("big", m=1.0), {**reading("big2"), "metrics": "x" * 10_000_000}, reading("big3", m=1.0)]
    facts = house.post(batch).json()
    assert (facts["accepted"], facts["rejected"]) == (2, 1)
    [item] = house.refused()
    assert len(item.raw) > 10_000_000
    assert len(item.detail) < 300


def test_late_readings_are_accepted_and_counted(house: House) -> None:
    facts = house.post(
        [reading("late", 0, m=1.0), reading("late", -30_000, m=1.0), reading("late", -90_000, m=1.0)]
    ).json()
    assert (facts["accepted"], facts["late"], facts["errors"][0]["reason"]) == (2, 1, "too_late")


def test_many_senders_at_once_get_their_own_answers(house: House) -> None:
    answers: dict[int, dict] = {}

    def send(number: int) -> None:
        rows = [reading(f"many{number}", at * 1000, m=1.0) for at in range(number)]
        answers[number] = house.post([*rows, {**reading("x", m=1.0), "tenant": str(number)}]).json()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(1, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for number in range(1, 20):
        assert (answers[number]["accepted"], answers[number]["errors"][0]["row"]) == (number, number)
        assert f"'{number}'" in answers[number]["errors"][0]["detail"]
    assert len(house.kept()) == sum(range(1, 20))


# --- Prometheus remote write ------------------------------------------------------------------------


def write_request(*series: tuple[dict[str, str], list[tuple[float, int]]]) -> bytes:
    request_class, label_class = message_classes()
    request = request_class()
    for labels, samples in series:
        one = request.timeseries.add()
        for name, value in labels.items():
            one.labels.append(label_class(name=name, value=value).SerializeToString())
        for value, timestamp in samples:
            one.samples.add(value=value, timestamp=timestamp)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def write(house: House, body: bytes, **headers: str) -> httpx.Response:
    return house.post(
        body, "/api/v1/write", content_type="application/x-protobuf", content_encoding="snappy", **headers
    )


def test_remote_write_maps_labels_to_names(house: House) -> None:
    body = write_request(
        ({"__name__": "up", "job": "api", "instance": "10.0.0.1:80"}, [(1.0, NOW), (0.0, NOW + 15_000)]),
        ({"__name__": "up", "cluster": "eu", "node": "n1", "code": "200", "app": "x"}, [(2.0, NOW)]),
        ({"__name__": "up", "cluster": "eu", "node": "n1", "tenant": "stranger"}, [(2.0, NOW)]),
        ({"job": "api", "instance": "nameless"}, [(2.0, NOW)]),
    )
    facts = write(house, body).json()
    assert (facts["accepted"], [(e["row"], e["reason"]) for e in facts["errors"]]) == (
        3,
        [(2, "unknown_tenant"), (3, "missing_field")],
    )
    assert house.kept() == [
        ("shop/api/10.0.0.1:80/up", NOW, 1.0),
        ("shop/api/10.0.0.1:80/up", NOW + 15_000, 0.0),
        ('shop/eu/n1/up{app="x",code="200"}', NOW, 2.0),
    ]


def test_remote_write_takes_the_tenant_from_the_header_and_stale_markers_as_missing(house: House) -> None:
    stale = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
    body = write_request(({"__name__": "stale", "job": "j", "instance": "i"}, [(stale, NOW), (math.inf, NOW + 1)]))
    facts = write(house, body, x_scope_orgid="shop").json()
    assert (facts["accepted"], facts["errors"][0]["reason"]) == (1, "not_finite")
    [(_, _, value)] = house.kept()
    assert math.isnan(value)
    assert write(house, body, x_scope_orgid="stranger").status_code == 422


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "snappy"),
        (b"\xff\xff\xff\xff\x0f", "declares"),
        (b"\x05hello", "snappy"),
        (bytes(cramjam.snappy.compress_raw(b"\x0a\xff\xff nonsense")), "protobuf"),
    ],
)
def test_remote_write_that_cannot_be_read_is_a_problem_that_prometheus_does_not_retry(
    house: House, body: bytes, says: str
) -> None:
    answer = write(house, body)
    assert 400 <= answer.status_code < 500
    assert says in answer.json()["detail"]


def test_remote_write_two_is_declined_so_that_the_sender_falls_back(house: House) -> None:
    kind = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
    assert house.post(b"", "/api/v1/write", content_type=kind).status_code == 415


def test_remote_write_matches_bytes_of_the_specification(house: House) -> None:
    """Field numbers by hand, so that the declaration here is not only compared with itself."""

    def field(number: int, body: bytes) -> bytes:
        return bytes([number << 3 | 2, len(body)]) + body

    def label(name: str, value: str) -> bytes:
        return field(1, field(1, name.encode()) + field(2, value.encode()))

    varint = b""
    left = NOW
    while left:
        varint += bytes([(left & 0x7F) | (0x80 if left > 0x7F else 0)])
        left >>= 7
    sample = field(2, b"\x09" + struct.pack("<d", 41.5) + b"\x10" + varint)
    series = label("__name__", "spec") + label("job", "j") + label("instance", "i") + sample
    metadata = field(3, b"\x08\x01")
    body = bytes(cramjam.snappy.compress_raw(field(1, series) + metadata))
    assert write(house, body).json()["accepted"] == 1
    assert house.kept() == [("shop/j/i/spec", NOW, 41.5)]


# --- not running -------------------------------------------------------------------------------------


def test_a_source_that_does_not_run_says_503_and_when_to_try_again(house: House) -> None:
    house.stop.set()
    house.thread.join(10)
    answer = house.post(reading("stopped", m=1.0))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "not running" in answer.json()["detail"]
    house.stop.clear()
    house.thread = threading.Thread(target=house.service.run, args=(house.stop,))
    house.thread.start()
    wait_for(lambda: house.post(reading("stopped", m=1.0)).status_code == 200)


def test_the_same_bytes_as_numpy_sees_them(house: House) -> None:
    values = np.random.default_rng(1).uniform(-1e300, 1e300, 500)
    facts = house.post([reading("exact", n, m=float(value)) for n, value in enumerate(values)]).json()
    assert facts["accepted"] == 500
    assert [value for _, _, value in house.kept()] == values.tolist()
