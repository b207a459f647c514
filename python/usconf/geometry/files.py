"""Geometries as JSON files that a person can read and correct."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..atomic import whole
from .base import Geometry
from .shapes import Linear, Sector, Trapezoid

VERSION = 1
KINDS = {shape.kind: shape for shape in (Sector, Linear, Trapezoid)}
# A key that only this other format has -> the function that reads it.
_FOREIGN = {"apex_xy": "from_fan_json", "angle1": "from_slicer", "rectangle_left": "from_slicer"}

PathName = str | os.PathLike[str]


def to_dict(geometry: Geometry) -> dict[str, Any]:
    """Version, kind, unit, and the arguments of the geometry under their names."""
    values: dict[str, Any] = {"usconf_geometry": VERSION, "kind": geometry.kind}
    values["unit"] = geometry.unit
    for field in fields(geometry):  # type: ignore[arg-type]
        value = getattr(geometry, field.name)
        values[field.name] = list(value) if isinstance(value, tuple) else value
    return values


def from_dict(values: Any) -> Geometry:
    """The geometry that `to_dict` gave; ValueError or TypeError says what is wrong otherwise."""
    if not isinstance(values, Mapping):
        raise TypeError(
            f"values must be a mapping, got {type(values).__name__}; pass what to_dict returned"
        )
    for key, reader in _FOREIGN.items():
        if key in values:
            raise ValueError(
                f"values must be a geometry of usconf, got one with {key!r}; "
                f"read it with usconf.geometry.{reader}"
            )
    if "usconf_geometry" not in values:
        raise ValueError(
            f"values must have the key 'usconf_geometry', got {_names(values)}; "
            "pass what to_dict returned"
        )
    if values["usconf_geometry"] != VERSION:
        raise ValueError(
            f"usconf_geometry must be {VERSION}, got {values['usconf_geometry']!r}; "
            "another version of usconf wrote it"
        )
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}; see the docs")
    names = [field.name for field in fields(KINDS[kind])]
    expected = {"usconf_geometry", "kind", "unit", *names}
    if set(values) != expected:
        missing, unknown = expected - set(values), set(values) - expected
        faults = [f"no {_names(missing)}"] * bool(missing) + [f"also {_names(unknown)}"] * bool(
            unknown
        )
        raise ValueError(
            f"values must have the keys {_names(expected)}, got {' and '.join(faults)}; "
            f"spell them as {KINDS[kind].__name__} does"
        )
    geometry = KINDS[kind](**{name: values[name] for name in names})
    if values["unit"] != geometry.unit:
        raise ValueError(
            f"unit must be {geometry.unit!r} for spacing {geometry.spacing}, got "
            f"{values['unit']!r}; lengths are mm where the spacing is given, else px"
        )
    return geometry


def save(geometry: Geometry, path: PathName) -> None:
    """Write the JSON file at once: under its name there is never half of it."""
    write_json(to_dict(geometry), path)


def load(path: PathName) -> Geometry:
    """Read a geometry that was saved as JSON.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    Sector, Linear or Trapezoid
        Equal to what was saved, to the last bit.

    Raises
    ------
    ValueError, TypeError
        If the file holds no geometry, a key is missing or unknown, or a value is out of range; the
        message names the file and the key.
    OSError
        If the file cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile, usconf
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "fan.json"
    >>> fan = usconf.Sector((99.5, -60.0), None, 300.0, -0.5, 0.5)
    >>> fan.save(path)
    >>> usconf.geometry.load(path) == fan
    True
    """
    values = read_json(path)
    try:
        return from_dict(values)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{os.fspath(path)}: {error}") from None


def read_json(path: PathName) -> Any:
    """What a JSON file holds; ValueError that names the file if it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{os.fspath(path)} must be a JSON file, got {error}; geometry.save writes one"
        ) from None


def write_json(values: Any, path: PathName) -> None:
    """Write beside the target and rename: readers see the old file or the new one."""
    path = Path(path)
    text = json.dumps(values, indent=1, allow_nan=False) + "\n"
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")


def _names(keys: Any) -> str:
    return ", ".join(repr(key) for key in sorted(keys, key=str)) or "none"
