"""Messages of Kafka as records of ours. What cannot be read becomes `Undecodable`, and reading goes on."""

from __future__ import annotations

from typing import Any

from tidewarden.bus.port import Record, TopicPartition, Undecodable
from tidewarden.codec import Codec, CodecError
from tidewarden.frames import SeriesTable

KIND = "kind"  # the header that says what the value is; ours alone, readers do not see it


class RecordReader:
    """Decodes into one series table. Not shared between threads.

    Each partition has a codec of its own, since each has its own series and a codec remembers few lists of them.
    """

    def __init__(self, table: SeriesTable) -> None:
        self._table = table
        self._codecs: dict[TopicPartition, Codec] = {}

    def record(self, message: Any) -> Record:
        """The record that a message of the client stands for."""
        place = TopicPartition(message.topic(), message.partition())
        headers = headers_of(message)
        value = self._value(place, headers.pop(KIND, None), message.value())
        return Record(place.topic, place.partition, message.offset(), key_of(message), value, headers)

    def forget(self, place: TopicPartition) -> None:
        """The partition is no longer ours."""
        self._codecs.pop(place, None)

    def _value(self, place: TopicPartition, kind: str | None, raw: bytes | None) -> Any:
        if raw is None:
            return Undecodable(b"", "it has no value")
        if kind is None:
            return Undecodable(raw, f"it has no header {KIND!r}: it was not written by Tidewarden")
        codec = self._codecs.get(place)
        if codec is None:
            codec = self._codecs[place] = Codec(self._table)
        try:
            return codec.decode(kind, raw)
        except CodecError as error:
            return Undecodable(raw, str(error))


def headers_of(message: Any) -> dict[str, str]:
    """The headers as text; the last one wins where a name comes twice."""
    return {name: (value or b"").decode(errors="replace") for name, value in message.headers() or ()}


def key_of(message: Any) -> str:
    """The key as text, "" where there is none."""
    return (message.key() or b"").decode(errors="replace")
