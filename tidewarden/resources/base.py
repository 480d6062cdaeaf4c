"""What the four kinds share: durations, metadata, the envelope."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

API_VERSION = "tidewarden.dev/v1alpha1"

_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
# Nine digits of weeks, three times in 32 characters, stay far below 2⁶³ ms: the API server's CEL can add them up.
DURATION_PATTERN = r"^(?:[0-9]{1,9}(?:ms|s|m|h|d|w))+$"
DURATION_MAX_LENGTH = 32


def parse_duration(text: Any) -> int:
    """Milliseconds of a duration such as ``90s``, ``1h30m`` or ``7d``; integers pass as milliseconds."""
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    if not isinstance(text, str) or len(text) > DURATION_MAX_LENGTH or not re.match(DURATION_PATTERN, text):
        raise ValueError(
            f"{text!r} is not a duration: write a number and a unit (ms, s, m, h, d, w), as in 5m or 1h30m"
        )
    return sum(int(n) * _UNIT_MS[unit] for n, unit in re.findall(r"(\d+)(ms|s|m|h|d|w)", text))


def format_duration(ms: int) -> str:
    """The shortest text that `parse_duration` reads back: 90_000 is ``1m30s``."""
    if ms == 0:
        return "0s"
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        count, ms = divmod(ms, _UNIT_MS[unit])
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": DURATION_MAX_LENGTH}),
]
"""Milliseconds in Python, text such as ``5m`` in YAML."""

NAME_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
TOPIC_PATTERN = r"^[A-Za-z0-9._-]+$"
SELECTOR_PATTERN = r"^[^*]*[*]?$"
REFERENCE_PATTERN = r"^(champion|latest|[1-9][0-9]{0,8})$"
KIND_PATTERN = r"^[a-z][a-z0-9_]*$"
REMEDIES = {
    NAME_PATTERN: "is not a name: write lower-case letters, digits and hyphens, at most 63 in all",
    TOPIC_PATTERN: "is not a topic: write letters, digits, dots, hyphens and underscores",
    REFERENCE_PATTERN: "is no version: write champion, latest or a number in quotation marks",
    KIND_PATTERN: "is no kind of model: write lower-case letters, digits and underscores, at most 63 in all",
    SELECTOR_PATTERN: "has a * before its end: names may end in *, as in web-*",
}
"""What is wrong with a text that a pattern refuses, and what to write: the same words here and on the API server."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
"""A DNS label, as Kubernetes names are."""

Label = Annotated[str, Field(min_length=1, max_length=253)]
"""A tenant, cluster, node or metric: any text, as long as a DNS name may be."""

Selector = Annotated[str, Field(max_length=253, pattern=SELECTOR_PATTERN)]
"""A label, or the beginning of several and ``*``."""


class Model(BaseModel):
    """Base of every part of a resource: camelCase outside, snake_case inside, nothing mutable.

    Unknown fields are ignored here, because CRDs are upgraded before operators are; `loader.py`
    refuses them for files, where they are typing mistakes.
    """

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore")


DeletionPolicy = Literal["Retain", "Delete"]


class SecretRef(Model):
    """A Kubernetes Secret of the same namespace. Credentials are never written into a resource."""

    name: Name = Field(description="Name of the Secret.")


class Metadata(Model):
    """The part of Kubernetes' metadata that Tidewarden looks at."""

    name: Name = Field(description="Unique among the resources of its kind; others refer to it by this name.")
    namespace: Name = Field("local", description="Resources refer only to others of their own namespace.")
    labels: dict[str, str] = Field(default_factory=dict, description="Free for your own use.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Free for your own use.")
    creation_timestamp: datetime | None = Field(None, description="Set by Kubernetes.")


class Resource(Model):
    """The envelope: apiVersion, kind, metadata; each kind adds its spec."""

    api_version: Literal["tidewarden.dev/v1alpha1"] = Field(
        "tidewarden.dev/v1alpha1", description="Version of the format."
    )
    metadata: Metadata
