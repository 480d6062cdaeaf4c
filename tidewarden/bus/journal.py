"""The journal: partitions as append-only segment files, so that a killed process can go on.

A segment is a sequence of entries, each ``length, crc32`` (little-endian u32) and a MessagePack array.
The first entry of a segment is its head: base offset and, for each producer, the headers of its newest
record so far, so that this survives the removal of older segments. A torn last entry, left by a kill,
is cut off when the journal is opened; a damaged entry in the middle is an error.

Written with one ``write`` call an entry and no user-space buffer: what was appended survives the death
of the process. `sync` adds what a power cut needs.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

SEGMENT_BYTES = 16 * 1024 * 1024  # small enough to be removed soon, large enough that files stay few
_PREFIX = struct.Struct("<II")


class Entry(NamedTuple):
    """One stored record, its value still encoded."""

    offset: int
    key: str
    headers: dict[str, str]
    kind: str
    data: bytes


class JournalError(Exception):
    """The files are not what this version wrote."""


class PartitionJournal:
    """The segments of one partition. The bus serialises all calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.producers: dict[str, tuple[int, dict[str, str]]] = {}
        self._bases = sorted(int(path.stem) for path in folder.glob("*.log"))
        self.end = 0
        self._file: int | None = None
        self._size = 0
        if self._bases:
            self._recover()
        else:
            self._rotate()

    @property
    def start(self) -> int:
        """The oldest offset still here."""
        return self._bases[0]

    def append(self, key: str, headers: Mapping[str, str], kind: str, data: bytes) -> int:
        """Write one record and return its offset."""
        if self._size >= SEGMENT_BYTES:
            self._rotate()
        offset = self.end
        self._write([offset, key, dict(headers), kind, data])
        self._note(offset, dict(headers))
        self.end = offset + 1
        return offset

    def read(self, offset: int) -> Iterator[Entry]:
        """Entries from ``offset`` on, oldest first, up to the end as it was at the call."""
        end = self.end
        for index, base in enumerate(self._bases):
            if index + 1 < len(self._bases) and self._bases[index + 1] <= offset:
                continue
            for body in _entries(self._path(base))[1:]:
                entry = Entry(*msgspec.msgpack.decode(body))
                if entry.offset >= end:
                    return
                if entry.offset >= offset:
                    yield entry

    def trim(self, before: int) -> None:
        """Remove whole segments of records older than ``before``; the newest segment stays."""
        while len(self._bases) > 1 and self._bases[1] <= before:
            self._path(self._bases.pop(0)).unlink(missing_ok=True)

    def sync(self) -> None:
        """Force what was written to the disk."""
        if self._file is not None:
            os.fdatasync(self._file)

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _path(self, base: int) -> Path:
        return self._folder / f"{base:020d}.log"

    def _note(self, offset: int, headers: dict[str, str]) -> None:
        self.producers[""] = (offset, headers)
        producer = headers.get("producer")
        if producer:
            self.producers[producer] = (offset, headers)

    def _write(self, content: list[Any]) -> None:
        assert self._file is not None
        body = msgspec.msgpack.encode(content)
        entry = _PREFIX.pack(len(body), zlib.crc32(body)) + body
        view = memoryview(entry)
        while view:  # a full disk writes part of it, then raises on the next call
            view = view[os.write(self._file, view) :]
        self._size += len(entry)

    def _rotate(self) -> None:
        self.close()
        base = self.end
        self._file = os.open(self._path(base), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._size = 0
        if not self._bases or self._bases[-1] != base:
            self._bases.append(base)
        self._write([base, self.producers])

    def _recover(self) -> None:
        newest = self._bases[-1]
        path = self._path(newest)
        bodies = _entries(path, cut_torn=True)
        if not bodies:  # killed before the head of a new segment was whole: start that segment again
            path.unlink()
            self._bases.pop()
            if self._bases:
                self._recover()
            else:
                self._rotate()
            return
        base, producers = msgspec.msgpack.decode(bodies[0])
        self.end = base
        self.producers = {name: (offset, headers) for name, (offset, headers) in producers.items()}
        for body in bodies[1:]:
            entry = Entry(*msgspec.msgpack.decode(body))
            self._note(entry.offset, entry.headers)
            self.end = entry.offset + 1
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._size = path.stat().st_size


def _entries(path: Path, *, cut_torn: bool = False) -> list[memoryview]:
    """The bodies of all whole entries of a segment; only its last entry may be torn."""
    content = memoryview(path.read_bytes())
    bodies: list[memoryview] = []
    at = 0
    while at < len(content):
        body = content[at + _PREFIX.size : at + _PREFIX.size]
        length = -1
        if at + _PREFIX.size <= len(content):
            length, crc = _PREFIX.unpack_from(content, at)
            body = content[at + _PREFIX.size : at + _PREFIX.size + length]
        if len(body) != length or zlib.crc32(body) != crc:
            if length >= 0 and at + _PREFIX.size + length < len(content):
                raise JournalError(f"{path}: damaged at byte {at}: restore the data directory or start with a new one")
            if cut_torn:
                os.truncate(path, at)
            break
        bodies.append(body)
        at += _PREFIX.size + length
    return bodies
