"""MetricSimulation: a labelled scenario through the live pipeline."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tidewarden.resources.base import Duration, Label, Model, Name, Resource

Kind = Literal[
    "spike", "dip", "level_shift", "drift", "missing", "seasonal_change", "trend_change", "flat_line", "noise"
]

BUILT_IN_METRICS = (
    "latency_ms", "error_rate", "throughput", "cpu_percent", "memory_percent", "disk_percent", "network_mbps"
)  # fmt: skip


class CustomMetric(Model):
    """A signal by parameters: base × (1 + season + week) + trend + noise, kept within min and max."""

    name: Label = Field(description="Name of the metric, as in the fleet's metrics.")
    base: float = Field(description="Mean level.")
    noise: float = Field(0.1, ge=0, description="Standard deviation of the noise, as a share of the mean.")
    seasonal: float = Field(0.2, ge=0, le=1, description="Amplitude of the daily season, as a share of the mean.")
    weekly: float = Field(0.05, ge=0, le=1, description="Amplitude of the weekly season, as a share of the mean.")
    trend: float = Field(0.0, description="Change a day, as a share of the mean.")
    load: float = Field(0.0, ge=-1, le=1, description="Correlation with the node's load.")
    min: float | None = Field(None, description="Lowest value; what falls below is set to it.")
    max: float | None = Field(None, description="Highest value; what rises above is set to it.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: swap them")
        return self


class Fleet(Model):
    """Synthetic nodes: tenant → cluster → node → metric."""

    tenants: list[Label] = Field(
        min_length=1, max_length=1_000, description="Tenants to simulate; all of them tenants of the stream."
    )
    clusters: int = Field(1, ge=1, le=1_000, description="Clusters of each tenant.")
    nodes: int = Field(10, ge=1, le=100_000, description="Nodes of each cluster.")
    metrics: list[Label] = Field(
        default_factory=lambda: ["latency_ms", "error_rate", "throughput", "cpu_percent"],
        min_length=1,
        max_length=256,
        description="Built in: latency_ms, error_rate, throughput, cpu_percent, memory_percent, disk_percent, "
        "network_mbps; others are described under custom.",
    )
    custom: list[CustomMetric] = Field(default_factory=list, max_length=256)

    @model_validator(mode="after")
    def _known_metrics(self) -> Self:
        known = {*BUILT_IN_METRICS, *(metric.name for metric in self.custom)}
        strangers = [name for name in self.metrics if name not in known]
        if strangers:
            raise ValueError(
                f"metric {strangers[0]!r} is not built in: describe it under custom, "
                f"or use {', '.join(BUILT_IN_METRICS)}"
            )
        return self


class Replay(Model):
    """Recorded data instead of a fleet: a file, a folder of files, or a set shipped with Tidewarden."""

    path: str | None = Field(None, description="CSV or Parquet file or folder, relative to the resource file.")
    dataset: Literal["nab-cloud"] | None = Field(
        None,
        description="nab-cloud: real cloud metrics with known incidents (NAB realAWSCloudwatch, realKnownCause).",
    )
    tenant: str = Field("replay", description="Tenant of files that name none.")
    cluster: str = Field("default", description="Cluster of files that name none.")
    label_column: str | None = Field(None, description="Column with the truth; absent: label or is_anomaly if there.")
    rebase: bool = Field(True, description="Shift every series so that they begin together at the start.")
    include: list[str] = Field(default_factory=list, description="Only series whose name contains one of these.")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.path is None) == (self.dataset is None):
            raise ValueError("replay needs exactly one of path and dataset")
        return self


class Anomalies(Model):
    """Injected anomalies, all labelled."""

    ratio: float = Field(0.3, ge=0, le=1, description="Share of the series that get anomalies.")
    mix: dict[Kind, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="Weights per kind; absent: the five classic kinds, 20 each."
    )
    magnitude: float = Field(1.0, gt=0, le=100, description="Factor on the size of every anomaly.")
    incidents: int = Field(
        0, ge=0, le=1_000, description="Incidents that hit several nodes or a whole cluster together."
    )
    per_series: int = Field(1, ge=1, le=100, description="Anomalies of each affected series.")


class MetricSimulationSpec(Model):
    """Spec of a MetricSimulation."""

    stream: Name = Field(description="MetricStream that the readings go to.")
    seed: int = Field(7, ge=0, le=2**32 - 1, description="The same seed gives the same bytes.")
    fleet: Fleet | None = None
    replay: Replay | None = None
    interval: Duration = Field(60_000, ge=1, description="Spacing of simulated readings.")
    points: int | None = Field(None, ge=1, description="Readings of each series; absent: endless, or the replay's own.")
    start: datetime | None = Field(
        None,
        description="Time of the first reading; absent: so that the last one is now when the simulation is created.",
    )
    speed: float = Field(1.0, ge=0, description="Times real time; 0: as fast as the pipeline takes it.")
    anomalies: Anomalies | None = None
    evaluate: list[Name] = Field(
        default_factory=list, max_length=64, description="AnomalyDetectors to score against the truth."
    )
    paused: bool = Field(False, description="Play nothing.")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.fleet is None) == (self.replay is None):
            raise ValueError("give exactly one of fleet and replay")
        if self.replay is not None and self.anomalies is not None:
            raise ValueError("anomalies are injected into a fleet; a replay brings its own labels: remove one of them")
        return self


class MetricSimulation(Resource):
    """A labelled scenario through the live pipeline."""

    kind: Literal["MetricSimulation"] = Field("MetricSimulation", description="The kind of resource.")
    spec: MetricSimulationSpec
