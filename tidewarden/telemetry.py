"""What Tidewarden says of itself: metrics, a status board, logs.

One `Telemetry` is made at the entry point and passed to whoever has something to say; there are no
global registries. Every metric is declared here with its help text, and the reference page
(`docs/reference/metrics.md`) is generated from these declarations.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TextIO

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.samples import Sample

from tidewarden.status import Figures, RecentError

if TYPE_CHECKING:
    from tidewarden.evaluate.report import Evaluation

LogFormat = Literal["text", "json"]


class Telemetry:
    """Metrics in a registry of their own, and the status board that the API shows."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.board = StatusBoard()
        r = self.registry
        ProcessCollector(registry=r)  # memory, processor time, open files, start: process_* as everywhere
        self.build = Gauge(
            "tidewarden_build_info", "Always 1: what runs here, and in which version.", ["role", "version"], registry=r
        )
        self.readings = Counter("tidewarden_readings", "Readings accepted by ingest.", ["stream", "source"], registry=r)
        self.rejected = Counter(
            "tidewarden_rejected", "Readings refused by ingest, kept with their reason.",
            ["stream", "source", "reason"], registry=r,
        )  # fmt: skip
        self.late = Counter(
            "tidewarden_late_readings", "Readings older than the newest one of their series.",
            ["stream", "source"], registry=r,
        )  # fmt: skip
        self.source_lag = Gauge(
            "tidewarden_source_lag_seconds", "Now minus the newest timestamp that a source delivered.",
            ["stream", "source"], registry=r,
        )  # fmt: skip
        self.delivered = Gauge(
            "tidewarden_source_delivered_timestamp_seconds",
            "When, by the clock, a source last delivered; absent before its first delivery and after its end.",
            ["stream", "source"], registry=r,
        )  # fmt: skip
        self.source_interval = Gauge(
            "tidewarden_source_interval_seconds", "Expected spacing of the readings of a source's stream.",
            ["stream", "source"], registry=r,
        )  # fmt: skip
        self.scored = Counter("tidewarden_scored_readings", "Readings scored.", ["stream", "detector"], registry=r)
        self.anomalies = Counter(
            "tidewarden_anomalies", "Anomalies opened.", ["stream", "detector", "kind"], registry=r
        )
        self.score_latency = Histogram(
            "tidewarden_score_latency_seconds", "From a reading's arrival at ingest to its score on the bus.",
            ["stream", "detector"], registry=r,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )  # fmt: skip
        self.model_series = Gauge(
            "tidewarden_model_series", "Series a detector knows, by state (learning or ready).",
            ["stream", "detector", "state"], registry=r,
        )  # fmt: skip
        self.model_bytes = Gauge(
            "tidewarden_model_state_bytes",
            "Memory that a detector's state takes.",
            ["stream", "detector"],
            registry=r,
        )
        self.drift_series = Gauge(
            "tidewarden_drift_series",
            "Series that have drifted, by what of them: values, residuals (the data); vanished, appeared, slow, fast "
            "(the source).",
            ["stream", "detector", "sign"], registry=r,
        )  # fmt: skip
        self.calibration = Gauge(
            "tidewarden_drift_calibration_ratio",
            "Share of readings with p <= 0.01 in the last whole window, over 0.01; 1 is calibrated.",
            ["stream", "detector"], registry=r,
        )  # fmt: skip
        self.alarm_ratio = Gauge(
            "tidewarden_drift_alarm_ratio",
            "Anomalies opened in the last whole window, over what the budget or the threshold allows.",
            ["stream", "detector"], registry=r,
        )  # fmt: skip
        self.learned = Gauge(
            "tidewarden_learned_timestamp_seconds",
            "When, by the clock, a detector last learned from readings, or began.",
            ["stream", "detector"], registry=r,
        )  # fmt: skip
        self.candidate_alarms = Gauge(
            "tidewarden_candidate_alarms", "Alarms since champion and candidate are compared, by side.",
            ["stream", "detector", "side"], registry=r,
        )  # fmt: skip
        self.candidate_alone = Gauge(
            "tidewarden_candidate_alone_alarms", "Of these, closed ones that only this side raised.",
            ["stream", "detector", "side"], registry=r,
        )  # fmt: skip
        self.alerts = Counter("tidewarden_alerts", "Alert transitions.", ["stream", "policy", "state"], registry=r)
        self.deliveries = Counter(
            "tidewarden_alert_deliveries", "Notifications to receivers, by result (sent, retried, refused).",
            ["policy", "receiver", "result"], registry=r,
        )  # fmt: skip
        self.lag = Gauge(
            "tidewarden_lag_records",
            "Records on the bus that a service has not yet read.",
            ["service"],
            registry=r,
        )
        self.waiting = Gauge(
            "tidewarden_waiting_records",
            "Records that a service holds back until every instance of their producer has come as far.",
            ["service"],
            registry=r,
        )
        self.handled = Counter(
            "tidewarden_records_handled", "Bus records a service has dealt with.", ["service"], registry=r
        )
        self.errors = Counter(
            "tidewarden_errors", "Failures that a service survived.", ["service", "error"], registry=r
        )
        self.snapshot = Gauge(
            "tidewarden_snapshot_timestamp_seconds", "When, by the clock, a service last saved its state.",
            ["service"], registry=r,
        )  # fmt: skip
        self.snapshot_seconds = Gauge(
            "tidewarden_snapshot_duration_seconds", "How long saving its state last took a service.",
            ["service"], registry=r,
        )  # fmt: skip
        self.outbox = Gauge(
            "tidewarden_alert_outbox_alerts", "Alerts that wait to be delivered to a receiver.",
            ["policy", "receiver"], registry=r,
        )  # fmt: skip
        self.store_available = Gauge(
            "tidewarden_store_available",
            "Whether the store took what was written last, 1 or 0.",
            ["service"],
            registry=r,
        )
        self.stored = Counter("tidewarden_stored_rows", "Rows written to the store.", ["stream", "kind"], registry=r)
        self.store_write = Histogram(
            "tidewarden_store_write_seconds", "How long the store took for one batch, of those that it took.",
            ["service"], registry=r, buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self.evaluation = EvaluationMetrics(r)


class EvaluationMetrics:
    """How well a detector did with a simulation whose truth is known, as of its latest evaluation."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"tidewarden_evaluation_{name}", text, ["stream", "simulation", "detector"], registry=registry)

        self.precision = gauge("precision_ratio", "Events found among all that was reported, 0 to 1.")
        self.recall = gauge("recall_ratio", "Events found among all events, 0 to 1.")
        self.f1 = gauge("f1_ratio", "Harmonic mean of precision and recall, 0 to 1.")
        self.vus_pr = gauge("vus_pr_ratio", "Volume under the precision-recall surface, 0 to 1, without a threshold.")
        self.false_alarms = gauge("false_alarms_per_day", "False alarms a day of the simulation's time.")
        self.delay = gauge("delay_seconds", "Median from an event's start to its detection, in the simulation's time.")

    def note(self, stream: str, results: Iterable[Evaluation]) -> None:
        """Say what an evaluation found; a figure that has no meaning is not said."""
        for result in results:
            for metric, value in (
                (self.precision, result.precision), (self.recall, result.recall), (self.f1, result.f1),
                (self.vus_pr, result.vus_pr), (self.false_alarms, result.false_alarms_per_day),
                (self.delay, result.delay_median_s),
            ):  # fmt: skip
                if value is not None:
                    metric.labels(stream, result.simulation, result.detector).set(value)


class StatusBoard:
    """The latest word of each component, for the API and the terminal; safe from several threads.

    A component posts a plain JSON-able dict under (section, name). What the sections and their fields mean
    stands in `tidewarden.status`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sections: dict[str, dict[str, dict[str, Any]]] = {}

    def post(self, section: str, name: str, **facts: Any) -> None:
        """Replace what is said of ``name``."""
        with self._lock:
            self._sections.setdefault(section, {})[name] = facts

    def read(self) -> dict[str, dict[str, dict[str, Any]]]:
        """A copy of everything."""
        with self._lock:
            return {
                section: {name: dict(facts) for name, facts in items.items()}
                for section, items in self._sections.items()
            }


class HourlyCount:
    """How many things happened in the last hour, by the minute: a ring of sixty counts."""

    MINUTES = 60

    def __init__(self) -> None:
        self._counts = [0] * self.MINUTES
        self._minute = 0  # of the newest count, on the monotonic clock

    def add(self, count: int, now_s: float) -> None:
        """``count`` more, now; ``now_s`` in seconds on the monotonic clock."""
        self._turn(now_s)
        self._counts[self._minute % self.MINUTES] += count

    def total(self, now_s: float) -> int:
        """The sum over the last sixty minutes, the one that runs included."""
        self._turn(now_s)
        return sum(self._counts)

    def _turn(self, now_s: float) -> None:
        minute = int(now_s // 60)
        for passed in range(max(self._minute + 1, minute - self.MINUTES + 1), minute + 1):
            self._counts[passed % self.MINUTES] = 0
        self._minute = max(self._minute, minute)


def figures_of(telemetry: Telemetry) -> Figures:
    """The running totals of a process."""
    return Figures(
        readings=int(_total(telemetry.readings)),
        scored=int(_total(telemetry.scored)),
        late=int(_total(telemetry.late)),
        rejected_by_reason=rejections(telemetry),
        lag=by_label(telemetry.lag, "service"),
        handled=by_label(telemetry.handled, "service"),
        latency=_buckets(telemetry.score_latency),
    )


def rejections(telemetry: Telemetry, **only: str | None) -> dict[str, int]:
    """Readings refused by reason, of those reasons that occurred; ``only`` as of `by_label`."""
    return {reason: count for reason, count in by_label(telemetry.rejected, "reason", **only).items() if count}


def by_label(metric: Counter | Gauge, label: str, **only: str | None) -> dict[str, int]:
    """Totals by the values of ``label``, of the samples whose other labels are as ``only`` says."""
    totals: dict[str, int] = {}
    for sample in _samples(metric, "_total" if isinstance(metric, Counter) else ""):
        if all(sample.labels.get(name) == value for name, value in only.items()):
            totals[sample.labels[label]] = totals.get(sample.labels[label], 0) + int(sample.value)
    return totals


def _samples(metric: Counter | Gauge | Histogram, suffix: str) -> Iterable[Sample]:
    return (sample for family in metric.collect() for sample in family.samples if sample.name.endswith(suffix))


def _total(metric: Counter | Gauge) -> float:
    return sum(sample.value for sample in _samples(metric, "_total" if isinstance(metric, Counter) else ""))


def _buckets(histogram: Histogram) -> dict[str, float]:
    """Cumulative counts by upper bound in seconds, all label sets together."""
    totals: dict[str, float] = {}
    for sample in _samples(histogram, "_bucket"):
        bound = sample.labels["le"]
        totals[bound] = totals.get(bound, 0.0) + sample.value
    return totals


class RateMeter:
    """Events a second over the last few seconds, for people to look at."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._marks: deque[tuple[float, float]] = deque()

    def mark(self, total: float, at: float | None = None) -> float:
        """Note a running total and return the rate over the window."""
        now = time.monotonic() if at is None else at
        self._marks.append((now, total))
        while len(self._marks) > 2 and now - self._marks[0][0] > self._window_s:
            self._marks.popleft()
        first_at, first = self._marks[0]
        return (total - first) / (now - first_at) if now > first_at else 0.0


class RecentErrors(logging.Handler):
    """The last warnings and errors of the log, for ``/status``."""

    KEPT = 10
    TEXT_LENGTH = 500

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._kept: deque[RecentError] = deque(maxlen=self.KEPT)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        said: dict[str, Any] = record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()}
        parts = [str(said[key]) for key in ("event", "reason", "error") if said.get(key)]
        if record.exc_info and record.exc_info[1] is not None:
            parts.append(f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}")
        service = str(said.get("service") or said.get("policy") or record.name)
        text = ": ".join(parts)[: self.TEXT_LENGTH]
        self._kept.append(RecentError(int(record.created * 1000), record.levelname.lower(), service, text))

    def read(self) -> list[RecentError]:
        """Oldest first."""
        return list(self._kept)


# Below these levels, libraries tell of every request, and of every attempt at a server that is away, which the store
# and the receivers tell of once. With level debug they tell everything.
_LIBRARIES = {
    "elastic_transport": logging.WARNING,
    "elastic_transport.node_pool": logging.ERROR,
    "httpx": logging.WARNING,
}


def configure_logging(level: str = "info", log_format: LogFormat = "text", stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers to ``stream`` (stderr), as text or JSON lines."""
    stream = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%dT%H:%M:%SZ", utc=True),
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    finish: list[structlog.typing.Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        finish.append(structlog.processors.format_exc_info)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*finish, renderer]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, quietest in _LIBRARIES.items():
        logging.getLogger(name).setLevel(logging.NOTSET if level == "debug" else max(root.level, quietest))
