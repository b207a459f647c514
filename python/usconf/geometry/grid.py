"""The grid of beam samples laid over a geometry, and which part of a geometry a picture shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import checks

Corners = np.ndarray  # (4, 2): top left, top right, bottom right, bottom left

# Half a GB as float32. A default beyond it comes from a wrong unit, not from a picture.
_MOST_SAMPLES = 2**27


@dataclass(frozen=True)
class BeamGrid:
    """Where the samples of a beam image lie: the result of `beam_grid` of a geometry.

    Attributes
    ----------
    n_samples, n_lines : int
        Rows and columns of the beam image. First and last lie on the borders of the geometry.
    r_start : float
        Radius of row 0 of a `Sector`, in `unit`; 0 for `Linear` and `Trapezoid`, whose beams
        start at their top edge.
    sample_spacing : float
        Distance of neighbours along a beam, in `unit`; of a `Trapezoid` along its longer side.
    line_spacing : float
        Distance of neighbouring beams, in `line_unit`; of a `Trapezoid` along the longer of its
        top and bottom edges.
    unit : {"mm", "px"}
        Of lengths.
    line_unit : {"rad", "mm", "px"}
        "rad" for a `Sector`.

    Examples
    --------
    >>> import usconf
    >>> fan = usconf.Sector((99.5, -60.0), 80.0, 300.0, -0.5, 0.5)
    >>> grid = fan.beam_grid((240, 200), shape=(221, 101))
    >>> grid.shape, grid.sample_spacing, grid.line_spacing, grid.line_unit
    ((221, 101), 1.0, 0.01, 'rad')
    """

    n_samples: int
    n_lines: int
    r_start: float
    sample_spacing: float
    line_spacing: float
    unit: str
    line_unit: str

    @property
    def shape(self) -> tuple[int, int]:
        """(n_samples, n_lines): the shape of the beam image."""
        return self.n_samples, self.n_lines


def beam_shape(shape: Any, extent: Callable[[], tuple[float, float]]) -> tuple[int, int]:
    """What was asked for, checked; else one sample per pixel of `extent` (pixels) and one more."""
    if shape is not None:
        return checks.sizes("shape", shape, 2, ("n_samples", "n_lines"))
    # Rounded first: 38.1 mm / 0.1 mm is 381 intervals, not 381.00000000000006.
    samples, lines = (max(2, math.ceil(round(length, 6)) + 1) for length in extent())
    if samples * lines > _MOST_SAMPLES:
        raise ValueError(
            f"shape must be given for a geometry of {samples} x {lines} pixels, got None; "
            "check its unit (spacing=None: lengths are pixels)"
        )
    return samples, lines


def picture_corners(height: int, width: int, scale: checks.Pair, reach: float = 0.5) -> Corners:
    """Corners of a picture in the geometry's unit, `reach` pixels beyond the outer centres."""
    left, top, right, bottom = -reach, -reach, width - 1 + reach, height - 1 + reach
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)]) * scale


def radii_in_picture(
    corners: Corners, apex: checks.Pair, theta_min: float, theta_max: float
) -> tuple[float, float] | None:
    """Least and greatest radius that the wedge of a fan has in a picture; None if it misses.

    Extremes lie at the apex, at corners, at the feet of perpendiculars from the apex to the
    borders, or where the sides of the wedge meet the borders.
    """
    relative = corners - apex
    along = np.roll(relative, -1, axis=0) - relative
    # A picture of one row has sides of no length, and no feet on them.
    squares = np.maximum(np.sum(along**2, axis=1), 1e-300)
    (left, top), (right, bottom) = relative[0], relative[2]
    feet = relative - along * (np.sum(relative * along, axis=1) / squares)[:, None]
    points = [*relative, *feet]
    inside = left <= 0 <= right and top <= 0 <= bottom
    for angle in (theta_min, theta_max):
        x, z = math.sin(angle), math.cos(angle)
        # A side this steep meets that border too far away to matter.
        crossings = [edge / x for edge in (left, right) if abs(x) > 1e-12]
        crossings += [edge / z for edge in (top, bottom) if abs(z) > 1e-12]
        points += [np.array((r * x, r * z)) for r in crossings if r >= 0]
    slack = 1e-9 * np.abs(relative).max()
    radii = [0.0] if inside else []
    for x, z in points:
        seen = left - slack <= x <= right + slack and top - slack <= z <= bottom + slack
        if seen and theta_min - 1e-9 <= math.atan2(x, z) <= theta_max + 1e-9:
            radii.append(math.hypot(x, z))
    return (min(radii), max(radii)) if radii else None


def overlap(first: Corners, second: Corners) -> bool:
    """Whether two convex quadrilaterals share an area: no side of either keeps them apart."""
    for corners in (first, second):
        edges = np.roll(corners, -1, axis=0) - corners
        normals = np.stack([-edges[:, 1], edges[:, 0]])
        one, other = first @ normals, second @ normals
        apart = (one.max(0) <= other.min(0)) | (other.max(0) <= one.min(0))
        if apart.any():
            return False
    return True
