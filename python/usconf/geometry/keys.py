"""Reading other software's keys: one wording of what is missing or no number."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from . import checks, files
from .shapes import Sector


def mapping(source: Any, name: str) -> Mapping[str, Any]:
    """A mapping, as it is or out of a JSON file."""
    if isinstance(source, (str, os.PathLike)):
        found = files.read_json(source)
        name = os.fspath(source)
    else:
        found = source
    if not isinstance(found, Mapping):
        raise TypeError(
            f"{name} must be a mapping, got {type(found).__name__}; pass the file or what it holds"
        )
    return found


def get(values: Mapping[str, Any], key: str) -> Any:
    """What is under a key; ValueError if there is none."""
    if key not in values:
        present = ", ".join(map(str, values)) or "nothing"
        raise ValueError(f"{key} must be given, got only {present}; is this the right format?")
    return values[key]


def value(values: Mapping[str, Any], key: str) -> float:
    """The finite number under a key; text counts, as in the header of an image file."""
    found = get(values, key)
    if isinstance(found, str):
        try:
            found = float(found)
        except ValueError:
            raise ValueError(f"{key} must be a number, got {found!r}; check the file") from None
    if getattr(found, "ndim", None) == 0:
        found = found.item()
    return checks.number(key, found, "check the file")


def limits(values: Mapping[str, Any], key: str) -> tuple[float, float]:
    """Two finite numbers under a key."""
    found = get(values, key)
    if isinstance(found, (str, bytes)) or not hasattr(found, "__len__") or len(found) != 2:
        raise ValueError(f"{key} must be two numbers, got {found!r}; pass (from, to)")
    low, high = ({key: end} for end in found)
    return value(low, key), value(high, key)


def fan(geometry: Any, format: str) -> Sector:
    """TypeError unless a geometry is a Sector."""
    if not isinstance(geometry, Sector):
        raise TypeError(f"geometry must be a Sector for {format}, got {geometry}")
    return geometry


def face(geometry: Sector, format: str) -> float:
    """The radius of the probe face; ValueError if it is cropped off."""
    if geometry.r_min is None:
        raise ValueError(
            f"r_min must be a radius for {format}, got None; it has no word for a cropped face"
        )
    return geometry.r_min
