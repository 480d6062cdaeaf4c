"""The models an AnomalyDetector can choose, each with its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from tidewarden.resources.base import KIND_PATTERN, Model
from tidewarden.resources.likeness import did_you_mean
from tidewarden.resources.plugins import plugged_in

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


SingleKind = Literal[
    "auto", "density", "ewma", "mad", "seasonal", "static",
    "zscore", "iqr", "cusum", "holt_winters", "quantile", "stl", "ar",
    "half_space_trees", "isolation_forest", "loda", "random_cut_forest",
    "knn", "lof", "dbscan", "ecod", "histogram", "matrix_profile", "pca", "mahalanobis", "one_class_svm",
]  # fmt: skip


ModelKind = Literal[SingleKind, "ensemble"]
Combine = Literal["mean", "max", "median", "weighted"]
Kind = Annotated[str, Field(max_length=63, pattern=KIND_PATTERN)]
"""One that is built in (`ModelKind`), or a plug-in's."""


def at_defaults(kind: str) -> dict[str, Any]:
    """``spec.model`` with a model of this kind at its defaults, built in or a plug-in's."""
    return {"kind": kind} if kind in get_args(ModelKind) else {"kind": kind, "parameters": {}}


def _which(kinds: tuple[str, ...]) -> str:
    return f"Which model: {', '.join(kinds)}, or the kind of a plug-in that is installed."


class SingleModel(Model):
    """What a model by itself and a member of an ensemble have in common: a kind, and the block named like it."""

    model_config = ConfigDict(alias_generator=None)  # a block is named like its kind, which is not in camel case
    subject: ClassVar[str] = "model"  # in messages
    built_in: ClassVar[tuple[str, ...]] = get_args(SingleKind)

    kind: Kind = Field("auto", description=_which(get_args(SingleKind)))
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
    half_space_trees: HalfSpaceTreesParams | None = None
    isolation_forest: IsolationForestParams | None = None
    loda: LodaParams | None = None
    random_cut_forest: RandomCutForestParams | None = None
    knn: KnnParams | None = None
    lof: LofParams | None = None
    dbscan: DbscanParams | None = None
    ecod: EcodParams | None = None
    histogram: HistogramParams | None = None
    matrix_profile: MatrixProfileParams | None = None
    pca: PcaParams | None = None
    mahalanobis: MahalanobisParams | None = None
    one_class_svm: OneClassSvmParams | None = None
    # As many names as no model has; what they mean, and their bounds, only the plug-in knows.
    parameters: dict[str, JsonValue] | None = Field(
        None, max_length=64, description="Of a plug-in's kind, which cannot do without: {} for its defaults."
    )

    @property
    def is_built_in(self) -> bool:
        """Whether the model is one of ours: the parameters of others are in ``parameters``."""
        return self.kind in self.built_in

    @property
    def block(self) -> Model:
        """Of a kind that is built in: the block named like it, or its defaults where it is absent."""
        given: Model | None = getattr(self, self.kind)
        return PARAMETERS[self.kind]() if given is None else given

    @field_validator("kind", mode="before")
    @classmethod
    def _known_kind(cls, kind: Any) -> Any:
        if not isinstance(kind, str) or kind in cls.built_in:
            return kind
        if kind == "ensemble":
            raise ValueError("'ensemble' cannot be a member of an ensemble: name its members here instead")
        known = [*cls.built_in, *plugged_in()]
        if kind not in known:
            hint = did_you_mean(kind, known) or ": correct it, or install the plug-in that brings it where this runs"
            raise ValueError(f"{kind!r} is not one of {', '.join(known)}{hint}")
        return kind

    @model_validator(mode="after")
    def _parameters_of_plugins(self) -> Self:
        if self.is_built_in and self.parameters is not None:
            raise ValueError(
                f"{self.subject}.parameters is set but kind is {self.kind!r}, which is built in: "
                f"write {self.subject}.{self.kind} instead"
            )
        if not self.is_built_in and self.parameters is None:
            raise ValueError(
                f"kind {self.kind!r} is a plug-in's: it needs {self.subject}.parameters, {{}} for its defaults"
            )
        return self

    @model_validator(mode="after")
    def _matching_block(self) -> Self:
        given = [k for k in PARAMETERS if getattr(self, k, None) is not None]
        strangers = [k for k in given if k != self.kind]
        if strangers:
            raise ValueError(
                f"{self.subject}.{strangers[0]} is set but kind is {self.kind!r}: remove it or change the kind"
            )
        if self.kind == "static" and self.static is None:
            raise ValueError(f"kind static needs {self.subject}.static with lower, upper or both")
        return self


class Member(SingleModel):
    """One member of an ensemble; only the block named like ``kind`` is read."""

    subject: ClassVar[str] = "member"

    weight: float = Field(1.0, gt=0, le=1000, description="How much its word counts, with combine `weighted`.")


class EnsembleParams(Model):
    """Parameters of `ensemble`: several models, each calibrated by itself, and one judgement made of theirs."""

    combine: Combine = Field("mean", description="Of the members' -log10 p; of those that are still learning: nothing.")
    # Each member costs its own state and time: eight are more than any published ensemble of streams gains from, and
    # bound the API server's cost of checking them.
    members: list[Member] = Field(
        min_length=2,
        max_length=8,
        description="The models; the band is the first one's, of `static` only if no other has one.",
    )

    @model_validator(mode="after")
    def _read_weights(self) -> Self:
        odd = [member.weight for member in self.members if member.weight != 1.0]
        if odd and self.combine != "weighted":
            raise ValueError(
                f"weight {odd[0]:g} is read only with combine weighted, but combine is {self.combine!r}: "
                "remove the weight or combine weighted"
            )
        return self


class ModelSpec(SingleModel):
    """One model with its parameters; only the block named like ``kind`` is read."""

    built_in: ClassVar[tuple[str, ...]] = get_args(ModelKind)

    kind: Kind = Field("auto", description=_which(get_args(ModelKind)))
    ensemble: EnsembleParams | None = None

    def singles(self) -> Iterator[tuple[tuple[str | int, ...], SingleModel]]:
        """The models that take part, each with its path below ``spec.model``: itself, or the members."""
        if self.ensemble is None:
            yield (), self
            return
        for position, member in enumerate(self.ensemble.members):
            yield ("ensemble", "members", position), member

    @model_validator(mode="after")
    def _some_members(self) -> Self:
        if self.kind == "ensemble" and self.ensemble is None:
            raise ValueError("kind ensemble needs model.ensemble with members, two at least")
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
    "half_space_trees": HalfSpaceTreesParams,
    "isolation_forest": IsolationForestParams,
    "loda": LodaParams,
    "random_cut_forest": RandomCutForestParams,
    "knn": KnnParams,
    "lof": LofParams,
    "dbscan": DbscanParams,
    "ecod": EcodParams,
    "histogram": HistogramParams,
    "matrix_profile": MatrixProfileParams,
    "pca": PcaParams,
    "mahalanobis": MahalanobisParams,
    "one_class_svm": OneClassSvmParams,
    "ensemble": EnsembleParams,
}
"""The block of each kind of model."""
