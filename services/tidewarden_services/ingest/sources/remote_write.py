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
from tidewarden_services.ingest.sources.columns import Columns, Refusal, labelled
from tidewarden_services.ingest.sources.times import LAST_MS

REMEMBERED_LABEL_SETS = 100_000  # about 50 MB at 500 bytes each; then the cache starts anew

MAX_SERIES = 500_000  # in one request; Prometheus sends 2,000 samples at once unless told otherwise

_FIELD = descriptor_pb2.FieldDescriptorProto
_PACKAGE = "tidewarden.prometheus"
_MESSAGES: dict[str, list[tuple[str, int, int, bool, str]]] = {
    # name, number, type, repeated, message type
    "Label": [("name", 1, _FIELD.TYPE_STRING, False, ""), ("value", 2, _FIELD.TYPE_STRING, False, "")],
    "Sample": [("value", 1, _FIELD.TYPE_DOUBLE, False, ""), ("timestamp", 2, _FIELD.TYPE_INT64, False, "")],
    "TimeSeries": [
        # Labels stay bytes, which look the same on the wire: a series known by its bytes is not parsed again.
        ("labels", 1, _FIELD.TYPE_BYTES, True, ""),
        ("samples", 2, _FIELD.TYPE_MESSAGE, True, "Sample"),
    ],
    "WriteRequest": [("timeseries", 1, _FIELD.TYPE_MESSAGE, True, "TimeSeries")],
}


def message_classes() -> tuple[Any, Any]:
    """The classes of the messages WriteRequest and Label, in a descriptor pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name="remote_write.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        declared = file.message_type.add(name=name)
        for field, number, kind, repeated, of in fields:
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            type_name = f".{_PACKAGE}.{of}" if of else None
            declared.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in ("WriteRequest", "Label")]
    return message_factory.GetMessageClass(found[0]), message_factory.GetMessageClass(found[1])


class RemoteWriteDecoder:
    """Turns request bodies into columns; remembers which labels are which series."""

    def __init__(self, default_tenant: str, max_bytes: int) -> None:
        self._default_tenant = default_tenant
        self._max_bytes = max_bytes
        self._request, self._label = message_classes()
        self._series: dict[tuple[str, ...], int] = {}

    def parse(self, body: bytes, columns: Columns, tenant: str | None) -> int:
        """Parse one request; rows count its time series from 0, and their number is returned.

        Args:
            body: as received, snappy block format.
            columns: to fill.
            tenant: of the header X-Scope-OrgID, for series without a label ``tenant``.

        Raises:
            Refusal: where the body as a whole cannot be read, or is too large.
        """
        request = self._request()
        try:
            request.ParseFromString(self._decompressed(body))
        except message.DecodeError as error:
            raise Refusal(MALFORMED, f"this is no remote-write protobuf ({error}): send version 1.0") from None
        if len(request.timeseries) > MAX_SERIES:
            raise Refusal(
                TOO_LARGE,
                f"the request has {len(request.timeseries)} series, {MAX_SERIES} are allowed: "
                "lower max_samples_per_send",
            )
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
        key = (tenant, *series.labels)
        known = self._series.get(key)
        if known is None:
            known = self._meet(key, series, columns, row)
            if known is None:
                return
        for sample in series.samples:
            timestamp, value = sample.timestamp, sample.value
            if abs(timestamp) > LAST_MS:
                detail = f"timestamp is {timestamp}: write milliseconds since the epoch"
                columns.refuse(row, Refusal(WRONG_TYPE, detail), str(series))
                continue
            # A stale marker is a NaN of its own bits. It and every other NaN say: there is no value now.
            columns.add(row, known, timestamp, value if value == value else math.nan)  # noqa: PLR0124 - NaN

    def _meet(self, key: tuple[Any, ...], series: Any, columns: Columns, row: int) -> int | None:
        """The series of labels seen for the first time; None where it was refused, once for each sample."""
        labels: dict[str, str] = {}
        try:
            for raw in series.labels:
                label = self._label.FromString(raw)
                labels[label.name] = label.value
            known = columns.index.id_of(*names_of(labels, key[0]))
        except message.DecodeError as error:
            refusal = Refusal(MALFORMED, f"a label cannot be read ({error}): send version 1.0")
        except Refusal as caught:
            refusal = caught
        else:
            if len(self._series) >= REMEMBERED_LABEL_SETS:
                self._series.clear()
            self._series[key] = known
            return known
        shown = f"{labels} {series.samples}" if labels else str(series)
        for sample in series.samples:
            found = {**refusal.fields, "timestamp": sample.timestamp, "value": sample.value}
            columns.refuse(row, Refusal(refusal.reason, refusal.detail, **found), shown)
        return None


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
    return found["tenant"], found["cluster"], found["node"], labelled(metric, rest)


def _declared_size(body: bytes) -> int:
    """Uncompressed size that a snappy block declares: a varint of at most five bytes."""
    size = 0
    for place, byte in enumerate(body[:5]):
        size |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return size
    raise Refusal(MALFORMED, "the body does not begin like a snappy block: compress with snappy")
