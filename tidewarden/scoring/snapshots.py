"""Snapshots: a JSON header and raw arrays, compressed, with a checksum. No pickles, nothing that runs when read."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import cramjam
import numpy as np

from tidewarden.models.contract import State

MAGIC = b"TWSN"
VERSION = 1
_DIGEST_BYTES = 16


def pack(header: dict[str, Any], arrays: State) -> bytes:
    """Header and arrays as bytes: magic, version, BLAKE2b of the rest, zstd of (header length, header, arrays)."""
    described = [{"name": n, "dtype": a.dtype.str, "shape": list(a.shape)} for n, a in arrays.items()]
    text = json.dumps({**header, "arrays": described}, sort_keys=True).encode()
    raw = b"".join([len(text).to_bytes(4, "little"), text, *(a.tobytes() for a in arrays.values())])
    body = bytes(cramjam.zstd.compress(raw, level=1))
    digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
    return MAGIC + VERSION.to_bytes(2, "little") + digest + body


def unpack(data: bytes) -> tuple[dict[str, Any], State]:
    """Header and arrays of `pack`.

    Raises:
        ValueError: not a snapshot, from a newer Tidewarden, or damaged.
    """
    start = len(MAGIC) + 2
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(f"not a scorer snapshot: it begins with {bytes(data[:4])!r}, expected {MAGIC!r}")
    version = int.from_bytes(data[len(MAGIC) : start], "little")
    if version > VERSION:
        raise ValueError(f"snapshot version {version} is newer than {VERSION}: upgrade Tidewarden, or start anew")
    digest, body = data[start : start + _DIGEST_BYTES], data[start + _DIGEST_BYTES :]
    if hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() != digest:
        raise ValueError("the snapshot is damaged (checksum differs): use an older one, or start anew")
    raw = bytes(cramjam.zstd.decompress(body))
    at = 4 + int.from_bytes(raw[:4], "little")
    header: dict[str, Any] = json.loads(raw[4:at])
    arrays: State = {}
    for item in header.pop("arrays"):
        dtype = np.dtype(item["dtype"])
        count = int(np.prod(item["shape"], dtype=np.int64))
        arrays[item["name"]] = np.frombuffer(raw, dtype, count, at).reshape(item["shape"]).copy()
        at += count * dtype.itemsize
    return header, arrays
