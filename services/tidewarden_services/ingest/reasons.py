"""Why a reading is refused: the stable words, and the sentences that go with them."""

from __future__ import annotations

import enum
import math
from datetime import UTC, datetime

from tidewarden.frames import SeriesKey

MALFORMED = "malformed"
"""It could not be read at all: broken JSON, undecodable bytes, a row with too few cells."""

WRONG_TYPE = "wrong_type"
"""A field has a type that cannot be a reading's, such as a text where a number belongs."""

MISSING_FIELD = "missing_field"
"""A field that every reading needs is absent or empty."""

TOO_LARGE = "too_large"
"""A line or a name is longer than any reading can be."""


class Code(enum.IntEnum):
    """What validation says of one reading; the kernel writes these numbers. Below `REFUSED`: accepted."""

    ACCEPTED = 0
    LATE = 1
    UNKNOWN_TENANT = 2
    NOT_FINITE = 3
    OUT_OF_BOUNDS = 4
    FUTURE = 5
    DUPLICATE = 6
    TOO_LATE = 7

    @property
    def reason(self) -> str:
        """The stable word under which it is counted, e.g. ``out_of_bounds``."""
        return self.name.lower()


REFUSED = 2
LATE_CODE = 1

REASONS = (MALFORMED, WRONG_TYPE, MISSING_FIELD, TOO_LARGE, *(code.reason for code in Code if code >= REFUSED))
"""Every reason for which ingest refuses a reading."""


def iso(timestamp_ms: int) -> str:
    """A timestamp as people read it, or the bare number where no calendar has it."""
    try:
        moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{timestamp_ms} ms"
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def not_finite_detail(text: str) -> str:
    """The sentence for a value that is no finite number."""
    return f"value is {text}, which is not a finite number: send null where a value is missing"


def unknown_tenant_detail(tenant: str, stream: str, tenants: list[str]) -> str:
    """The sentence for a tenant that the stream does not serve."""
    known = ", ".join(sorted(tenants)[:10])
    return f"tenant {tenant!r} is not one of stream {stream!r} ({known}): add it to spec.tenants or send it elsewhere"


def bounds_detail(key: SeriesKey, value: float, low: float, high: float) -> str:
    """The sentence for a value outside its metric's contract."""
    if math.isinf(high):
        allowed = f"at least {low:g}"
    elif math.isinf(low):
        allowed = f"at most {high:g}"
    else:
        allowed = f"{low:g} to {high:g}"
    return (
        f"{key.metric} is {value!r}, the contract allows {allowed}: "
        "correct the producer or widen spec.metrics of the stream"
    )
