"""From a pydantic model to a structural OpenAPI schema, as Kubernetes wants it.

Written from the fields themselves instead of from pydantic's JSON schema: everything is inline, there are no
unions, no titles and no nulls. An optional field is one that may be absent; the API server drops a ``null``
before it looks at the schema, so nothing is ``nullable``.

What a pattern would refuse in the words of a regular expression is a CEL rule instead, with value and remedy.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as bounds
from pydantic import BaseModel, BeforeValidator, HttpUrl, JsonValue, StringConstraints
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tidewarden.resources.anomalydetector import BUDGET_PATTERN, parse_budget
from tidewarden.resources.base import (
    DURATION_MAX_LENGTH,
    DURATION_PATTERN,
    NAME_PATTERN,
    REMEDIES,
    format_duration,
    parse_duration,
)
from tidewarden.resources.crd.rules import FIELD_RULES, RULES, Rule, milliseconds, per_day, quoted, told
from tidewarden.resources.metricstream import MetricStreamSpec
from tidewarden.resources.schema import Field, fields_of

Schema = dict[str, Any]

_URL_MAX_LENGTH = 2_083  # pydantic's own limit of HttpUrl
_BUDGET_MAX_LENGTH = 32
_KEYS = {"MetricContract": "name", "Source": "name", "Condition": "type"}  # lists of these are maps by that field
_SETS = {(MetricStreamSpec, "tenants")}  # lists of text in which nothing is said twice


def structural(model: type[BaseModel], *, rules: bool = True) -> Schema:
    """Schema of an object; ``rules=False`` leaves the CEL rules out, as for a status that only we write."""
    fields = fields_of(model)
    schema: Schema = {"type": "object"}
    if fields:
        schema["properties"] = {name: _of_field(model, field, rules=rules) for name, field in fields.items()}
    required = [name for name, field in fields.items() if field.info.is_required()]
    if required:
        schema["required"] = required
    if rules:
        _add_rules(schema, RULES.get(model, ()))
    return schema


def _of_field(model: type[BaseModel], field: Field, *, rules: bool) -> Schema:
    info = field.info
    schema = _of(info.annotation, info.metadata, rules=rules)
    if field.is_list:
        key = _KEYS.get(field.model.__name__) if field.model is not None else None
        if key is not None:
            schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}
        elif (model, field.name) in _SETS:
            schema["x-kubernetes-list-type"] = "set"
    text = plain(field.description)
    if rules:
        default = default_of(field)
        if default is not None:
            schema["default"] = default
        if isinstance(default, (str, int, float)):  # `kubectl explain` does not show defaults by itself
            shown = str(default).lower() if isinstance(default, bool) else default
            text = f"{text.rstrip('.')}. Default: {shown}."
        _add_rules(schema, FIELD_RULES.get((model, field.name), ()))
    return {"description": text, **schema}


def _of(annotation: Any, metadata: Sequence[Any], *, rules: bool) -> Schema:  # noqa: PLR0911 - a case each
    """Schema of a type with its constraints."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        return _of(inner, [*_flat(more), *metadata], rules=rules)
    if origin in {Union, types.UnionType}:
        [inner] = [option for option in get_args(annotation) if option is not type(None)]
        return _of(inner, metadata, rules=rules)
    parsers = {item.func for item in metadata if isinstance(item, BeforeValidator)}
    if parse_duration in parsers:
        return _duration(metadata) if rules else {"type": "string", "maxLength": DURATION_MAX_LENGTH}
    if parse_budget in parsers:
        return _budget(metadata)
    if origin is list:
        items = _of(get_args(annotation)[0], [], rules=rules)
        return {"type": "array", "items": items, **_sizes(metadata, "Items")}
    if annotation == dict[str, JsonValue]:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True, **_sizes(metadata, "Properties")}
    if origin is dict:
        values = _of(get_args(annotation)[1], [], rules=rules)
        return {"type": "object", "additionalProperties": values, **_sizes(metadata, "Properties"), **_keys(annotation)}
    if origin is Literal:
        return {"type": "string", "enum": list(get_args(annotation))}
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return structural(annotation, rules=rules)
    return _simple(annotation, metadata, rules=rules)


def _simple(annotation: Any, metadata: Sequence[Any], *, rules: bool) -> Schema:
    if annotation is bool:
        return {"type": "boolean"}
    if annotation is int:
        return {"type": "integer", "format": "int64", **_bounds(metadata)}
    if annotation is float:
        return {"type": "number", **_bounds(metadata)}
    if annotation is datetime:
        return {"type": "string", "format": "date-time"}
    if annotation is HttpUrl:
        return _url()
    if annotation is str:
        return _text(metadata, rules=rules)
    raise TypeError(f"no schema is known for {annotation!r}: add it to {__name__}")


def _text(metadata: Sequence[Any], *, rules: bool) -> Schema:
    schema: Schema = {"type": "string", **_sizes(metadata, "Length")}
    pattern = next((item.pattern for item in metadata if getattr(item, "pattern", None)), None)
    if pattern == NAME_PATTERN:
        schema["maxLength"] = 63
    if pattern in REMEDIES and rules:
        remedy = REMEDIES[pattern]
        rule = Rule(f"self.matches({quoted(pattern)})", f"this {remedy}", told("'", "=self", f"' {remedy}"))
        _add_rules(schema, [rule])
    elif pattern is not None:
        schema["pattern"] = pattern
    return schema


