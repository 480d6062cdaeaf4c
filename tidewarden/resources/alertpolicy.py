"""AlertPolicy: who hears of it, and when not."""

from __future__ import annotations

from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrulestr
from pydantic import Field, HttpUrl, field_validator, model_validator

from tidewarden.resources.base import Duration, Label, Model, Name, Resource, SecretRef, Selector

GroupField = Literal["tenant", "cluster", "node", "metric", "detector", "kind"]


class LogReceiver(Model):
    """Write alerts to the process's log."""


class WebhookReceiver(Model):
    """POST each firing and resolved alert as JSON; retried until the receiver takes it."""

    url: HttpUrl = Field(description="Where to POST; redirects are not followed.")
    timeout: Duration = Field(
        10_000, ge=100, le=120_000, description="How long to wait for an answer before the next attempt."
    )
    send_pending: bool = Field(False, description="Send alerts that are still pending, too.")
    headers: dict[str, str] = Field(
        default_factory=dict, description="Extra headers; ${NAME} is read from the environment."
    )
    secret_ref: SecretRef | None = Field(
        None, description="Secret whose keys are the environment of the headers, in a cluster."
    )


class AlertmanagerReceiver(Model):
    """Prometheus Alertmanager, API v2: firing alerts are kept alive, resolved ones ended."""

    url: HttpUrl | None = Field(None, description="Server, without /api; absent: the installation's Alertmanager.")
    timeout: Duration = Field(
        10_000, ge=100, le=120_000, description="How long to wait for an answer before the next attempt."
    )
    resend_after: Duration = Field(
        60_000, ge=1_000, le=3_600_000, description="Firing alerts are sent again so often; four missed ones end them."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels to add to every alert, for routing.")
    secret_ref: SecretRef | None = Field(
        None, description="Log-in: key token, or username and password; ca.crt where the authority is your own."
    )


RECEIVER_KINDS = ("log", "webhook", "alertmanager")


class Receiver(Model):
    """One receiver: exactly one kind."""

    name: Label | None = Field(None, description="For metrics and logs; absent: the kind.")
    log: LogReceiver | None = None
    webhook: WebhookReceiver | None = None
    alertmanager: AlertmanagerReceiver | None = None

    @property
    def kind(self) -> str:
        """Which of the kinds it is."""
        return next(kind for kind in RECEIVER_KINDS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in RECEIVER_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a receiver has {' and '.join(given) or 'no kind'}: give exactly one of "
                f"{', '.join(RECEIVER_KINDS)} (with {{}} where it needs no settings)"
            )
        return self


class Match(Model):
    """Series that a window applies to; empty means all. Values may end in ``*``."""

    tenant: Selector | None = Field(None, description="Tenant, or the beginning of its name and ``*``.")
    cluster: Selector | None = Field(None, description="Cluster, or the beginning of its name and ``*``.")
    node: Selector | None = Field(None, description="Node, or the beginning of its name and ``*``.")
    metric: Selector | None = Field(None, description="Metric, or the beginning of its name and ``*``.")


class Maintenance(Model):
    """A repeating window in which alerts are kept back."""

    rrule: str = Field(
        max_length=1_024,
        description="RFC 5545 recurrence rule, e.g. FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=0;BYSECOND=0",
    )
    timezone: str = Field("UTC", max_length=64, description="IANA time zone in which the rule is read.")
    duration: Duration = Field(ge=60_000, le=7 * 86_400_000, description="How long each window lasts, in real time.")
    match: Match = Field(default_factory=Match)

    @field_validator("rrule")
    @classmethod
    def _rule(cls, rule: str) -> str:
        try:
            rrulestr(rule)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{rule!r} is not an RFC 5545 recurrence rule ({error}), e.g. FREQ=DAILY;BYHOUR=2;BYMINUTE=0;BYSECOND=0"
            ) from None
        if "SECONDLY" in rule.upper():
            raise ValueError(f"{rule!r} begins every few seconds, but a window lasts a minute at least: use MINUTELY")
        if "COUNT" in rule.upper() and "DTSTART" not in rule.upper():
            raise ValueError(f"{rule!r} has COUNT but no DTSTART: write DTSTART:20250101T020000\\nRRULE:… or use UNTIL")
        return rule

    @field_validator("timezone")
    @classmethod
    def _zone(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"{zone!r} is not an IANA time zone, e.g. Europe/Berlin or UTC") from None
        return zone


class AlertPolicySpec(Model):
    """Spec of an AlertPolicy."""

    stream: Name = Field(description="MetricStream whose anomalies are watched.")
    group_by: list[GroupField] = Field(
        default=["tenant", "cluster"],
        description="Anomalies that agree in these become one alert; different tenants never share one.",
    )
    min_severity: Literal["info", "warning", "critical"] = Field(
        "warning", description="Milder anomalies make no alert: warning is a score from 0.6, critical from 0.9."
    )
    wait: Duration = Field(
        0,
        ge=0,
        description="How long an anomaly must be open before its alert fires; it stays open until its detector has "
        "seen `alerting.quiet` calm readings.",
    )
    resolve_after: Duration = Field(300_000, ge=0, description="Calm time after which an alert resolves.")
    repeat_after: Duration = Field(
        14_400_000,
        ge=0,
        description="A group that fires again within this time after its alert resolved is flapping; from the fourth "
        "alert on it needs twice the calm time to resolve.",
    )
    budget: int | None = Field(
        None, ge=1, description="Alerts of each tenant sent a day (UTC) at most; what comes on top is kept, not sent."
    )
    receivers: list[Receiver] = Field(
        default_factory=lambda: [Receiver(log=LogReceiver())],
        max_length=64,
        description="Who hears of alerts; absent: the log.",
    )
    maintenance: list[Maintenance] = Field(
        default_factory=list,
        max_length=64,
        description="Windows in which alerts are kept back; one that outlasts its window is sent.",
    )
    paused: bool = Field(False, description="Make and send no alerts.")


class AlertPolicy(Resource):
    """Who hears of it, and when not."""

    kind: Literal["AlertPolicy"] = Field("AlertPolicy", description="The kind of resource.")
    spec: AlertPolicySpec
