"""Files of readings: CSV (also .gz) and Parquet, in three forms.

single: ``timestamp,value``. wide: a column a metric, with or without ``timestamp``; one node. long:
``timestamp,tenant,cluster,node,metric,value``; missing name columns get a default. Truth columns
(``label``, ``is_anomaly``, ``kind``) are kept apart and never read as metrics.
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from tidewarden.frames import ByteArray, FloatArray, IntArray, SeriesKey, TimeArray

TIME_COLUMNS = ("timestamp", "time", "datetime")
NAME_COLUMNS = ("tenant", "cluster", "node", "metric")
TRUTH_COLUMNS = ("label", "is_anomaly", "kind")
# What `score` itself writes, so that its output can be read back.
SCORE_COLUMNS = ("anomaly_score", "p_value", "expected", "lower", "upper", "contributions")
DEFAULT_INTERVAL_MS = 60_000
EPOCH_MS = 946_684_800_000  # 2000-01-01T00:00Z, where files without times begin: midnight, as daily seasons expect
JOINER = "\x1f"

Form = Literal["single", "wide", "long"]


class InputError(ValueError):
    """A file that cannot be read as meant; the message names file, row, column, value and remedy."""


@dataclass(slots=True, eq=False)
class Readings:
    """The readings of a file in input order (wide: row by row, each metric column in turn); n of them.

    Attributes:
        path: the file.
        form: how it is laid out.
        rows: the file's columns that say when and what, one entry an input row, as written there.
        metrics: metric of each column in form wide, else empty.
        keys: the series.
        series: index into ``keys``, int32 (n,).
        timestamp: ms since the epoch (n,).
        value: float64 (n,), NaN where missing.
        timed: the file has times of its own; else rows are a minute apart from `EPOCH_MS`.
        truth: label of each input row, uint8, or None where the file has none.
        scores: columns that `score` wrote, one entry an input row.
    """

    path: Path
    form: Form
    rows: pa.Table
    metrics: list[str]
    keys: list[SeriesKey]
    series: IntArray
    timestamp: TimeArray
    value: FloatArray
    timed: bool
    truth: ByteArray | None
    scores: pa.Table

    def __len__(self) -> int:
        return len(self.series)

    @property
    def row(self) -> npt.NDArray[np.int64]:
        """Input row of each reading, 0-based (n,)."""
        return np.arange(len(self.series)) // max(len(self.metrics), 1)

    @property
    def interval_ms(self) -> int:
        """Median spacing of a series' readings; a minute where it cannot be told."""
        order = np.lexsort((self.timestamp, self.series))
        step = np.diff(self.timestamp[order])[np.diff(self.series[order]) == 0]
        step = step[step > 0]
        return max(1, int(np.median(step))) if len(step) else DEFAULT_INTERVAL_MS


def read_readings(path: Path) -> Readings:
    """Read ``path``; InputError says what is wrong with it, where, and what to do."""
    table = _table(path)
    names = table.column_names
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError(f"{path}: column {doubled[0]!r} is there twice: rename one of them")
    by_role = {name.strip().lower(): name for name in reversed(names)}
    time_column = next((by_role[role] for role in TIME_COLUMNS if role in by_role), None)
    truth = _truth(table, by_role)
    reserved = {time_column, *(by_role.get(role) for role in (*TRUTH_COLUMNS, *SCORE_COLUMNS))}
    timestamp = _timestamps(path, table[time_column], time_column) if time_column else _minutes(table.num_rows)
    # `kind` is truth in an input and a finding in an output of `score`; whoever reads it knows which.
    kept = [role for role in (*SCORE_COLUMNS, "kind") if role in by_role]
    scores = table.select([by_role[role] for role in kept]).rename_columns(kept)
    if "metric" in by_role and "value" in by_role:
        return _long(path, table, by_role, time_column, timestamp, truth, scores)
    columns = [name for name in names if name not in reserved and name.strip()]
    if not columns and "anomaly_score" in by_role:  # a node's scores: no reading stands behind a row
        table = table.append_column("value", pa.nulls(table.num_rows))
        columns = ["value"]
    if not columns:
        raise InputError(
            f"{path}: no column to score among {', '.join(names) or 'none'}: "
            "give timestamp,value, or one column a metric, or timestamp,tenant,cluster,node,metric,value"
        )
    node = path.name.split(".")[0] or "file"
    form: Form = "single" if [name.strip().lower() for name in columns] == ["value"] else "wide"
    values = np.stack([_numbers(path, table[name], name) for name in columns], axis=1)
    n = len(columns)
    return Readings(
        path=path,
        form=form,
        rows=pa.table({"timestamp": table[time_column] if time_column else _as_text(timestamp)}),
        metrics=columns if form == "wide" else [],
        keys=[SeriesKey("local", "file", node, name) for name in columns],
        series=np.tile(np.arange(n, dtype=np.int32), table.num_rows),
        timestamp=np.repeat(timestamp, n),
        value=values.ravel(),
        timed=time_column is not None,
        truth=truth,
        scores=scores,
    )


