"""Geometries as software for pictures writes them: SlicerUltrasound, ``*.fan.json``, in pixels."""

from __future__ import annotations

import math
from typing import Any

from . import checks, keys
from .base import Geometry
from .points import to_points
from .shapes import Linear, Sector, Trapezoid


def from_slicer(source: Any) -> Geometry:
    """Read the mask of SlicerUltrasound's Anonymize module.

    Parameters
    ----------
    source : mapping or path-like
        The JSON file beside an anonymised image, or what it holds: mask_type "fan" (or
        "curvilinear", or none) with center_rows_px, center_cols_px, radius1, radius2, angle1,
        angle2; "rectangle" (or "linear") with rectangle_left, _right, _top, _bottom; "trapezoid"
        with the keys of a fan.

    Returns
    -------
    Sector, Linear or Trapezoid
        In pixels; `to_mm` gives mm. A "trapezoid" has straight edges through a fan's corners.

    Raises
    ------
    TypeError, ValueError
        If a key is missing, mask_type is another, or the numbers are no geometry.

    Notes
    -----
    Slicer's angles are degrees from the x axis towards z, so straight down is 90 and
    theta = 90 - angle; angles and radii come in either order.

    Examples
    --------
    >>> import usconf
    >>> mask = {"mask_type": "fan", "center_rows_px": -60, "center_cols_px": 200, "radius1": 100,
    ...         "radius2": 400, "angle1": 120.0, "angle2": 62.0}
    >>> print(usconf.geometry.from_slicer(mask))
    sector: apex (200, -60) px, radii 100 to 400 px, -30 to 28 degrees
    """
    values = keys.mapping(source, "source")
    kind = values.get("mask_type", "fan")
    if kind in ("rectangle", "linear"):
        names = "left", "right", "top", "bottom"
        return Linear(*(keys.value(values, f"rectangle_{name}") for name in names))
    if kind not in ("fan", "curvilinear", "trapezoid"):
        raise ValueError(
            f"mask_type must be fan, rectangle or trapezoid, got {kind!r}; it is none of Slicer's"
        )
    radii = sorted(keys.value(values, name) for name in ("radius1", "radius2"))
    low, high = sorted(math.radians(90 - keys.value(values, name)) for name in ("angle1", "angle2"))
    apex = keys.value(values, "center_cols_px"), keys.value(values, "center_rows_px")
    fan = Sector(apex, radii[0], radii[1], low, high)
    if kind == "trapezoid":
        if radii[0] == 0:
            raise ValueError(
                "radius1 must be positive for a trapezoid, got 0; read it as mask_type 'fan'"
            )
        return Trapezoid(*to_points(fan))
    return fan


def to_slicer(geometry: Geometry, image_shape: Any) -> dict[str, Any]:
    """Write the mask of SlicerUltrasound's Anonymize module.

    Parameters
    ----------
    geometry : Sector or Linear
        With r_min where it is a `Sector`.
    image_shape : tuple of int
        (height, width) of the picture.

    Returns
    -------
    dict
        The keys that `from_slicer` reads and the picture's size. Slicer reads whole pixels only:
        lengths are rounded, angles are not.

    Raises
    ------
    TypeError, ValueError
        If the geometry is a `Trapezoid`, a `Sector` without r_min, or one whose pixels are no
        squares.

    Examples
    --------
    >>> import usconf
    >>> fan = usconf.Sector((200, -60), 100, 400, -0.5, 0.5)
    >>> mask = usconf.geometry.to_slicer(fan, (360, 400))
    >>> mask["radius1"], mask["radius2"], round(mask["angle1"], 2)
    (100, 400, 118.65)
    """
    height, width = checks.sizes("image_shape", image_shape, 1, ("height", "width"))
    size = {"image_size_rows": height, "image_size_cols": width}
    pixels = geometry.to_pixels()
    if isinstance(pixels, Linear):
        sides = (pixels.x_min, pixels.x_max, pixels.z_min, pixels.z_max)
        names = "left", "right", "top", "bottom"
        rounded = {f"rectangle_{name}": round(v) for name, v in zip(names, sides, strict=True)}
        return {"mask_type": "rectangle", **rounded, **size}
    if not isinstance(pixels, Sector):
        raise TypeError(f"geometry must be a Sector or Linear for Slicer, got {geometry}")
    return {
        "mask_type": "fan",
        "angle1": 90 - math.degrees(pixels.theta_min),
        "angle2": 90 - math.degrees(pixels.theta_max),
        "center_rows_px": round(pixels.apex[1]),
        "center_cols_px": round(pixels.apex[0]),
        "radius1": round(keys.face(pixels, "Slicer")),
        "radius2": round(pixels.r_max),
        **size,
    }


def from_fan_json(source: Any, fit_check: bool = False) -> Sector:
    """Read a ``*.fan.json`` file.

    Parameters
    ----------
    source : mapping or path-like
        The file, or what it holds: apex_xy, r_inner (None where the face is cropped off) and
        r_outer in pixels, theta_left_deg and theta_right_deg.
    fit_check : bool, optional
        Take the block of that name: the fan as the picture shows it, where the main one comes from
        the scanner. Default False.

    Returns
    -------
    Sector
        In pixels; `to_mm` gives mm.

    Raises
    ------
    TypeError, ValueError
        If a key is missing or the numbers are no fan.

    Examples
    --------
    >>> import usconf
    >>> values = {"apex_xy": [185.6, -156.6], "r_inner": None, "r_outer": 517.8,
    ...           "theta_left_deg": -28.7, "theta_right_deg": 28.7}
    >>> print(usconf.geometry.from_fan_json(values))
    sector: apex (185.6, -156.6) px, radii picture's edge to 517.8 px, -28.7 to 28.7 degrees
    """
    values = keys.mapping(source, "source")
    if fit_check:
        values = keys.mapping(keys.get(values, "fit_check"), "fit_check")
    inner = keys.get(values, "r_inner")
    left, right = (
        math.radians(keys.value(values, name)) for name in ("theta_left_deg", "theta_right_deg")
    )
    r_min = None if inner is None else keys.value(values, "r_inner")
    r_max = keys.value(values, "r_outer")
    return Sector(keys.get(values, "apex_xy"), r_min, r_max, left, right)


def to_fan_json(geometry: Sector, image_shape: Any) -> dict[str, Any]:
    """Write what a ``*.fan.json`` file holds.

    Parameters
    ----------
    geometry : Sector
        With square pixels.
    image_shape : tuple of int
        (height, width) of the picture.

    Returns
    -------
    dict
        image_size_wh and the keys that `from_fan_json` reads, in pixels and degrees.

    Raises
    ------
    TypeError, ValueError
        If the geometry is no fan or its pixels are no squares.

    Examples
    --------
    >>> import usconf
    >>> fan = usconf.Sector((185.6, -156.6), None, 517.8, -0.5, 0.5)
    >>> usconf.geometry.from_fan_json(usconf.geometry.to_fan_json(fan, (370, 370))) == fan
    True
    """
    keys.fan(geometry, "fan.json")
    height, width = checks.sizes("image_shape", image_shape, 1, ("height", "width"))
    fan = geometry.to_pixels()
    return {
        "image_size_wh": [width, height],
        "apex_xy": list(fan.apex),
        "theta_left_deg": math.degrees(fan.theta_min),
        "theta_right_deg": math.degrees(fan.theta_max),
        "r_inner": fan.r_min,
        "r_outer": fan.r_max,
    }
