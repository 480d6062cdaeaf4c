"""Arrow IPC, as pushed over HTTP: the columns of a long or a wide table.

What comes from outside is measured before it is unpacked. A few bytes can stand for gigabytes in four
ways: compressed buffers, columns of nulls, run-end encoding and one long text that a dictionary repeats.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewarden_services.ingest.reasons import MALFORMED, MISSING_FIELD, TOO_LARGE
from tidewarden_services.ingest.sources.columns import MAX_NAME, Columns, Refusal
from tidewarden_services.ingest.sources.tabular import Layout, UnfitError, take_batch, take_row

MAX_READINGS = 500_000  # in one request: half a second of work for a detector
MAX_WORD_BYTES = 4 * MAX_NAME  # of a dictionary's text: the longest name there is, in UTF-8

_MAGIC = b"ARROW1\0\0"  # begins a file, which holds a stream from there on
_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2  # MessageHeader in Arrow's Message.fbs


class ArrowDecoder:
    """Turns request bodies into columns.

    Args:
        max_bytes: the largest body, unpacked.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def parse(self, body: bytes, columns: Columns) -> int:
        """Parse one body; rows count over all of its batches, and their number is returned.

        Raises:
            Refusal: where the body as a whole cannot be read, or is too large.
        """
        rows = 0
        try:
            body = body.removeprefix(_MAGIC)
            unpacked = sum(_unpacked_bytes(body))
            if unpacked > self._max_bytes:
                raise Refusal(
                    TOO_LARGE,
                    f"the buffers unpack to {unpacked} bytes, {self._max_bytes} are allowed: send less at once",
                )
            table = pa.ipc.open_stream(body).read_all()
            layout = _layout(table.column_names)
            _check(table, layout)
            table.validate(full=True)  # offsets from outside must not point outside
            for batch in table.to_batches():
                _take(batch, layout, columns, rows)
                rows += len(batch)
        except (pa.ArrowException, OSError, EOFError, struct.error, IndexError) as error:
            raise Refusal(MALFORMED, f"this is no Arrow IPC stream or file ({error})") from None
        return rows


def _take(batch: pa.RecordBatch, layout: Layout, columns: Columns, first_row: int) -> None:
    try:
        frame, rows = take_batch(batch, layout, columns.index)
    except UnfitError:
        for number, row in enumerate(batch.to_pylist(), first_row):
            take_row(row, layout, columns, number, str(row))
        return
    columns.series.frombytes(np.ascontiguousarray(frame.series, np.int32).tobytes())
    columns.timestamp.frombytes(np.ascontiguousarray(frame.timestamp, np.int64).tobytes())
    columns.value.frombytes(np.ascontiguousarray(frame.value, np.float64).tobytes())
    columns.row.frombytes((rows + first_row).astype(np.int32).tobytes())


def _layout(names: list[str]) -> Layout:
    try:
        found = Layout.of(names, {"tenant": "", "cluster": "", "node": ""})
    except ValueError as error:
        raise Refusal(MISSING_FIELD, str(error)) from None
    # Truth has no business in what producers push: a detector must never be one column away from it.
    return Layout(found.timestamp, found.metrics, found.metric, found.value, found.places, found.defaults, None, None)


def _check(table: pa.Table, layout: Layout) -> None:
    readings = len(table) * layout.readings_per_row
    if readings > MAX_READINGS:
        raise Refusal(TOO_LARGE, f"the body has {readings} readings, {MAX_READINGS} are allowed: send less at once")
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_run_end_encoded(column.type) or pa.types.is_nested(column.type):
            raise Refusal(MALFORMED, f"column {name} is {column.type}: write plain numbers, texts or dictionaries")
        if not pa.types.is_dictionary(column.type) or pa.types.is_primitive(column.type.value_type):
            continue
        longest = max((pc.max(pc.binary_length(part.dictionary)).as_py() or 0 for part in column.chunks), default=0)
        if longest > MAX_WORD_BYTES:
            raise Refusal(TOO_LARGE, f"column {name} has a text of {longest} bytes, {MAX_WORD_BYTES} are allowed")


def _unpacked_bytes(stream: bytes) -> Iterator[int]:
    """Size of each compressed buffer of a stream once it is unpacked, as it declares itself."""
    reader = pa.ipc.MessageReader.open_stream(stream)
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        metadata, body = message.metadata.to_pybytes(), message.body
        header = _Table.root(metadata)
        kind = header.byte(1)
        batch = header.table(2)
        if kind == _DICTIONARY_BATCH and batch is not None:
            batch = batch.table(1)
        elif kind != _RECORD_BATCH:
            continue
        if batch is None or body is None or batch.table(3) is None:  # field 3 is BodyCompression
            continue
        raw = memoryview(body)
        for offset, length in batch.pairs(2):
            if length >= 8:  # a compressed buffer begins with its unpacked size, -1 where it is left as it is
                yield max(0, struct.unpack_from("<q", raw, offset)[0])


class _Table:
    """Just enough of FlatBuffers to look at a message's header (https://flatbuffers.dev/internals)."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._fields = at - struct.unpack_from("<i", data, at)[0]

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def byte(self, field: int) -> int:
        at = self._place(field)
        return 0 if at is None else self._data[at]

    def table(self, field: int) -> _Table | None:
        at = self._place(field)
        return None if at is None else _Table(self._data, at + struct.unpack_from("<I", self._data, at)[0])

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """A vector of structs of two int64."""
        at = self._place(field)
        if at is None:
            return
        start = at + struct.unpack_from("<I", self._data, at)[0]
        for number in range(struct.unpack_from("<I", self._data, start)[0]):
            offset, length = struct.unpack_from("<qq", self._data, start + 4 + 16 * number)
            yield offset, length

    def _place(self, field: int) -> int | None:
        size = struct.unpack_from("<H", self._data, self._fields)[0]
        if 4 + 2 * field >= size:
            return None
        offset = struct.unpack_from("<H", self._data, self._fields + 4 + 2 * field)[0]
        return self._at + offset if offset else None
