"""Rollup: the score of a parent from its children's, explained to the last bit.

Scores are decades of rarity, ``p = 10 ** (-6 * score)``. A parent's p-value is the harmonic mean of its
children's, ``p = n / sum(1 / p_i)`` (Wilson 2019, https://doi.org/10.1073/pnas.1814092116): it stays a
p-value whether the children are independent or fail together, and a large family does not make a
hot parent. A single hot child among many calm ones is diluted, rightly so for the parent; that it is
hot is said by ``peak`` in `RollupFrame`.

**Contributions add up exactly.** A parent's score is rounded to a multiple of `UNIT` = 2**-40, and its
children share these units in proportion to ``1 / p_i``, whole units first and the rest by largest
remainder. Sums of such numbers up to 1 have no rounding error in float64, so the contributions add up
to the score whatever the order and whoever adds, Python, SQL or JavaScript.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import FloatArray

DECADES = 6.0
"""A score of 1 is this many decades of rarity."""

UNIT = 2.0**-40
"""What scores of parents and contributions are multiples of: far below what can be seen."""


def combine(scores: Sequence[float] | FloatArray) -> tuple[float, list[float]]:
    """Score of a parent, and what each child contributes to it.

    Args:
        scores: scores of the children, in [0, 1]; a child that still learns counts as 0.

    Returns:
        The parent's score, and one contribution a child in the same order, which add up to it exactly.
        Without children 0 and an empty list.

    Examples:
        >>> score, contributions = combine([0.9, 0.8, 0.1])
        >>> round(score, 3), [round(c, 3) for c in contributions]
        (0.837, [0.669, 0.168, 0.0])
        >>> sum(contributions) == score
        True
    """
    children = np.asarray(scores, np.float64)
    if len(children) == 0:
        return 0.0, []
    if not ((children >= 0.0) & (children <= 1.0)).all():
        raise ValueError(f"scores are {list(scores)}: each must be in [0, 1]")
    score = float(combine_segments(children, np.zeros(1, np.int64))[0])
    weights = 10.0 ** (DECADES * children)
    exact = weights / math.fsum(weights) * (score / UNIT)
    units = np.floor(exact)
    rest = round(score / UNIT - math.fsum(units))
    # Largest remainder first; equal ones in the order of the children. Rounding in `exact` may leave the
    # rest one below zero, then the smallest remainder that has a unit gives it back.
    order = np.argsort(units - exact, kind="stable")
    if rest >= 0:
        units[order[:rest]] += 1.0
    else:
        givers = order[::-1][units[order[::-1]] > 0.0]
        units[givers[:-rest]] -= 1.0
    return score, (units * UNIT).tolist()


def combine_segments(scores: FloatArray, starts: npt.NDArray[np.int64]) -> FloatArray:
    """Scores of many parents at once, each bit for bit as `combine` gives it.

    Args:
        scores: scores of all children, family after family, shape (n,).
        starts: where each family begins, rising from 0, shape (families,); none is empty.

    Returns:
        Scores of the parents, shape (families,).
    """
    parents = np.empty(len(starts))
    _combine_segments(scores, starts, parents)
    return parents


def peak_segments(peaks: FloatArray, starts: npt.NDArray[np.int64]) -> FloatArray:
    """Highest of ``peaks`` in each family; shapes as in `combine_segments`."""
    return np.maximum.reduceat(peaks, starts) if len(starts) else np.zeros(0)


@njit(cache=True, nogil=True)
def _combine_segments(scores: FloatArray, starts: npt.NDArray[np.int64], parents: FloatArray) -> None:
    # One after the other: numpy's sums are cut differently on different processors.
    for family in range(len(starts)):
        first = starts[family]
        last = starts[family + 1] if family + 1 < len(starts) else len(scores)
        total = 0.0
        for child in range(first, last):
            total += 10.0 ** (DECADES * scores[child])
        score = math.log10(total / (last - first)) / DECADES
        parents[family] = round(min(1.0, max(0.0, score)) / UNIT) * UNIT
