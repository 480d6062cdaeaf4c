"""The resource models as a tree of fields: for strict parsing, plain error messages and the reference docs."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from tidewarden.resources.anomalydetector import parse_budget
from tidewarden.resources.base import parse_duration


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a model, as the user sees it."""

    name: str  # camelCase
    info: FieldInfo

    @property
    def inner(self) -> Any:
        """Its type without ``None``."""
        options = [option for option in _options(self.info.annotation) if option is not type(None)]
        return options[0] if len(options) == 1 else self.info.annotation

    @property
    def model(self) -> type[BaseModel] | None:
        """The model of a nested field, of a list's items or of a mapping's values."""
        return _model_of(self.inner)

    @property
    def description(self) -> str:
        """What it is for: its own words, or those of the model it holds."""
        own = self.info.description
        return own or (inspect.getdoc(self.model) if self.model is not None else None) or ""

    @property
    def is_list(self) -> bool:
        """Whether it holds a list."""
        return get_origin(self.inner) is list

    @property
    def is_mapping(self) -> bool:
        """Whether it holds names that the user chooses."""
        return get_origin(self.inner) is dict

    @property
    def parser(self) -> Any:
        """`parse_duration`, `parse_budget` or None: what reads the field's text (of a list: its items')."""
        return _parser_of(self.info.metadata) or _parser_of_type(self.info.annotation)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values allowed, where they are listed (of a list: its items'; of a mapping: its keys)."""
        return _choices_of(self.info.annotation)


def literals(annotation: Any) -> tuple[str, ...]:
    """The values of a ``Literal`` of texts."""
    return tuple(str(value) for value in get_args(annotation))


def fields_of(model: type[BaseModel]) -> dict[str, Field]:
    """The fields of ``model`` by their camelCase names."""
    return {info.alias or name: Field(info.alias or name, info) for name, info in model.model_fields.items()}


def field_at(model: type[BaseModel], path: Sequence[str | int]) -> Field | None:
    """The field that a path such as ``("spec", "sources", 0, "http")`` leads to; list positions are passed over."""
    found: Field | None = None
    current: type[BaseModel] | None = model
    for part in path:
        if isinstance(part, int) or (found is not None and found.is_mapping):
            continue
        if current is None:
            return None
        found = fields_of(current).get(part)
        if found is None:
            return None
        current = found.model
    return found


def walk(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Field]]:
    """Every field below ``model`` with its dotted path, parents first."""
    for name, field in fields_of(model).items():
        path = f"{prefix}{name}" + ("[]" if field.is_list and field.model else "")
        yield path, field
        if field.model is not None:
            yield from walk(field.model, f"{path}.")


def _options(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in {Union, types.UnionType}:
        return get_args(annotation)
    return (annotation,)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _model_of(get_args(annotation)[0])
    if origin in {list, dict}:
        return _model_of(get_args(annotation)[-1])
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _parser_of(metadata: Sequence[Any]) -> Any:
    for item in metadata:
        if isinstance(item, BeforeValidator) and item.func in {parse_duration, parse_budget}:
            return item.func
    return None


def _parser_of_type(annotation: Any) -> Any:
    for option in _options(annotation):
        if get_origin(option) is typing.Annotated:
            found = _parser_of(get_args(option)[1:])
            if found is not None:
                return found
        elif get_origin(option) is list:
            return _parser_of_type(get_args(option)[0])
    return None


def _choices_of(annotation: Any) -> tuple[Any, ...]:
    for option in _options(annotation):
        if get_origin(option) is Literal:
            return get_args(option)
        if get_origin(option) in {list, dict}:
            return _choices_of(get_args(option)[0])
    return ()
