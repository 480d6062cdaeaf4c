"""Receivers: where an alert goes, and what became of one attempt to bring it there."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable
from urllib.parse import quote

import msgspec
import structlog

from tidewarden.clock import Clock
from tidewarden.credentials import read_secret, secret_folder
from tidewarden.events import Alert
from tidewarden.resources.alertpolicy import Receiver, WebhookReceiver

if TYPE_CHECKING:
    import httpx

PAYLOAD_VERSION = "1"
MAX_RETRY_AFTER_S = 300.0  # a receiver may ask for patience, not for being forgotten
_TOLD_BEFORE = 1_000  # alerts of which the log receiver remembers what it said last
_RETRIED = {408, 425, 429}  # of the 4xx, those that ask for another attempt
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of an attempt.

    Attributes:
        result: sent; retry: later, the same again; refused: never again.
        reason: a phrase for the log; never holds the address, which may be a secret.
        after_s: how long the receiver asked to be left alone, seconds.
    """

    result: Literal["sent", "retry", "refused"]
    reason: str = ""
    after_s: float | None = None


@runtime_checkable
class KeepingChannel(Protocol):
    """A channel that tells of firing alerts again and again, until they resolve.

    All but `kept` is called in the thread that delivers.
    """

    def keep_until(self) -> float | None:
        """When to call `keep` next, seconds on the monotonic clock; None where nothing fires."""

    def keep(self) -> Attempt:
        """Tell of everything that fires once more; does not raise."""

    def kept(self) -> list[Alert]:
        """What fires, to be saved together with the position; called in another thread."""

    def restore(self, alerts: list[Alert]) -> None:
        """Go on with what an earlier process had kept; called before anything is delivered."""


class Channel(Protocol):
    """One receiver of one policy."""

    name: str

    def wants(self, alert: Alert) -> bool:
        """Whether this revision is for this receiver."""

    def deliver(self, alert: Alert) -> Attempt:
        """Try once to bring it there; does not raise."""

    def close(self) -> None:
        """Release connections."""


def is_public(alert: Alert) -> bool:
    """Whether an alert is to be heard of: it has fired, and neither maintenance nor budget keep it back."""
    return alert.fired_at is not None and alert.suppressed_by is None


def link_to(page_url: str, alert: Alert) -> str:
    """The page's chart of an alert's worst series."""
    return f"{page_url.rstrip('/')}/#/series/{'/'.join(quote(part, safe='') for part in alert.series[0].split('/'))}"


def channel_of(
    receiver: Receiver,
    name: str,
    *,
    namespace: str,
    clock: Clock,
    environ: Mapping[str, str],
    page_url: str | None,
    secrets_dir: Path | None = None,
    alertmanager_url: str | None = None,
) -> Channel:
    """The channel that a receiver of an AlertPolicy describes; ValueError names the field that it lacks.

    Args:
        receiver: as in the policy.
        name: of the receiver.
        namespace: of the policy.
        clock: the process's.
        environ: where ``${NAME}`` in a webhook's headers is looked up, after its Secret.
        page_url: address of the web page, for links.
        secrets_dir: holds one folder for each Secret; None: a webhook's headers come from ``environ`` alone.
        alertmanager_url: default of alertmanager receivers.
    """
    if receiver.webhook is not None:
        secret = receiver.webhook.secret_ref
        if secret is not None and secrets_dir is not None:
            folder = secret_folder(secrets_dir, secret.name, f"receiver {name!r}: webhook.secretRef")
            environ = {**environ, **read_secret(folder)}
        return WebhookChannel(name, receiver.webhook, clock=clock, environ=environ, page_url=page_url)
    if receiver.alertmanager is not None:
        from tidewarden_services.alert.alertmanager import AlertmanagerChannel

        return AlertmanagerChannel.of(
            receiver.alertmanager,
            name,
            namespace=namespace,
            clock=clock,
            page_url=page_url,
            secrets_dir=secrets_dir,
            url=alertmanager_url,
        )
    return LogChannel(name)


