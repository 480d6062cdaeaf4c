"""Names: which index a document lies in, and under which id. The only place that makes them.

An index is called ``<prefix>.<namespace>.<stream>.<kind>.<part>``; none of the first four can have a dot,
so no two streams share a pattern. ``part`` is the day on which its data begins (UTC), with the number
of days behind it where that is not one (``2026.11.23-7d``), or ``all`` where a kind has one index only.
Readers ask the alias, which is the name without the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Literal, get_args

Dated = Literal["readings", "scores", "rollups", "rejected"]
Single = Literal["anomalies", "alerts", "acknowledgements", "series", "latest", "offsets", "feedback"]
Kind = Literal[Dated, Single]

DATED: tuple[Dated, ...] = get_args(Dated)
SINGLE: tuple[Single, ...] = get_args(Single)
KINDS: tuple[Kind, ...] = (*DATED, *SINGLE)

DAY_MS = 86_400_000
# A server takes 1,000 shards a node by default. 4 dated kinds × 32 parts are 128 shards a stream.
MAX_PARTS = 32


def period_days(retention_ms: int) -> int:
    """Days that one dated index holds: one up to a month of retention, more beyond, so that parts stay few."""
    days = -(-retention_ms // DAY_MS)
    return max(1, -(-days // MAX_PARTS))


@dataclass(frozen=True, slots=True)
class StreamNames:
    """The names of one stream's indices."""

    prefix: str
    namespace: str
    stream: str

    @property
    def base(self) -> str:
        """What every name of this stream begins with."""
        return f"{self.prefix}.{self.namespace}.{self.stream}"

    @property
    def everything(self) -> str:
        """A pattern of all of this stream's indices."""
        return f"{self.base}.*"

    @property
    def policy(self) -> str:
        """The ILM policy of the dated kinds."""
        return f"{self.base}.retention"

    def alias(self, kind: Kind) -> str:
        """What readers ask."""
        return f"{self.base}.{kind}"

    def template(self, kind: Kind) -> str:
        """Name of the index template."""
        return f"{self.base}.{kind}"

    def pattern(self, kind: Kind) -> str:
        """The indices of a kind."""
        return f"{self.base}.{kind}.*"

    def single(self, kind: Single) -> str:
        """The one index of a kind that is not dated."""
        return f"{self.base}.{kind}.all"

    def dated(self, kind: Dated, timestamp: int, days: int) -> str:
        """The index of a moment (ms since the epoch) where each index holds ``days`` days."""
        first = timestamp // DAY_MS // days * days
        # Beyond the calendar's years everything lies in one index: such a time is a mistake, and kept all the same.
        first = min(max(first, date.min.toordinal() - _EPOCH), date.max.toordinal() - _EPOCH)
        begin = date.fromordinal(_EPOCH + first)
        return f"{self.base}.{kind}.{begin.isoformat().replace('-', '.')}{'' if days == 1 else f'-{days}d'}"


_EPOCH = date(1970, 1, 1).toordinal()


def stream_of(index: str) -> str:
    """The stream that an index belongs to."""
    return index.split(".", 3)[2]


def end_of(index: str) -> int | None:
    """The end of a dated index's data in ms since the epoch, exclusive; None for a name that is not dated."""
    part = index.split(".", 4)[4]
    day, _, days = part.partition("-")
    try:
        begin = datetime.strptime(day, "%Y.%m.%d").replace(tzinfo=UTC)
        length = int(days.removesuffix("d")) if days else 1
        return int((begin + timedelta(days=length)).timestamp()) * 1000
    except (ValueError, OverflowError):
        return None
