"""The four kinds of resource, and how to load them."""

from tidewarden.resources.alertpolicy import AlertPolicy, AlertPolicySpec
from tidewarden.resources.anomalydetector import AnomalyDetector, AnomalyDetectorSpec
from tidewarden.resources.metricsimulation import MetricSimulation, MetricSimulationSpec
from tidewarden.resources.metricstream import MetricStream, MetricStreamSpec

AnyResource = MetricStream | MetricSimulation | AnomalyDetector | AlertPolicy

__all__ = [
    "AlertPolicy",
    "AlertPolicySpec",
    "AnomalyDetector",
    "AnomalyDetectorSpec",
    "AnyResource",
    "MetricSimulation",
    "MetricSimulationSpec",
    "MetricStream",
    "MetricStreamSpec",
]