class LogChannel:
    """Alerts as lines in the process's log: when they fire, get worse and resolve, not when they grow."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._log = structlog.get_logger("tidewarden.alerts")
        self._told: OrderedDict[str, tuple[str, str]] = OrderedDict()

    def wants(self, alert: Alert) -> bool:
        """Fired and not kept back."""
        return is_public(alert)

    def deliver(self, alert: Alert) -> Attempt:
        """One line; the colour of trouble is the level."""
        said = (alert.state, alert.severity)
        if self._told.get(alert.id) != said:
            level = "info" if alert.state == "resolved" else "error" if alert.severity == "critical" else "warning"
            facts = {"alert": alert.id, "anomalies": alert.anomaly_count}
            if alert.flapping:
                facts["flapping"] = True
            getattr(self._log, level)(f"{alert.state} ({alert.severity}) {alert.title}", **facts)
        self._told.pop(alert.id, None)
        if alert.state != "resolved":
            self._told[alert.id] = said
            if len(self._told) > _TOLD_BEFORE:
                self._told.popitem(last=False)
        return Attempt("sent")

    def close(self) -> None:
        """Nothing to release."""


class WebhookChannel:
    """POSTs alerts as JSON: ``{version, status, link, alert: {…}}``.

    The header ``Idempotency-Key`` (alert id and revision) is the same on every attempt, so a receiver
    that answered too late can tell a repetition from news.
    """

    def __init__(
        self, name: str, spec: WebhookReceiver, *, clock: Clock, environ: Mapping[str, str], page_url: str | None
    ) -> None:
        self.name = name
        self._spec = spec
        self._clock = clock
        self._page_url = page_url
        headers = {key: _expand(key, value, environ) for key, value in spec.headers.items()}
        import httpx  # a seventh of a second that a start without webhooks need not wait for

        self._client = httpx.Client(
            timeout=spec.timeout / 1000, headers={"User-Agent": "tidewarden", **headers}, follow_redirects=False
        )

    def wants(self, alert: Alert) -> bool:
        """Fired and not kept back; with ``sendPending`` also what has not fired."""
        return is_public(alert) or (self._spec.send_pending and alert.fired_at is None)

    def deliver(self, alert: Alert) -> Attempt:
        """POST it once."""
        import httpx

        link = None if self._page_url is None else link_to(self._page_url, alert)
        body = msgspec.json.encode({"version": PAYLOAD_VERSION, "status": alert.state, "link": link, "alert": alert})
        headers = {"Content-Type": "application/json", "Idempotency-Key": f"{alert.id}-{alert.revision}"}
        try:
            # Streamed, because nobody reads the answer's body, however long it is.
            with self._client.stream("POST", str(self._spec.url), content=body, headers=headers) as response:
                return judged(response, self._clock)
        except (httpx.TransportError, OSError) as error:
            return unanswered(error, self._spec.timeout)

    def close(self) -> None:
        """Close connections."""
        self._client.close()


def judged(response: httpx.Response, clock: Clock) -> Attempt:
    """What an answer means: 2xx is sent, 5xx and a few others are to be tried again, the rest is refused for good."""
    status = response.status_code
    reason = f"answered {status} {response.reason_phrase}".rstrip()
    if response.is_success:
        return Attempt("sent")
    if status in _RETRIED or status >= 500:
        return Attempt("retry", reason, _patience(response.headers.get("Retry-After"), clock))
    if response.is_redirect:
        reason += ": redirects are not followed, give the final address"
    return Attempt("refused", reason)


def unanswered(error: httpx.TransportError | OSError, timeout_ms: int) -> Attempt:
    """What it means that no answer came."""
    import httpx

    if isinstance(error, httpx.TimeoutException):
        return Attempt("retry", f"no answer within {timeout_ms / 1000:g} s")
    return Attempt("retry", f"{type(error).__name__}: {error}")


def _patience(retry_after: str | None, clock: Clock) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date; None where it is neither."""
    if retry_after is None:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            until = parsedate_to_datetime(retry_after)
        except ValueError:
            return None
        now = datetime.fromtimestamp(clock.now_ms() / 1000, UTC)
        seconds = (until.replace(tzinfo=until.tzinfo or UTC) - now).total_seconds()
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_RETRY_AFTER_S)


def _expand(header: str, value: str, environ: Mapping[str, str]) -> str:
    def replace(match: re.Match[str]) -> str:
        try:
            return environ[match[1]]
        except KeyError:
            raise ValueError(
                f"webhook header {header!r} needs {match[1]}: set it in its Secret or in the environment"
            ) from None

    return _VARIABLE.sub(replace, value)
