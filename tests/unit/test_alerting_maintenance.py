"""Maintenance windows: recurring, in a time zone, right when the clocks change."""

# ruff: noqa: DTZ001, E501 - rules are about local wall-clock time; one rule after the other reads well

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.alerting.maintenance import Calendar, matches
from tidewarden.frames import SeriesKey
from tidewarden.resources.alertpolicy import Maintenance, Match

N1 = SeriesKey("shop", "eu", "n1", "latency_ms")
NIGHTLY = "FREQ=DAILY;BYHOUR=2;BYMINUTE=30;BYSECOND=0"


def _calendar(rrule: str, duration: str = "1h", timezone: str = "UTC", **match: str) -> Calendar:
    return Calendar(
        [Maintenance.model_validate({"rrule": rrule, "duration": duration, "timezone": timezone, "match": match})]
    )


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def _in(calendar: Calendar, text: str) -> bool:
    return calendar.cover([N1], _ms(text)) is not None


@pytest.mark.parametrize(
    ("day", "start", "end"),
    [
        ("summer", "2025-07-01T02:30:00+02:00", "2025-07-01T03:30:00+02:00"),
        ("winter", "2025-12-01T02:30:00+01:00", "2025-12-01T03:30:00+01:00"),
        # 30 March 2025: 02:00 to 03:00 does not exist; 02:30 as before the change is 03:30 summer time.
        ("spring forward", "2025-03-30T03:30:00+02:00", "2025-03-30T04:30:00+02:00"),
        # 26 October 2025: 02:30 comes twice; the first counts, for one real hour.
        ("fall back", "2025-10-26T02:30:00+02:00", "2025-10-26T02:30:00+01:00"),
    ],
)
def test_a_window_in_berlin_keeps_its_local_time_across_both_changes_of_the_clocks(
    day: str, start: str, end: str
) -> None:
    calendar = _calendar(NIGHTLY, timezone="Europe/Berlin")
    window = calendar.cover([N1], _ms(start))
    assert window is not None
    assert (window.start, window.end) == (_ms(start), _ms(end))
    assert calendar.cover([N1], _ms(start) - 1) is None
    assert calendar.cover([N1], _ms(end)) is None


def test_a_window_over_midnight_holds_on_the_next_day() -> None:
    calendar = _calendar("FREQ=WEEKLY;BYDAY=SA;BYHOUR=22;BYMINUTE=0;BYSECOND=0", "6h")
    assert _in(calendar, "2025-08-03T03:59:59Z")
    assert not _in(calendar, "2025-08-03T04:00:00Z")
    assert not _in(calendar, "2025-08-04T03:00:00Z")


def test_every_other_week_means_the_same_weeks_whoever_asks_and_from_when() -> None:
    rule = "FREQ=WEEKLY;INTERVAL=2;BYDAY=MO;BYHOUR=1;BYMINUTE=0;BYSECOND=0"
    first = datetime(2025, 1, 6, 1, 30, tzinfo=UTC)
    held = [_in(_calendar(rule), (first + timedelta(weeks=n)).isoformat()) for n in range(60)]
    assert held == [n % 2 == 0 for n in range(60)] or held == [n % 2 == 1 for n in range(60)]


def test_a_start_of_the_users_own_bounds_the_series() -> None:
    calendar = _calendar("DTSTART:20250110T020000\nRRULE:FREQ=DAILY;COUNT=3", "1h", "Europe/Berlin")
    days = [day for day in range(1, 31) if _in(calendar, f"2025-01-{day:02d}T01:30:00Z")]
    assert days == [10, 11, 12]


def test_until_with_a_zone_and_exceptions_are_understood() -> None:
    assert _in(_calendar("FREQ=DAILY;UNTIL=20250110T000000Z"), "2025-01-09T00:30:00Z")
    assert not _in(_calendar("FREQ=DAILY;UNTIL=20250110T000000Z"), "2025-01-11T00:30:00Z")
    rule = "DTSTART:20250101T000000\nRRULE:FREQ=DAILY\nEXDATE:20250103T000000"
    assert [day for day in range(1, 6) if _in(_calendar(rule), f"2025-01-0{day}T00:30:00Z")] == [1, 2, 4, 5]


@pytest.mark.parametrize(
    ("match", "held"),
    [
        ({}, True), ({"tenant": "shop"}, True), ({"tenant": "bank"}, False), ({"node": "n*"}, True),
        ({"node": "n"}, False), ({"cluster": "eu", "metric": "lat*"}, True), ({"cluster": "us", "node": "n1"}, False),
        ({"metric": "*"}, True),
    ],
)  # fmt: skip
def test_match_takes_names_and_prefixes_and_leaves_out_what_it_does_not_name(match: dict[str, str], held: bool) -> None:
    assert matches(Match(**match), N1) is held


def test_all_series_must_be_in_some_window_and_the_first_end_counts() -> None:
    windows: list[dict[str, Any]] = [
        {"rrule": "FREQ=DAILY;BYHOUR=2", "duration": "1h", "match": {"node": "n1"}},
        {"rrule": "FREQ=DAILY;BYHOUR=1", "duration": "4h", "match": {"node": "n*"}},
        {"rrule": "FREQ=DAILY;BYHOUR=2", "duration": "2h", "match": {"node": "m1"}},
    ]
    calendar = Calendar([Maintenance.model_validate(window) for window in windows])
    at = _ms("2025-01-01T02:30:00Z")
    cover = calendar.cover([N1, N1._replace(node="m1")], at)
    assert cover is not None
    assert cover.end == _ms("2025-01-01T04:00:00Z")
    assert calendar.cover([N1, N1._replace(node="web")], at) is None
    assert calendar.cover([], at) is None


RULES = [
    "FREQ=YEARLY;INTERVAL=3;BYMONTH=2;BYMONTHDAY=29", "FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=23", "FREQ=MONTHLY;INTERVAL=5",
    "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1", "FREQ=WEEKLY;INTERVAL=3;BYDAY=TU,SU;WKST=SU", "FREQ=DAILY;INTERVAL=4",
    "FREQ=HOURLY;INTERVAL=7", "FREQ=MINUTELY;INTERVAL=450;BYMONTH=3,10",
]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Pacific/Kiritimati"]),
    hours=st.sampled_from([1, 30, 168]),
    at=st.datetimes(datetime(1990, 2, 1), datetime(1993, 12, 31)),  # near the anchor, where the oracle is quick
)
def test_windows_agree_with_playing_the_rule_from_its_beginning(rule: str, zone: str, hours: int, at: datetime) -> None:
    instant = int(at.replace(tzinfo=UTC).timestamp() * 1000)
    local = [
        int(start.replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)
        for start in rrulestr(rule, dtstart=datetime(1990, 1, 1)).between(
            at - timedelta(hours=hours + 48), at + timedelta(hours=48), inc=True
        )
    ]
    ends = [start + hours * 3_600_000 for start in local if start <= instant < start + hours * 3_600_000]
    window = _calendar(rule, f"{hours}h", zone).cover([N1], instant)
    assert (window.end if window else None) == max(ends, default=None)
