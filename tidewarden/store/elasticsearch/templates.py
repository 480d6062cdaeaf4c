"""What the server is told about a stream's indices: pure, so that a plan can be compared with what is there.

Bodies are written as the server gives them back (numbers of settings as text), so equal means equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tidewarden.settings import ElasticsearchSettings
from tidewarden.store.elasticsearch.names import DATED, KINDS, Kind, StreamNames, period_days

Body = dict[str, Any]

# What a person sees is at most this old, plus the archive's quarter of a second.
REFRESH_S = 1.0
# Above the server's own templates (100 to 200), so that a prefix like "logs" is still ours.
PRIORITY = 300
LAYOUT = 1  # counts up when documents change in a way that older readers would not understand

_KEYWORD: Final = {"type": "keyword"}
_TIME: Final = {"type": "date", "format": "epoch_millis"}
_DOUBLE: Final = {"type": "double"}
# Numbers that are read and charted but never searched by have no search tree: half the work of indexing them.
_PLAIN_DOUBLE: Final = {"type": "double", "index": False}
_PLAIN_SHORT: Final = {"type": "short", "index": False}
_PLAIN_INTEGER: Final = {"type": "integer", "index": False}
_PLAIN_TIME: Final = {"type": "date", "format": "epoch_millis", "index": False}
# Lucene's terms end at 32,766 bytes, four a character at worst; longer ones are kept and not searched.
_ANY_TEXT: Final = {"type": "keyword", "ignore_above": 8191}
_UNSEARCHED: Final = {"type": "object", "enabled": False}
_SERIES: Final = dict.fromkeys(("stream", "tenant", "cluster", "node", "metric"), _KEYWORD)
_SCOPE: Final = {
    **dict.fromkeys(("stream", "detector", "tenant", "cluster", "node", "scope"), _KEYWORD),
    "timestamp": _TIME, "score": _DOUBLE, "children": _PLAIN_INTEGER, "peak": _PLAIN_DOUBLE,
}  # fmt: skip

PROPERTIES: Final[dict[Kind, Body]] = {
    "readings": {
        **_SERIES, "series": _KEYWORD, "timestamp": _TIME, "value": _PLAIN_DOUBLE, "label": _PLAIN_SHORT,
    },
    "scores": {
        **_SERIES, "series": _KEYWORD, "detector": _KEYWORD, "model_version": _KEYWORD, "timestamp": _TIME,
        "value": _PLAIN_DOUBLE, "anomaly_score": _DOUBLE, "p_value": _PLAIN_DOUBLE, "expected": _PLAIN_DOUBLE,
        "lower": _PLAIN_DOUBLE, "upper": _PLAIN_DOUBLE, "kind": _KEYWORD, "flags": _PLAIN_SHORT,
    },
    "rollups": _SCOPE,
    "latest": _SCOPE,
    "series": _SERIES,
    "anomalies": {
        **_SERIES, "id": _KEYWORD, "revision": _PLAIN_INTEGER, "detector": _KEYWORD, "model_version": _KEYWORD,
        "state": _KEYWORD, "kind": _KEYWORD, "direction": _KEYWORD, "severity": _KEYWORD, "onset": _TIME, "end": _TIME,
        "peak_at": _PLAIN_TIME, "updated_at": _PLAIN_TIME, "peak_score": _DOUBLE, "p_value": _PLAIN_DOUBLE,
        "value": _PLAIN_DOUBLE, "expected": _PLAIN_DOUBLE, "lower": _PLAIN_DOUBLE, "upper": _PLAIN_DOUBLE,
        "readings": _PLAIN_INTEGER, "node_share": _PLAIN_DOUBLE, "explanation": {"type": "text"},
        "suppressed": {"type": "boolean"},
    },
    "alerts": {
        **dict.fromkeys(("id", "stream", "tenant", "policy", "state", "severity", "kinds", "series"), _KEYWORD),
        "revision": _PLAIN_INTEGER, "group": _UNSEARCHED, "title": {"type": "text"}, "summary": {"type": "text"},
        "started_at": _TIME, "fired_at": _PLAIN_TIME, "resolved_at": _PLAIN_TIME, "updated_at": _TIME,
        "anomaly_ids": _KEYWORD, "anomaly_count": _PLAIN_INTEGER, "peak_score": _DOUBLE,
        "flapping": {"type": "boolean"}, "suppressed_by": _KEYWORD,
    },
    "acknowledgements": {"alert_id": _KEYWORD, "by": _KEYWORD, "at": _PLAIN_TIME, "note": {"type": "text"}},
    "rejected": {
        **dict.fromkeys(("tenant", "cluster", "node", "metric", "origin"), _ANY_TEXT),
        **dict.fromkeys(("id", "stream", "source", "reason"), _KEYWORD), "detail": {"type": "text"},
        "received_at": _TIME,
        # Any of these may be the very thing that was wrong: they are kept, not looked at.
        "timestamp": _UNSEARCHED, "value": _UNSEARCHED, "raw": _UNSEARCHED,
    },
    "feedback": {
        **_SERIES, "id": _KEYWORD, "anomaly_id": _KEYWORD, "detector": _KEYWORD, "kind": _KEYWORD, "verdict": _KEYWORD,
        "from_ms": _PLAIN_TIME, "until_ms": _PLAIN_TIME, "at_ms": _TIME, "p_value": _PLAIN_DOUBLE, "by": _KEYWORD,
        "note": {"type": "text"},
    },
    "offsets": {"offsets": _UNSEARCHED},
}  # fmt: skip

# Written by arrays: a field that is not named is our mistake and is refused. Events may gain a field in a newer
# version; an index of the older one keeps it in the source.
_STRICT: Final = ("readings", "scores", "rollups", "latest", "series")


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be on the server for one stream, by name."""

    templates: dict[str, Body]
    policies: dict[str, Body]


