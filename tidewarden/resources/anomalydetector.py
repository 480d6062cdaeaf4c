"""AnomalyDetector: what to watch, and how."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from tidewarden.resources.base import Duration, Model, Name, Resource, Selector

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


class AutoParams(Model):
    """Parameters of `auto`: density over LODA projections of features, and a sub-space second opinion."""

    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the random projections; the same seed, the same scores.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class DensityParams(Model):
    """Parameters of `density`: how thinly populated the place is where a reading falls, over features of the series."""

    projections: int = Field(0, ge=0, le=64, description="Random mixtures of the features, beside the features.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the random mixtures; the same seed, the same scores.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class EwmaParams(Model):
    """Parameters of `ewma`: distance from an exponentially weighted mean, in weighted standard deviations."""

    half_life: float = Field(30.0, gt=0, description="Readings after which a reading's weight has halved.")
    warmup: int = Field(60, ge=5, le=100_000, description="Readings a series needs before it is scored.")


class MadParams(Model):
    """Parameters of `mad`: distance from the running median, in running median absolute deviations."""

    half_life: float = Field(240.0, gt=0, description="Readings after which a reading's weight has halved.")
    warmup: int = Field(60, ge=5, le=100_000, description="Readings a series needs before it is scored.")


class SeasonalParams(Model):
    """Parameters of `seasonal`: residual against the profile of the season."""

    half_life: float = Field(5.0, gt=0, description="Seasons after which a season's weight has halved.")
    bins: int = Field(48, ge=2, le=1440, description="Steps that the season is cut into.")
    warmup: int | None = Field(None, ge=5, description="Readings; absent: two seasons.")


class StaticParams(Model):
    """Parameters of `static`: limits that a person knows."""

    lower: float | None = Field(None, description="Values below are anomalous.")
    upper: float | None = Field(None, description="Values above are anomalous.")

    @model_validator(mode="after")
    def _some_limit(self) -> Self:
        if self.lower is None and self.upper is None:
            raise ValueError("static needs lower, upper or both")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError(f"lower {self.lower} is not below upper {self.upper}")
        return self


ModelKind = Literal["auto", "density", "ewma", "mad", "seasonal", "static"]


class ModelSpec(Model):
    """One model with its parameters; only the block named like ``kind`` is read."""

    kind: ModelKind = Field("auto", description="Which model.")
    auto: AutoParams | None = None
    density: DensityParams | None = None
    ewma: EwmaParams | None = None
    mad: MadParams | None = None
    seasonal: SeasonalParams | None = None
    static: StaticParams | None = None

    @model_validator(mode="after")
    def _matching_block(self) -> Self:
        given = [k for k in get_args(ModelKind) if getattr(self, k) is not None]
        strangers = [k for k in given if k != self.kind]
        if strangers:
            raise ValueError(f"model.{strangers[0]} is set but kind is {self.kind!r}: remove it or change the kind")
        if self.kind == "static" and self.static is None:
            raise ValueError("kind static needs model.static with lower, upper or both")
        return self


class Alerting(Model):
    """When a score becomes an anomaly: a budget of false alarms, or a threshold; never both."""

    budget: Budget | None = Field(None, gt=0, le=100_000, description="False alarms of the whole detector, as 2/day.")
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
    alerting: Alerting = Field(
        default_factory=Alerting,
        description="When a score becomes an anomaly: a budget of false alarms or a threshold; absent: threshold 0.8.",
    )
    rollup: list[Level] = Field(default=["node", "cluster", "tenant"], description="Levels to roll scores up to.")
    replicas: int = Field(
        1, ge=0, le=1_000, description="Detector pods, in a cluster; more than the stream has partitions are idle."
    )
    autoscaling: Autoscaling | None = Field(None, description="Present: replicas is set by it, within its bounds.")
    paused: bool = Field(False, description="Score nothing.")

    @model_validator(mode="after")
    def _season(self) -> Self:
        if self.model.kind == "seasonal" and not self.seasonality:
            raise ValueError(
                "model seasonal needs a season, but seasonality is empty: write [1d], or choose model ewma or mad"
            )
        return self


class AnomalyDetector(Resource):
    """What to watch, and how."""

    kind: Literal["AnomalyDetector"] = Field("AnomalyDetector", description="The kind of resource.")
    spec: AnomalyDetectorSpec
