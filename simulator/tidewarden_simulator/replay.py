"""Recorded series with labels: a CSV or Parquet file, a folder of them, or a set that ships with Tidewarden.

A file is `timestamp,value`, wide (a column a metric) or long (`metric` and `value` columns); tenant, cluster
and node come from columns of these names, or from the resource and the file's stem. Labels are read here
and nowhere else; they travel beside the readings for evaluation, and no detector sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tidewarden.events import AnomalyKind
from tidewarden.frames import ByteArray, FloatArray, IntArray, SeriesKey, TimeArray
from tidewarden.resources.metricsimulation import Replay
from tidewarden_simulator.anomalies import TruthEvent
from tidewarden_simulator.datasets import NAB, NAB_CLUSTERS, NAB_SERIES, nab_windows
from tidewarden_simulator.tables import ENDINGS, Columns, read_columns, stem_of


@dataclass(slots=True, eq=False)
class Recorded:
    """One recorded series in time order; arrays of shape (n,)."""

    key: SeriesKey
    timestamp: TimeArray
    value: FloatArray
    label: ByteArray


@dataclass(slots=True, eq=False)
class Recording:
    """Recorded series joined into ticks.

    Attributes:
        keys: the series; the index is what ``series`` holds.
        series: index of the series of each reading, in time order, readings of a tick together.
        timestamp: ms since the epoch, UTC.
        value: NaN where missing.
        label: `AnomalyKind` as uint8.
        tick_times: distinct timestamps, ascending.
        tick_rows: row of the first reading of each tick, and the number of rows at the end.
    """

    keys: list[SeriesKey]
    series: IntArray
    timestamp: TimeArray
    value: FloatArray
    label: ByteArray
    tick_times: TimeArray
    tick_rows: npt.NDArray[np.int64]


def load(
    replay: Replay, *, interval_ms: int, base_dir: Path, points: int | None, labelled: bool = True
) -> list[Recorded]:
    """The recorded series as they are in their files, sorted by name, from each as long as ``points`` ticks last.

    Args:
        replay: what to read.
        interval_ms: spacing of rows in files without timestamps.
        base_dir: folder of the resource file.
        points: how long each series lasts, in ticks of its usual spacing or of ``interval_ms`` where that is
            larger; by time, so that holes in one recording do not make it end after the others. None: all.
        labelled: read the labels; else everything counts as normal.

    Raises:
        ValueError: a file cannot be read as metrics; the message names it and says what to do.
    """
    found = _nab(replay) if replay.dataset is not None else _from_files(replay, interval_ms, base_dir, labelled)
    merged: dict[SeriesKey, list[Recorded]] = {}
    for one in found:
        if not replay.include or any(part in one.key.path for part in replay.include):
            merged.setdefault(one.key, []).append(one)
    if not merged:
        wanted = f" whose name contains one of {replay.include}" if replay.include else ""
        raise ValueError(f"replay: {replay.path or replay.dataset} has no series{wanted}; see replay.include")
    return [_in_time_order(key, parts, points, interval_ms) for key, parts in sorted(merged.items())]


def join(recorded: list[Recorded], *, start_ms: int | None) -> Recording:
    """The series as one recording; with ``start_ms`` each is shifted so that it begins there."""
    shifts = [0 if start_ms is None else start_ms - int(one.timestamp[0]) for one in recorded]
    timestamp = np.concatenate([one.timestamp + shift for one, shift in zip(recorded, shifts, strict=True)])
    series = np.repeat(np.arange(len(recorded), dtype=np.int32), [len(one.timestamp) for one in recorded])
    order = np.argsort(timestamp, kind="stable")
    timestamp = timestamp[order]
    begins = np.flatnonzero(np.diff(timestamp, prepend=timestamp[0] - 1))
    return Recording(
        [one.key for one in recorded],
        series[order],
        timestamp,
        np.concatenate([one.value for one in recorded])[order],
        np.concatenate([one.label for one in recorded])[order],
        timestamp[begins],
        np.append(begins, len(timestamp)),
    )


def truth_of(recorded: list[Recorded], *, start_ms: int | None) -> Iterator[TruthEvent]:
    """Each run of readings with the same label as an event, series by series."""
    for one in recorded:
        shift = 0 if start_ms is None else start_ms - int(one.timestamp[0])
        edges = np.flatnonzero(np.diff(one.label, prepend=np.uint8(0), append=np.uint8(0)))
        for onset, end in zip(edges[:-1].tolist(), (edges[1:] - 1).tolist(), strict=True):
            if one.label[onset]:
                yield TruthEvent(
                    one.key,
                    onset,
                    int(one.timestamp[onset]) + shift,
                    end,
                    int(one.timestamp[end]) + shift,
                    AnomalyKind(int(one.label[onset])),
                    float("nan"),
                )


def _in_time_order(key: SeriesKey, parts: list[Recorded], points: int | None, interval_ms: int) -> Recorded:
    timestamp = np.concatenate([part.timestamp for part in parts])
    order = np.argsort(timestamp, kind="stable")
    timestamp = timestamp[order]
    if points is not None and len(timestamp) > 1:
        tick_ms = max(interval_ms, int(np.median(np.diff(timestamp))))
        order = order[: np.searchsorted(timestamp, timestamp[0] + points * tick_ms)]
    value = np.concatenate([part.value for part in parts])[order]
    label = np.concatenate([part.label for part in parts])[order]
    return Recorded(key, timestamp[: len(order)], value, label)


def _nab(replay: Replay) -> Iterator[Recorded]:
    windows = nab_windows()
    for folder, cluster in NAB_CLUSTERS.items():
        for path in sorted((NAB / folder).glob("*.csv.gz")):
            stem = stem_of(path)
            node, metric = NAB_SERIES[stem]
            # The sets differ in origin; a cluster of each shows that, unless the resource wants its own.
            cluster_name = cluster if replay.cluster == "default" else replay.cluster
            columns = read_columns(path)
            timestamp, value = columns.times_ms(60_000), columns.floats("value")
            label = np.zeros(len(value), np.uint8)
            for begin, end in windows[stem]:
                label[(timestamp >= begin) & (timestamp <= end)] = AnomalyKind.UNSPECIFIED
            yield Recorded(SeriesKey(replay.tenant, cluster_name, node, metric), timestamp, value, label)


def _from_files(replay: Replay, interval_ms: int, base_dir: Path, labelled: bool) -> Iterator[Recorded]:
    assert replay.path is not None
    path = base_dir / replay.path
    if path.is_dir():
        files = _files_in(path)
    elif path.is_file():
        files = [path]
    else:
        raise ValueError(f"replay.path: there is no file or folder {path}; it is relative to the resource file")
    for file in files:
        yield from _from_file(file, replay, interval_ms, labelled)


def _files_in(folder: Path) -> list[Path]:
    """Files of metrics below ``folder``, one a name: Parquet where the same is there as CSV, too."""
    chosen: dict[tuple[Path, str], Path] = {}
    for ending in ENDINGS:  # Parquet comes after CSV
        for path in folder.rglob(f"*{ending}"):
            # What `tidewarden generate` writes about its series holds no readings.
            if path.is_file() and path.name != "metadata.csv":
                chosen[path.parent, stem_of(path)] = path
    if not chosen:
        raise ValueError(f"replay.path: no file in {folder} ends in {', '.join(ENDINGS)}")
    return sorted(chosen.values())


def _from_file(path: Path, replay: Replay, interval_ms: int, labelled: bool) -> Iterator[Recorded]:
    columns = read_columns(path)
    label = _labels(columns, replay.label_column) if labelled else np.zeros(len(columns), np.uint8)
    names = [
        columns.encoded("tenant", replay.tenant),
        columns.encoded("cluster", replay.cluster),
        columns.encoded("node", stem_of(path)),
    ]
    metrics = columns.metrics(replay.label_column)
    if columns.is_long:
        names.append(columns.encoded("metric", ""))
        metrics = {"value": ""}
    elif not metrics:
        raise ValueError(f"{path}: no column holds numbers; there are: {columns.described()}")
    owners, order, bounds = _groups(names, len(columns))
    if not columns.has_time and (columns.is_long or len(owners) > 1):
        raise ValueError(f"{path}: has no timestamp column, so its rows cannot be put in order; add one")
    timestamp = columns.times_ms(interval_ms)
    for column, metric in metrics.items():
        value = columns.floats(column)
        for owner, first, last in zip(owners, bounds[:-1], bounds[1:], strict=True):
            rows = order[first:last]
            key = SeriesKey(*owner) if columns.is_long else SeriesKey(owner[0], owner[1], owner[2], metric)
            if columns.nulls_are_absent:
                rows = rows[~np.isnan(value[rows])]
            if len(rows):
                yield Recorded(key, timestamp[rows], value[rows], label[rows])


def _groups(
    names: list[tuple[list[str], IntArray | None]], rows: int
) -> tuple[list[tuple[str, ...]], npt.NDArray[np.intp], list[int]]:
    """Distinct combinations of the naming columns; the rows in their order, and where each one's rows begin."""
    code = np.zeros(rows, np.int64)
    for values, indices in names:
        code *= len(values)
        if indices is not None:
            code += indices
    order = np.argsort(code, kind="stable")
    begins = np.flatnonzero(np.diff(code[order], prepend=-1))
    owners = [
        tuple(values[0 if indices is None else int(indices[row])] for values, indices in names)
        for row in order[begins].tolist()
    ]
    return owners, order, [*begins.tolist(), rows]


def _labels(columns: Columns, label_column: str | None) -> ByteArray:
    """Truth of each row: 0 normal, a kind where the file names one, else UNSPECIFIED."""
    if label_column is not None:
        if label_column not in columns.names:
            raise ValueError(
                f"{columns.path}: there is no column {label_column!r} (replay.labelColumn); "
                f"there are: {', '.join(columns.names)}"
            )
        return columns.kinds(label_column)
    for name in ("label", "is_anomaly"):
        if name in columns.names:
            label = columns.kinds(name)
            if "kind" in columns.names:
                named = columns.kinds("kind")
                label = np.where((label != 0) & (named != 0), named, label)
            return label
    return np.zeros(len(columns), np.uint8)
