"""JSON readings: the fast road and the slow one agree, and nothing that was sent disappears."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.frames import SeriesTable
from tidewarden.resources import MetricStream
from tidewarden_services.ingest.sources.columns import Columns, Refusal, SeriesIndex
from tidewarden_services.ingest.sources.json_readings import parse_body, parse_lines
from tidewarden_services.ingest.sources.times import timestamp_ms

STREAM = MetricStream.model_validate(
    {"kind": "MetricStream", "metadata": {"name": "s"}, "spec": {"tenants": ["shop", "bank"]}}
)


def columns() -> Columns:
    return Columns(SeriesIndex(STREAM, SeriesTable()), lambda row: f"row {row}")


def rows(c: Columns) -> list[tuple[int, str, int, str]]:
    keys = [c.index.table[s].path for s in c.series]
    return [(r, k, t, repr(v)) for r, k, t, v in zip(c.row, keys, c.timestamp, c.value, strict=True)]


@pytest.mark.parametrize(
    ("timestamp", "ms"),
    [
        (1_700_000_000_123, 1_700_000_000_123),
        (1_700_000_000, 1_700_000_000_000),
        (1_700_000_000.1234, 1_700_000_000_123),
        (0, 0),
        (-5, -5000),
        (99_999_999_999, 99_999_999_999_000),
        (100_000_000_000, 100_000_000_000),
        (1.7e12, 1_700_000_000_000),
        ("1700000000", 1_700_000_000_000),
        ("1700000000.5", 1_700_000_000_500),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T23:13:20.250+01:00", 1_700_000_000_250),
        ("2023-11-14 22:13:20", 1_700_000_000_000),
        ("1969-12-31T23:59:59.999Z", -1),
    ],
)
def test_timestamps_are_read_in_every_documented_form(timestamp: object, ms: int) -> None:
    assert timestamp_ms(timestamp) == ms


@pytest.mark.parametrize(
    "timestamp", ["yesterday", "", True, None, [1], math.nan, math.inf, "nan", 10**17, 2**70, "9" * 5000]
)
def test_what_is_no_timestamp_is_refused_with_the_forms_there_are(timestamp: object) -> None:
    with pytest.raises(ValueError, match="RFC 3339"):
        timestamp_ms(timestamp)


GOOD_NAME = st.sampled_from(["a", "ü", "x y", "n-1"])
GOOD_TIME = st.sampled_from([1_700_000_000_000, 1_700_000_000, "2023-11-14T22:13:20Z", 1_700_000_000.5])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
VALUE = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**9), 10**9)
ELEMENT = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from(["shop", "bank", "shop", "bank", "stranger", "", 3]),
        "cluster": GOOD_NAME,
        "node": GOOD_NAME | ANY_JSON,
        "timestamp": GOOD_TIME | ANY_JSON,
    },
    optional={
        "metrics": st.dictionaries(GOOD_NAME, VALUE | ANY_JSON, max_size=3) | ANY_JSON,
        "metric": GOOD_NAME | ANY_JSON,
        "value": VALUE | ANY_JSON,
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ELEMENT | ANY_JSON, max_size=8))
def test_every_element_is_a_reading_or_a_refusal_whatever_its_neighbours_are(elements: list) -> None:
    """Each element fares in a batch as it does alone, in a list as in lines: no road knows more than another."""
    batch = columns()
    body = json.dumps(elements, ensure_ascii=False).encode("utf-8", "surrogatepass")
    try:
        assert parse_body(body, batch) == len(elements)
    except Refusal:
        assert not elements or b"\xed" in body
        return
    alone = columns()
    for row, element in enumerate(elements):
        line = json.dumps(element).encode()
        parse_lines([line], alone, row)
    assert rows(batch) == rows(alone)
    assert batch.refused_rows == alone.refused_rows
    assert [item.reason for item in batch.refused] == [item.reason for item in alone.refused]
    assert {*batch.row, *batch.refused_rows} == set(range(len(elements)))


@pytest.mark.parametrize(
    ("change", "reason", "says"),
    [
        ({"tenant": ...}, "missing_field", "tenant is absent"),
        ({"timestamp": ...}, "missing_field", "timestamp is absent"),
        ({"metrics": ...}, "missing_field", "one of both shapes"),
        ({"metrics": ..., "metric": "m"}, "missing_field", "both shapes"),
        ({"metrics": [1]}, "wrong_type", "metrics is a list"),
        ({"cluster": 1}, "wrong_type", "cluster is the number '1'"),
        ({"cluster": ""}, "missing_field", "cluster is empty"),
        ({"metrics": {"m": "1"}}, "wrong_type", "m is the text '1'"),
        ({"metrics": {"m": True}}, "wrong_type", "m is a boolean"),
        ({"metrics": {"": 1}}, "missing_field", "metric is empty"),
        ({"tenant": "x"}, "unknown_tenant", "bank, shop"),
        ({"node": "n" * 513}, "too_large", "node has 513 characters"),
    ],
)
def test_each_refusal_names_the_field_the_value_and_the_remedy(change: dict, reason: str, says: str) -> None:
    sound = {"tenant": "shop", "cluster": "c", "node": "n", "timestamp": 1, "metrics": {"m": 1}}
    element = {name: value for name, value in {**sound, **change}.items() if value is not ...}
    c = columns()
    parse_body(json.dumps(element).encode(), c)
    [item] = c.refused
    assert item.reason == reason
    assert says in item.detail
    assert json.loads(item.raw) == element


def test_a_broken_line_costs_only_itself() -> None:
    good = b'{"tenant":"shop","cluster":"c","node":"n","timestamp":1,"metric":"m","value":1}'
    c = columns()
    assert parse_body(b"\n".join([good, b'{"tenant": "shop', b"", b"\xff\xfe", good]), c, lines=True) == 5
    assert list(c.row) == [0, 4]
    assert [(item.reason, item.origin) for item in c.refused] == [("malformed", "row 1"), ("malformed", "row 3")]
    assert c.refused[1].raw == r"\xff\xfe"


def test_an_envelope_with_a_literal_nan_is_still_an_envelope() -> None:
    c = columns()
    body = b'{"readings": [{"tenant":"shop","cluster":"c","node":"n","timestamp":1,"metrics":{"a":NaN,"b":2}}]}'
    assert parse_body(body, c) == 1
    assert [item.reason for item in c.refused] == ["not_finite"]
    assert list(c.value) == [2.0]


def test_a_row_of_many_bad_cells_is_kept_once() -> None:
    c = columns()
    metrics = {f"m{number}": "x" for number in range(1000)}
    parse_body(
        json.dumps({"tenant": "shop", "cluster": "c", "node": "n", "timestamp": 1, "metrics": metrics}).encode(), c
    )
    assert len(c.refused) == 1000
    assert [item.raw is not None for item in c.refused] == [True] + [False] * 999


@pytest.mark.parametrize("body", [b"[" + b"0," * 100_000 + b"0]", b"[" + b"         0," * 100_000 + b"NaN]"])
def test_a_long_list_of_no_readings_is_refused_as_one(body: bytes) -> None:
    with pytest.raises(Refusal, match="too short to be readings"):
        parse_body(body, columns())
