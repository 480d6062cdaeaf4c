"""Models by kind: those here, and plug-ins that other distributions bring.

A plug-in is an entry point in the group ``tidewarden.models``, named like its kind, that loads to a
function ``(ModelSpec, seasonality_ms, interval_ms) -> Model``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from tidewarden.models.auto import Auto
from tidewarden.models.contract import Model
from tidewarden.models.dbscan import Dbscan
from tidewarden.models.density import Density
from tidewarden.models.ecod import Ecod
from tidewarden.models.ewma import Ewma
from tidewarden.models.histogram import Histogram
from tidewarden.models.knn import Knn
from tidewarden.models.lof import Lof
from tidewarden.models.mad import Mad
from tidewarden.models.mahalanobis import Mahalanobis
from tidewarden.models.matrix_profile import MatrixProfile
from tidewarden.models.one_class_svm import OneClassSvm
from tidewarden.models.pca import Pca
from tidewarden.models.seasonal import Seasonal
from tidewarden.models.static import Static
from tidewarden.resources.models import (
    AutoParams,
    DbscanParams,
    DensityParams,
    EcodParams,
    EwmaParams,
    HistogramParams,
    KnnParams,
    LofParams,
    MadParams,
    MahalanobisParams,
    MatrixProfileParams,
    ModelSpec,
    OneClassSvmParams,
    PcaParams,
    SeasonalParams,
    StaticParams,
)

Builder = Callable[[Any, tuple[int, ...], int], Model]
"""Makes a model of its block of parameters, the seasons and the expected spacing in milliseconds."""
GROUP = "tidewarden.models"


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


_BUILT_IN: dict[str, Builder] = {
    "auto": _auto, "density": _density, "ewma": _ewma, "mad": _mad, "seasonal": _seasonal, "static": _static,
    "knn": _knn, "lof": _lof, "dbscan": _dbscan, "ecod": _ecod, "histogram": _histogram,
    "matrix_profile": _matrix_profile, "pca": _pca, "mahalanobis": _mahalanobis, "one_class_svm": _one_class_svm,
}  # fmt: skip


def kinds() -> list[str]:
    """Kinds that `build` knows, built in and plugged in, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def build(spec: ModelSpec, seasonality_ms: Sequence[int], interval_ms: int) -> Model:
    """The model that ``spec`` describes, for seasons and an expected spacing in milliseconds.

    Raises:
        ValueError: no model of that kind is known; the message lists those that are.
    """
    if spec.kind in _BUILT_IN:
        return _BUILT_IN[spec.kind](spec.parameters, tuple(seasonality_ms), interval_ms)
    points = entry_points(group=GROUP, name=spec.kind)
    if not points:
        raise ValueError(f"model.kind is {spec.kind!r}, which is not known; choose one of {', '.join(kinds())}")
    plugged_in: Model = next(iter(points)).load()(spec, tuple(seasonality_ms), interval_ms)
    return plugged_in
