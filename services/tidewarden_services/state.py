"""Snapshots on disk: written whole or not at all, checked when read.

A snapshot is written beside its predecessor and moved over it, so a kill leaves either the old or the
new one, never a mixture. The checksum is for what a kill cannot do but a disk can.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

_MAGIC = b"TWS1"


class StateError(Exception):
    """A snapshot cannot be read: says which file, and the remedy."""


class StateStore(Protocol):
    """Where services keep their snapshots, by name."""

    def load(self, name: str) -> bytes | None:
        """The newest snapshot, or None where there is none."""

    def save(self, name: str, state: bytes) -> None:
        """Replace the snapshot, whole or not at all."""

    def save_all(self, states: Mapping[str, bytes]) -> None:
        """The same for several, each whole or not at all; waits once."""


class MemoryState:
    """Snapshots that live as long as the process."""

    def __init__(self) -> None:
        self._states: dict[str, bytes] = {}

    def load(self, name: str) -> bytes | None:
        """The newest snapshot, or None."""
        return self._states.get(name)

    def save(self, name: str, state: bytes) -> None:
        """Replace the snapshot."""
        self._states[name] = state

    def save_all(self, states: Mapping[str, bytes]) -> None:
        """Replace these snapshots."""
        self._states.update(states)


class FileState:
    """Snapshots as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> bytes | None:
        """The newest snapshot, or None; StateError where the file is damaged."""
        path = self._path(name)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        state = content[8:]
        if content[:4] != _MAGIC or zlib.crc32(state).to_bytes(4, "little") != content[4:8]:
            raise StateError(f"snapshot {path} is damaged: start with a new --data-dir, or restore it from a copy")
        return state

    def save(self, name: str, state: bytes) -> None:
        """Replace the snapshot, whole or not at all."""
        path = self._path(name)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(_MAGIC)
            file.write(zlib.crc32(state).to_bytes(4, "little"))
            file.write(state)
            file.flush()
            os.fdatasync(file.fileno())
        os.replace(fresh, path)

    def save_all(self, states: Mapping[str, bytes]) -> None:
        """Replace these snapshots, each whole or not at all."""
        for name, state in states.items():
            self.save(name, state)

    def _path(self, name: str) -> Path:
        return self._folder / (re.sub(r"[^A-Za-z0-9._-]", "_", name) + ".snapshot")
