"""Screenshots of convex probes with a known fan: speckle, shadows, crops, text, rulers, bars."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Fan(NamedTuple):
    """What a picture was made from, in its pixels."""

    apex: tuple[float, float]
    r_min: float | None
    r_max: float | None  # None: the far arc is cropped off or lost in black
    thetas: tuple[float, float]


def beams(rng, samples=500, lines=192, *, gain=0.0, shadows=0, side_shadow=0.0, far=0.0):
    """A log-compressed beam image in 0..255: speckle, layers, attenuation, dark places.

    side_shadow: share of the depth over which a side's outer beams are dark; far: dark far field.
    """
    field = rng.standard_normal((2, samples, lines))
    field = ndimage.gaussian_filter(field, (0, 1.2, 0.8))
    power = (field**2).sum(axis=0)
    decibel = 10 * np.log10(power / power.mean() + 1e-6)
    layers = ndimage.gaussian_filter(rng.standard_normal((samples, lines)), (12, 30))
    decibel += 8 * layers / layers.std()
    depth = np.linspace(0, 1, samples)[:, None]
    decibel -= 14 * depth
    for _ in range(shadows):
        start, centre = rng.uniform(0.1, 0.6), rng.uniform(0, lines)
        width = rng.uniform(0.02, 0.12) * lines
        column = np.exp(-(((np.arange(lines) - centre) / width) ** 4))
        decibel -= 60 * column * (depth > start)
    if side_shadow:
        width = rng.uniform(0.05, 0.15) * lines
        at = np.arange(lines) if rng.random() < 0.5 else np.arange(lines)[::-1]
        start = rng.uniform(0, 1 - side_shadow)
        decibel -= 70 * (at < width) * ((depth > start) & (depth < start + side_shadow))
    if far:
        decibel -= 60 * np.clip((depth - (1 - far)) / 0.1, 0, 1)
    return np.clip(255 * (decibel + 40 + gain) / 60, 0, 255)


def scan(beam, fan, r_min, r_max, shape):
    """Scan-convert with bilinear interpolation; black outside."""
    z, x = np.mgrid[: shape[0], : shape[1]].astype(float)
    x, z = x - fan.apex[0], z - fan.apex[1]
    r, theta = np.hypot(x, z), np.arctan2(x, z)
    i = (r - r_min) / (r_max - r_min) * (beam.shape[0] - 1)
    j = (theta - fan.thetas[0]) / (fan.thetas[1] - fan.thetas[0]) * (beam.shape[1] - 1)
    inside = (i >= 0) & (i <= beam.shape[0] - 1) & (j >= 0) & (j <= beam.shape[1] - 1)
    return np.where(inside, ndimage.map_coordinates(beam, [i, j], order=1, mode="nearest"), 0.0)


def letters(picture, rng, top, left, rows, columns, size, grey=200):
    """Lines of text: random strokes in a 5 x 7 raster."""
    for row in range(rows):
        for column in range(columns):
            glyph = np.kron(rng.random((7, 5)) < 0.55, np.ones((size, size)))
            z, x = top + row * 11 * size, left + column * 7 * size
            part = picture[z : z + 7 * size, x : x + 5 * size]
            glyph = glyph[: part.shape[0], : part.shape[1]] > 0
            part[glyph] = grey


def ruler(picture, x, step, length, grey=180):
    """Depth ticks down the picture."""
    picture[4 :: max(step, 4), max(x, 0) : x + length] = grey
    picture[5 :: max(step, 4), max(x, 0) : x + length] = grey


def screenshot(seed):
    """One picture (H, W) uint8 and its `Fan`; every hardship comes with some of the seeds."""
    rng = np.random.default_rng(seed)
    half = np.radians(rng.uniform(18, 45))
    if rng.random() < 0.15:
        half = np.radians(rng.uniform(45, 75))
    lean = np.radians(rng.uniform(-2, 2) if rng.random() < 0.3 else 0.0)
    thetas = (lean - half, lean + half)
    r_max = rng.uniform(260, 700)
    r_min = r_max * rng.uniform(0.06, 0.45)
    margin = rng.integers(6, 60, 4)
    low, high = r_max * np.sin(thetas[0]), r_max * np.sin(thetas[1])
    upper = r_min * np.cos(max(abs(thetas[0]), abs(thetas[1])))
    width = int(high - low + margin[0] + margin[1])
    height = int(r_max - upper + margin[2] + margin[3])
    apex = (margin[0] - low, margin[2] - upper)
    fan = Fan(apex, r_min, r_max, thetas)
    far = rng.choice([0.0, 0.0, 0.15, 0.35])
    beam = beams(
        rng,
        gain=rng.uniform(-8, 8),
        shadows=rng.integers(0, 4),
        side_shadow=rng.choice([0.0, 0.0, 0.3, 0.55]),
        far=far,
    )
    floor = rng.uniform(2, 10) if rng.random() < 0.5 else 0.0  # many scanners show no black inside
    picture = scan(np.maximum(beam, floor), fan, r_min, r_max, (height, width))
    if far and floor < 4:  # black as the surround: the arc can't be known
        fan = fan._replace(r_max=None)
    if rng.random() < 0.5:
        letters(picture, rng, 4, 4, rng.integers(1, 5), 6, rng.integers(1, 3))
    if rng.random() < 0.5:
        ruler(picture, width - 8, rng.integers(15, 40), 6)
    if rng.random() < 0.3:
        bar = np.linspace(20, 230, height // 3)[:, None]
        picture[height // 4 : height // 4 + len(bar), 2:9] = bar
    picture, fan = _cropped(picture, fan, r_max, rng)
    if rng.random() < 0.5:  # what a lossy film leaves
        picture = ndimage.gaussian_filter(picture, rng.uniform(0.4, 1.0))
        picture += (
            1.5 * rng.standard_normal(picture.shape) * (ndimage.maximum_filter(picture, 5) > 5)
        )
    if rng.random() < 0.2:
        picture = picture + 16
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), fan


def _cropped(picture, fan, depth, rng):
    """The picture without its sides, near arc or far arc, as people cut them."""
    height, width = picture.shape
    x0, z0, x1, z1 = 0, 0, width, height
    r_min, r_max = fan.r_min, fan.r_max
    kind = rng.integers(0, 6)
    middle = fan.apex[0]
    if kind in (0, 1):  # both sides, maybe unevenly
        reach = depth * np.sin((fan.thetas[1] - fan.thetas[0]) / 2)
        x0 = int(max(0, middle - reach * rng.uniform(0.62, 0.95)))
        x1 = int(min(width, middle + reach * rng.uniform(0.62, 0.95)))
    if kind in (1, 2) and r_max:  # the probe face
        z0 = int(max(0, np.ceil(fan.apex[1] + r_min + 2)))
        r_min = None
    if kind == 3 and rng.random() < 0.5:  # the far arc, deep enough to leave sides
        z1 = int(fan.apex[1] + fan.r_min + 0.75 * (depth - fan.r_min) * np.cos(fan.thetas[1]))
        r_max = None
    apex = (fan.apex[0] - x0, fan.apex[1] - z0)
    return picture[z0:z1, x0:x1].copy(), fan._replace(apex=apex, r_min=r_min, r_max=r_max)
