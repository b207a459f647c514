"""What a picture shows: a fan, a rectangle or a steered quadrilateral of beams."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from . import checks
from .base import Geometry, Point
from .grid import BeamGrid, beam_shape, overlap, picture_corners, radii_in_picture

# Relative slack of borders: pixels whose centres lie on them belong to the geometry.
_SLACK = 1e-9
# A screenshot has a header above a phased array's apex, seldom higher than that share of it.
_HEADER = 0.25


@dataclass(frozen=True)
class Sector(Geometry):
    """The fan of a convex (curvilinear) or phased probe.

    Parameters
    ----------
    apex : tuple of float
        (x, z) of the point where the beams would meet.
    r_min : float or None
        Radius of the probe face, not negative; 0 for a phased array. None: the face is cropped off
        and beams start at the picture's edge.
    r_max : float
        Radius of the deepest samples.
    theta_min, theta_max : float
        Angles of the left and right side in radians, in (-pi, pi): 0 is straight down, positive to
        the right.
    spacing : float or tuple of float, optional
        mm per pixel, (x, z) where they differ; lengths are then mm. None (default): lengths are
        pixels.

    Raises
    ------
    TypeError, ValueError
        If a number is none, not finite, out of range, or a pair of them reversed.

    Notes
    -----
    Sample (i, j) lies at x = apex_x + r_i sin(theta_j), z = apex_z + r_i cos(theta_j), where
    r_i = r_start + i (r_max - r_start) / (n_samples - 1) and
    theta_j = theta_min + j (theta_max - theta_min) / (n_lines - 1); r_start is r_min, or with
    ``r_min=None`` the least radius that the fan has between the centres of the outer pixels.

    `beam_grid` refuses beams that start at an apex (r_min None, 0 or below one pixel) in the lower
    three quarters of the picture: a phased array's apex is at its top, under a screenshot's header
    at most. With a face around it (r_min of a pixel and more) the apex may lie anywhere: that of a
    probe that sees more than half a circle lies well below its sides.

    Examples
    --------
    >>> import math, usconf
    >>> fan = usconf.Sector((99.5, -60.0), 80.0, 300.0, -0.5, 0.5)
    >>> print(fan)
    sector: apex (99.5, -60) px, radii 80 to 300 px, -28.65 to 28.65 degrees
    >>> fan.contains(99.5, [19, 20, 240, 241]).tolist()
    [False, True, True, False]
    >>> fan.beam_grid((240, 200)).shape
    (221, 301)
    >>> usconf.Sector((0, 0), 50, 20, -0.5, 0.5)
    Traceback (most recent call last):
    ValueError: r_min must be less than r_max, got 50.0 and 20.0; the probe face comes first
    """

    apex: Point
    r_min: float | None
    r_max: float
    theta_min: float
    theta_max: float
    spacing: float | Point | None = None

    kind: ClassVar[str] = "sector"

    def __post_init__(self) -> None:
        r_max = checks.number("r_max", self.r_max, "it is the radius of the deepest samples")
        r_min = self.r_min
        if r_min is not None:
            advice = "it is the radius of the probe face, None if that is cropped off"
            r_min = checks.number("r_min", r_min, advice)
            if r_min < 0:
                raise ValueError(f"r_min must not be negative, got {r_min!r}; {advice}")
            checks.increasing("r_min", r_min, "r_max", r_max, "the probe face comes first")
        elif r_max <= 0:
            raise ValueError(
                f"r_max must be positive, got {r_max!r}; it is the radius of the deepest samples"
            )
        angles = {"theta_min": self.theta_min, "theta_max": self.theta_max}
        for name, angle in angles.items():
            advice = "pass radians, 0 is straight down (math.radians turns degrees)"
            angles[name] = checks.number(name, angle, advice)
            if abs(angles[name]) >= math.pi:
                raise ValueError(f"{name} must lie in (-pi, pi), got {angle!r}; {advice}")
        low, high = angles.values()
        checks.increasing("theta_min", low, "theta_max", high, "theta_min is the left side")
        apex = checks.point("apex", self.apex)
        self._keep(apex=apex, r_min=r_min, r_max=r_max, **angles)
        self._keep(spacing=checks.spacing(self.spacing))

    def __str__(self) -> str:
        low, high = math.degrees(self.theta_min), math.degrees(self.theta_max)
        face = "" if self.r_min is None else f"{self.r_min:.6g} to "
        edge = "picture's edge to " if self.r_min is None else ""
        return (
            f"sector: apex ({self.apex[0]:.6g}, {self.apex[1]:.6g}) {self.unit}, radii "
            f"{edge}{face}{self.r_max:.6g} {self.unit}, {low:.4g} to {high:.4g} degrees"
        )

    def parameters(self, grid: BeamGrid) -> tuple[int, tuple[float, ...]]:
        """0; apex x, z, r_start, r_max, theta_min, theta_max, unit per pixel x, z, 0, 0."""
        angles = (self.theta_min, self.theta_max)
        return 0, (*self.apex, grid.r_start, self.r_max, *angles, *self.scale, 0.0, 0.0)

    def to_pixels(self) -> Sector:
        """The same fan with lengths in pixels; ValueError where pixels are no squares."""
        scale_x, scale_z = self.scale
        if scale_x != scale_z:
            raise ValueError(
                f"spacing must be equal in x and z, got {self.spacing}; the arcs of this fan are "
                "no circles in pixels, keep it in mm"
            )
        return self._scaled(1 / scale_x, None)

    def to_mm(self, spacing: Any) -> Sector:
        """The same fan in mm; ValueError where pixels are no squares: its arcs are circles."""
        new = checks.spacing(spacing)
        if not isinstance(new, float):
            raise ValueError(
                f"spacing must be one number for a fan, got {spacing!r}; a circle in pixels is "
                "none in mm unless pixels are squares"
            )
        return self.to_pixels()._scaled(new, new)

    def _scaled(self, factor: float, spacing: float | None) -> Sector:
        r_min = None if self.r_min is None else self.r_min * factor
        apex = (self.apex[0] * factor, self.apex[1] * factor)
        return replace(self, apex=apex, r_min=r_min, r_max=self.r_max * factor, spacing=spacing)

    def _grid(self, height: int, width: int, shape: Any) -> BeamGrid:
        pixel = min(self.scale)
        corners = picture_corners(height, width, self.scale)
        radii = radii_in_picture(corners, self.apex, self.theta_min, self.theta_max)
        if radii is None or radii[0] >= self.r_max or radii[1] <= (self.r_min or 0.0):
            raise self._missed(height, width)
        r_start = self.r_min
        if r_start is None:
            # Between pixel centres: on the outer border row 0 would touch the picture at a point.
            corners = picture_corners(height, width, self.scale, 0.0)
            centres = radii_in_picture(corners, self.apex, self.theta_min, self.theta_max)
            r_start = min((centres or radii)[0], 0.5 * (radii[0] + self.r_max))
        row = self.apex[1] / self.scale[1]
        if radii[0] == 0.0 and r_start < pixel and row > _HEADER * height:
            raise ValueError(
                f"apex must lie above the picture or in the top quarter of its {height} rows where "
                f"beams start at it, got row {row:.6g} with r_min={self.r_min}; pass the radius of "
                "the probe face as r_min"
            )
        depth, opening = self.r_max - r_start, self.theta_max - self.theta_min
        samples, lines = beam_shape(shape, lambda: (depth / pixel, self.r_max * opening / pixel))
        spacings = depth / (samples - 1), opening / (lines - 1)
        return BeamGrid(samples, lines, r_start, *spacings, self.unit, "rad")

    def _contains(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        x, z = x - self.apex[0], z - self.apex[1]
        r, theta, r_min = np.hypot(x, z), np.arctan2(x, z), self.r_min or 0.0
        slack = _SLACK * (self.r_max - r_min)
        deep = (r >= r_min - slack) & (r <= self.r_max + slack)
        slack = _SLACK * (self.theta_max - self.theta_min)
        return deep & (theta >= self.theta_min - slack) & (theta <= self.theta_max + slack)

    def _positions(self, grid: BeamGrid) -> tuple[np.ndarray, np.ndarray]:
        r = np.linspace(grid.r_start, self.r_max, grid.n_samples)[:, None]
        theta = np.linspace(self.theta_min, self.theta_max, grid.n_lines)[None, :]
        return self.apex[0] + r * np.sin(theta), self.apex[1] + r * np.cos(theta)


class _Quadrilateral(Geometry):
    """Beams from a top edge to a bottom edge at equal fractions of both."""

    @property
    @abstractmethod
    def corners(self) -> tuple[Point, Point, Point, Point]:
        """Top left, top right, bottom right, bottom left, in the geometry's unit."""

    def to_pixels(self) -> Any:
        """The same outline with lengths in pixels (spacing None)."""
        scale_x, scale_z = self.scale
        return self._scaled(1 / scale_x, 1 / scale_z, None)

    def to_mm(self, spacing: Any) -> Any:
        """The same outline in mm; `spacing` is mm per pixel, one number or (x, z)."""
        new = checks.spacing(spacing)
        if new is None:
            raise TypeError("spacing must be mm per pixel, got None; to_pixels gives pixels")
        scale_x, scale_z = self.scale
        new_x, new_z = new if isinstance(new, tuple) else (new, new)
        return self._scaled(new_x / scale_x, new_z / scale_z, new)

    @abstractmethod
    def _scaled(self, x: float, z: float, spacing: Any) -> Any: ...

    def parameters(self, grid: BeamGrid) -> tuple[int, tuple[float, ...]]:
        """1; the corners' x, z in the order of `corners`, unit per pixel x, z."""
        return 1, (*(value for corner in self.corners for value in corner), *self.scale)

    def _grid(self, height: int, width: int, shape: Any) -> BeamGrid:
        corners = np.array(self.corners)
        if not overlap(corners, picture_corners(height, width, self.scale)):
            raise self._missed(height, width)
        samples, lines = beam_shape(shape, lambda: _extent(corners / self.scale))
        length, breadth = _extent(corners)
        spacings = length / (samples - 1), breadth / (lines - 1)
        return BeamGrid(samples, lines, 0.0, *spacings, self.unit, self.unit)

    def _contains(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        inside = np.ones(np.broadcast(x, z).shape, bool)
        corners = np.array(self.corners)
        slack = _SLACK * np.ptp(corners, axis=0).max()
        for (x0, z0), (x1, z1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            length = math.hypot(x1 - x0, z1 - z0)
            inside &= (x1 - x0) * (z - z0) - (z1 - z0) * (x - x0) >= -slack * length
        return inside

    def _positions(self, grid: BeamGrid) -> tuple[np.ndarray, np.ndarray]:
        (ax, az), (bx, bz), (cx, cz), (dx, dz) = self.corners
        v = np.linspace(0.0, 1.0, grid.n_samples)[:, None]
        u = np.linspace(0.0, 1.0, grid.n_lines)[None, :]
        x = (1 - v) * ((1 - u) * ax + u * bx) + v * ((1 - u) * dx + u * cx)
        z = (1 - v) * ((1 - u) * az + u * bz) + v * ((1 - u) * dz + u * cz)
        return x, z


@dataclass(frozen=True)
class Linear(_Quadrilateral):
    """The rectangle that a linear probe shows.

    Parameters
    ----------
    x_min, x_max : float
        The outer beams.
    z_min, z_max : float
        The probe face and the deepest samples.
    spacing : float or tuple of float, optional
        mm per pixel, (x, z) where they differ; lengths are then mm. None (default): lengths are
        pixels.

    Raises
    ------
    TypeError, ValueError
        If a number is none, not finite, or a pair of them reversed.

    Examples
    --------
    >>> import usconf
    >>> probe = usconf.Linear(10, 109, 4, 203)
    >>> print(probe)
    linear: x 10 to 109 px, z 4 to 203 px
    >>> probe.beam_grid((240, 120)).shape
    (200, 100)
    """

    x_min: float
    x_max: float
    z_min: float
    z_max: float
    spacing: float | Point | None = None

    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        for axis, advice in (("x", "x_min is the left beam"), ("z", "z_min is the probe face")):
            names = f"{axis}_min", f"{axis}_max"
            low, high = (checks.number(name, getattr(self, name), advice) for name in names)
            checks.increasing(names[0], low, names[1], high, advice)
            self._keep(**{names[0]: low, names[1]: high})
        self._keep(spacing=checks.spacing(self.spacing))

    def __str__(self) -> str:
        return (
            f"linear: x {self.x_min:.6g} to {self.x_max:.6g} {self.unit}, "
            f"z {self.z_min:.6g} to {self.z_max:.6g} {self.unit}"
        )

    @property
    def corners(self) -> tuple[Point, Point, Point, Point]:
        """Top left, top right, bottom right, bottom left, in the geometry's unit."""
        left, right, top, bottom = self.x_min, self.x_max, self.z_min, self.z_max
        return (left, top), (right, top), (right, bottom), (left, bottom)

    def _scaled(self, x: float, z: float, spacing: Any) -> Linear:
        return Linear(self.x_min * x, self.x_max * x, self.z_min * z, self.z_max * z, spacing)


@dataclass(frozen=True)
class Trapezoid(_Quadrilateral):
    """Straight beams between a top edge and a bottom edge: steered (a parallelogram), diverging.

    Parameters
    ----------
    top_left, top_right, bottom_right, bottom_left : tuple of float
        (x, z) of the corners: the ends of the probe face, then those of the deepest samples. The
        corners go around a convex outline.
    spacing : float or tuple of float, optional
        mm per pixel, (x, z) where they differ; lengths are then mm. None (default): lengths are
        pixels.

    Raises
    ------
    TypeError, ValueError
        If a number is none or not finite, or the corners cross, are reversed or no convex outline.

    Notes
    -----
    With A, B, C, D the corners in that order, sample (i, j) lies at
    p = (1 - v) ((1 - u) A + u B) + v ((1 - u) D + u C), u = j / (n_lines - 1),
    v = i / (n_samples - 1).

    Examples
    --------
    >>> import usconf
    >>> steered = usconf.Trapezoid((40, 0), (199, 0), (159, 199), (0, 199))
    >>> steered.contains([20, 20], [10, 190]).tolist()
    [False, True]
    """

    top_left: Point
    top_right: Point
    bottom_right: Point
    bottom_left: Point
    spacing: float | Point | None = None

    kind: ClassVar[str] = "trapezoid"

    def __post_init__(self) -> None:
        names = "top_left", "top_right", "bottom_right", "bottom_left"
        self._keep(**{name: checks.point(name, getattr(self, name)) for name in names})
        self._keep(spacing=checks.spacing(self.spacing))
        a, b, c, d = corners = np.array(self.corners)
        edges = np.roll(corners, -1, axis=0) - corners
        onward = np.roll(edges, -1, axis=0)
        turns = edges[:, 0] * onward[:, 1] - edges[:, 1] * onward[:, 0]
        upright = a[1] + b[1] < c[1] + d[1] and a[0] + d[0] < b[0] + c[0]
        if not upright or turns.min() <= _SLACK * np.ptp(corners, axis=0).max() ** 2:
            raise ValueError(
                "top_left, top_right, bottom_right, bottom_left must be the corners of a convex "
                f"outline in that order, got {self.corners}; z points down, and neither may two "
                "corners coincide nor sides cross"
            )

    def __str__(self) -> str:
        corners = ", ".join(f"({x:.6g}, {z:.6g})" for x, z in self.corners)
        return f"trapezoid: corners {corners} {self.unit}"

    @property
    def corners(self) -> tuple[Point, Point, Point, Point]:
        """Top left, top right, bottom right, bottom left, in the geometry's unit."""
        return self.top_left, self.top_right, self.bottom_right, self.bottom_left

    def _scaled(self, x: float, z: float, spacing: Any) -> Trapezoid:
        a, b, c, d = ((corner[0] * x, corner[1] * z) for corner in self.corners)
        return Trapezoid(a, b, c, d, spacing)


def _extent(corners: np.ndarray) -> tuple[float, float]:
    """The longer of left and right side, and of top and bottom edge: no beam exceeds them."""
    a, b, c, d = corners
    sides = np.stack([d - a, c - b, b - a, c - d])
    left, right, top, bottom = (math.hypot(x, z) for x, z in sides.tolist())
    return max(left, right), max(top, bottom)
