"""The page of what ``/metrics`` exposes, and the table of an owner's metrics."""

from __future__ import annotations

from prometheus_client.metrics import MetricWrapperBase

from tidewarden.telemetry import Telemetry
from tidewarden_cli.reference.markdown import NOTE, table
from tidewarden_operator.metrics import OperatorMetrics


def metrics_page() -> str:
    """Every metric that ``/metrics`` exposes."""
    return "\n".join(
        [
            NOTE,
            "# Metrics\n",
            "Served at `/metrics` in Prometheus' text format. A histogram also has `_bucket`, `_sum` and `_count`. "
            "Every process also has the customary `process_*` (memory, processor time, open files, start).\n",
            "What the operator says of itself stands [with it](operator.md#metrics).\n",
            *metric_table(Telemetry()),
        ]
    )


def metric_table(owner: Telemetry | OperatorMetrics) -> list[str]:
    """The lines of a table with every metric of ``owner``."""
    rows = [
        (f"`{exposed_name(metric)}`", str(metric._type), _labels(metric), metric._documentation)
        for metric in metrics_of(owner)
    ]
    return table(("Name", "Type", "Labels", "What it counts"), rows)


def metrics_of(owner: Telemetry | OperatorMetrics) -> list[MetricWrapperBase]:
    """The metrics of a telemetry or of the operator, in the order of their names."""
    declared = [value for value in vars(owner).values() if isinstance(value, MetricWrapperBase)]
    if isinstance(owner, Telemetry):
        declared += vars(owner.evaluation).values()
    return sorted(declared, key=exposed_name)


def exposed_name(metric: MetricWrapperBase) -> str:
    """The name as Prometheus sees it: counters end in ``_total``."""
    return f"{metric._name}_total" if metric._type == "counter" else metric._name


def _labels(metric: MetricWrapperBase) -> str:
    return ", ".join(f"`{label}`" for label in metric._labelnames)
