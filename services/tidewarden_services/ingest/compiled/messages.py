"""The compiled road from messages of JSON to columns: what `sources/json_readings.py` says of them, to the bit.

It takes a message whole or leaves it: what is broken, unusual or names a series not met yet is left to the
parser in Python, which also words the refusals. So a doubt is never a mistake, only a slower message.

A message ends with a zero byte, which no token of JSON can hold. Only a name may run past it, up to the next quote.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tidewarden.frames import FloatArray, IntArray, TimeArray
from tidewarden_services.ingest.compiled.grammar import FIRST_4, FIRST_5, NULL, key_end, passed, pattern, space, time_of
from tidewarden_services.ingest.compiled.names import (
    FIRST,
    OWNER,
    SEEN,
    SERIES,
    is_node,
    is_series,
    mixed,
    name,
    node_of,
    series_of,
)
from tidewarden_services.ingest.compiled.numbers import BROKEN, number
from tidewarden_services.ingest.compiled.words import UNCOUNTED, Bytes, WordArray, byte_at, word_at

TENANT, CLUSTER, NODE, METRIC, VALUE, TIMESTAMP, METRICS, OTHER = 0, 1, 2, 3, 4, 5, 6, 7
"""Fields of a message; those up to `METRIC` are names."""

_NODE_FIELDS = 1 << TENANT | 1 << CLUSTER | 1 << NODE | 1 << TIMESTAMP
_ONE_READING = _NODE_FIELDS | 1 << METRIC | 1 << VALUE
_MANY_READINGS = _NODE_FIELDS | 1 << METRICS

_TENANT, _CLUSTER, _NODE, _TIMESTAM = pattern(b'tenant"'), pattern(b'cluster"'), pattern(b'node"'), pattern(b"timestam")
_METRICS, _METRIC, _VALUE = pattern(b'metrics"'), pattern(b'metric"'), pattern(b'value"')
_FIRST_6, _FIRST_7 = np.uint64(2**48 - 1), np.uint64(2**56 - 1)


@njit(forceinline=True, **UNCOUNTED)
def _field(at: int) -> tuple[int, int]:
    """Which field's name begins at ``at``, and where its last quote ends; of others, where the name begins."""
    word = word_at(at)
    if word & _FIRST_7 == _TENANT:
        return at + 7, TENANT
    if word == _CLUSTER:
        return at + 8, CLUSTER
    if word & FIRST_5 == _NODE:
        return at + 5, NODE
    if word == _TIMESTAM and byte_at(at + 8) == 112 and byte_at(at + 9) == 34:  # p"
        return at + 10, TIMESTAMP
    if word == _METRICS:
        return at + 8, METRICS
    if word & _FIRST_7 == _METRIC:
        return at + 7, METRIC
    if word & _FIRST_6 == _VALUE:
        return at + 6, VALUE
    return at, OTHER


@njit(cache=True, **UNCOUNTED)
def _other(at: int) -> int:
    """The end of a field of another name, whose first quote is before ``at``; -1 where it could be one of ours."""
    value = key_end(at - 1)
    for i in range(at, value):
        if byte_at(i) == 92:  # an escape: one of ours in disguise, perhaps
            return -1
    return passed(value) if value >= 0 else -1


@njit(forceinline=True, **UNCOUNTED)
def _value(at: int) -> tuple[int, float]:
    """(end, value) of a reading's number or null; -1 where it is neither."""
    byte = byte_at(at)
    if byte == 45 or 48 <= byte <= 57:
        end, kind, _, value = number(at)
        return end if kind != BROKEN else -1, value
    if word_at(at) & FIRST_4 == NULL:
        return at + 4, np.nan
    return -1, 0.0


@njit(forceinline=True, **UNCOUNTED)
def _metrics(at: int, end: int, rows: int, value: FloatArray, metric: TimeArray, hashed: WordArray) -> tuple[int, int]:
    """Names and values of an object of metrics into the columns from ``rows`` on: (end, rows then); -1 as above."""
    if byte_at(at) != 123:  # {
        return -1, rows
    while True:
        at = space(at + 1)
        if byte_at(at) != 34 or rows == len(value):
            return -1, rows
        metric[rows] = at + 1
        at, hashed[rows] = name(at + 1)
        at = space(at + 1)
        if byte_at(at) != 58:  # :
            return -1, rows
        at, value[rows] = _value(space(at + 1))
        if at < 0 or at > end:
            return -1, rows
        rows += 1
        at = space(at)
        byte = byte_at(at)
        if byte == 125:  # }
            return at + 1, rows
        if byte != 44:  # ,
            return -1, rows


