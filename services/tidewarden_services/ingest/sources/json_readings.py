"""Readings in JSON, as pushed over HTTP or kept in files.

Two shapes, freely mixed, unknown fields ignored::

    {"tenant", "cluster", "node", "timestamp", "metrics": {name: value, …}}
    {"tenant", "cluster", "node", "timestamp", "metric": name, "value": value}

A value is a number, or null where it is missing. Sound input takes a fast road, decoded as a whole; what
does not fit is decoded again one by one, so that one bad element costs only itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tidewarden_services.ingest.reasons import MALFORMED, MISSING_FIELD, WRONG_TYPE, Code, not_finite_detail
from tidewarden_services.ingest.sources.columns import Columns, Refusal, escaped
from tidewarden_services.ingest.sources.times import LAST_MS, SECONDS_BELOW, timestamp_ms


class JsonReading(msgspec.Struct, gc=False):
    """One element, of either shape."""

    tenant: str
    cluster: str
    node: str
    timestamp: int | float | str
    metrics: dict[str, float | None] | UnsetType = UNSET
    metric: str | UnsetType = UNSET
    value: float | UnsetType | None = UNSET


class _Envelope(msgspec.Struct):
    readings: Raw | UnsetType = UNSET


# No reading is shorter than 75 bytes. A list of much shorter things is none of readings, and must not become
# millions of refusals in memory: it is refused as one.
_SHORTEST_ITEM_BYTES = 6  # a metric with its value, in an object of many
_SHORTEST_ELEMENT_BYTES = 40
_FEW = 1_000

_NO_METRICS: dict[str, int] = {}  # of a node not met yet; never written to
_MANY = msgspec.json.Decoder(list[JsonReading])
_LINE = msgspec.json.Decoder(JsonReading)
_RAWS = msgspec.json.Decoder(list[Raw])
_RAW = msgspec.json.Decoder(Raw)
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)  # UnicodeDecodeError is a ValueError


def parse_body(body: bytes, columns: Columns, *, lines: bool = False) -> int:
    """Parse a whole document: one reading, a list, ``{"readings": […]}``, or (``lines``) one reading a line.

    Returns the number of elements; rows count from 0. `Refusal` where the body as a whole is unreadable.
    """
    text = body.strip()
    if not text:
        raise Refusal(MALFORMED, "the body is empty: send a JSON object or a list of them")
    if text[:1] == b"{" and (lines or not _is_one_document(text)):
        found = text.splitlines()
        if len(found) > 1:
            parse_lines(found, columns)
            return len(found)
    if text[:1] == b"{":
        text = _unpacked(text)
    if text.count(b",") > _FEW + len(text) // _SHORTEST_ITEM_BYTES:
        raise _no_readings(text.count(b","))
    try:
        readings = _MANY.decode(text)
    except _UNREADABLE:
        return _parse_one_by_one(text, columns)
    _take_all(readings, columns, lambda row: escaped(_RAWS.decode(text)[row]))
    return len(readings)


def parse_lines(lines: Sequence[bytes], columns: Columns, first_row: int = 0, *, refuse_empty: bool = False) -> None:
    """Parse one reading a line; empty lines are passed over (or refused), but counted in the rows."""
    try:
        _take_all(
            [_LINE.decode(line) for line in lines], columns, lambda row: escaped(lines[row - first_row]), first_row
        )
    except _UNREADABLE:
        for row, line in enumerate(lines, first_row):
            if refuse_empty or line.strip():
                _parse_element(line, columns, row)


def _is_one_document(text: bytes) -> bool:
    try:
        _RAW.decode(text)
    except _UNREADABLE:
        return False
    return True


def _unpacked(text: bytes) -> bytes:
    """The list of readings in ``text``: that of the envelope, or the one object alone."""
    try:
        readings = _ENVELOPE.decode(text).readings
    except _UNREADABLE:
        readings = UNSET  # NaN or broken: the slow road looks for an envelope of its own
    return b"[" + text + b"]" if readings is UNSET else bytes(readings)


def _parse_one_by_one(text: bytes, columns: Columns) -> int:
    """The slow road: each element by itself."""
    try:
        elements = _RAWS.decode(text)
    except _UNREADABLE:
        return _parse_loosely(text, columns)
    if len(elements) > _FEW + len(text) // _SHORTEST_ELEMENT_BYTES:
        raise _no_readings(len(elements))
    for row, element in enumerate(elements):
        _parse_element(element, columns, row)
    return len(elements)


def _parse_loosely(text: bytes, columns: Columns) -> int:
    """The slowest road, for what is almost JSON: NaN and Infinity as Python and JavaScript write them."""
    try:
        document = json.loads(text)
    except _UNREADABLE as error:
        raise Refusal(MALFORMED, f"this is not JSON ({error}): send an object or a list of them") from None
    if not isinstance(document, list):
        raise Refusal(WRONG_TYPE, f"the body is {_kind(document)}: send an object or a list of them")
    if len(document) == 1 and isinstance(document[0], dict) and isinstance(document[0].get("readings"), list):
        document = document[0]["readings"]
    if len(document) > _FEW + len(text) // _SHORTEST_ELEMENT_BYTES:
        raise _no_readings(len(document))
    for row, element in enumerate(document):
        _take_loosely(element, columns, row, json.dumps(element, ensure_ascii=False))
    return len(document)


def _parse_element(element: bytes | Raw, columns: Columns, row: int) -> None:
    try:
        reading = _LINE.decode(element)
    except _UNREADABLE:
        pass  # the loose road says exactly what is wrong, and saves what is right
    else:
        _take_all([reading], columns, lambda _: escaped(element), row)
        return
    try:
        document = json.loads(bytes(element))
    except _UNREADABLE as error:
        columns.refuse(row, Refusal(MALFORMED, f"this is not JSON ({error}): send one object"), escaped(element))
        return
    _take_loosely(document, columns, row, escaped(element))


def _take_all(  # noqa: C901 - one loop: a call for each reading would cost as much as all the rest
    readings: Iterable[JsonReading], columns: Columns, raw_of: Callable[[int], str], first_row: int = 0
) -> None:
    """Readings of sound types into columns; in here every microsecond counts, so appends are bound once."""
    index, nan = columns.index, math.nan
    nodes, id_of = index.nodes, index.id_of
    add_series, add_timestamp = columns.series.append, columns.timestamp.append
    add_value, add_row = columns.value.append, columns.row.append
    for row, reading in enumerate(readings, first_row):
        tenant, cluster, node, timestamp = reading.tenant, reading.cluster, reading.node, reading.timestamp
        metrics = reading.metrics
        known = nodes.get((tenant, cluster, node), _NO_METRICS)
        if metrics is UNSET and reading.metric is not UNSET:  # one reading a message, the commonest: no dict for it
            value = reading.value
            series = known.get(reading.metric)
            if (
                series is not None
                and value is not UNSET
                and type(timestamp) is int
                and SECONDS_BELOW <= timestamp <= LAST_MS
            ):
                add_series(series)
                add_timestamp(timestamp)
                add_value(nan if value is None else value)
                add_row(row)
                continue
        try:
            if type(timestamp) is not int or not SECONDS_BELOW <= timestamp <= LAST_MS:
                timestamp = _timestamp(timestamp)
            if metrics is UNSET:
                if reading.metric is UNSET or reading.value is UNSET:
                    raise _incomplete()
                metrics = {reading.metric: reading.value}
            elif not metrics:
                raise _incomplete()
        except Refusal as refusal:
            refusal.fields.update(tenant=tenant, cluster=cluster, node=node)
            columns.refuse(row, refusal, raw_of(row))
            continue
        for metric, value in metrics.items():
            series = known.get(metric)
            if series is None:
                try:
                    series = id_of(tenant, cluster, node, metric)
                except Refusal as refusal:
                    refusal.fields.update(timestamp=timestamp, value=value)
                    columns.refuse(row, refusal, raw_of(row))
                    continue
            add_series(series)
            add_timestamp(timestamp)
            add_value(nan if value is None else value)
            add_row(row)


def _take_loosely(element: Any, columns: Columns, row: int, raw: str) -> None:
    """One element of unknown shape: what is right of it is taken, what is wrong is refused by name."""
    fields: dict[str, object] = {}
    try:
        if not isinstance(element, dict):
            raise Refusal(WRONG_TYPE, f"a reading is a JSON object, this is {_kind(element)}")
        for field in ("tenant", "cluster", "node"):
            fields[field] = _text(element, field)
        if "timestamp" not in element:
            raise Refusal(MISSING_FIELD, "timestamp is absent: every reading has one")
        fields["timestamp"] = _timestamp(element["timestamp"])
        metrics = element.get("metrics")
        if metrics is None and "value" in element:
            metrics = {_text(element, "metric"): element["value"]}
        if metrics is None or metrics == {}:
            raise _incomplete()
        if not isinstance(metrics, dict):
            raise Refusal(WRONG_TYPE, f"metrics is {_kind(metrics)}: write an object of names and numbers")
    except Refusal as refusal:
        refusal.fields.update(fields)
        columns.refuse(row, refusal, raw)
        return
    for metric, value in metrics.items():
        try:
            number = _number(metric, value)
            series = columns.index.id_of(str(fields["tenant"]), str(fields["cluster"]), str(fields["node"]), metric)
        except Refusal as refusal:
            refusal.fields.update(fields, metric=metric)
            columns.refuse(row, refusal, raw)
            continue
        columns.add(row, series, _timestamp(fields["timestamp"]), number)


def _text(element: dict[str, Any], field: str) -> str:
    if field not in element:
        raise Refusal(MISSING_FIELD, f"{field} is absent: every reading names its {field}")
    name = element[field]
    if not isinstance(name, str):
        raise Refusal(WRONG_TYPE, f"{field} is {_kind(name)}: write a text")
    return name


def _number(metric: str, value: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refusal(WRONG_TYPE, f"{metric} is {_kind(value)}: write a number, or null where it is missing")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise Refusal(Code.NOT_FINITE.reason, not_finite_detail(repr(number)))
    return number


def _timestamp(timestamp: object) -> int:
    try:
        return timestamp_ms(timestamp)
    except ValueError as error:
        raise Refusal(WRONG_TYPE, str(error)) from None


def _no_readings(items: int) -> Refusal:
    return Refusal(MALFORMED, f"the body lists {items} things too short to be readings: send objects with all fields")


def _incomplete() -> Refusal:
    return Refusal(MISSING_FIELD, "neither metrics nor metric and value are given: write one of both shapes")


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "the text", bool: "a boolean", type(None): "null"}
    name = names.get(type(value), "the number")
    return name if isinstance(value, (dict, list, bool)) or value is None else f"{name} {str(value)[:80]!r}"
