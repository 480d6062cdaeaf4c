"""A parent's score is calibrated as its children's are, and their contributions add up to it exactly."""

import doctest
import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidewarden.scoring import rollup
from tidewarden.scoring.rollup import UNIT, combine, combine_segments, peak_segments

scores = st.lists(st.floats(0, 1), min_size=1, max_size=60)


@settings(deadline=None)  # the first example compiles the kernel
@given(scores, st.randoms())
def test_contributions_add_up_exactly_in_any_order_and_none_is_negative(children, shuffler):
    score, contributions = combine(children)
    assert math.fsum(contributions) == score
    shuffler.shuffle(contributions)
    total = 0.0
    for contribution in contributions:  # as a database or a browser adds, without compensation
        total += contribution
    assert total == score
    assert min(contributions) >= 0
    assert 0 <= score <= 1


def test_contributions_add_up_exactly_for_thousands_of_children():
    children = [random.Random(7).random() for _ in range(5000)]
    score, contributions = combine(children)
    assert sum(contributions) == score


@settings(deadline=None)  # the first example compiles the kernel
@given(scores)
def test_contributions_are_in_proportion_to_the_rarity_of_the_children(children):
    score, contributions = combine(children)
    weights = [10 ** (6 * child) for child in children]
    for contribution, weight in zip(contributions, weights, strict=True):
        assert contribution == pytest.approx(score * weight / sum(weights), abs=2 * UNIT)


@settings(deadline=None)  # the first example compiles the kernel
@given(scores)
def test_the_score_is_the_harmonic_mean_of_the_p_values(children):
    """The slow, obvious oracle."""
    p = len(children) / math.fsum(1 / 10 ** (-6 * child) for child in children)
    assert combine(children)[0] == pytest.approx(min(1, -math.log10(p) / 6), abs=1e-9)


@settings(deadline=None)  # the first example compiles the kernel
@given(st.floats(0, 1), st.integers(1, 500))
def test_children_that_agree_give_their_own_score(child, n):
    assert combine([child] * n)[0] == pytest.approx(child, abs=UNIT)


@settings(deadline=None)  # the first example compiles the kernel
@given(scores, st.integers(1, 50))
def test_calm_children_never_raise_a_score(children, n):
    assert combine(children + [0.0] * n)[0] <= combine(children)[0]


@settings(deadline=None)  # the first example compiles the kernel
@given(scores, st.data())
def test_a_hotter_child_never_lowers_the_score(children, data):
    i = data.draw(st.integers(0, len(children) - 1))
    hotter = list(children)
    hotter[i] = data.draw(st.floats(children[i], 1))
    assert combine(hotter)[0] >= combine(children)[0] - UNIT


@settings(deadline=None)  # the first example compiles the kernel
@given(scores)
def test_a_parent_is_never_hotter_than_its_hottest_child(children):
    assert combine(children)[0] <= max(children) + UNIT


def test_large_families_of_normal_children_raise_no_more_alarms_than_small_ones():
    """With uniform p-values a score of s comes at about the rate it says, from 1 child to 1,000."""
    rng = np.random.default_rng(11)
    for n in (1, 10, 100, 1000):
        p = rng.uniform(size=(2_000_000 // n, n)) if n > 1 else rng.uniform(size=(400_000, 1))
        children = np.minimum(1, -np.log10(p) / 6)
        starts = np.arange(0, children.size, n, dtype=np.int64)
        parents = combine_segments(children.ravel(), starts)
        for score in (0.4, 0.5):
            stated = 10 ** (-6 * score)
            allowed = 1.6 * stated + 4 * math.sqrt(stated / len(parents))
            assert (parents >= score).mean() <= allowed


def test_large_families_that_fail_together_raise_no_more_alarms_than_one_child():
    """The harmonic mean needs no independence: fully dependent children are one child."""
    p = np.random.default_rng(12).uniform(size=100_000)
    children = np.repeat(np.minimum(1, -np.log10(p) / 6), 20)
    parents = combine_segments(children, np.arange(0, children.size, 20, dtype=np.int64))
    np.testing.assert_allclose(parents, children[::20], atol=UNIT)


@settings(deadline=None)  # the first example compiles the kernel
@given(st.lists(scores, min_size=1, max_size=20))
def test_many_families_at_once_are_bit_for_bit_the_same_as_one_by_one(families):
    flat = np.array([child for family in families for child in family])
    starts = np.cumsum([0, *(len(family) for family in families[:-1])]).astype(np.int64)
    assert combine_segments(flat, starts).tolist() == [combine(family)[0] for family in families]
    assert peak_segments(flat, starts).tolist() == [max(family) for family in families]


def test_no_children_no_score():
    assert combine([]) == (0.0, [])
    assert len(combine_segments(np.zeros(0), np.zeros(0, np.int64))) == 0
    assert len(peak_segments(np.zeros(0), np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_a_score_outside_its_range_is_refused_with_the_value(wrong):
    with pytest.raises(ValueError, match=r"each must be in \[0, 1\]"):
        combine([0.5, wrong])


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(rollup).failed == 0
