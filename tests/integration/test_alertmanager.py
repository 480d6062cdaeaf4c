"""The alertmanager receiver on a real Alertmanager, which calls a webhook of the test."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from servers.processes import until
from tidewarden.bus.memory import MemoryBus
from tidewarden.clock import ManualClock, SystemClock
from tidewarden.events import Alert
from tidewarden.resources import AlertPolicy
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Topic
from tidewarden_services.alert.alertmanager import AlertmanagerChannel
from tidewarden_services.alert.notifier import Notifier
from tidewarden_services.alert.outbox import Backoff
from tidewarden_services.alert.receivers import channel_of

pytestmark = [pytest.mark.prometheus, pytest.mark.slow]
TOPIC = "local.shop.alerts"
RESEND_S = 1.0


class Hook:
    """What Alertmanager calls: remembers (status, labels) of every alert in the order of the calls."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.got += [(alert["status"], alert["labels"], alert) for alert in body["alerts"]]
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def told(self, cluster: str) -> list[tuple[str, str]]:
        """(status, severity) of a cluster's alerts, without repetitions that follow each other."""
        seen = [(status, labels["severity"]) for status, labels, _ in list(self.got) if labels["cluster"] == cluster]
        return [one for n, one in enumerate(seen) if n == 0 or seen[n - 1] != one]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()
    yield hook
    hook.close()


def policy(url: str | None) -> AlertPolicy:
    receiver = {"alertmanager": {"url": url, "resendAfter": "1s", "timeout": "2s", "labels": {"team": "web"}}}
    spec = {"stream": "shop", "groupBy": ["cluster"], "receivers": [receiver]}
    return AlertPolicy.model_validate({"metadata": {"name": "few", "namespace": "web"}, "spec": spec})


def alert(cluster: str, revision: int = 1, **more: Any) -> Alert:
    now_ms = int(time.time() * 1000)
    fields: dict[str, Any] = {
        "id": f"alert-{cluster}", "revision": revision, "state": "firing", "stream": "shop", "policy": "few",
        "group": {"cluster": cluster}, "tenant": "shop", "severity": "warning", "title": f"shop/{cluster}: spike",
        "summary": "latency_ms 412", "started_at": now_ms - 60_000, "fired_at": now_ms, "resolved_at": None,
        "updated_at": now_ms, "anomaly_ids": ["a"], "anomaly_count": 1, "peak_score": 0.8, "kinds": ["spike"],
        "series": [f"shop/{cluster}/n1/latency_ms"],
    }  # fmt: skip
    return Alert(**{**fields, **more})


class Desk:
    """A topic of alerts and a state that outlive the notifiers which a test starts, stops and kills."""

    def __init__(self, url: str) -> None:
        self.bus = MemoryBus()
        self.bus.create([Topic(TOPIC, 1)])
        self.url = url
        self.state: bytes | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._life = 0

    def start(self) -> None:
        self._life += 1
        life = self._life

        def save(state: bytes) -> None:
            if life == self._life:  # what a killed one would still do
                self.state = state

        notifier = Notifier(
            "notify.few", policy(self.url), Telemetry(), SystemClock(), load_state=lambda: self.state,
            save_state=save, page_url="http://page.example/", backoff=Backoff(0.05, 0.2), flush_s=1.0,
        )  # fmt: skip
        self._stop = threading.Event()
        consumer = self.bus.consumer([TOPIC], "notify.few")
        self._thread = threading.Thread(target=notifier.run, args=(self._stop, consumer), daemon=True)
        self._thread.start()

    def stop(self, *, killed: bool = False) -> None:
        if killed:
            self._life += 1
        self._stop.set()
        assert self._thread is not None
        self._thread.join(10)

    def send(self, *alerts: Alert) -> None:
        self.bus.publish(TOPIC, list(alerts), key="shop")


def active(server: Any) -> dict[str, Any]:
    """Alertmanager's own list of what fires, by cluster and severity."""
    found = server.get("/api/v2/alerts?active=true")
    return {f"{one['labels']['cluster']} {one['labels']['severity']}": one for one in found}


def ends_at(server: Any, name: str) -> float:
    return datetime.fromisoformat(active(server)[name]["endsAt"]).timestamp()


