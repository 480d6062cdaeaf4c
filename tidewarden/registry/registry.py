"""The registry: numbered versions of each detector's model, and which of them is the champion.

```
<detector>/aliases.json          champion and history, replaced only by who has read the newest
<detector>/<version>/state.bin   the scorer's state, written first: it claims the number
<detector>/<version>/manifest.json   written last: it makes the version exist
```

No two versions get one number and no promotion is lost, whoever else writes at the same time, because
every write is conditional (`objects.py`). What a trainer leaves that died between the two files is a
number that is skipped.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from tidewarden.registry.manifest import (
    Aliases,
    DamagedError,
    Draft,
    Manifest,
    Move,
    seal,
    sha256,
    unseal_aliases,
    unseal_manifest,
)  # fmt: skip
from tidewarden.registry.objects import Objects, RegistryError
from tidewarden.resources.base import NAME_PATTERN

ATTEMPTS = 20  # against others that write at the same time: each failure means that one of them succeeded
MOST_MOVES = 1_000  # promotions kept for each detector, 150 bytes each: a file of 150 KB at most

Reference = int | Literal["champion", "latest"]


class UnknownVersionError(LookupError):
    """There is no such detector, version or champion; the message says what there is."""


class Registry:
    """Versions of detectors' models.

    Args:
        objects: where they lie.
    """

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    @property
    def address(self) -> str:
        """Path or URL, for people."""
        return self._objects.address

    def detectors(self) -> list[str]:
        """Names of the detectors that have a version, sorted."""
        names = {key.partition("/")[0] for key in self._objects.keys("") if key.endswith("/manifest.json")}
        return sorted(names)

    def versions(self, detector: str) -> list[int]:
        """Numbers of the detector's versions, ascending."""
        return sorted(n for n, file in self._numbers(detector) if file == "manifest.json")

    def manifest(self, detector: str, version: int) -> Manifest:
        """What is known of a version."""
        key = f"{_named(detector)}/{version}/manifest.json"
        stored = self._objects.get(key)
        if stored is None:
            raise UnknownVersionError(
                f"{self.address}: {detector} has no version {version}: {_listed(self.versions(detector))}"
            )
        manifest = unseal_manifest(stored.data, self._objects.where(key))
        if (manifest.detector, manifest.version) != (detector, version):
            raise DamagedError(
                f"{self._objects.where(key)}: is of {manifest.detector} version {manifest.version}: move it back there"
            )
        return manifest

    def state(self, manifest: Manifest) -> bytes:
        """The state of a version, as `Scorer.restore` and `Scorer.begin` take it, its checksum proved."""
        key = f"{manifest.detector}/{manifest.version}/state.bin"
        stored = self._objects.get(key)
        if stored is None:
            raise DamagedError(
                f"{self._objects.where(key)}: is missing: restore it from a copy, or use another version"
            )
        found = sha256(stored.data)
        if found != manifest.state_sha256:
            raise DamagedError(
                f"{self._objects.where(key)}: is damaged: its checksum should be {manifest.state_sha256}, but is "
                f"{found}: restore it from a copy, or use another version"
            )
        return stored.data

    def resolve(self, detector: str, reference: Reference) -> Manifest:
        """The version that a reference names at this moment."""
        if isinstance(reference, int):
            return self.manifest(detector, reference)
        if reference == "latest":
            versions = self.versions(detector)
            if not versions:
                raise UnknownVersionError(f"{self.address}: {detector} has no version: {_REMEDY}")
            return self.manifest(detector, versions[-1])
        champion = self.aliases(detector).champion
        if champion is None:
            raise UnknownVersionError(
                f"{self.address}: {detector} has no champion: {_listed(self.versions(detector))}; "
                f"`tidewarden models promote {detector} VERSION` makes one the champion"
            )
        return self.manifest(detector, champion)

    def register(self, draft: Draft, state: bytes) -> Manifest:
        """Keep a trained model as the detector's next version."""
        detector = _named(draft.detector)
        parent = self.aliases(detector).champion
        number = max((n for n, _ in self._numbers(detector)), default=0)
        for _ in range(ATTEMPTS):
            number += 1
            if not self._objects.create(f"{detector}/{number}/state.bin", state):
                continue
            manifest = Manifest(
                **msgspec.structs.asdict(draft),
                version=number,
                parent=parent,
                state_sha256=sha256(state),
                state_bytes=len(state),
            )
            if self._objects.create(f"{detector}/{number}/manifest.json", seal(manifest)):
                return manifest
        raise RegistryError(f"{self.address}: {ATTEMPTS} numbers in a row were taken by others: try again")

    def aliases(self, detector: str) -> Aliases:
        """Champion and history of a detector; blank where nothing was ever promoted."""
        return self._aliases(detector)[0]

    def promote(self, detector: str, version: int, at_ms: int, note: str = "") -> Aliases:
        """Make a version the champion; nothing is written where it is already."""
        self.manifest(detector, version)  # it must exist, and be whole
        for _ in range(ATTEMPTS):
            aliases, etag = self._aliases(detector)
            if aliases.champion == version:
                return aliases
            move = Move(action="promote", version=version, previous=aliases.champion, at_ms=at_ms, note=note)
            moved = self._move(detector, aliases, move, etag)
            if moved is not None:
                return moved
        raise self._contended(detector)

    def rollback(self, detector: str, at_ms: int, note: str = "") -> Aliases:
        """Take the last promotion back that was not taken back yet."""
        for _ in range(ATTEMPTS):
            aliases, etag = self._aliases(detector)
            possible, version = aliases.before()
            if not possible:
                raise UnknownVersionError(f"{self.address}: {detector} has no promotion to take back")
            if version is not None:
                self.manifest(detector, version)
            move = Move(action="rollback", version=version, previous=aliases.champion, at_ms=at_ms, note=note)
            moved = self._move(detector, aliases, move, etag)
            if moved is not None:
                return moved
        raise self._contended(detector)

    def _move(self, detector: str, aliases: Aliases, move: Move, etag: str | None) -> Aliases | None:
        """Write the change down; None where somebody else was quicker."""
        moved = Aliases(champion=move.version, history=[*aliases.history, move][-MOST_MOVES:])
        key, data = f"{detector}/aliases.json", seal(moved)
        done = self._objects.create(key, data) if etag is None else self._objects.replace(key, data, etag)
        return moved if done else None

    def _aliases(self, detector: str) -> tuple[Aliases, str | None]:
        key = f"{_named(detector)}/aliases.json"
        stored = self._objects.get(key)
        if stored is None:
            return Aliases(), None
        return unseal_aliases(stored.data, self._objects.where(key)), stored.etag

    def _numbers(self, detector: str) -> list[tuple[int, str]]:
        """Number and file of everything that lies below the detector."""
        found = []
        for key in self._objects.keys(f"{_named(detector)}/"):
            match = re.fullmatch(r"[^/]+/([1-9][0-9]{0,8})/([^/]+)", key)
            if match:
                found.append((int(match[1]), match[2]))
        return found

    def _contended(self, detector: str) -> RegistryError:
        return RegistryError(f"{self.address}: others changed the champion of {detector} {ATTEMPTS} times: try again")


_REMEDY = "train one with `tidewarden train`"


def _listed(versions: list[int]) -> str:
    if not versions:
        return f"there is none, {_REMEDY}"
    shown = ", ".join(map(str, versions[-10:]))
    return f"there {'is' if len(versions) == 1 else 'are'} {'… ' if len(versions) > 10 else ''}{shown}"


def _named(detector: str) -> str:
    """The name itself, once it is certain that it is one: it becomes part of a path."""
    if not re.fullmatch(NAME_PATTERN.removeprefix("^").removesuffix("$"), detector):
        raise UnknownVersionError(
            f"{detector!r} is no name of a detector: write lower-case letters, digits and hyphens, at most 63 in all"
        )
    return detector
