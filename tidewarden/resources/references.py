"""Checks across resources: what one names, another must be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidewarden.resources import AlertPolicy, AnomalyDetector, AnyResource, MetricSimulation, MetricStream
from tidewarden.resources.base import format_duration
from tidewarden.resources.likeness import did_you_mean
from tidewarden.resources.metricsimulation import Replay
from tidewarden.resources.models import ModelSpec

Key = tuple[str, str]  # namespace and name


@dataclass(frozen=True, slots=True)
class Finding:
    """A reference that leads nowhere, or what does not fit the resource it leads to."""

    resource: AnyResource
    path: tuple[str | int, ...]
    message: str


def check_references(
    streams: Sequence[MetricStream],
    simulations: Sequence[MetricSimulation],
    detectors: Sequence[AnomalyDetector],
    policies: Sequence[AlertPolicy],
    *,
    incomplete: bool = False,
) -> Iterator[Finding]:
    """Every reference that leads nowhere, and what does not fit the resource it leads to.

    Args:
        streams: the resources of one bundle, as the three that follow.
        simulations: see ``streams``.
        detectors: see ``streams``.
        policies: see ``streams``.
        incomplete: some resources could not be parsed, so a name that is not found may be theirs:
            nothing is said of those.
    """
    by_name = {_key(stream): stream for stream in streams}
    watchers = {_key(detector): detector for detector in detectors}
    for stream in streams:
        yield from _check_source_tenants(stream)
    dependents: list[MetricSimulation | AnomalyDetector | AlertPolicy] = [*simulations, *detectors, *policies]
    for resource in dependents:
        stream_name = resource.spec.stream
        home = by_name.get((resource.metadata.namespace, stream_name))
        if home is None:
            if not incomplete:
                message = _nowhere("MetricStream", stream_name, resource.metadata.namespace, by_name)
                yield Finding(resource, ("spec", "stream"), message)
        elif isinstance(resource, MetricSimulation):
            yield from _check_simulated_tenants(resource, home)
        elif isinstance(resource, AnomalyDetector):
            yield from _check_selected_tenants(resource, home)
            yield from _check_seasons(resource, home)
    for simulation in simulations:
        yield from _check_evaluate(simulation, watchers, incomplete=incomplete)


def _check_source_tenants(stream: MetricStream) -> Iterator[Finding]:
    for position, source in enumerate(stream.spec.sources):
        for kind, tenant in (
            ("file", source.file.tenant if source.file is not None else None),
            ("prometheus", source.prometheus.tenant if source.prometheus is not None else None),
        ):
            if tenant is not None and tenant not in stream.spec.tenants:
                path = ("spec", "sources", position, kind, "tenant")
                yield Finding(stream, path, _stranger(tenant, stream))
        asked = source.prometheus
        if asked is not None and len(stream.spec.tenants) > 1 and asked.tenant is None and asked.labels.tenant is None:
            message = (
                f"source {source.name!r} has no tenant, but the stream has several: "
                "give prometheus.tenant or prometheus.labels.tenant"
            )
            yield Finding(stream, ("spec", "sources", position, "prometheus"), message)


def _check_simulated_tenants(simulation: MetricSimulation, stream: MetricStream) -> Iterator[Finding]:
    spec = simulation.spec
    if spec.fleet is not None:
        for position, tenant in enumerate(spec.fleet.tenants):
            if tenant not in stream.spec.tenants:
                path = ("spec", "fleet", "tenants", position)
                yield Finding(simulation, path, _stranger(tenant, stream))
    # A file of one's own may name its tenants row by row; only where it surely does not, the default counts.
    replay = spec.replay
    if (
        replay is not None
        and (replay.dataset is not None or replay.tenant != Replay.model_fields["tenant"].default)
        and replay.tenant not in stream.spec.tenants
    ):
        yield Finding(simulation, ("spec", "replay", "tenant"), _stranger(replay.tenant, stream))


def _check_selected_tenants(detector: AnomalyDetector, stream: MetricStream) -> Iterator[Finding]:
    for position, pattern in enumerate(detector.spec.select.tenants):
        if not pattern.endswith("*") and pattern not in stream.spec.tenants:
            path = ("spec", "select", "tenants", position)
            yield Finding(detector, path, _stranger(pattern, stream))


def _check_seasons(detector: AnomalyDetector, stream: MetricStream) -> Iterator[Finding]:
    """Model seasonal must see a season before it scores, and a season must be longer than what one reading says."""
    spec, interval = detector.spec, stream.spec.interval
    models: list[tuple[tuple[str, ...], ModelSpec]] = [(("model",), spec.model)]
    if spec.candidate is not None:
        models.append((("candidate", "model"), spec.candidate.model))
    seasonal = [
        ((*whose, *path), single.seasonal)
        for whose, model in models
        for path, single in model.singles()
        if single.kind == "seasonal"
    ]
    if not seasonal or not spec.seasonality:
        return
    for position, season in enumerate(spec.seasonality):
        if season < 2 * interval:
            message = (
                f"season {format_duration(season)} has less than two readings at the interval "
                f"{format_duration(interval)} of MetricStream {stream.metadata.name!r}: write a longer season"
            )
            yield Finding(detector, ("spec", "seasonality", position), message)
    shortest = min(spec.seasonality)
    for path, block in seasonal:
        warmup = block.warmup if block is not None else None
        if warmup is None or warmup * interval >= shortest:
            continue
        message = (
            f"{warmup} readings are {format_duration(warmup * interval)} at the interval {format_duration(interval)} "
            f"of MetricStream {stream.metadata.name!r}, less than the season {format_duration(shortest)}: "
            f"write at least {-(-shortest // interval)}, or remove it for two seasons"
        )
        yield Finding(detector, ("spec", *path, "seasonal", "warmup"), message)


def _check_evaluate(
    simulation: MetricSimulation, watchers: Mapping[Key, AnomalyDetector], *, incomplete: bool
) -> Iterator[Finding]:
    for position, name in enumerate(simulation.spec.evaluate):
        path = ("spec", "evaluate", position)
        detector = watchers.get((simulation.metadata.namespace, name))
        if detector is None:
            if not incomplete:
                message = _nowhere("AnomalyDetector", name, simulation.metadata.namespace, watchers)
                yield Finding(simulation, path, message)
        elif detector.spec.stream != simulation.spec.stream:
            message = (
                f"{name!r} watches stream {detector.spec.stream!r}, this simulation feeds "
                f"{simulation.spec.stream!r}: name a detector of that stream"
            )
            yield Finding(simulation, path, message)


def _stranger(tenant: str, stream: MetricStream) -> str:
    tenants = stream.spec.tenants
    hint = did_you_mean(tenant, tenants) or f": add it to spec.tenants of the stream, or use {' or '.join(tenants)}"
    return f"{tenant!r} is not a tenant of MetricStream {stream.metadata.name!r}{hint}"


def _nowhere(kind: str, name: str, namespace: str, known: Iterable[Key]) -> str:
    names = [other for space, other in known if space == namespace]
    elsewhere = [space for space, other in known if other == name]
    if elsewhere:
        return f"{kind} {name!r} is in namespace {elsewhere[0]!r}, this resource in {namespace!r}: use one namespace"
    hint = did_you_mean(name, names)
    if not hint:
        hint = f": there are {', '.join(names)}" if names else f": there is no {kind}, add one"
    return f"no {kind} is called {name!r}{hint}"


def _key(resource: AnyResource) -> Key:
    return resource.metadata.namespace, resource.metadata.name