def test_an_alert_fires_stays_alive_gets_worse_and_resolves(
    alertmanager_server: Callable[[str], Any], hook: Hook
) -> None:
    """Through Alertmanager to its webhook, past the end that one sending gives; suppressed alerts never get there."""
    server = alertmanager_server(hook.url)
    desk = Desk(server.url)
    desk.start()
    first = alert("eu")
    desk.send(first, alert("us", suppressed_by="budget"), alert("asia", state="pending", fired_at=None))
    until(lambda: hook.told("eu") == [("firing", "warning")], "it fires")
    _, labels, told = hook.got[0]
    assert labels == {
        "alertname": "TidewardenAnomaly", "severity": "warning", "namespace": "web", "tenant": "shop",
        "stream": "shop", "policy": "few", "cluster": "eu", "team": "web",
    }  # fmt: skip
    assert told["annotations"]["title"] == "shop/eu: spike"
    assert told["generatorURL"] == "http://page.example/#/series/shop/eu/n1/latency_ms"
    begin = ends_at(server, "eu warning")
    until(lambda: ends_at(server, "eu warning") > begin + 5 * RESEND_S, "five resends")
    assert hook.told("eu") == [("firing", "warning")], "it did not end in between"
    desk.send(alert("eu", 2, severity="critical", started_at=first.started_at))
    until(lambda: ("firing", "critical") in hook.told("eu") and ("resolved", "warning") in hook.told("eu"), "worse")
    assert set(active(server)) == {"eu critical"}
    resolved_at = int(time.time() * 1000) - 500
    desk.send(alert("eu", 3, severity="critical", state="resolved", resolved_at=resolved_at))
    until(lambda: hook.told("eu")[-1] == ("resolved", "critical"), "it resolves")
    assert active(server) == {}
    desk.stop()
    assert desk.state is not None
    assert b"alert-eu" not in desk.state, "what is over is not kept"
    assert {labels["cluster"] for _, labels, _ in hook.got} == {"eu"}


def test_a_new_process_and_a_new_alertmanager_go_on_with_what_fires(
    alertmanager_server: Callable[[str], Any], hook: Hook
) -> None:
    """A killed notifier's successor keeps the alert alive; an Alertmanager that lost its memory hears of it again."""
    server = alertmanager_server(hook.url)
    desk = Desk(server.url)
    desk.start()
    desk.send(alert("eu"))
    until(lambda: hook.told("eu") == [("firing", "warning")] and b"alert-eu" in (desk.state or b""), "it fires")
    desk.stop(killed=True)
    desk.start()
    begin = ends_at(server, "eu warning")
    until(lambda: ends_at(server, "eu warning") > begin + 5 * RESEND_S, "five resends by the new one")
    assert hook.told("eu") == [("firing", "warning")]
    server.kill()
    server.start()  # alerts are not among what Alertmanager keeps
    until(lambda: "eu warning" in active(server), "it is told again")
    desk.stop()
    until(lambda: hook.told("eu")[-1] == ("resolved", "warning"), "without anybody who tells, it ends by itself")


def test_an_alert_that_waits_for_alertmanager_is_delivered_when_it_is_back(
    alertmanager_server: Callable[[str], Any], hook: Hook
) -> None:
    """Fired and resolved while nobody listens: both are delivered in order, none is lost."""
    server = alertmanager_server(hook.url)
    desk = Desk(server.url)
    desk.start()
    desk.send(alert("eu"))
    until(lambda: hook.told("eu") == [("firing", "warning")], "it fires")
    server.kill()
    desk.send(alert("us"))
    desk.send(alert("eu", 2, state="resolved", resolved_at=int(time.time() * 1000)))
    server.start()
    until(lambda: hook.told("us") == [("firing", "warning")], "the one that waited")
    until(lambda: set(active(server)) == {"us warning"}, "the other is over")
    desk.stop()


def test_times_of_a_simulation_never_lie_in_alertmanagers_future() -> None:
    """Event time ahead of the clock is cut to it, since Alertmanager takes an end in the future for firing."""
    clock = ManualClock(1_700_000_000_000)
    spec = policy("http://127.0.0.1:9/").spec.receivers[0]
    channel = channel_of(spec, "am", namespace="web", clock=clock, environ={}, page_url=None)
    assert isinstance(channel, AlertmanagerChannel)
    ahead = clock.now_ms() + 10**9
    body = channel._body(alert("eu", started_at=ahead, state="resolved", resolved_at=ahead), clock.now_ms())
    channel.close()
    assert body["startsAt"] == body["endsAt"] == "2023-11-14T22:13:20.000Z"


def test_without_an_address_the_receiver_is_refused_by_name() -> None:
    """Neither alertmanager.url nor a default: the error names the field."""
    receiver = policy(None).spec.receivers[0]
    with pytest.raises(ValueError, match=r"receiver 'am': alertmanager\.url is absent"):
        channel_of(receiver, "am", namespace="web", clock=SystemClock(), environ={}, page_url=None)
