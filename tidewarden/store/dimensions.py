"""Dense integer ids for the names that fact rows point to, so that a row carries 4 bytes, not 40."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from tidewarden.frames import IntArray, SeriesKey, SeriesTable
from tidewarden.store.port import Query

K = TypeVar("K", bound=Hashable)


class StoredSeries(NamedTuple):
    """A series as a store names it: several streams share one store."""

    stream: str
    tenant: str
    cluster: str
    node: str
    metric: str


class StoredDetector(NamedTuple):
    """A detector in one version, as score rows point to it."""

    stream: str
    detector: str
    model_version: str


class StoredScope(NamedTuple):
    """What a rollup row is about; empty names mean "all of the level below"."""

    stream: str
    detector: str
    tenant: str
    cluster: str
    node: str


class Dimension(Generic[K]):
    """Keys and their ids 0, 1, 2 …, in the order in which they were met.

    `added` counts from the last `settle`: a store writes those down with the facts that need them and
    settles when the transaction has, or forgets them with `revert`.
    """

    def __init__(self, keys: Iterable[K] = ()) -> None:
        self._keys: list[K] = list(keys)
        self._ids: dict[K, int] = {key: i for i, key in enumerate(self._keys)}
        self._settled = len(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, number: int) -> K:
        return self._keys[number]

    def id_of(self, key: K) -> int:
        """The id of ``key``, given now if it is new."""
        known = self._ids.get(key)
        if known is None:
            known = len(self._keys)
            self._keys.append(key)
            self._ids[key] = known
        return known

    @property
    def keys(self) -> list[K]:
        """All keys; the index is the id. A copy, so that a writer may add meanwhile."""
        return list(self._keys)

    def added(self) -> list[tuple[int, K]]:
        """Ids and keys met since the last `settle`."""
        return list(enumerate(self._keys))[self._settled :]

    def settle(self) -> None:
        """What was added is written down."""
        self._settled = len(self._keys)

    def revert(self) -> None:
        """What was added was not written down: forget it."""
        for key in self._keys[self._settled :]:
            del self._ids[key]
        del self._keys[self._settled :]


class SeriesIds:
    """From the series ids of a process's tables to the ids of a store, without a string per reading."""

    def __init__(self, dimension: Dimension[StoredSeries]) -> None:
        self._dimension = dimension
        self._maps: WeakKeyDictionary[SeriesTable, dict[str, IntArray]] = WeakKeyDictionary()

    def translate(self, stream: str, table: SeriesTable, series: IntArray) -> IntArray:
        """Store ids of ``series``, int32, same shape; only the series that occur are given ids."""
        per_stream = self._maps.setdefault(table, {})
        known = per_stream.get(stream)
        if known is None or len(known) < len(table):
            grown = np.full(max(64, 2 * len(table)), -1, np.int32)
            if known is not None:
                grown[: len(known)] = known
            known = per_stream[stream] = grown
        ids: IntArray = known[series]
        if len(ids) and ids.min() < 0:
            for local in np.unique(series[ids < 0]).tolist():
                known[local] = self._dimension.id_of(StoredSeries(stream, *table[local]))
            ids = known[series]
        return ids

    def forget(self) -> None:
        """After a rollback: ids given since may be given to others."""
        self._maps.clear()


def matches(query: Query, stream: str, key: SeriesKey | StoredSeries) -> bool:
    """Whether the query's stream, tenant, cluster, node and metric fit."""
    return (
        query.stream in (None, stream)
        and query.tenant in (None, key.tenant)
        and query.cluster in (None, key.cluster)
        and query.node in (None, key.node)
        and query.metric in (None, key.metric)
    )
