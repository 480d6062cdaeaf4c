"""The reference says what the code says: every field, metric and command, and it is up to date."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from tidewarden.resources.crd.columns import SHOWN
from tidewarden.resources.crd.rules import FIELD_RULES, RULES
from tidewarden.resources.loader import KINDS
from tidewarden.resources.schema import walk
from tidewarden.resources.status import STATUSES
from tidewarden.telemetry import Telemetry
from tidewarden_cli.main import COMMANDS
from tidewarden_cli.reference import FOLDER, PAGES, generate, main, stale
from tidewarden_cli.reference.metrics import metrics_of
from tidewarden_operator.metrics import OperatorMetrics

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("page", PAGES)
def test_the_committed_reference_is_what_the_code_says(page: str) -> None:
    """Red means: run ``make generate`` and commit."""
    assert (ROOT / FOLDER / page).read_text("utf-8") == PAGES[page](), f"{page} is out of date: make generate"


def test_generating_twice_gives_the_same_bytes_and_check_notices_a_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = [path.read_bytes() for path in generate(tmp_path)]
    assert [path.read_bytes() for path in generate(tmp_path)] == first
    assert main(["--check", str(tmp_path)]) == 0
    page = tmp_path / FOLDER / "metrics.md"
    page.write_text(page.read_text("utf-8") + "\nedited by hand\n", "utf-8")
    (tmp_path / FOLDER / "cli.md").unlink()
    assert set(stale(tmp_path)) == {page, tmp_path / FOLDER / "cli.md"}
    assert main(["--check", str(tmp_path)]) == 1
    assert "run `make generate`" in capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_resource_says_what_it_is_for(kind: str) -> None:
    assert [path for path, field in walk(KINDS[kind]) if not field.description] == []


def test_every_field_of_every_resource_is_on_the_page() -> None:
    page = PAGES["resources.md"]()
    missing = [p for kind in KINDS.values() for p, _ in walk(kind) if p.startswith("spec.") and f"`{p}`" not in page]
    assert missing == []


def test_the_status_the_columns_and_the_rules_are_on_the_page() -> None:
    """Every field of every status, every column of kubectl and every rule of the API server."""
    page = PAGES["resources.md"]()
    assert [p for status in STATUSES.values() for p, _ in walk(status, "status.") if f"`{p}`" not in page] == []
    assert [c.path for shown in SHOWN.values() for c in shown.columns if f"`{c.path}`" not in page] == []
    rules = [rule for group in (*RULES.values(), *FIELD_RULES.values()) for rule in group]
    assert [rule.summary for rule in rules if rule.summary not in page] == []


def test_every_metric_that_is_exposed_is_documented() -> None:
    """The names are compared with what ``/metrics`` really writes."""
    text = ""
    for owner in (Telemetry(), OperatorMetrics()):
        for metric in metrics_of(owner):
            if metric._labelnames:
                metric.labels(*["x"] * len(metric._labelnames))
        text += generate_latest(owner.registry).decode()
    exposed = set(re.findall(r"^(tidewarden_\w+?)(?:_bucket|_sum|_count)?(?:\{| )", text, re.MULTILINE))
    exposed = {name for name in exposed if not name.endswith("_created")}
    pages = PAGES["metrics.md"]() + PAGES["operator.md"]().partition("## Metrics\n")[2]
    documented = set(re.findall(r"^\| `(\w+)`", pages, re.MULTILINE))
    assert documented == exposed


def test_every_command_is_documented() -> None:
    assert re.findall(r"^## tidewarden (\S+)$", PAGES["cli.md"](), re.MULTILINE) == list(COMMANDS)


def test_the_api_description_is_openapi_and_every_operation_has_a_summary() -> None:
    document = json.loads(PAGES["openapi.json"]())
    assert document["openapi"].startswith("3.")
    operations = [op for path in document["paths"].values() for op in path.values()]
    assert all(operation.get("summary") for operation in operations)
    assert "/api/v1/readings" in document["paths"]
