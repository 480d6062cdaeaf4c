"""Scoring a file with a registered version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tidewarden.frames import SeriesKey
from tidewarden.registry.opening import open_registry
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.scoring.scorer import ScorerConfig
from tidewarden.scoring.snapshots import unpack
from tidewarden_cli.offline.reading import InputError, Readings, read_readings
from tidewarden_cli.offline.run import score_from_state
from tidewarden_cli.offline.score import Level
from tidewarden_cli.offline.writing import check_output, node_table, series_table, write
from tidewarden_cli.training.models import reference_of
from tidewarden_cli.training.train import clear_failures


def score_from(
    input_file: Path, trained: str, address: str, model: str, warm: Path | None, level: Level, output: Path | None
) -> None:
    """``tidewarden score INPUT --from DETECTOR@VERSION``."""
    from tidewarden_cli.offline.nodes import node_scores

    if warm is not None or model != "auto":
        raise InputError(f"--from {trained}: brings its model and what it has learned: leave out --model and --warm")
    check_output(output)
    detector, _, version = trained.partition("@")
    with clear_failures():
        registry = open_registry(address)
        manifest = registry.resolve(detector, reference_of(version or "champion"))
        state = registry.state(manifest)
    spec = AnomalyDetectorSpec.model_validate(
        {"stream": "file", "model": manifest.model, "seasonality": manifest.seasonality_ms}
    )
    interval_ms = manifest.window.interval_ms
    config = ScorerConfig(detector, "file", spec, interval_ms=interval_ms, lateness_ms=interval_ms)
    readings = _named_like(read_readings(input_file), [SeriesKey(*key) for key in unpack(state)[0]["series"]], trained)
    origin = {"detector": detector, "version": manifest.version, "sha256": manifest.state_sha256}
    try:
        scores = score_from_state(readings, config, state, origin)
    except ValueError as error:
        raise InputError(f"--from {trained}: {error}") from None
    if level is Level.node:
        write(node_table(readings, node_scores(readings, scores, None)), output)
    else:
        write(series_table(readings, scores), output)


def _named_like(readings: Readings, known: list[SeriesKey], trained: str) -> Readings:
    """The readings with their series named as in the training: a file that names no node is of the only one there."""
    homes = {key[:3] for key in known}
    if readings.form != "long" and len(homes) == 1:
        home = known[0]
        keys = [key._replace(tenant=home.tenant, cluster=home.cluster, node=home.node) for key in readings.keys]
        readings = replace(readings, keys=keys)
    if not set(readings.keys) & set(known):
        raise InputError(
            f"{readings.path}: has none of the {len(known)} series that {trained} has learned, which are like "
            f"{'/'.join(known[0])}: name tenant, cluster, node and metric as the training data did"
        )
    return readings
