"""Finding where a linear probe's picture lies within its margins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .echo import Echo, Still, echoes, read_still
from .edges import Side, crossings, tukey, vote_sides
from .shapes import Linear, Trapezoid

WANTED = "the rectangle or parallelogram of a linear probe on an even surround"
# Steering goes to about 30 degrees; trapezoids open less.
_DIRECTIONS = (-40.0, 40.0)
# Below this a side is upright: half a pixel over 60.
_UPRIGHT = math.radians(0.75)
# Two slanted sides belong together when parallel or mirrored within this.
_ALIKE = math.radians(2.5)
# Share of a border's length that must vote for it, and that on the picture's own edge decides
# that the frame runs off there.
_BORDER_SHOWN, _EDGE_SHOWN = 0.25, 0.05
_NORMALS = 300
_REACH = 4.0


@dataclass(frozen=True, eq=False)
class SupportFit:
    """What `fit_support` found.

    Attributes
    ----------
    geometry : Linear or Trapezoid
        In pixels, or in mm where `spacing` was given.
    residual : float
        Robust root mean square distance of the border found in the picture to the fitted sides,
        in pixels; 0 where the frame fills the picture and there was nothing to measure.
    support : numpy.ndarray
        bool (H, W): the frame inside the picture.
    parts : mapping of str to float
        The residual of each border that was seen: "left", "right", "top", "bottom".
    """

    geometry: Linear | Trapezoid
    residual: float
    support: np.ndarray = field(repr=False)
    parts: Mapping[str, float]


class _Frame(NamedTuple):
    """Borders in pixels of the cut picture; None: the frame runs off the picture there."""

    score: float
    left: Side | None
    right: Side | None
    top: Side | None
    bottom: Side | None
    box: tuple[float, float, float, float]  # x0, z0, x1, z1 of the echo
    echo: Echo


def fit_support(
    image: Any, *, region: Any = None, spacing: Any = None, axes: str | None = None
) -> SupportFit:
    """Find the rectangle or the steered quadrilateral that a linear probe shows.

    Parameters
    ----------
    image : array_like
        One still (H, W), (1, H, W), (1, 1, H, W), or one clip, e.g. (T, H, W) with
        ``axes="thw"``; NumPy, torch or CuPy. NaN counts as surround.
    region : sequence of int, optional
        (x0, y0, x1, y1), both ends inclusive, to search in, such as a DICOM ultrasound region.
        Default: the whole picture.
    spacing : float or tuple of float, optional
        mm per pixel, (x, z) where they differ; the geometry is then in mm. Default: pixels.
    axes : str, optional
        What the axes are, where the shape does not say it ("thw" for a clip).

    Returns
    -------
    SupportFit
        ``.geometry`` (`Linear`, or `Trapezoid` for slanted sides), ``.residual`` in pixels,
        ``.support`` as bool (H, W), ``.parts``. A frame without margins gives the whole picture.

    Raises
    ------
    TypeError, ValueError
        If the image is no picture, shows no such frame, or the region exceeds it. The message says
        what was missing.

    See Also
    --------
    fit_fan : for convex and phased probes.

    Notes
    -----
    Echo is what differs from the commonest grey, at several thresholds. Straight borders get the
    votes of the outermost echo less those of echo beyond them (a Hough transform); the threshold
    with most votes wins and its borders are refined at full size. Where one side is slanted and
    the other has an upright part, a steered frame was cut at the screen's margin: the geometry
    goes on behind the cut, the support does not.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> screen = np.zeros((120, 160), np.uint8)
    >>> screen[10:100, 30:130] = np.random.default_rng(0).integers(20, 200, (90, 100))
    >>> fit = usconf.fit_support(screen)
    >>> print(fit.geometry)
    linear: x 30 to 129 px, z 10 to 99 px
    >>> int(fit.support.sum())
    9000
    """
    known = checks.spacing(spacing)
    still = read_still(image, axes, region, WANTED)
    frames = [_voted(echo) for echo in echoes(still)]
    height, width = still.pixels.shape
    whole = (0.0, 0.0, width - 1.0, height - 1.0)
    if not frames:
        return _result(whole, None, {}, still, known)
    frame = max(frames, key=lambda found: found.score)
    box, corners, parts = _refined(frame, whole)
    return _result(box, corners, parts, still, known)


# Votes


def _voted(echo: Echo) -> _Frame:
    width = float(echo.factor)
    solid = echo.solid
    points = np.concatenate([echo.sides, echo.top])
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    middle = (width - 1) / 2
    ends = np.array([columns[0], rows[0], columns[-1], rows[-1]]) * width + middle
    tall, broad = len(rows), len(columns)
    touched = {
        "left": solid[:, 0].sum() / tall,
        "right": solid[:, -1].sum() / tall,
        "top": solid[0].sum() / broad,
        "bottom": solid[-1].sum() / broad,
    }
    open_sides = {name for name, share in touched.items() if share > _EDGE_SHOWN}
    lefts = _strong(vote_sides(points, width, _DIRECTIONS, left=True), tall, "left" in open_sides)
    rights = _strong(
        vote_sides(points, width, _DIRECTIONS, left=False), tall, "right" in open_sides
    )
    turned = points[:, ::-1]
    flat = (0.0, 0.0)
    tops = _strong(vote_sides(turned, width, flat, left=True), broad, "top" in open_sides)
    bottoms = _strong(vote_sides(turned, width, flat, left=False), broad, "bottom" in open_sides)
    left, right = _matched(lefts, rights)
    top, bottom = (found[0] if found else None for found in (tops, bottoms))
    # A border on the picture's edge is as good as a voted one.
    score = sum(side.score for side in (left, right, top, bottom) if side)
    score += sum(touched[name] * (tall if name in ("left", "right") else broad) for name in touched)
    x0, z0, x1, z1 = ends.tolist()
    return _Frame(float(score), left, right, top, bottom, (x0, z0, x1, z1), echo)


def _strong(sides: list[Side], length: int, open_side: bool) -> list[Side]:
    """Borders with enough votes; along an open side only slanted ones."""
    strong = [side for side in sides if side.score >= _BORDER_SHOWN * length]
    return [side for side in strong if not open_side or abs(side.theta) > _UPRIGHT]


def _matched(lefts: list[Side], rights: list[Side]) -> tuple[Side | None, Side | None]:
    """The best side of each; where only one is slanted, a weaker slanted one like it."""
    left, right = (found[0] if found else None for found in (lefts, rights))
    if left is not None and _slanted(left) and not _slanted(right):
        right = _like(left, rights) or right
    elif right is not None and _slanted(right) and not _slanted(left):
        left = _like(right, lefts) or left
    return left, right


def _slanted(side: Side | None) -> bool:
    return side is not None and abs(side.theta) > _UPRIGHT


def _like(side: Side, others: list[Side]) -> Side | None:
    for other in others:
        apart = min(abs(other.theta - side.theta), abs(other.theta + side.theta))
        if _slanted(other) and apart < _ALIKE:
            return other
    return None


# Refinement


def _refined(
    frame: _Frame, whole: tuple[float, float, float, float]
) -> tuple[tuple[float, float, float, float], Any, dict[str, tuple[float, float]]]:
    """The box in whole pixels, the four corners where sides are slanted, and residuals."""
    echo = frame.echo
    parts: dict[str, tuple[float, float]] = {}
    x0, z0, x1, z1 = _snapped(frame, whole)
    top = bottom = None
    if frame.top is not None:
        top, parts["top"] = _flat(echo, frame.top, (x0, x1), "top")
    if frame.bottom is not None:
        bottom, parts["bottom"] = _flat(echo, frame.bottom, (x0, x1), "bottom")
    z0 = z0 if top is None else math.ceil(top - 1e-6)
    z1 = z1 if bottom is None else math.floor(bottom + 1e-6)
    lines = {}
    for name, side in (("left", frame.left), ("right", frame.right)):
        if side is not None:
            lines[name], parts[name] = _line(echo, side, (z0, z1), name)
    slanted = [name for name, (theta, _) in lines.items() if abs(theta) > _UPRIGHT]
    if "left" in lines and "left" not in slanted:
        x0 = math.ceil(_x_at(lines["left"], (z0 + z1) / 2) - 1e-6)
    if "right" in lines and "right" not in slanted:
        x1 = math.floor(_x_at(lines["right"], (z0 + z1) / 2) + 1e-6)
    corners = None
    if slanted:
        if frame.bottom is None and z1 < whole[3]:
            raise _refusal("slanted sides without a level lower border; for a fan use fit_fan")
        corners = tuple(
            (_x_at(lines[name], z) if name in slanted else (x0 if name == "left" else x1), z)
            for name, z in (("left", z0), ("right", z0), ("right", z1), ("left", z1))
        )
    if x1 <= x0 or z1 <= z0:
        raise _refusal("borders that cross")
    return (float(x0), float(z0), float(x1), float(z1)), corners, parts


def _refusal(why: str) -> ValueError:
    return ValueError(
        f"image must show {WANTED}, got {why}, "
        "pass region=(x0, y0, x1, y1) to narrow the search, or build a Linear by hand"
    )


def _snapped(
    frame: _Frame, whole: tuple[float, float, float, float]
) -> tuple[float, float, float, float]:
    """The echo's box at full size; ends within a coarse pixel of the picture's go to its edge."""
    half = (frame.echo.factor - 1) / 2
    x0, z0, x1, z1 = frame.box
    x0, z0 = float(round(x0 - half)), float(round(z0 - half))
    x1, z1 = float(round(x1 + half)), float(round(z1 + half))
    x1 = whole[2] if whole[2] - x1 < frame.echo.factor else x1
    z1 = whole[3] if whole[3] - z1 < frame.echo.factor else z1
    return x0, z0, x1, z1


def _line(
    echo: Echo, side: Side, ends: tuple[float, float], name: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    """(theta, offset) of a left or right side, least squares; its residual and weight."""
    theta, offset = side.theta, side.offset
    sign = -1.0 if name == "left" else 1.0
    count = int(min(max(ends[1] - ends[0], 8), _NORMALS))
    z = np.linspace(*ends, count + 2)[1:-1]
    found = (math.inf, 0.0)
    for reach in (2.0 * echo.factor + _REACH, echo.factor + _REACH, _REACH, _REACH):
        normal = sign * np.array([math.cos(theta), -math.sin(theta)])
        base = np.stack([(offset - normal[1] * z) / normal[0], z], axis=1)
        seen = crossings(
            echo.contrast, echo.threshold, base, np.tile(normal, (count, 1)), reach + 4, np.ones(2)
        )
        weights = tukey(seen.shift, reach)
        total = float(weights.sum())
        if total < 4:
            break
        found = (math.sqrt(float(weights @ seen.shift**2) / total), total)
        along = seen.points @ np.array([math.sin(theta), math.cos(theta)])
        centre = float(weights @ along) / total
        spread = float(weights @ (along - centre) ** 2)
        mean = float(weights @ seen.shift) / total
        offset += mean
        if abs(theta) > _UPRIGHT:
            tilt = float(weights @ ((along - centre) * (seen.shift - mean))) / spread
            theta += sign * tilt
            turned = sign * np.array([math.cos(theta), -math.sin(theta)])
            pivot = (offset * normal) + centre * np.array([-normal[1], normal[0]]) * sign
            offset = float(turned @ pivot)
    return (theta, sign * offset), found


def _x_at(line: tuple[float, float], z: float) -> float:
    """x of the side (x cos theta - z sin theta = offset) at a depth."""
    theta, offset = line
    return (offset + z * math.sin(theta)) / math.cos(theta)


def _flat(
    echo: Echo, side: Side, ends: tuple[float, float], name: str
) -> tuple[float, tuple[float, float]]:
    """z of a level border; its residual and weight."""
    turned = echo._replace(contrast=echo.contrast.T)
    like = "left" if name == "top" else "right"
    (_, offset), found = _line(turned, side, ends, like)
    return offset, found


def _result(
    box: tuple[float, float, float, float],
    corners: Any,
    parts: dict[str, tuple[float, float]],
    still: Still,
    spacing: Any,
) -> SupportFit:
    scale = np.ones(2) if spacing is None else np.broadcast_to(np.asarray(spacing, float), 2)
    origin = np.array(still.origin)
    height, width = still.shape
    x, z = np.arange(width)[None, :], np.arange(height)[:, None]
    x0, z0, x1, z1 = np.array(box) + np.tile(origin, 2)
    support = (x >= x0) & (x <= x1) & (z >= z0) & (z <= z1)
    geometry: Linear | Trapezoid
    if corners is None:
        ends = np.array([x0, x1, z0, z1]) * np.repeat(scale, 2)
        left, right, top, bottom = ends.tolist()
        geometry = Linear(left, right, top, bottom, spacing)
    else:
        placed = (np.array(corners) + origin) * scale
        a, b, c, d = ((float(corner[0]), float(corner[1])) for corner in placed)
        geometry = Trapezoid(a, b, c, d, spacing)
        support &= geometry.contains(x, z)
    total = sum(weight for _, weight in parts.values())
    squares = sum(residual**2 * weight for residual, weight in parts.values() if weight)
    residual = math.sqrt(squares / total) if total else 0.0
    seen = {name: residual for name, (residual, weight) in parts.items() if weight}
    return SupportFit(geometry, residual, support, MappingProxyType(seen))
