"""Whether an object in the cluster already is what we want: pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

_QUANTITY = re.compile(r"^([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(n|u|m|k|Ki|M|Mi|G|Gi|T|Ti|P|Pi|E|Ei)?$")
_SCALE: dict[str | None, Decimal] = {
    None: Decimal(1),
    **{unit: Decimal(10) ** power for unit, power in {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9}.items()},
    **{unit: Decimal(10) ** power for unit, power in {"T": 12, "P": 15, "E": 18}.items()},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}
# The fields whose text the API server writes anew: 1024Mi becomes 1Gi.
_QUANTITIES = frozenset({"requests", "limits", "sizeLimit"})
_MERGE_KEYS = ("name", "containerPort", "port", "topologyKey", "uid", "type", "parameter")


def differences(desired: Any, live: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Dotted paths at which ``live`` is not what ``desired`` says; what only ``live`` has is not looked at.

    Elements of lists are found by their key as the API server merges them; lists without one are compared in order.
    """
    if isinstance(desired, dict):
        if not isinstance(live, dict):
            if desired or live is not None:  # an empty mapping and an absent one are the same
                yield ".".join(path)
            return
        for name, value in desired.items():
            yield from differences(value, live.get(name), (*path, str(name)))
    elif isinstance(desired, list):
        yield from _list_differences(desired, live if isinstance(live, list) else [], path)
    elif desired != live and not (_is_quantity(path) and same_quantity(desired, live)):
        yield ".".join(path)


def same_quantity(one: Any, other: Any) -> bool:
    """Whether two texts are the same amount, as 1Gi and 1024Mi are."""
    left, right = _amount(one), _amount(other)
    return left is not None and left == right


def _list_differences(desired: list[Any], live: list[Any], path: tuple[str, ...]) -> Iterator[str]:
    key = _merge_key(desired)
    if key is None:
        if len(desired) != len(live):
            yield ".".join(path)
            return
        for position, (wanted, found) in enumerate(zip(desired, live, strict=True)):
            yield from differences(wanted, found, (*path, str(position)))
        return
    by_key = {element[key]: element for element in live if isinstance(element, dict) and key in element}
    for element in desired:
        if element[key] not in by_key:
            yield ".".join((*path, str(element[key])))
        else:
            yield from differences(element, by_key[element[key]], (*path, str(element[key])))


def _merge_key(elements: list[Any]) -> str | None:
    if not elements or not all(isinstance(element, dict) for element in elements):
        return None
    for key in _MERGE_KEYS:
        values = [element.get(key) for element in elements]
        if all(isinstance(value, (str, int)) for value in values) and len(set(values)) == len(values):
            return key
    return None


def _is_quantity(path: tuple[str, ...]) -> bool:
    return any(part in _QUANTITIES for part in path[-2:])


def _amount(text: Any) -> Decimal | None:
    match = _QUANTITY.match(str(text))
    return None if match is None else Decimal(match[1]) * _SCALE[match[2]]
