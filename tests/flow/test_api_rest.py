"""The API over a store with a small fleet in it: what each endpoint promises, and how it says no."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from fastapi import APIRouter, FastAPI

from tidewarden.bus.memory import MemoryBus
from tidewarden.clock import ManualClock
from tidewarden.events import Alert, Anomaly, AnomalyBatch, Feedback, Rejection
from tidewarden.frames import Frame, NodeKey, RollupFrame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.rollup import combine
from tidewarden.store.embedded import EmbeddedStore
from tidewarden.store.memory import MemoryStore
from tidewarden.store.port import Store, WriteBatch
from tidewarden.telemetry import Telemetry
from tidewarden.topics import StreamTopics
from tidewarden_services.api.app import create_app
from tidewarden_services.api.documents import ANSWERS

MINUTE = 60_000
NOW = 1_700_000_040_000  # a full minute
TICKS = 300
PEAK = 137  # the tick at which one series has its only spike
METRICS = ("latency_ms", "error_rate", "throughput", "cpu_percent")
KEYS = [SeriesKey(t, c, f"n{n}", m) for t in ("bank", "shop") for c in ("eu", "us") for n in range(3) for m in METRICS]
HOT = SeriesKey("shop", "eu", "n1", "latency_ms")


def at(tick: int) -> int:
    return NOW - (TICKS - 1 - tick) * MINUTE


def fleet_batch(table: SeriesTable) -> WriteBatch:
    """Seasonal readings of 48 series with scores; one spike, one gap, rollups of the last tick, events."""
    rng = np.random.default_rng(7)
    series = np.tile(table.ids_of(KEYS), TICKS)
    tick = np.repeat(np.arange(TICKS), len(KEYS))
    timestamp = at(0) + tick.astype(np.int64) * MINUTE
    expected = 100.0 + 20.0 * np.sin(2 * np.pi * tick / TICKS)
    value = expected + rng.normal(size=len(tick))
    score = rng.uniform(0, 0.3, len(tick))
    kind, flags = np.zeros(len(tick), np.uint8), np.zeros(len(tick), np.uint8)
    hot = (series == table.id_of(HOT)) & (tick == PEAK)
    value[hot], score[hot], kind[hot] = 412.0, 0.95, 2
    value[(series == table.id_of(HOT)) & (tick == 200)] = np.nan
    scored = ScoreFrame(
        table, "shop-latency", "auto/1", series, timestamp, value, score, 10 ** (-6 * score), expected, expected - 4,
        expected + 4, kind, flags,
    )  # fmt: skip
    scopes = [NodeKey("shop", "", ""), NodeKey("bank", "", ""), NodeKey("shop", "eu", "")]
    rollup = RollupFrame(
        "shop-latency", scopes, np.arange(3, dtype=np.int32), np.full(3, NOW), np.array([0.3, 0.2, 0.4]),
        np.full(3, 2, np.int32), np.array([0.5, 0.2, 0.5]),
    )  # fmt: skip
    return WriteBatch(
        "shop", readings=[Frame(table, series, timestamp, value)], scores=[scored], rollups=[rollup],
        anomalies=[anomaly("a" * 16, HOT, PEAK, 0.95), anomaly("b" * 16, KEYS[0], 250, 0.82, state="open")],
        alerts=[alert("c" * 16, "firing"), alert("d" * 16, "resolved", tenant="bank", series=[KEYS[0].path])],
        rejected=[rejection("e" * 16, "malformed"), rejection("f" * 16, "late", source="file")],
    )  # fmt: skip


def anomaly(name: str, key: SeriesKey, tick: int, score: float, state: str = "closed") -> Anomaly:
    return Anomaly(
        id=name, revision=1, state=state, stream="shop", detector="shop-latency", model_version="auto/1",  # type: ignore[arg-type]
        **key._asdict(), onset=at(tick), end=at(tick), peak_at=at(tick), peak_score=score, p_value=1e-6, value=412.0,
        expected=100.0, lower=96.0, upper=104.0, readings=1, kind="spike", direction="up", severity="critical",
        node_share=0.7, explanation="latency_ms 412, expected 96–104", updated_at=at(tick),
    )  # fmt: skip


def alert(name: str, state: str, **changes: Any) -> Alert:
    facts: dict[str, Any] = {
        "stream": "shop", "policy": "default", "group": {"tenant": "shop"}, "tenant": "shop", "severity": "critical",
        "title": "spike in shop/eu", "summary": "…", "started_at": at(PEAK), "fired_at": at(PEAK), "resolved_at": None,
        "updated_at": at(PEAK), "anomaly_ids": ["a" * 16], "anomaly_count": 1, "peak_score": 0.95, "kinds": ["spike"],
        "series": [HOT.path],
    }  # fmt: skip
    return Alert(id=name, revision=1, state=state, **(facts | changes))  # type: ignore[arg-type]


def rejection(name: str, reason: str, source: str = "push") -> Rejection:
    return Rejection(
        id=name, stream="shop", source=source, reason=reason, detail="value 'x'", origin="a.csv:3", received_at=NOW
    )


STREAM = MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": {"tenants": ["shop", "bank"]}})
DETECTOR = AnomalyDetector.model_validate({"metadata": {"name": "shop-latency"}, "spec": {"stream": "shop"}})
TOPICS = StreamTopics("local", "shop")


class World:
    """One process's worth of rooms around the API."""

    def __init__(self, store: Store) -> None:
        self.store, self.bus, self.telemetry, self.clock = store, MemoryBus(), Telemetry(), ManualClock(NOW)
        extra = APIRouter()
        extra.add_api_route("/api/v1/boom", self._boom, methods=["GET"])
        self.app = create_app(
            store=store, bus=self.bus, topics_by_stream={"shop": TOPICS}, board=self.telemetry.board,
            telemetry=self.telemetry, resources=[STREAM, DETECTOR], clock=self.clock, extra_routers=[extra],
        )  # fmt: skip

    def _boom(self) -> None:
        raise RuntimeError("the password is swordfish")


