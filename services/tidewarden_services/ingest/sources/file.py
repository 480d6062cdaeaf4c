"""The `file` source: CSV (also .gz), Parquet and JSON lines, read once, in chunks of bounded memory.

The position is the number of rows (CSV, JSON: lines) dealt with. A chunk of a CSV file is converted as a
whole; only where that fails is it read line by line, so that a broken line costs only itself.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from tidewarden.clock import Clock, SystemClock
from tidewarden.frames import Frame, IntArray, SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.resources.metricstream import FileSource as FileSpec
from tidewarden.resources.metricstream import Source as SourceSpec
from tidewarden.sources import Batch, SourceError
from tidewarden_services.ingest.reasons import MALFORMED
from tidewarden_services.ingest.sources.columns import Columns, Refusal, RowOrigins, SeriesIndex, escaped
from tidewarden_services.ingest.sources.json_readings import parse_body, parse_lines
from tidewarden_services.ingest.sources.lines import Chunk, Lines, open_lines
from tidewarden_services.ingest.sources.tabular import NULLS, Layout, UnfitError, take_batch, take_row

BATCH_READINGS = 10_000
MAX_DOCUMENT_BYTES = 67_108_864  # a JSON file that is one list is read as a whole

Format = Literal["csv", "parquet", "json"]

_ENDINGS: dict[str, Format] = {
    ".csv": "csv", ".tsv": "csv", ".parquet": "parquet", ".pq": "parquet",
    ".json": "json", ".jsonl": "json", ".ndjson": "json",
}  # fmt: skip
_NULL_VALUES = sorted({form for word in NULLS for form in (word, word.upper(), word.title())} | {"NaN", "-NaN"})


class FileSource:
    """Reads one file of a stream.

    Args:
        stream: whose readings they are; a single tenant of its spec is the default tenant.
        spec: an entry of the stream's sources with ``file`` set.
        table: the process's series.
        base_dir: what a relative path is relative to.
        clock: for the time of arrival.
    """

    kind = "file"

    def __init__(
        self, stream: MetricStream, spec: SourceSpec, table: SeriesTable, base_dir: Path, clock: Clock | None = None
    ) -> None:
        if spec.file is None:
            raise ValueError(f"source {spec.name!r} is no file source: give it file.path")
        self.name = spec.name
        self._path = base_dir / spec.file.path
        self._format = _format_of(self._path, spec.file)
        self._defaults = _defaults_of(self._path, spec.file, stream)
        self._index = SeriesIndex(stream, table)
        self._clock = clock if clock is not None else SystemClock()
        self._read = 0
        self._total: int | None = None

    def progress(self) -> tuple[int, int | None]:
        """Readings yielded so far and, for Parquet, in all."""
        return self._read, self._total

    def batches(self, position: str | None, stop: threading.Event) -> Iterator[Batch]:
        """Batches of about 10,000 readings from row ``position`` on."""
        done = 0 if position is None else int(position)
        read = {"csv": self._csv, "parquet": self._parquet, "json": self._json}[self._format]
        try:
            for batch in read(done):
                if stop.is_set():
                    return
                self._read += len(batch.frame)
                yield batch
        except (OSError, EOFError, pa.ArrowException) as error:
            raise SourceError(f"source {self.name!r} cannot read {self._path}: {error}") from error

    def _batch(self, frame: Frame, rows: IntArray, position: int, origin: Callable[[int], str]) -> Batch:
        return Batch(
            frame,
            position=str(position),
            origins=RowOrigins(rows, origin),
            origin=self._path.name,
            arrived=self._clock.now_ms() / 1000,
        )

    def _collected(self, columns: Columns, position: int) -> Batch:
        batch = self._batch(columns.frame(), columns.rows(), position, columns.origin)
        batch.refused = columns.refused
        return batch

    def _line_origin(self, number: int) -> str:
        return f"{self._path.name} line {number}"

    def _row_origin(self, number: int) -> str:
        return f"{self._path.name} row {number + 1}"

    def _layout(self, names: list[str]) -> Layout:
        try:
            return Layout.of(names, self._defaults)
        except ValueError as error:
            raise SourceError(f"source {self.name!r}, {self._path}: {error}") from None

    # --- CSV -------------------------------------------------------------------------------------

    def _csv(self, done: int) -> Iterator[Batch]:
        with open_lines(self._path) as file:
            lines = Lines(file)
            head = lines.chunk(1)
            if not head.texts:
                return
            text = escaped(head.texts[0]).removeprefix("\ufeff").rstrip("\r\n")
            delimiter = max(",;\t", key=text.count)
            names = next(csv.reader([text], delimiter=delimiter), [])
            layout = self._layout(names)
            lines.skip(done)
            for chunk in lines.chunks(max(1, BATCH_READINGS // layout.readings_per_row)):
                done += len(chunk.texts)
                yield self._csv_chunk(chunk, names, layout, delimiter, done)

    def _csv_chunk(self, chunk: Chunk, names: list[str], layout: Layout, delimiter: str, done: int) -> Batch:
        try:
            frame, rows = take_batch(_csv_batch(chunk, names, layout, delimiter), layout, self._index)
        except UnfitError:
            columns = Columns(self._index, self._line_origin)
            if layout.label is not None:
                columns.with_labels()
            for at in range(len(chunk.texts)):
                _take_csv_line(chunk, at, names, layout, delimiter, columns)
            return self._collected(columns, done)
        return self._batch(frame, rows + chunk.first, done, self._line_origin)

    # --- Parquet ---------------------------------------------------------------------------------

    def _parquet(self, done: int) -> Iterator[Batch]:
        with pq.ParquetFile(self._path) as file:
            layout = self._layout(file.schema_arrow.names)
            self._total = file.metadata.num_rows * layout.readings_per_row
            rows = max(1, BATCH_READINGS // layout.readings_per_row)
            start = 0
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if end > done:
                    for batch in file.iter_batches(rows, row_groups=[group]):
                        start += len(batch)
                        if start > done:
                            yield self._parquet_batch(batch, layout, start)
                start = end

    def _parquet_batch(self, batch: pa.RecordBatch, layout: Layout, end: int) -> Batch:
        first = end - len(batch)
        try:
            frame, rows = take_batch(batch, layout, self._index)
        except UnfitError:
            columns = Columns(self._index, self._row_origin)
            if layout.label is not None:
                columns.with_labels()
            take_rows(batch, layout, columns, first)
            return self._collected(columns, end)
        return self._batch(frame, rows + first, end, self._row_origin)

    # --- JSON ------------------------------------------------------------------------------------

    def _json(self, done: int) -> Iterator[Batch]:
        with open_lines(self._path) as file:
            if _starts_a_list(file):
                yield from self._json_list(file, done)
                return
            lines = Lines(file)
            lines.skip(done)
            for chunk in lines.chunks(BATCH_READINGS // 4):
                done += len(chunk.texts)
                columns = Columns(self._index, self._line_origin)
                sound = 0  # lines between those that are too long are parsed together
                for at in [*chunk.sizes, len(chunk.texts)]:
                    parse_lines(chunk.texts[sound:at], columns, chunk.first + sound)
                    refusal = chunk.refusal(at)
                    if refusal is not None:
                        columns.refuse(chunk.first + at, refusal, escaped(chunk.texts[at]))
                    sound = at + 1
                yield self._collected(columns, done)

    def _json_list(self, file: IO[bytes], done: int) -> Iterator[Batch]:
        document = file.read(MAX_DOCUMENT_BYTES + 1)
        if len(document) > MAX_DOCUMENT_BYTES:
            raise SourceError(
                f"source {self.name!r}: {self._path} is one JSON list of more than {MAX_DOCUMENT_BYTES} bytes: "
                "write one object a line, which can be of any length"
            )
        try:
            elements = msgspec.json.decode(document, type=list[msgspec.Raw])
        except (msgspec.DecodeError, ValueError, RecursionError):
            elements = []
            if done == 0:
                columns = Columns(self._index, self._row_origin)
                try:
                    parse_body(document, columns)
                except Refusal as refusal:
                    columns.refuse(0, refusal, escaped(document))
                yield self._collected(columns, 1)
        size = BATCH_READINGS // 4
        for start in range(done, len(elements), size):
            part = elements[start : start + size]
            columns = Columns(self._index, lambda row, start=start: self._row_origin(start + row))  # type: ignore[misc]
            parse_body(b"[" + b",".join(part) + b"]", columns)
            yield self._collected(columns, start + len(part))


def take_rows(batch: pa.RecordBatch, layout: Layout, columns: Columns, first_row: int = 0) -> None:
    """A batch of columns row by row, so that a bad cell costs only itself."""
    for number, row in enumerate(batch.to_pylist(), first_row):
        take_row(row, layout, columns, number, str(row))


def _format_of(path: Path, spec: FileSpec) -> Format:
    if spec.format is not None:
        return spec.format
    ending = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if ending.lower() not in _ENDINGS:
        raise SourceError(f"{path} does not say what it is: set file.format to csv, parquet or json")
    return _ENDINGS[ending.lower()]


def _defaults_of(path: Path, spec: FileSpec, stream: MetricStream) -> dict[str, str]:
    tenants = stream.spec.tenants
    stem = path.name.removesuffix(".gz").rpartition(".")[0] or path.name
    return {
        "tenant": spec.tenant or (tenants[0] if len(tenants) == 1 else ""),
        "cluster": spec.cluster,
        "node": spec.node or stem,
    }


def _starts_a_list(file: IO[bytes]) -> bool:
    start = file.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n")
    file.seek(0)
    return start[:1] == b"["


def _csv_batch(chunk: Chunk, names: list[str], layout: Layout, delimiter: str) -> pa.RecordBatch:
    """The chunk as columns; `UnfitError` unless every line is one sound row."""
    if chunk.sizes:
        raise UnfitError("a line is too long")
    values = {layout.value} if layout.value is not None else set(layout.metrics)
    named = {*layout.places.values(), layout.metric}
    words = pa.dictionary(pa.int32(), pa.string())
    types = {name: pa.float64() if name in values else words if name in named else pa.string() for name in names}
    try:
        table = pa_csv.read_csv(
            pa.py_buffer(b"".join(chunk.texts)),
            pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=1 << 30),
            pa_csv.ParseOptions(delimiter=delimiter),
            pa_csv.ConvertOptions(column_types=types, null_values=_NULL_VALUES),
        )
    except pa.ArrowException as error:
        raise UnfitError(str(error)) from None
    batches = table.combine_chunks().to_batches()
    if len(table) != len(chunk.texts) or len(batches) != 1:
        raise UnfitError("an empty line, or a line break within quotes")
    return batches[0]


def _take_csv_line(chunk: Chunk, at: int, names: list[str], layout: Layout, delimiter: str, columns: Columns) -> None:
    number, line = chunk.first + at, chunk.texts[at]
    try:
        too_long = chunk.refusal(at)
        if too_long is not None:
            raise too_long
        if not line.strip():
            return
        text = line.decode("utf-8").rstrip("\r\n")
        cells = next(csv.reader([text], delimiter=delimiter, strict=True), [])
        if len(cells) != len(names):
            raise Refusal(MALFORMED, f"the line has {len(cells)} cells, the header {len(names)}: complete it")
    except Refusal as refusal:
        columns.refuse(number, refusal, escaped(line))
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} of the line is no UTF-8 ({error.reason}): save the file as UTF-8"
        columns.refuse(number, Refusal(MALFORMED, reason), escaped(line))
    except csv.Error as error:
        columns.refuse(number, Refusal(MALFORMED, f"this is no CSV row ({error})"), escaped(line))
    else:
        take_row(dict(zip(names, cells, strict=True)), layout, columns, number, text)
