"""Maintenance windows: recurrence rules (RFC 5545) read in a time zone, so that 02:00 stays 02:00 in summer.

A rule's instants are local wall-clock times. A start that the clocks skip in spring is taken with the
offset from before the change (02:30 becomes 03:30), one that comes twice in autumn is the first of the
two, as RFC 5545 says. A window's duration is real time: two hours are two hours on every night.

Rules are evaluated as if they had begun on Monday, 1 January 1990, 00:00 local time, unless they carry a
DTSTART: so what a rule leaves open (the weekday of a weekly one) has a stable meaning, and INTERVAL=2
means the same weeks in every process.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

from dateutil.relativedelta import relativedelta
from dateutil.rrule import DAILY, HOURLY, MINUTELY, MONTHLY, SECONDLY, WEEKLY, YEARLY, rrule, rruleset, rrulestr

from tidewarden.frames import SeriesKey
from tidewarden.resources.alertpolicy import Maintenance, Match

DAY_MS = 86_400_000
_ANCHOR = datetime(1990, 1, 1)  # noqa: DTZ001 - local wall-clock time, a Monday
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - days are counted in UTC, without a zone object
_CACHED_DAYS = 64
_SECONDS = {WEEKLY: 604_800, DAILY: 86_400, HOURLY: 3_600, MINUTELY: 60, SECONDLY: 1}


class Window(NamedTuple):
    """One occurrence of a maintenance window."""

    start: int  # ms since the epoch
    end: int  # ms since the epoch, exclusive
    label: str  # what the alert is marked with: the rule and its zone


def matches(match: Match, series: SeriesKey) -> bool:
    """Whether ``match`` applies to a series; what it leaves out is any, and ``*`` ends a prefix."""
    wanted = (match.tenant, match.cluster, match.node, match.metric)
    return all(
        pattern is None or (name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern)
        for pattern, name in zip(wanted, series, strict=True)
    )


class Calendar:
    """The maintenance windows of a policy."""

    def __init__(self, windows: Sequence[Maintenance]) -> None:
        self._plans = [_Plan(window) for window in windows]

    def cover(self, series: Iterable[SeriesKey], at_ms: int) -> Window | None:
        """The window in which *all* of ``series`` are at ``at_ms``, as one: the earliest end counts.

        None where a series is not in maintenance, or there are no series.
        """
        found: Window | None = None
        for key in series:
            latest: Window | None = None
            for plan in self._plans:
                window = plan.at(at_ms) if matches(plan.match, key) else None
                if window is not None and (latest is None or window.end > latest.end):
                    latest = window
            if latest is None:
                return None
            if found is None or latest.end < found.end:
                found = latest
        return found


class _Plan:
    """One rule, with the occurrences of the days asked for last."""

    def __init__(self, window: Maintenance) -> None:
        self.match = window.match
        self._zone = ZoneInfo(window.timezone)
        self._duration_ms = window.duration
        text = re.sub(r"\s*\n\s*", "; ", window.rrule.strip())
        self._label = f"maintenance: {text} ({window.timezone})"
        # ignoretz: a rule's times, UNTIL and DTSTART among them, are local times of the window's zone.
        self._rule: rrule | rruleset = rrulestr(window.rrule, dtstart=_ANCHOR, ignoretz=True)
        self._anchored = "DTSTART" in window.rrule.upper() or not isinstance(self._rule, rrule)
        self._days: OrderedDict[int, list[Window]] = OrderedDict()

    def at(self, at_ms: int) -> Window | None:
        """The occurrence that holds ``at_ms``; of several, the one that ends last."""
        day = at_ms // DAY_MS
        if day not in self._days:
            self._days[day] = self._occurrences(day)
            if len(self._days) > _CACHED_DAYS:
                self._days.popitem(last=False)
        holding = [window for window in self._days[day] if window.start <= at_ms < window.end]
        return max(holding, key=lambda window: window.end, default=None)

    def _occurrences(self, day: int) -> list[Window]:
        """Every occurrence that touches the UTC day; local and UTC days differ by at most one."""
        first = _EPOCH + timedelta(days=day - 1) - timedelta(milliseconds=self._duration_ms)
        last = _EPOCH + timedelta(days=day + 2)
        rule = self._rule
        if not self._anchored:
            assert isinstance(rule, rrule)
            rule = rule.replace(dtstart=_aligned(rule, first))
        windows = []
        for local in rule.between(first, last, inc=True):
            start = int(local.replace(tzinfo=self._zone).timestamp() * 1000)
            windows.append(Window(start, start + self._duration_ms, self._label))
        return windows


def _aligned(rule: rrule, before: datetime) -> datetime:
    """The last start of a period of ``rule`` at or before ``before``, in step with the anchor.

    Occurrences of a period depend on nothing outside of it, so that a rule need not be played from 1990
    on to know this week: with INTERVAL=n only every n-th period has any.
    """
    frequency: int = rule._freq  # type: ignore[attr-defined]  # dateutil shows it nowhere else
    interval: int = rule._interval  # type: ignore[attr-defined]
    if frequency in {YEARLY, MONTHLY}:
        months = 12 * interval if frequency == YEARLY else interval
        passed = (before.year - _ANCHOR.year) * 12 + before.month - 1
        return _ANCHOR + relativedelta(months=passed // months * months)
    step = _SECONDS[frequency] * interval
    passed = int((before - _ANCHOR).total_seconds())
    return _ANCHOR + timedelta(seconds=passed // step * step)
