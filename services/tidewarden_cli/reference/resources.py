"""The page of the four kinds: fields, rules, status and columns, and the table of a model's fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, HttpUrl, JsonValue
from pydantic_core import PydanticUndefined

from tidewarden.resources import MetricStream
from tidewarden.resources.anomalydetector import parse_budget
from tidewarden.resources.base import NAME_PATTERN, format_duration, parse_duration
from tidewarden.resources.crd.columns import SHOWN, Shown
from tidewarden.resources.crd.rules import FIELD_RULES, RULES
from tidewarden.resources.loader import KINDS
from tidewarden.resources.schema import Field, fields_of, walk
from tidewarden.resources.status import STATUSES
from tidewarden_cli.reference.markdown import NOTE, one_line, table

_SIMPLE = {str: "text", int: "integer", float: "number", bool: "true or false", HttpUrl: "address", Path: "path"}
_SEE_ALSO = {"AnomalyDetector": "What each kind of model is, when it fails and what it costs: [models](models.md).\n"}
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def resources_page() -> str:
    """Every kind and every field."""
    lines = [
        NOTE,
        "# Resources\n",
        "Four kinds describe everything. A file holds one or several of them, as YAML documents or JSON; the same "
        "files are read by `tidewarden up` and by a Kubernetes cluster.\n",
        "Durations are a number and a unit (`ms`, `s`, `m`, `h`, `d`, `w`), as in `90s` or `1h30m`. "
        "Times are RFC 3339. A field without a default that is not marked *required* is simply absent.\n",
        "## Common to all kinds\n",
        *field_table(MetricStream, only={"apiVersion", "metadata"}),
        "`kind` is one of the four below, `spec` what its section says.\n",
    ]
    for kind, model in KINDS.items():
        spec = fields_of(model)["spec"].model
        assert spec is not None
        lines += [f"## {kind}\n", f"{_first_paragraph(model)}\n", *field_table(spec, prefix="spec.")]
        lines += [_SEE_ALSO[kind]] if kind in _SEE_ALSO else []
        lines += [f"### Rules of {kind}\n", *(f"- {rule}" for rule in _rules(spec)), ""]
        lines += [f"### Status of {kind}\n", "In a cluster, written by the operator.\n", *_status(STATUSES[kind])]
        lines += [f"### {kind} in kubectl\n", *_columns(SHOWN[kind])]
    return "\n".join(lines)


def field_table(model: type[BaseModel], prefix: str = "", only: set[str] | None = None) -> list[str]:
    """The lines of a table with every field of ``model``, or of those called ``only``; ``prefix`` leads each path."""
    rows = [
        (f"`{path}`", _type(field), _default(field), _limits(field), one_line(field.description))
        for path, field in walk(model, prefix)
        if only is None or path.split(".")[0] in only
    ]
    return table(("Field", "Type", "Default", "Bounds", "What it is"), rows)


def _rules(spec: type[BaseModel]) -> Iterator[str]:
    """What holds between fields and over changes: the rules that the API server checks."""
    owners = [("spec", spec), *((f"spec.{path}", field.model) for path, field in walk(spec) if field.model is not None)]
    for path, model in owners:
        for rule in RULES.get(model, ()):
            yield f"`{path}{'.' if rule.field else ''}{rule.field}`: {rule.summary}"
        for name in fields_of(model):
            for rule in FIELD_RULES.get((model, name), ()):
                yield f"`{path}.{name}`: {rule.summary}"


def _status(model: type[BaseModel]) -> list[str]:
    rows = [(f"`{path}`", _type(field), one_line(field.description)) for path, field in walk(model, "status.")]
    return table(("Field", "Type", "What it is"), rows)


def _columns(shown: Shown) -> list[str]:
    scale = ", `kubectl scale` sets `spec.replicas`" if shown.scale else ""
    rows = [(c.name, f"`{c.path}`", "`-o wide`" if c.wide else "", c.description) for c in shown.columns]
    return [
        f"`kubectl get {shown.plural}`, or `{shown.short}` for short, or `tidewarden` for all four kinds{scale}.\n",
        *table(("Column", "Field", "Shown with", "What it is"), rows),
    ]


def _type(field: Field) -> str:
    if field.model is not None:
        name = field.model.__name__
        return f"list of {name}" if field.is_list else f"mapping to {name}" if field.is_mapping else name
    simple = _item_type(field)
    if field.is_list:
        return f"list: {simple}"
    return f"mapping: {simple} to number" if field.is_mapping and field.choices else simple


def _item_type(field: Field) -> str:
    if field.choices:
        return ", ".join(f"`{choice}`" for choice in field.choices)
    if field.parser is parse_duration:
        return "duration"
    if field.parser is parse_budget:
        return "budget"
    if field.is_list:
        return "text"
    if field.is_mapping:
        return "mapping: text to anything" if field.inner == dict[str, JsonValue] else "mapping: text to text"
    return _SIMPLE.get(field.inner, "time")


def _default(field: Field) -> str:
    info = field.info
    if info.is_required():
        return "*required*"
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined:
        return ""
    return f"`{_plain(field, value)}`"


def _plain(field: Field, value: Any) -> str:
    """A default as one would write it in YAML."""
    if isinstance(value, BaseModel):
        return json.dumps(value.model_dump(mode="json", by_alias=True, exclude_defaults=True)).replace('"', "")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_plain(field, item) for item in value)}]"
    if isinstance(value, bool):
        return str(value).lower()
    if field.parser is parse_duration:
        return format_duration(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _limits(field: Field) -> str:
    found = []
    for item in field.info.metadata:
        for name, sign in _BOUNDS.items():
            limit = getattr(item, name, None)
            if limit is not None:
                found.append(f"{sign} {format_duration(limit) if field.parser is parse_duration else f'{limit:,}'}")
        least, most = getattr(item, "min_length", None), getattr(item, "max_length", None)
        unit = "entries" if field.is_list or field.is_mapping else "characters"
        if least:
            found.append("not empty" if least == 1 else f"≥ {least} {unit}")
        if most is not None:
            found.append(f"≤ {most} {unit}")
        if getattr(item, "pattern", None) == NAME_PATTERN:
            found.append("a DNS label")
    return ", ".join(found)


def _first_paragraph(model: type[BaseModel]) -> str:
    return one_line(model.__doc__ or "")
