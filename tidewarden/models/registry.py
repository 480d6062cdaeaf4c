"""Models by kind: those here, and plug-ins that other distributions bring.

A plug-in is an entry point in the group ``tidewarden.models``, named like its kind, that loads to a `Builder` of
``spec.model.parameters``: a function ``(parameters, seasonality_ms, interval_ms) -> Model``. Of ``{}`` it makes a model
at its defaults; what is wrong with the parameters it says with a ValueError, as pydantic's own is. A whole one to begin
with is in ``docs/plug-in/``. A kind that is built in stays what it is, whatever a plug-in calls itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint
from typing import Any

from pydantic import ValidationError

from tidewarden.models.ar import Ar
from tidewarden.models.auto import Auto
from tidewarden.models.contract import Model
from tidewarden.models.cusum import Cusum
from tidewarden.models.dbscan import Dbscan
from tidewarden.models.density import Density
from tidewarden.models.ecod import Ecod
from tidewarden.models.ensemble import Ensemble
from tidewarden.models.ewma import Ewma
from tidewarden.models.half_space_trees import HalfSpaceTrees
from tidewarden.models.histogram import Histogram
from tidewarden.models.holt_winters import HoltWinters
from tidewarden.models.iqr import Iqr
from tidewarden.models.isolation_forest import IsolationForest
from tidewarden.models.knn import Knn
from tidewarden.models.loda import Loda
from tidewarden.models.lof import Lof
from tidewarden.models.mad import Mad
from tidewarden.models.mahalanobis import Mahalanobis
from tidewarden.models.matrix_profile import MatrixProfile
from tidewarden.models.one_class_svm import OneClassSvm
from tidewarden.models.pca import Pca
from tidewarden.models.quantile import Quantile
from tidewarden.models.random_cut_forest import RandomCutForest
from tidewarden.models.seasonal import Seasonal
from tidewarden.models.static import Static
from tidewarden.models.stl import Stl
from tidewarden.models.zscore import Zscore
from tidewarden.resources import AnomalyDetector, MetricStream
from tidewarden.resources.models import (
    ArParams,
    AutoParams,
    CusumParams,
    DbscanParams,
    DensityParams,
    EcodParams,
    EnsembleParams,
    EwmaParams,
    HalfSpaceTreesParams,
    HistogramParams,
    HoltWintersParams,
    IqrParams,
    IsolationForestParams,
    KnnParams,
    LodaParams,
    LofParams,
    MadParams,
    MahalanobisParams,
    MatrixProfileParams,
    OneClassSvmParams,
    PcaParams,
    QuantileParams,
    RandomCutForestParams,
    SeasonalParams,
    SingleModel,
    StaticParams,
    StlParams,
    ZscoreParams,
)
from tidewarden.resources.plugins import entry_point_of, origin, plugged_in

Builder = Callable[[Any, tuple[int, ...], int], Model]
"""Makes a model of its block of parameters, the seasons and the expected spacing in milliseconds."""


def _auto(params: AutoParams, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    return Auto(params.warmup, seasonality_ms, interval_ms, params.seed)


def _density(params: DensityParams, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    return Density(params.warmup, seasonality_ms, interval_ms, params.seed, params.projections, alone=True)


def _ewma(params: EwmaParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Ewma(params.half_life, params.warmup)


def _mad(params: MadParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Mad(params.half_life, params.warmup)


def _seasonal(params: SeasonalParams, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    return Seasonal(params.half_life, params.bins, params.warmup, seasonality_ms, interval_ms)


def _static(params: StaticParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Static(params.lower, params.upper)


def _zscore(params: ZscoreParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Zscore(params.window, params.warmup)


def _iqr(params: IqrParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Iqr(params.half_life, params.fence, params.warmup)


def _cusum(params: CusumParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Cusum(params.method, params.half_life, params.slack, params.warmup)


def _holt_winters(params: HoltWintersParams, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    return HoltWinters(
        params.alpha, params.beta, params.gamma, params.damping, params.bins, params.warmup, seasonality_ms, interval_ms
    )


def _quantile(params: QuantileParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Quantile(params.lower, params.upper, params.window)


def _stl(params: StlParams, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    return Stl(params.trend, params.half_life, params.bins, params.warmup, seasonality_ms, interval_ms)


def _ar(params: ArParams, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    return Ar(params.order, params.half_life, params.bins, params.warmup, seasonality_ms, interval_ms)


def _half_space_trees(p: HalfSpaceTreesParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return HalfSpaceTrees(p.trees, p.depth, p.lags, p.period, p.seed, p.warmup)


def _isolation_forest(p: IsolationForestParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return IsolationForest(p.trees, p.subsample, p.lags, p.window, p.refit, p.seed, p.warmup)


def _loda(p: LodaParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Loda(p.projections, p.lags, p.seed, p.warmup)


def _random_cut_forest(p: RandomCutForestParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return RandomCutForest(p.trees, p.subsample, p.lags, p.memory, p.seed, p.warmup)


def _knn(params: KnnParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Knn(params.k, params.window, params.history, params.warmup)


def _lof(params: LofParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Lof(params.k, params.window, params.history, params.warmup)


def _dbscan(params: DbscanParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Dbscan(params.eps, params.min_samples, params.window, params.history, params.warmup)


def _ecod(params: EcodParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Ecod(params.history, params.warmup)


def _histogram(params: HistogramParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Histogram(params.memory, params.warmup)


def _matrix_profile(params: MatrixProfileParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return MatrixProfile(params.window, params.history, params.warmup)


def _pca(params: PcaParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Pca(params.warmup)


def _mahalanobis(params: MahalanobisParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return Mahalanobis(params.window, params.warmup)


def _one_class_svm(params: OneClassSvmParams, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    return OneClassSvm(params.nu, params.gamma, params.window, params.features, params.seed, params.warmup)


def _ensemble(params: EnsembleParams, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    members = [build(member, seasonality_ms, interval_ms) for member in params.members]
    return Ensemble(members, params.combine, [m.weight for m in params.members])


_BUILT_IN: dict[str, Builder] = {
    "auto": _auto, "density": _density, "ewma": _ewma, "mad": _mad, "seasonal": _seasonal, "static": _static,
    "zscore": _zscore, "iqr": _iqr, "cusum": _cusum, "holt_winters": _holt_winters, "quantile": _quantile,
    "stl": _stl, "ar": _ar,
    "half_space_trees": _half_space_trees,
    "isolation_forest": _isolation_forest, "loda": _loda,
    "random_cut_forest": _random_cut_forest,
    "knn": _knn, "lof": _lof, "dbscan": _dbscan, "ecod": _ecod, "histogram": _histogram,
    "matrix_profile": _matrix_profile, "pca": _pca, "mahalanobis": _mahalanobis, "one_class_svm": _one_class_svm,
    "ensemble": _ensemble,
}  # fmt: skip


def kinds() -> list[str]:
    """Kinds that `build` knows, built in and plugged in, sorted."""
    return sorted({*_BUILT_IN, *plugged_in()})


def build(spec: SingleModel, seasonality_ms: Sequence[int], interval_ms: int) -> Model:
    """The model that ``spec`` describes, for seasons and an expected spacing in milliseconds.

    Raises:
        ValueError: no model of that kind is known (the message lists those that are), or its plug-in cannot be
            loaded, does not take the parameters, or makes something else than a model.
    """
    if spec.kind in _BUILT_IN:
        return _BUILT_IN[spec.kind](spec.block, tuple(seasonality_ms), interval_ms)
    point = entry_point_of(spec.kind)
    if point is None:
        raise ValueError(f"model.kind is {spec.kind!r}, which is not known; choose one of {', '.join(kinds())}")
    try:
        model = _load(point)(dict(spec.parameters or {}), tuple(seasonality_ms), interval_ms)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        path = ".".join(map(str, ("parameters", *first["loc"])))
        raise ValueError(
            f"{spec.subject}.{path} of kind {spec.kind!r}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{spec.subject}.parameters of kind {spec.kind!r}: {error}") from error
    if not isinstance(model, Model):
        raise ValueError(
            f"the plug-in of model.kind {spec.kind!r}, {origin(point)}, made {type(model).__name__}: "
            "it must make a tidewarden.models.contract.Model"
        )
    return model


def check(detector: AnomalyDetector, stream: MetricStream) -> None:
    """Build the model of a detector, and its candidate's, once, before anything is started, and throw it away.

    A resource file says what is wrong with the parameters of our own kinds; those of a plug-in only it can judge.

    Raises:
        ValueError: as `build` says, with the name of the detector.
    """
    spec = detector.spec
    models = [("", spec.model)] + ([("candidate: ", spec.candidate.model)] if spec.candidate is not None else [])
    for whose, model in models:
        try:
            build(model, spec.seasonality, stream.spec.interval)
        except ValueError as error:
            raise ValueError(f"AnomalyDetector/{detector.metadata.name}: {whose}{error}") from error


def _load(point: EntryPoint) -> Builder:
    """The builder of a plug-in; what goes wrong while its code is imported is said with its name."""
    try:
        builder: Builder = point.load()
    except Exception as error:
        raise ValueError(
            f"the plug-in of model.kind {point.name!r}, {origin(point)}, cannot be loaded "
            f"({type(error).__name__}: {error}): install what it needs, or another version of it"
        ) from error
    return builder
