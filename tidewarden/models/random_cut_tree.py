"""One random cut tree (Guha, Mishra, Roy, Schrijvers 2016): what it would take to let a point in, and how it is done.

A tree holds points in boxes. A box is cut in two at random, along an axis by chance proportional to how long
the box is there. A point is let in as if it had been there when the cuts were drawn, and forgotten as if
it never had been, so a tree stays what it would be if grown anew from the points that it holds.

Children and roots are written as numbers: an inner node n as n, a leaf as -1 - leaf. Free places are chained, and
numbered from 1 there, so that a tree of zeros is an empty one. Compiled into `random_cut_forest`: after an
edit, `make kernels`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from tidewarden.frames import FloatArray
from tidewarden.models.windows import chance

Links = npt.NDArray[np.int16]
Singles = npt.NDArray[np.float32]
Words64 = npt.NDArray[np.uint64]

ROOT, SIZE, FREE_NODE, N_NODES, FREE_LEAF, N_LEAVES, OLDEST = range(7)
HEAD = 8  # int16 of a tree as a whole
# An inner node is a few 32-bit words side by side, one or two cache lines: int16 in `nodes`, float32 in `boxes`.
# Its parent is -1 at the root, its mass counts the points in its box …
AXIS, LEFT, RIGHT, PARENT, MASS = range(5)
CUT = 3  # … then where it is cut (what is not above goes left) …
LOW = 4  # … and its box: lows, and then highs
# A leaf, a point with the number of times it is there, likewise: `leaves` int16, `points` float32.
LEAF_PARENT, LEAF_COUNT = range(2)
POINT = 1


def node_words(n_axes: int) -> int:
    """How many 32-bit words an inner node takes."""
    return LOW + 2 * n_axes


def leaf_words(n_axes: int) -> int:
    """How many 32-bit words a leaf takes."""
    return POINT + n_axes


@njit(cache=True, nogil=True)
def displacement(
    heads: Links,
    nodes: Links,
    boxes: Singles,
    leaves: Links,
    points: Singles,
    s: int,
    x: Singles,
    scratch: FloatArray,
    shares: FloatArray,
) -> float:
    """Expected collusive displacement of ``x`` if the trees of series ``s`` let it in, over the chance of its own cut.

    Of a point that is in: how many others it has pushed down in the tree, for each that it did so with, at its most.
    The mean over the trees. What each axis has to do with it is added to ``shares``, (n_axes,), unless that is empty.
    ``scratch``, (5, n_trees), is where each tree's walk has come to.

    All trees a level: their memory comes in at once and not one after the other.
    """
    n_trees = heads.shape[1]
    n_axes = len(x)
    total = 0.0
    walking = 0
    for k in range(n_trees):
        scratch[0, k] = heads[s, k, ROOT] if heads[s, k, SIZE] > 0 else -1
        scratch[1, k] = 1.0  # chance that no cut so far has set x apart
        scratch[2, k] = 0.0  # the most that it has pushed down so far
        walking += 1 if scratch[0, k] >= 0.0 else 0
    while walking > 0:
        # First where each walk goes on, in a loop so short that the processor waits for many trees at once.
        for k in range(n_trees):
            if scratch[0, k] >= 0.0:
                at = np.uint32(scratch[0, k])
                goes_right = x[np.uint32(nodes[s, k, at, AXIS])] > boxes[s, k, at, CUT]
                scratch[3, k] = nodes[s, k, at, RIGHT if goes_right else LEFT]
                scratch[4, k] = boxes[s, k, at, LOW + 2 * n_axes - 1]
        for k in range(n_trees):
            if scratch[0, k] >= 0.0:
                below = int(scratch[3, k])
                scratch[4, k] = nodes[s, k, below, MASS] if below >= 0 else leaves[s, k, -1 - below, LEAF_COUNT]
        walking = 0
        for k in range(n_trees):
            if scratch[0, k] < 0.0:
                continue
            at = np.uint32(scratch[0, k])
            beyond = 0.0
            length = 0.0
            for j in range(n_axes):
                low = boxes[s, k, at, LOW + j]
                high = boxes[s, k, at, LOW + n_axes + j]
                length += high - low
                beyond += max(low - x[j], np.float32(0.0)) + max(x[j] - high, np.float32(0.0))
            mass = float(nodes[s, k, at, MASS])
            most = scratch[2, k]
            if beyond > 0.0:
                apart = beyond / (beyond + length)
                here = scratch[1, k] * apart * max(most, mass)
                scratch[1, k] *= 1.0 - apart
                total += here
                for j in range(len(shares)):
                    low = boxes[s, k, at, LOW + j]
                    high = boxes[s, k, at, LOW + n_axes + j]
                    away = max(low - x[j], np.float32(0.0)) + max(x[j] - high, np.float32(0.0))
                    shares[j] += here * away / (beyond * n_trees)
            rest = scratch[4, k]
            scratch[2, k] = max(most, (mass - rest) / (rest + 1.0))
            scratch[0, k] = scratch[3, k]
            walking += 1 if scratch[0, k] >= 0.0 else 0
    for k in range(n_trees):
        if heads[s, k, SIZE] == 0:
            continue
        leaf = np.uint32(-1.0 - scratch[0, k])
        beyond = 0.0
        for j in range(n_axes):
            beyond += abs(x[j] - points[s, k, leaf, POINT + j])
        most = scratch[2, k]
        if beyond > 0.0:
            most = max(most, float(leaves[s, k, leaf, LEAF_COUNT]))
        here = scratch[1, k] * most
        total += here
        for j in range(len(shares)):  # among equals no axis tells them apart
            away = abs(x[j] - points[s, k, leaf, POINT + j])
            shares[j] += here * (away / beyond if beyond > 0.0 else 1.0 / n_axes) / n_trees
    return float(total / n_trees)


@njit(cache=True, nogil=True)
def _new(head: Links, chain: Links, column: int, free: int, n: int) -> int:
    """A free place; ``chain`` holds in ``column`` which is the next free one."""
    if head[free] > 0:
        place = head[free] - 1
        head[free] = chain[place, column]
        return int(place)
    head[n] += 1
    return int(head[n] - 1)


@njit(cache=True, nogil=True)
def _hang(head: Links, nodes: Links, leaves: Links, child: int, parent: int, old: int) -> None:
    """Put ``child`` where ``old`` was below ``parent``, -1 for the top."""
    if child >= 0:
        nodes[child, PARENT] = parent
    else:
        leaves[-1 - child, LEAF_PARENT] = parent
    if parent < 0:
        head[ROOT] = child
    elif nodes[parent, LEFT] == old:
        nodes[parent, LEFT] = child
    else:
        nodes[parent, RIGHT] = child


@njit(cache=True, nogil=True)
def let_in(
    head: Links, nodes: Links, boxes: Singles, leaves: Links, points: Singles, x: Singles, state: Words64
) -> int:
    """Let point ``x`` in; which leaf holds it."""
    n_axes = len(x)
    head[SIZE] += 1
    if head[SIZE] == 1:
        leaf = _new(head, leaves, LEAF_PARENT, FREE_LEAF, N_LEAVES)
        points[leaf, POINT:] = x
        leaves[leaf, LEAF_COUNT] = 1
        leaves[leaf, LEAF_PARENT] = -1
        head[ROOT] = -1 - leaf
        return int(leaf)
    at = int(head[ROOT])
    parent = -1
    while True:
        # Draw a cut of the box as it would be with x in it; if it does not set x apart, the cut that is there stands.
        axis = -1
        length = 0.0
        for j in range(n_axes):
            low = boxes[at, LOW + j] if at >= 0 else points[-1 - at, POINT + j]
            high = boxes[at, LOW + n_axes + j] if at >= 0 else points[-1 - at, POINT + j]
            length += float(max(high, x[j])) - float(min(low, x[j]))
        draw = chance(state) * length
        cut = np.float32(0.0)
        for j in range(n_axes):
            low = boxes[at, LOW + j] if at >= 0 else points[-1 - at, POINT + j]
            high = boxes[at, LOW + n_axes + j] if at >= 0 else points[-1 - at, POINT + j]
            side = float(max(high, x[j])) - float(min(low, x[j]))
            if draw < side:
                place = float(min(low, x[j])) + draw
                # Rounded to 32 bits a cut must still lie between the box and the point.
                if place < low:
                    axis = j
                    cut = np.float32(place) if x[j] <= np.float32(place) < low else x[j]
                elif place >= high and x[j] > high:
                    axis = j
                    cut = np.float32(place) if high <= np.float32(place) < x[j] else high
                break
            draw -= side
        if at < 0 and axis < 0 and length > 0.0:  # the draw fell off the end by rounding
            for j in range(n_axes):
                if x[j] != points[-1 - at, POINT + j]:
                    axis = j
                    cut = min(x[j], points[-1 - at, POINT + j])
        if axis >= 0:
            return int(_set_apart(head, nodes, boxes, leaves, points, x, at, parent, axis, cut))
        if at < 0:
            leaves[-1 - at, LEAF_COUNT] += 1
            return -1 - at
        nodes[at, MASS] += 1
        for j in range(n_axes):
            boxes[at, LOW + j] = min(boxes[at, LOW + j], x[j])
            boxes[at, LOW + n_axes + j] = max(boxes[at, LOW + n_axes + j], x[j])
        parent = at
        at = int(nodes[at, RIGHT] if x[nodes[at, AXIS]] > boxes[at, CUT] else nodes[at, LEFT])


@njit(cache=True, nogil=True)
def _set_apart(
    head: Links, nodes: Links, boxes: Singles, leaves: Links, points: Singles, x: Singles,
    at: int, parent: int, axis: int, cut: float,
) -> int:  # fmt: skip
    """A new inner node above ``at``, with the box of ``at`` on one side of the cut and a leaf of ``x`` on the other."""
    n_axes = len(x)
    leaf = _new(head, leaves, LEAF_PARENT, FREE_LEAF, N_LEAVES)
    node = _new(head, nodes, PARENT, FREE_NODE, N_NODES)
    points[leaf, POINT:] = x
    leaves[leaf, LEAF_COUNT] = 1
    _hang(head, nodes, leaves, node, parent, at)
    x_right = x[axis] > cut
    nodes[node, AXIS] = axis
    nodes[node, LEFT] = at if x_right else -1 - leaf
    nodes[node, RIGHT] = -1 - leaf if x_right else at
    nodes[node, MASS] = 1 + (nodes[at, MASS] if at >= 0 else leaves[-1 - at, LEAF_COUNT])
    boxes[node, CUT] = cut
    for j in range(n_axes):
        low = boxes[at, LOW + j] if at >= 0 else points[-1 - at, POINT + j]
        high = boxes[at, LOW + n_axes + j] if at >= 0 else points[-1 - at, POINT + j]
        boxes[node, LOW + j] = min(low, x[j])
        boxes[node, LOW + n_axes + j] = max(high, x[j])
    leaves[leaf, LEAF_PARENT] = node
    if at >= 0:
        nodes[at, PARENT] = node
    else:
        leaves[-1 - at, LEAF_PARENT] = node
    return int(leaf)


@njit(cache=True, nogil=True)
def forget(head: Links, nodes: Links, boxes: Singles, leaves: Links, points: Singles, leaf: int) -> None:
    """Take one point of ``leaf`` out."""
    n_axes = points.shape[1] - POINT
    head[SIZE] -= 1
    at = int(leaves[leaf, LEAF_PARENT])
    leaves[leaf, LEAF_COUNT] -= 1
    if leaves[leaf, LEAF_COUNT] > 0:
        while at >= 0:
            nodes[at, MASS] -= 1
            at = int(nodes[at, PARENT])
        return
    leaves[leaf, LEAF_PARENT] = head[FREE_LEAF]
    head[FREE_LEAF] = leaf + 1
    if at < 0:
        return
    other = int(nodes[at, LEFT] if nodes[at, RIGHT] == -1 - leaf else nodes[at, RIGHT])
    above = int(nodes[at, PARENT])
    _hang(head, nodes, leaves, other, above, at)
    nodes[at, PARENT] = head[FREE_NODE]
    head[FREE_NODE] = at + 1
    while above >= 0:
        nodes[above, MASS] -= 1
        left = int(nodes[above, LEFT])
        right = int(nodes[above, RIGHT])
        for j in range(n_axes):
            left_low = boxes[left, LOW + j] if left >= 0 else points[-1 - left, POINT + j]
            right_low = boxes[right, LOW + j] if right >= 0 else points[-1 - right, POINT + j]
            boxes[above, LOW + j] = min(left_low, right_low)
            left_high = boxes[left, LOW + n_axes + j] if left >= 0 else points[-1 - left, POINT + j]
            right_high = boxes[right, LOW + n_axes + j] if right >= 0 else points[-1 - right, POINT + j]
            boxes[above, LOW + n_axes + j] = max(left_high, right_high)
        above = int(nodes[above, PARENT])
