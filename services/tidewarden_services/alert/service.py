"""The alert service: anomalies of a stream in, alerts of one policy out."""

from __future__ import annotations

import structlog

from tidewarden.alerting.engine import AlertEngine
from tidewarden.bus.port import Record
from tidewarden.events import Alert, Anomaly, AnomalyBatch
from tidewarden.resources import AlertPolicy, MetricStream
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Purpose
from tidewarden_services.contract import Output

Lives = dict[int, dict[str, str]]

log = structlog.get_logger()


STATES = ("pending", "firing", "resolved")


class AlertService:
    """A `Service` around an `AlertEngine`; it decides, the `Notifier` delivers.

    Args:
        policy: whose alerts.
        stream: whose anomalies.
        telemetry: counters and the status board.
        partition: of the anomalies, whose instance this is.
        lives: states of the alerts that are not over, by partition and id; shared by the policy's instances in
            the process, which the board shows together.
    """

    reads: Purpose = "anomalies"

    def __init__(
        self,
        policy: AlertPolicy,
        stream: MetricStream,
        telemetry: Telemetry,
        *,
        partition: int = 0,
        lives: Lives | None = None,
    ) -> None:
        self._policy = policy.metadata.name
        self._stream = stream.metadata.name
        self._engine = AlertEngine(policy, self._stream)
        self._telemetry = telemetry
        self._partition = partition
        self._lives: Lives = {} if lives is None else lives
        self._states: dict[str, str] = {}  # of alerts that are not over, to count transitions only
        self._lives[partition] = self._states
        for state in STATES:  # from 0, so that the first is an increase to those who watch
            telemetry.alerts.labels(self._stream, self._policy, state)
        self._post()

    def handle(self, record: Record) -> list[Output]:
        """Take a batch of anomalies in; one output with all new revisions of alerts, if there are any."""
        batch = record.value
        assert isinstance(batch, AnomalyBatch), type(batch)
        alerts = self._engine.observe(batch)
        if not alerts:
            return []
        for alert in alerts:
            self._count(alert)
        self._post()
        return [Output("alerts", record.key, alerts)]

    def join(self, records: list[Record]) -> AnomalyBatch:
        """What several instances found at one instant, in the order of time; the batches' own order breaks ties.

        An instance's anomalies of an hour would otherwise let alerts resolve that another's of the same hour join.
        """
        batches: list[AnomalyBatch] = [record.value for record in records]
        timed: list[tuple[int, Anomaly]] = []
        for batch in batches:
            newest = 0
            for anomaly in batch.anomalies:
                newest = max(newest, anomaly.updated_at, anomaly.end)
                timed.append((newest, anomaly))
        timed.sort(key=lambda pair: pair[0])
        watermarks: dict[str, int] = {}
        for batch in batches:
            for tenant, at in batch.watermarks.items():
                watermarks[tenant] = max(at, watermarks.get(tenant, at))
        return AnomalyBatch(
            detector=batches[0].detector, anomalies=[anomaly for _, anomaly in timed], watermarks=watermarks
        )

    def close(self) -> None:
        """Let go: the status board no longer counts this instance's alerts."""
        self._lives.pop(self._partition, None)
        self._post()

    def snapshot(self) -> bytes:
        """All state, in a versioned format."""
        return self._engine.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        self._engine.restore(state)
        self._states = self._lives[self._partition] = dict(self._engine.states())
        self._post()

    def _count(self, alert: Alert) -> None:
        if self._states.get(alert.id) == alert.state:
            return
        self._telemetry.alerts.labels(self._stream, self._policy, alert.state).inc()
        if alert.state == "resolved":
            self._states.pop(alert.id, None)
        else:
            self._states[alert.id] = alert.state

    def _post(self) -> None:
        states = [state for lives in list(self._lives.values()) for state in list(lives.values())]
        firing = states.count("firing")
        self._telemetry.board.post(
            "policies", self._policy, stream=self._stream, firing=firing, pending=len(states) - firing
        )
