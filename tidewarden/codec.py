"""What travels on the bus, as bytes: Arrow for frames, MessagePack for events. Never a pickle.

A frame on the wire carries the names of its own series once, in the schema's metadata, and int32
indices into them; the reader maps them to the ids of its own `SeriesTable`. Most frames of a stream
carry the same list of names, so both directions remember the last ones they saw.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tidewarden.events import Alert, AnomalyBatch, Feedback, Rejection
from tidewarden.frames import (
    SCORE_COLUMNS,
    Frame,
    IntArray,
    NodeKey,
    RollupFrame,
    ScoreFrame,
    SeriesKey,
    SeriesTable,
)

WIRE_VERSION = 1
_REMEMBERED = 64  # name lists kept per codec; a stream cut by partition has one or two each

_ROLLUP_COLUMNS = ("scope", "timestamp", "score", "children", "peak")


_EVENTS: Mapping[str, Any] = {
    "anomalies": AnomalyBatch, "feedback": Feedback, "alerts": list[Alert], "rejected": list[Rejection],
}  # fmt: skip


class CodecError(ValueError):
    """Bytes that are not what they say they are."""


class Codec:
    """Encodes for one series table and decodes into it. Not shared between threads."""

    def __init__(self, table: SeriesTable) -> None:
        self._table = table
        self._names: OrderedDict[bytes, bytes] = OrderedDict()
        self._ids: OrderedDict[bytes, IntArray] = OrderedDict()

    def encode(self, value: Any) -> tuple[str, bytes]:
        """The value's type name and its bytes; TypeError for what does not travel."""
        match value:
            case Frame():
                columns: dict[str, npt.NDArray[Any]] = {"timestamp": value.timestamp, "value": value.value}
                if value.label is not None:
                    columns["label"] = value.label
                return "frame", self._encode_series(value.series, columns, {})
            case ScoreFrame():
                columns = {name: getattr(value, name) for name in SCORE_COLUMNS[1:]}
                meta = {"detector": value.detector, "model": value.model_version}
                return "scores", self._encode_series(value.series, columns, meta)
            case RollupFrame():
                columns = {name: getattr(value, name) for name in _ROLLUP_COLUMNS}
                scopes = msgspec.msgpack.encode(value.scopes)
                return "rollup", _to_ipc(columns, {b"detector": value.detector.encode(), b"scopes": scopes})
        kind = _kind_of(value)
        if kind is not None:
            return kind, msgspec.msgpack.encode(value)
        raise TypeError(f"{type(value).__name__} does not travel on the bus")

    def decode(self, kind: str, data: bytes | memoryview) -> Any:
        """The value behind ``data``; CodecError where it does not fit ``kind``."""
        try:
            if kind in _EVENTS:
                return msgspec.msgpack.decode(data, type=_EVENTS[kind])
            match kind:
                case "frame":
                    series, columns, _ = self._decode_series(data)
                    return Frame(self._table, series, columns["timestamp"], columns["value"], columns.get("label"))
                case "scores":
                    series, columns, meta = self._decode_series(data)
                    rest = [columns[name] for name in SCORE_COLUMNS[1:]]
                    detector, model = meta[b"detector"].decode(), meta[b"model"].decode()
                    return ScoreFrame(self._table, detector, model, series, *rest)
                case "rollup":
                    columns, meta = _from_ipc(data)
                    scopes = [NodeKey(*scope) for scope in msgspec.msgpack.decode(meta[b"scopes"])]
                    return RollupFrame(meta[b"detector"].decode(), scopes, *(columns[n] for n in _ROLLUP_COLUMNS))
        except (pa.ArrowException, msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise CodecError(f"{len(data)} bytes are not a {kind}: {error}") from error
        raise CodecError(f"unknown kind of record {kind!r}: it was written by a newer version")

    def _encode_series(self, series: IntArray, columns: dict[str, npt.NDArray[Any]], meta: dict[str, str]) -> bytes:
        present = np.zeros(len(self._table), np.bool_)
        present[series] = True
        ids = np.flatnonzero(present).astype(np.int32)
        local = np.zeros(len(self._table), np.int32)
        local[ids] = np.arange(len(ids), dtype=np.int32)
        marker = ids.tobytes()
        names = self._names.get(marker)
        if names is None:
            names = msgspec.msgpack.encode([self._table[int(i)] for i in ids])
            _remember(self._names, marker, names)
        metadata = {b"series": names, **{key.encode(): text.encode() for key, text in meta.items()}}
        return _to_ipc({"series": local[series], **columns}, metadata)

    def _decode_series(
        self, data: bytes | memoryview
    ) -> tuple[IntArray, dict[str, npt.NDArray[Any]], Mapping[bytes, bytes]]:
        columns, meta = _from_ipc(data)
        names = meta[b"series"]
        ids = self._ids.get(names)
        if ids is None:
            ids = self._table.ids_of(SeriesKey(*key) for key in msgspec.msgpack.decode(names))
            _remember(self._ids, names, ids)
        return ids[columns["series"]], columns, meta


def _kind_of(event: Any) -> str | None:
    """Type name of an event, or of a list of them."""
    match event:
        case AnomalyBatch():
            return "anomalies"
        case Feedback():
            return "feedback"
        case [Alert(), *_]:
            return "alerts"
        case [Rejection(), *_]:
            return "rejected"
    return None


def _remember(cache: OrderedDict[bytes, Any], key: bytes, value: Any) -> None:
    cache[key] = value
    if len(cache) > _REMEMBERED:
        cache.popitem(last=False)


def _to_ipc(columns: Mapping[str, npt.NDArray[Any]], metadata: Mapping[bytes, bytes]) -> bytes:
    arrays = [pa.array(column) for column in columns.values()]
    schema = pa.schema(
        [pa.field(name, array.type, nullable=False) for name, array in zip(columns, arrays, strict=True)],
        metadata={b"tidewarden": str(WIRE_VERSION).encode(), **metadata},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return bytes(sink.getvalue())


def _from_ipc(data: bytes | memoryview) -> tuple[dict[str, npt.NDArray[Any]], Mapping[bytes, bytes]]:
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        batch = reader.read_next_batch()
        metadata = reader.schema.metadata or {}
    version = int(metadata.get(b"tidewarden", b"0"))
    if not 1 <= version <= WIRE_VERSION:
        raise ValueError(f"wire version {version}, this program reads up to {WIRE_VERSION}")
    # Copied, since borrowed memory is read-only, and numba compiles every kernel anew for read-only arrays.
    return {name: batch.column(name).to_numpy(zero_copy_only=True).copy() for name in batch.schema.names}, metadata
