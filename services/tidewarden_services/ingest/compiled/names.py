"""Names of nodes and series by their bytes: a hash table that a compiled parser reads and Python lets grow.

Open addressing. Entries lie in arrays of int64, a row each; all names lie in one, each with the quote behind it.
Where a name begins is told by its address.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tidewarden.frames import IntArray, TimeArray
from tidewarden_services.ingest.compiled.words import UNCOUNTED, Bytes, trailing_zeros, word_at

MAX_PROBES = 64  # at half load a name is found at the second place; who makes names collide gets slower, not wrong

HASH, TENANT, CLUSTER, NODE, FIRST = 0, 1, 2, 3, 4
"""Columns of a node: hash of its names, where each of them begins in ``names``, number of its first series."""

OWNER, METRIC, SERIES, SEEN = 1, 2, 3, 4
"""Columns of a series besides `HASH`: number of its node, where its metric begins, id, the last message it was in."""

ZERO = np.uint64(0)
_ONE, _HALF = np.uint64(1), np.uint64(32)
_QUOTES, _LOWEST, _HIGHEST = (np.uint64(int.from_bytes(byte * 8, "little")) for byte in (b'"', b"\1", b"\x80"))
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads neighbours over the table


@njit(forceinline=True)
def _quotes(word: np.uint64) -> np.uint64:
    """A word whose lowest bit is the highest one of its first quote; 0 where there is none."""
    other = word ^ _QUOTES
    return (other - _LOWEST) & ~other & _HIGHEST


@njit(forceinline=True)
def _lowest(word: np.uint64) -> np.uint64:
    """Its lowest bit alone."""
    return word & (~word + _ONE)


@njit(forceinline=True)
def mixed(hashed: np.uint64, word: np.uint64) -> np.uint64:
    """A hash of one word more."""
    hashed = (hashed ^ word) * _GOLDEN
    return hashed ^ (hashed >> _HALF)


@njit(forceinline=True)
def name(at: int) -> tuple[int, np.uint64]:
    """The quote that ends a name, and the name's hash. Whatever is between: it has to be known to count."""
    hashed = ZERO
    word = word_at(at)
    quote = _quotes(word)
    while quote == ZERO:
        hashed = mixed(hashed, word)
        at += 8
        word = word_at(at)
        quote = _quotes(word)
    return at + (trailing_zeros(quote) >> 3), mixed(hashed, word & (_lowest(quote) - _ONE))


@njit(forceinline=True)
def _same(at: int, known: int) -> bool:
    """Whether two addresses hold the same name, the quotes that end them included."""
    while True:
        word = word_at(known)
        differing = word ^ word_at(at)
        quote = _quotes(word)
        if quote != ZERO:
            return differing & ((_lowest(quote) << _ONE) - _ONE) == ZERO
        if differing != ZERO:
            return False
        at += 8
        known += 8


@njit(forceinline=True)
def series_hash(metric_hash: np.uint64, owner: int) -> np.uint64:
    """Hash of a series by that of its metric and the number of its node."""
    return mixed(metric_hash, np.uint64(owner + 1))


@njit(forceinline=True, **UNCOUNTED)
def is_node(entry: int, tenant: int, cluster: int, node: int, hashed: np.uint64, names: int, nodes: TimeArray) -> bool:
    """Whether these names, by their addresses, are those of a node; ``names`` is the address of all."""
    return (
        nodes[entry, HASH] == np.int64(hashed)
        and _same(node, names + nodes[entry, NODE])
        and _same(cluster, names + nodes[entry, CLUSTER])
        and _same(tenant, names + nodes[entry, TENANT])
    )


@njit(forceinline=True, **UNCOUNTED)
def is_series(entry: int, metric: int, owner: int, names: int, series: TimeArray) -> bool:
    """Whether this is a series of the node with the number ``owner``; as above."""
    return series[entry, OWNER] == owner and _same(metric, names + series[entry, METRIC])


@njit(cache=True, **UNCOUNTED)
def node_of(
    tenant: int, cluster: int, node: int, hashed: np.uint64, names: int, nodes: TimeArray, slots: IntArray
) -> int:
    """Number of a node; -1 where it is not known."""
    mask = len(slots) - 1
    slot = np.int64(hashed) & mask
    for _ in range(MAX_PROBES):
        entry = slots[slot]
        if entry < 0 or is_node(entry, tenant, cluster, node, hashed, names, nodes):
            return entry
        slot = (slot + 1) & mask
    return -1


@njit(cache=True, **UNCOUNTED)
def series_of(metric: int, metric_hash: np.uint64, owner: int, names: int, series: TimeArray, slots: IntArray) -> int:
    """Number of a node's series; -1 where it is not known."""
    hashed = series_hash(metric_hash, owner)
    mask = len(slots) - 1
    slot = np.int64(hashed) & mask
    for _ in range(MAX_PROBES):
        entry = slots[slot]
        if entry < 0 or (series[entry, HASH] == np.int64(hashed) and is_series(entry, metric, owner, names, series)):
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
    begin, known = text.ctypes.data, names.ctypes.data
    tenant = begin
    for n in range(len(ids)):
        end, hashed_tenant = name(tenant)
        cluster = end + 1
        end, hashed_cluster = name(cluster)
        node = end + 1
        end, hashed_node = name(node)
        metric = end + 1
        end, hashed_metric = name(metric)
        hashed = mixed(mixed(hashed_tenant, hashed_cluster), hashed_node)
        owner = node_of(tenant, cluster, node, hashed, known, nodes, node_slots)
        if owner < 0:
            owner, at = filled[1], filled[0]
            names[at : at + metric - tenant] = text[tenant - begin : metric - begin]
            nodes[owner, HASH] = np.int64(hashed)
            nodes[owner, TENANT] = at
            nodes[owner, CLUSTER] = at + cluster - tenant
            nodes[owner, NODE] = at + node - tenant
            nodes[owner, FIRST] = filled[2]
            if not place(nodes, owner + 1, node_slots):
                tenant = end + 1
                continue
            filled[0] += metric - tenant
            filled[1] += 1
        entry, at = filled[2], filled[0]
        names[at : at + end + 1 - metric] = text[metric - begin : end + 1 - begin]
        series[entry, HASH] = np.int64(series_hash(hashed_metric, owner))
        series[entry, OWNER] = owner
        series[entry, METRIC] = at
        series[entry, SERIES] = ids[n]
        series[entry, SEEN] = -1
        if place(series, entry + 1, series_slots):
            filled[0] += end + 1 - metric
            filled[2] += 1
        tenant = end + 1
