"""Arrays over series that grow as series appear, and lists of series that kernels can walk."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tidewarden.frames import IntArray

Array = TypeVar("Array", bound=npt.NDArray[Any])


def with_room(array: Array, n: int, blank: Callable[[int], Array]) -> Array:
    """``array`` with at least ``n`` rows, the new ones from ``blank``.

    It grows by doubling, so that a fleet that appears one series at a time costs constant time each.
    """
    have = len(array)
    if n <= have:
        return array
    return np.concatenate([array, blank(max(n, 2 * have, 64) - have)])  # type: ignore[return-value]


class NameOrder:
    """Groups of series as linked lists in the order of their names.

    By name and not by id, so that a kernel that walks a group, adding up or writing out, does so in the
    same order in every process.

    Attributes:
        first: first series of each group, -1 where it is empty; may be longer than there are groups.
        after: the series after each series in its group, -1 at the end; may be longer than there are series.
    """

    def __init__(self) -> None:
        self.first: IntArray = np.zeros(0, np.int32)
        self.after: IntArray = np.zeros(0, np.int32)
        self._groups: dict[int, list[tuple[str, int]]] = {}

    def add(self, group: int, series: int, name: str) -> None:
        """Put ``series`` in its place in ``group``; names differ within a group."""
        self.first = with_room(self.first, group + 1, _nothing)
        self.after = with_room(self.after, series + 1, _nothing)
        members = self._groups.setdefault(group, [])
        place = bisect.bisect(members, (name, series))
        members.insert(place, (name, series))
        if place == 0:
            self.after[series] = self.first[group]
            self.first[group] = series
        else:
            before = members[place - 1][1]
            self.after[series] = self.after[before]
            self.after[before] = series

    @property
    def largest(self) -> int:
        """Members of the largest group."""
        return max((len(members) for members in self._groups.values()), default=0)


def _nothing(n: int) -> IntArray:
    return np.full(n, -1, np.int32)
