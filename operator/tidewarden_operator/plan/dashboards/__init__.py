"""Grafana's dashboards: values here, JSON files in ``charts/tidewarden/dashboards``, one source."""

from __future__ import annotations

from typing import NamedTuple

from tidewarden_operator.plan.dashboards.anomalies import ANOMALIES
from tidewarden_operator.plan.dashboards.infrastructure import INFRASTRUCTURE
from tidewarden_operator.plan.dashboards.models import MODELS
from tidewarden_operator.plan.dashboards.overview import OVERVIEW
from tidewarden_operator.plan.dashboards.panels import ALL, Dashboard, Needs, queries_of

__all__ = ["DASHBOARDS", "PanelQuery", "panel_queries"]

DASHBOARDS: tuple[Dashboard, ...] = (OVERVIEW, ANOMALIES, MODELS, INFRASTRUCTURE)


class PanelQuery(NamedTuple):
    """A query of a panel as Prometheus takes it, its variables filled in."""

    dashboard: str
    panel: str
    expr: str
    needs: Needs


def panel_queries(rate_interval: str = "1m", namespace: str = ALL) -> list[PanelQuery]:
    """Every query of every panel, to be run.

    Args:
        rate_interval: for Grafana's ``$__rate_interval``, at least four times the scrape interval.
        namespace: a name or regular expression for the variable; streams and detectors are all.
    """
    filled = {"$__rate_interval": rate_interval, "$namespace": namespace, "$stream": ALL, "$detector": ALL}
    found = []
    for dashboard in DASHBOARDS:
        for panel, query in queries_of(dashboard):
            expr = query.expr
            for name, value in filled.items():
                expr = expr.replace(name, value)
            found.append(PanelQuery(dashboard.name, panel.title, expr, panel.needs))
    return found
