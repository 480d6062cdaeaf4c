"""Events: what a person or another system hears of, one struct each, with deterministic ids.

An id is a hash of what makes the event itself (stream, detector, series, onset …), never of when or
where it was computed. A replay after a crash therefore says the same things under the same ids, and
whoever writes them down writes them once.
"""

from __future__ import annotations

import enum
import hashlib
from typing import Literal

import msgspec

from tidewarden.frames import SeriesKey


class AnomalyKind(enum.IntEnum):
    """Kinds of anomaly; the number is what frames carry as label and kind."""

    NONE = 0
    UNSPECIFIED = 1
    SPIKE = 2
    DIP = 3
    LEVEL_SHIFT = 4
    DRIFT = 5
    MISSING = 6
    FLAT_LINE = 7
    SEASONAL_CHANGE = 8
    TREND_CHANGE = 9
    NOISE = 10

    @property
    def label(self) -> str:
        """The name as users write and read it, e.g. ``level_shift``."""
        return self.name.lower()

    @classmethod
    def parse(cls, name: str) -> AnomalyKind:
        """The kind called ``name``; ValueError lists the names there are."""
        try:
            return cls[name.upper().replace("-", "_")]
        except KeyError:
            names = ", ".join(kind.label for kind in cls)
            raise ValueError(f"no anomaly kind is called {name!r}; there are: {names}") from None


Severity = Literal["info", "warning", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "critical")


def severity_of(score: float) -> Severity:
    """Severity of an anomaly score: warning from 0.6 (1 in 4,000), critical from 0.9 (1 in 250,000)."""
    if score >= 0.9:
        return "critical"
    return "warning" if score >= 0.6 else "info"


def stable_id(*parts: str | int) -> str:
    """A 16-character hex id that depends on ``parts`` alone (BLAKE2b, 64 bits)."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class Anomaly(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=False):
    """A run of readings of one series whose score passed the threshold.

    It is published when it opens, may be published again while it grows, and a last time when it
    closes; ``revision`` counts up, the id stays.
    """

    id: str
    revision: int
    state: Literal["open", "closed"]
    stream: str
    detector: str
    model_version: str
    tenant: str
    cluster: str
    node: str
    metric: str
    onset: int  # ms since the epoch: first reading of the run
    end: int  # ms since the epoch: last reading of the run so far
    peak_at: int  # ms since the epoch
    peak_score: float
    p_value: float  # at the peak
    value: float | None  # at the peak; null where the anomaly is that readings are missing
    expected: float | None
    lower: float | None
    upper: float | None
    readings: int  # in the run so far
    kind: str  # label of an AnomalyKind
    direction: Literal["up", "down", "none"]
    severity: Severity
    node_share: float  # share of the node's score that this series drove at the peak, 0 to 1
    explanation: str
    updated_at: int = 0  # ms since the epoch: the reading that made this revision; 0: the same as end
    suppressed: bool = False  # kept and shown, but nobody is alerted: feedback called such anomalies wrong

    @property
    def series(self) -> SeriesKey:
        """The series it belongs to."""
        return SeriesKey(self.tenant, self.cluster, self.node, self.metric)


class AnomalyBatch(msgspec.Struct, kw_only=True, frozen=True):
    """What a detector publishes: anomalies in order, and how far time has come for each tenant."""

    detector: str
    anomalies: list[Anomaly]
    watermarks: dict[str, int]  # tenant → newest reading scored, ms since the epoch


Verdict = Literal["right", "wrong", "revoke"]
VERDICTS: tuple[Verdict, ...] = ("right", "wrong", "revoke")


class Feedback(msgspec.Struct, kw_only=True, frozen=True):
    """What a person says of one anomaly: that it was right, that it was wrong, or that nothing was said after all.

    It says what it must know of the anomaly, so that a detector needs no store to make something of it. The newest
    word on an anomaly counts; ``revoke`` leaves things as if none had ever been said.
    """

    id: str
    anomaly_id: str
    stream: str
    detector: str
    tenant: str
    cluster: str
    node: str
    metric: str
    kind: str  # label of the anomaly's AnomalyKind when this was said
    from_ms: int  # ms since the epoch: the anomaly's onset
    until_ms: int  # ms since the epoch: its end so far
    p_value: float  # at its peak
    verdict: Verdict
    by: str
    at_ms: int  # ms since the epoch, of the wall clock: when it was said
    note: str = ""

    @property
    def series(self) -> SeriesKey:
        """The series that the anomaly belongs to."""
        return SeriesKey(self.tenant, self.cluster, self.node, self.metric)


class Alert(msgspec.Struct, kw_only=True, frozen=True):
    """What a person gets: anomalies grouped and deduplicated, with a life of its own."""

    id: str  # of the policy, the group and when this alert became pending
    revision: int
    state: Literal["pending", "firing", "resolved"]
    stream: str
    policy: str
    group: dict[str, str]  # the groupBy fields and their values
    tenant: str
    severity: Severity
    title: str  # one line a person understands
    summary: str  # the explanations of the leading anomalies
    started_at: int  # ms since the epoch: onset of the first anomaly
    fired_at: int | None
    resolved_at: int | None
    updated_at: int  # event time of the latest change
    anomaly_ids: list[str]  # newest last; at most 100 are kept, anomaly_count has them all
    anomaly_count: int
    peak_score: float
    kinds: list[str]
    series: list[str]  # paths of the series involved, at most 20, worst first
    flapping: bool = False
    suppressed_by: str | None = None  # maintenance window or budget that kept it from being sent


class Rejection(msgspec.Struct, kw_only=True, frozen=True):
    """A reading that was refused, kept with its reason and its raw form."""

    id: str
    stream: str
    source: str
    reason: str  # stable snake_case, e.g. out_of_order, unknown_tenant, malformed
    detail: str  # a sentence that names the field, the value and the remedy
    origin: str  # where it came from: file and line, peer address, simulation position
    received_at: int  # ms since the epoch
    tenant: str | None = None
    cluster: str | None = None
    node: str | None = None
    metric: str | None = None
    timestamp: int | None = None
    value: float | None = None
    raw: str | None = None  # as it came, undecodable bytes as \\xNN escapes
