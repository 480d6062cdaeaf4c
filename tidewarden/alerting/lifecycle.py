"""The life of one alert: pending → firing → resolved, in event time.

All rules look at what anomalies say of themselves and at event time, never at the clock or at where one
batch ends and the next begins.

- An anomaly is *open* until its closing revision. An alert has been quiet since the latest ``end`` among
  its anomalies once none of them is open, and it resolves when it has been quiet for the calm time;
  ``resolved_at`` is that instant, whenever the news of it arrived.
- An alert fires when one of its anomalies has lasted for ``wait``. One that ends earlier never fires.
- An anomaly that turns out to have begun before its group's alert resolved reopens that alert.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from tidewarden.alerting.grouping import GroupKey, rank, title
from tidewarden.events import Alert, Anomaly, Severity, stable_id
from tidewarden.frames import SeriesKey

MAX_OPEN = 1_000  # open anomalies that an alert waits for; beyond that, the oldest are no longer waited for
MAX_ENDED = 100  # ended anomalies remembered, so that a revision which comes twice changes nothing
MAX_IDS = 100  # anomaly ids that an alert names
MAX_SERIES = 20  # series that an alert names
MAX_SERIES_KEPT = 100  # series remembered, so that the worst twenty of them can be named
LEADING = 3  # explanations in the summary
NEVER = 2**62


class Member(msgspec.Struct):
    """One anomaly of an alert."""

    revision: int
    open: bool
    ready_at: int  # when it has lasted for ``wait``


class SeriesPart(msgspec.Struct):
    """What one series contributes."""

    score: float
    kind: str
    explanation: str


class Life(msgspec.Struct):
    """The state of one alert."""

    id: str
    key: GroupKey
    started_at: int
    calm_ms: int
    flapping: bool
    revision: int = 0
    fired_at: int | None = None
    resolved_at: int | None = None
    updated_at: int = 0
    last_end: int = 0
    severity: Severity = "info"
    suppressed_by: str | None = None
    suppressed_until: int = NEVER
    members: dict[str, Member] = msgspec.field(default_factory=dict)
    open_count: int = 0
    anomaly_count: int = 0
    announced_count: int = 0  # anomaly_count that the last revision spoke of
    ids: list[str] = msgspec.field(default_factory=list)
    parts: dict[str, SeriesPart] = msgspec.field(default_factory=dict)
    kinds: list[str] = msgspec.field(default_factory=list)
    detectors: list[str] = msgspec.field(default_factory=list)

    @property
    def state(self) -> Literal["pending", "firing", "resolved"]:
        """Where it stands."""
        if self.resolved_at is not None:
            return "resolved"
        return "pending" if self.fired_at is None else "firing"

    @property
    def resolves_at(self) -> int:
        """When it will have been calm for long enough; NEVER while an anomaly is open."""
        return NEVER if self.open_count or self.resolved_at is not None else self.last_end + self.calm_ms

    @property
    def fires_at(self) -> int:
        """When the first of its open anomalies will have lasted for ``wait``; NEVER once it fired."""
        if self.fired_at is not None or self.resolved_at is not None:
            return NEVER
        return min((member.ready_at for member in self.members.values() if member.open), default=NEVER)

    @property
    def lifts_at(self) -> int:
        """When its maintenance window ends; NEVER where there is none."""
        return NEVER if self.resolved_at is not None or self.fired_at is None else self.suppressed_until

    def knows(self, anomaly: Anomaly) -> bool:
        """Whether this revision, or a newer one, is already part of it."""
        member = self.members.get(anomaly.id)
        return member is not None and member.revision >= anomaly.revision

    def series(self) -> list[SeriesKey]:
        """The series involved, worst first."""
        worst = sorted(self.parts, key=lambda path: (-self.parts[path].score, path))
        return [SeriesKey(*path.split("\x1f")) for path in worst]

    def join(self, anomaly: Anomaly, at: int, wait_ms: int) -> int | None:
        """Take in a revision known at ``at``; returns when a closed anomaly had lasted for ``wait``, if it had."""
        member = self.members.get(anomaly.id)
        if member is None:
            member = Member(anomaly.revision, False, max(anomaly.onset + wait_ms, at))
            self.members[anomaly.id] = member
            self.anomaly_count += 1
            self.ids = [*self.ids, anomaly.id][-MAX_IDS:]
        self.open_count += (anomaly.state == "open") - member.open
        member.open = anomaly.state == "open"
        member.revision = anomaly.revision
        self.last_end = max(self.last_end, anomaly.end)
        self.updated_at = max(self.updated_at, at)
        self._note(anomaly)
        self._bound()
        lasted = anomaly.state == "closed" and anomaly.end >= anomaly.onset + wait_ms
        return member.ready_at if lasted else None

    def _note(self, anomaly: Anomaly) -> None:
        path = "\x1f".join(anomaly.series)
        part = self.parts.get(path)
        if part is None or anomaly.peak_score >= part.score:
            self.parts[path] = SeriesPart(anomaly.peak_score, anomaly.kind, anomaly.explanation)
        if anomaly.kind not in self.kinds:
            self.kinds.append(anomaly.kind)
        if anomaly.detector not in self.detectors:
            self.detectors.append(anomaly.detector)
        if rank(anomaly.severity) > rank(self.severity):
            self.severity = anomaly.severity

    def _bound(self) -> None:
        if len(self.members) - self.open_count > MAX_ENDED:
            del self.members[next(name for name, member in self.members.items() if not member.open)]
        if self.open_count > MAX_OPEN:
            del self.members[next(name for name, member in self.members.items() if member.open)]
            self.open_count -= 1
        if len(self.parts) > MAX_SERIES_KEPT:
            del self.parts[min(self.parts, key=lambda path: (self.parts[path].score, path))]

    def publish(self, stream: str, policy: str, group_by: list[str]) -> Alert:
        """The next revision, as the world sees it."""
        self.revision += 1
        self.announced_count = self.anomaly_count
        series = self.series()
        ended_at = None if self.resolved_at is None else self.last_end
        leading = [self.parts["\x1f".join(key)] for key in series[:LEADING]]
        return Alert(
            id=self.id,
            revision=self.revision,
            state=self.state,
            stream=stream,
            policy=policy,
            group=dict(zip(group_by, self.key[1:], strict=True)),
            tenant=self.key[0],
            severity=self.severity,
            title=title(series, leading[0].kind, self.started_at, ended_at),
            summary="\n".join(dict.fromkeys(part.explanation for part in leading)),
            started_at=self.started_at,
            fired_at=self.fired_at,
            resolved_at=self.resolved_at,
            updated_at=self.updated_at,
            anomaly_ids=list(self.ids),
            anomaly_count=self.anomaly_count,
            peak_score=leading[0].score,
            kinds=list(self.kinds),
            series=[key.path for key in series[:MAX_SERIES]],
            flapping=self.flapping,
            suppressed_by=self.suppressed_by,
        )


def begin(stream: str, policy: str, key: GroupKey, first: Anomaly, calm_ms: int, *, flapping: bool) -> Life:
    """A new alert, named after what makes it: stream, policy, group, when it began and with which anomaly.

    The onset alone would not do: an anomaly found late can have the onset of an alert long forgotten.
    """
    alert_id = stable_id("alert", stream, policy, *key, first.onset, first.id)
    return Life(alert_id, key, first.onset, calm_ms, flapping, last_end=first.onset)
