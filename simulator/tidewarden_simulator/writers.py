"""Labelled readings into CSV and Parquet, block by block, in the long format that `tidewarden score` reads.

Formatting numbers one at a time would cost more than making them. The CSV writer lays readings out as
records of fixed width, fills each field from a table of ready texts, and removes the empty bytes in one
pass. That works because simulated values carry a known number of decimals.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from tidewarden.events import AnomalyKind
from tidewarden.frames import SeriesKey
from tidewarden_simulator.fleets import Block

COLUMNS = ("timestamp", "tenant", "cluster", "node", "metric", "value", "is_anomaly", "kind")
# The end of a row by label. A control character marks the kind for now: words of 15 letters would widen
# every row, and few rows have one.
_MARK = 16
_TAILS = np.array([f",1,{chr(_MARK + kind)}\n".encode() if kind else b",0,\n" for kind in AnomalyKind])
_CSV_ROWS = 12_000  # about half a megabyte of cells, which stays in the cache
_WHOLES_MOST = 1_000_000


class CsvWriter:
    """Writes blocks as CSV.

    Args:
        path: the file, replaced.
        keys: the series in the order of the blocks' columns; all nodes have the same metrics.
        decimals: of each metric, in order; no value is negative.
    """

    def __init__(self, path: Path, keys: Sequence[SeriesKey], decimals: Sequence[int]) -> None:
        self._names = np.array([f"{','.join(key)},".encode() for key in keys])
        self._decimals = list(decimals)
        self._fractions = [_fractions(places) for places in self._decimals]
        self._wholes = np.arange(1).astype("S1")
        self._file: BinaryIO = path.open("wb")
        self._file.write((",".join(COLUMNS) + "\n").encode())

    def write(self, block: Block) -> None:
        """Append the readings of ``block``."""
        rows_at_once = max(1, _CSV_ROWS // len(self._names))
        for first in range(0, len(block.timestamp), rows_at_once):
            rows = slice(first, first + rows_at_once)
            self._file.write(self._text(Block(block.timestamp[rows], block.value[rows], block.label[rows])))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()

    def _text(self, block: Block) -> bytes:
        metrics = len(self._decimals)
        missing = np.isnan(block.value)
        value = np.where(missing, 0.0, block.value)
        self._grow(int(value.max()) + 2)
        row = [
            ("time", "S25"), ("names", self._names.dtype), ("whole", self._wholes.dtype),
            ("fraction", max(self._fractions, key=lambda f: f.itemsize).dtype), ("tail", _TAILS.dtype),
        ]  # fmt: skip
        cells = np.empty(value.shape, row)
        unit: Literal["s", "ms"] = "ms" if np.any(block.timestamp % 1000) else "s"
        times = np.datetime_as_string(block.timestamp.astype("datetime64[ms]"), unit=unit)
        cells["time"] = np.char.add(times, "Z,").astype("S25")[:, None]
        cells["names"] = self._names
        for i, places in enumerate(self._decimals):
            scaled = np.rint(value[:, i::metrics] * 10.0**places).astype(np.int64)
            whole = scaled // 10**places
            cells["whole"][:, i::metrics] = self._wholes.take(whole)
            cells["fraction"][:, i::metrics] = self._fractions[i].take(scaled - whole * 10**places)
        cells["whole"][missing] = b""
        cells["fraction"][missing] = b""
        cells["tail"] = _TAILS.take(block.label)
        text = cells.tobytes().translate(None, b"\0")
        for kind in np.unique(block.label).tolist():
            if kind:
                text = text.replace(bytes([_MARK + kind]), AnomalyKind(kind).label.encode())
        return text

    def _grow(self, least: int) -> None:
        """Have the texts of the whole numbers below ``least`` at hand."""
        if least > len(self._wholes):
            if least > _WHOLES_MOST:
                raise ValueError(f"a value of {least - 1} is too large for this writer; the limit is {_WHOLES_MOST:,}")
            self._wholes = np.arange(1 << (least - 1).bit_length()).astype("S")


def _fractions(places: int) -> npt.NDArray[np.bytes_]:
    """The text of every fraction of so many decimals, point included."""
    if places == 0:
        return np.array([b""], "S1")
    return np.array([f".{number:0{places}d}".encode() for number in range(10**places)])


class ParquetWriter:
    """Writes blocks as Parquet: names and kinds as dictionaries, missing values and no kind as null."""

    def __init__(self, path: Path, keys: Sequence[SeriesKey]) -> None:
        self._names = [_dictionary([key[part] for key in keys]) for part in range(4)]
        self._ticks, self._columns = 0, list[Any]()
        self._kinds = pa.array([None if kind == 0 else kind.label for kind in AnomalyKind], pa.string())
        text = pa.dictionary(pa.int32(), pa.string())
        types = [pa.timestamp("ms", "UTC"), text, text, text, text, pa.float64(), pa.bool_(), text]
        self._schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
        dictionaries = [name for name in COLUMNS if name not in ("value", "is_anomaly")]
        self._file = pa.parquet.ParquetWriter(
            path, self._schema, compression="lz4", use_dictionary=dictionaries, write_statistics=["timestamp"]
        )

    def write(self, block: Block) -> None:
        """Append the readings of ``block``."""
        ticks, series = block.value.shape
        label = block.label.ravel()
        columns: list[Any] = [pa.array(np.repeat(block.timestamp, series)).view(self._schema.field(0).type)]
        if ticks != self._ticks:  # all blocks but the last have the same names in the same rows
            self._ticks = ticks
            self._columns = [pa.DictionaryArray.from_arrays(np.tile(i, ticks), v, safe=False) for i, v in self._names]
        columns += self._columns
        columns.append(pa.array(block.value.ravel(), from_pandas=True))
        columns.append(pa.array(label != 0))
        columns.append(
            pa.DictionaryArray.from_arrays(
                pa.array(label.astype(np.int32) - 1, mask=label == 0), self._kinds.slice(1), safe=False
            )
        )
        self._file.write_table(pa.Table.from_arrays(columns, schema=self._schema), row_group_size=len(label))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def _dictionary(values: Sequence[str]) -> tuple[npt.NDArray[np.int32], Any]:
    distinct = {value: index for index, value in enumerate(dict.fromkeys(values))}
    return np.array([distinct[value] for value in values], np.int32), pa.array(list(distinct))
