"""Geometries from corner points that a person clicked, and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from . import checks
from .base import Geometry
from .shapes import Linear, Sector, Trapezoid

_NAMES = "top_left", "top_right", "bottom_right", "bottom_left"


def from_points(points: Any, kind: str = "sector", spacing: Any = None) -> Geometry:
    """Make a geometry from its corners.

    Parameters
    ----------
    points : sequence of (x, z)
        Four: top left, top right, bottom right, bottom left. Three, for a `Sector` whose beams
        start at its apex: apex, bottom left, bottom right.
    kind : {"sector", "trapezoid", "linear"}, optional
        "sector" (default): the sides' lines meet in the apex, and the arcs have the mean radius of
        their two corners. "trapezoid": straight edges. "linear": the corners' mean rectangle.
    spacing : float or tuple of float, optional
        mm per pixel; the points are then mm. Default None: they are pixels.

    Returns
    -------
    Sector, Trapezoid or Linear

    Raises
    ------
    TypeError, ValueError
        If points are too few or too many, not finite, in another order, or the sides of a sector
        are parallel or meet below the face.

    Examples
    --------
    >>> import usconf
    >>> corners = (80, 20), (120, 20), (180, 100), (20, 100)
    >>> print(usconf.geometry.from_points(corners))
    sector: apex (100, -6.66667) px, radii 33.3333 to 133.333 px, -36.87 to 36.87 degrees
    """
    if kind not in ("sector", "trapezoid", "linear"):
        raise ValueError(
            f"kind must be 'sector', 'trapezoid' or 'linear', got {kind!r}; see the docstring"
        )
    counts = (3, 4) if kind == "sector" else (4,)
    if not hasattr(points, "__len__") or len(points) not in counts:
        given = len(points) if hasattr(points, "__len__") else points
        raise ValueError(
            f"points must be {' or '.join(map(str, counts))} corners for a {kind}, got {given!r}; "
            "four go round from top left, three are apex, bottom left, bottom right"
        )
    corners = [checks.point(f"points[{i}]", corner) for i, corner in enumerate(points)]
    if len(corners) == 3:
        apex, left, right = corners
        return _sector(apex, [], [left, right], spacing)
    top_left, top_right, bottom_right, bottom_left = corners
    if kind == "trapezoid":
        return Trapezoid(top_left, top_right, bottom_right, bottom_left, spacing)
    if kind == "linear":
        (ax, az), (bx, bz), (cx, cz), (dx, dz) = corners
        return Linear((ax + dx) / 2, (bx + cx) / 2, (az + bz) / 2, (cz + dz) / 2, spacing)
    # Checks order and convexity with the words of the corners.
    Trapezoid(top_left, top_right, bottom_right, bottom_left)
    apex = _meeting(top_left, bottom_left, top_right, bottom_right)
    return _sector(apex, [top_left, top_right], [bottom_left, bottom_right], spacing)


def to_points(geometry: Geometry) -> tuple[tuple[float, float], ...]:
    """Corners of a geometry in its unit.

    Parameters
    ----------
    geometry : Sector, Linear or Trapezoid
        With r_min where it is a `Sector`.

    Returns
    -------
    tuple of (x, z)
        Top left, top right, bottom right, bottom left; of a `Sector` with r_min 0 the apex, bottom
        left, bottom right.

    Raises
    ------
    ValueError
        If a `Sector` has no r_min.

    Examples
    --------
    >>> import usconf
    >>> usconf.geometry.to_points(usconf.Linear(0, 99, 0, 199))
    ((0.0, 0.0), (99.0, 0.0), (99.0, 199.0), (0.0, 199.0))
    """
    if not isinstance(geometry, Sector):
        return geometry.corners  # type: ignore[attr-defined]
    if geometry.r_min is None:
        raise ValueError(
            "r_min must be a radius for corner points, got None; dataclasses.replace sets it"
        )
    (left_top, left_bottom), (right_top, right_bottom) = (
        [
            (geometry.apex[0] + r * math.sin(angle), geometry.apex[1] + r * math.cos(angle))
            for r in (geometry.r_min, geometry.r_max)
        ]
        for angle in (geometry.theta_min, geometry.theta_max)
    )
    if geometry.r_min == 0:
        return geometry.apex, left_bottom, right_bottom
    return left_top, right_top, right_bottom, left_bottom


def _sector(
    apex: checks.Pair, top: list[checks.Pair], bottom: list[checks.Pair], spacing: Any
) -> Sector:
    angles = [math.atan2(x - apex[0], z - apex[1]) for x, z in bottom]
    if angles[0] >= angles[1]:
        raise ValueError(
            f"points must have the left corner before the right one, got {bottom}; "
            "three points are apex, bottom left, bottom right"
        )
    r_min, r_max = (
        float(np.mean([math.dist(apex, corner) for corner in arc])) if arc else 0.0
        for arc in (top, bottom)
    )
    return Sector(apex, r_min, r_max, angles[0], angles[1], spacing)


def _meeting(a: checks.Pair, d: checks.Pair, b: checks.Pair, c: checks.Pair) -> checks.Pair:
    """Where the lines through a, d and through b, c meet, above a and b."""
    (ux, uz), (vx, vz) = (d[0] - a[0], d[1] - a[1]), (c[0] - b[0], c[1] - b[1])
    # Positive where the sides part downwards: 2 area of the triangle they span.
    opening = uz * vx - ux * vz
    length = math.hypot(ux, uz) * math.hypot(vx, vz)
    if opening <= 1e-6 * length:
        raise ValueError(
            "points must have sides that part downwards for a sector, got "
            f"{(a, b, c, d)}; pass kind='trapezoid' or kind='linear'"
        )
    back = ((b[0] - a[0]) * vz - (b[1] - a[1]) * vx) / opening
    return a[0] - back * ux, a[1] - back * uz
