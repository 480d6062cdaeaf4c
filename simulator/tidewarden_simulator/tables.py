"""Files of metrics as columns: CSV (also .gz), Parquet and JSON lines, for replay and playback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from tidewarden.events import AnomalyKind
from tidewarden.frames import ByteArray, FloatArray, IntArray, TimeArray

ENDINGS = (".json", ".ndjson", ".jsonl", ".csv.gz", ".csv", ".parquet")
TIME_COLUMNS = ("timestamp", "time", "ts", "datetime", "date")
# Columns that say something about a reading and are no metric themselves.
NO_METRICS = (*TIME_COLUMNS, "tenant", "cluster", "node", "metric", "label", "is_anomaly", "kind", "unit")
_SECONDS_BELOW = 1e11  # as seconds the year 5138, as milliseconds 1973


def stem_of(path: Path) -> str:
    """The file's name without its endings: ``cpu.csv.gz`` is ``cpu``."""
    name = path.name
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return path.stem


def read_columns(path: Path) -> Columns:
    """The file as columns; ValueError names the file and what is wrong with it."""
    readers: dict[str, Callable[[Path], Any]] = {
        ".csv": pyarrow.csv.read_csv,
        ".csv.gz": pyarrow.csv.read_csv,
        ".parquet": pyarrow.parquet.read_table,
        ".jsonl": pyarrow.json.read_json,
        ".ndjson": pyarrow.json.read_json,
        ".json": pyarrow.json.read_json,
    }
    reader = next((r for ending, r in readers.items() if path.name.lower().endswith(ending)), None)
    if reader is None:
        raise ValueError(f"{path}: unknown kind of file; its name must end in {', '.join(ENDINGS)}")
    try:
        table = reader(path)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from error
    if table.num_rows == 0:
        raise ValueError(f"{path}: has no rows")
    return Columns(path, table)


class Columns:
    """The columns of one file, converted on demand."""

    def __init__(self, path: Path, table: Any) -> None:
        self.path = path
        # JSON of one object a node: what one node does not measure is absent, not missing.
        self.nulls_are_absent = "metrics" in table.column_names and pa.types.is_struct(table["metrics"].type)
        if self.nulls_are_absent:
            table = table.flatten()
            table = table.rename_columns([name.removeprefix("metrics.") for name in table.column_names])
        self._table = table
        self.names: list[str] = list(table.column_names)
        self._time = next((name for name in self.names if name.lower() in TIME_COLUMNS), None)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    @property
    def is_long(self) -> bool:
        """Whether each row is one reading of a named metric."""
        return "metric" in self.names and "value" in self.names

    @property
    def has_time(self) -> bool:
        """Whether there is a column of timestamps."""
        return self._time is not None

    def described(self) -> str:
        """The columns and their types, for messages."""
        return ", ".join(f"{field.name} ({field.type})" for field in self._table.schema)

    def metrics(self, label_column: str | None = None) -> dict[str, str]:
        """Columns that hold numbers and are not known as something else, column → metric."""
        return {
            field.name: field.name
            for field in self._table.schema
            if field.name.lower() not in NO_METRICS
            and field.name != label_column
            and (pa.types.is_integer(field.type) or pa.types.is_floating(field.type) or pa.types.is_decimal(field.type))
        }

    def times_ms(self, interval_ms: int) -> TimeArray:
        """Milliseconds since the epoch, UTC; rows are ``interval_ms`` apart where no column says when.

        Text and timestamps without a zone are UTC; numbers are seconds below 1e11, else milliseconds.
        """
        if self._time is None:
            return np.arange(len(self), dtype=np.int64) * interval_ms
        column = self._table[self._time]
        if column.null_count:
            raise ValueError(f"{self.path}: column {self._time!r} has {column.null_count} empty timestamps; fill them")
        kind = column.type
        try:
            if pa.types.is_integer(kind) or pa.types.is_floating(kind):
                numbers = column.to_numpy().astype(np.float64)
                scale = 1000.0 if np.nanmax(np.abs(numbers)) < _SECONDS_BELOW else 1.0
                return np.asarray(np.rint(numbers * scale), np.int64)
            if not pa.types.is_timestamp(kind):
                column = column.cast(pa.timestamp("us", "UTC"))
            return np.asarray(column.cast(pa.timestamp("ms"), safe=False).cast(pa.int64()).to_numpy(), np.int64)
        except pa.ArrowException as error:
            raise ValueError(
                f"{self.path}: column {self._time!r} holds no timestamps ({error}); "
                "write ISO 8601, or seconds or milliseconds since 1970"
            ) from error

    def floats(self, name: str) -> FloatArray:
        """A column as float64, NaN where it is empty."""
        try:
            column = self._table[name].cast(pa.float64(), safe=False)
        except pa.ArrowException as error:
            raise ValueError(f"{self.path}: column {name!r} holds no numbers: {error}") from error
        return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), np.float64)

    def encoded(self, name: str, default: str) -> tuple[list[str], IntArray | None]:
        """Distinct texts of a column and the index of each row's; no indices where all have ``default``."""
        if name not in self.names:
            return [default], None
        encoded = self._dictionary(name, default)
        return encoded.dictionary.to_pylist(), np.asarray(encoded.indices.to_numpy(), np.int32)

    def _dictionary(self, name: str, default: str) -> Any:
        column = pc.fill_null(self._table[name].cast(pa.string()), default)
        return pa.concat_arrays(column.chunks).dictionary_encode()

    def kinds(self, name: str) -> ByteArray:
        """A column of labels as `AnomalyKind`: a truth value, a number, or the name of a kind."""
        column = self._table[name]
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
            numbers = np.nan_to_num(self.floats(name))
            return np.where(numbers != 0, np.uint8(AnomalyKind.UNSPECIFIED), np.uint8(0)).astype(np.uint8)
        encoded = self._dictionary(name, "")
        meanings = np.array([self._kind_of(text, name) for text in encoded.dictionary.to_pylist()], np.uint8)
        indices: npt.NDArray[np.int64] = np.asarray(encoded.indices.to_numpy(), np.int64)
        return np.asarray(meanings[indices], np.uint8)

    def _kind_of(self, text: str, name: str) -> int:
        if text.strip().lower() in ("", "0", "false", "no", "none", "normal"):
            return AnomalyKind.NONE
        if text.strip().lower() in ("1", "true", "yes", "anomaly"):
            return AnomalyKind.UNSPECIFIED
        try:
            return AnomalyKind.parse(text.strip())
        except ValueError as error:
            raise ValueError(f"{self.path}: column {name!r}: {error}") from error
