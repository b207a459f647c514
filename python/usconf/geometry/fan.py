"""Finding the fan of a convex or phased probe in a picture that does not say where it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from . import checks
from .echo import Echo, Still, echoes, read_still
from .edges import Crossings, crossings, tukey
from .fan_votes import Fan, candidates, opens
from .shapes import Sector

WANTED = "a fan (two straight sides and an arc around their meeting point, on an even surround)"
_ADVICE = (
    "for a linear probe use fit_support, for a screenshot pass region=(x0, y0, x1, y1), "
    "or build a Sector by hand"
)
# A fan shows at least this much of each visible border; more would refuse pictures whose sides
# lie in shadow, less accepts rectangles with a curved skin line (real frames of both kinds).
_SIDE_SHOWN, _ARC_SHOWN = 0.1, 0.35
# Skin that bulges towards a probe under water has two falling sides too, but hardly an arc.
_WIDE, _WIDE_ARC_SHOWN = math.radians(100), 0.6
# Votes that a fan's borders get from its outline: 0.45 to 0.98 on fans with deep shadows and
# without, up to 0.3 on most frames of linear probes.
_LEAST_VOTES = 0.35
_LEAST_PIXELS = 12
# Of what votes took for an arc, less than this is a chance alignment.
_ARC_LOST = 0.2
# An arc must depart from its chord by so many pixels, or a straight edge would pass for one.
_LEAST_SAGITTA = 3.0
_NORMALS = 240
# Thresholds whose fans are refined; more changed nothing on the pictures and phantoms tried.
_TRIED = 3


@dataclass(frozen=True, eq=False)
class FanFit:
    """What `fit_fan` found.

    Attributes
    ----------
    geometry : Sector
        In pixels, or in mm where `spacing` was given.
    residual : float
        Robust root mean square distance of the border found in the picture to the fitted sides
        and arcs, in pixels. Up to 1 is the picture's own sharpness.
    support : numpy.ndarray
        bool (H, W): the fan inside the picture.
    parts : mapping of str to float
        The residual of each border that was seen: "left", "right", "outer", "inner".
    """

    geometry: Sector
    residual: float
    support: np.ndarray = field(repr=False)
    parts: Mapping[str, float]


class _Border(NamedTuple):
    """One border as the picture shows it."""

    crossings: Crossings
    weights: np.ndarray
    length: float  # of the visible border, pixels
    residual: float
    shown: float


def fit_fan(
    image: Any, *, region: Any = None, spacing: Any = None, axes: str | None = None
) -> FanFit:
    """Find the fan of a convex or phased probe in a picture.

    Parameters
    ----------
    image : array_like
        One still (H, W), (1, H, W), (1, 1, H, W), or one clip, e.g. (T, H, W) with
        ``axes="thw"``, whose frames share one fan; NumPy, torch or CuPy. NaN counts as surround.
        A clip is safer: what moves is echo, what stands still may be paint.
    region : sequence of int, optional
        (x0, y0, x1, y1), both ends inclusive, to search in, such as a DICOM ultrasound region.
        Default: the whole picture.
    spacing : float or tuple of float, optional
        mm per pixel, (x, z) where they differ; the geometry is then in mm. Default: pixels.
    axes : str, optional
        What the axes are, where the shape does not say it ("thw" for a clip).

    Returns
    -------
    FanFit
        ``.geometry`` (`Sector`), ``.residual`` in pixels, ``.support`` as bool (H, W), ``.parts``.
        ``geometry.r_min`` is None where the probe face is cropped off; r_max ends at the last echo
        where the far arc is.

    Raises
    ------
    TypeError, ValueError
        If the image is no picture or shows no fan, or the region exceeds it. The message says what
        was missing.

    See Also
    --------
    fit_support : for linear probes.

    Notes
    -----
    Echo is what differs from the commonest grey, at several thresholds, without letters, ticks,
    bars and, in clips, whatever stands still. Its outline votes for straight sides (a Hough
    transform in which echo beyond a side counts against it) and, around the meeting point of each
    pair, for arcs. The best are refined at full size: where echo ends is measured along normals of
    all borders, and apex, angles and radii follow from one least-squares problem with Tukey's
    weights, so that shadows, text and focus marks drop out.

    A side that lies in shadow all along, black as the surround, can't be seen: the fan then ends at
    the shadow. Look at ``fit.geometry.plot(image)`` where it matters.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> fan = usconf.Sector((99.5, -60.0), 80.0, 240.0, -0.5, 0.5)
    >>> x, z = np.meshgrid(np.arange(200), np.arange(200))
    >>> speckle = np.random.default_rng(0).integers(40, 200, x.shape)
    >>> fit = usconf.fit_fan(np.where(fan.contains(x, z), speckle, 0).astype(np.uint8))
    >>> bool(np.hypot(fit.geometry.apex[0] - 99.5, fit.geometry.apex[1] + 60) < 2)
    True
    """
    still = read_still(image, axes, region, WANTED)
    known = checks.spacing(spacing)
    pair = np.array([1.0, 1.0] if known is None else np.broadcast_to(known, 2), float)
    scale = pair / math.sqrt(pair.prod())
    fans = [fan for echo in echoes(still) for fan in candidates(echo, scale)]
    if not fans:
        raise _refusal("no two straight sides that meet above an arc")
    fans = sorted(fans, key=lambda found: -found.score)[:_TRIED]
    refined = [_refined(fan, still, scale) for fan in fans]
    faults = [_fault(*found) for found in refined]
    sound = [found for found, fault in zip(refined, faults, strict=True) if fault is None]
    if not sound:
        raise _refusal(faults[0])
    return _result(*max(sound, key=lambda found: _quality(*found)), still, scale, known)


def _refusal(why: str | None) -> ValueError:
    return ValueError(f"image must show {WANTED}, got {why}; {_ADVICE}")


# Refinement at full size


def _refined(fan: Fan, still: Still, scale: np.ndarray) -> tuple[Fan, dict[str, _Border]]:
    """Joint least squares over all borders, with ever fewer outliers."""
    coarse = 2.0 * fan.echo.factor
    borders: dict[str, _Border] = {}
    for reach in (coarse + 8, coarse + 4, 6.0, 4.0, 4.0):
        borders = _borders(fan, still, scale, reach)
        fan = _step(_without_lost_arcs(fan, borders), borders)
    return fan, _borders(fan, still, scale, 4.0)


def _without_lost_arcs(fan: Fan, borders: dict[str, _Border]) -> Fan:
    lost = {name for name in ("outer", "inner") if name in borders}
    lost = {name for name in lost if borders[name].shown < _ARC_LOST}
    for name in lost:
        del borders[name]
    outer = None if "outer" in lost else fan.outer
    return fan._replace(outer=outer, inner=None if "inner" in lost else fan.inner)


def _borders(fan: Fan, still: Still, scale: np.ndarray, reach: float) -> dict[str, _Border]:
    far = _far(fan, still, scale)
    near = fan.inner or 0.0
    borders = {}
    for name in ("left", "right"):
        side = fan.thetas[name == "right"]
        sign = 1.0 if name == "right" else -1.0
        along = np.array([math.sin(side), math.cos(side)])
        normal = sign * np.array([math.cos(side), -math.sin(side)])
        r = np.linspace(near, fan.outer or far, _along(far - near))[1:-1]
        r = r[(r > near + reach / 2) & (r < (fan.outer or far) - reach / 2)]
        base = fan.apex + r[:, None] * along
        borders[name] = _border(fan.echo, base, np.tile(normal, (len(r), 1)), reach, scale)
    for name, radius in (("outer", fan.outer), ("inner", fan.inner)):
        if radius is None:
            continue
        theta = np.linspace(*fan.thetas, _along(radius * (fan.thetas[1] - fan.thetas[0])))
        slack = min(reach / 2 / max(radius, 1.0), 0.2)
        theta = theta[(theta > fan.thetas[0] + slack) & (theta < fan.thetas[1] - slack)]
        ray = np.stack([np.sin(theta), np.cos(theta)], axis=1)
        outward = ray if name == "outer" else -ray
        borders[name] = _border(fan.echo, fan.apex + radius * ray, outward, reach, scale)
    return borders


def _along(length: float) -> int:
    return int(min(max(length, 16.0), _NORMALS))


def _border(
    echo: Echo, base: np.ndarray, normals: np.ndarray, reach: float, scale: np.ndarray
) -> _Border:
    found = crossings(echo.contrast, echo.threshold, base, normals, reach + 4, scale)
    weights = tukey(found.shift, reach)
    total = float(weights.sum())
    residual = math.sqrt(float(weights @ found.shift**2) / total) if total else math.inf
    close = int((np.abs(found.shift) <= 2.0).sum())
    step = math.hypot(*(base[1] - base[0])) if len(base) > 1 else 0.0
    shown = close / found.visible if found.visible else 0.0
    return _Border(found, weights, found.visible * step, residual, shown)


def _far(fan: Fan, still: Still, scale: np.ndarray) -> float:
    """Radius of the picture's farthest corner."""
    height, width = still.pixels.shape
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]) * scale
    return float(np.hypot(*(corners - fan.apex).T).max())