@pytest.fixture(scope="module", params=["memory", "embedded"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    store: Store = MemoryStore() if request.param == "memory" else EmbeddedStore(None)
    store.write(fleet_batch(SeriesTable()))
    made = World(store)
    yield made
    made.bus.close()
    store.close()


@pytest.fixture(scope="module")
def client(world: World, serve: Callable[[FastAPI], Any]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{serve(world.app).address}", timeout=20) as made:
        yield made


def get(client: httpx.Client, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(client: httpx.Client, status: int, path: str, **parameters: Any) -> Any:
    answer = client.get(path, params=parameters)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["instance"] == path
    assert body["title"]
    return body


def test_anomalies_are_listed_newest_first_with_every_field(client: httpx.Client) -> None:
    found = get(client, "/api/anomalies")["anomalies"]
    assert [one["id"] for one in found] == ["b" * 16, "a" * 16]
    assert found[1]["explanation"] == "latency_ms 412, expected 96–104"
    assert get(client, "/api/anomalies", limit=1)["anomalies"] == found[:1]
    assert get(client, "/api/anomalies", tenant="shop", min_score=0.9)["anomalies"] == found[1:]
    assert get(client, "/api/anomalies", state="open")["anomalies"] == found[:1]
    assert get(client, "/api/anomalies", since=at(200))["anomalies"] == found[:1]
    assert get(client, "/api/anomalies", until="2023-11-14T21:00:00Z")["anomalies"] == found[1:]
    assert get(client, "/api/anomalies", metric="none")["anomalies"] == []


def test_anomalies_of_a_source_go_by_place_or_by_id(client: httpx.Client) -> None:
    for source in ("shop", "shop/eu", "shop/eu/n1", "shop/eu/n1/latency_ms", "a" * 16):
        assert [one["id"] for one in get(client, f"/api/anomalies/{source}")["anomalies"]] == ["a" * 16], source
    assert get(client, "/api/anomalies/shop/us")["anomalies"] == []
    assert "'nobody'" in problem(client, 404, "/api/anomalies/nobody")["detail"]
    assert problem(client, 404, "/api/anomalies/a/b/c/d/e")


def test_series_say_how_much_is_known_of_them(client: httpx.Client) -> None:
    found = get(client, "/api/series", tenant="shop", cluster="eu", node="n1")["series"]
    assert [one["metric"] for one in found] == sorted(METRICS)
    assert found[2] | {"last_value": None} == {
        "stream": "shop", **HOT._asdict(), "readings": TICKS, "first": at(0), "last": NOW, "last_value": None,
    }  # fmt: skip
    assert len(get(client, "/api/series")["series"]) == len(KEYS)


def test_readings_come_as_columns_with_scores_and_bands(client: httpx.Client) -> None:
    document = get(client, "/api/readings", **HOT._asdict(), since=at(PEAK), until=at(PEAK + 2))
    assert document["series"] == HOT._asdict()
    assert document["detector"] == "shop-latency"
    columns = document["columns"]
    assert columns["timestamp"] == [at(PEAK), at(PEAK + 1)]
    assert columns["value"][0] == 412.0
    assert columns["anomaly_score"][0] == 0.95
    assert columns["kind"] == ["spike", "none"]
    assert columns["upper"][0] - columns["lower"][0] == pytest.approx(8)
    assert get(client, "/api/readings", **HOT._asdict(), since=at(200), until=at(201))["columns"]["value"] == [None]
    assert get(client, "/api/readings", **HOT._asdict(), limit=5)["columns"]["timestamp"][0] == at(TICKS - 5)
    assert get(client, "/api/readings", **HOT._asdict(), since=NOW + 1)["columns"]["value"] == []


def test_thinned_readings_keep_every_peak_and_gap(client: httpx.Client) -> None:
    """However few points are asked for, the spike, the gap, and both ends stay."""
    for points in (8, 20, 100):
        columns = get(client, "/api/readings", **HOT._asdict(), points=points)["columns"]
        assert max(value for value in columns["value"] if value is not None) == 412.0
        assert None in columns["value"]
        assert 0.95 in columns["anomaly_score"]
        assert (columns["timestamp"][0], columns["timestamp"][-1]) == (at(0), NOW)
        assert columns["timestamp"] == sorted(set(columns["timestamp"]))
        assert len(columns["timestamp"]) <= points + 2


def test_a_series_nobody_knows_is_not_found(client: httpx.Client) -> None:
    body = problem(client, 404, "/api/readings", tenant="shop", cluster="eu", node="n1", metric="humidity")
    assert "shop/eu/n1/humidity" in body["detail"]


def test_contributions_of_a_rollup_add_up_exactly_at_every_level(client: httpx.Client) -> None:
    """Each score is the sum of its children's contributions, to the last bit, by the rollup's own rule."""
    document = get(client, "/api/rollup", at=at(PEAK) + 17)
    assert (document["detector"], document["at"]) == ("shop-latency", at(PEAK))
    assert [tenant["name"] for tenant in document["tenants"]] == ["bank", "shop"]
    levels = []

    def check(branch: dict[str, Any]) -> None:
        levels.append(branch["level"])
        children = branch.get("children", branch.get("metrics"))
        if children is None:
            return
        assert sum(child["contribution"] for child in children) == branch["score"]
        assert branch["score"] == combine([child["score"] for child in children])[0]
        assert branch["peak"] == max(child["peak"] for child in children)
        for child in children:
            check(child)

    for tenant in document["tenants"]:
        check(tenant)
    assert {name: levels.count(name) for name in levels} == {"tenant": 2, "cluster": 4, "node": 12, "metric": 48}
    hot = document["tenants"][1]["children"][0]["children"][1]["metrics"]
    assert max(hot, key=lambda metric: metric["contribution"])["name"] == "latency_ms"
    newest = get(client, "/api/rollup", tenant="shop")
    assert newest["at"] == NOW
    assert [tenant["name"] for tenant in newest["tenants"]] == ["shop"]
    assert "there are: shop-latency" in problem(client, 404, "/api/rollup", detector="nobody")["detail"]


def test_an_alert_can_be_acknowledged_and_says_so(client: httpx.Client) -> None:
    assert [one["id"] for one in get(client, "/api/alerts", state="firing")["alerts"]] == ["c" * 16]
    assert [one["id"] for one in get(client, "/api/alerts", cluster="eu", node="n0")["alerts"]] == ["d" * 16]
    assert get(client, "/api/alerts", tenant="shop")["alerts"][0]["acknowledged"] is None
    path = f"/api/alerts/{'c' * 16}/acknowledge"
    answer = client.post(path, json={"by": "ann", "note": "on it"})
    assert answer.status_code == 200
    assert answer.json()["acknowledged"] == {"by": "ann", "at": NOW, "note": "on it"}
    assert get(client, "/api/alerts", tenant="shop")["alerts"] == [answer.json()]
    assert client.post("/api/alerts/unknown/acknowledge", json={"by": "ann"}).status_code == 404
    assert client.post(path, json={"note": "who?"}).status_code == 422


def finding(**changes: Any) -> dict[str, Any]:
    return {
        "source": "shop/eu/n1", "value": 7.5, "metric": "queue", "timestamp": NOW, "is_anomaly": True,
        "anomaly_score": 0.9, "anomaly_type": "level_shift",
    } | changes  # fmt: skip


def test_another_systems_finding_goes_the_way_of_our_own(world: World, client: httpx.Client) -> None:
    """It is on the anomalies topic once it is accepted, under an id that a repeated request repeats."""
    consumer = world.bus.consumer([TOPICS.name("anomalies")], "test")
    consumer.poll(100, 0)
    answers = [client.post("/api/alert", json=finding()) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json() == answers[1].json()
    batches = [record.value for record in consumer.poll(10, 5)]
    assert all(isinstance(batch, AnomalyBatch) for batch in batches)
    assert [one.id for batch in batches for one in batch.anomalies] == [answers[0].json()["id"]] * 2
    assert batches[0].anomalies[0].kind == "level_shift"
    assert batches[0].anomalies[0].severity == "critical"
    assert client.post("/api/alert", json=finding(is_anomaly=False)).status_code == 202
    assert consumer.lag() == 0
    consumer.close()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"source": "shop/eu"}, "tenant/cluster/node"),
        ({"source": "acme/eu/n1"}, "there are: bank, shop"),
        ({"anomaly_type": "weird"}, "level_shift"),
        ({"anomaly_score": 1.5}, "anomaly_score = 1.5"),
        ({"timestamp": NOW + 86_400_000}, "in the future"),
        ({"timestamp": "yesterday"}, "ISO 8601"),
        ({"metric": ""}, "metric"),
    ],
)
def test_a_wrong_finding_is_refused_with_the_remedy(client: httpx.Client, changes: dict[str, Any], word: str) -> None:
    answer = client.post("/api/alert", json=finding(**changes))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert word in answer.json()["detail"]


def test_bodies_that_are_no_json_or_not_finite_are_problems(client: httpx.Client) -> None:
    for body in (b"{", b"[1]", b"\xff\xfe", b'{"value": NaN}', b""):
        answer = client.post("/api/alert", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 422}, body
        assert answer.headers["content-type"] == "application/problem+json"


def test_rejected_readings_are_listed_and_counted(client: httpx.Client) -> None:
    document = get(client, "/api/rejected")
    assert document["counts"] == {"late": 1, "malformed": 1}
    assert len(document["rejected"]) == 2
    assert [one["id"] for one in get(client, "/api/rejected", reason="late", source="file")["rejected"]] == ["f" * 16]


def test_resources_are_shown_as_in_their_yaml(client: httpx.Client) -> None:
    stream, detector = get(client, "/api/resources")["resources"]
    assert (stream["kind"], stream["spec"]["maxGap"], stream["spec"]["interval"]) == ("MetricStream", 5, "1m")
    assert (detector["kind"], detector["apiVersion"]) == ("AnomalyDetector", "tidewarden.dev/v1alpha1")


def test_statistics_add_up_what_the_rooms_say(world: World, client: httpx.Client) -> None:
    telemetry = world.telemetry
    telemetry.readings.labels("shop", "push").inc(100)
    telemetry.rejected.labels("shop", "push", "late").inc(3)
    telemetry.lag.labels("detect.a").set(4)
    telemetry.lag.labels("archive").set(1)
    for _ in range(99):
        telemetry.score_latency.labels("shop", "d").observe(0.004)
    telemetry.score_latency.labels("shop", "d").observe(0.2)
    telemetry.board.post("sources", "shop/push", source="push", stream="shop", kind="http", accepted=100, lag_seconds=2)
    telemetry.board.post("detectors", "d", stream="shop", message="learning, 34 of 120 readings", learning=1)
    telemetry.board.post("simulations", "fleet", played=5, total=10)
    document = get(client, "/api/statistics")
    assert (document["readings"], document["rejected"], document["lag_records"]) == (100, 3, 5)
    assert document["rejected_by_reason"] == {"late": 3}
    assert (document["anomalies"], document["anomalies_open"]) == (2, 1)
    assert (document["alerts"], document["alerts_firing"]) == (2, 1)
    assert 2.5 <= document["latency_ms"]["p50"] <= 5
    assert 2.5 <= document["latency_ms"]["p99"] <= 5
    assert document["services"] == [
        {"name": "archive", "state": "running", "lag_records": 1, "handled": 0},
        {"name": "detect.a", "state": "running", "lag_records": 4, "handled": 0},
    ]
    assert document["sources"][0]["name"] == "push"
    assert document["sources"][0]["lag_s"] == 2
    assert document["sources"][0]["rejected_by_reason"] == {"late": 3}
    assert document["detectors"][0]["message"] == "learning, 34 of 120 readings"
    assert document["simulations"] == [{"name": "fleet", "stream": None, "played": 5, "total": 10, "evaluation": []}]
    assert document["store"]["readings"] == TICKS * len(KEYS)
    assert document["at"] == NOW


def test_health_names_what_is_wrong(world: World, client: httpx.Client) -> None:
    assert get(client, "/api/health")["checks"]["store"]["status"] == "ok"
    world.telemetry.board.post("services", "detect.x", state="failed", message="no space left on device")
    answer = client.get("/api/health")
    assert (answer.status_code, answer.json()["status"]) == (503, "degraded")
    assert answer.json()["checks"]["services.detect.x"]["detail"] == "no space left on device"
    world.telemetry.board.post("services", "detect.x", state="running")
    assert client.get("/api/health").status_code == 200


def test_every_answer_has_the_shape_that_openapi_says(client: httpx.Client) -> None:
    """Each endpoint's real answer decodes strictly into its documented type, and every endpoint is documented."""
    schema = client.get("/openapi.json").json()
    described = {(method, path) for path, operations in schema["paths"].items() for method in operations}
    assert described - set(ANSWERS) == {("get", "/metrics"), ("get", "/api/v1/boom")}
    assert set(ANSWERS) <= described
    questions: dict[tuple[str, str], Any] = {
        ("get", "/api/anomalies/{source}"): lambda: client.get("/api/anomalies/shop/eu"),
        ("get", "/api/readings"): lambda: client.get("/api/readings", params=HOT._asdict()),
        ("post", "/api/alert"): lambda: client.post("/api/alert", json=finding()),
        ("post", "/api/alerts/{alert_id}/acknowledge"): lambda: client.post(
            f"/api/alerts/{'d' * 16}/acknowledge", json={"by": "ann"}
        ),
        ("post", "/api/v1/anomalies/{anomaly_id}/feedback"): lambda: client.post(
            f"/api/v1/anomalies/{'a' * 16}/feedback", json={"by": "ann", "verdict": "wrong"}
        ),
    }
    for (method, path), document in ANSWERS.items():
        answer = questions.get((method, path), lambda path=path: client.get(path))()
        assert answer.status_code in {200, 202}, path
        msgspec.json.decode(answer.content, type=document)
        refs = schema["paths"][path][method]["responses"]
        assert refs["default"]["content"]["application/problem+json"]["schema"]["$ref"].endswith("/Problem")
    for name in ("Anomaly", "Branch", "Columns", "Problem"):
        assert name in schema["components"]["schemas"]


def test_metrics_are_prometheus_text(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "# HELP tidewarden_readings_total Readings accepted by ingest." in answer.text


def test_a_word_on_an_anomaly_goes_among_the_readings_of_its_node(world: World, client: httpx.Client) -> None:
    """It says all that a detector must know; who asks for an unknown anomaly or verdict is told what there is."""
    place = f"/api/v1/anomalies/{'a' * 16}/feedback"
    ends = world.bus.ends(TOPICS.name("readings"))
    answer = client.post(place, json={"verdict": "wrong", "by": "ann", "note": "the backup"})
    assert answer.status_code == 202
    consumer = world.bus.consumer([TOPICS.name("readings")], "test.words")
    consumer.seek(ends)
    (record,) = consumer.poll(10, 5)
    consumer.close()
    assert isinstance(record.value, Feedback)
    assert msgspec.to_builtins(record.value) == answer.json()
    assert (record.key, record.value.series, record.value.p_value) == ("shop/eu/n1", HOT, 1e-6)
    assert (record.value.from_ms, record.value.kind, record.value.at_ms) == (at(PEAK), "spike", NOW)
    unknown = client.post(f"/api/v1/anomalies/{'0' * 16}/feedback", json={"verdict": "wrong", "by": "ann"})
    assert (unknown.status_code, "/api/anomalies lists them" in unknown.json()["detail"]) == (404, True)
    assert client.post(place, json={"verdict": "perhaps", "by": "ann"}).status_code == 422


@pytest.mark.parametrize(
    ("path", "parameters", "field"),
    [
        ("/api/anomalies", {"limit": 0}, "limit"),
        ("/api/anomalies", {"limit": 1_000_000}, "limit"),
        ("/api/anomalies", {"tenat": "shop"}, "tenat"),
        ("/api/anomalies", {"since": "yesterday"}, "since"),
        ("/api/anomalies", {"since": 10**20}, "since"),
        ("/api/anomalies", {"min_score": 2}, "min_score"),
        ("/api/anomalies", {"min_score": "nan"}, "min_score"),
        ("/api/anomalies", {"state": "ajar"}, "state"),
        ("/api/alerts", {"state": "open"}, "state"),
        ("/api/readings", {"tenant": "shop"}, "cluster"),
        ("/api/readings", {**HOT._asdict(), "limit": 20_001}, "limit"),
        ("/api/readings", {**HOT._asdict(), "points": 1}, "points"),
    ],
)
def test_a_wrong_parameter_is_named(client: httpx.Client, path: str, parameters: dict[str, Any], field: str) -> None:
    """Never an unfiltered answer, never a 500."""
    body = problem(client, 422, path, **parameters)
    assert field in [error["field"] for error in body["errors"]]


def test_an_internal_error_tells_nothing_of_the_inside(client: httpx.Client) -> None:
    # On a connection of its own: the server closes it afterwards, perhaps while the next request is already under way.
    with httpx.Client(base_url=client.base_url, timeout=20) as own:
        body = problem(own, 500, "/api/v1/boom")
    assert "swordfish" not in str(body)


def test_what_does_not_exist_is_a_problem_too(client: httpx.Client) -> None:
    problem(client, 404, "/api/nothing")
    problem(client, 404, "/static/nothing.js")
    problem(client, 404, "/docs")  # its scripts would come from a CDN
    assert client.put("/api/anomalies").status_code == 405
    assert client.get("/openapi.json").json()["info"]["title"] == "Tidewarden"


def test_a_page_of_another_origin_cannot_write(client: httpx.Client) -> None:
    foreign = {"origin": "https://evil.example"}
    answer = client.post("/api/alert", json=finding(), headers=foreign)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    same = {"origin": str(client.base_url).rstrip("/")}
    assert client.post("/api/alert", json=finding(), headers=same).status_code == 202
    assert client.post("/api/alert", json=finding(), headers={"origin": "null"}).status_code == 403


def test_the_page_and_its_chart_library_come_from_this_server(client: httpx.Client) -> None:
    """With a policy under which nothing else may be loaded."""
    index = client.get("/")
    assert index.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in index.headers["content-security-policy"]
    assert index.headers["x-content-type-options"] == "nosniff"
    script = client.get("/static/vendor/plotly.min.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "max-age=604800" in script.headers["cache-control"]
    assert len(script.content) > 1_000_000
    assert script.headers["etag"]
