"""Scan conversion as sparse matrices in float64: what the fast core is held against.

Both directions are matrices made of one clamped bilinear footprint each; a gradient is the
transposed matrix times the gradient. NumPy and SciPy only; nothing of the package under test.

A geometry is `kind` 0 with values (apex_x, apex_z, r_start, r_max, theta_min, theta_max, scale_x,
scale_z, 0, 0), or `kind` 1 with (Ax, Az, Bx, Bz, Cx, Cz, Dx, Dz, scale_x, scale_z): A B C D run
round from top left; the scales are lengths per pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

SECTOR, QUAD = 0, 1
TOLERANCE = 1e-9


class Plan(NamedTuple):
    """A geometry with the shapes of its beam image and its scan image."""

    kind: int
    values: tuple[float, ...]
    samples: int
    lines: int
    height: int
    width: int


class Operator(NamedTuple):
    """`matrix` maps a flat source to a flat target, whose `mask` has its shape."""

    matrix: sparse.csr_matrix
    mask: np.ndarray

    def __call__(self, source):
        """(..., rows, columns) resampled."""
        leading = source.shape[:-2]
        flat = np.asarray(source, np.float64).reshape(-1, self.matrix.shape[1])
        return (self.matrix @ flat.T).T.reshape(*leading, *self.mask.shape)


def positions(plan):
    """(samples, lines) arrays x, z: where in the picture, in pixels, the beam samples sit."""
    down = (np.arange(plan.samples) / max(plan.samples - 1, 1))[:, None]
    across = (np.arange(plan.lines) / max(plan.lines - 1, 1))[None, :]
    if plan.kind == SECTOR:
        apex_x, apex_z, r_start, r_max, theta_min, theta_max, *scale = plan.values[:8]
        r = r_start + down * (r_max - r_start)
        theta = theta_min + across * (theta_max - theta_min)
        x, z = apex_x + r * np.sin(theta), apex_z + r * np.cos(theta)
    else:
        (a, b, c, d), scale = corners(plan), plan.values[8:]
        x, z = (
            (1 - down) * ((1 - across) * a[k] + across * b[k])
            + down * ((1 - across) * d[k] + across * c[k])
            for k in (0, 1)
        )
    return x / scale[0], z / scale[1]


def corners(plan):
    """(4, 2): A, B, C, D as (x, z) lengths."""
    return np.array(plan.values[:8]).reshape(4, 2)


def beam_coordinates(plan, x, z):
    """Fractions (down, across) of the pixels (x, z), and which of them lie inside."""
    scale = plan.values[6:8] if plan.kind == SECTOR else plan.values[8:]
    x, z = np.asarray(x, np.float64) * scale[0], np.asarray(z, np.float64) * scale[1]
    if plan.kind == SECTOR:
        apex_x, apex_z, r_start, r_max, theta_min, theta_max = plan.values[:6]
        r, theta = np.hypot(x - apex_x, z - apex_z), np.arctan2(x - apex_x, z - apex_z)
        opposite = (theta_min + theta_max) / 2 - np.pi  # where turns are counted from
        theta = opposite + (theta - opposite) % (2 * np.pi)
        down = (r - r_start) / (r_max - r_start)
        across = (theta - theta_min) / (theta_max - theta_min)
    else:
        down, across = quad_coordinates(corners(plan), x, z)
    inside = np.ones(down.shape, bool)
    for fraction in (down, across):
        inside &= (fraction >= -TOLERANCE) & (fraction <= 1 + TOLERANCE)
    return down, across, inside


def quad_coordinates(corner, x, z):
    """(v, u) with (x, z) = (1-v)((1-u) A + u B) + v((1-u) D + u C), by Newton's method.

    From the middle of a convex quadrilateral it converges to the one solution inside; pixels
    outside, for which it may not, are found by half-planes and get NaN.
    """
    a, b, c, d = corner
    span = np.abs(corner - corner.mean(0)).max()
    outside = np.zeros(np.shape(x), bool)
    turn = np.sign(cross(c - a, d - b))
    for start, end in ((a, b), (b, c), (c, d), (d, a)):
        left = cross(end - start, (x - start[0], z - start[1])) * turn
        outside |= left < -2 * TOLERANCE * span * np.hypot(*(end - start))
    u, v = np.full(np.shape(x), 0.5), np.full(np.shape(x), 0.5)
    for _ in range(60):
        miss = [
            (1 - v) * ((1 - u) * a[k] + u * b[k]) + v * ((1 - u) * d[k] + u * c[k]) - p
            for k, p in enumerate((x, z))
        ]
        by_u = [(1 - v) * (b - a)[k] + v * (c - d)[k] for k in (0, 1)]
        by_v = [(1 - u) * (d - a)[k] + u * (c - b)[k] for k in (0, 1)]
        determinant = cross(by_u, by_v)
        determinant = np.where(determinant == 0, np.inf, determinant)
        u = np.clip(u - cross(miss, by_v) / determinant, -0.5, 1.5)
        v = np.clip(v - cross(by_u, miss) / determinant, -0.5, 1.5)
    return np.where(outside, np.nan, v), np.where(outside, np.nan, u)


def cross(p, q):
    return p[0] * q[1] - p[1] * q[0]


def footprint(row, column, shape):
    """(N, 4) flat indices and weights of N points, clamped to the grid; rows first."""
    (top, low), (left, right) = (
        split(position, size) for position, size in zip((row, column), shape, strict=True)
    )
    index, weight = [], []
    for down, row_weight in ((0, 1 - low), (1, low)):
        for aside, column_weight in ((0, 1 - right), (1, right)):
            below = np.minimum(top + down, shape[0] - 1)
            beside = np.minimum(left + aside, shape[1] - 1)
            index.append(below * shape[1] + beside)
            weight.append(row_weight * column_weight)
    return np.stack(index, -1), np.stack(weight, -1)


def split(position, size):
    """The first of the two neighbours (the last but one at most), and the way to the second.

    Rounding is no way: what lies on a pixel reads that pixel alone.
    """
    position = np.clip(np.ravel(position), 0, size - 1)
    position = np.where(
        np.abs(position - np.rint(position)) < TOLERANCE, np.rint(position), position
    )
    first = np.minimum(np.floor(position), max(size - 2, 0)).astype(int)
    return first, position - first


def nearest(index, weight):
    """All the weight on the heaviest pixel; the first one of equals, which rounding parts not."""
    chosen = np.argmax(weight >= weight.max(-1, keepdims=True) - TOLERANCE, -1)[:, None]
    one = np.zeros_like(weight)
    np.put_along_axis(one, chosen, 1.0, -1)
    return index, one


def assemble(index, weight, mask, columns):
    """The matrix; rows outside the mask are empty, weights of 0 are no entries."""
    rows = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
    keep = (weight != 0) & np.ravel(mask)[:, None]
    entries = (weight[keep], (rows[keep], index[keep]))
    return sparse.csr_matrix(entries, shape=(len(index), columns))


def to_scan(plan, interpolation="bilinear"):
    """Operator from the beam image to the scan image: 0 outside."""
    z, x = np.mgrid[: plan.height, : plan.width]
    down, across, mask = beam_coordinates(plan, x, z)
    down, across = np.where(mask, down, 0), np.where(mask, across, 0)
    shape = (plan.samples, plan.lines)
    index, weight = footprint(down * (shape[0] - 1), across * (shape[1] - 1), shape)
    if interpolation == "nearest":
        index, weight = nearest(index, weight)
    return Operator(assemble(index, weight, mask, shape[0] * shape[1]), mask)


def to_beam(plan, interpolation="bilinear"):
    """Operator from the scan image to the beam image.

    Pixels outside the geometry carry display black instead of echo: their weight goes to the
    others. Where all are outside the nearest inside pixel of the 4 x 4 neighbours counts, and
    where those are outside too, the plain footprint does.
    """
    shape = (plan.height, plan.width)
    x, z = positions(plan)
    mask = np.ones(x.shape, bool)
    for position, size in ((x, shape[1]), (z, shape[0])):
        mask &= np.abs(position - (size - 1) / 2) <= size / 2 + TOLERANCE * size
    index, plain = footprint(z, x, shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    _, _, inside = beam_coordinates(plan, columns, rows)
    weight = plain * np.ravel(inside)[index]
    total = weight.sum(-1, keepdims=True)
    weight = np.where(total > 0, weight / np.where(total > 0, total, 1), plain)
    for point in np.flatnonzero((total[:, 0] == 0) & np.ravel(mask)):
        found = nearest_inside(np.ravel(x)[point], np.ravel(z)[point], inside)
        if found is not None:
            index[point], weight[point] = found, (1, 0, 0, 0)
    if interpolation == "nearest":
        index, weight = nearest(index, weight)
    return Operator(assemble(index, weight, mask, shape[0] * shape[1]), mask)


def nearest_inside(x, z, inside):
    """Flat index of the inside pixel closest to (x, z) among the 4 x 4 around it, or None."""
    height, width = inside.shape
    (top,), (left,) = split(z, height)[0], split(x, width)[0]
    rows = np.arange(max(top - 1, 0), min(top + 2, height - 1) + 1)
    columns = np.arange(max(left - 1, 0), min(left + 2, width - 1) + 1)
    distance = np.hypot(columns[None, :] - x, rows[:, None] - z)
    distance[~inside[np.ix_(rows, columns)]] = np.inf
    # the first of equals, which rounding must not part
    least = distance.min()
    row, column = np.unravel_index(np.argmax(distance <= least + TOLERANCE), distance.shape)
    return None if np.isinf(least) else rows[row] * width + columns[column]
