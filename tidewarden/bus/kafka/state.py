"""Snapshots on a compacted topic: whole or not at all, checked when read.

A snapshot is packed (zstd), cut into chunks, and written under the keys of one of two slots, in turn; then comes the
slot's manifest with count, sizes and checksum. A process that is killed before the manifest leaves the other slot
as it was, so there is always a whole snapshot: the newest whose chunks fit its manifest. All records of a name lie in
one partition and are written by one idempotent producer, which keeps them in this order.

```
key                          value
detect.shop-latency/3#a#0    sequence (u64), crc32 of the rest (u32), bytes
detect.shop-latency/3#a      manifest: MessagePack
```
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa
import structlog

from tidewarden.bus.kafka.admin import TopicAdmin
from tidewarden.bus.kafka.producer import KafkaProducer
from tidewarden.bus.kafka.ranges import RangeReader
from tidewarden.bus.kafka.records import key_of
from tidewarden.bus.port import TopicPartition
from tidewarden.topics import partition_of

VERSION = 1
# With key and head below every broker's default limit of 1 MiB, also where nobody raised it for the topic.
CHUNK_BYTES = 512 * 1024
_LEVEL = 1  # of zstd: states are arrays of doubles; higher levels take several times as long for a few percent
_HEAD = struct.Struct("<QI")
_SLOTS = ("a", "b")
_INSTANCE = re.compile(r"/(\d+)$")

log = structlog.get_logger()


class SnapshotError(Exception):
    """A snapshot is there and cannot be read: says which, and the remedy."""


class Manifest(msgspec.Struct):
    """What makes a snapshot of chunks."""

    version: int
    sequence: int  # counts up with each save
    chunks: int
    packed_bytes: int
    state_bytes: int
    crc32: int  # of the packed bytes


@dataclass(slots=True)
class _Slot:
    manifest: Manifest | None = None
    chunks: dict[int, bytes] = field(default_factory=dict)  # with their heads


@dataclass(slots=True)
class _Progress:
    """What a later save has to know."""

    sequence: int  # highest seen, also of a save that was cut off
    slot: str  # holds the snapshot that must survive the next save
    chunks: dict[str, int]  # highest number of chunks that may lie under a slot's keys


class KafkaState:
    """A `StateStore` on one state topic. Used by one thread at a time for each name.

    Args:
        topic: the compacted topic; it exists.
        admin: tells its bounds.
        ranges: reads it.
        producer: writes it; one of its own, since what is packed need not be compressed again.
    """

    def __init__(self, topic: str, *, admin: TopicAdmin, ranges: RangeReader, producer: KafkaProducer) -> None:
        self._topic = topic
        self._admin = admin
        self._ranges = ranges
        self._producer = producer
        self._progress: dict[str, _Progress] = {}
        self._partitions = 0

    def load(self, name: str) -> bytes | None:
        """The newest whole snapshot, or None where none was ever completed; `SnapshotError` where none is whole."""
        slots = self._read(name)
        found = sorted(
            ((slot.manifest.sequence, letter) for letter, slot in slots.items() if slot.manifest is not None),
            reverse=True,
        )
        state: bytes | None = None
        newest = _SLOTS[-1]
        for _, letter in found:
            state = _unpacked(slots[letter])
            if state is not None:
                newest = letter
                break
            log.warning("a snapshot is not whole, taking the one before", topic=self._topic, name=name)
        self._progress[name] = _Progress(
            sequence=max([0, *(number for number, _ in found), *(_highest(slot) for slot in slots.values())]),
            slot=newest,
            chunks={letter: max(slot.chunks, default=-1) + 1 for letter, slot in slots.items()},
        )
        if found and state is None:
            raise SnapshotError(
                f"snapshot {name} on topic {self._topic} is damaged in both its copies: "
                "delete the topic to let the service begin anew"
            )
        return state

    def save(self, name: str, state: bytes) -> None:
        """Replace the snapshot, whole or not at all; returns when the brokers have it."""
        self.save_all({name: state})

    def save_all(self, states: Mapping[str, bytes]) -> None:
        """Replace these snapshots, each whole or not at all; returns when the brokers have them all."""
        for name in states:
            if name not in self._progress:
                self.load(name)
        slots = {name: self._write(name, state) for name, state in states.items()}
        self._producer.flush()
        for name, slot in slots.items():
            self._progress[name].slot = slot

    def _write(self, name: str, state: bytes) -> str:
        """Send chunks and manifest, in this order, to the slot that may be overwritten; returns the slot."""
        progress = self._progress[name]
        place = self._place(name)
        slot = _SLOTS[1 - _SLOTS.index(progress.slot)]
        packed = pa.Codec("zstd", compression_level=_LEVEL).compress(state, asbytes=True)
        chunks = -(-len(packed) // CHUNK_BYTES)
        progress.sequence += 1
        before, progress.chunks[slot] = progress.chunks.get(slot, 0), max(chunks, progress.chunks.get(slot, 0))
        for number in range(chunks):
            part = packed[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
            head = _HEAD.pack(progress.sequence, zlib.crc32(part))
            self._producer.send(place, f"{name}#{slot}#{number}", head + part, ())
        manifest = Manifest(VERSION, progress.sequence, chunks, len(packed), len(state), zlib.crc32(packed))
        self._complete(place, f"{name}#{slot}", manifest)
        for number in range(chunks, before):  # of a larger snapshot that lay here before
            self._producer.send(place, f"{name}#{slot}#{number}", None, ())
        progress.chunks[slot] = chunks
        return slot

    def _complete(self, place: TopicPartition, key: str, manifest: Manifest) -> None:
        self._producer.send(place, key, msgspec.msgpack.encode(manifest), ())

    def _place(self, name: str) -> TopicPartition:
        """Instances of a service have a partition each, that of the input they read; others one by their name."""
        if self._partitions == 0:
            found = self._admin.partitions([self._topic])
            if self._topic not in found:
                raise KeyError(f"no topic {self._topic}: create it first")
            self._admin.ends([self._topic])  # each partition has a leader that answers, see KafkaBus._codec
            self._producer.learn(self._topic, found[self._topic])
            self._partitions = found[self._topic]
        instance = _INSTANCE.search(name)
        if instance is None or self._partitions == 1:
            return TopicPartition(self._topic, partition_of(name, self._partitions))
        number = int(instance[1])
        if number >= self._partitions:
            raise ValueError(
                f"state topic {self._topic} has {self._partitions} partitions and {name} needs number {number}: "
                "give it as many partitions as the readings have"
            )
        return TopicPartition(self._topic, number)

    def _read(self, name: str) -> dict[str, _Slot]:
        """The newest records under the name's keys."""
        place = self._place(name)
        slots = {letter: _Slot() for letter in _SLOTS}
        begin = self._admin.starts([self._topic])[place]
        end = self._admin.ends([self._topic])[place]
        for message in self._ranges.read(place, begin, end):
            owner, *rest = key_of(message).split("#")
            if owner == name and rest and rest[0] in slots:
                _take(slots[rest[0]], rest[1:], message.value())
        return slots


