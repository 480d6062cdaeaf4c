"""From hits to columns, and readings joined with their scores, as Arrow tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tidewarden.frames import ABSENT
from tidewarden.store.elasticsearch.names import stream_of
from tidewarden.store.port import Query

Hit = Mapping[str, Any]

NAMES: Final = ("stream", "tenant", "cluster", "node", "metric")
READINGS: Final = pa.schema([
    *((name, pa.string()) for name in NAMES),
    ("timestamp", pa.int64()), ("value", pa.float64()), ("label", pa.uint8()), ("detector", pa.string()),
    *((name, pa.float64()) for name in ("anomaly_score", "p_value", "expected", "lower", "upper")),
    ("kind", pa.string()), ("flags", pa.uint8()),
])  # fmt: skip
SERIES: Final = pa.schema([
    *((name, pa.string()) for name in NAMES),
    ("readings", pa.int64()), ("first", pa.int64()), ("last", pa.int64()), ("last_value", pa.float64()),
])  # fmt: skip
ROLLUPS: Final = pa.schema([
    *((name, pa.string()) for name in ("detector", "tenant", "cluster", "node")),
    ("timestamp", pa.int64()), ("score", pa.float64()), ("children", pa.int32()), ("peak", pa.float64()),
])  # fmt: skip
_KEYS: Final = ("stream", "series", "timestamp")


def columns(hits: Iterable[Sequence[Hit]], fields: Sequence[str]) -> pa.Table:
    """Pages of hits as a table of stream, series, timestamp and ``fields``; each page is let go of at once."""
    keys = [("stream", pa.string()), ("series", pa.string()), ("timestamp", pa.int64())]
    schema = pa.schema([*keys, *((name, READINGS.field(name).type) for name in fields)])
    pages = []
    for page in hits:
        given = [hit.get("fields", {}) for hit in page]
        arrays = [
            pa.array([stream_of(hit["_index"]) for hit in page], pa.string()),
            pa.array([hit["sort"][1] for hit in page], pa.string()),
            pa.array([hit["sort"][0] for hit in page], pa.int64()),
            *(pa.array([found[f][0] if f in found else None for found in given], schema.field(f).type) for f in fields),
        ]
        pages.append(pa.Table.from_arrays(arrays, schema=schema))
    return pa.concat_tables(pages) if pages else schema.empty_table()


def last(table: pa.Table) -> tuple[int, str]:
    """Timestamp and series of the last row."""
    return table["timestamp"][-1].as_py(), table["series"][-1].as_py()


def reading_ids(scores: pa.Table) -> dict[str, list[str]]:
    """By stream, the ids of the readings that scores are about."""
    ids: dict[str, dict[str, None]] = {}
    for stream, series, at in zip(*(scores[name].to_pylist() for name in _KEYS), strict=True):
        ids.setdefault(stream, {})[f"{series}.{at}"] = None
    return {stream: list(some) for stream, some in ids.items()}


def series_of(rows: pa.Table) -> list[tuple[str, str]]:
    """The distinct (stream, series id) of rows."""
    distinct = rows.group_by(["stream", "series"]).aggregate([])
    return list(zip(distinct["stream"].to_pylist(), distinct["series"].to_pylist(), strict=True))


def nearest(table: pa.Table, query: Query, *, edges: Sequence[tuple[int, str]]) -> pa.Table:
    """The rows on the near side of all ``edges`` (timestamp, series), the edges themselves included."""
    for timestamp, series in edges:
        strictly, or_at = (pc.greater, pc.greater_equal) if query.newest_first else (pc.less, pc.less_equal)
        near = pc.or_(
            strictly(table["timestamp"], timestamp),
            pc.and_(pc.equal(table["timestamp"], timestamp), or_at(table["series"], series)),
        )
        table = table.filter(near)
    return table


def joined(readings: pa.Table, scores: pa.Table, query: Query) -> pa.Table:
    """A row for each reading with its score, each reading without one, each score without a reading.

    Absent readings have a score row and no reading; where a late reading came after all there are both, so
    the absent row never joins. With a lowest score, readings without a score are left out.
    """
    gone = pc.not_equal(pc.bit_wise_and(scores["flags"], pa.scalar(ABSENT, pa.uint8())), pa.scalar(0, pa.uint8()))
    absent, judged = scores.filter(gone), scores.filter(pc.invert(gone))
    judged = judged.rename_columns([f"score_{name}" if name == "value" else name for name in judged.column_names])
    readings = readings.append_column("is_reading", pa.array(np.ones(len(readings), bool)))
    both = readings.join(judged, keys=list(_KEYS), join_type="full outer")
    value = pc.if_else(pc.is_valid(both["is_reading"]), both["value"], both["score_value"])
    both = both.set_column(both.schema.get_field_index("value"), "value", value)
    wanted = [*_KEYS, *(name for name in READINGS.names if name not in {*NAMES, "timestamp"})]
    absent = absent.append_column("label", pa.nulls(len(absent), pa.uint8()))
    rows = pa.concat_tables([both.select(wanted), absent.select(wanted)])
    if query.min_score is not None:
        rows = rows.filter(pc.is_valid(rows["anomaly_score"]))
    order = "descending" if query.newest_first else "ascending"
    rows = rows.sort_by([("timestamp", order), ("series", order), ("stream", order), ("detector", "ascending")])
    return rows.slice(0, query.limit)


def named(rows: pa.Table, series: Mapping[tuple[str, str], Mapping[str, str]]) -> pa.Table:
    """The rows with the names of their series, oldest first, in the columns of the port."""
    place = pc.binary_join_element_wise(rows["stream"], rows["series"], ".").combine_chunks().dictionary_encode()
    keys = [tuple(key.split(".", 1)) for key in place.dictionary.to_pylist()]
    found = {
        name: pa.array([series[stream, one][name] for stream, one in keys], pa.string()).take(place.indices)
        for name in NAMES[1:]
    }
    arrays = [found[name] if name in found else rows[name] for name in READINGS.names]
    table = pa.Table.from_arrays(arrays, schema=READINGS)
    return table.sort_by([(name, "ascending") for name in ("timestamp", *NAMES, "detector")])