def _step(fan: Fan, borders: dict[str, _Border]) -> Fan:
    """One weighted Gauss-Newton step of apex, angles and radii."""
    names = ["x", "z", "left", "right", *(n for n in ("outer", "inner") if n in borders)]
    rows, rights = [], []
    for name, border in borders.items():
        total = border.weights.sum()
        if total < 3:
            continue
        # All borders weigh alike whatever their length; a pixel's share is capped by its count.
        w = np.sqrt(border.weights / math.sqrt(total))
        away = border.crossings.points - fan.apex
        jacobian = np.zeros((len(away), len(names)))
        if name in ("left", "right"):
            theta = fan.thetas[name == "right"]
            sign = 1.0 if name == "right" else -1.0
            normal = sign * np.array([math.cos(theta), -math.sin(theta)])
            residual = away @ normal
            jacobian[:, :2] = -normal
            jacobian[:, names.index(name)] = -sign * (
                away @ np.array([math.sin(theta), math.cos(theta)])
            )
        else:
            r = np.hypot(*away.T)
            residual = r - (fan.outer if name == "outer" else fan.inner)
            jacobian[:, :2] = -away / r[:, None]
            jacobian[:, names.index(name)] = -1.0
        rows.append(jacobian * w[:, None])
        rights.append(residual * w)
    if not rows:
        return fan
    delta = -np.linalg.lstsq(np.concatenate(rows), np.concatenate(rights), rcond=1e-10)[0]
    moved = dict(zip(names, delta.tolist(), strict=True))
    thetas = (fan.thetas[0] + moved["left"], fan.thetas[1] + moved["right"])
    outer = None if fan.outer is None else fan.outer + moved["outer"]
    inner = None if fan.inner is None else max(fan.inner + moved["inner"], 0.0)
    return fan._replace(apex=fan.apex + delta[:2], thetas=thetas, outer=outer, inner=inner)


