"""Prometheus remote write 1.0: snappy-compressed protobuf into readings.

The messages are declared here, field by field, instead of generated: they are four, and frozen by
Prometheus' compatibility promise (https://prometheus.io/docs/specs/prw/remote_write_spec/).

A series becomes a reading's names so: ``tenant`` by the label, else the header X-Scope-OrgID, else the
stream's only tenant; ``node`` by the label, else ``instance``; ``cluster`` by the label, else ``job``; the
metric is ``__name__`` with all remaining labels in braces, since they tell series apart.
"""

from __future__ import annotations

import math
from typing import Any

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from tidewarden_services.ingest.reasons import MALFORMED, MISSING_FIELD, TOO_LARGE, WRONG_TYPE
from tidewarden_services.ingest.sources.columns import Columns, Refusal
from tidewarden_services.ingest.sources.times import LAST_MS

REMEMBERED_LABEL_SETS = 100_000  # about 50 MB at 500 bytes each; then the cache starts anew

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tidewarden.prometheus"
_MESSAGES: dict[str, list[tuple[str, int, int, bool, str]]] = {
    # name, number, type, repeated, message type
    "Label": [("name", 1, _FIELD.TYPE_STRING, False, ""), ("value", 2, _FIELD.TYPE_STRING, False, "")],
    "Sample": [("value", 1, _FIELD.TYPE_DOUBLE, False, ""), ("timestamp", 2, _FIELD.TYPE_INT64, False, "")],
    "TimeSeries": [
        ("labels", 1, _FIELD.TYPE_MESSAGE, True, "Label"),
        ("samples", 2, _FIELD.TYPE_MESSAGE, True, "Sample"),
    ],
    "WriteRequest": [("timeseries", 1, _FIELD.TYPE_MESSAGE, True, "TimeSeries")],
}


def write_request_class() -> type[message.Message]:
    """The class of the message WriteRequest, in a descriptor pool of its own."""
    file = descriptor_pb2.FileDescriptorProto(name="remote_write.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=name)
        for field, number, kind, repeated, of in fields:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            type_name = f".{_PACKAGE}.{of}" if of else None
            declared.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.WriteRequest"))


class RemoteWriteDecoder:
    """Turns request bodies into columns; remembers which labels are which series."""

    def __init__(self, default_tenant: str, max_bytes: int) -> None:
        self._default_tenant = default_tenant
        self._max_bytes = max_bytes
        self._class: Any = write_request_class()
        self._series: dict[tuple[str, bytes], int] = {}

    def parse(self, body: bytes, columns: Columns, tenant: str | None) -> int:
        """Parse one request; rows count its time series from 0, and their number is returned.

        Args:
            body: as received, snappy block format.
            columns: to fill.
            tenant: of the header X-Scope-OrgID, for series without a label ``tenant``.

        Raises:
            Refusal: where the body as a whole cannot be read, or is too large.
        """
        request = self._class()
        try:
            request.ParseFromString(self._decompressed(body))
        except message.DecodeError as error:
            raise Refusal(MALFORMED, f"this is no remote-write protobuf ({error}): send version 1.0") from None
        tenant = tenant or self._default_tenant
        for row, series in enumerate(request.timeseries):
            self._take(series, columns, row, tenant)
        return len(request.timeseries)

    def _decompressed(self, body: bytes) -> bytes:
        size = _declared_size(body)
        if size > self._max_bytes:
            raise Refusal(
                TOO_LARGE,
                f"the request declares {size} bytes, {self._max_bytes} are allowed: lower max_samples_per_send",
            )
        try:
            return bytes(cramjam.snappy.decompress_raw(body))
        except cramjam.DecompressionError as error:
            raise Refusal(MALFORMED, f"this is no snappy block ({error}): compress with snappy") from None

    def _take(self, series: Any, columns: Columns, row: int, tenant: str) -> None:
        key = (tenant, b"".join(label.SerializeToString() + b"\0" for label in series.labels))
        known = self._series.get(key)
        if known is None:
            try:
                known = columns.index.id_of(*names_of({pair.name: pair.value for pair in series.labels}, tenant))
            except Refusal as refusal:
                for _ in series.samples:
                    columns.refuse(row, refusal, str(series))
                return
            if len(self._series) >= REMEMBERED_LABEL_SETS:
                self._series.clear()
            self._series[key] = known
        for sample in series.samples:
            if abs(sample.timestamp) > LAST_MS:
                detail = f"timestamp is {sample.timestamp}: write milliseconds since the epoch"
                columns.refuse(row, Refusal(WRONG_TYPE, detail), str(series))
                continue
            # A stale marker is a NaN of its own bits. It and every other NaN say: there is no value now.
            value = math.nan if math.isnan(sample.value) else sample.value
            columns.add(row, known, sample.timestamp, value)


def names_of(labels: dict[str, str], tenant: str) -> tuple[str, str, str, str]:
    """Tenant, cluster, node and metric of a label set; raises `Refusal` where one cannot be found."""
    rest = dict(labels)
    metric = rest.pop("__name__", "")
    found = {
        "tenant": rest.pop("tenant", "") or tenant,
        "cluster": rest.pop("cluster", "") or rest.pop("job", ""),
        "node": rest.pop("node", "") or rest.pop("instance", ""),
    }
    remedies = {
        "tenant": "label tenant or send the header X-Scope-OrgID",
        "cluster": "label cluster or job",
        "node": "label node or instance",
    }
    if not metric:
        raise Refusal(MISSING_FIELD, "the label __name__ is absent: it names the metric", **found)
    for field, remedy in remedies.items():
        if not found[field]:
            raise Refusal(MISSING_FIELD, f"{field} is absent: {remedy}", **found, metric=metric)
    if rest:
        metric += "{" + ",".join(f'{name}="{rest[name]}"' for name in sorted(rest)) + "}"
    return found["tenant"], found["cluster"], found["node"], metric


def _declared_size(body: bytes) -> int:
    """Uncompressed size that a snappy block declares: a varint of at most five bytes."""
    size = 0
    for place, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return size
    raise Refusal(MALFORMED, "the body does not begin like a snappy block: compress with snappy")
