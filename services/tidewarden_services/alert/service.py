"""The alert service: anomalies of a stream in, alerts of one policy out."""

from __future__ import annotations

import structlog

from tidewarden.alerting.engine import AlertEngine
from tidewarden.bus.port import Record
from tidewarden.events import Alert, AnomalyBatch
from tidewarden.resources import AlertPolicy, MetricStream
from tidewarden.telemetry import Telemetry
from tidewarden.topics import Purpose
from tidewarden_services.contract import Output

log = structlog.get_logger()


class AlertService:
    """A `Service` around an `AlertEngine`; it decides, the `Notifier` delivers."""

    inputs: tuple[Purpose, ...] = ("anomalies",)

    def __init__(self, name: str, policy: AlertPolicy, stream: MetricStream, telemetry: Telemetry) -> None:
        self.name = name
        self._policy = policy.metadata.name
        self._stream = stream.metadata.name
        self._engine = AlertEngine(policy, self._stream)
        self._telemetry = telemetry
        self._states: dict[str, str] = {}  # of alerts that are not over, to count transitions only
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

    def snapshot(self) -> bytes:
        """All state, in a versioned format."""
        return self._engine.snapshot()

    def restore(self, state: bytes) -> None:
        """Go on from a snapshot; ValueError says what does not fit."""
        self._engine.restore(state)
        self._states = dict(self._engine.states())
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
        firing = sum(state == "firing" for state in self._states.values())
        self._telemetry.board.post(
            "policies", self._policy, stream=self._stream, firing=firing, pending=len(self._states) - firing
        )
