"""From JSON back to dataclasses, everything checked against the annotations of their fields."""

import math
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin

WORDS = {
    dict: "an object", list: "a list", str: "text", int: "an integer", float: "a number",
    bool: "true or false", type(None): "null",
}  # fmt: skip
MOST = 1 << 63  # integers are smaller, so that figures made of them are finite


def from_document(kind: Any, found: Any, place: str = "run") -> Any:
    """What `dataclasses.asdict` and JSON made `found` of, as `kind`: a dataclass, tuple[X, ...],
    dict[str, X], X | None, str, int, float or bool. Names that a dataclass lacks are passed over.

    >>> from_document(tuple[float, ...], [1, 2.5, None])
    (1.0, 2.5, nan)

    Raises:
        ValueError: it is something else; the message names the place.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _dataclass(kind, _checked(dict, found, place), place)
    if origin is UnionType:
        return None if found is None else from_document(inner[0], found, place)
    if origin is tuple:
        items = enumerate(_checked(list, found, place))
        return tuple(from_document(inner[0], item, f"{place}[{i}]") for i, item in items)
    if origin is dict:
        named = _checked(dict, found, place).items()
        return {name: from_document(inner[1], item, f"{place}.{name}") for name, item in named}
    if kind is float:  # JSON has null for nan
        return math.nan if found is None else float(_checked(float, found, place))
    return _checked(kind, found, place)


def _dataclass(kind: Any, found: dict[str, Any], place: str) -> Any:
    values = {}
    for field in fields(kind):
        if field.name not in found:
            raise ValueError(f"{place} has no {field.name}")
        values[field.name] = from_document(field.type, found[field.name], f"{place}.{field.name}")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _checked(kind: type, found: Any, place: str) -> Any:
    if type(found) is not kind and not (kind is float and type(found) is int):
        raise ValueError(f"{place} is {WORDS[type(found)]}, not {WORDS[kind]}")
    if isinstance(found, int) and abs(found) >= MOST:
        raise ValueError(f"{place} is too large a number")
    return found
