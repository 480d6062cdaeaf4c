"""How the process is doing: one document for the page, the terminal and probes."""

from __future__ import annotations

import importlib.metadata
import threading
from collections import Counter as Counts
from collections import deque
from collections.abc import Iterable
from typing import Any

from tidewarden.status import Figures
from tidewarden.telemetry import RateMeter, rejections
from tidewarden_services.api.context import ApiContext

VERSION = importlib.metadata.version("tidewarden")
BAD_STATES = frozenset({"failed", "error", "dead"})
LATENCY_WINDOW = 60  # samples, one a second: percentiles are of the last minute


class Statistics:
    """Computes the statistics document; `tick` once a second keeps its rates."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._meter = RateMeter()
        self._rate = 0.0
        self._latencies: deque[dict[str, float]] = deque(maxlen=LATENCY_WINDOW)
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Note the running totals; the rates that `read` reports lie between ticks."""
        figures = self._context.figures()
        with self._lock:
            self._rate = self._meter.mark(figures.readings, self._context.clock.monotonic())
            self._latencies.append(figures.latency)

    def read(self) -> dict[str, Any]:
        """The document of ``GET /api/statistics``."""
        context, figures = self._context, self._context.figures()
        board = context.board.read()
        anomalies, alerts = context.store.states("anomalies"), context.store.states("alerts")
        with self._lock:
            rate, oldest = self._rate, (self._latencies[0] if len(self._latencies) == LATENCY_WINDOW else {})
        # A pod that has gone takes its counts along: never less than nothing.
        window = {float(le): max(0.0, count - oldest.get(le, 0.0)) for le, count in figures.latency.items()}
        sources = [self._source(name, facts) for name, facts in sorted(board.get("sources", {}).items())]
        rejected = _larger(figures.rejected_by_reason, _added(source["rejected_by_reason"] for source in sources))
        return {
            "at": context.clock.now_ms(),
            "uptime_s": round(context.clock.monotonic() - context.started, 3),
            # Sources remember their counts over a restart, counters do not, but those are never behind.
            "readings": max(figures.readings, sum(source["accepted"] for source in sources)),
            "readings_per_second": round(rate, 1),
            "rejected": sum(rejected.values()),
            "rejected_by_reason": rejected,
            "late": max(figures.late, sum(source["late"] for source in sources)),
            "scored": figures.scored,
            "anomalies": sum(anomalies.values()),
            "anomalies_open": anomalies.get("open", 0),
            "alerts": sum(alerts.values()),
            "alerts_firing": alerts.get("firing", 0),
            "lag_records": sum(figures.lag.values()),
            "latency_ms": {"p50": _quantile_ms(window, 0.5), "p99": _quantile_ms(window, 0.99)},
            "sources": sources,
            "detectors": [_named(name, _DETECTOR, facts) for name, facts in sorted(board.get("detectors", {}).items())],
            "simulations": [
                _named(name, _SIMULATION, facts) for name, facts in sorted(board.get("simulations", {}).items())
            ],
            "policies": [_named(name, {}, facts) for name, facts in sorted(board.get("policies", {}).items())],
            "services": self._services(board.get("services", {}), figures),
            "store": context.store.counts(),
        }

    def _source(self, name: str, facts: dict[str, Any]) -> dict[str, Any]:
        said = _named(facts.get("source", name), _SOURCE, facts)
        if "lag_seconds" in said:
            said["lag_s"] = said.pop("lag_seconds")
        if said["rejected_by_reason"] is None:
            said["rejected_by_reason"] = rejections(self._context.telemetry, stream=said["stream"], source=said["name"])
        return said

    @staticmethod
    def _services(said: dict[str, dict[str, Any]], figures: Figures) -> list[dict[str, Any]]:
        """What the runtimes count of each service, and what it says of itself."""
        lag, handled = figures.lag, figures.handled
        names = sorted({*lag, *handled, *said})
        return [
            _named(
                name,
                {"state": "running", "lag_records": lag.get(name, 0), "handled": handled.get(name, 0)},
                said.get(name, {}),
            )
            for name in names
        ]

    def health(self) -> dict[str, Any]:
        """The document of ``GET /api/health``."""
        board = self._context.board.read()
        checks = {"store": self._store_check()}
        for section in ("services", "sources", "detectors", "simulations"):
            for name, facts in sorted(board.get(section, {}).items()):
                bad = facts.get("state") in BAD_STATES
                detail = str(facts.get("message") or facts.get("error") or facts.get("state") or "")
                checks[f"{section}.{name}"] = {"status": "degraded" if bad else "ok", "detail": detail}
        healthy = all(check["status"] == "ok" for check in checks.values())
        return {
            "status": "ok" if healthy else "degraded",
            "version": VERSION,
            "uptime_s": round(self._context.clock.monotonic() - self._context.started, 3),
            "checks": checks,
        }

    def _store_check(self) -> dict[str, str]:
        try:
            rows = sum(self._context.store.counts().values())
        except Exception as error:
            return {"status": "degraded", "detail": f"the store does not answer: {type(error).__name__}"}
        return {"status": "ok", "detail": f"{rows} rows"}


_SOURCE: dict[str, Any] = {
    "stream": None, "kind": None, "state": None, "accepted": 0, "rejected": 0, "success_rate": None, "late": 0,
    "lag_s": None, "rejected_by_reason": None,
}  # fmt: skip
_DETECTOR: dict[str, Any] = {
    "stream": None, "model": None, "series": 0, "ready": 0, "learning": 0, "warmup": None, "message": "",
    "state_bytes": 0, "threshold": None,
}  # fmt: skip
_SIMULATION: dict[str, Any] = {"stream": None, "played": 0, "total": None, "evaluation": []}


def _named(name: str, defaults: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """What the board says, with every documented key present; facts may carry a nicer name."""
    return {"name": name, **defaults, **facts}


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counts[str] = Counts()
    for each in counts:
        total.update(each)
    return dict(total)


def _larger(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {reason: max(one.get(reason, 0), other.get(reason, 0)) for reason in sorted({*one, *other})}


def _quantile_ms(buckets: dict[float, float], q: float) -> float | None:
    """As Prometheus' histogram_quantile: linear within a bucket; the last finite bound beyond it."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = q * buckets[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank:
            if bound == float("inf"):
                return round(low * 1000, 3)
            share = (rank - below) / (count - below) if count > below else 1.0
            return round((low + (bound - low) * share) * 1000, 3)
        low, below = bound, count
    return round(low * 1000, 3)
