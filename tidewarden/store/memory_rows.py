"""The rows of the memory store: bounded chunks of columns, filters, and the join of readings with scores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tidewarden.events import Alert, Anomaly, AnomalyKind, Feedback, Rejection
from tidewarden.frames import ABSENT, BoolArray
from tidewarden.store.port import Query

SCORE_FACTS = ("timestamp", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "kind", "flags")

Columns = dict[str, npt.NDArray[Any]]
E = TypeVar("E", Anomaly, Alert, Rejection, Feedback)


class Rows:
    """Fact rows in chunks as they were written; whole chunks fall out at the old end."""

    def __init__(self, max_rows: int) -> None:
        self._chunks: deque[Columns] = deque()
        self._max_rows = max_rows
        self.count = 0

    def append(self, columns: Columns) -> None:
        """Add a chunk; what falls out at the old end is forgotten."""
        size = len(columns["timestamp"])
        if size == 0:
            return
        if size > self._max_rows:
            columns = {name: column[-self._max_rows :] for name, column in columns.items()}
            size = self._max_rows
        self._chunks.append(columns)
        self.count += size
        while self.count > self._max_rows:
            self.count -= len(self._chunks.popleft()["timestamp"])

    def select(self, mask: Callable[[Columns], BoolArray]) -> Columns | None:
        """The rows where ``mask`` holds, in the order in which they were written; None for none at all."""
        found = []
        for chunk in self._chunks:
            chosen = mask(chunk)
            if chosen.any():
                found.append({name: column[chosen] for name, column in chunk.items()})
        if not found:
            return None
        return {name: np.concatenate([chunk[name] for chunk in found]) for name in found[0]}

    def remove(self, mask: Callable[[Columns], BoolArray]) -> int:
        """Forget the rows where ``mask`` holds; how many."""
        before, kept = self.count, deque[Columns]()
        for chunk in self._chunks:
            stays = ~mask(chunk)
            if stays.any():
                kept.append({name: column[stays] for name, column in chunk.items()})
        self._chunks = kept
        self.count = sum(len(chunk["timestamp"]) for chunk in kept)
        return before - self.count


def names_fit(query: Query, thing: Any) -> bool:
    """Whether the names that the query asks for are those of ``thing``, as far as it has such a name."""
    return all(
        getattr(query, name) is None or getattr(query, name) == getattr(thing, name, getattr(query, name))
        for name in ("stream", "tenant", "cluster", "node", "metric")
    )


def names_some(query: Query, paths: list[str]) -> bool:
    """Whether one of ``paths`` (tenant/cluster/node/metric) is of the cluster, node and metric asked for."""
    wanted = (query.cluster, query.node, query.metric)
    if wanted == (None, None, None):
        return True
    for path in paths:
        parts = path.split("/")[1:]
        if all(name is None or name == part for name, part in zip(wanted, parts, strict=False)):
            return True
    return False


def in_range(query: Query, timestamp: npt.NDArray[np.int64]) -> BoolArray:
    """Which timestamps lie in [since, until)."""
    inside = np.ones(len(timestamp), bool)
    if query.since is not None:
        inside &= timestamp >= query.since
    if query.until is not None:
        inside &= timestamp < query.until
    return inside


def overlaps(query: Query, begin: int, end: int, score: float) -> bool:
    """Whether an event reaches into the range and its score is high enough."""
    return (
        (query.since is None or end >= query.since)
        and (query.until is None or begin < query.until)
        and (query.min_score is None or score >= query.min_score)
    )


def within(query: Query, moment: int) -> bool:
    """Whether a moment lies in the range."""
    return (query.since is None or moment >= query.since) and (query.until is None or moment < query.until)


def ordered(query: Query, events: list[E], moment: Callable[[E], int]) -> list[E]:
    """The first ``limit`` events from the end that the query wants."""
    sign = -1 if query.newest_first else 1
    return sorted(events, key=lambda event: (sign * moment(event), event.id))[: query.limit]


def null(value: Any) -> float | None:
    """NaN is how frames say "missing"; readers of a store get null."""
    return None if np.isnan(value) else float(value)


def joined(readings: Columns | None, scores: Columns | None, *, only_scored: bool) -> list[dict[str, Any]]:
    """A row for each pair of reading and score, for each reading without a score and each score without a reading."""
    by_place: dict[tuple[int, int], list[dict[str, Any]]] = {}
    found: list[dict[str, Any]] = []
    values = {} if readings is None else {name: readings[name].tolist() for name in readings}
    rows = [] if readings is None else list(zip(values["series"], values["timestamp"], strict=True))
    known = set(rows)
    kinds = [kind.label for kind in AnomalyKind]
    for i in range(0 if scores is None else len(scores["timestamp"])):
        assert scores is not None
        row: dict[str, Any] = {name: scores[name][i].item() for name in ("series", *SCORE_FACTS)}
        row |= {name: null(row[name]) for name in ("value", "expected", "lower", "upper")}
        row |= {"kind": kinds[row["kind"]], "detector_id": scores["detector"][i].item(), "label": None}
        place = (row["series"], row["timestamp"])
        if row["flags"] & ABSENT or place not in known:
            found.append(row)
        else:
            by_place.setdefault(place, []).append(row)
    for i, place in enumerate(rows):
        label = values["label"][i] if values["labelled"][i] else None
        reading = {"series": place[0], "timestamp": place[1], "value": null(values["value"][i]), "label": label}
        scored = by_place.get(place)
        if scored is not None:
            found += [{**score, "label": label, "value": reading["value"]} for score in scored]
        elif not only_scored:
            found.append({**reading, "detector_id": None})
    return found
