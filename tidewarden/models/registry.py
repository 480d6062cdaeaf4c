"""Models by kind: those here, and plug-ins that other distributions bring.

A plug-in is an entry point in the group ``tidewarden.models``, named like its kind, that loads to a
function ``(ModelSpec, seasonality_ms, interval_ms) -> Model``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points

from tidewarden.models.auto import Auto
from tidewarden.models.contract import Model
from tidewarden.models.density import Density
from tidewarden.models.ewma import Ewma
from tidewarden.models.mad import Mad
from tidewarden.models.seasonal import Seasonal
from tidewarden.models.static import Static
from tidewarden.resources.anomalydetector import (
    AutoParams,
    DensityParams,
    EwmaParams,
    MadParams,
    ModelSpec,
    SeasonalParams,
    StaticParams,
)

Builder = Callable[[ModelSpec, tuple[int, ...], int], Model]
GROUP = "tidewarden.models"


def _auto(spec: ModelSpec, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    params = spec.auto or AutoParams()
    return Auto(params.warmup, seasonality_ms, interval_ms, params.seed)


def _density(spec: ModelSpec, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    params = spec.density or DensityParams()
    return Density(params.warmup, seasonality_ms, interval_ms, params.seed, params.projections, alone=True)


def _ewma(spec: ModelSpec, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    params = spec.ewma or EwmaParams()
    return Ewma(params.half_life, params.warmup)


def _mad(spec: ModelSpec, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    params = spec.mad or MadParams()
    return Mad(params.half_life, params.warmup)


def _seasonal(spec: ModelSpec, seasonality_ms: tuple[int, ...], interval_ms: int) -> Model:
    params = spec.seasonal or SeasonalParams()
    return Seasonal(params.half_life, params.bins, params.warmup, seasonality_ms, interval_ms)


def _static(spec: ModelSpec, _seasonality_ms: tuple[int, ...], _interval_ms: int) -> Model:
    params = spec.static or StaticParams()
    return Static(params.lower, params.upper)


_BUILT_IN: dict[str, Builder] = {
    "auto": _auto, "density": _density, "ewma": _ewma, "mad": _mad, "seasonal": _seasonal, "static": _static
}  # fmt: skip


def kinds() -> list[str]:
    """Kinds that `build` knows, built in and plugged in, sorted."""
    return sorted({*_BUILT_IN, *(point.name for point in entry_points(group=GROUP))})


def build(spec: ModelSpec, seasonality_ms: Sequence[int], interval_ms: int) -> Model:
    """The model that ``spec`` describes, for seasons and an expected spacing in milliseconds.

    Raises:
        ValueError: no model of that kind is known; the message lists those that are.
    """
    builder = _BUILT_IN.get(spec.kind)
    if builder is None:
        points = entry_points(group=GROUP, name=spec.kind)
        if not points:
            raise ValueError(f"model.kind is {spec.kind!r}, which is not known; choose one of {', '.join(kinds())}")
        builder = next(iter(points)).load()
    return builder(spec, tuple(seasonality_ms), interval_ms)
