"""Panels, rows and dashboards as values, and the JSON that Grafana reads (schema 39, Grafana 10.4 and later)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["stat", "timeseries", "bargauge", "heatmap", "table"]
Needs = Literal["pipeline", "evaluation", "operator"]

SCHEMA_VERSION = 39
COLUMNS = 24
GREEN, YELLOW, RED = "green", "yellow", "red"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# "All" also matches metrics without the label, as of a process that runs outside of Kubernetes.
ALL = ".*"


class Query(NamedTuple):
    """PromQL and how its lines are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel.

    Args:
        title: what it shows.
        queries: its lines.
        description: what a person reads out of it, and what is normal.
        unit: Grafana's name of the unit.
        kind: of the picture.
        warn: from here on yellow.
        bad: from here on red; below ``warn`` where small values are bad.
        width: of 24 columns.
        height: in rows of 30 pixels.
        stacked: lines add up.
        most: top of the axis, e.g. 1 of a share.
        needs: what must run for it to have data.
    """

    title: str
    queries: Sequence[Query]
    description: str
    unit: str = "short"
    kind: Kind = "timeseries"
    warn: float | None = None
    bad: float | None = None
    width: int = 12
    height: int = 8
    stacked: bool = False
    most: float | None = None
    needs: Needs = "pipeline"


class Row(NamedTuple):
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


class Variable(NamedTuple):
    """A choice at the top: label values of a metric."""

    label: str
    metric: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """One page of Grafana; ``name`` is its file's and its address's."""

    name: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Variable] = field(default_factory=tuple)


def select(metric: str, *matchers: str) -> str:
    """A selector of the chosen namespaces; ``stream`` and the like stand for the choice of that variable."""
    chosen = [f'{m}=~"${m}"' if m.isidentifier() else m for m in ("namespace", *matchers)]
    return f"{metric}{{{','.join(chosen)}}}"


def rendered(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in dashboard.rows:
        panels.append({**_place(len(panels) + 1, row.title, 0, y, COLUMNS, 1), "type": "row", "collapsed": False})
        panels[-1]["panels"] = []
        y += 1
        x = line = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, line = 0, y + line, 0
            place = _place(len(panels) + 1, panel.title, x, y, panel.width, panel.height)
            panels.append({**place, **_picture(panel)})
            x, line = x + panel.width, max(line, panel.height)
        y += line
    return {
        "uid": f"tidewarden-{dashboard.name}",
        "title": f"Tidewarden / {dashboard.title}",
        "description": dashboard.description,
        "tags": ["tidewarden"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "links": [
            {"type": "dashboards", "tags": ["tidewarden"], "title": "Tidewarden", "asDropdown": True,
             "includeVars": True, "keepTime": True},
        ],
        "annotations": {"list": [_alerts_on_the_time_axis()]},
        "templating": {"list": [_datasource(), *(_variable(v) for v in dashboard.variables)]},
        "panels": panels,
    }  # fmt: skip


def queries_of(dashboard: Dashboard) -> Iterator[tuple[Panel, Query]]:
    """Every query with its panel."""
    for row in dashboard.rows:
        for panel in row.panels:
            for query in panel.queries:
                yield panel, query


def _place(number: int, title: str, x: int, y: int, w: int, h: int) -> dict[str, Any]:
    return {"id": number, "title": title, "gridPos": {"x": x, "y": y, "w": w, "h": h}}


def _picture(panel: Panel) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": _thresholds(panel)}
    if panel.most is not None:
        defaults["max"] = panel.most
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal"} if panel.stacked else {"mode": "none"}
        defaults["color"] = {"mode": "palette-classic"}
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stacked else 5, "lineWidth": 1, "showPoints": "never", "stacking": stacking,
            "thresholdsStyle": {"mode": "off" if panel.warn is None and panel.bad is None else "line"},
        }  # fmt: skip
        options = {
            "legend": {"displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    elif panel.kind in ("stat", "bargauge"):
        defaults["color"] = {"mode": "thresholds"}
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        options |= {"colorMode": "background"} if panel.kind == "stat" else {"orientation": "horizontal"}
    elif panel.kind == "heatmap":
        options = {"calculate": False, "yAxis": {"unit": panel.unit}, "color": {"mode": "scheme", "scheme": "Oranges"}}
    return {
        "type": panel.kind,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [_target(panel, query, number) for number, query in enumerate(panel.queries)],
    }


def _target(panel: Panel, query: Query, number: int) -> dict[str, Any]:
    instant = panel.kind in ("stat", "bargauge", "table")
    shape = {"heatmap": "heatmap", "table": "table"}.get(panel.kind, "time_series")
    return {
        "refId": chr(ord("A") + number), "datasource": DATASOURCE, "expr": query.expr, "editorMode": "code",
        "legendFormat": query.legend or "__auto", "instant": instant, "range": not instant, "format": shape,
    }  # fmt: skip


def _thresholds(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": GREEN, "value": None}]
    if panel.warn is not None and panel.bad is not None and panel.bad < panel.warn:  # small is bad
        steps = [
            {"color": RED, "value": None}, {"color": YELLOW, "value": panel.bad}, {"color": GREEN, "value": panel.warn},
        ]  # fmt: skip
    else:
        marks = ((YELLOW, panel.warn), (RED, panel.bad))
        steps += [{"color": color, "value": value} for color, value in marks if value is not None]
    return {"mode": "absolute", "steps": steps}


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> dict[str, Any]:
    query = f"label_values({variable.metric}, {variable.label})"
    return {
        "name": variable.label, "label": variable.label, "type": "query", "datasource": DATASOURCE, "query": query,
        "definition": query, "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ALL,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _alerts_on_the_time_axis() -> dict[str, Any]:
    return {
        "name": "Alerts about Tidewarden", "datasource": DATASOURCE, "enable": True, "iconColor": RED,
        "expr": 'ALERTS{alertname=~"Tidewarden.+",alertstate="firing"}', "titleFormat": "{{alertname}}", "step": "60s",
    }  # fmt: skip
