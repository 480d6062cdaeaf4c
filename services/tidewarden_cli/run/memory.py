"""Freed memory stays with the process, and the collector of cycles looks seldom.

A frame of 10,000 scores is 650 KB, and a round allocates a dozen such blocks. glibc maps blocks of this size anew
and gives them back when they are freed, so that the kernel clears every page of every frame again: copying a
frame costs 290 µs then, 15 µs otherwise, and a detect process spends a tenth of its time on it.

A poll of a foreign topic makes 10,000 messages, none of them part of a cycle. With Python's thresholds the collector
looks through them fourteen times, which took two fifths of the poll's time.
"""

from __future__ import annotations

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT_BYTES = 64 * 1024 * 1024  # freed and not given back at most, of each arena: a round of 64 frames is 42 MB
BLOCK_BYTES = 32 * 1024 * 1024  # larger blocks are still mapped; glibc allows no more

LOOK_EVERY = 100_000  # objects more than before: ten polls' worth, some 10 MB if all of them were garbage in cycles


def look_seldom_for_cycles() -> None:
    """Set the collector's first threshold; the others stay."""
    gc.set_threshold(LOOK_EVERY, *gc.get_threshold()[1:])


def keep_freed_memory() -> bool:
    """Tell the allocator; False where it is not glibc's, which is then left as it is."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, BLOCK_BYTES) and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
