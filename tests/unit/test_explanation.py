"""Explanations read as a person on call would write them."""

import math

import pytest

from tidewarden.events import AnomalyKind
from tidewarden.scoring.explanation import Story, explain, format_duration, format_number

MINUTE = 60_000


def story(kind, **more):
    told = {
        "metric": "latency_ms", "node": "n3", "value": 412.0, "expected": 112.0, "lower": 95.0, "upper": 130.0,
        "duration_ms": 9 * MINUTE, "usual": 3.1, "share": 0.71, "siblings": 4,
    }  # fmt: skip
    return explain(Story(kind=kind, **{**told, **more}))


def test_a_spike_says_value_band_duration_and_what_it_drives():
    assert story(AnomalyKind.SPIKE) == "latency_ms 412 expected 95–130, 9 min; drives 71 % of node n3"


def test_missing_readings_are_told_without_numbers_that_are_not_there():
    text = story(AnomalyKind.MISSING, value=math.nan, duration_ms=7 * MINUTE, share=0.1)
    assert text == "latency_ms no readings for 7 min"


def test_a_flat_line_says_at_what_it_is_stuck_and_what_is_usual():
    text = story(AnomalyKind.FLAT_LINE, value=42.0, duration_ms=20 * MINUTE, share=0.0)
    assert text == "latency_ms stuck at 42.0 for 20 min, usually varies by ±3.10"


def test_every_kind_has_a_wording_of_its_own():
    kinds = [kind for kind in AnomalyKind if kind not in (AnomalyKind.NONE, AnomalyKind.UNSPECIFIED, AnomalyKind.DIP)]
    assert len({story(kind) for kind in kinds}) == len(kinds)


def test_a_shift_says_which_way():
    assert "shifted up to 412" in story(AnomalyKind.LEVEL_SHIFT)
    assert "shifted down to 12.0" in story(AnomalyKind.LEVEL_SHIFT, value=12.0)


def test_a_series_alone_on_its_node_or_with_a_small_share_is_not_called_a_driver():
    assert "drives" not in story(AnomalyKind.SPIKE, siblings=1, share=1.0)
    assert "drives" not in story(AnomalyKind.SPIKE, share=0.2)


@pytest.mark.parametrize(
    ("lower", "upper", "expected", "text"),
    [
        (math.nan, math.nan, math.nan, "latency_ms 412, 9 min"),
        (math.nan, math.nan, 100.0, "latency_ms 412 expected 100, 9 min"),
        (-math.inf, 250.0, math.nan, "latency_ms 412 expected at most 250, 9 min"),
        (500.0, math.inf, math.nan, "latency_ms 412 expected at least 500, 9 min"),
        (-20.0, -5.5, -10.0, "latency_ms 412 expected -20 to -5.5, 9 min"),
    ],
)
def test_open_and_unknown_bands_are_told_as_far_as_they_are_known(lower, upper, expected, text):
    assert story(AnomalyKind.SPIKE, lower=lower, upper=upper, expected=expected, share=0.0) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"), (412.4, "412"), (95.26, "95.3"), (99.96, "100"), (9.999, "10.0"), (1234.0, "1230"),
        (0.012345, "0.0123"), (-3.14159, "-3.14"), (12_500_000.0, "1.25e+07"), (0.00001234, "1.23e-05"),
        (999_499.0, "999000"), (math.nan, "unknown"), (math.inf, "∞"), (-math.inf, "-∞"),
    ],
)  # fmt: skip
def test_numbers_have_three_significant_digits(number, text):
    assert format_number(number) == text


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"), (250, "250 ms"), (45_000, "45 s"), (90_000, "1 min 30 s"), (9 * MINUTE, "9 min"),
        (61 * MINUTE + 20_000, "1 h 1 min"), (125 * MINUTE, "2 h 5 min"), (24 * 60 * MINUTE, "1 d"),
        (27 * 60 * MINUTE, "1 d 3 h"),
    ],
)  # fmt: skip
def test_durations_have_at_most_two_units(ms, text):
    assert format_duration(ms) == text
