"""What the detect service asks of a whole frame, compiled."""

from __future__ import annotations

from numba import njit

from tidewarden.frames import IntArray, TimeArray


@njit(cache=True, nogil=True)
def take_newest(newest: TimeArray, group_of: IntArray, series: IntArray, timestamp: TimeArray) -> None:
    """Raise ``newest`` (one for each group) to the newest timestamp of the group's series.

    As `numpy.maximum.at`, which costs twenty times as much: a tenth of all that a fast model's scoring does.
    """
    for i in range(len(series)):
        group = group_of[series[i]]
        newest[group] = max(newest[group], timestamp[i])
