"""Kibana's saved objects: data views over all streams, two saved searches and a dashboard of both. Pure.

Written as Kibana 8 exports them, one JSON document a line; import with Stack Management → Saved Objects, or
``curl -F file=@saved-objects.ndjson -H kbn-xsrf:true $KIBANA/api/saved_objects/_import``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Object = dict[str, Any]

PREFIX = "tidewarden"  # of index names, as the settings have it by default


class View(NamedTuple):
    """A data view: a kind of document, and the field that is its time (None: it has none)."""

    kind: str
    time: str | None
    title: str


class Search(NamedTuple):
    """A saved search: KQL over a view, and the columns that are shown."""

    kind: str
    title: str
    description: str
    columns: Sequence[str]
    sort: tuple[str, str]
    query: str = ""


VIEWS: tuple[View, ...] = (
    View("anomalies", "onset", "Tidewarden anomalies"),
    View("alerts", "started_at", "Tidewarden alerts"),
    View("scores", "timestamp", "Tidewarden scores"),
    View("readings", "timestamp", "Tidewarden readings"),
    View("rollups", "timestamp", "Tidewarden scores of nodes, clusters and tenants"),
    View("rejected", "received_at", "Tidewarden rejected readings"),
)
SEARCHES: tuple[Search, ...] = (
    Search(
        "anomalies",
        "Tidewarden: anomalies",
        "Anomalies by onset, the newest first. Narrow it by severity, detector, cluster or node.",
        ("severity", "kind", "tenant", "cluster", "node", "metric", "peak_score", "value", "expected", "explanation"),
        ("onset", "desc"),
    ),
    Search(
        "alerts",
        "Tidewarden: alerts that fired",
        "Alerts that people were told of, the newest first.",
        ("severity", "state", "policy", "title", "summary", "anomaly_count", "peak_score"),
        ("started_at", "desc"),
        "state : (firing or resolved)",
    ),
)
_DASHBOARD = "tidewarden-anomalies-and-alerts"


def saved_objects() -> str:
    """The file: one object a line, those first that others refer to."""
    objects = [*(_view(view) for view in VIEWS), *(_search(search) for search in SEARCHES), _dashboard()]
    return "".join(json.dumps(item, sort_keys=True, ensure_ascii=False) + "\n" for item in objects)


def fields_named() -> Mapping[str, set[str]]:
    """Every field that these objects name, by kind of document."""
    named: dict[str, set[str]] = {view.kind: {view.time} for view in VIEWS if view.time is not None}
    for search in SEARCHES:
        named[search.kind] |= {*search.columns, search.sort[0]}
        if search.query:
            named[search.kind].add(search.query.partition(" :")[0])
    return named


def _view(view: View) -> Object:
    attributes = {"title": f"{PREFIX}.*.*.{view.kind}", "name": view.title}
    if view.time is not None:
        attributes["timeFieldName"] = view.time
    return _object("index-pattern", _view_id(view.kind), attributes)


def _search(search: Search) -> Object:
    source = {
        "query": {"query": search.query, "language": "kuery"},
        "filter": [],
        "indexRefName": "kibanaSavedObjectMeta.searchSourceJSON.index",
    }
    attributes = {
        "title": search.title,
        "description": search.description,
        "columns": list(search.columns),
        "sort": [list(search.sort)],
        "grid": {},
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
    }
    found = _object("search", _search_id(search), attributes)
    found["references"] = [
        {"name": source["indexRefName"], "type": "index-pattern", "id": _view_id(search.kind)},
    ]
    return found


def _dashboard() -> Object:
    """Both searches, one above the other, over the same span of time."""
    panels, references = [], []
    for number, search in enumerate(SEARCHES):
        place = {"x": 0, "y": 20 * number, "w": 48, "h": 20, "i": str(number)}
        panels.append(
            {
                "type": "search",
                "panelIndex": str(number),
                "gridData": place,
                "embeddableConfig": {},
                "panelRefName": f"panel_{number}",
            }
        )
        references.append({"name": f"{number}:panel_{number}", "type": "search", "id": _search_id(search)})
    source = {"query": {"query": "", "language": "kuery"}, "filter": []}
    attributes = {
        "title": "Tidewarden: anomalies and alerts",
        "description": "What was found, and what people were told.",
        "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "hidePanelTitles": False}),
        "timeRestore": True,
        "timeFrom": "now-24h",
        "timeTo": "now",
        "version": 1,
        "kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)},
    }
    found = _object("dashboard", _DASHBOARD, attributes)
    found["references"] = references
    return found


def _object(kind: str, name: str, attributes: Object) -> Object:
    return {"type": kind, "id": name, "attributes": attributes, "references": []}


def _view_id(kind: str) -> str:
    return f"tidewarden-{kind}"


def _search_id(search: Search) -> str:
    return f"tidewarden-search-{search.kind}"
