"""Series that appear one at a time cost little, and groups are walked in the order of names."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tidewarden.scoring.growth import NameOrder, with_room


@given(st.lists(st.tuples(st.integers(0, 4), st.text("abc", min_size=1, max_size=4)), unique=True, max_size=40))
def test_each_group_is_walked_in_the_order_of_its_names_whatever_the_order_of_arrival(series):
    order = NameOrder()
    for number, (group, name) in enumerate(series):
        order.add(group, number, name)
    for group in {group for group, _ in series}:
        walked, at = [], order.first[group]
        while at >= 0:
            walked.append(series[at][1])
            at = order.after[at]
        assert walked == sorted(name for other, name in series if other == group)
    sizes = [sum(group == other for other, _ in series) for group in range(5)]
    assert order.largest == max(sizes)


def test_arrays_grow_by_doubling_and_keep_what_they_hold():
    array, grown = np.zeros(0), 0
    for n in range(1, 5000):
        larger = with_room(array, n, np.zeros)
        grown += larger is not array
        array = larger
        array[n - 1] = n
    assert grown < 10
    assert array[:4999].tolist() == list(range(1, 5000))
