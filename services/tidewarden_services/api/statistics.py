"""How the process is doing: one document for the page, the terminal and probes."""

from __future__ import annotations

import importlib.metadata
import threading
from collections import Counter as Counts
from collections import deque
from collections.abc import Iterable
from typing import Any

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.samples import Sample

from tidewarden.telemetry import RateMeter
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
        self._latencies: deque[dict[float, float]] = deque(maxlen=LATENCY_WINDOW)
        self._lock = threading.Lock()

    def tick(self) -> None:
        """Note the running totals; the rates that `read` reports lie between ticks."""
        telemetry = self._context.telemetry
        total = _total(telemetry.readings)
        buckets = _buckets(telemetry.score_latency)
        with self._lock:
            self._rate = self._meter.mark(total, self._context.clock.monotonic())
            self._latencies.append(buckets)

    def read(self) -> dict[str, Any]:
        """The document of ``GET /api/statistics``."""
        context, telemetry = self._context, self._context.telemetry
        board = context.board.read()
        anomalies, alerts = context.store.states("anomalies"), context.store.states("alerts")
        with self._lock:
            rate, oldest = self._rate, (self._latencies[0] if len(self._latencies) == LATENCY_WINDOW else {})
        now = _buckets(telemetry.score_latency)
        window = {le: count - oldest.get(le, 0.0) for le, count in now.items()}
        sources = [self._source(name, facts) for name, facts in sorted(board.get("sources", {}).items())]
        rejected = _larger(
            _by_label(telemetry.rejected, "reason"), _added(source["rejected_by_reason"] for source in sources)
        )
        return {
            "at": context.clock.now_ms(),
            "uptime_s": round(context.clock.monotonic() - context.started, 3),
            # Sources remember their counts over a restart, counters do not, but those are never behind.
            "readings": max(int(_total(telemetry.readings)), sum(source["accepted"] for source in sources)),
            "readings_per_second": round(rate, 1),
            "rejected": sum(rejected.values()),
            "rejected_by_reason": rejected,
            "late": max(int(_total(telemetry.late)), sum(source["late"] for source in sources)),
            "scored": int(_total(telemetry.scored)),
            "anomalies": sum(anomalies.values()),
            "anomalies_open": anomalies.get("open", 0),
            "alerts": sum(alerts.values()),
            "alerts_firing": alerts.get("firing", 0),
            "lag_records": int(_total(telemetry.lag)),
            "latency_ms": {"p50": _quantile_ms(window, 0.5), "p99": _quantile_ms(window, 0.99)},
            "sources": sources,
            "detectors": [_named(name, _DETECTOR, facts) for name, facts in sorted(board.get("detectors", {}).items())],
            "simulations": [
                _named(name, _SIMULATION, facts) for name, facts in sorted(board.get("simulations", {}).items())
            ],
            "policies": [_named(name, {}, facts) for name, facts in sorted(board.get("policies", {}).items())],
            "services": self._services(board.get("services", {})),
            "store": context.store.counts(),
        }

    def _source(self, name: str, facts: dict[str, Any]) -> dict[str, Any]:
        said = _named(facts.get("source", name), _SOURCE, facts)
        if "lag_seconds" in said:
            said["lag_s"] = said.pop("lag_seconds")
        if said["rejected_by_reason"] is None:
            said["rejected_by_reason"] = _by_label(
                self._context.telemetry.rejected, "reason", stream=said["stream"], source=said["name"]
            )
        return said

    def _services(self, said: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
        """What the runtimes count of each service, and what it says of itself."""
        lag = _by_label(self._context.telemetry.lag, "service")
        handled = _by_label(self._context.telemetry.handled, "service")
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


def _samples(metric: Counter | Gauge | Histogram, suffix: str) -> Iterable[Sample]:
    return (sample for family in metric.collect() for sample in family.samples if sample.name.endswith(suffix))


def _total(metric: Counter | Gauge) -> float:
    return sum(sample.value for sample in _samples(metric, "_total" if isinstance(metric, Counter) else ""))


def _by_label(metric: Counter | Gauge, label: str, **only: str | None) -> dict[str, int]:
    totals: dict[str, int] = {}
    for sample in _samples(metric, "_total" if isinstance(metric, Counter) else ""):
        if all(sample.labels.get(name) == value for name, value in only.items()):
            totals[sample.labels[label]] = totals.get(sample.labels[label], 0) + int(sample.value)
    return totals


def _added(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: Counts[str] = Counts()
    for each in counts:
        total.update(each)
    return dict(total)


def _larger(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {reason: max(one.get(reason, 0), other.get(reason, 0)) for reason in sorted({*one, *other})}


def _buckets(histogram: Histogram) -> dict[float, float]:
    """Cumulative counts by upper bound in seconds, all label sets together."""
    totals: dict[float, float] = {}
    for sample in _samples(histogram, "_bucket"):
        bound = float(sample.labels["le"])
        totals[bound] = totals.get(bound, 0.0) + sample.value
    return totals


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
