"""A first fan from the votes of an outline: two sides, then arcs around their meeting point."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .echo import Echo
from .edges import Side, outermost, vote_sides

# Between narrow phased sectors and endocavity probes.
_OPENING = math.radians(12), math.radians(170)
# Steering turns a phased sector less than this.
_LEAN = math.radians(30)
# Directions of the left side in degrees: mirrored for the right one. Steered fans lean.
_DIRECTIONS = (-89.0, 35.0)


class Fan(NamedTuple):
    """A fan in square pixels of the cut picture; a radius of None: no such arc was seen."""

    score: float
    apex: np.ndarray
    thetas: tuple[float, float]
    outer: float | None
    inner: float | None
    echo: Echo


def candidates(echo: Echo, scale: np.ndarray) -> list[Fan]:
    """The best fan whose sides got votes, if any."""
    top = echo.top * scale
    below = echo.sides * scale
    points = np.concatenate([below, top])
    width = float(echo.factor)
    low, high = _DIRECTIONS
    lefts = vote_sides(points, width, (low, high), left=True)
    rights = vote_sides(points, width, (-high, -low), left=False)
    fans = [_paired(left, right, below, top, echo) for left in lefts for right in rights]
    found = [fan for fan in fans if fan is not None]
    return [max(found, key=lambda fan: fan.score)] if found else []


def _paired(left: Side, right: Side, below: np.ndarray, top: np.ndarray, echo: Echo) -> Fan | None:
    if not opens(left.theta, right.theta):
        return None
    normals = np.array(
        [
            [-math.cos(left.theta), math.sin(left.theta)],
            [math.cos(right.theta), -math.sin(right.theta)],
        ]
    )
    apex = np.linalg.solve(normals, [left.offset, right.offset])
    thetas = (left.theta, right.theta)
    width = float(echo.factor)
    # The far arc is seen from below and from the sides, the probe face from above.
    outer, outer_score = _vote_arc(_radii_between(below, apex, thetas, 3 * width), width, True)
    inner, inner_score = _vote_arc(_radii_between(top, apex, thetas, 3 * width), width, False)
    if outer is not None and inner is not None and inner > 0.9 * outer:
        inner, inner_score = None, 0.0
    if outer is None and inner is None:
        return None
    score = left.score + right.score + outer_score + inner_score
    return Fan(score, apex, thetas, outer, inner, echo)


def opens(left: float, right: float) -> bool:
    return _OPENING[0] < right - left < _OPENING[1] and abs(left + right) / 2 < _LEAN


def _radii_between(
    points: np.ndarray, apex: np.ndarray, thetas: tuple[float, float], margin: float
) -> np.ndarray:
    """Radii of the points that lie between the sides and not on them."""
    x, z = (points - apex).T
    low, high = thetas
    inside = (x * math.cos(low) - z * math.sin(low) > margin) & (
        z * math.sin(high) - x * math.cos(high) > margin
    )
    return np.hypot(x[inside], z[inside])


def _vote_arc(radii: np.ndarray, width: float, outward: bool) -> tuple[float | None, float]:
    if len(radii) < 8:
        return None, 0.0
    votes = np.bincount((radii / width).astype(np.intp) + 1, minlength=4)
    votes = np.append(votes, [0, 0])
    scores = outermost(votes if outward else votes[::-1])
    best = int(scores.argmax())
    if scores[best] < 8:
        return None, 0.0
    place = best if outward else len(votes) - 2 - best
    return place * width, float(scores[best])
