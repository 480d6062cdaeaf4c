"""The models an AnomalyDetector can choose, each with its parameters."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import ConfigDict, Field, model_validator

from tidewarden.resources.base import Model

MOST_OUTSIDE = 500


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


class ZscoreParams(Model):
    """Parameters of `zscore`: distance from the mean of the last readings, in their standard deviations."""

    window: int = Field(240, ge=16, le=1000, description="Readings that mean and deviation are taken of.")
    warmup: int = Field(60, ge=10, le=100_000, description="Readings a series needs before it is scored.")


class IqrParams(Model):
    """Parameters of `iqr`: distance outside of the box between the running quartiles, in box heights."""

    half_life: float = Field(240.0, gt=0, description="Readings after which a reading's weight has halved.")
    fence: float = Field(1.5, gt=0, le=100, description="Box heights from the box to the end of the band.")
    warmup: int = Field(60, ge=17, le=100_000, description="Readings a series needs before it is scored.")


class CusumParams(Model):
    """Parameters of `cusum`: small deviations in one direction, added up until they are no accident any more."""

    method: Literal["cusum", "page_hinkley"] = Field(
        "cusum", description="What is normal: the recent past, or with eight times the memory (Page-Hinkley)."
    )
    half_life: float = Field(240.0, gt=0, description="Readings after which a reading's weight has halved.")
    slack: float = Field(
        0.5, ge=0, le=10, description="Standard deviations that are no deviation: half of the shift to be found."
    )
    warmup: int = Field(60, ge=10, le=100_000, description="Readings a series needs before it is scored.")


class HoltWintersParams(Model):
    """Parameters of `holt_winters`: residual of additive triple exponential smoothing."""

    alpha: float = Field(0.1, gt=0, le=1, description="Share of a reading's error that the level takes.")
    beta: float = Field(0.01, ge=0, le=1, description="Share of the level's move that the trend takes.")
    gamma: float = Field(0.2, ge=0, lt=1, description="Share of the season's profile that a new season replaces.")
    damping: float = Field(0.98, ge=0, le=1, description="Share of the trend that is left after a reading.")
    bins: int = Field(48, ge=2, le=512, description="Steps that the season is cut into.")
    warmup: int | None = Field(None, ge=10, le=100_000, description="Readings; absent: two seasons.")


class QuantileParams(Model):
    """Parameters of `quantile`: limits taken once, from the quantiles of each series' first readings."""

    lower: float = Field(0.005, ge=0, le=0.5, description="Quantile of the lower limit; 0 is the smallest reading.")
    upper: float = Field(0.995, ge=0.5, le=1, description="Quantile of the upper limit; 1 is the largest reading.")
    window: int = Field(1440, ge=20, le=100_000, description="Readings that the limits are taken from: the warm-up.")

    @model_validator(mode="after")
    def _few_outside(self) -> Self:
        # The readings beyond a limit are kept one by one: 500 on each side are 8 KB a series.
        if max(self.lower, 1 - self.upper) * self.window > MOST_OUTSIDE:
            raise ValueError(
                f"window {self.window} has more than {MOST_OUTSIDE} readings outside of the quantiles {self.lower} to "
                f"{self.upper}: take a shorter window, or quantiles nearer to 0 and 1"
            )
        return self


class StlParams(Model):
    """Parameters of `stl`: what trend and seasons leave unexplained."""

    trend: int = Field(64, ge=8, le=512, description="Readings that the trend is taken of, the newest weighing most.")
    half_life: float = Field(5.0, gt=0, description="Seasons after which a season's weight has halved.")
    bins: int = Field(48, ge=2, le=240, description="Steps that the season is cut into.")
    warmup: int | None = Field(None, ge=10, le=100_000, description="Readings; absent: two seasons.")


class ArParams(Model):
    """Parameters of `ar`: error of an autoregressive forecast, on top of the time of day."""

    order: int = Field(8, ge=1, le=8, description="Readings before it that a reading is forecast from.")
    half_life: float = Field(1000.0, ge=10, description="Readings after which a reading's weight has halved.")
    bins: int = Field(48, ge=2, le=240, description="Steps that the season is cut into.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


ModelKind = Literal[
    "auto", "density", "ewma", "mad", "seasonal", "static",
    "zscore", "iqr", "cusum", "holt_winters", "quantile", "stl", "ar",
]  # fmt: skip


class ModelSpec(Model):
    """One model with its parameters; only the block named like ``kind`` is read."""

    model_config = ConfigDict(alias_generator=None)  # a block is named like its kind, which is not in camel case

    kind: ModelKind = Field("auto", description="Which model.")
    auto: AutoParams | None = None
    density: DensityParams | None = None
    ewma: EwmaParams | None = None
    mad: MadParams | None = None
    seasonal: SeasonalParams | None = None
    static: StaticParams | None = None
    zscore: ZscoreParams | None = None
    iqr: IqrParams | None = None
    cusum: CusumParams | None = None
    holt_winters: HoltWintersParams | None = None
    quantile: QuantileParams | None = None
    stl: StlParams | None = None
    ar: ArParams | None = None

    @property
    def parameters(self) -> Model:
        """The block named like ``kind``, or its defaults where it is absent."""
        given: Model | None = getattr(self, self.kind)
        return PARAMETERS[self.kind]() if given is None else given

    @model_validator(mode="after")
    def _matching_block(self) -> Self:
        given = [k for k in get_args(ModelKind) if getattr(self, k) is not None]
        strangers = [k for k in given if k != self.kind]
        if strangers:
            raise ValueError(f"model.{strangers[0]} is set but kind is {self.kind!r}: remove it or change the kind")
        if self.kind == "static" and self.static is None:
            raise ValueError("kind static needs model.static with lower, upper or both")
        return self


PARAMETERS: dict[str, type[Model]] = {
    "auto": AutoParams,
    "density": DensityParams,
    "ewma": EwmaParams,
    "mad": MadParams,
    "seasonal": SeasonalParams,
    "static": StaticParams,
    "zscore": ZscoreParams,
    "iqr": IqrParams,
    "cusum": CusumParams,
    "holt_winters": HoltWintersParams,
    "quantile": QuantileParams,
    "stl": StlParams,
    "ar": ArParams,
}
"""The block of each kind of model."""
