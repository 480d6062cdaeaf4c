"""Versions as people read them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import yaml
from rich.table import Table

from tidewarden.registry.manifest import Aliases, Manifest
from tidewarden.resources.base import format_duration

HEADLINES = {"f1": "F1", "vus_pr": "VUS-PR", "injected_recall": "recall", "false_alarms_per_day": "alarms/day"}
"""The figures of the list, those that some version has; a line has 80 characters. `show` has all of them."""


def as_yaml(value: Any) -> str:
    """A part of a resource."""
    return yaml.safe_dump(value, sort_keys=False).rstrip()


def time_of(at_ms: int) -> str:
    """A moment to the second, UTC."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def figure(value: float | int | None) -> str:
    """A number as short as it can be said."""
    if value is None:
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def fields_of(manifest: Manifest) -> Iterator[tuple[str, str]]:
    """What is known of a version, name and text."""
    window = manifest.window
    yield "version", str(manifest.version)
    yield "parent", "–" if manifest.parent is None else str(manifest.parent)
    yield "created", time_of(manifest.created_at_ms)
    yield "model", manifest.model_version
    for path, value in _leaves(manifest.model):
        yield f"model.{path}", str(value)
    yield "seasonality", ", ".join(map(format_duration, manifest.seasonality_ms)) or "none"
    yield "data from", time_of(window.from_ms)
    yield "data to", time_of(window.to_ms)
    yield "readings", f"{window.readings:,}"
    yield "series", f"{window.series:,}"
    yield "interval", format_duration(window.interval_ms)
    for number, period in enumerate(manifest.excluded, 1):
        yield f"excluded {number}", f"{time_of(period.from_ms)}/{time_of(period.until_ms)}"
    for name, value in manifest.metrics.items():
        yield f"held out: {name.replace('_', ' ')}", figure(value)
    yield "code", manifest.code_version
    yield "state", f"{manifest.state_bytes:,} bytes, SHA-256 {manifest.state_sha256[:16]}…"
    yield "note", manifest.note


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        yield path, value
        return
    for name, inner in pairs:
        yield from _leaves(inner, f"{path}.{name}" if path else str(name))


def manifest_table(manifest: Manifest, *, champion: bool) -> Table:
    """One version."""
    table = Table(
        show_header=False, title=f"{manifest.detector}{' (champion)' if champion else ''}", title_justify="left"
    )
    table.add_column()
    table.add_column(overflow="fold")
    for name, text in fields_of(manifest):
        table.add_row(name, text)
    return table


def list_table(detector: str, manifests: list[Manifest], aliases: Aliases) -> Table:
    """All versions of a detector, the newest last."""
    shown = {n: text for n, text in HEADLINES.items() if any(m.metrics.get(n) is not None for m in manifests)}
    table = Table(title=detector, title_justify="left")
    for column in ("version", "created", "model", *shown.values()):
        table.add_column(column, justify="left" if column in {"created", "model"} else "right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for one in manifests:
        mark = "* " if one.version == aliases.champion else ""
        figures = (figure(one.metrics.get(name)) for name in shown)
        created = time_of(one.created_at_ms)[:16].replace("T", " ")
        table.add_row(f"{mark}{one.version}", created, one.model_version, *figures, one.note)
    return table


def diff_table(before: Manifest, after: Manifest) -> Table:
    """Where two versions differ."""
    table = Table(title=f"{before.detector}: {before.version} → {after.version}", title_justify="left")
    for column in ("", str(before.version), str(after.version)):
        table.add_column(column, overflow="fold")
    first, second = dict(fields_of(before)), dict(fields_of(after))
    for name in dict.fromkeys([*first, *second]):
        if name != "version" and first.get(name) != second.get(name):
            table.add_row(name, first.get(name, "–"), second.get(name, "–"))
    return table
