"""Lines of a file with bounded memory, whatever the file holds."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

from tidewarden_services.ingest.reasons import TOO_LARGE
from tidewarden_services.ingest.sources.columns import Refusal

MAX_LINE_BYTES = 1_048_576  # a row of 10,000 metrics fits; what is longer is no row of readings
KEPT_BYTES = 33_554_432  # of a longer line, as much as the http source takes in one request
CHUNK_BYTES = 8_388_608


class Line(NamedTuple):
    """One line, with its end."""

    number: int  # from 1, as editors count
    text: bytes
    size: int  # bytes in the file; more than len(text) where the line was too long to keep

    @property
    def too_long(self) -> Refusal | None:
        """Why the line is refused unread, if it is."""
        if self.size <= MAX_LINE_BYTES:
            return None
        kept = "" if self.size == len(self.text) else f" (the first {len(self.text)} are kept)"
        return Refusal(
            TOO_LARGE, f"the line has {self.size} bytes, {MAX_LINE_BYTES} are allowed{kept}: is a line break missing?"
        )


def open_lines(path: Path) -> IO[bytes]:
    """The file as bytes, decompressed where its name ends in .gz."""
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def lines_of(file: IO[bytes]) -> Iterator[Line]:
    """Every line of ``file``; at most `KEPT_BYTES` of one are ever in memory."""
    number = 0
    while text := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        size = len(text)
        if size > MAX_LINE_BYTES and not text.endswith(b"\n"):
            kept = bytearray(text)
            while piece := file.readline(MAX_LINE_BYTES):
                size += len(piece)
                kept += piece[: KEPT_BYTES - len(kept)]
                if piece.endswith(b"\n"):
                    break
            text = bytes(kept)
        yield Line(number, text, size)


def chunks_of(lines: Iterator[Line], rows: int) -> Iterator[list[Line]]:
    """``rows`` lines at a time, fewer where they are long; the cut depends on the lines alone."""
    chunk: list[Line] = []
    held = 0
    for line in lines:
        chunk.append(line)
        held += len(line.text)
        if len(chunk) >= rows or held >= CHUNK_BYTES:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