def _take(slot: _Slot, rest: list[str], value: Any) -> None:
    if not rest:
        try:
            slot.manifest = None if value is None else msgspec.msgpack.decode(value, type=Manifest)
        except msgspec.MsgspecError:
            slot.manifest = None
    elif value is None:
        slot.chunks.pop(int(rest[0]), None)
    else:
        slot.chunks[int(rest[0])] = value


def _highest(slot: _Slot) -> int:
    heads = [_HEAD.unpack_from(chunk)[0] for chunk in slot.chunks.values() if len(chunk) >= _HEAD.size]
    return max(heads, default=0)


def _unpacked(slot: _Slot) -> bytes | None:
    """The state, or None where the chunks are not what the manifest says."""
    manifest = slot.manifest
    if manifest is None or manifest.version != VERSION:
        return None
    parts = []
    for number in range(manifest.chunks):
        chunk = slot.chunks.get(number, b"")
        if len(chunk) < _HEAD.size:
            return None
        sequence, checksum = _HEAD.unpack_from(chunk)
        part = memoryview(chunk)[_HEAD.size :]
        if sequence != manifest.sequence or zlib.crc32(part) != checksum:
            return None
        parts.append(part)
    packed = b"".join(parts)
    if len(packed) != manifest.packed_bytes or zlib.crc32(packed) != manifest.crc32:
        return None
    state: bytes = pa.decompress(packed, decompressed_size=manifest.state_bytes, codec="zstd", asbytes=True)
    return state