def _long(
    path: Path,
    table: pa.Table,
    by_role: dict[str, str],
    time_column: str | None,
    timestamp: TimeArray,
    truth: ByteArray | None,
    scores: pa.Table,
) -> Readings:
    if time_column is None:
        raise InputError(
            f"{path}: long form (metric,value) needs a timestamp column: add one, or write one column a metric"
        )
    defaults = {"tenant": "local", "cluster": "file", "node": path.name.split(".")[0] or "file"}
    given = [role for role in NAME_COLUMNS if role in by_role]
    parts: list[Any] = []
    for role in NAME_COLUMNS:
        if role not in by_role:
            parts.append(pa.scalar(defaults[role]))
            continue
        column = pc.cast(table[by_role[role]], pa.string())
        empty = pc.index(pc.fill_null(pc.equal(column, ""), True), True).as_py()
        if empty >= 0:
            raise InputError(
                f"{path}: row {empty + 1}, column {by_role[role]!r} is empty: name the {role} of each reading"
            )
        parts.append(column)
    joined = pc.binary_join_element_wise(*parts, JOINER).combine_chunks().dictionary_encode()
    keys = [SeriesKey(*name.split(JOINER)) for name in joined.dictionary.to_pylist()]
    rows = {"timestamp": table[time_column], **{role: table[by_role[role]] for role in given}}
    return Readings(
        path=path,
        form="long",
        rows=pa.table(rows),
        metrics=[],
        keys=keys,
        series=joined.indices.to_numpy().astype(np.int32),
        timestamp=timestamp,
        value=_numbers(path, table[by_role["value"]], by_role["value"]),
        timed=True,
        truth=truth,
        scores=scores,
    )


def _table(path: Path) -> pa.Table:
    if not path.exists():
        raise InputError(f"{path}: there is no such file: check the path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder: name one CSV or Parquet file")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return parquet.read_table(path)
        header = _header(path)
        texts = {name: pa.string() for name in header if name.strip().lower() in (*TIME_COLUMNS, *NAME_COLUMNS, "kind")}
        return arrow_csv.read_csv(path, convert_options=arrow_csv.ConvertOptions(column_types=texts))
    except (pa.ArrowException, OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read as {'Parquet' if 'parquet' in path.suffix else 'CSV'}: {error}: "
            "give a .csv, .csv.gz or .parquet file with a header line"
        ) from None


