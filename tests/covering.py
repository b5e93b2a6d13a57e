"""Which combinations of a test's dimensions are run: by default enough that every two values meet.

CROSSENT_FULL=1 pytest runs the whole products; .ci/full does.
"""

import os
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations, product
from typing import Any

import pytest

FULL = os.environ.get("CROSSENT_FULL", "0") != "0"

Row = dict[str, int]  # a combination: of each dimension the index of a value


def covering(strength: int = 2, **dimensions: Collection[Any]) -> pytest.MarkDecorator:
    """A parametrization in which every `strength` values of different dimensions meet.

    A dimension is a list of values or a mapping from their names; ``isa`` is the fixture's.
    """
    values = {
        name: list(given.values() if isinstance(given, Mapping) else given)
        for name, given in dimensions.items()
    }
    sizes = {name: len(given) for name, given in values.items()}
    rows = [
        pytest.param(
            *(values[name][row[name]] for name in values),
            id="-".join(str(list(dimensions[name])[row[name]]) for name in values),
        )
        for row in covering_rows(sizes, len(sizes) if FULL else strength)
    ]
    indirect = ["isa"] if "isa" in values else False
    return pytest.mark.parametrize(list(values), rows, indirect=indirect)


def covering_rows(sizes: dict[str, int], strength: int) -> list[Row]:
    """A covering array, built a dimension at a time, the largest first.

    Source: Lei and Tai, In-parameter-order: a test generation strategy for pairwise testing, 1998.
    """
    names = sorted(sizes, key=lambda name: -sizes[name])
    first, later = names[:strength], names[strength:]
    rows = [
        dict(zip(first, row, strict=True))
        for row in product(*(range(sizes[name]) for name in first))
    ]
    for name in later:
        missing = set(meetings(name, [n for n in names if n in rows[0]], sizes, strength))
        for number, row in enumerate(rows):
            gains = [
                sum(met in missing for met in met_by({**row, name: value}, name, strength))
                for value in range(sizes[name])
            ]
            # Where nothing tells them apart, the values take turns.
            row[name] = max(
                range(sizes[name]), key=lambda v: (gains[v], (v - number) % sizes[name])
            )
            missing -= set(met_by(row, name, strength))
        rows += complete(sorted(missing), [*rows[0]], sizes)
    return rows


def meetings(name: str, before: list[str], sizes: dict[str, int], strength: int) -> Iterator[Any]:
    """Everything that must meet when `name` joins the dimensions `before`."""
    for others in combinations(before, strength - 1):
        chosen = sorted([*others, name])
        for row in product(*(range(sizes[n]) for n in chosen)):
            yield tuple(zip(chosen, row, strict=True))


def met_by(row: Row, name: str, strength: int) -> Iterator[Any]:
    """What meets `name` in a row."""
    for others in combinations([n for n in row if n != name], strength - 1):
        yield tuple((n, row[n]) for n in sorted([*others, name]))


def complete(missing: list[Any], names: list[str], sizes: dict[str, int]) -> list[Row]:
    """Rows in which what is missing meets, as few as fit together, filled up by turns."""
    rows: list[Row] = []
    for wanted in map(dict, missing):
        for row in rows:
            if all(row.get(name, value) == value for name, value in wanted.items()):
                row.update(wanted)
                break
        else:
            rows.append(wanted)
    return [
        {name: row.get(name, number % sizes[name]) for name in names}
        for number, row in enumerate(rows)
    ]
