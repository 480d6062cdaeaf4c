"""Names of nodes and series by their bytes: a hash table that a compiled parser reads and Python lets grow.

Open addressing. Entries lie in arrays of int64, a row each; ``names`` holds every name with the quote behind it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tidewarden.frames import IntArray, TimeArray
from tidewarden_services.ingest.compiled.words import Bytes, trailing_zeros, word_at

MAX_PROBES = 64  # at half load a name is found at the second place; who makes names collide gets slower, not wrong

HASH, TENANT, CLUSTER, NODE = 0, 1, 2, 3
"""Columns of a node: hash of its names, and where each of them begins in ``names``."""

OWNER, METRIC, SERIES, SEEN = 1, 2, 3, 4
"""Columns of a series besides `HASH`: number of its node, where its metric begins, id, the last message it was in."""

ZERO = np.uint64(0)
_ONE, _HALF = np.uint64(1), np.uint64(32)
_QUOTES, _LOWEST, _HIGHEST = (np.uint64(int.from_bytes(byte * 8, "little")) for byte in (b'"', b"\1", b"\x80"))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads neighbours over the table


@njit(cache=True, nogil=True)
def _quotes(word: np.uint64) -> np.uint64:
    """A word whose lowest bit is the highest one of its first quote; 0 where there is none."""
    other = word ^ _QUOTES
    return (other - _LOWEST) & ~other & _HIGHEST


@njit(cache=True, nogil=True)
def _lowest(word: np.uint64) -> np.uint64:
    """Its lowest bit alone."""
    return word & (~word + _ONE)


@njit(cache=True, nogil=True)
def mixed(hashed: np.uint64, word: np.uint64) -> np.uint64:
    """A hash of one word more."""
    hashed = (hashed ^ word) * _GOLDEN
    return hashed ^ (hashed >> _HALF)


@njit(cache=True, nogil=True)
def name(text: Bytes, at: int) -> tuple[int, np.uint64]:
    """The quote that ends a name, and the name's hash. Whatever is between: it has to be known to count."""
    hashed = ZERO
    word = word_at(text, at)
    quote = _quotes(word)
    while quote == ZERO:
        hashed = mixed(hashed, word)
        at += 8
        word = word_at(text, at)
        quote = _quotes(word)
    return at + (trailing_zeros(quote) >> 3), mixed(hashed, word & (_lowest(quote) - _ONE))


@njit(cache=True, nogil=True)
def _same(text: Bytes, at: int, names: Bytes, known: int) -> bool:
    """Whether the name at ``at`` is the one at ``known`` of ``names``, the quotes that end them included."""
    while True:
        word = word_at(names, known)
        differing = word ^ word_at(text, at)
        quote = _quotes(word)
        if quote != ZERO:
            return differing & ((_lowest(quote) << _ONE) - _ONE) == ZERO
        if differing != ZERO:
            return False
        at += 8
        known += 8


@njit(cache=True, nogil=True)
def series_hash(metric_hash: np.uint64, owner: int) -> np.uint64:
    """Hash of a series by that of its metric and the number of its node."""
    return mixed(metric_hash, np.uint64(owner + 1))


@njit(cache=True, nogil=True)
def node_of(
    text: Bytes,
    tenant: int,
    cluster: int,
    node: int,
    hashed: np.uint64,
    names: Bytes,
    nodes: TimeArray,
    slots: IntArray,
) -> int:
    """Number of a node; -1 where it is not known."""
    mask = len(slots) - 1
    slot = np.int64(hashed) & mask
    for _ in range(MAX_PROBES):
        entry = slots[slot]
        if entry < 0:
            return -1
        if (
            nodes[entry, HASH] == np.int64(hashed)
            and _same(text, node, names, nodes[entry, NODE])
            and _same(text, cluster, names, nodes[entry, CLUSTER])
            and _same(text, tenant, names, nodes[entry, TENANT])
        ):
            return entry
        slot = (slot + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def series_of(
    text: Bytes, metric: int, hashed: np.uint64, owner: int, names: Bytes, series: TimeArray, slots: IntArray
) -> int:
    """Number of a node's series; -1 where it is not known. ``hashed`` is that of the series, not of the metric."""
    mask = len(slots) - 1
    slot = np.int64(hashed) & mask
    for _ in range(MAX_PROBES):
        entry = slots[slot]
        if entry < 0:
            return -1
        if (
            series[entry, HASH] == np.int64(hashed)
            and series[entry, OWNER] == owner
            and _same(text, metric, names, series[entry, METRIC])
        ):
            return entry
        slot = (slot + 1) & mask
    return -1


@njit(cache=True, nogil=True)
def place(entries: TimeArray, count: int, slots: IntArray) -> bool:
    """Put the last of ``count`` entries where a search finds it; False where too many are in the way."""
    mask = len(slots) - 1
    slot = entries[count - 1, HASH] & mask
    for _ in range(MAX_PROBES):
        if slots[slot] < 0:
            slots[slot] = count - 1
            return True
        slot = (slot + 1) & mask
    return False


@njit(cache=True, nogil=True)
def place_all(entries: TimeArray, count: int, slots: IntArray) -> None:
    """The same for all of them, after the slots have grown. What finds no place is found no more, and read slowly."""
    for n in range(1, count + 1):
        place(entries, n, slots)


@njit(cache=True, nogil=True)
def learn(
    text: Bytes,
    ids: IntArray,
    names: Bytes,
    nodes: TimeArray,
    node_slots: IntArray,
    series: TimeArray,
    series_slots: IntArray,
    filled: TimeArray,
) -> None:
    """Learn the series of which ``text`` holds tenant, cluster, node and metric, each with a quote at its end.

    ``filled`` counts the bytes of ``names``, the nodes and the series; there must be room for all of ``text``.
    """
    at = 0
    for n in range(len(ids)):
        tenant = at
        end, hashed_tenant = name(text, at)
        cluster = end + 1
        end, hashed_cluster = name(text, cluster)
        node = end + 1
        end, hashed_node = name(text, node)
        metric = end + 1
        end, hashed_metric = name(text, metric)
        at = end + 1
        hashed = mixed(mixed(hashed_tenant, hashed_cluster), hashed_node)
        owner = node_of(text, tenant, cluster, node, hashed, names, nodes, node_slots)
        if owner < 0:
            owner = filled[1]
            begin = filled[0]
            for i in range(tenant, metric):
                names[begin + i - tenant] = text[i]
            nodes[owner, HASH] = np.int64(hashed)
            nodes[owner, TENANT] = begin
            nodes[owner, CLUSTER] = begin + cluster - tenant
            nodes[owner, NODE] = begin + node - tenant
            if not place(nodes, owner + 1, node_slots):
                continue
            filled[0] += metric - tenant
            filled[1] += 1
        begin = filled[0]
        for i in range(metric, at):
            names[begin + i - metric] = text[i]
        entry = filled[2]
        series[entry, HASH] = np.int64(series_hash(hashed_metric, owner))
        series[entry, OWNER] = owner
        series[entry, METRIC] = begin
        series[entry, SERIES] = ids[n]
        series[entry, SEEN] = -1
        if place(series, entry + 1, series_slots):
            filled[0] += at - metric
            filled[2] += 1
