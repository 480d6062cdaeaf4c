"""Random cut trees against what is true of the points in them, and against letting points in a thousand times."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tidewarden.models import random_cut_forest, random_cut_tree
from tidewarden.models.contract import Judgement


class Tree:
    """One random cut tree with memory of its own, and all that is in it."""

    def __init__(self, n: int, axes: int) -> None:
        self.head = np.zeros((1, 1, random_cut_tree.HEAD), np.int16)
        self.boxes = np.zeros((1, 1, n, random_cut_tree.node_words(axes)), np.float32)
        self.points = np.zeros((1, 1, n, random_cut_tree.leaf_words(axes)), np.float32)
        self.axes = axes

    @property
    def whole(self) -> tuple[np.ndarray, ...]:
        return self.head, self.boxes.view(np.int16), self.boxes, self.points.view(np.int16), self.points

    @property
    def parts(self) -> list[np.ndarray]:
        return [array[0, 0] for array in self.whole]

    def let_in(self, x: np.ndarray, state: np.ndarray) -> int:
        return int(random_cut_tree.let_in(*self.parts, x, state))

    def forget(self, leaf: int) -> None:
        random_cut_tree.forget(*self.parts, leaf)

    def displacement(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        shares = np.zeros(self.axes)
        total = random_cut_tree.displacement(*self.whole, 0, x, np.empty((5, 1)), shares)
        return float(total), shares

    def below(self, at: int, above: int = -1) -> list[tuple[float, ...]]:
        """All points below a node, after a look at whether everything it says of them is true."""
        _, nodes, boxes, leaves, points = self.parts
        if at < 0:
            assert leaves[-1 - at, random_cut_tree.LEAF_PARENT] == above
            count = int(leaves[-1 - at, random_cut_tree.LEAF_COUNT])
            assert count > 0
            return [tuple(points[-1 - at, random_cut_tree.POINT :].tolist())] * count
        assert nodes[at, random_cut_tree.PARENT] == above
        left = self.below(int(nodes[at, random_cut_tree.LEFT]), at)
        right = self.below(int(nodes[at, random_cut_tree.RIGHT]), at)
        axis, cut = nodes[at, random_cut_tree.AXIS], boxes[at, random_cut_tree.CUT]
        assert max(p[axis] for p in left) <= cut < min(p[axis] for p in right)
        inside = np.array(left + right, np.float32)
        low, n = random_cut_tree.LOW, self.axes
        np.testing.assert_array_equal(boxes[at, low : low + n], inside.min(0))
        np.testing.assert_array_equal(boxes[at, low + n : low + 2 * n], inside.max(0))
        assert nodes[at, random_cut_tree.MASS] == len(inside)
        return left + right

    @property
    def inside(self) -> list[tuple[float, ...]]:
        size = int(self.head[0, 0, random_cut_tree.SIZE])
        return self.below(int(self.head[0, 0, random_cut_tree.ROOT])) if size else []

    def collusive(self, leaf: int) -> float:
        """Of a leaf that is in: most that were pushed down for each of those who pushed."""
        _, nodes, _, leaves, _ = self.parts
        count, at = int(leaves[leaf, random_cut_tree.LEAF_COUNT]), int(leaves[leaf, random_cut_tree.LEAF_PARENT])
        most = 0.0
        while at >= 0:
            mass = int(nodes[at, random_cut_tree.MASS])
            most = max(most, (mass - count) / count)
            count, at = mass, int(nodes[at, random_cut_tree.PARENT])
        return most


@pytest.mark.parametrize("axes", [1, 3])
def test_a_random_cut_tree_holds_what_it_was_given(axes: int) -> None:
    """Points come and go a thousand times, many of them twice: boxes, masses and cuts are true of just those inside."""
    rng = np.random.default_rng(axes)
    state = np.array([axes], np.uint64)
    tree = Tree(24, axes)
    held: list[tuple[int, tuple[float, ...]]] = []
    for turn in range(1000):
        if held and (len(held) == 24 or rng.random() < 0.4):
            tree.forget(held.pop(int(rng.integers(len(held))))[0])
        else:
            # Coarse values are often alike; huge ones and tiny steps are where 32 bits round.
            x = np.float32(rng.integers(0, 3, axes) if turn % 3 else rng.normal(1e9, 100, axes))
            held.append((tree.let_in(x, state), tuple(x.tolist())))
        assert sorted(tree.inside) == sorted(x for _, x in held)


def test_a_random_cut_tree_forgets_without_a_trace() -> None:
    """Where the first cut goes has the chances of the box's sides, also after far points have come and gone."""
    points = np.float32([[0, 0], [1, 3], [0.5, 1], [0.2, 2.9]])
    state = np.array([5], np.uint64)
    n = 2000
    along_second = 0
    for _ in range(n):
        tree = Tree(8, 2)
        strangers = [tree.let_in(np.float32([50, -2]), state)]
        tree.let_in(points[0], state)
        strangers.append(tree.let_in(np.float32([-9, 9]), state))
        for x in points[1:]:
            tree.let_in(x, state)
        for leaf in strangers:
            tree.forget(leaf)
        root = tree.head[0, 0, random_cut_tree.ROOT]
        along_second += int(tree.parts[1][root, random_cut_tree.AXIS])
    assert along_second / n == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / n))  # sides 1 and 3


