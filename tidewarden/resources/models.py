"""The models an AnomalyDetector can choose, each with its parameters."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from tidewarden.resources.base import Model


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


class HalfSpaceTreesParams(Model):
    """Parameters of `half_space_trees`: how full the random boxes are into which the last readings fall."""

    trees: int = Field(25, ge=1, le=200, description="Trees, of which each cuts other boxes.")
    depth: int = Field(8, ge=2, le=10, description="Cuts from a tree's root to its leaves; memory doubles with each.")
    lags: int = Field(8, ge=1, le=16, description="Readings in a window, the newest among them.")
    period: int = Field(250, ge=16, le=20_000, description="Readings after which densities are told anew.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the cuts; the same seed, the same scores.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class IsolationForestParams(Model):
    """Parameters of `isolation_forest`: how few random cuts set the last readings apart from those before."""

    trees: int = Field(32, ge=1, le=200, description="Trees, each grown from a sample of its own.")
    subsample: int = Field(256, ge=16, le=1024, description="Windows that a tree is grown from.")
    lags: int = Field(8, ge=1, le=8, description="Readings in a window, the newest among them.")
    window: int = Field(1024, ge=64, le=20_000, description="Past readings that samples are taken from.")
    refit: int = Field(512, ge=16, le=20_000, description="Readings in which all trees have been grown anew, in turn.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of samples and cuts; the same seed, the same scores.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class LodaParams(Model):
    """Parameters of `loda`: density of the last readings over sparse random projections of them."""

    projections: int = Field(64, ge=1, le=256, description="Random mixtures of the readings in a window.")
    lags: int = Field(8, ge=1, le=32, description="Readings in a window, the newest among them.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the mixtures; the same seed, the same scores.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class RandomCutForestParams(Model):
    """Parameters of `random_cut_forest`: how much the trees would change to take the last readings in."""

    trees: int = Field(24, ge=1, le=200, description="Trees, each of a sample of its own.")
    subsample: int = Field(64, ge=16, le=512, description="Windows that a tree holds.")
    lags: int = Field(4, ge=1, le=8, description="Readings in a window, the newest among them.")
    memory: int = Field(1280, ge=16, le=100_000, description="Readings after which a sampled one has mostly left.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of samples and cuts; the same seed, the same scores.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


ModelKind = Literal[
    "auto",
    "density",
    "ewma",
    "mad",
    "seasonal",
    "static",
    "half_space_trees",
    "isolation_forest",
    "loda",
    "random_cut_forest",
]


class ModelSpec(Model):
    """One model with its parameters; only the block named like ``kind`` is read."""

    kind: ModelKind = Field("auto", description="Which model.")
    auto: AutoParams | None = None
    density: DensityParams | None = None
    ewma: EwmaParams | None = None
    mad: MadParams | None = None
    seasonal: SeasonalParams | None = None
    static: StaticParams | None = None
    half_space_trees: HalfSpaceTreesParams | None = None
    isolation_forest: IsolationForestParams | None = None
    loda: LodaParams | None = None
    random_cut_forest: RandomCutForestParams | None = None

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
    "half_space_trees": HalfSpaceTreesParams,
    "isolation_forest": IsolationForestParams,
    "loda": LodaParams,
    "random_cut_forest": RandomCutForestParams,
}
"""The block of each kind of model."""
