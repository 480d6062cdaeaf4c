"""What two models said of the same readings, counted side by side. Nothing is decided here.

Alarms of the two in one series are the same event where one opened before the other closed, which an anomaly does
only after its calm readings. Series count from the first reading on that both were ready to score.
"""

from __future__ import annotations

import math

import msgspec

from tidewarden.events import Anomaly

CHAMPION, CANDIDATE = 0, 1
SIDES = (CHAMPION, CANDIDATE)
# Closed alarms that a mark can still be compared with, and marks that can still be revoked. An entry takes about 200
# bytes: 2 MB at most. A detector within a budget of 10 alarms a day fills it in more than a year.
REMEMBERED = 4_096


class Alarm(msgspec.Struct):
    """An anomaly of one side."""

    series: str
    onset: int  # ms since the epoch
    end: int  # ms since the epoch
    matched: bool = False
    critical: bool = False
    counted: bool = True


class Mark(msgspec.Struct):
    """What a person said of a stretch of a series, and whether the two had raised an alarm there."""

    right: bool
    said: tuple[bool, bool]


class Comparison(msgspec.Struct):
    """Counts since the comparison began; pairs are (champion, candidate)."""

    readings: int = 0
    alarms: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    matched: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    alone: list[int] = msgspec.field(default_factory=lambda: [0, 0])
    critical: list[int] = msgspec.field(default_factory=lambda: [0, 0])  # closed, of the champion: all, matched
    running: list[dict[str, Alarm]] = msgspec.field(default_factory=lambda: [{}, {}])  # by series, at most one each
    closed: list[list[Alarm]] = msgspec.field(default_factory=lambda: [[], []])
    marks: dict[str, Mark] = {}

    @property
    def agreement(self) -> float | None:
        """Share of the closed alarms of both that the other raised, too; None before the first."""
        closed = sum(self.matched) + sum(self.alone)
        return sum(self.matched) / closed if closed else None

    def found(self, side: int) -> int:
        """Marked right, and this side had raised an alarm."""
        return sum(mark.right and mark.said[side] for mark in self.marks.values())

    def false(self, side: int) -> int:
        """Marked wrong, and this side had raised an alarm."""
        return sum(not mark.right and mark.said[side] for mark in self.marks.values())

    def truths(self) -> tuple[int, int]:
        """Marks that speak for the candidate and against it: where the two differed."""
        differing = [mark for mark in self.marks.values() if mark.said[CHAMPION] != mark.said[CANDIDATE]]
        better = sum(mark.right == mark.said[CANDIDATE] for mark in differing)
        return better, len(differing) - better

    def take(self, side: int, anomaly: Anomaly, series: str, *, counted: bool) -> None:
        """One revision of an anomaly, in the order of the readings of its series."""
        running = self.running[side]
        alarm = running.get(series)
        if alarm is None:
            if anomaly.revision != 1:
                return  # it began before the comparison
            alarm = running[series] = Alarm(series, anomaly.onset, anomaly.end, counted=counted)
            self.alarms[side] += counted
            other = self.running[1 - side].get(series)
            if other is not None:
                alarm.matched = other.matched = True
        alarm.end, alarm.critical = anomaly.end, anomaly.severity == "critical"
        if anomaly.state == "closed":
            del running[series]
            self._settle(side, alarm)

    def _settle(self, side: int, alarm: Alarm) -> None:
        if not alarm.counted:
            return
        (self.matched if alarm.matched else self.alone)[side] += 1
        if side == CHAMPION and alarm.critical:
            self.critical[0] += 1
            self.critical[1] += alarm.matched
        self.closed[side] = [*self.closed[side][1 - REMEMBERED :], alarm]

    def mark(self, series: str, from_ms: int, until_ms: int, right: bool | None, tolerance_ms: int) -> None:
        """A person's word on a stretch of a series; None takes back what was said of it."""
        key = f"{from_ms}/{until_ms}/{series}"
        self.marks.pop(key, None)
        if right is None:
            return
        said = [
            any(
                a.series == series and a.onset <= until_ms + tolerance_ms and a.end >= from_ms - tolerance_ms
                for a in (*self.closed[side], *self.running[side].values())
            )
            for side in SIDES
        ]
        if len(self.marks) >= REMEMBERED:
            del self.marks[next(iter(self.marks))]
        self.marks[key] = Mark(right, (said[CHAMPION], said[CANDIDATE]))

    def as_well(self, enough: int = 10, share: float = 0.9) -> tuple[bool, str]:
        """Whether the candidate finds what must be found, and a sentence on what that was judged by.

        That is what people marked right; before ``enough`` marks the champion's critical anomalies, because a model
        that finds nothing has fewer alarms, too.
        """
        right, both = self.found(CHAMPION), sum(m.right and all(m.said) for m in self.marks.values())
        if right >= enough:
            return both >= math.ceil(share * right), f"finds {both} of {right} marked right"
        total, matched = self.critical
        return matched >= math.ceil(share * total), f"finds {matched} of {total} critical ones"
