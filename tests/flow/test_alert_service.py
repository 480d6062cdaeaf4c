"""Anomalies in, notifications out: over the bus, to a real HTTP server that fails in every way it can."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog

from tidewarden.bus.memory import MemoryBus
from tidewarden.bus.port import Record
from tidewarden.clock import SystemClock
from tidewarden.events import Alert, Anomaly, AnomalyBatch
from tidewarden.resources import AlertPolicy, MetricStream
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Topic
from tidewarden_services.alert.notifier import Notifier, receiver_names
from tidewarden_services.alert.outbox import Backoff
from tidewarden_services.alert.receivers import MAX_RETRY_AFTER_S
from tidewarden_services.alert.service import AlertService

TOPIC = "local.shop.alerts"
T0 = 1_700_006_400_000
QUICK = Backoff(0.01, 0.05)


def _until(condition: Callable[[], Any], timeout: float = 10.0) -> None:
    """Wait for a condition; the event is only there to be waited on."""
    deadline = time.monotonic() + timeout
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "this did not happen in time"
        pause.wait(0.005)


@dataclass
class Hook:
    """A receiver: remembers what it got, answers what the test says, can go down and come back."""

    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # of the next requests; then 200
    got: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    attempts: list[float] = field(default_factory=list)
    hang: threading.Event | None = None
    refuse_severity: str | None = None
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    def up(self) -> None:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.attempts.append(time.monotonic())
                if hook.hang is not None:
                    hook.hang.wait(10)
                    self.close_connection = True
                    return
                status, headers = hook.answers.pop(0) if hook.answers else (200, {})
                if body["alert"]["severity"] == hook.refuse_severity:
                    status = 400
                if status < 300:
                    hook.got.append((dict(self.headers), body))
                self.send_response(status)
                for name, value in {"Content-Length": "0", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/alerts"

    @property
    def keys(self) -> list[str]:
        return [headers["Idempotency-Key"] for headers, _ in self.got]


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    hook.up()
    yield hook
    if hook.hang is not None:
        hook.hang.set()
    hook.down()


def _policy(*receivers: dict[str, Any], **spec: Any) -> AlertPolicy:
    spec = {"stream": "shop", "receivers": list(receivers), **spec}
    return AlertPolicy.model_validate({"metadata": {"name": "few"}, "spec": spec})


def _webhook(hook: Hook, **more: Any) -> dict[str, Any]:
    return {"webhook": {"url": hook.url, "timeout": "300ms", **more}}


def _alert(n: int, revision: int = 1, **more: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": f"alert{n:04d}", "revision": revision, "state": "firing", "stream": "shop", "policy": "few",
        "group": {"cluster": "eu"}, "tenant": "shop", "severity": "warning",
        "title": f"shop/eu: latency_ms spike on n{n}, since 12:04 UTC", "summary": "latency_ms 412", "started_at": T0,
        "fired_at": T0, "resolved_at": None, "updated_at": T0, "anomaly_ids": ["a"], "anomaly_count": 1,
        "peak_score": 0.8, "kinds": ["spike"], "series": [f"shop/eu/n{n}/latency_ms"],
    }  # fmt: skip
    return Alert(**{**fields, **more})


class Desk:
    """A bus with the topic of alerts, and a notifier that can be stopped and started again."""

    def __init__(self, policy: AlertPolicy, **options: Any) -> None:
        self.bus = MemoryBus()
        self.bus.create([Topic(TOPIC, 1)])
        self.policy = policy
        self.options = options
        self.telemetry = Telemetry()
        self.state: bytes | None = None
        self.saved = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        options = {"backoff": QUICK, "flush_s": 0.3, **self.options}
        notifier = Notifier(
            "notify.few", self.policy, self.telemetry, SystemClock(), load_state=lambda: self.state,
            save_state=self._save, chance=random.Random(7), **options,
        )  # fmt: skip
        self.consumer = self.bus.consumer([TOPIC], "notify.few")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=notifier.run, args=(self._stop, self.consumer))
        self._thread.start()

    def stop(self) -> None:
        if self._thread is not None:
            self._stop.set()
            self._thread.join(15)
            assert not self._thread.is_alive()
            self._thread = None

    def publish(self, *alerts: Alert) -> None:
        self.bus.publish(TOPIC, list(alerts), key="shop")

    def count(self, receiver: str, result: str) -> float:
        labels = {"policy": "few", "receiver": receiver, "result": result}
        return self.telemetry.registry.get_sample_value("tidewarden_alert_deliveries_total", labels) or 0.0

    def _save(self, state: bytes) -> None:
        self.state = state
        self.saved += 1


@pytest.fixture
def open_desk() -> Iterator[Callable[..., Desk]]:
    desks: list[Desk] = []

    def build(policy: AlertPolicy, **options: Any) -> Desk:
        desks.append(Desk(policy, **options))
        desks[-1].start()
        return desks[-1]

    yield build
    for desk in desks:
        desk.stop()
        desk.bus.close()


def test_a_webhook_gets_version_status_link_and_the_alert_under_an_idempotency_key(
    hook: Hook, open_desk: Callable[..., Desk]
) -> None:
    receiver = _webhook(hook, headers={"Authorization": "Bearer ${TOKEN}"})
    desk = open_desk(_policy(receiver), environ={"TOKEN": "s3cret"}, page_url="http://127.0.0.1:8000/")
    desk.publish(_alert(1, series=["shop/eu/n 1/latency_ms"]))
    _until(lambda: hook.got)
    headers, body = hook.got[0]
    assert headers["Authorization"] == "Bearer s3cret"
    assert headers["Idempotency-Key"] == "alert0001-1"
    assert (body["version"], body["status"], body["alert"]["title"]) == ("1", "firing", _alert(1).title)
    assert body["link"] == "http://127.0.0.1:8000/#/series/shop/eu/n%201/latency_ms"


def test_a_header_comes_from_the_secret_first_and_else_from_the_environment(
    hook: Hook, open_desk: Callable[..., Desk], tmp_path: Path
) -> None:
    """One file a key, as Kubernetes mounts a Secret; without a folder of secrets the environment alone counts."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "TOKEN").write_text("of-secret\n")
    receiver = _webhook(hook, headers={"X-Both": "${TOKEN} ${OTHER}"}, secretRef={"name": "hook"})
    environ = {"TOKEN": "of-environment", "OTHER": "other"}
    for secrets_dir, expected in ((tmp_path, "of-secret other"), (None, "of-environment other")):
        desk = open_desk(_policy(receiver), environ=environ, secrets_dir=secrets_dir)
        desk.publish(_alert(1))
        _until(lambda: hook.got)
        assert hook.got.pop()[0]["X-Both"] == expected
    with pytest.raises(ValueError, match=r"webhook.secretRef is 'hook', but .* create the Secret 'hook'"):
        Notifier("notify.few", _policy(receiver), Telemetry(), SystemClock(), secrets_dir=tmp_path / "hook")