# Judgement


def _quality(fan: Fan, borders: dict[str, _Border]) -> float:
    """Share of the visible borders that is sharp, times the share of the outline they explain."""
    length = sum(border.length for border in borders.values())
    sharp = sum(border.shown * border.length for border in borders.values())
    return sharp / length * fan.score / _outline_length(fan)


def _outline_length(fan: Fan) -> int:
    return len(fan.echo.sides) + len(fan.echo.top)


def _fault(fan: Fan, borders: dict[str, _Border]) -> str | None:
    """Why this is no fan, or None."""
    explained = fan.score / _outline_length(fan)
    if explained < _LEAST_VOTES:
        return f"borders that explain {100 * explained:.0f} % of its outline"
    for name in ("left", "right"):
        border = borders[name]
        if border.shown < _SIDE_SHOWN or border.shown * border.length < _LEAST_PIXELS:
            pixels = border.shown * border.length
            return f"a {name} side of which {pixels:.0f} pixels are to be seen"
    if not opens(*fan.thetas):
        return "sides that do not open as those of a fan do"
    arcs = [borders[name] for name in ("outer", "inner") if name in borders]
    if not any(_is_arc(border, fan) for border in arcs):
        return "no arc around the meeting point of the sides"
    return None


def _is_arc(border: _Border, fan: Fan) -> bool:
    wide = fan.thetas[1] - fan.thetas[0] > _WIDE
    if (
        border.shown < (_WIDE_ARC_SHOWN if wide else _ARC_SHOWN)
        or border.shown * border.length < _LEAST_PIXELS
    ):
        return False
    points, shift = border.crossings.points, np.abs(border.crossings.shift)
    close = points[shift <= 2.0] - fan.apex
    theta = np.arctan2(*close.T)
    low, high = np.quantile(theta, [0.02, 0.98])
    radius = float(np.hypot(*close.T).mean())
    if radius * (1 - math.cos((high - low) / 2)) < _LEAST_SAGITTA:
        return False
    return int((shift <= 1.0).sum()) > 1.2 * _on_line(points)