@pytest.mark.parametrize("x", [(0.3, 0.1), (4.0, 0.0), (1.0, -9.0)])
def test_expected_displacement_is_that_of_letting_in(x: tuple[float, float]) -> None:
    """What is summed up over the chance of a cut is the mean of letting the point in a thousand times."""
    rng = np.random.default_rng(1)
    state = np.array([9], np.uint64)
    tree = Tree(40, 2)
    for point in rng.normal(0, 1, (30, 2)).astype(np.float32):
        tree.let_in(point, state)
    tree.let_in(tree.points[0, 0, 3, random_cut_tree.POINT :].copy(), state)  # one of them twice
    expected, shares = tree.displacement(np.float32(x))
    tried = []
    for _ in range(1000):
        leaf = tree.let_in(np.float32(x), state)
        tried.append(tree.collusive(leaf))
        tree.forget(leaf)
    assert expected == pytest.approx(np.mean(tried), abs=4 * np.std(tried) / math.sqrt(1000) + 1e-9)
    assert shares.sum() == pytest.approx(expected)


def test_what_is_in_already_displaces_as_one_more_of_it() -> None:
    """A point that is in the tree displaces what it displaces once it is there twice; an empty tree, nothing."""
    rng = np.random.default_rng(2)
    state = np.array([3], np.uint64)
    tree = Tree(40, 2)
    assert tree.displacement(np.float32([1, 2]))[0] == 0.0
    points = rng.normal(0, 1, (20, 2)).astype(np.float32)
    for point in points:
        tree.let_in(point, state)
    expected, _ = tree.displacement(points[7])
    assert expected == tree.collusive(tree.let_in(points[7], state))


def test_a_random_cut_forest_knows_the_last_readings_and_blames_the_lag() -> None:
    """Every tree holds windows of about the last `memory` readings; a spike is blamed on the lag it is at."""
    rng = np.random.default_rng(0)
    value = rng.normal(0, 1, 900)
    value[:300] += 50
    model = random_cut_forest.RandomCutForest(10, 32, 3, 160, 0, 60)
    model.resize(1)
    out = Judgement.blank(900)
    model.observe(np.zeros(900, np.int32), np.arange(900), value, np.ones(900, bool), out)
    center = model.snapshot()["stat"][0, random_cut_forest.CENTER]
    held = model.snapshot()["leaf"][0, :, :, random_cut_tree.POINT] + np.float32(center)
    ages = 899 - np.array([[int(np.abs(value - x).argmin()) for x in tree] for tree in held])
    assert np.quantile(ages, 0.9) < 2 * 160
    assert abs(np.median(ages) - 80) < 30  # half of 160 readings, in ten trees that differ
    assert len(np.unique(ages)) > 100
    quiet, newest = model.attribution(0, 0.0), model.attribution(0, 30.0)
    assert newest.argmax() == 0
    assert newest[0] > 0.8 * newest.sum() > 5 * quiet.sum()
    model.observe(np.zeros(1, np.int32), np.array([900]), np.array([30.0]), np.ones(1, bool), Judgement.blank(1))
    assert model.attribution(0, 0.0).argmax() == 1
