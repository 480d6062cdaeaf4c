"""What the operator says of itself to Prometheus; names and help texts are declared here only."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from tidewarden_operator.keys import OWNER_KINDS


class OperatorMetrics:
    """Metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        ProcessCollector(registry=r)
        self.build = Gauge(
            "tidewarden_build_info", "Always 1: what runs here, and in which version.", ["role", "version"], registry=r
        )
        self.reconciles = Histogram(
            "tidewarden_operator_reconcile_seconds", "How long one reconciliation took.", ["kind"], registry=r,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )  # fmt: skip
        self.errors = Counter(
            "tidewarden_operator_errors", "Reconciliations that failed and are tried again.", ["kind"], registry=r
        )
        self.applied = Counter(
            "tidewarden_operator_applied_objects", "Objects written to the cluster.", ["kind"], registry=r
        )
        self.deleted = Counter(
            "tidewarden_operator_deleted_objects", "Objects deleted from the cluster.", ["kind"], registry=r
        )
        self.statuses = Counter("tidewarden_operator_status_writes", "Statuses written.", ["kind"], registry=r)
        self.queue = Gauge("tidewarden_operator_queue_depth", "Resources that wait to be reconciled.", registry=r)
        self.queue_age = Gauge(
            "tidewarden_operator_queue_oldest_seconds", "How long the oldest of them has been waiting.", registry=r
        )
        self.watch_age = Gauge(
            "tidewarden_operator_watch_age_seconds", "Since the last sign of life of a watch.", ["kind"], registry=r
        )
        self.resources = Gauge("tidewarden_operator_resources", "Resources that are ours.", ["kind"], registry=r)
        self.not_ready = Gauge(
            "tidewarden_operator_resources_not_ready", "Resources whose condition Ready is not True.", ["kind"],
            registry=r,
        )  # fmt: skip
        self.evaluation = Gauge(
            "tidewarden_operator_evaluation",
            "Latest evaluation in a MetricSimulation's status, by measure: precision, recall, f1 and vus_pr (0 to 1), "
            "false_alarms_per_day, delay_seconds.",
            ["resource_namespace", "simulation", "detector", "measure"], registry=r,
        )  # fmt: skip
        for kind in (*OWNER_KINDS, "Namespace"):  # from 0, so that the first is an increase to those who watch
            self.errors.labels(kind)