@njit(forceinline=True, **UNCOUNTED)
def _fields(
    at: int,
    end: int,
    rows: int,
    where: TimeArray,
    hashes: WordArray,
    value: FloatArray,
    metric: TimeArray,
    hashed: WordArray,
) -> tuple[int, int, int, int, float]:
    """A message's fields: (end or -1, which there were as bits, rows then, its timestamp in ms, its one value).

    ``where`` and ``hashes`` are filled for the fields that are names, the others for its metrics, from ``rows`` on.
    """
    has, ms, alone = 0, 0, 0.0
    at = space(at)
    if byte_at(at) != 123:  # {
        return -1, has, rows, ms, alone
    while True:
        at = space(at + 1)
        if byte_at(at) != 34:
            return -1, has, rows, ms, alone
        at, field = _field(at + 1)
        if field == OTHER:
            at = _other(at)
        else:
            at = space(at)
            if has >> field & 1 or byte_at(at) != 58:
                return -1, has, rows, ms, alone
            has |= 1 << field
            at = space(at + 1)
            if field <= METRIC:
                if byte_at(at) != 34:
                    return -1, has, rows, ms, alone
                where[field] = at + 1
                at, hashes[field] = name(at + 1)
                at += 1
            elif field == TIMESTAMP:
                at, ms = time_of(at)
            elif field == METRICS:
                at, rows = _metrics(at, end, rows, value, metric, hashed)
            else:
                at, alone = _value(at)
        if at < 0 or at > end:
            return -1, has, rows, ms, alone
        at = space(at)
        byte = byte_at(at)
        if byte == 125:  # }
            return space(at + 1), has, rows, ms, alone
        if byte != 44:  # ,
            return -1, has, rows, ms, alone


@njit(cache=True, **UNCOUNTED)
def parse(
    text: Bytes,
    ends: TimeArray,
    first: int,
    serial: int,
    names: Bytes,
    nodes: TimeArray,
    node_slots: IntArray,
    series: TimeArray,
    series_slots: IntArray,
    counts: TimeArray,
    row: IntArray,
    series_id: IntArray,
    timestamp: TimeArray,
    value: FloatArray,
    metric: TimeArray,
    hashed: WordArray,
    left: IntArray,
    where: TimeArray,
    hashes: WordArray,
) -> tuple[int, int, int]:
    """Readings of messages from ``first`` on into columns, until all are read or the columns are full.

    Args:
        text: the messages, each with a zero byte behind it, then `words.PAD`.
        ends: where each message ends.
        first: message to begin with.
        serial: of message 0 in all that the process has read: what `SEEN` of a series tells apart.
        names: of nodes and metrics; this and the next five are filled by `names.learn`.
        nodes: entries of nodes.
        node_slots: numbers of nodes by hash, -1 where free.
        series: entries of series; `SEEN` is written.
        series_slots: numbers of series by hash, -1 where free.
        counts: ``filled`` of `names.learn`.
        row: is filled with the message of each reading,
        series_id: the series' id,
        timestamp: ms since the epoch,
        value: and NaN where it is null.
        metric: of the same length, for the kernel's own use;
        hashed: so is this.
        left: is filled with the messages that are left to the other parser.
        where: four places for the kernel's own use;
        hashes: so are these.

    Returns:
        The message to go on with, how many readings there are, how many messages were left.
    """
    filled = 0
    leaving = 0
    base, known = text.ctypes.data, names.ctypes.data
    owner = entry = 0  # of the message before: the next one is probably of the same node or the one behind
    for message in range(first, len(ends)):
        begin = ends[message - 1] + 1 if message > 0 else 0
        end = base + ends[message]
        at, has, rows, ms, alone = _fields(base + begin, end, filled, where, hashes, value, metric, hashed)
        sound = at == end
        if has == _ONE_READING and rows < len(value):
            metric[rows] = where[METRIC]
            hashed[rows] = hashes[METRIC]
            value[rows] = alone
            rows += 1
        elif has != _MANY_READINGS:
            sound = False
        if sound:
            its = mixed(mixed(hashes[TENANT], hashes[CLUSTER]), hashes[NODE])
            tenant, cluster, node = where[TENANT], where[CLUSTER], where[NODE]
            if owner >= counts[1] or not is_node(owner, tenant, cluster, node, its, known, nodes):
                owner += 1
                if owner >= counts[1] or not is_node(owner, tenant, cluster, node, its, known, nodes):
                    owner = node_of(tenant, cluster, node, its, known, nodes, node_slots)
            if owner < 0:
                sound = False
                owner = 0
        for reading in range(filled, rows if sound else filled):
            entry += 1
            if entry >= counts[2] or series[entry, OWNER] != owner:
                entry = nodes[owner, FIRST]
            if entry >= counts[2] or not is_series(entry, metric[reading], owner, known, series):
                entry = series_of(metric[reading], hashed[reading], owner, known, series, series_slots)
            if entry < 0 or series[entry, SEEN] == serial + message:  # unknown, or twice in a message
                sound = False
                break
            series[entry, SEEN] = serial + message
            row[reading] = message
            series_id[reading] = series[entry, SERIES]
            timestamp[reading] = ms
        if sound:
            filled = rows
        elif rows >= len(value) and filled > 0:
            return message, filled, leaving
        else:
            left[leaving] = message
            leaving += 1
    return len(ends), filled, leaving
