"""Timestamps as producers write them, as milliseconds since the epoch."""

from __future__ import annotations

import math
from datetime import UTC, datetime

SECONDS_BELOW = 100_000_000_000
"""Numbers below this are seconds (up to the year 5138), others milliseconds (from March 1973 on)."""

LAST_MS = 253_402_300_799_999
"""The end of the year 9999: what comes after it has no calendar."""


def timestamp_ms(timestamp: object) -> int:
    """Milliseconds since the epoch, UTC, of one timestamp.

    Integers and floats are seconds below `SECONDS_BELOW` in size and milliseconds otherwise; texts are
    RFC 3339 (without an offset: UTC), or such a number. ValueError names the field, the value and the remedy.
    """
    if isinstance(timestamp, str):
        return _of_text(timestamp)
    if isinstance(timestamp, bool) or not isinstance(timestamp, (int, float)) or not math.isfinite(timestamp):
        raise ValueError(_complaint(timestamp))
    ms = round(timestamp * 1000) if abs(timestamp) < SECONDS_BELOW else round(timestamp)
    if abs(ms) > LAST_MS:
        raise ValueError(_complaint(timestamp))
    return ms


def _of_text(text: str) -> int:
    text = text.strip()
    try:
        return timestamp_ms(int(text))
    except ValueError:
        pass  # not a whole number: the next two forms are tried, and the last one complains
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            seconds = float(text)
        except ValueError:
            raise ValueError(_complaint(text)) from None
        return timestamp_ms(seconds)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    whole = int(moment.replace(microsecond=0).timestamp())
    return whole * 1000 + moment.microsecond // 1000


def _complaint(timestamp: object) -> str:
    shown = repr(timestamp)
    return (
        f"timestamp is {shown if len(shown) <= 80 else shown[:80] + '…'}: write milliseconds or seconds since the "
        "epoch, or RFC 3339 such as 2026-01-31T08:00:00Z"
    )
