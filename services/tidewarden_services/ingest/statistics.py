"""What ingest says of each source: counts since its beginning, success rate, lag."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tidewarden.clock import Clock
from tidewarden.telemetry import Telemetry
from tidewarden_services.ingest.reasons import REASONS
from tidewarden_services.ingest.validate import Verdict

POST_EVERY_S = 0.25  # four times a second is as often as a person can look


class SourceStatistics:
    """Counts of one source; they survive a restart with the state of its ingest service."""

    def __init__(
        self, stream: str, source: str, kind: str, telemetry: Telemetry, clock: Clock, *, interval_ms: int
    ) -> None:
        self.accepted = 0
        self.late = 0
        self.gaps = 0
        self.rejected: Counter[str] = Counter()
        self.newest_ms: int | None = None
        self.state = "starting"
        self.message = ""
        self._stream = stream
        self._source = source
        self._kind = kind
        self._telemetry = telemetry
        self._clock = clock
        self._next_post = 0.0
        self._readings = telemetry.readings.labels(stream, source)
        self._late = telemetry.late.labels(stream, source)
        self._lag = telemetry.source_lag.labels(stream, source)
        telemetry.source_interval.labels(stream, source).set(interval_ms / 1000)
        for reason in REASONS:  # from 0, so that the first is an increase to those who watch
            telemetry.rejected.labels(stream, source, reason)

    def note(self, verdict: Verdict, reasons: Counter[str], *, again: bool = False) -> None:
        """Count one batch; ``again`` where an earlier process had already published all of it."""
        accepted = len(verdict.accepted)
        self.accepted += accepted
        self.late += verdict.late
        self.gaps += verdict.gaps
        self.rejected.update(reasons)
        self.saw(verdict.newest_ms)
        if accepted or reasons:
            self._delivers()
        if again:  # Prometheus adds the counters of both processes, so a reading may appear in one only
            return
        self._readings.inc(accepted)
        self._late.inc(verdict.late)
        for reason, count in reasons.items():
            self._telemetry.rejected.labels(self._stream, self._source, reason).inc(count)

    def _delivers(self) -> None:
        self._telemetry.delivered.labels(self._stream, self._source).set(self._clock.now_ms() / 1000)

    def saw(self, newest_ms: int | None) -> None:
        """Remember the newest timestamp delivered, ms since the epoch."""
        if newest_ms is not None and (self.newest_ms is None or newest_ms > self.newest_ms):
            self.newest_ms = newest_ms

    def facts(self) -> dict[str, Any]:
        """Everything, ready for JSON; ``lag_seconds`` is now minus the newest accepted timestamp."""
        rejected = self.rejected.total()
        total = self.accepted + rejected
        lag = None if self.newest_ms is None else (self._clock.now_ms() - self.newest_ms) / 1000
        return {
            "stream": self._stream,
            "source": self._source,
            "kind": self._kind,
            "state": self.state,
            "message": self.message,
            "accepted": self.accepted,
            "rejected": rejected,
            "rejected_by_reason": dict(self.rejected),
            "late": self.late,
            "gaps": self.gaps,
            "success_rate": self.accepted / total if total else 1.0,
            "newest_ms": self.newest_ms,
            "lag_seconds": lag,
        }

    def post(self, *, force: bool = False) -> None:
        """Put the facts on the status board, at most every `POST_EVERY_S` seconds unless ``force`` is set."""
        now = self._clock.monotonic()
        if not force and now < self._next_post:
            return
        self._next_post = now + POST_EVERY_S
        facts = self.facts()
        if facts["lag_seconds"] is not None:
            self._lag.set(facts["lag_seconds"])
        if self.state in ("finished", "stopped"):  # silent because it is over
            self._telemetry.delivered.remove(self._stream, self._source)
        self._telemetry.board.post("sources", f"{self._stream}/{self._source}", **facts)

    def save(self) -> dict[str, Any]:
        """The counts, for the state of the service."""
        return {
            "accepted": self.accepted,
            "late": self.late,
            "gaps": self.gaps,
            "rejected": dict(self.rejected),
            "newest_ms": self.newest_ms,
        }

    def load(self, counts: dict[str, Any]) -> None:
        """Go on from saved counts."""
        self.accepted = counts["accepted"]
        self.late = counts["late"]
        self.gaps = counts["gaps"]
        self.rejected = Counter(counts["rejected"])
        self.newest_ms = counts["newest_ms"]
        if self.newest_ms is not None:  # it delivered to an earlier process: its silence counts from now
            self._delivers()
