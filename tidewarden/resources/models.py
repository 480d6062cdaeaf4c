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


class KnnParams(Model):
    """Parameters of `knn`: distance of the last readings from the k-th nearest of the windows before them."""

    k: int = Field(5, ge=1, le=32, description="Which neighbour: k - 1 outliers of a kind do not vouch for the next.")
    window: int = Field(16, ge=1, le=64, description="Readings that are compared as one.")
    history: int = Field(512, ge=32, le=8192, description="Windows that are remembered.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class LofParams(Model):
    """Parameters of `lof`: local outlier factor of the last readings among the windows before them."""

    # A neighbourhood of k needs more than 2 k windows: bounds that hold for any two need no rule across fields.
    k: int = Field(20, ge=2, le=60, description="Neighbours that make up the neighbourhood.")
    window: int = Field(8, ge=1, le=64, description="Readings that are compared as one.")
    history: int = Field(256, ge=128, le=4096, description="Windows that are remembered; cost grows with them.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class DbscanParams(Model):
    """Parameters of `dbscan`: distance of the last readings from the nearest place where many have been."""

    eps: float = Field(1.5, gt=0, le=100, description="Reach of a core, in spreads of the series.")
    min_samples: int = Field(5, ge=2, le=64, description="Windows within reach that make a window a core.")
    window: int = Field(8, ge=1, le=64, description="Readings that are compared as one.")
    history: int = Field(256, ge=128, le=4096, description="Windows that are remembered; cost grows with them.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class EcodParams(Model):
    """Parameters of `ecod`: how far out in the tails of what was seen, over features of the series."""

    history: int = Field(256, ge=32, le=8192, description="Readings whose features make up the tails.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class HistogramParams(Model):
    """Parameters of `histogram`: how empty the bins are where a reading's features fall (HBOS)."""

    memory: int = Field(2000, ge=100, le=1_000_000, description="Readings that count after older ones were halved.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class MatrixProfileParams(Model):
    """Parameters of `matrix_profile`: distance of the newest shape from its nearest in the past."""

    # It speaks once there are 2 window shapes: bounds that hold for any two need no rule across fields.
    window: int = Field(24, ge=4, le=128, description="Readings in a shape.")
    history: int = Field(512, ge=256, le=16_384, description="Shapes that are remembered; they should span a season.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class PcaParams(Model):
    """Parameters of `pca`: what the principal components of the last 24 readings leave unexplained."""

    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class MahalanobisParams(Model):
    """Parameters of `mahalanobis`: distance of the last readings under their robust, shrunk covariance."""

    window: int = Field(16, ge=1, le=32, description="Readings that are judged as one.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


class OneClassSvmParams(Model):
    """Parameters of `one_class_svm`: on which side of a boundary around nearly all that was seen."""

    nu: float = Field(0.5, gt=0, le=1, description="Share of the readings that the boundary leaves outside.")
    gamma: float | None = Field(
        None, gt=0, le=100, description="Of the kernel, per squared spread; default 1 / window."
    )
    window: int = Field(8, ge=1, le=32, description="Readings that are judged as one.")
    features: int = Field(64, ge=16, le=1024, multiple_of=4, description="Random features that stand for the kernel.")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Of the random features; the same seed, the same scores.")
    warmup: int = Field(120, ge=20, le=100_000, description="Readings a series needs before it is scored.")


ModelKind = Literal[
    "auto",
    "density",
    "ewma",
    "mad",
    "seasonal",
    "static",
    "knn",
    "lof",
    "dbscan",
    "ecod",
    "histogram",
    "matrix_profile",
    "pca",
    "mahalanobis",
    "one_class_svm",
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
    knn: KnnParams | None = None
    lof: LofParams | None = None
    dbscan: DbscanParams | None = None
    ecod: EcodParams | None = None
    histogram: HistogramParams | None = None
    matrix_profile: MatrixProfileParams | None = None
    pca: PcaParams | None = None
    mahalanobis: MahalanobisParams | None = None
    one_class_svm: OneClassSvmParams | None = None

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
    "knn": KnnParams,
    "lof": LofParams,
    "dbscan": DbscanParams,
    "ecod": EcodParams,
    "histogram": HistogramParams,
    "matrix_profile": MatrixProfileParams,
    "pca": PcaParams,
    "mahalanobis": MahalanobisParams,
    "one_class_svm": OneClassSvmParams,
}
"""The block of each kind of model."""