def _header(path: Path) -> list[str]:
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig", newline="") as lines:
        header = next(csv.reader(lines), [])
    if header and all(_is_number(name) for name in header):
        raise InputError(
            f"{path}: the first line, {','.join(header)[:60]}, is numbers: put a line with column names first"
        )
    return header


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(path: Path, column: pa.ChunkedArray, name: str) -> FloatArray:
    """A column as float64 (n,), nulls as NaN."""
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if (
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    ):
        if pa.types.is_boolean(kind):
            column = pc.cast(column, pa.uint8())
        return np.asarray(pc.cast(column, pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64)
    texts = pc.cast(column, pa.string()).to_pylist()
    values = np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        if text is None or not text.strip():
            continue
        try:
            values[row] = float(text)
        except ValueError:
            raise InputError(
                f"{path}: row {row + 1}, column {name!r}: {text!r} is not a number: "
                "correct it, leave the cell empty to mark it missing, or remove the column"
            ) from None
    return values


def _truth(table: pa.Table, by_role: dict[str, str]) -> ByteArray | None:
    """Labels as uint8 (rows,): 1 where ``label`` or ``is_anomaly`` says so; None where the file has neither."""
    for role in ("label", "is_anomaly"):
        if role not in by_role:
            continue
        column = table[by_role[role]]
        if pa.types.is_string(column.type):
            said = pc.is_in(pc.utf8_lower(column), pa.array(["", "0", "0.0", "false", "no", "none", "normal"]))
            return np.asarray(pc.invert(pc.fill_null(said, True)).to_numpy(zero_copy_only=False)).astype(np.uint8)
        number = pc.fill_null(pc.cast(column, pa.float64(), safe=False) if not pa.types.is_boolean(column.type)
                              else pc.cast(column, pa.uint8()), 0)  # fmt: skip
        return (np.asarray(number.to_numpy(zero_copy_only=False)) > 0).astype(np.uint8)
    return None


def _minutes(n: int) -> TimeArray:
    return EPOCH_MS + DEFAULT_INTERVAL_MS * np.arange(n, dtype=np.int64)


def _as_text(timestamp: TimeArray) -> pa.Array:
    return pc.strftime(pa.array(timestamp // 1000).cast(pa.timestamp("s")), format="%Y-%m-%d %H:%M:%S").cast(
        pa.string()
    )


def _timestamps(path: Path, column: pa.ChunkedArray, name: str) -> TimeArray:
    """Milliseconds since the epoch. Numbers are s, ms, µs or ns by their size; text is ISO 8601, UTC without a zone."""
    empty = pc.is_null(column)
    if pa.types.is_string(column.type):
        empty = pc.fill_null(pc.equal(column, ""), True)
    row = pc.index(empty, True).as_py()
    if row >= 0:
        raise InputError(
            f"{path}: row {row + 1}, column {name!r} is empty: give each reading a time, or drop the column"
        )
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return np.asarray(
            pc.cast(column, pa.timestamp("ms", getattr(kind, "tz", None)), safe=False).cast("int64").to_numpy()
        )
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return _epoch_ms(np.asarray(column.to_numpy()))
    texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    for wanted in (pa.int64(), pa.float64()):
        try:
            return _epoch_ms(np.asarray(pc.cast(texts, wanted).to_numpy()))
        except pa.ArrowInvalid:
            continue
    for zone in (None, "UTC"):
        try:
            moments = pc.cast(texts, pa.timestamp("ns", zone))
            return np.asarray(pc.cast(moments, pa.timestamp("ms", zone), safe=False).cast("int64").to_numpy())
        except pa.ArrowInvalid:
            continue
    return _slow_times(path, texts.to_pylist(), name)


def _slow_times(path: Path, texts: Sequence[str], name: str) -> TimeArray:
    """The same one by one: mixed forms, and the row of the first that is no time."""
    from tidewarden.evaluate.nab import parse_time

    times = np.empty(len(texts), np.int64)
    for row, text in enumerate(texts):
        try:
            times[row] = parse_time(text)
        except ValueError:
            raise InputError(
                f"{path}: row {row + 1}, column {name!r}: {text!r} is not a time: "
                "write it like 2024-05-01T12:00:00Z, or as seconds or milliseconds since 1970"
            ) from None
    return times


def _epoch_ms(number: npt.NDArray[Any]) -> TimeArray:
    """Seconds, ms, µs or ns since the epoch by the size of the largest; small counts are seconds."""
    largest = float(np.max(np.abs(number))) if len(number) else 0.0
    # 1e11 seconds is the year 5138, 1e11 ms is March 1973: the units do not meet in any data worth scoring.
    factor = 1000.0 if largest < 1e11 else 1.0 if largest < 1e14 else 1e-3 if largest < 1e17 else 1e-6
    if number.dtype.kind in "iu" and factor >= 1:
        return number.astype(np.int64) * int(factor)
    return np.round(number * factor).astype(np.int64)
