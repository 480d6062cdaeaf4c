"""Tidewarden's own models on a case, by the path that `tidewarden score` takes."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.accuracy.judging import Scored, node_log10_p
from benchmarks.accuracy.sets import Case, as_one
from tidewarden.evaluate.report import latest_revisions
from tidewarden.events import Anomaly, AnomalyKind
from tidewarden.frames import ABSENT, ByteArray, FloatArray, Frame, SeriesKey, SeriesTable, TimeArray
from tidewarden.models.registry import kinds as kinds_known
from tidewarden.resources import AnomalyDetectorSpec
from tidewarden.resources.models import PARAMETERS, at_defaults
from tidewarden.scoring.decision import DECADES
from tidewarden.scoring.scorer import Scorer, ScorerConfig
from tidewarden_cli.offline.nodes import node_scores
from tidewarden_cli.offline.reading import Readings
from tidewarden_cli.offline.run import FileScores

HOUSE = Path(__file__).resolve().parents[2]
SHIPPED = "shipped"
METRICS_ONLY = "metrics only"
DRIVERS = 3  # metrics that a node's score is the mean of, where nothing else is known
TICKS_AT_ONCE = 4_096  # bounds the memory of a frame: × 40 series, 160,000 readings


def kinds() -> list[str]:
    """Models that can score without being told limits or members."""
    return [kind for kind in kinds_known() if kind not in {"static", "ensemble"}]


def is_seeded(kind: str) -> bool:
    """Whether the model's scores may depend on a seed."""
    parameters = PARAMETERS.get(kind)
    return parameters is not None and "seed" in parameters.model_fields


@functools.cache
def version() -> str:
    """Of all code that a score depends on: models, scoring, their parameters and the roll-up of a file's nodes."""
    digest = hashlib.blake2b(digest_size=8)
    files = [
        *sorted((HOUSE / "tidewarden" / "models").glob("*.py")),
        *sorted((HOUSE / "tidewarden" / "scoring").glob("*.py")),
        HOUSE / "tidewarden" / "resources" / "models.py",
        HOUSE / "services" / "tidewarden_cli" / "offline" / "nodes.py",
    ]
    for file in files:
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def spec_of(kind: str, seed: int) -> AnomalyDetectorSpec:
    """A detector with the model's defaults and this seed."""
    block = at_defaults(kind)
    if is_seeded(kind):
        block[kind] = {"seed": seed}
    return AnomalyDetectorSpec.model_validate({"stream": "accuracy", "model": block})


def top_mean(score: FloatArray) -> FloatArray:
    """Mean of the `DRIVERS` highest scores of each row (n, k) → (n,)."""
    k = score.shape[1]
    if k <= DRIVERS:
        mean: FloatArray = score.mean(axis=1)
        return mean
    top: FloatArray = np.partition(score, k - DRIVERS, axis=1)[:, k - DRIVERS :].mean(axis=1)
    return top


def score_case(case: Case, kind: str, seed: int) -> dict[str, Scored]:
    """What the model says of a case, by variant; rows are those of ``case.values``.

    A single series and a fleet have one variant, as shipped. A node has two: as shipped, with the look at its metrics
    together, and the mean of its three most unusual metrics alone, which shows what the model itself contributes.
    """
    timestamp, values, _ = as_one(case)
    n = len(case.values)
    table = SeriesTable(_keys(case))
    scorer = Scorer(
        ScorerConfig("accuracy", "accuracy", spec_of(kind, seed), case.interval_ms, case.interval_ms), table
    )
    said, anomalies = _feed(scorer, table, timestamp, values)
    k = values.shape[1]
    score = said.anomaly_score.reshape(-1, k)
    if not case.is_node:
        with np.errstate(divide="ignore"):
            rare = -np.log10(said.p_value.reshape(-1, k))
        kind_said = _painted(anomalies, table, timestamp)
        return {SHIPPED: Scored(score[-n:], rare[-n:], kind_said[-n:])}
    readings = Readings(
        Path(case.name), "wide", pa.table({}), [key.metric for key in table.keys], list(table.keys),
        np.tile(np.arange(k, dtype=np.int32), len(values)), np.repeat(timestamp, k), values.ravel(), True, None,
        pa.table({}),
    )  # fmt: skip
    whole = node_scores(readings, said).anomaly_score
    alone = top_mean(score)
    return {
        name: Scored(one[-n:, None], node_log10_p(one)[-n:, None])
        for name, one in ((SHIPPED, whole), (METRICS_ONLY, alone))
    }


def _keys(case: Case) -> list[SeriesKey]:
    k = case.values.shape[1]
    if case.is_node:
        return [SeriesKey("local", case.set, case.name, f"m{i}") for i in range(k)]
    return [SeriesKey("local", case.set, f"n{i:05d}", "value") for i in range(k)]


def _feed(
    scorer: Scorer, table: SeriesTable, timestamp: TimeArray, values: FloatArray
) -> tuple[FileScores, list[Anomaly]]:
    """Scores of each reading, row by row, and the anomalies. Rows that go back in time are put in order first."""
    order = np.argsort(timestamp, kind="stable")
    k = values.shape[1]
    parts: dict[str, list[Any]] = {name: [] for name in ("anomaly_score", "p_value", "kind", "flags")}
    anomalies: list[Anomaly] = []
    for first in range(0, len(order), TICKS_AT_ONCE):
        rows = order[first : first + TICKS_AT_ONCE]
        frame = Frame(
            table, np.tile(np.arange(k, dtype=np.int32), len(rows)), np.repeat(timestamp[rows], k), values[rows].ravel()
        )
        scored = scorer.score(frame)
        anomalies.extend(scored.anomalies)
        came = (scored.scores.flags & ABSENT) == 0
        for name, part in parts.items():
            part.append(getattr(scored.scores, name)[came])
    columns = {}
    for name, part in parts.items():
        joined = np.concatenate(part).reshape(len(order), k)
        columns[name] = np.empty_like(joined)
        columns[name][order] = joined
    nothing = np.zeros(0)
    return FileScores(
        columns["anomaly_score"].ravel(), columns["p_value"].ravel(), nothing, nothing, nothing,
        columns["kind"].ravel(), columns["flags"].ravel(),
    ), anomalies  # fmt: skip


def _painted(anomalies: Iterable[Anomaly], table: SeriesTable, timestamp: TimeArray) -> ByteArray:
    """The kind in each anomaly's last revision over its readings, (n, k); 0 elsewhere."""
    kind = np.zeros((len(timestamp), len(table)), np.uint8)
    for anomaly in latest_revisions(anomalies):
        within = (timestamp >= anomaly.onset) & (timestamp <= anomaly.end)
        kind[within, table.id_of(anomaly.series)] = int(AnomalyKind.parse(anomaly.kind))
    return kind


def as_score(log10_p: FloatArray) -> FloatArray:
    """The score that −log10 p stands for, in [0, 1]."""
    score: FloatArray = np.minimum(log10_p / DECADES, 1.0)
    return score
