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
AXIS, LEFT, RIGHT, PARENT, MASS = range(5)
NODE = 5  # int16 of an inner node; PARENT is -1 at the root, MASS counts the points in the box
LEAF_PARENT, LEAF_COUNT = range(2)
LEAF = 2  # int16 of a leaf, which is a point with the number of times it is there
# The float32 of an inner node: where it is cut (what is not above goes left), then its box: lows, and then highs.
CUT = 0
LOW = 1


def box_columns(n_axes: int) -> int:
    """How many float32 an inner node takes."""
    return LOW + 2 * n_axes


@njit(cache=True, nogil=True)
def displacement(
    head: Links, nodes: Links, boxes: Singles, leaves: Links, points: Singles, x: Singles, shares: FloatArray
) -> float:
    """Expected collusive displacement of ``x`` if it were let in, over the chance of its own cut.

    Of a point that is in: how many others it has pushed down in the tree, for each that it did so with, at its most.
    What each axis has to do with it is added to ``shares``, (n_axes,). 0 of an empty tree.
    """
    if head[SIZE] == 0:
        return 0.0
    n_axes = len(x)
    total = 0.0
    reach = 1.0  # chance that no cut so far has set x apart
    most = 0.0
    at = head[ROOT]
    while at >= 0:
        beyond = 0.0
        length = 0.0
        box = boxes[at]
        for j in range(n_axes):
            length += box[LOW + n_axes + j] - box[LOW + j]
            beyond += max(box[LOW + j] - x[j], x[j] - box[LOW + n_axes + j], np.float32(0.0))
        mass = float(nodes[at, MASS])
        if beyond > 0.0:
            apart = beyond / (beyond + length)
            here = reach * apart * max(most, mass)
            total += here
            for j in range(n_axes):
                away = max(box[LOW + j] - x[j], x[j] - box[LOW + n_axes + j], np.float32(0.0))
                shares[j] += here * away / beyond
            reach *= 1.0 - apart
        at = nodes[at, RIGHT] if x[nodes[at, AXIS]] > box[CUT] else nodes[at, LEFT]
        below = float(nodes[at, MASS] if at >= 0 else leaves[-1 - at, LEAF_COUNT])
        most = max(most, (mass - below) / (below + 1.0))
    beyond = 0.0
    for j in range(n_axes):
        beyond += abs(x[j] - points[-1 - at, j])
    here = reach * (max(most, float(leaves[-1 - at, LEAF_COUNT])) if beyond > 0.0 else most)
    for j in range(n_axes):  # among equals no axis tells them apart
        shares[j] += here * (abs(x[j] - points[-1 - at, j]) / beyond if beyond > 0.0 else 1.0 / n_axes)
    return total + here


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
        points[leaf] = x
        leaves[leaf, LEAF_COUNT] = 1
        leaves[leaf, LEAF_PARENT] = -1
        head[ROOT] = -1 - leaf
        return leaf
    at = int(head[ROOT])
    parent = -1
    while True:
        # Draw a cut of the box as it would be with x in it; if it does not set x apart, the cut that is there stands.
        axis = -1
        length = 0.0
        for j in range(n_axes):
            low = boxes[at, LOW + j] if at >= 0 else points[-1 - at, j]
            high = boxes[at, LOW + n_axes + j] if at >= 0 else points[-1 - at, j]
            length += float(max(high, x[j])) - float(min(low, x[j]))
        draw = chance(state) * length
        cut = np.float32(0.0)
        for j in range(n_axes):
            low = boxes[at, LOW + j] if at >= 0 else points[-1 - at, j]
            high = boxes[at, LOW + n_axes + j] if at >= 0 else points[-1 - at, j]
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
                if x[j] != points[-1 - at, j]:
                    axis = j
                    cut = min(x[j], points[-1 - at, j])
        if axis >= 0:
            return _set_apart(head, nodes, boxes, leaves, points, x, at, parent, axis, cut)
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
    points[leaf] = x
    leaves[leaf, LEAF_COUNT] = 1
    _hang(head, nodes, leaves, node, parent, at)
    x_right = x[axis] > cut
    nodes[node, AXIS] = axis
    nodes[node, LEFT] = at if x_right else -1 - leaf
    nodes[node, RIGHT] = -1 - leaf if x_right else at
    nodes[node, MASS] = 1 + (nodes[at, MASS] if at >= 0 else leaves[-1 - at, LEAF_COUNT])
    boxes[node, CUT] = cut
    for j in range(n_axes):
        low = boxes[at, LOW + j] if at >= 0 else points[-1 - at, j]
        high = boxes[at, LOW + n_axes + j] if at >= 0 else points[-1 - at, j]
        boxes[node, LOW + j] = min(low, x[j])
        boxes[node, LOW + n_axes + j] = max(high, x[j])
    leaves[leaf, LEAF_PARENT] = node
    if at >= 0:
        nodes[at, PARENT] = node
    else:
        leaves[-1 - at, LEAF_PARENT] = node
    return leaf


@njit(cache=True, nogil=True)
def forget(head: Links, nodes: Links, boxes: Singles, leaves: Links, points: Singles, leaf: int) -> None:
    """Take one point of ``leaf`` out."""
    n_axes = points.shape[1]
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
            left_low = boxes[left, LOW + j] if left >= 0 else points[-1 - left, j]
            right_low = boxes[right, LOW + j] if right >= 0 else points[-1 - right, j]
            boxes[above, LOW + j] = min(left_low, right_low)
            left_high = boxes[left, LOW + n_axes + j] if left >= 0 else points[-1 - left, j]
            right_high = boxes[right, LOW + n_axes + j] if right >= 0 else points[-1 - right, j]
            boxes[above, LOW + n_axes + j] = max(left_high, right_high)
        above = int(nodes[above, PARENT])
