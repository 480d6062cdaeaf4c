"""Where a registry's files lie: the port, and a folder.

Every write is conditional, so that nobody writes over what somebody else has written meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol


class Stored(NamedTuple):
    """An object as it was read."""

    data: bytes
    etag: str  # changes with every write


class RegistryError(Exception):
    """The registry cannot be reached, or cannot do what is asked; the message names address and remedy."""


class Objects(Protocol):
    """Named bytes. Keys are paths with slashes."""

    address: str  # for people, and for `open_registry`

    def get(self, key: str) -> Stored | None:
        """The object, or None where there is none."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a new object, whole or not at all; false where the key is taken already."""

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        """Write over the object that was read with this etag; false where it was changed since."""

    def keys(self, prefix: str) -> list[str]:
        """All keys that begin with ``prefix``, sorted."""

    def where(self, key: str) -> str:
        """What a person would call the object, for messages."""


class FolderObjects:
    """A folder on a local or shared file system.

    A new file is written aside, made durable, and linked under its name, which fails where the name is
    taken; a changed one is renamed over the old one under an advisory lock.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.address = str(folder)

    def get(self, key: str) -> Stored | None:
        """The file, or None where there is none."""
        try:
            data = self._path(key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise RegistryError(f"{self.where(key)}: cannot be read: {error}") from error
        return Stored(data, hashlib.sha256(data).hexdigest())

    def create(self, key: str, data: bytes) -> bool:
        """Write a new file; false where the name is taken already."""
        path = self._path(key)
        try:
            with self._beside(path, data) as fresh:
                try:
                    os.link(fresh, path)
                except FileExistsError:
                    return False
                _sync(path.parent)
        except OSError as error:
            raise RegistryError(f"{self.where(key)}: cannot be written: {error}") from error
        return True

    def replace(self, key: str, data: bytes, etag: str) -> bool:
        """Write over the file that was read with this etag; false where it was changed since."""
        path = self._path(key)
        try:
            with path.with_name(f".{path.name}.lock").open("wb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                now = self.get(key)
                if now is None or now.etag != etag:
                    return False
                with self._beside(path, data) as fresh:
                    os.rename(fresh, path)
                    _sync(path.parent)
        except OSError as error:
            raise RegistryError(f"{self.where(key)}: cannot be written: {error}") from error
        return True

    def keys(self, prefix: str) -> list[str]:
        """All files whose path below the folder begins with ``prefix``, sorted."""
        begin = self._folder / prefix.rpartition("/")[0]
        found = (path for path in begin.rglob("*") if path.is_file() and not path.name.startswith("."))
        keys = (path.relative_to(self._folder).as_posix() for path in found)
        return sorted(key for key in keys if key.startswith(prefix))

    def where(self, key: str) -> str:
        """The file's path."""
        return str(self._path(key))

    def _path(self, key: str) -> Path:
        return self._folder / key

    @staticmethod
    @contextmanager
    def _beside(path: Path, data: bytes) -> Iterator[Path]:
        """A durable file with ``data`` in the folder of ``path``, gone afterwards unless it was renamed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            with fresh.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield fresh
        finally:
            fresh.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
