"""The combinations that tests run miss nothing that they promise."""

from itertools import combinations, product

import pytest
from covering import covering_rows

SIZES = {"layout": 14, "result": 6, "dtype": 4, "isa": 3, "soft": 2}


@pytest.mark.parametrize("strength", [2, 3])
def test_every_few_values_of_different_dimensions_meet(strength):
    rows = covering_rows(SIZES, strength)
    for names in combinations(SIZES, strength):
        wanted = set(product(*(range(SIZES[name]) for name in names)))
        assert {tuple(row[name] for name in names) for row in rows} == wanted


def test_pairs_need_hardly_more_rows_than_the_two_largest_dimensions():
    assert len(covering_rows(SIZES, 2)) <= 14 * 6 + 6


def test_the_full_strength_is_the_product_each_once():
    rows = covering_rows({"a": 3, "b": 4, "c": 2}, 3)
    assert len({tuple(sorted(row.items())) for row in rows}) == len(rows) == 24


def test_a_single_dimension_is_met_whole():
    assert covering_rows({"a": 3}, 2) == [{"a": 0}, {"a": 1}, {"a": 2}]
