"""Straight borders by votes, and the place where echo ends along normals of a border."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# A point beyond a border speaks against it as loudly as one on it speaks for it. On 400 phantoms
# 0.66 and 1.6 were about as good, 0.4 and 2.5 worse.
BEYOND = 1.0
_STEP_DEG = 0.5
# Half pixels inside a border that tell how bright it is, and the share of that where it ends. Half
# would be the border of a blurred disc; a tenth is its foot, as people and scanners' own overlays
# see it (on the POCUS clips, 2 px further out).
_INSIDE, _FOOT = 10, 0.1


class Side(NamedTuple):
    """A straight border: points p with normal . p = offset, the echo on the lower side."""

    score: float
    theta: float  # direction of the border, (sin, cos), radians
    offset: float


def vote_sides(
    points: np.ndarray, bin_width: float, thetas: tuple[float, float], left: bool, count: int = 6
) -> list[Side]:
    """The best straight left or right borders of an outline, best first (a Hough transform).

    points (N, 2) as x, z; thetas: range of directions in degrees.
    """
    if len(points) < 8:
        return []
    theta = np.radians(np.arange(thetas[0], thetas[1] + _STEP_DEG / 2, _STEP_DEG))
    sign = -1.0 if left else 1.0
    normals = sign * np.stack([np.cos(theta), -np.sin(theta)])
    places = (points @ normals) / bin_width
    low = np.floor(places.min()) - 1
    bins = int(places.max() - low) + 3
    index = (places - low).astype(np.intp) + np.arange(len(theta)) * bins
    votes = np.bincount(index.ravel(), minlength=bins * len(theta)).reshape(-1, bins)
    scores = outermost(votes)
    found: list[Side] = []
    for _ in range(count):
        at, place = np.unravel_index(scores.argmax(), scores.shape)
        if scores[at, place] < 6:
            break
        offset = (place + low + 1) * bin_width
        found.append(Side(float(scores[at, place]), float(theta[at]), float(offset)))
        around = slice(max(0, at - 4), at + 5), slice(max(0, place - 4), place + 5)
        scores[around] = -np.inf
    return found


def outermost(votes: np.ndarray) -> np.ndarray:
    """Score of each pair of bins (k, k + 1): its votes less those in bins further on."""
    pairs = votes[..., :-1] + votes[..., 1:]
    beyond = np.flip(np.cumsum(np.flip(votes, -1), -1), -1)
    further = np.zeros(pairs.shape)
    # One bin of slack: a border is seldom sharper than that.
    further[..., :-2] = beyond[..., 3:]
    return pairs - BEYOND * further


class Crossings(NamedTuple):
    """Where echo ends along normals of a border."""

    points: np.ndarray  # (N, 2)
    shift: np.ndarray  # (N,) signed distance from the border, outward positive
    visible: int  # normals that the picture shows


def crossings(
    contrast: np.ndarray,
    threshold: float,
    base: np.ndarray,
    normals: np.ndarray,
    reach: float,
    scale: np.ndarray,
) -> Crossings:
    """Follow normals (outward) through `base` and find where echo ends within `reach`.

    contrast (H, W) above the surround; base and normals (N, 2) in square units; scale (2,): unit
    per pixel. The end is where the contrast falls below the threshold or below a share of what
    lies just inside: a blurred border would else seem to widen with its brightness.
    """
    steps = np.arange(-reach, reach + 0.25, 0.5)
    spots = (base[:, None] + steps[:, None] * normals[:, None]) / scale
    columns, rows = np.rint(spots[..., 0]).astype(np.intp), np.rint(spots[..., 1]).astype(np.intp)
    height, width = contrast.shape
    shown = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    values = contrast[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
    values[~shown] = 0.0
    last_shown = len(steps) - 1 - shown[:, ::-1].argmax(axis=1)
    middle = len(steps) // 2
    # The border and two pixels of the surround must be in the picture.
    visible = shown[:, 0] & shown[:, middle] & (last_shown >= middle + 4)
    bright = values > threshold
    last = len(steps) - 1 - bright[:, ::-1].argmax(axis=1)
    ends = visible & bright.any(axis=1) & (last <= last_shown - 4)
    values, last = values[ends], last[ends]
    sums = np.cumsum(values, axis=1, dtype=np.float64)
    each = np.arange(len(values))
    inside = (sums[each, last] - sums[each, np.maximum(last - _INSIDE, 0)]) / _INSIDE
    beyond = np.arange(len(steps)) <= last[:, None]
    bright = (values > np.maximum(threshold, inside * _FOOT)[:, None]) & beyond
    last = len(steps) - 1 - bright[:, ::-1].argmax(axis=1)
    shift = steps[last]
    return Crossings(base[ends] + shift[:, None] * normals[ends], shift, int(visible.sum()))


def tukey(residuals: np.ndarray, reach: float) -> np.ndarray:
    """Tukey's biweight: 1 at 0, 0 from `reach` on."""
    return np.clip(1 - (residuals / reach) ** 2, 0, None) ** 2
