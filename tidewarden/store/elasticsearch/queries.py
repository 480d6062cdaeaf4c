"""What the store asks the server: pure functions from a `Query` to search bodies.

Every search is sorted and has a size; what is larger is read page by page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

from tidewarden.store.port import Query

Body = dict[str, Any]

PAGE = 10_000  # the server's own bound of one answer (index.max_result_window); 2 MB of scores
IDS = 5_000  # of one question by ids; the server's bound is 65,536 terms
BUCKETS = 1_000  # of one aggregation; the server's bound is 65,536
_SERIES: Final = ("tenant", "cluster", "node", "metric")
READING_FIELDS: Final = ("value", "label")
SCORE_FIELDS: Final = (
    "detector", "value", "anomaly_score", "p_value", "expected", "lower", "upper", "kind", "flags",
)  # fmt: skip


def readings(query: Query) -> Body:
    """Readings by time and series; their names are told by the series."""
    return _columns(query, READING_FIELDS, _where(query, _SERIES, "timestamp", "timestamp"))


def scores(query: Query) -> Body:
    """Scores by time and series, of one detector or all."""
    filters = _where(query, (*_SERIES, "detector"), "timestamp", "timestamp")
    return _columns(query, SCORE_FIELDS, filters + _at_least(query, "anomaly_score"))


def reading_columns() -> Body:
    """How readings that are asked for by id are answered."""
    return {name: value for name, value in _columns(Query(), READING_FIELDS, []).items() if name != "query"}


def _columns(query: Query, fields: tuple[str, ...], filters: list[Body]) -> Body:
    order = "desc" if query.newest_first else "asc"
    return {
        "query": _all(filters),
        "sort": [{"timestamp": order}, {"series": order}],
        "_source": False,
        "docvalue_fields": list(fields),
    }


def series(query: Query) -> Body:
    """Series by name."""
    names = ("stream", *_SERIES)
    return {"query": _all(_where(query, _SERIES, None, None)), "sort": [{name: "asc"} for name in names]}


def series_facts(query: Query, ids: Sequence[str]) -> Body:
    """Of at most `BUCKETS` series of one stream: how many readings there are, the first, the last and its value."""
    last = {"size": 1, "sort": [{"timestamp": "desc"}], "_source": False, "docvalue_fields": ["value"]}
    times = {
        "first": {"min": {"field": "timestamp"}},
        "last": {"max": {"field": "timestamp"}},
        "newest": {"top_hits": last},
    }
    inside = [{"terms": {"series": list(ids)}}, *_range(query, "timestamp", "timestamp")]
    return {
        "size": 0,
        "query": _all(inside),
        "aggs": {"series": {"terms": {"field": "series", "size": len(ids)}, "aggs": times}},
    }


def rollups(query: Query) -> Body:
    """Rollup rows by time."""
    fields = ("detector", "tenant", "cluster", "node")
    order = "desc" if query.newest_first else "asc"
    filters = _where(query, fields, "timestamp", "timestamp") + _at_least(query, "score")
    return {"query": _all(filters), "sort": [{"timestamp": order}, {"scope": order}]}


def latest(detector: str | None) -> Body:
    """The newest rollup row of each scope."""
    names = ("detector", "tenant", "cluster", "node", "stream")
    filters = _where(Query(detector=detector), ("detector",), None, None)
    return {"query": _all(filters), "sort": [{name: "asc"} for name in names]}


def anomalies(query: Query) -> Body:
    """Anomalies that overlap the range, by onset."""
    filters = _where(query, (*_SERIES, "detector", "state"), "end", "onset")
    return _events(query, filters, "onset")


def alerts(query: Query) -> Body:
    """Alerts that overlap the range, by start; cluster, node and metric ask for one that names such a series."""
    filters = _where(query, ("tenant", "state"), "updated_at", "started_at")
    parts = (query.cluster, query.node, query.metric)
    if parts != (None, None, None):
        path = "/".join(["[^/]*", *("[^/]*" if part is None else _literally(part) for part in parts)])
        filters.append({"regexp": {"series": {"value": path, "flags": "NONE"}}})
    return _events(query, filters, "started_at")


def _events(query: Query, filters: list[Body], moment: str) -> Body:
    order = "desc" if query.newest_first else "asc"
    return {"query": _all(filters + _at_least(query, "peak_score")), "sort": [{moment: order}, {"id": "asc"}]}


def rejected(query: Query) -> Body:
    """Rejections by when they were received."""
    order = "desc" if query.newest_first else "asc"
    filters = _where(query, (*_SERIES, "reason", "source"), "received_at", "received_at")
    return {"query": _all(filters), "sort": [{"received_at": order}, {"id": "asc"}]}


def feedback(query: Query) -> Body:
    """What people said, by when they said it."""
    order = "desc" if query.newest_first else "asc"
    filters = _where(query, (*_SERIES, "detector"), "at_ms", "at_ms")
    return {"query": _all(filters), "sort": [{"at_ms": order}, {"id": "asc"}]}


def by_ids(ids: Sequence[str]) -> Body:
    """The documents of these ids, at most `IDS`."""
    return {"query": {"ids": {"values": ids}}, "size": len(ids)}


def older(field: str, before: int) -> Body:
    """Ids of what is older than a moment, oldest first."""
    return {"query": {"range": {field: {"lt": before}}}, "sort": [{field: "asc"}], "_source": False}


def number_by(field: str) -> Body:
    """How many documents there are by the values of a field."""
    return {"size": 0, "aggs": {"by": {"terms": {"field": field, "size": BUCKETS, "order": {"_key": "asc"}}}}}


def _where(query: Query, fields: tuple[str, ...], reaches: str | None, begins: str | None) -> list[Body]:
    given = [{"term": {name: getattr(query, name)}} for name in fields if getattr(query, name) is not None]
    return given if reaches is None or begins is None else given + _range(query, reaches, begins)


def _range(query: Query, reaches: str, begins: str) -> list[Body]:
    """What begins before ``until`` and reaches ``since``: what a chart of that range shows a part of."""
    filters: list[Body] = []
    if query.since is not None:
        filters.append({"range": {reaches: {"gte": query.since}}})
    if query.until is not None:
        filters.append({"range": {begins: {"lt": query.until}}})
    return filters


def _at_least(query: Query, field: str) -> list[Body]:
    return [] if query.min_score is None else [{"range": {field: {"gte": query.min_score}}}]


def _all(filters: list[Body]) -> Body:
    return {"bool": {"filter": filters}} if filters else {"match_all": {}}


def _literally(text: str) -> str:
    """A text as a Lucene regular expression."""
    return re.sub(r"([.?+*|{}\[\]()\"\\#@&<>~^$-])", r"\\\1", text)
