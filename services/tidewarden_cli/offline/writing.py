"""The output of `score`: CSV (also to stdout) or Parquet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from tidewarden.events import AnomalyKind
from tidewarden.frames import FloatArray
from tidewarden_cli.offline.nodes import NodeScores
from tidewarden_cli.offline.reading import InputError, Readings
from tidewarden_cli.offline.run import FileScores

FORMATS = (".csv", ".csv.gz", ".parquet")


def check_output(output: Path | None) -> None:
    """Refuse an output that could not be written, before an hour is spent on computing it."""
    if output is None:
        return
    if not output.name.lower().endswith(FORMATS):
        raise InputError(f"--output {output}: the ending names the format: use one of {', '.join(FORMATS)}")
    if not output.parent.exists():
        raise InputError(f"--output {output}: the folder {output.parent} does not exist: create it first")


def _numbers(values: FloatArray) -> pa.Array:
    """NaN as null, which is an empty cell in CSV."""
    return pa.array(values, from_pandas=True)


def series_table(readings: Readings, scores: FileScores) -> pa.Table:
    """One row a reading in input order: when and what as in the input, value, and what was said of it."""
    rows = readings.row if readings.metrics else slice(None)
    columns: dict[str, pa.Array] = {
        name: readings.rows[name].take(pa.array(rows)) if readings.metrics else readings.rows[name]
        for name in readings.rows.column_names
    }
    if readings.metrics:
        names = pa.array(readings.metrics)
        columns["metric"] = pa.DictionaryArray.from_arrays(pa.array(readings.series), names).cast(pa.string())
    labels = pa.array([kind.label for kind in AnomalyKind])
    columns["value"] = _numbers(readings.value)
    columns["anomaly_score"] = pa.array(scores.anomaly_score)
    columns["p_value"] = pa.array(scores.p_value)
    columns["expected"] = _numbers(scores.expected)
    columns["lower"] = _numbers(scores.lower)
    columns["upper"] = _numbers(scores.upper)
    columns["kind"] = labels.take(pa.array(scores.kind))
    return pa.table(columns)


def node_table(readings: Readings, nodes: NodeScores) -> pa.Table:
    """One row for each node and time, by first appearance: its score, and the metrics that drive it."""
    first = pa.array(nodes.first_row)
    columns: dict[str, pa.Array] = {
        name: readings.rows[name].take(first) for name in readings.rows.column_names if name != "metric"
    }
    columns["anomaly_score"] = pa.array(nodes.anomaly_score)
    columns["p_value"] = pa.array(nodes.p_value)
    columns["contributions"] = pa.array(nodes.contributions)
    return pa.table(columns)


def write(table: pa.Table, output: Path | None) -> None:
    """Write by the ending of ``output``; None is CSV on stdout."""
    if output is None:
        _write_csv(table, sys.stdout.buffer)
        sys.stdout.flush()
        return
    if output.name.lower().endswith(".parquet"):
        parquet.write_table(table, output, compression="zstd")
    elif output.name.lower().endswith(".gz"):
        with pa.CompressedOutputStream(str(output), "gzip") as packed:
            _write_csv(table, packed)
    else:
        with output.open("wb") as stream:
            _write_csv(table, stream)


def _write_csv(table: pa.Table, stream: BinaryIO | pa.NativeFile) -> None:
    # Arrow quotes the names of all columns; a header without quotes is what people expect to see.
    stream.write((",".join(_quoted(name) for name in table.column_names) + "\n").encode())
    texts = [column for column in table.columns if pa.types.is_string(column.type)]
    # Arrow's "needed" quotes every text, needed or not.
    needed = any(pc.any(pc.match_substring_regex(column, r'[",\r\n]')).as_py() for column in texts)
    options = arrow_csv.WriteOptions(include_header=False, quoting_style="needed" if needed else "none")
    arrow_csv.write_csv(table, stream, options)


def _quoted(name: str) -> str:
    escaped = name.replace('"', '""')
    return f'"{escaped}"' if any(c in name for c in ',"\n') else name
