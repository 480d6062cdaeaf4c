"""Query parameters that several endpoints share. A misspelt name is an error, not an unfiltered answer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tidewarden.store.port import Query


def parse_instant(value: Any) -> Any:
    """Milliseconds since the epoch: as a number, or ISO 8601 text (UTC unless it says otherwise)."""
    if not isinstance(value, str) or value.lstrip("-").isdigit():
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(
            "neither milliseconds since the epoch nor ISO 8601, e.g. 1700000000000 or 2026-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


# Bounds: what int64 milliseconds and every consumer's date type can hold (years 1 to 9999).
Instant = Annotated[int, BeforeValidator(parse_instant), Field(ge=-62_135_596_800_000, le=253_402_300_799_999)]
Text = Annotated[str, Field(min_length=1, max_length=512)]


class ScopeFilter(BaseModel):
    """Which series; what is absent means any."""

    model_config = ConfigDict(extra="forbid")

    stream: Text | None = None
    tenant: Text | None = None
    cluster: Text | None = None
    node: Text | None = None
    metric: Text | None = None


class RangeFilter(ScopeFilter):
    """Which series, and when."""

    since: Instant | None = Field(None, description="ms since the epoch or ISO 8601; inclusive")
    until: Instant | None = Field(None, description="ms since the epoch or ISO 8601; exclusive")


class AnomalyFilter(RangeFilter):
    """Filter of /api/anomalies; the range takes in what overlaps it."""

    detector: Text | None = None
    state: Annotated[str, Field(pattern="^(open|closed)$")] | None = None
    min_score: float | None = Field(None, ge=0, le=1)
    limit: int = Field(100, ge=1, le=1000)


class SourceFilter(BaseModel):
    """Filter of /api/anomalies/{source}."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000)
    min_score: float | None = Field(None, ge=0, le=1)


class SeriesFilter(ScopeFilter):
    """Filter of /api/series."""

    limit: int = Field(1000, ge=1, le=10_000)


class ReadingsFilter(RangeFilter):
    """Filter of /api/readings: one series, given by all four names."""

    tenant: Text
    cluster: Text
    node: Text
    metric: Text
    detector: Text | None = None
    limit: int = Field(2000, ge=1, le=20_000, description="rows at most; the newest ones")
    points: int | None = Field(
        None, ge=8, le=20_000, description="about so many rows, thinned so that every peak and gap stays visible"
    )


class AlertFilter(RangeFilter):
    """Filter of /api/alerts."""

    state: Annotated[str, Field(pattern="^(pending|firing|resolved)$")] | None = None
    min_score: float | None = Field(None, ge=0, le=1)
    limit: int = Field(100, ge=1, le=1000)


class FeedbackFilter(RangeFilter):
    """Filter of /api/v1/feedback; the range is when it was said."""

    detector: Text | None = None
    limit: int = Field(100, ge=1, le=1000)


class RejectedFilter(RangeFilter):
    """Filter of /api/rejected."""

    reason: Text | None = None
    source: Text | None = None
    limit: int = Field(100, ge=1, le=1000)


class RollupFilter(BaseModel):
    """Filter of /api/rollup."""

    model_config = ConfigDict(extra="forbid")

    detector: Text | None = Field(None, description="absent: the first one by name that has rollups")
    stream: Text | None = None
    tenant: Text | None = None
    at: Instant | None = Field(None, description="a moment of the tick wanted; absent: the newest closed tick")


def store_query(parameters: BaseModel, **more: Any) -> Query:
    """The store's query with the same meaning."""
    given = parameters.model_dump(exclude_none=True, exclude={"points", "at"})
    return Query(**(given | more))
