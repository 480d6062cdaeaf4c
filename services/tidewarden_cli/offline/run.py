"""Scoring a file: the readings go through the same `Scorer` as a stream's, in time order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tidewarden.frames import ABSENT, SCORE_COLUMNS, ByteArray, FloatArray, Frame, SeriesTable, TimeArray
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.models import at_defaults
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden_cli.offline.reading import EPOCH_MS, InputError, Readings

FRAME_READINGS = 262_144  # bounds the memory of intermediate arrays; the scores do not depend on it
DAY_MS = 86_400_000
WHOLE = {"kind": np.uint8, "flags": np.uint8}  # columns that are not float64


@dataclass(slots=True, eq=False)
class FileScores:
    """What the detector says of each reading of a file, in the file's order; arrays (n,)."""

    anomaly_score: FloatArray
    p_value: FloatArray
    expected: FloatArray
    lower: FloatArray
    upper: FloatArray
    kind: ByteArray
    flags: ByteArray


def detector_spec(model: str) -> AnomalyDetectorSpec:
    """The spec of a detector with this kind of model and otherwise the defaults."""
    try:
        return AnomalyDetectorSpec.model_validate({"stream": "file", "model": at_defaults(model)})
    except ValueError as error:
        raise InputError(f"--model {model}: {_reason(error)}") from None


def _reason(error: ValueError) -> str:
    details = getattr(error, "errors", None)
    return (
        "; ".join(str(problem["msg"]).removeprefix("Value error, ") for problem in details()) if details else str(error)
    )


def score_readings(readings: Readings, spec: AnomalyDetectorSpec, warm: Readings | None = None) -> FileScores:
    """Score every reading of a file against those before it.

    Args:
        readings: the file. Rows out of time order are put in order first: a file has no lateness.
        spec: the detector.
        warm: a clean file to learn from first, as `placed_before` gives it.
    """
    config = ScorerConfig("score", "file", spec, interval_ms=readings.interval_ms, lateness_ms=readings.interval_ms)
    table = SeriesTable()
    try:
        scorer = Scorer(config, table)
    except ValueError as error:
        raise InputError(f"--model {spec.model.kind}: {error}") from None
    if warm is not None:
        _feed(scorer, table, warm, warm.timestamp)
    return _feed(scorer, table, readings, readings.timestamp)


def score_from_state(readings: Readings, config: ScorerConfig, state: bytes, origin: Mapping[str, Any]) -> FileScores:
    """Score every reading of a file with what a registered version has learned.

    Args:
        readings: the file.
        config: of the version.
        state: of the version.
        origin: what names it.
    """
    table = SeriesTable()
    scorer = Scorer(config, table)
    scorer.begin(state, origin)
    return _feed(scorer, table, readings, readings.timestamp)


def placed_before(warm: Readings, readings: Readings) -> Readings:
    """The warm file with its series named like the input's node, ending before the input begins.

    Without times of its own its last row comes one interval before the first of ``readings``; with
    times that would overlap it is moved back by whole days.
    """
    keys = warm.keys
    if readings.form != "long" and readings.keys:
        home = readings.keys[0]
        keys = [key._replace(tenant=home.tenant, cluster=home.cluster, node=home.node) for key in keys]
        if readings.form == "single" and len(keys) == 1:
            keys = [home]
    strangers = {key.metric for key in readings.keys} - {key.metric for key in keys}
    if len(strangers) == len({key.metric for key in readings.keys}):
        raise InputError(
            f"{warm.path}: has none of the metrics of {readings.path} ({', '.join(sorted(strangers)[:5])}): "
            "--warm needs a file of the same form and column names"
        )
    if not len(warm) or not len(readings):
        return replace(warm, keys=keys)
    first, last = int(readings.timestamp.min()), int(warm.timestamp.max())
    if not warm.timed:
        # Rows of the warm file are as far apart as those of the input.
        step = readings.interval_ms
        row = (warm.timestamp - EPOCH_MS) // 60_000
        return replace(warm, keys=keys, timestamp=first - (row.max() + 1 - row) * step)
    if last < first:
        return replace(warm, keys=keys)
    days = -(-(last - first + readings.interval_ms) // DAY_MS)  # whole days keep the time of day, and with it seasons
    return replace(warm, keys=keys, timestamp=warm.timestamp - days * DAY_MS)


def _feed(scorer: Scorer, table: SeriesTable, readings: Readings, timestamp: TimeArray) -> FileScores:
    ids = table.ids_of(readings.keys)
    series = ids[readings.series]
    order: npt.NDArray[np.intp] | slice = slice(None)
    if len(timestamp) and (np.diff(timestamp) < 0).any():
        order = np.argsort(timestamp, kind="stable")
    frame = Frame(table, series[order], timestamp[order], readings.value[order])
    wanted = SCORE_COLUMNS[3:]
    parts: dict[str, list[npt.NDArray[np.generic]]] = {name: [] for name in wanted}
    for start in range(0, len(frame), FRAME_READINGS):
        scores = scorer.score(frame.take(slice(start, start + FRAME_READINGS))).scores
        came = (scores.flags & ABSENT) == 0
        for name in wanted:
            parts[name].append(getattr(scores, name)[came])
    columns = {}
    for name in wanted:
        column = np.concatenate(parts[name]) if parts[name] else np.zeros(0, WHOLE.get(name, np.float64))
        if len(column) != len(frame):
            raise RuntimeError(f"the scorer answered {len(column)} readings of {len(frame)}: this is a bug in it")
        columns[name] = np.empty_like(column)
        columns[name][order] = column
    return FileScores(**columns)
