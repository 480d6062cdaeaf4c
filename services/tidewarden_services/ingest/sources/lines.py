"""Lines of a file with bounded memory, whatever the file holds."""

from __future__ import annotations

import gzip
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, cast

from tidewarden_services.ingest.reasons import TOO_LARGE
from tidewarden_services.ingest.sources.columns import Refusal

MAX_LINE_BYTES = 1_048_576  # a row of 10,000 metrics fits; what is longer is no row of readings
KEPT_BYTES = 33_554_432  # of a longer line, as much as the http source takes in one request
CHUNK_BYTES = 8_388_608
STEP = 64  # lines taken in one go: fast enough, and at worst 64 MB


@dataclass(slots=True, eq=False)
class Chunk:
    """Consecutive lines, each with its end.

    Attributes:
        first: number of the first line, from 1, as editors count.
        texts: the lines; of those that are too long at most the first `KEPT_BYTES`.
        sizes: bytes of the lines that are too long, by their place in ``texts``.
    """

    first: int
    texts: list[bytes] = field(default_factory=list)
    sizes: dict[int, int] = field(default_factory=dict)

    def refusal(self, at: int) -> Refusal | None:
        """Why the line at ``at`` is refused unread, if it is."""
        size = self.sizes.get(at)
        if size is None:
            return None
        kept = "" if size == len(self.texts[at]) else f" (the first {len(self.texts[at])} are kept)"
        return Refusal(
            TOO_LARGE, f"the line has {size} bytes, {MAX_LINE_BYTES} are allowed{kept}: is a line break missing?"
        )


def open_lines(path: Path) -> IO[bytes]:
    """The file as bytes, decompressed where its name ends in .gz."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


class Lines:
    """Reads a file line by line; never more than `KEPT_BYTES` of one are in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._pieces = iter(partial(file.readline, MAX_LINE_BYTES + 1), b"")
        self._next = 1

    def chunk(self, rows: int) -> Chunk:
        """The next ``rows`` lines, fewer where they are long or the file ends; the cut depends on them alone."""
        chunk = Chunk(self._next)
        held = 0
        while len(chunk.texts) < rows and held < CHUNK_BYTES:
            pieces = list(itertools.islice(self._pieces, min(STEP, rows - len(chunk.texts))))
            if not pieces:
                break
            if max(map(len, pieces)) > MAX_LINE_BYTES:
                self._join(pieces, chunk)
            else:
                chunk.texts += pieces
            held += sum(map(len, pieces))
        self._next += len(chunk.texts)
        return chunk

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """All that is left, ``rows`` lines at a time."""
        while (chunk := self.chunk(rows)).texts:
            yield chunk

    def skip(self, count: int) -> None:
        """Pass over ``count`` lines."""
        while count > 0 and (chunk := self.chunk(count)).texts:
            count -= len(chunk.texts)

    def _join(self, pieces: list[bytes], chunk: Chunk) -> None:
        """Put the pieces of overlong lines together; the last one may go on beyond ``pieces``."""
        rest = itertools.chain(pieces, self._pieces)
        taken = 0
        while taken < len(pieces):
            text = next(rest)
            taken += 1
            size = len(text)
            if size > MAX_LINE_BYTES:
                kept = bytearray(text)
                while not text.endswith(b"\n") and (text := next(rest, b"")):
                    taken += 1
                    size += len(text)
                    kept += text[: KEPT_BYTES - len(kept)]
                chunk.sizes[len(chunk.texts)] = size
                text = bytes(kept)
            chunk.texts.append(text)
