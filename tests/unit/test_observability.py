"""Dashboards, rules, runbooks and saved objects: what can be told without a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tidewarden.store.elasticsearch.names import KINDS, StreamNames
from tidewarden.store.elasticsearch.templates import PROPERTIES
from tidewarden.telemetry import Telemetry
from tidewarden_cli.reference.metrics import exposed_name, metrics_of
from tidewarden_operator.metrics import OperatorMetrics
from tidewarden_operator.plan import kibana, observability
from tidewarden_operator.plan.dashboards import DASHBOARDS, panel_queries
from tidewarden_operator.plan.dashboards.panels import rendered
from tidewarden_operator.plan.rules import RUNBOOKS, all_groups, operator_groups, pipeline_groups

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "runbooks"
RULES = {rule["alert"]: rule for group in all_groups() for rule in group["rules"]}


@pytest.mark.parametrize("path", observability.files(), ids=str)
def test_the_committed_files_are_what_the_code_says(path: Path) -> None:
    """Red means: run ``make generate`` and commit."""
    assert (ROOT / path).read_text("utf-8") == observability.files()[path]()


def test_every_metric_that_a_query_names_is_one_that_we_expose() -> None:
    """No panel and no rule asks for a metric that has been renamed or never was."""
    known = {exposed_name(metric) for owner in (Telemetry(), OperatorMetrics()) for metric in metrics_of(owner)}
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    expressions = [query.expr for query in panel_queries()] + [rule["expr"] for rule in RULES.values()]
    named = {name for expr in expressions for name in re.findall(r"\btidewarden_\w+", expr)}
    assert named <= known, named - known


def test_no_variable_is_left_in_a_query() -> None:
    """`panel_queries` gives PromQL that Prometheus takes as it is."""
    assert [query.expr for query in panel_queries() if "$" in query.expr.replace('"$1"', "")] == []


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.name)
def test_every_panel_says_what_it_means_and_has_a_place_of_its_own(dashboard: object) -> None:
    """A description, a title and numbers that do not repeat, and no two panels on one spot."""
    panels = rendered(dashboard)["panels"]  # type: ignore[arg-type]
    pictures = [panel for panel in panels if panel["type"] != "row"]
    assert all(panel["description"].endswith(".") and panel["targets"] for panel in pictures)
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in pictures}) == len(pictures)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        spots = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in spots) < 24
        assert not spots & taken, panel["title"]
        taken |= spots


def test_small_is_bad_where_it_is() -> None:
    """F1 is red below the threshold of its alert; a latency is red above its own."""
    [f1] = [p for p in rendered(DASHBOARDS[2])["panels"] if p["title"] == "F1"]
    assert [s["color"] for s in f1["fieldConfig"]["defaults"]["thresholds"]["steps"]] == ["red", "yellow", "green"]
    [latency] = [p for p in rendered(DASHBOARDS[0])["panels"] if p["title"] == "Latency of scores, 99 %"]
    assert [s["color"] for s in latency["fieldConfig"]["defaults"]["thresholds"]["steps"]] == ["green", "yellow", "red"]


def test_every_rule_has_its_page_and_every_page_its_rule() -> None:
    """A runbook link that exists: named after the alert, with what it means, how to look and what to do."""
    assert {page.stem for page in PAGES.glob("*.md")} == set(RULES)
    for name, rule in RULES.items():
        assert rule["annotations"]["runbook_url"] == f"{RUNBOOKS}{name}.md"
        page = (PAGES / f"{name}.md").read_text("utf-8")
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert headings == [name, "What it means", "How to look", "What to do"], name
        assert f"Severity: {rule['labels']['severity']}." in page, name


def test_the_page_on_operations_names_every_alert_and_every_dashboard() -> None:
    """Who looks for what an alert or a dashboard is for finds it there."""
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert [name for name in RULES if f"(runbooks/{name}.md)" not in page] == []
    assert [one.title for one in DASHBOARDS if one.title not in page] == []


def test_rules_of_a_namespace_speak_of_that_namespace_only() -> None:
    """Every selector of every pipeline rule has the matcher, so two namespaces' rules never tell the same twice."""
    for rule in pipeline_groups("shop")[0]["rules"]:
        selectors = re.findall(r"\b(?:up|tidewarden_\w+)(\{[^}]*\})?", rule["expr"])
        assert selectors, rule["alert"]
        assert all('namespace="shop"' in selector for selector in selectors), rule["alert"]
    expressions = [rule["expr"] for rule in RULES.values()]
    assert not [expr for expr in expressions if "NAMESPACE" in expr or "{}" in expr or "{," in expr]
    assert {rule["alert"] for rule in operator_groups()[0]["rules"]} < set(RULES)


def test_every_field_that_kibana_shows_is_in_the_index_templates() -> None:
    """A data view's time is a date that is searched by; a column or a query names a field there is."""
    names = StreamNames("tidewarden", "any", "stream")
    for view in kibana.VIEWS:
        assert view.kind in KINDS
        if view.time is not None:
            assert PROPERTIES[view.kind][view.time]["type"] == "date"  # type: ignore[index]
            assert PROPERTIES[view.kind][view.time].get("index", True), view  # type: ignore[index]
    for kind, fields in kibana.fields_named().items():
        assert fields <= set(PROPERTIES[kind]), kind  # type: ignore[index]
    objects = [json.loads(line) for line in kibana.saved_objects().splitlines()]
    titles = {item["attributes"]["title"] for item in objects if item["type"] == "index-pattern"}
    patterns = {re.compile(title.replace(".", r"\.").replace("*", "[^.]+")) for title in titles}
    assert all(any(p.fullmatch(names.alias(view.kind)) for p in patterns) for view in kibana.VIEWS)  # type: ignore[arg-type]


def test_saved_objects_refer_only_to_what_stands_before_them() -> None:
    """Kibana imports the file in its order."""
    known: set[tuple[str, str]] = set()
    for line in kibana.saved_objects().splitlines():
        item = json.loads(line)
        assert {(reference["type"], reference["id"]) for reference in item["references"]} <= known
        known.add((item["type"], item["id"]))
