"""AnomalyDetector: what to watch, and how."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from tidewarden.resources.base import Duration, Model, Name, Resource, Selector
from tidewarden.resources.candidate import Candidate
from tidewarden.resources.models import ModelSpec
from tidewarden.resources.training import TrainingSpec

BUDGET_PATTERN = r"^([0-9]{1,9}(?:\.[0-9]{1,9})?)/(hour|day|week)$"
_PER_DAY = {"hour": 24.0, "day": 1.0, "week": 1 / 7}


def parse_budget(text: Any) -> float:
    """False alarms a day of a budget such as ``2/day`` or ``1/week``; numbers pass as a day's."""
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return float(text)
    match = re.match(BUDGET_PATTERN, text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f"{text!r} is not a budget: write a number, a slash and hour, day or week, as in 2/day")
    return float(match[1]) * _PER_DAY[match[2]]


Budget = Annotated[
    float,
    BeforeValidator(parse_budget),
    PlainSerializer(lambda per_day: f"{per_day:g}/day", return_type=str),
    WithJsonSchema({"type": "string", "pattern": BUDGET_PATTERN}),
]
"""False alarms a day in Python, text such as ``2/day`` in YAML."""


class Select(Model):
    """Which series; an empty list means all. Names may end in ``*``."""

    tenants: list[Selector] = Field(default_factory=list, max_length=1_000, description="Tenants to watch.")
    metrics: list[Selector] = Field(default_factory=list, max_length=1_000, description="Metrics to watch.")
    clusters: list[Selector] = Field(default_factory=list, max_length=1_000, description="Clusters to watch.")
    nodes: list[Selector] = Field(default_factory=list, max_length=1_000, description="Nodes to watch.")

    def matches(self, tenant: str, cluster: str, node: str, metric: str) -> bool:
        """Whether the detector watches this series."""
        return (
            _matches(self.tenants, tenant)
            and _matches(self.metrics, metric)
            and _matches(self.clusters, cluster)
            and _matches(self.nodes, node)
        )


def _matches(patterns: list[str], name: str) -> bool:
    return not patterns or any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in patterns)


class Alerting(Model):
    """When a score becomes an anomaly: a budget of false alarms, or a threshold; never both."""

    budget: Budget | None = Field(None, gt=0, le=100_000, description="False alarms of the whole scope, as 2/day.")
    scope: Literal["detector", "tenant", "series"] = Field(
        "detector", description="Whose budget it is: the detector's as a whole, each tenant's, or each series' own."
    )
    threshold: float | None = Field(None, gt=0, le=1, description="Anomaly score; 0.8 is 1 in 63,000 normal readings.")
    direction: Literal["up", "down", "both"] = Field("both", description="Which way counts.")
    min_deviation: float = Field(0.0, ge=0, description="Smallest distance from the expected value that counts.")
    quiet: int = Field(10, ge=1, le=10_000, description="Calm readings after which an anomaly closes.")

    @model_validator(mode="after")
    def _never_both(self) -> Self:
        if self.budget is not None and self.threshold is not None:
            raise ValueError(
                f"has both budget ({self.budget:g}/day) and threshold ({self.threshold:g}): keep one, "
                "a budget sets the threshold by itself"
            )
        return self


Level = Literal["node", "cluster", "tenant"]


class Autoscaling(Model):
    """How many detector pods there are, by how far they are behind. A cluster only."""

    min: int = Field(1, ge=1, le=1_000, description="Never fewer pods.")
    max: int = Field(ge=1, le=1_000, description="Never more pods; more than the stream has partitions are idle.")
    lag_per_replica: int = Field(
        10_000, ge=1, description="Records of lag for which one more pod is started (KEDA; without it, CPU decides)."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}: swap them")
        return self


class Drift(Model):
    """Whether what the detector watches is still what it learned from; changes no score."""

    watch: bool = Field(True, description="Look for drift of the data, of the model and of the source.")
    window: Annotated[Duration, Field(ge=60_000)] | None = Field(
        None, description="What is compared with what; absent: the longest season, at least 1d."
    )


class AnomalyDetectorSpec(Model):
    """Spec of an AnomalyDetector."""

    stream: Name = Field(description="MetricStream to watch.")
    select: Select = Field(default_factory=Select)
    model: ModelSpec = Field(default_factory=ModelSpec)
    seasonality: list[Annotated[Duration, Field(ge=1_000)]] = Field(
        default_factory=lambda: [86_400_000],
        max_length=2,
        description="Seasons to expect; an empty list: none.",
    )
    training: TrainingSpec | None = Field(None, description="Begin with a registered version; absent: with nothing.")
    alerting: Alerting = Field(
        default_factory=Alerting,
        description="When a score becomes an anomaly: a budget of false alarms or a threshold; absent: threshold 0.8.",
    )
    candidate: Candidate | None = Field(
        None, description="A second model that is compared with this detector's own and may take over from it."
    )
    drift: Drift = Field(default_factory=Drift, description="Conditions DataDrift, ModelDrift and SourceDrift.")
    rollup: list[Level] = Field(default=["node", "cluster", "tenant"], description="Levels to roll scores up to.")
    replicas: int = Field(
        1, ge=0, le=1_000, description="Detector pods, in a cluster; more than the stream has partitions are idle."
    )
    autoscaling: Autoscaling | None = Field(None, description="Present: replicas is set by it, within its bounds.")
    paused: bool = Field(False, description="Score nothing.")

    @model_validator(mode="after")
    def _season(self) -> Self:
        if not self.seasonality and any(single.kind == "seasonal" for _, single in self.model.singles()):
            raise ValueError(
                "model seasonal needs a season, but seasonality is empty: write [1d], or choose model ewma or mad"
            )
        if self.candidate is not None:
            if not self.seasonality and any(single.kind == "seasonal" for _, single in self.candidate.model.singles()):
                raise ValueError("candidate.model seasonal needs a season, but seasonality is empty: write [1d]")
            if self.candidate.model == self.model:
                raise ValueError("candidate.model is the detector's own model: leave candidate out, or change it")
        return self


class AnomalyDetector(Resource):
    """What to watch, and how."""

    kind: Literal["AnomalyDetector"] = Field("AnomalyDetector", description="The kind of resource.")
    spec: AnomalyDetectorSpec
