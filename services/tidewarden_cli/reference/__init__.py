"""Writes docs/reference, crds, their chart, dashboards and alert rules from the code itself.

``python -m tidewarden_cli.reference [--check] [FOLDER]``

Resources and their CRDs come from the pydantic models, metrics from the telemetry's registry, commands from the
program, the API from its own description. So the files cannot say anything that the code does not.

Every page of docs/reference is a module here that renders its text; `PAGES` names them. What is no page is rendered by
its owner: CRDs and chart by `tidewarden.resources.crd`, dashboards and rules by
`tidewarden_operator.plan.observability`. Only `generate` writes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tidewarden.resources.crd.files import CHART, chart_templates, manifests
from tidewarden_cli.reference.api import openapi_page
from tidewarden_cli.reference.commands import cli_page
from tidewarden_cli.reference.metrics import metrics_page
from tidewarden_cli.reference.models import models_page
from tidewarden_cli.reference.operator_page import operator_page
from tidewarden_cli.reference.resources import resources_page
from tidewarden_cli.reference.status import status_page
from tidewarden_operator.plan import observability

FOLDER = Path("docs/reference")
PAGES: dict[str, Callable[[], str]] = {
    "resources.md": resources_page,
    "models.md": models_page,
    "metrics.md": metrics_page,
    "operator.md": operator_page,
    "status.md": status_page,
    "cli.md": cli_page,
    "openapi.json": openapi_page,
}


def generate(root: Path) -> list[Path]:
    """Write every generated file below ``root``; returns their paths."""
    written = []
    for name, render in outputs().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(), encoding="utf-8")
        written.append(path)
    return written


def stale(root: Path) -> list[Path]:
    """The files below ``root`` that are missing or not what the code says."""
    paths = {root / name: render for name, render in outputs().items()}
    return [path for path, render in paths.items() if not path.exists() or path.read_text("utf-8") != render()]


def outputs() -> dict[Path, Callable[[], str]]:
    """Every generated file, relative to the repository, and what renders it."""
    definitions = {Path("crds") / name: render for name, render in manifests().items()}
    templates = {CHART / "templates" / name: render for name, render in chart_templates().items()}
    pages = {FOLDER / name: render for name, render in PAGES.items()}
    return pages | definitions | templates | dict(observability.files())


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with ``--check`` say which are out of date (exit code 1)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    check = "--check" in given
    folders = [word for word in given if word != "--check"]
    root = Path(folders[0]) if folders else Path()
    if not check:
        for path in generate(root):
            print(path)  # noqa: T201 - a program's output
        return 0
    outdated = stale(root)
    for path in outdated:
        print(f"{path} is not what the code says: run `make generate` and commit it", file=sys.stderr)  # noqa: T201
    return 1 if outdated else 0