def test_only_what_fired_and_is_not_kept_back_is_sent_and_only_of_this_policy(
    hook: Hook, open_desk: Callable[..., Desk]
) -> None:
    desk = open_desk(_policy(_webhook(hook)))
    desk.publish(
        _alert(1, state="pending", fired_at=None), _alert(2, suppressed_by="budget"), _alert(3, policy="x"), _alert(4)
    )  # fmt: skip
    desk.publish(_alert(1, 2, state="resolved", fired_at=None, resolved_at=T0), _alert(4, 2, state="resolved"))
    _until(lambda: len(hook.got) == 2)
    assert hook.keys == ["alert0004-1", "alert0004-2"]


def test_send_pending_sends_what_has_not_fired_yet(hook: Hook, open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(_policy(_webhook(hook, sendPending=True)))
    desk.publish(_alert(1, state="pending", fired_at=None))
    _until(lambda: hook.keys == ["alert0001-1"])


def test_while_the_receiver_is_down_nothing_is_lost_and_the_order_stays(
    hook: Hook, open_desk: Callable[..., Desk]
) -> None:
    desk = open_desk(_policy(_webhook(hook)), capacity=10)
    hook.down()
    for n in range(60):
        desk.publish(_alert(n))
    _until(lambda: desk.count("webhook", "retried") >= 3)
    _until(lambda: desk.consumer.lag() > 0)  # it reads no further than its outbox has room
    hook.up()
    _until(lambda: len(hook.got) == 60)
    assert hook.keys == [f"alert{n:04d}-1" for n in range(60)]
    desk.stop()
    assert json.loads(desk.state or b"")["receivers"]["webhook"] == {f"{TOPIC}/0": 60}


def test_errors_of_the_server_a_hang_and_a_dropped_connection_are_tried_again(
    hook: Hook, open_desk: Callable[..., Desk]
) -> None:
    hook.answers = [(500, {}), (503, {}), (408, {})]
    desk = open_desk(_policy(_webhook(hook)))
    desk.publish(_alert(1))
    _until(lambda: hook.got)
    assert desk.count("webhook", "retried") == 3
    hook.hang = threading.Event()
    desk.publish(_alert(2))
    _until(lambda: desk.count("webhook", "retried") >= 4)
    hang, hook.hang = hook.hang, None
    hang.set()
    _until(lambda: len(hook.got) == 2)
    assert hook.keys == ["alert0001-1", "alert0002-1"]


def test_retry_after_is_honoured(hook: Hook, open_desk: Callable[..., Desk]) -> None:
    hook.answers = [(429, {"Retry-After": "0.4"})]
    desk = open_desk(_policy(_webhook(hook)))
    desk.publish(_alert(1))
    _until(lambda: hook.got)
    assert hook.attempts[1] - hook.attempts[0] >= 0.4
    assert desk.count("webhook", "retried") == 1


@pytest.mark.parametrize("status", [400, 401, 404, 410, 302])
def test_what_a_receiver_refuses_for_good_is_counted_logged_and_does_not_hold_up_the_rest(
    hook: Hook, open_desk: Callable[..., Desk], status: int
) -> None:
    hook.answers = [(status, {})]
    with structlog.testing.capture_logs() as lines:
        desk = open_desk(_policy(_webhook(hook)))
        desk.publish(_alert(1))
        desk.publish(_alert(2))
        _until(lambda: hook.keys == ["alert0002-1"])
    assert desk.count("webhook", "refused") == 1
    [line] = [line for line in lines if line.get("receiver") == "webhook"]
    assert (line["alert"], line["log_level"]) == ("alert0001", "error")
    assert line["reason"].startswith(f"answered {status}")
    assert hook.url not in str(lines), "addresses can be secrets"


def test_a_broken_receiver_does_not_hold_up_the_others_beyond_its_own_outbox(
    hook: Hook, open_desk: Callable[..., Desk]
) -> None:
    broken = Hook()
    broken.up()
    broken.down()
    desk = open_desk(_policy(_webhook(broken), _webhook(hook), {"log": {}}), capacity=5)
    for n in range(50):
        desk.publish(_alert(n))
        if n % 10 == 9:
            _until(lambda n=n: len(hook.got) == n + 1)  # type: ignore[misc]
    assert desk.count("log", "sent") == 50
    assert desk.count("webhook", "sent") == 0
    broken.up()
    _until(lambda: len(broken.got) == 50)
    assert broken.keys == hook.keys
    broken.down()


def test_after_a_restart_each_receiver_goes_on_where_it_was(hook: Hook, open_desk: Callable[..., Desk]) -> None:
    broken = Hook()
    broken.up()
    broken.down()
    desk = open_desk(_policy({"name": "good", **_webhook(hook)}, {"name": "broken", **_webhook(broken)}))
    for n in range(5):
        desk.publish(_alert(n))
    _until(lambda: len(hook.got) == 5 and desk.count("broken", "retried") >= 1)
    desk.stop()
    desk.publish(_alert(5))
    broken.up()
    desk.start()
    _until(lambda: len(hook.got) == 6 and len(broken.got) == 6)
    assert hook.keys == broken.keys == [f"alert{n:04d}-1" for n in range(6)]
    broken.down()


def test_what_was_published_before_the_stop_is_still_delivered(hook: Hook, open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(_policy(_webhook(hook)), flush_s=5)
    for n in range(300):
        desk.publish(_alert(n))
    desk.stop()
    assert len(hook.got) == 300


def test_stopping_with_a_receiver_that_hangs_takes_a_bounded_time(hook: Hook, open_desk: Callable[..., Desk]) -> None:
    hook.hang = threading.Event()
    desk = open_desk(_policy(_webhook(hook, timeout="60s")))
    desk.publish(_alert(1))
    _until(lambda: hook.attempts)
    began = time.monotonic()
    desk.stop()
    assert time.monotonic() - began < 3
    assert json.loads(desk.state or b"")["receivers"]["webhook"] == {f"{TOPIC}/0": 0}


def test_a_paused_policy_delivers_nothing_and_keeps_nothing_back(hook: Hook, open_desk: Callable[..., Desk]) -> None:
    desk = open_desk(_policy(_webhook(hook), paused=True))
    desk.publish(_alert(1))
    _until(lambda: list(desk.consumer.committed.values()) == [1])
    assert hook.got == []


def test_the_log_says_when_an_alert_fires_gets_worse_and_resolves_but_not_when_it_grows(
    open_desk: Callable[..., Desk],
) -> None:
    with structlog.testing.capture_logs() as lines:
        desk = open_desk(_policy({"log": {}}))
        desk.publish(_alert(1), _alert(1, 2, anomaly_count=2), _alert(1, 3, severity="critical", flapping=True))
        desk.publish(_alert(1, 4, state="resolved", severity="critical", resolved_at=T0))
        _until(lambda: desk.count("log", "sent") == 4)
    told = [(line["log_level"], line["event"], line.get("flapping")) for line in lines if "alert" in line]
    title = _alert(1).title
    assert told == [
        ("warning", f"firing (warning) {title}", None),
        ("error", f"firing (critical) {title}", True),
        ("info", f"resolved (critical) {title}", None),
    ]


def test_a_header_that_needs_a_missing_variable_is_an_error_that_names_it() -> None:
    policy = _policy({"webhook": {"url": "http://127.0.0.1:9/", "headers": {"X-Key": "${NO_SUCH}"}}})
    with pytest.raises(
        ValueError, match="webhook header 'X-Key' needs NO_SUCH: set it in its Secret or in the environment"
    ):
        Notifier("notify.few", policy, Telemetry(), SystemClock(), environ={})


def test_receivers_have_names_of_their_own() -> None:
    spec = _policy({"log": {}}, {"log": {}}, {"name": "log-2", "log": {}}, {"webhook": {"url": "http://x/"}}).spec
    assert receiver_names(spec.receivers) == ["log", "log-2", "log-2-2", "webhook"]


def test_waiting_between_attempts_grows_to_a_bound_and_is_jittered() -> None:
    chance = random.Random(1)
    waits = [Backoff(1.0, 60.0).after(n, chance) for n in (1, 2, 3, 10, 10_000)]
    for wait, full in zip(waits, (1, 2, 4, 60, 60), strict=True):
        assert full / 2 <= wait <= full
    assert MAX_RETRY_AFTER_S == 300


# --- the service ------------------------------------------------------------------------------------


def _record(batch: AnomalyBatch, offset: int = 0) -> Record:
    return Record("local.shop.anomalies", 0, offset, "shop", batch)


def _anomaly(state: str, revision: int) -> Anomaly:
    return Anomaly(
        id="a1", revision=revision, state=state, stream="shop", detector="d", model_version="auto/1",  # type: ignore[arg-type]
        tenant="shop", cluster="eu", node="n1", metric="latency_ms", onset=T0, end=T0, peak_at=T0, peak_score=0.8,
        p_value=1e-5, value=412.0, expected=100.0, lower=90.0, upper=110.0, readings=1, kind="spike", direction="up",
        severity="warning", node_share=1.0, explanation="latency_ms 412 expected 90–110", updated_at=T0,
    )  # fmt: skip


def test_the_service_answers_a_batch_with_one_list_of_alerts_and_counts_their_transitions() -> None:
    stream = MetricStream.model_validate({"metadata": {"name": "shop"}, "spec": {"tenants": ["shop"]}})
    telemetry = Telemetry()
    service = AlertService(_policy({"log": {}}), stream, telemetry)
    assert service.handle(_record(AnomalyBatch(detector="d", anomalies=[], watermarks={"shop": T0}))) == []
    opened = AnomalyBatch(detector="d", anomalies=[_anomaly("open", 1)], watermarks={"shop": T0})
    [output] = service.handle(_record(opened, 1))
    assert (output.purpose, output.key, [a.state for a in output.value]) == ("alerts", "shop", ["firing"])
    assert telemetry.board.read()["policies"]["few"] == {"stream": "shop", "firing": 1, "pending": 0}

    again = AlertService(_policy({"log": {}}), stream, telemetry)
    again.restore(service.snapshot())
    closed = AnomalyBatch(detector="d", anomalies=[_anomaly("closed", 2)], watermarks={"shop": T0 + 3_600_000})
    [output] = again.handle(_record(closed, 2))
    assert [(a.state, a.resolved_at) for a in output.value] == [("resolved", T0 + 300_000)]
    for state in ("firing", "resolved"):
        labels = {"stream": "shop", "policy": "few", "state": state}
        assert telemetry.registry.get_sample_value("tidewarden_alerts_total", labels) == 1
