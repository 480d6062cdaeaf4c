"""Which anomalies become one alert, and what that alert says in one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from tidewarden.events import SEVERITIES, Anomaly, Severity
from tidewarden.frames import SeriesKey
from tidewarden.resources.alertpolicy import GroupField

GroupKey = tuple[str, ...]
"""Tenant first, then the values of the groupBy fields."""


def group_key(group_by: Sequence[GroupField], anomaly: Anomaly) -> GroupKey:
    """The group of an anomaly. Tenants never share an alert, whether or not groupBy names the tenant."""
    return (anomaly.tenant, *(str(getattr(anomaly, field)) for field in group_by))


def rank(severity: Severity) -> int:
    """0 for info, 1 for warning, 2 for critical."""
    return SEVERITIES.index(severity)


def title(series: Iterable[SeriesKey], kind: str, started_at: int, resolved_at: int | None) -> str:
    """One line a person understands: ``shop/eu: latency_ms spike on n3 and 4 more nodes, since 12:04 UTC``.

    Args:
        series: the series involved, worst first.
        kind: label of the worst anomaly's kind.
        started_at: ms since the epoch.
        resolved_at: ms since the epoch, or None while it lasts.
    """
    keys = list(series)
    worst = keys[0]
    nodes = list(dict.fromkeys((key.cluster, key.node) for key in keys))
    clusters = Counter(key.cluster for key in keys)
    metrics = list(dict.fromkeys(key.metric for key in keys))
    place = f"{worst.tenant}/{worst.cluster}" if len(clusters) == 1 else f"{worst.tenant} ({len(clusters)} clusters)"
    node = worst.node if len(clusters) == 1 else f"{worst.cluster}/{worst.node}"
    what = f"{metrics[0]} {'anomaly' if kind == 'unspecified' else kind.replace('_', ' ')}"
    if len(metrics) > 1:
        what += f" and {_more(len(metrics) - 1, 'metric')}"
    where = node if len(nodes) == 1 else f"{node} and {_more(len(nodes) - 1, 'node')}"
    return f"{place}: {what} on {where}, {_span(started_at, resolved_at)}"


def _more(count: int, noun: str) -> str:
    return f"{count} more {noun}{'' if count == 1 else 's'}"


def _span(started_at: int, resolved_at: int | None) -> str:
    start = datetime.fromtimestamp(started_at / 1000, UTC)
    if resolved_at is None:
        return f"since {start:%H:%M} UTC"
    end = datetime.fromtimestamp(resolved_at / 1000, UTC)
    return f"{start:%H:%M}–{end:%H:%M} UTC" if end.date() == start.date() else f"{start:%H:%M} to {end:%d %b %H:%M} UTC"
