"""Arrow from outside: read in every encoding, and measured before it can fill the memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden_services.ingest.sources.arrow import ArrowDecoder
from tidewarden_services.ingest.sources.columns import Columns, Refusal, SeriesIndex

STREAM = MetricStream.model_validate({"kind": "MetricStream", "metadata": {"name": "s"}, "spec": {"tenants": ["shop"]}})
T0 = 1_700_000_000_000


def table(rows: int = 50, **columns: object) -> pa.Table:
    return pa.table(
        {
            "tenant": pa.array(["shop"] * rows).dictionary_encode(),
            "cluster": ["c"] * rows,
            "node": [f"n{i}" for i in range(rows)],
            "timestamp": T0 + np.arange(rows),
            "cpu": np.arange(rows, dtype=np.float32),
            **columns,
        }
    )


def packed(data: pa.Table, compression: str | None = None, *, as_file: bool = False) -> bytes:
    sink = pa.BufferOutputStream()
    new = pa.ipc.new_file if as_file else pa.ipc.new_stream
    with new(sink, data.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(data, max_chunksize=20 if len(data) < 1000 else None)
    return sink.getvalue().to_pybytes()


def parsed(body: bytes, max_bytes: int = 1_000_000) -> Columns:
    columns = Columns(SeriesIndex(STREAM, SeriesTable()), lambda row: f"row {row}")
    ArrowDecoder(max_bytes).parse(body, columns)
    return columns


@pytest.mark.parametrize("as_file", [False, True])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_streams_and_files_are_read_compressed_or_not(compression: str | None, as_file: bool) -> None:
    columns = parsed(packed(table(), compression, as_file=as_file))
    assert list(columns.value) == list(range(50))
    assert list(columns.row) == list(range(50))
    assert list(columns.timestamp) == [T0 + i for i in range(50)]


def test_a_bad_cell_costs_only_itself_and_truth_is_not_taken() -> None:
    mixed = table(3, cpu=["1", "x", None], is_anomaly=[1, 1, 1])
    columns = parsed(packed(mixed))
    assert [repr(value) for value in columns.value] == ["1.0", "nan"]
    assert [(item.reason, item.origin) for item in columns.refused] == [("wrong_type", "row 1")]
    assert columns.frame().label is None


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_what_unpacks_to_too_much_is_refused_unread(compression: str) -> None:
    body = packed(table(200_000, cpu=np.zeros(200_000)), compression)
    with pytest.raises(Refusal, match="unpack to"):
        parsed(body)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pa.nulls(600_000), "500000 are allowed"),
        (pa.DictionaryArray.from_arrays(pa.array(np.zeros(600_000, np.int8)), ["x" * 9000]), "are allowed"),
    ],
)
def test_a_few_bytes_that_stand_for_many_readings_are_refused(column: pa.Array, says: str) -> None:
    rows = len(column)
    small = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int8)), ["1700000000"])
    data = pa.table({"timestamp": small, "tenant": small, "cluster": small, "node": small, "cpu": column})
    with pytest.raises(Refusal, match=says):
        parsed(packed(data), 100_000_000)


def test_a_text_that_a_dictionary_repeats_is_bounded() -> None:
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(50, np.int8)), ["x" * 9000])
    with pytest.raises(Refusal, match="9000 bytes"):
        parsed(packed(table(50, cpu=long)))


@pytest.mark.parametrize(
    "column", [pa.array([[1.0]] * 2), pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), [1.0])]
)
def test_types_that_hide_values_are_refused_by_name(column: pa.Array) -> None:
    with pytest.raises(Refusal, match="column cpu is"):
        parsed(packed(table(2, cpu=column)))


def test_a_table_without_a_time_says_which_column_is_missing() -> None:
    with pytest.raises(Refusal, match="no column is called timestamp"):
        parsed(packed(pa.table({"cpu": [1.0]})))


@pytest.mark.parametrize("cut", [3, 9, 40, 200, 500, 900])
def test_bytes_cut_anywhere_are_malformed_or_less_never_a_crash(cut: int) -> None:
    whole = packed(table(), "lz4")
    for body in (whole[:cut], whole[:cut] + b"\xff" * 40 + whole[cut + 40 :], whole[cut:]):
        assert outcome(body) in {"malformed", "missing_field", "too_large", "read"}


def outcome(body: bytes) -> str:
    try:
        columns = parsed(body)
    except Refusal as refusal:
        return refusal.reason
    return "read" if len(columns.value) + len(columns.refused) <= 50 else "too much"
