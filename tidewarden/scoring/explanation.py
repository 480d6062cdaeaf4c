"""Anomalies in words: one line that a person understands without knowing the model.

``latency_ms 412 expected 95–130, 9 min; drives 71 % of node n3``
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidewarden.events import AnomalyKind

_SHARE_WORTH_SAYING = 0.3  # below that the series is one of several, and naming it the driver would mislead


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What there is to tell about a run; numbers may be NaN where they are not known.

    Attributes:
        metric: name of the metric.
        node: name of the node.
        kind: kind of the anomaly.
        value: at the peak.
        expected: at the peak.
        lower: lower end of the expected band at the peak.
        upper: upper end of the expected band at the peak.
        duration_ms: from the onset to the end, including the last interval.
        usual: usual deviation from what is expected, one standard deviation.
        share: share of the node's score that the series drives, 0 to 1.
        siblings: series of the node that have a score, this one included.
        ongoing: it is not over; of a silent series nobody can say more than for how long at least.
    """

    metric: str
    node: str
    kind: AnomalyKind
    value: float
    expected: float
    lower: float
    upper: float
    duration_ms: int
    usual: float
    share: float
    siblings: int
    ongoing: bool = False


def explain(story: Story) -> str:
    """One line about a run, worded by its kind."""
    line = f"{story.metric} {_happening(story)}"
    if story.siblings > 1 and story.share >= _SHARE_WORTH_SAYING:
        line += f"; drives {round(story.share * 100)} % of node {story.node}"
    return line


def _happening(story: Story) -> str:  # noqa: PLR0911 - one wording a kind
    lasted = format_duration(story.duration_ms)
    value = format_number(story.value)
    range_text = _range(story)
    match story.kind:
        case AnomalyKind.MISSING:
            return f"no readings for {lasted}{' or more' if story.ongoing else ''}"
        case AnomalyKind.FLAT_LINE:
            usually = f", usually varies by ±{format_number(story.usual)}" if story.usual > 0 else ""
            return f"stuck at {value} for {lasted}{usually}"
        case AnomalyKind.LEVEL_SHIFT:
            way = "up" if story.value >= story.expected else "down"
            return f"shifted {way} to {value}{range_text}, for {lasted}"
        case AnomalyKind.DRIFT:
            return f"drifting to {value}{range_text}, for {lasted}"
        case AnomalyKind.TREND_CHANGE:
            return f"on a new trend, now {value}{range_text}, for {lasted}"
        case AnomalyKind.SEASONAL_CHANGE:
            return f"off its seasonal pattern, {value}{range_text}, for {lasted}"
        case AnomalyKind.NOISE:
            return f"unusually noisy, {value}{range_text}, for {lasted}"
        case _:
            return f"{value}{range_text}, {lasted}"


def _range(story: Story) -> str:
    if math.isfinite(story.lower) and math.isfinite(story.upper):
        low, high = _short(story.lower), _short(story.upper)
        # Two negative numbers with a dash between them are hard to read.
        return f" expected {low} to {high}" if story.lower < 0 else f" expected {low}–{high}"
    if math.isfinite(story.upper):
        return f" expected at most {_short(story.upper)}"
    if math.isfinite(story.lower):
        return f" expected at least {_short(story.lower)}"
    return f" expected {_short(story.expected)}" if math.isfinite(story.expected) else ""


def _short(number: float) -> str:
    """What is expected is never known so well that zeros at the end would say something."""
    text = format_number(number)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def format_number(number: float) -> str:
    """A number with three significant digits as people write it: 412, 95.3, 0.0123, 1.25e+07."""
    if math.isnan(number):
        return "unknown"
    if math.isinf(number):
        return "∞" if number > 0 else "-∞"
    if number == 0:
        return "0"
    magnitude = abs(number)
    if magnitude >= 999_500 or magnitude < 0.000_995:
        return f"{number:.2e}"
    # The exponent after rounding to three digits, so that 99.96 becomes 100 and not 100.0.
    exponent = int(f"{magnitude:.2e}".partition("e")[2])
    rounded = round(number, 2 - exponent)
    return f"{rounded:.{max(0, 2 - exponent)}f}"


def format_duration(duration_ms: int) -> str:
    """A duration as people say it, in at most two units: ``250 ms``, ``45 s``, ``9 min``, ``2 h 5 min``, ``3 d``."""
    if duration_ms < 1_000:
        return f"{max(0, duration_ms)} ms"
    seconds = round(duration_ms / 1_000)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if seconds and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
