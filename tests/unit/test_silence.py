"""Nodes that fall silent altogether: noticed by their tenant's time, told once, over when they are back."""

from __future__ import annotations

import numpy as np
import pytest

from tidewarden.bus.port import Record
from tidewarden.clock import ManualClock
from tidewarden.events import Anomaly, AnomalyBatch
from tidewarden.frames import ABSENT, MISSING, Frame, ScoreFrame, SeriesKey, SeriesTable
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.telemetry import Telemetry
from tidewarden_services.detect.service import DetectService

MINUTE = 60_000
START = 1_767_571_200_000
STREAM = MetricStream.model_validate({"metadata": {"name": "s"}, "spec": {"tenants": ["t"], "interval": "1m"}})
DETECTOR = AnomalyDetector.model_validate(
    {"metadata": {"name": "d"}, "spec": {"stream": "s", "model": {"kind": "ewma"}}}
)


class Played:
    """A detect service and everything it has said of what was played to it."""

    def __init__(self) -> None:
        self.table = SeriesTable()
        self.service = DetectService(DETECTOR, STREAM, self.table, Telemetry(), ManualClock())
        self.scores: list[ScoreFrame] = []
        self.anomalies: list[Anomaly] = []
        self.offset = 0

    def play(self, node: str, first: int, last: int) -> None:
        """Readings of a node at minutes first … last - 1, one frame."""
        series = self.table.id_of(SeriesKey("t", "c", node, "m"))
        minutes = np.arange(first, last)
        value = 100 + np.random.default_rng(minutes[0]).normal(0, 1, len(minutes))
        self.feed(Frame(self.table, np.full(len(minutes), series, np.int32), START + minutes * MINUTE, value))

    def feed(self, frame: Frame) -> None:
        for output in self.service.handle(Record("x.s.readings", 0, self.offset, "k", frame)):
            if isinstance(output.value, ScoreFrame):
                self.scores.append(output.value)
            if isinstance(output.value, AnomalyBatch):
                self.anomalies += output.value.anomalies
        self.offset += 1

    def absences(self, node: str) -> list[tuple[int, float]]:
        """Minute and score of the absent readings of a node."""
        found = []
        for frame in self.scores:
            for i in np.flatnonzero((frame.flags & ABSENT) != 0):
                if self.table[int(frame.series[i])].node == node:
                    assert frame.flags[i] & MISSING
                    found.append((int(frame.timestamp[i] - START) // MINUTE, float(frame.anomaly_score[i])))
        return found


def together(played: Played, minutes: range, *nodes: str) -> None:
    for minute in minutes:
        for node in nodes:
            played.play(node, minute, minute + 1)


def test_a_node_that_falls_silent_is_told_of_once_and_is_over_when_it_is_back() -> None:
    """While others of its tenant go on, its absence becomes one open anomaly; its return closes that."""
    played = Played()
    together(played, range(200), "n1", "n2")
    together(played, range(200, 230), "n1")
    told = [a for a in played.anomalies if a.node == "n2"]
    assert {a.id for a in told} == {told[0].id}
    assert (told[-1].kind, told[-1].state) == ("missing", "open")
    assert "no readings" in told[-1].explanation
    assert len(played.absences("n2")) == STREAM.spec.max_gap
    together(played, range(230, 260), "n1", "n2")
    told = [a for a in played.anomalies if a.node == "n2"]
    assert told[-1].state == "closed"
    assert len({a.id for a in told}) == 1
    assert not [a for a in played.anomalies if a.node == "n1"]


def test_absences_are_the_same_noticed_early_or_late() -> None:
    """Whether the silence is noticed while it lasts or when the node resumes, the same readings are absent."""
    early, late = Played(), Played()
    for played in (early, late):
        together(played, range(200), "n1", "n2")
    together(early, range(200, 240), "n1")
    assert early.absences("n2")
    together(early, range(240, 242), "n2")
    late.play("n2", 240, 241)
    together(late, range(200, 240), "n1")
    late.play("n2", 241, 242)
    assert early.absences("n2") == late.absences("n2")


def test_one_node_after_the_other_is_no_silence() -> None:
    """A file ordered by node, or a backfill of the past, is not a fleet of silent nodes."""
    played = Played()
    for node in ("n1", "n2", "n3"):
        for minute in range(0, 200, 10):
            played.play(node, minute, minute + 10)
    assert [played.absences(node) for node in ("n1", "n2", "n3")] == [[], [], []]


@pytest.mark.parametrize("cut", [203, 206, 209, 212])
def test_silence_survives_a_restart(cut: int) -> None:
    """A snapshot taken in the middle of a silence goes on to the same absences and anomalies."""
    whole, before = Played(), Played()
    for played, last in ((whole, 230), (before, cut)):
        together(played, range(200), "n1", "n2")
        together(played, range(200, last), "n1")
    after = Played()
    after.service.restore(before.service.snapshot())
    together(after, range(cut, 230), "n1")
    assert before.absences("n2") + after.absences("n2") == whole.absences("n2")
    assert before.anomalies + after.anomalies == whole.anomalies
