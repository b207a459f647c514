"""Numbers and points that describe a geometry: one wording of their errors."""

from __future__ import annotations

import math
import numbers
from typing import Any

Pair = tuple[float, float]


def number(name: str, value: Any, advice: str) -> float:
    """A finite float; TypeError or ValueError otherwise."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}; {advice}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {float(value)!r}; {advice}")
    return float(value)


def point(name: str, value: Any) -> Pair:
    """An (x, z) pair of finite floats."""
    advice = "pass (x, z), x to the right and z down"
    return _pair(name, value, advice)


def spacing(value: Any) -> float | Pair | None:
    """mm per pixel: None, one number, or (x, z); a pair of equal numbers becomes one."""
    if value is None:
        return None
    advice = "pass mm per pixel, (x, z) where they differ, or None for lengths in pixels"
    if isinstance(value, numbers.Real):
        found: Pair = (number("spacing", value, advice),) * 2
    else:
        found = _pair("spacing", value, advice)
    if min(found) <= 0:
        raise ValueError(f"spacing must be positive, got {value!r}; {advice}")
    return found[0] if found[0] == found[1] else found


def increasing(low_name: str, low: float, high_name: str, high: float, advice: str) -> None:
    """ValueError unless low < high."""
    if low >= high:
        raise ValueError(
            f"{low_name} must be less than {high_name}, got {low!r} and {high!r}; {advice}"
        )


def whole(name: str, value: Any, least: int, advice: str) -> int:
    """An int of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}; {advice}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}; {advice}")
    return int(value)


def sizes(name: str, value: Any, least: int, words: tuple[str, str]) -> tuple[int, int]:
    """Two ints of at least `least`, named after `words` in errors."""
    if type(value) is tuple and len(value) == 2:  # the usual case, on every call of an operator
        first, second = value
        if type(first) is int and type(second) is int and first >= least and second >= least:
            return first, second
    advice = f"pass ({words[0]}, {words[1]})"
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) != 2:
        raise ValueError(f"{name} must be two integers, got {value!r}; {advice}")
    first, second = value
    return whole(f"{name}[0]", first, least, advice), whole(f"{name}[1]", second, least, advice)


def _pair(name: str, value: Any, advice: str) -> Pair:
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__") or len(value) != 2:
        raise TypeError(f"{name} must be two numbers, got {value!r}; {advice}")
    first, second = value
    return number(f"{name}[0]", first, advice), number(f"{name}[1]", second, advice)
