"""The file source: every format and shape, broken rows, and going on from any position."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidewarden.events import AnomalyKind
from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden.sources import Batch, SourceError
from tidewarden_services.ingest.sources import file as file_module
from tidewarden_services.ingest.sources.file import FileSource

T0 = 1_700_000_000_000


def source(path: Path, table: SeriesTable | None = None, **spec: object) -> FileSource:
    stream = MetricStream.model_validate(
        {
            "kind": "MetricStream",
            "metadata": {"name": "s"},
            "spec": {"tenants": ["shop"], "sources": [{"name": "f", "file": {"path": path.name, **spec}}]},
        }
    )
    return FileSource(stream, stream.spec.sources[0], table if table is not None else SeriesTable(), path.parent)


def read(path: Path, position: str | None = None, **spec: object) -> list[Batch]:
    return list(source(path, **spec).batches(position, threading.Event()))


def rows(batches: list[Batch]) -> list[tuple[str, int, str]]:
    return [
        (batch.frame.table[s].path, t - T0, repr(v))
        for batch in batches
        for s, t, v in zip(
            batch.frame.series.tolist(), batch.frame.timestamp.tolist(), batch.frame.value.tolist(), strict=True
        )
    ]


def refusals(batches: list[Batch]) -> list[tuple[str, str]]:
    return [(item.reason, item.origin) for batch in batches for item in batch.refused]


LONG = "timestamp,tenant,cluster,node,metric,value\n"


def test_the_three_shapes_of_csv(tmp_path: Path) -> None:
    (tmp_path / "plain.csv").write_text("timestamp,value\n2023-11-14 22:13:20,1.5\n2023-11-14 22:14:20,\n")
    assert rows(read(tmp_path / "plain.csv")) == [
        ("shop/default/plain/value", 0, "1.5"),
        ("shop/default/plain/value", 60_000, "nan"),
    ]
    (tmp_path / "wide.csv").write_text(f"time,cpu,mem\n{T0},1,2\n{T0 + 1},3,NaN\n")
    assert rows(read(tmp_path / "wide.csv", cluster="eu", node="n1")) == [
        ("shop/eu/n1/cpu", 0, "1.0"),
        ("shop/eu/n1/mem", 0, "2.0"),
        ("shop/eu/n1/cpu", 1, "3.0"),
        ("shop/eu/n1/mem", 1, "nan"),
    ]
    (tmp_path / "long.csv.gz").write_bytes(
        gzip.compress(f"{LONG}2023-11-14T22:13:20Z,shop,a,x,cpu,1\n2023-11-14T22:13:20Z,shop,b,y,mem,2\n".encode())
    )
    assert rows(read(tmp_path / "long.csv.gz")) == [("shop/a/x/cpu", 0, "1.0"), ("shop/b/y/mem", 0, "2.0")]


def test_parquet_and_json_say_the_same_as_csv(tmp_path: Path) -> None:
    table = pa.table(
        {
            "timestamp": pa.array([T0, T0 + 60_000], pa.timestamp("ms")),
            "tenant": pa.array(["shop", "shop"]).dictionary_encode(),
            "cluster": ["a", "b"],
            "node": ["x", "y"],
            "metric": ["cpu", "mem"],
            "value": pa.array([1.5, None], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "f.parquet")
    elements = [
        {"tenant": "shop", "cluster": "a", "node": "x", "timestamp": T0, "metrics": {"cpu": 1.5}},
        {"tenant": "shop", "cluster": "b", "node": "y", "timestamp": T0 + 60_000, "metric": "mem", "value": None},
    ]
    (tmp_path / "f.jsonl").write_text("\n".join(map(json.dumps, elements)))
    (tmp_path / "f.json").write_text(json.dumps(elements, indent=1))
    expected = [("shop/a/x/cpu", 0, "1.5"), ("shop/b/y/mem", 60_000, "nan")]
    for name in ("f.parquet", "f.jsonl", "f.json"):
        assert rows(read(tmp_path / name)) == expected, name


def test_truth_goes_into_the_label_and_is_never_a_metric(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(
        f"timestamp,value,is_anomaly,kind\n{T0},1,0,\n{T0 + 1},2,1,drift\n{T0 + 2},3,True,\n"
    )
    [batch] = read(tmp_path / "l.csv")
    assert batch.frame.label.tolist() == [0, AnomalyKind.DRIFT, AnomalyKind.UNSPECIFIED]
    assert {key.metric for key in batch.frame.table.keys} == {"value"}
    (tmp_path / "broken.csv").write_text(f"timestamp,cpu,mem,label\n{T0},1,x,spike\n{T0 + 1},2,3,0\n")
    [batch] = read(tmp_path / "broken.csv")
    assert batch.frame.label.tolist() == [AnomalyKind.SPIKE, 0, 0]


BROKEN = (
    LONG.encode()
    + b"%d,shop,a,x,cpu,1\n" % T0
    + b"%d,shop,a,x,cpu\n" % (T0 + 1)
    + b"%d,shop,a,x,cpu,text\n" % (T0 + 2)
    + b"never,shop,a,x,cpu,1\n"
    + b"%d,shop,a,\xff\xfe,cpu,1\n" % (T0 + 3)
    + b"\n"
    + b"%d,stranger,a,x,cpu,1\n" % (T0 + 4)
    + b"x" * 10_000_000
    + b"\n"
    + b'%d,shop,a,"x,cpu,1\n' % (T0 + 5)
    + b",shop,a,x,cpu,1\n"
    + b'%d,shop,"a",x,cpu,"2"\n' % (T0 + 6)
)


def test_a_broken_line_costs_only_itself_and_is_kept_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(BROKEN)
    batches = read(tmp_path / "b.csv")
    assert rows(batches) == [("shop/a/x/cpu", 0, "1.0"), ("shop/a/x/cpu", 6, "2.0")]
    assert refusals(batches) == [
        ("malformed", "b.csv line 3"),
        ("wrong_type", "b.csv line 4"),
        ("wrong_type", "b.csv line 5"),
        ("malformed", "b.csv line 6"),
        ("unknown_tenant", "b.csv line 8"),
        ("too_large", "b.csv line 9"),
        ("malformed", "b.csv line 10"),
        ("missing_field", "b.csv line 11"),
    ]
    raws = [item.raw for batch in batches for item in batch.refused]
    assert r"\xff\xfe" in raws[3]
    assert len(raws[5]) == 10_000_001
    assert [origin for batch in batches for origin in batch.origins] == ["b.csv line 2", "b.csv line 12"]


def test_a_broken_json_line_costs_only_itself(tmp_path: Path) -> None:
    good = b'{"tenant":"shop","cluster":"c","node":"n","timestamp":%d,"metric":"m","value":1}\n'
    (tmp_path / "b.jsonl").write_bytes(good % T0 + b"{\n" + b"y" * 10_000_000 + b"\n\n\xff\n" + good % (T0 + 1))
    batches = read(tmp_path / "b.jsonl")
    assert [at for _, at, _ in rows(batches)] == [0, 1]
    assert refusals(batches) == [
        ("malformed", "b.jsonl line 2"),
        ("too_large", "b.jsonl line 3"),
        ("malformed", "b.jsonl line 5"),
    ]


def test_a_line_longer_than_what_is_kept_never_fills_the_memory(tmp_path: Path) -> None:
    with (tmp_path / "huge.csv").open("wb") as file:
        file.write(b"timestamp,value\n")
        for _ in range(40):
            file.write(b"z" * 1_000_000)
        file.write(b"\n%d,1\n" % T0)
    batches = read(tmp_path / "huge.csv")
    assert rows(batches) == [("shop/default/huge/value", 0, "1.0")]
    [item] = batches[0].refused
    assert len(item.raw) == 33_554_432
    assert "40000001 bytes" in item.detail


@pytest.mark.parametrize("name", ["r.csv", "r.parquet", "r.jsonl", "r.json"])
def test_reading_on_from_any_position_gives_the_same_batches(tmp_path: Path, name: str, monkeypatch: object) -> None:
    monkeypatch.setattr(file_module, "BATCH_READINGS", 40)
    path = tmp_path / name
    values = np.arange(137.0)
    if name == "r.csv":
        lines = [f"{T0 + i},{v}" if i % 50 else "broken" for i, v in enumerate(values)]
        path.write_text("timestamp,value\n" + "\n".join(lines))
    elif name == "r.parquet":
        pq.write_table(pa.table({"timestamp": T0 + np.arange(137), "value": values}), path, row_group_size=60)
    else:
        elements = [
            {"tenant": "shop", "cluster": "c", "node": "n", "timestamp": T0 + i, "metric": "m", "value": v}
            for i, v in enumerate(values)
        ]
        path.write_text("\n".join(map(json.dumps, elements)) if name == "r.jsonl" else json.dumps(elements))
    whole = read(path)
    assert len(whole) > 3
    assert sum(len(batch.frame) + len(batch.refused) for batch in whole) == 137
    for number, batch in enumerate(whole):
        rest = read(path, batch.position)
        assert [b.position for b in rest] == [b.position for b in whole[number + 1 :]]
        assert rows(rest) == rows(whole[number + 1 :])
        assert refusals(rest) == refusals(whole[number + 1 :])


CELL = st.sampled_from(
    ["1", "2.5", "", "nan", "inf", " 3 ", "1e3", "-0", "x", "0x1", "1_0", "NULL", "Infinity", "True"]
)
TIME = st.sampled_from(
    [str(T0), "1700000000", "1700000000.25", "2023-11-14T22:13:20Z", "2023-11-14 22:13:20.5", "", "?"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TIME, CELL, CELL), min_size=1, max_size=6))
def test_a_whole_chunk_and_line_by_line_mean_the_same(tmp_path: Path, cells: list) -> None:
    """The vectorised road may refuse to go, but where it goes it arrives where the slow one does."""
    path = tmp_path / "h.csv"
    lines = [",".join(row) for row in cells]
    path.write_text("timestamp,a,b\n" + "\n".join(lines) + "\n")
    together = read(path)
    path.write_text("timestamp,a,b\n" + "\n".join([*lines, '"broken']) + "\n")
    apart = read(path)
    assert rows(together) == rows(apart)
    assert refusals(together) == refusals(apart)[:-1]
    wide = sum(len(batch.frame) + len([r for r in batch.refused if "metric" in r.fields]) for batch in together)
    bad_rows = sum("metric" not in item.fields for batch in together for item in batch.refused)
    assert wide + 2 * bad_rows == 2 * len(cells)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "when,value\n1,2\n", "no column is called timestamp"),
        ("a.csv", "timestamp\n1\n", "no column holds values"),
        ("a.parquet", "no parquet", "cannot read"),
        ("a.csv.gz", "no gzip", "cannot read"),
        ("a.txt", "", "set file.format"),
    ],
)
def test_a_file_that_cannot_be_used_says_so(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=says):
        read(tmp_path / name)


def test_a_missing_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.csv"):
        read(tmp_path / "gone.csv")


def test_empty_files_hold_nothing(tmp_path: Path) -> None:
    for name, text in (("e.csv", ""), ("h.csv", "timestamp,value\n"), ("e.jsonl", ""), ("e.json", "[]")):
        (tmp_path / name).write_text(text)
        assert rows(read(tmp_path / name)) == []
