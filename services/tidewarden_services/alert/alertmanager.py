"""The `alertmanager` receiver: firing alerts are told again and again, because Alertmanager forgets what is not.

Its API v2 takes labels, which name an alert, and when it ends. While an alert fires it is sent every
``resendAfter`` with an end four times as far ahead: three lost attempts end nothing, and an alert whose
sender is gone for good ends by itself. When it resolves it is sent with its end. Severity is a label, as
Prometheus' own rules have it, so an alert that gets worse becomes another one, and the milder one ends.

What fires is saved with the position of the receiver (`notifier.py`), so a new process goes on with it.
"""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from tidewarden.clock import Clock
from tidewarden.credentials import CredentialsError, http_client, secret_folder
from tidewarden.events import Alert
from tidewarden.resources.alertpolicy import AlertmanagerReceiver
from tidewarden_services.alert.receivers import Attempt, is_public, judged, link_to, unanswered

if TYPE_CHECKING:
    import httpx

ALERT_NAME = "TidewardenAnomaly"
LASTS = 4  # resends that an alert outlives without being told again; the field's documentation says so
MAX_KEPT = 10_000  # alerts at once: a policy makes one for each group; 20 MB at 2 KB
AT_ONCE = 100  # alerts in one request; some 200 KB

_LABEL = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")

log = structlog.get_logger()


class AlertmanagerChannel:
    """Posts to ``/api/v2/alerts``.

    Args:
        name: of the receiver.
        spec: its settings.
        namespace: of the policy. An Alertmanager may serve several, where streams and policies may be named alike.
        clock: for ends of alerts and the time between resends.
        page_url: address of the web page, for the alerts' links.
        url: of the server, without ``/api``.
        client: that logs in.
    """

    def __init__(
        self,
        name: str,
        spec: AlertmanagerReceiver,
        *,
        namespace: str,
        clock: Clock,
        page_url: str | None,
        url: str,
        client: httpx.Client,
    ) -> None:
        wrong = next((label for label in spec.labels if not _LABEL.match(label)), None)
        if wrong is not None:
            raise ValueError(
                f"receiver {name!r}: alertmanager.labels has {wrong!r}, which is no label's name: "
                "use letters, digits and _, and begin with no digit"
            )
        self.name = name
        self._spec = spec
        self._namespace = namespace
        self._clock = clock
        self._page_url = page_url
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._client = client
        self._lock = threading.Lock()
        self._firing: dict[str, Alert] = {}  # by id, the one told least recently first
        self._next = 0.0

    @classmethod
    def of(
        cls,
        spec: AlertmanagerReceiver,
        name: str,
        *,
        namespace: str,
        clock: Clock,
        page_url: str | None,
        secrets_dir: Path | None,
        url: str | None,
    ) -> AlertmanagerChannel:
        """The channel of a receiver; ``url`` is the default of its own, ValueError where there is neither."""
        address = str(spec.url) if spec.url is not None else url
        if address is None:
            raise ValueError(
                f"receiver {name!r}: alertmanager.url is absent and there is no default here: give the address"
            )
        folder = None
        if spec.secret_ref is not None:
            folder = secret_folder(secrets_dir, spec.secret_ref.name, f"receiver {name!r}: alertmanager.secretRef")
        client = http_client(folder, spec.timeout / 1000)
        return cls(name, spec, namespace=namespace, clock=clock, page_url=page_url, url=address, client=client)

    def wants(self, alert: Alert) -> bool:
        """Fired and not kept back."""
        return is_public(alert)

    def deliver(self, alert: Alert) -> Attempt:
        """Tell of a revision; what it replaces ends."""
        now_ms = self._clock.now_ms()
        before = self._firing.get(alert.id)
        told = [self._body(alert, now_ms)]
        if before is not None and before.severity != alert.severity:
            told.insert(0, self._body(before, now_ms, ended_ms=now_ms))
        attempt = self._post(told)
        if attempt.result == "sent":
            self._remember(alert)
        elif attempt.result == "refused" and alert.state == "resolved":
            self._remember(alert)  # it is over, whatever the receiver thinks of it
        return attempt

    def keep_until(self) -> float | None:
        """When to tell again of what fires, seconds on the monotonic clock."""
        return self._next if self._firing else None

    def keep(self) -> Attempt:
        """Tell again of everything that fires."""
        self._next = self._clock.monotonic() + self._spec.resend_after / 1000
        now_ms = self._clock.now_ms()
        alerts = list(self._firing.values())
        worst = Attempt("sent")
        for first in range(0, len(alerts), AT_ONCE):
            attempt = self._post([self._body(alert, now_ms) for alert in alerts[first : first + AT_ONCE]])
            if attempt.result == "retry":
                return attempt  # at the next resend: the server is away, the other requests would fail as well
            if attempt.result == "refused":
                worst = attempt
        return worst

    def kept(self) -> list[Alert]:
        """What fires."""
        with self._lock:
            return list(self._firing.values())

    def restore(self, alerts: list[Alert]) -> None:
        """Go on with what an earlier process kept alive; it is told of at once."""
        with self._lock:
            self._firing = {alert.id: alert for alert in alerts}

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def _remember(self, alert: Alert) -> None:
        with self._lock:
            if not self._firing:
                self._next = self._clock.monotonic() + self._spec.resend_after / 1000
            self._firing.pop(alert.id, None)
            if alert.state == "resolved":
                return
            self._firing[alert.id] = alert
            if len(self._firing) > MAX_KEPT:
                oldest = next(iter(self._firing))
                del self._firing[oldest]
                log.error("too many alerts fire at once to keep all alive", receiver=self.name, given_up=oldest)

    def _post(self, alerts: list[dict[str, Any]]) -> Attempt:
        import httpx

        body = msgspec.json.encode(alerts)
        try:
            with self._client.stream(
                "POST", self._url, content=body, headers={"Content-Type": "application/json"}
            ) as response:
                return judged(response, self._clock)
        except CredentialsError as error:
            return Attempt("retry", str(error))
        except (httpx.TransportError, OSError) as error:
            return unanswered(error, self._spec.timeout)

    def _body(self, alert: Alert, now_ms: int, ended_ms: int | None = None) -> dict[str, Any]:
        """An alert as Alertmanager reads it; its times must not lie in the future, which event time may."""
        if ended_ms is None and alert.state == "resolved":
            ended_ms = now_ms if alert.resolved_at is None else min(alert.resolved_at, now_ms)
        ends_ms = now_ms + LASTS * self._spec.resend_after if ended_ms is None else ended_ms
        labels = {
            **self._spec.labels,
            **alert.group,
            "alertname": ALERT_NAME,
            "severity": alert.severity,
            "namespace": self._namespace,
            "tenant": alert.tenant,
            "stream": alert.stream,
            "policy": alert.policy,
        }
        annotations = {"title": alert.title, "summary": alert.summary, "series": "\n".join(alert.series)}
        link = None if self._page_url is None else link_to(self._page_url, alert)
        if link is not None:
            annotations["page"] = link
        body = {
            "labels": labels,
            "annotations": annotations,
            "startsAt": _rfc3339(min(alert.started_at, now_ms, ends_ms)),
            "endsAt": _rfc3339(ends_ms),
        }
        return body if link is None else {**body, "generatorURL": link}


def _rfc3339(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