def _url() -> Schema:
    schema: Schema = {"type": "string", "maxLength": _URL_MAX_LENGTH}
    remedy = "is not an address: write one such as https://example.org/alerts"
    rule = "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHost() != ''"
    _add_rules(schema, [Rule(rule, f"this {remedy}", told("'", "=self", f"' {remedy}"))])
    return schema


def _duration(metadata: Sequence[Any]) -> Schema:
    valid = f"self.matches({quoted(_rough(DURATION_PATTERN))})"
    bad = "is not a duration: write a number and a unit (ms, s, m, h, d, w), as in 5m or 1h30m"
    found = [bound for bound in _limits(metadata) if bound != (">=", 0)]  # the pattern knows no minus
    limits = [f"{_WORDS[sign]} {format_duration(int(limit))}" for sign, limit in found]
    tests = [f"{milliseconds('self')} {sign} {int(limit)}" for sign, limit in found]
    schema: Schema = {"type": "string", "maxLength": DURATION_MAX_LENGTH}
    if not tests:
        _add_rules(schema, [Rule(valid, f"this {bad}", told("'", "=self", f"' {bad}"))])
        return schema
    out = f"is out of bounds: it must be {' and '.join(limits)}"
    message = told("'", "=self", "' ", f"=({valid} ? {quoted(out)} : {quoted(bad)})")
    _add_rules(
        schema, [Rule(" && ".join([valid, *tests]), f"a duration, {' and '.join(limits)}, as in 5m or 1h30m", message)]
    )
    return schema


def _budget(metadata: Sequence[Any]) -> Schema:
    valid = f"self.matches({quoted(_rough(BUDGET_PATTERN))})"
    limits = " and ".join(f"{_WORDS[sign]} {limit:,.0f}/day" for sign, limit in _limits(metadata))
    tests = [f"{per_day('self')} {sign} {limit:.1f}" for sign, limit in _limits(metadata)]
    bad = "is not a budget: write a number, a slash and hour, day or week, as in 2/day"
    out = f"is out of bounds: it must be {limits}"
    message = told("'", "=self", "' ", f"=({valid} ? {quoted(out)} : {quoted(bad)})")
    schema: Schema = {"type": "string", "maxLength": _BUDGET_MAX_LENGTH}
    _add_rules(schema, [Rule(" && ".join([valid, *tests]), f"a budget such as 2/day, {limits}", message)])
    return schema


_SIGNS = {bounds.Ge: (">=", "ge"), bounds.Gt: (">", "gt"), bounds.Le: ("<=", "le"), bounds.Lt: ("<", "lt")}
_WORDS = {">=": "at least", ">": "more than", "<=": "at most", "<": "less than"}


def _limits(metadata: Sequence[Any]) -> list[tuple[str, float]]:
    """Bounds as pairs of a sign and a number."""
    return [
        (sign, float(getattr(item, name)))
        for item in metadata
        for kind, (sign, name) in _SIGNS.items()
        if isinstance(item, kind)
    ]


def _bounds(metadata: Sequence[Any]) -> Schema:
    schema: Schema = {}
    for sign, limit in _limits(metadata):
        side = "minimum" if sign[0] == ">" else "maximum"
        schema[side] = int(limit) if limit.is_integer() else limit
        if len(sign) == 1:
            schema[f"exclusive{side.capitalize()}"] = True  # the boolean form of OpenAPI 3.0
    return schema


def _sizes(metadata: Sequence[Any], what: str) -> Schema:
    schema: Schema = {}
    for item in metadata:
        for name in ("min", "max"):
            limit = getattr(item, f"{name}_length", None)
            if limit is not None:
                schema[f"{name}{what}"] = limit
    return schema


def _keys(annotation: Any) -> Schema:
    key = get_args(annotation)[0]
    return {"maxProperties": len(get_args(key))} if get_origin(key) is Literal else {}


def default_of(field: Field) -> Any:
    """The default as JSON, in the words of the user; None where a field is simply absent.

    Of a part with fields of its own every default is written out: the server looks at defaults with the CEL
    rules before it has filled in what is within them.
    """
    info = field.info
    value = info.get_default(call_default_factory=True, validated_data={})
    return None if value is None or value is PydanticUndefined else _json(field, value)


def _json(field: Field, value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)
    if isinstance(value, list):
        return [_json(field, item) for item in value]
    if field.parser is parse_duration:
        return format_duration(value)
    return value


def _flat(metadata: Sequence[Any]) -> Iterator[Any]:
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from item.metadata
        elif isinstance(item, StringConstraints):
            yield from (part for part in item)
        else:
            yield item


def _add_rules(schema: Schema, rules: Sequence[Rule]) -> None:
    if rules:
        known = schema.setdefault("x-kubernetes-validations", [])
        known += [rule.document() for rule in rules]


def _rough(pattern: str) -> str:
    """A pattern as RE2, which CEL speaks, has it: our own use nothing else."""
    return pattern.replace(r"\d", "[0-9]")


def plain(text: str) -> str:
    """A description in one line, its first paragraph, without mark-up."""
    return re.sub(r"\s+", " ", text.split("\n\n", maxsplit=1)[0].replace("``", "")).strip()
