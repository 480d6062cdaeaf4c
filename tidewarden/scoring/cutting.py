"""A part of a snapshot: what was learned of some of its series, for a scorer that watches no others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tidewarden.frames import SeriesKey
from tidewarden.scoring.snapshots import pack, unpack

OF_TIME = ("gaps", "silence", "drift")  # parts that are not of series, and that `Scorer.begin` makes anew


def cut(state: bytes, wanted: Callable[[SeriesKey], bool]) -> bytes:
    """The snapshot of a scorer as if it had met no other series than the wanted ones, as far as `begin` reads it.

    Every array of every part has the series as its first axis (`models/contract.py`), but those that are empty or
    have one entry for all.

    Args:
        state: what `Scorer.snapshot` gave.
        wanted: whether a series is to be kept.
    """
    header, arrays = unpack(state)
    keys = [SeriesKey(*names) for names in header["series"]]
    keep = np.array([wanted(key) for key in keys], np.bool_)
    if keep.all():
        return state
    for name, array in arrays.items():
        if name.partition("/")[0] in OF_TIME:
            continue
        if array.shape[:1] == (len(keys),):
            arrays[name] = array[keep]
        elif array.shape[:1] not in {(0,), (1,)}:
            raise ValueError(
                f"{name} has shape {array.shape}, not one row for each of {len(keys)} series: cannot be cut"
            )
    header["series"] = [list(key) for key, kept in zip(keys, keep, strict=True) if kept]
    return pack(header, arrays)
