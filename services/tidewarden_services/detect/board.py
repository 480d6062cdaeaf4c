"""What the instances of a detector in this process say together on the status board."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import reduce
from operator import add
from typing import Any

from tidewarden.clock import Clock
from tidewarden.drift.monitor import Finding, Findings
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.scoring.candidates import Contest
from tidewarden.scoring.scorer import Learning, Scorer
from tidewarden.telemetry import HourlyCount, Telemetry
from tidewarden_services.detect.candidates import post_candidate

_POST_EVERY_S = 0.25  # people read the board; more often costs more than it says
_DRIFT_EVERY_S = 5.0  # drift is a matter of hours, and to look through 100,000 series takes milliseconds


class DetectorBoard:
    """Sums of a detector's instances, at most a few times a second."""

    def __init__(self, detector: AnomalyDetector, stream: MetricStream, telemetry: Telemetry, clock: Clock) -> None:
        self._detector = detector
        self._stream = stream.metadata.name
        self._telemetry = telemetry
        self._clock = clock
        self._lock = threading.Lock()
        self._scorers: dict[int, Scorer | Contest] = {}
        self._opened = HourlyCount()
        self._posted_at: float | None = None
        self._findings: dict[int, Findings] = {}
        self._looked_at: dict[int, float] = {}

    def show(self, number: int, scorer: Scorer | Contest) -> None:
        """From now on count this instance's."""
        with self._lock:
            self._scorers[number] = scorer
        self.post(force=True)

    def hide(self, number: int) -> None:
        """The instance is another process's now."""
        with self._lock:
            self._scorers.pop(number, None)
            self._findings.pop(number, None)
            self._looked_at.pop(number, None)
        self.post(force=True)

    def look(self, number: int, watermarks: Mapping[str, int]) -> None:
        """See now and then what has drifted in this instance, on its own thread; by the tenants' times in ms."""
        now = self._clock.monotonic()
        with self._lock:
            scorer = self._scorers.get(number)
            if scorer is None or now - self._looked_at.get(number, -_DRIFT_EVERY_S) < _DRIFT_EVERY_S:
                return
            self._looked_at[number] = now
        findings = scorer.drift(watermarks)
        with self._lock:
            self._findings[number] = findings

    def opened(self, anomalies: int) -> None:
        """So many anomalies were opened now.

        By the clock, not by event time: whoever asks wants to know what was found in the last hour, and a replay of
        last year is found now, too. It is kept in memory only, because what lies in a snapshot is a function of the
        input.
        """
        with self._lock:
            self._opened.add(anomalies, self._clock.monotonic())

    def last_hour(self) -> int:
        """How many were opened in the last hour."""
        with self._lock:
            return self._opened.total(self._clock.monotonic())

    def post(self, *, force: bool = False) -> None:
        """Tell how far the models are."""
        now = self._clock.monotonic()
        if not force and self._posted_at is not None and now - self._posted_at < _POST_EVERY_S:
            return
        self._posted_at = now
        with self._lock:
            scorers = list(self._scorers.values())
            last_hour = self._opened.total(now)
            findings = list(self._findings.values())
        name, spec = self._detector.metadata.name, self._detector.spec
        learning = reduce(add, (scorer.learning() for scorer in scorers)) if scorers else Learning(0, 0, 0)
        state_bytes = sum(scorer.state_bytes for scorer in scorers)
        origins = sorted({scorer.origin["version"] for scorer in scorers if scorer.origin is not None})
        self._telemetry.model_series.labels(self._stream, name, "learning").set(learning.n_learning)
        self._telemetry.model_series.labels(self._stream, name, "ready").set(learning.n_ready)
        self._telemetry.model_bytes.labels(self._stream, name).set(state_bytes)
        contests = [scorer for scorer in scorers if isinstance(scorer, Contest)]
        post_candidate(self._telemetry, self._stream, name, contests)
        self._measure(findings)
        self._telemetry.board.post(
            "detectors",
            name,
            stream=self._stream,
            model=spec.model.kind,
            began_with=origins,
            series=sum(scorer.n_series for scorer in scorers),
            learning=learning.n_learning,
            ready=learning.n_ready,
            warmup=learning.warmup,
            message=learning.message,
            anomalies_last_hour=last_hour,
            state_bytes=state_bytes,
            threshold=spec.alerting.threshold,
            budget_per_day=spec.alerting.budget,
            **_told("data", [found.data for found in findings]),
            **_told("model", [found.model for found in findings]),
            **_told("source", [found.source for found in findings]),
        )

    def _measure(self, findings: list[Findings]) -> None:
        """Drift as metrics."""
        labels = (self._stream, self._detector.metadata.name)
        for sign in dict.fromkeys(sign for found in findings for sign in found.series):
            count = sum(found.series.get(sign, 0) for found in findings)
            self._telemetry.drift_series.labels(*labels, sign).set(count)
        if findings:
            self._telemetry.calibration.labels(*labels).set(max(found.calibration for found in findings))
            self._telemetry.alarm_ratio.labels(*labels).set(max(found.alarms for found in findings))


def _told(what: str, findings: list[Finding]) -> dict[str, Any]:
    """The three facts of one kind of drift."""
    return {
        f"{what}_judged": sum(found.judged for found in findings),
        f"{what}_drift": sum(found.drifting for found in findings),
        f"{what}_drift_message": next((found.message for found in findings if found.message), ""),
    }