def _on_line(points: np.ndarray) -> int:
    """How many points lie within a pixel of the best straight line through them."""
    weights = np.ones(len(points))
    for reach in (8.0, 4.0, 2.0, 2.0):
        centre = np.average(points, axis=0, weights=weights)
        away = points - centre
        normal = np.linalg.eigh((away * weights[:, None]).T @ away)[1][:, 0]
        distance = np.abs(away @ normal)
        weights = tukey(distance, reach) + 1e-9
    return int((distance <= 1.0).sum())


def _radii(fan: Fan, scale: np.ndarray) -> tuple[float | None, float]:
    """r_min and r_max, where an arc was not seen from where echo begins and ends.

    Echo that runs into the picture's upper edge means that the probe face is cropped off.
    """
    if fan.inner is not None and fan.outer is not None:
        return fan.inner, fan.outer
    factor = fan.echo.factor
    z, x = np.nonzero(fan.echo.solid)
    places = (np.stack([x, z], axis=1) * float(factor) + (factor - 1) / 2) * scale
    away = places - fan.apex
    theta = np.arctan2(*away.T)
    inside = (theta > fan.thetas[0]) & (theta < fan.thetas[1])
    radii = np.hypot(*away[inside].T)
    inner, outer = fan.inner, fan.outer
    if outer is None:
        outer = float(np.quantile(radii, 0.9995)) + factor / 2
    if inner is None and not fan.echo.solid[0].any():
        inner = float(np.quantile(radii, 0.0005))
    return inner, outer


def _result(
    fan: Fan,
    borders: dict[str, _Border],
    still: Still,
    scale: np.ndarray,
    spacing: Any,
) -> FanFit:
    inner, outer = _radii(fan, scale)
    apex = fan.apex + np.array(still.origin) * scale
    unit = 1.0 if spacing is None else float(np.sqrt(np.prod(np.broadcast_to(spacing, 2))))
    geometry = Sector(
        apex=(float(apex[0] * unit), float(apex[1] * unit)),
        r_min=None if inner is None else inner * unit,
        r_max=outer * unit,
        theta_min=fan.thetas[0],
        theta_max=fan.thetas[1],
        spacing=spacing,
    )
    parts = {name: border.residual for name, border in borders.items()}
    pooled = np.concatenate([border.crossings.shift for border in borders.values()])
    weights = np.concatenate([border.weights for border in borders.values()])
    residual = math.sqrt(float(weights @ pooled**2) / float(weights.sum()))
    height, width = still.shape
    x, z = np.arange(width)[None, :], np.arange(height)[:, None]
    (x0, z0), (rows, columns) = still.origin, still.pixels.shape
    support = (x >= x0) & (x < x0 + columns) & (z >= z0) & (z < z0 + rows)
    support &= geometry.contains(x, z)
    return FanFit(geometry, residual, support, MappingProxyType(parts))
