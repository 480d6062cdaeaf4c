"""What pydantic found, said to a person: the value, what is wrong with it, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic_core import ErrorDetails

from tidewarden.resources.base import REMEDIES, format_duration, parse_duration
from tidewarden.resources.likeness import did_you_mean
from tidewarden.resources.schema import Field

_LIMITS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}
_EXPECTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "a mapping of names to values",
    "model": "a mapping of fields",
    "datetime": "a time such as 2025-01-31T12:00:00Z",
    "url": "an address such as https://example.org/alerts",
    "invalid-json-value": "text, a number, true or false, a list or a mapping",
}


def explain(error: ErrorDetails, field: Field | None, text: str | None) -> str:
    """One error of pydantic as a sentence; ``text`` is the value as it stands in the file."""
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    shown = show(given, text)
    if kind in _LIMITS:
        return _out_of_bounds(kind, context, field, shown)
    match kind:
        case "missing":
            about = field.description.split("\n")[0].rstrip(".") if field is not None else ""
            message = f"is missing: add it ({about})" if about else "is missing: add it"
        case "value_error":
            message = str(context["error"])
        case "literal_error" if field is not None:
            message = f"{shown} is not one of {_listed(field.choices)}{did_you_mean(given, field.choices)}"
        case "string_pattern_mismatch":
            message = f"{shown} {REMEDIES.get(context['pattern'], 'does not fit')}"
        case "string_too_short" | "too_short":
            message = f"{shown} is too short: give at least {_count(context['min_length'], kind)}"
        case "string_too_long" | "too_long":
            message = f"{shown} is too long: give at most {_count(context['max_length'], kind)}"
        case "string_type" if isinstance(given, (bool, int, float)):
            message = f"{shown} is read as {_yaml_type(given)}, text is needed: put it in quotes"
        case _ if given is None:
            message = f"is empty: give {_expected(kind)}, or remove the field for its default"
        case _:
            message = f"{shown} does not fit: {_expected(kind)} is needed"
    return message


def _out_of_bounds(kind: str, context: dict[str, Any], field: Field | None, shown: str) -> str:
    key, words = _LIMITS[kind]
    limit = context[key]
    if field is not None and field.parser is parse_duration:
        limit = format_duration(int(limit))
    return f"{shown} is out of bounds: it must be {words} {limit}"


def dotted(path: Iterable[str | int]) -> str:
    """A path into a document as people write it: spec.sources[0].http."""
    told = ""
    for part in path:
        told += f"[{part}]" if isinstance(part, int) else f".{part}" if told else part
    return told


def show(value: Any, text: str | None = None) -> str:
    """A value in a message, short: as written in the file where that is known."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    shown = repr(value) if text is None or isinstance(value, str) else text
    return shown if len(shown) <= 80 else f"{shown[:77]}…"


def _expected(kind: str) -> str:
    stem = kind.split("_", maxsplit=1)[0]
    return _EXPECTED.get(stem, "another value")


def _yaml_type(value: Any) -> str:
    if isinstance(value, bool):
        return "true or false"
    return "a number"


def _listed(choices: Iterable[Any]) -> str:
    return ", ".join(str(choice) for choice in choices)


def _count(number: int, kind: str) -> str:
    unit = "character" if kind.startswith("string") else "entry"
    plural = {"entry": "entries", "character": "characters"}[unit]
    return f"{number} {unit if number == 1 else plural}"
