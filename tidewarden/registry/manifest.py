"""What is known of a version beside its state: a struct, written as JSON with a format version and a checksum.

Nothing here runs when it is read: a version is a manifest of plain fields and a state of arrays
(`scoring/snapshots.py`).
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal, TypeVar

import msgspec

FORMAT = 1


class Period(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stretch of time, ms since the epoch: ``from_ms`` belongs to it, ``until_ms`` no longer does."""

    from_ms: int
    until_ms: int


class Window(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The data that a version was learned from."""

    from_ms: int  # first reading
    to_ms: int  # last reading
    readings: int
    series: int
    interval_ms: int


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever trained a version says of it; the registry adds number, checksum and lineage."""

    detector: str
    model: dict[str, Any]  # spec.model as written in a resource
    seasonality_ms: list[int]
    model_version: str  # kind and version of the model's code, as auto/1
    window: Window
    code_version: str
    created_at_ms: int
    excluded: list[Period] = []
    metrics: dict[str, float | int | None] = {}
    note: str = ""


class Manifest(Draft, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version as it lies in the registry."""

    version: int
    parent: int | None  # the champion when this one was trained
    state_sha256: str
    state_bytes: int


class Move(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change of the champion."""

    action: Literal["promote", "rollback"]
    version: int | None  # champion from now on; None: again none
    previous: int | None
    at_ms: int
    note: str = ""


class Aliases(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is the champion, and who was."""

    champion: int | None = None
    history: list[Move] = []

    def before(self) -> tuple[bool, int | None]:
        """Whether there is a promotion to take back, and who is the champion then.

        A promotion puts the champion on a stack, a rollback takes it off again: two rollbacks go back two
        promotions, not to and fro.
        """
        stack: list[int | None] = [self.history[0].previous] if self.history else []
        for move in self.history:
            if move.action == "promote":
                stack.append(move.version)
            elif len(stack) > 1:
                stack.pop()
        return (True, stack[-2]) if len(stack) > 1 else (False, None)


T = TypeVar("T", Manifest, Aliases)


class _Envelope(msgspec.Struct, kw_only=True):
    format: int
    sha256: str
    content: msgspec.Raw


class DamagedError(ValueError):
    """Something in the registry is not what was written; the message names the file and both checksums."""


def seal(content: Manifest | Aliases) -> bytes:
    """A struct as indented JSON in an envelope with format version and checksum."""
    raw = msgspec.json.encode(content)
    envelope = _Envelope(format=FORMAT, sha256=_digest(raw), content=msgspec.Raw(raw))
    return msgspec.json.format(msgspec.json.encode(envelope), indent=1) + b"\n"


def unseal_manifest(data: bytes, path: str) -> Manifest:
    """The manifest that was sealed; `DamagedError` says what is wrong with ``path``."""
    return _unseal(data, path, Manifest)


def unseal_aliases(data: bytes, path: str) -> Aliases:
    """The aliases that were sealed; `DamagedError` says what is wrong with ``path``."""
    return _unseal(data, path, Aliases)


def _unseal(data: bytes, path: str, kind: type[T]) -> T:
    try:
        envelope = msgspec.json.decode(data, type=_Envelope)
        found = _digest(envelope.content)
    except msgspec.DecodeError as error:
        raise DamagedError(f"{path}: is not what the registry wrote ({error}): restore the file from a copy") from None
    if envelope.format > FORMAT:
        raise DamagedError(f"{path}: has format {envelope.format}, this Tidewarden reads up to {FORMAT}: upgrade it")
    if envelope.sha256 != found:
        raise DamagedError(
            f"{path}: is damaged: its checksum should be {envelope.sha256}, but is {found}: restore it from a copy"
        )
    try:
        return msgspec.json.decode(envelope.content, type=kind)
    except msgspec.DecodeError as error:
        raise DamagedError(f"{path}: has a field that this Tidewarden does not understand ({error})") from None


def sha256(data: bytes) -> str:
    """Checksum of a state, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _digest(raw: bytes) -> str:
    """Of the content, not of how it is indented: keys sorted, no spaces."""
    return sha256(msgspec.json.encode(msgspec.json.decode(raw), order="sorted"))
