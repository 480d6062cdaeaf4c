"""AlertPolicy: who hears of it, and when not."""

from __future__ import annotations

from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from dateutil.rrule import rrulestr
from pydantic import Field, HttpUrl, field_validator, model_validator

from tidewarden.resources.base import Duration, Model, Name, Resource

GroupField = Literal["tenant", "cluster", "node", "metric", "detector", "kind"]


class LogReceiver(Model):
    """Write alerts to the process's log."""


class WebhookReceiver(Model):
    """POST each firing and resolved alert as JSON; retried until the receiver takes it."""

    url: HttpUrl
    timeout: Duration = Field(10_000, ge=100, le=120_000)
    send_pending: bool = Field(False, description="Send alerts that are still pending, too.")
    headers: dict[str, str] = Field(
        default_factory=dict, description="Extra headers; ${NAME} is read from the environment."
    )


class Receiver(Model):
    """One receiver: exactly one kind."""

    name: str | None = None
    log: LogReceiver | None = None
    webhook: WebhookReceiver | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [kind for kind in ("log", "webhook") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a receiver has {' and '.join(given) or 'no kind'}: give exactly one of log, webhook "
                "(with {} where it needs no settings)"
            )
        return self


class Match(Model):
    """Series that a window applies to; empty means all. Values may end in ``*``."""

    tenant: str | None = None
    cluster: str | None = None
    node: str | None = None
    metric: str | None = None


class Maintenance(Model):
    """A repeating window in which alerts are kept back."""

    rrule: str = Field(description="RFC 5545 recurrence rule, e.g. FREQ=WEEKLY;BYDAY=SU;BYHOUR=2;BYMINUTE=0;BYSECOND=0")
    timezone: str = Field("UTC", description="IANA time zone in which the rule is read.")
    duration: Duration = Field(ge=60_000, le=7 * 86_400_000)
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
        description="Anomalies that agree in these become one alert.",
    )
    min_severity: Literal["info", "warning", "critical"] = "warning"
    wait: Duration = Field(0, ge=0, description="How long an anomaly must last before its alert fires.")
    resolve_after: Duration = Field(300_000, ge=0, description="Calm time after which an alert resolves.")
    repeat_after: Duration = Field(
        14_400_000,
        ge=0,
        description="An alert that fires again within this time after it resolved counts as flapping.",
    )
    budget: int | None = Field(
        None, ge=1, description="Alerts sent a day at most; what comes on top is kept, not sent."
    )
    receivers: list[Receiver] = Field(default_factory=lambda: [Receiver(log=LogReceiver())])
    maintenance: list[Maintenance] = Field(default_factory=list)
    paused: bool = False


class AlertPolicy(Resource):
    """Who hears of it, and when not."""

    kind: Literal["AlertPolicy"] = "AlertPolicy"
    spec: AlertPolicySpec
