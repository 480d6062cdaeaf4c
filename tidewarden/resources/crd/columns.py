"""How ``kubectl`` calls and shows each kind: names, columns, scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Column:
    """One column of ``kubectl get``; ``wide`` ones are shown with ``-o wide`` only."""

    name: str
    path: str
    description: str
    type: Literal["string", "integer", "number", "boolean", "date"] = "string"
    wide: bool = False

    def document(self) -> dict[str, Any]:
        """As an entry of ``additionalPrinterColumns``."""
        entry: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        entry["description"] = self.description
        return entry | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True, slots=True)
class Shown:
    """What ``kubectl`` needs to know of a kind."""

    plural: str
    short: str
    columns: tuple[Column, ...]
    scale: bool = False


_READY = Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether all of it works.")
_WHY = Column(
    "Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why it is ready or not, in a word.", wide=True
)
_PAUSED = Column("Paused", ".spec.paused", "Whether it is told to rest.", "boolean")
_STREAM = Column("Stream", ".spec.stream", "MetricStream that it belongs to.", wide=True)
_AGE = Column("Age", ".metadata.creationTimestamp", "Time since it was created.", "date")

SHOWN: dict[str, Shown] = {
    "MetricStream": Shown(
        "metricstreams",
        "mstream",
        (
            _READY,
            Column("Readings", ".status.readings", "Readings accepted since its beginning.", "integer"),
            Column("Rejected", ".status.rejected", "Readings refused since its beginning.", "integer"),
            Column("Detectors", ".status.detectors", "AnomalyDetectors that watch it.", "integer"),
            Column("Lag", ".status.lagRecords", "Records that the archive has not yet written.", "integer"),
            _PAUSED,
            _AGE,
            Column("Interval", ".spec.interval", "Expected spacing of readings.", wide=True),
            Column("Partitions", ".spec.partitions", "Partitions of its topics.", "integer", wide=True),
            Column("Retention", ".spec.retention", "How long the bus keeps records.", wide=True),
            _WHY,
        ),
    ),
    "MetricSimulation": Shown(
        "metricsimulations",
        "msim",
        (
            _READY,
            Column("Phase", ".status.phase", "Where it stands."),
            Column("Played", ".status.played", "Readings played so far.", "integer"),
            Column("Percent", ".status.percent", "Share played.", "integer"),
            Column("F1", ".status.evaluation[0].f1", "F1 of the first detector under evaluate.", "number"),
            _PAUSED,
            _AGE,
            _STREAM,
            Column("Total", ".status.total", "Readings in all.", "integer", wide=True),
            Column("Precision", ".status.evaluation[0].precision", "Of the first detector.", "number", wide=True),
            Column("Recall", ".status.evaluation[0].recall", "Of the first detector.", "number", wide=True),
            _WHY,
        ),
    ),
    "AnomalyDetector": Shown(
        "anomalydetectors",
        "adet",
        (
            _READY,
            Column("Model", ".spec.model.kind", "Kind of its model."),
            Column("Series", ".status.series", "Series that it knows.", "integer"),
            Column("Lag", ".status.lagRecords", "Records that it has not yet scored.", "integer"),
            Column(
                "Anomalies (1h)", ".status.anomaliesLastHour", "Anomalies that began within the last hour.", "integer"
            ),
            _PAUSED,
            _AGE,
            _STREAM,
            Column("Learning", ".status.learning", "Series that are not yet scored.", "integer", wide=True),
            Column("Replicas", ".status.readyReplicas", "Detector pods that are ready.", "integer", wide=True),
            Column("Message", ".status.message", "What it is doing.", wide=True),
            _WHY,
        ),
        scale=True,
    ),
    "AlertPolicy": Shown(
        "alertpolicies",
        "apol",
        (
            _READY,
            Column("Firing", ".status.firing", "Alerts that are firing.", "integer"),
            Column("Pending", ".status.pending", "Alerts that wait before they fire.", "integer"),
            Column("Severity", ".spec.minSeverity", "Milder anomalies make no alert."),
            _PAUSED,
            _AGE,
            _STREAM,
            Column("Suppressed", ".status.suppressed", "Alerts kept back.", "integer", wide=True),
            _WHY,
        ),
    ),
}