def plan(
    settings: ElasticsearchSettings,
    names: StreamNames,
    retention_ms: int,
    *,
    has_ilm: bool,
    refresh_s: float = REFRESH_S,
) -> Plan:
    """Templates for each kind, and an ILM policy where the server knows ILM.

    Args:
        settings: shards and replicas.
        names: of the stream.
        retention_ms: how long data is kept; it decides how many days one index holds.
        has_ilm: whether the server has index lifecycle management.
        refresh_s: how soon what was written can be found; below zero: not by itself.
    """
    days = period_days(retention_ms)
    templates = {
        names.template(kind): _template(settings, names, kind, days, refresh_s, has_ilm=has_ilm) for kind in KINDS
    }
    return Plan(templates, {names.policy: _policy(retention_ms, days)} if has_ilm else {})


def _template(
    settings: ElasticsearchSettings, names: StreamNames, kind: Kind, days: int, refresh_s: float, *, has_ilm: bool
) -> Body:
    index: Body = {
        "number_of_shards": str(settings.shards if kind in DATED else 1),
        "number_of_replicas": str(settings.replicas),
        "refresh_interval": "-1" if refresh_s < 0 else f"{round(refresh_s * 1000)}ms",
    }
    if has_ilm and kind in DATED:
        index["lifecycle"] = {"name": names.policy}
    mappings: Body = {"dynamic": "strict" if kind in _STRICT else "false", "properties": dict(PROPERTIES[kind])}
    return {
        "index_patterns": [names.pattern(kind)],
        "priority": PRIORITY,
        "composed_of": [],
        "template": {"settings": {"index": index}, "mappings": mappings, "aliases": {names.alias(kind): {}}},
        "_meta": {"managed_by": "tidewarden", "layout": LAYOUT, "period_days": days},
    }


def _policy(retention_ms: int, days: int) -> Body:
    # An index's age counts from its making, which is when its first day began; the archive drops it once its
    # last reading is too old. The policy is the second net, for a stream whose archive no longer runs.
    age_s = -(-retention_ms // 1000) + days * 86_400
    delete = {"min_age": f"{age_s}s", "actions": {"delete": {"delete_searchable_snapshot": True}}}
    return {
        "_meta": {"managed_by": "tidewarden"},
        "phases": {"hot": {"min_age": "0ms", "actions": {}}, "delete": delete},
    }
