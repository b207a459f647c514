"""Made fetal heads: an ellipse of skull in speckle, with shadows, other tissue and known size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ...uncertainty.head_circumference import perimeter
from .data import Data, Frames, deformed, elastic_field, resampled

# Head circumference in mm of each trimester, and the larger semi-axis as a share of the picture:
# early heads are far from filling the view (van den Heuvel et al., PLoS ONE 2018, fig. 1).
_SIZES = (((55, 88), (0.15, 0.22)), ((100, 250), (0.24, 0.36)), ((262, 340), (0.32, 0.42)))
# Smaller over larger axis of a head; the cephalic index is 0.78 +- 0.05.
_RATIOS = (0.70, 0.86)
# Decibels that the picture shows.
_RANGE = 55.0


@dataclass(frozen=True)
class Head:
    """An ellipse in units of the picture's side: centre (y, x), semi-axes a >= b, angle, size."""

    y: float
    x: float
    a: float
    b: float
    angle: float
    circumference_mm: float

    def at(self, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates along the larger and the smaller axis, each in semi-axes."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        along = cos * (x - self.x) + sin * (y - self.y)
        across = -sin * (x - self.x) + cos * (y - self.y)
        return along / self.a, across / self.b


def made_frames(count: int, *, size: int, seed: int, elastic: float = 0.0) -> Frames:
    """Make pictures of heads.

    Parameters
    ----------
    count : int
        How many. They go round the trimesters: 1, 2, 3, 2, 3, 1, 2, 3, ...
    size : int
        Rows and columns, at least 24.
    seed : int
        The same numbers make the same pictures.
    elastic : float, optional
        Largest displacement of the skull as a share of the head's smaller semi-axis. Default: 0,
        an ellipse. The anatomy is deformed and then imaged: speckle tells nothing about it.

    Returns
    -------
    Frames
        `circumference_mm` is exact for ellipses, NaN for deformed heads.

    Raises
    ------
    ValueError
        If `count` is below 1 or `size` below 24.

    Examples
    --------
    >>> from usconf.recipes.lfusion.made_data import made_frames
    >>> frames = made_frames(2, size=64, seed=0)
    >>> frames.images.shape, frames.images.dtype
    ((2, 64, 64), dtype('uint8'))
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}; a split needs frames")
    if size < 24:
        raise ValueError(f"size must be at least 24, got {size}; an early head needs some pixels")
    made = [
        _frame(index, size, np.random.default_rng([seed, index]), elastic) for index in range(count)
    ]
    images, masks, spacing, circumference = zip(*made, strict=True)
    return Frames(
        np.stack(images),
        np.stack(masks),
        np.array([(value, value) for value in spacing]),
        np.array(circumference),
        tuple(f"made {seed}-{index}" + " deformed" * (elastic > 0) for index in range(count)),
    )


def made_data(
    *,
    train: int,
    validation: int,
    test: int,
    ood: int,
    size: int,
    seed: int,
    elastic: float,
    deformation: str = "pixels",
) -> Data:
    """Splits of made heads; no two share a picture.

    Parameters
    ----------
    train, validation, test, ood : int
        Frames of each split.
    size, seed, elastic
        As `made_frames`; `elastic` is that of `ood`.
    deformation : {"pixels", "anatomy"}, optional
        What of the heads in `ood` is deformed: their finished pictures (default; `test` is
        resampled then, as blur tells nothing), or their anatomy.

    Returns
    -------
    Data
        All splits.
    """
    first = 4 * seed
    to_train = made_frames(train, size=size, seed=first)
    to_validate = made_frames(validation, size=size, seed=first + 1)
    ordinary = made_frames(test, size=size, seed=first + 2)
    if deformation == "anatomy":
        unusual = made_frames(ood, size=size, seed=first + 3, elastic=elastic)
    else:
        ordinary = resampled(ordinary, first + 2)
        unusual = deformed(made_frames(ood, size=size, seed=first + 3), elastic, first + 3)
    return Data(to_train, to_validate, ordinary, unusual)


def _frame(
    index: int, size: int, random: np.random.Generator, elastic: float
) -> tuple[np.ndarray, np.ndarray, float, float]:
    head = _head(index, random)
    grid = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(grid, grid, indexing="ij")
    if elastic > 0:
        down, across = elastic_field((size, size), random, elastic * head.b, head.b * size)
        y, x = y + down, x + across
    along, across = head.at(y, x)
    radius = np.hypot(along, across)
    mask = (radius < 1).astype(np.uint8)
    brightness, loss = _anatomy(head, along, across, random)
    amplitude = brightness * np.exp(-np.cumsum(loss, axis=0) / size) * _shadows(size, random)
    image = _b_mode(amplitude, random)
    a_mm = head.circumference_mm / perimeter(1, head.b / head.a)
    circumference = np.nan if elastic > 0 else head.circumference_mm
    return image, mask, a_mm / (head.a * size), circumference


def _head(index: int, random: np.random.Generator) -> Head:
    millimetres, share = _SIZES[(0, 1, 2, 1, 2)[index % 5]]
    circumference = random.uniform(*millimetres)
    a = random.uniform(*share)
    b = a * random.uniform(*_RATIOS)
    angle = random.uniform(-0.6, 0.6)
    # Half the extent of a turned ellipse: the centre keeps so far from the borders, and a little.
    half_y = np.hypot(a * np.sin(angle), b * np.cos(angle)) + 0.03
    half_x = np.hypot(a * np.cos(angle), b * np.sin(angle)) + 0.03
    y = random.uniform(max(half_y, 0.25), max(1 - half_y, 0.25))
    x = random.uniform(min(half_x, 0.5), max(1 - half_x, 0.5))
    return Head(y, x, a, b, angle, circumference)


def _anatomy(
    head: Head, along: np.ndarray, across: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude of the echo, and what the beam loses on the way through (nepers per picture)."""
    size = along.shape[0]
    radius = np.hypot(along, across)
    tissue = 0.30 * np.exp(0.5 * _texture(size, random, 0.07))
    # Amniotic fluid: dark and irregular, nearest to the head.
    fluid = _texture(size, random, 0.10) - 1.2 * (radius - 1.25)
    tissue = np.where((radius > 1) & (fluid > random.uniform(0.2, 1.2)), 0.04, tissue)
    tissue = tissue + _other_body(head, along, across, random)
    brain = 0.10 * np.exp(0.35 * _texture(size, random, 0.05))
    # Falx along the larger axis; two ventricles, darker, with a bright plexus.
    falx = np.exp(-((across / 0.035) ** 2)) * (np.abs(along) < 0.75)
    brain = brain + random.uniform(0.1, 0.4) * falx
    for side in (-1, 1):
        ventricle = np.hypot((along + 0.25) / 0.35, (across - side * 0.4) / 0.16)
        brain = np.where(ventricle < 1, 0.03, brain) + 0.25 * np.exp(-((ventricle / 0.4) ** 2))
    amplitude = np.where(radius < 1, brain, tissue)
    # Distance from the skull over its width: (radius - 1) / |gradient of radius|.
    slope = np.hypot(along / head.a, across / head.b) / np.maximum(radius, 1e-6)
    width = random.uniform(0.010, 0.016)
    wall = np.exp(-(((radius - 1) / np.maximum(slope, 1e-6) / width) ** 2))
    # A specular echo: strong where the beam, which runs down, meets the wall squarely.
    down = np.sin(head.angle) * along / head.a + np.cos(head.angle) * across / head.b
    square = np.abs(down) / np.maximum(np.hypot(along / head.a, across / head.b), 1e-6)
    echo = random.uniform(0.8, 2.0) * (0.06 + square**3)
    loss = 0.5 + wall * random.uniform(8, 45) * (0.3 + 0.7 * square)
    return amplitude + wall * echo, loss


def _other_body(
    head: Head, along: np.ndarray, across: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """A limb or trunk beside the head in half of the pictures: an outline that is no skull."""
    there, direction = random.random() < 0.5, random.uniform(0, 2 * np.pi)
    share, strength = random.uniform(0.4, 0.8), random.uniform(0.2, 0.7)
    if not there:
        return np.zeros_like(along)
    away = 1.15 + share
    radius = np.hypot(along - away * np.cos(direction), across - away * np.sin(direction)) / share
    return strength * np.exp(-(((radius - 1) / 0.12) ** 2))


def _shadows(size: int, random: np.random.Generator) -> np.ndarray:
    """Bands that hold less of the beam from some depth on."""
    column = (np.arange(size) + 0.5) / size
    row = column[:, None]
    kept = np.ones((size, size))
    for _ in range(random.integers(0, 3)):
        centre, width = random.uniform(0, 1), random.uniform(0.03, 0.09)
        start, left = random.uniform(0, 0.5), random.uniform(0.05, 0.4)
        band = np.exp(-(((column - centre) / width) ** 4))
        kept *= 1 - (1 - left) * band * np.clip((row - start) / 0.05, 0, 1)
    return kept


def _texture(size: int, random: np.random.Generator, share: float) -> np.ndarray:
    """Smooth field of mean 0 and variance 1; `share` of the side is its correlation length."""
    field = ndimage.gaussian_filter(random.standard_normal((size, size)), share * size, mode="wrap")
    return (field - field.mean()) / field.std()


def _b_mode(amplitude: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Fully developed speckle of this amplitude, logarithmic, as uint8."""
    size = amplitude.shape[0]
    blur = np.array([0.5, 0.9]) * max(size / 96, 0.7)
    echo = random.standard_normal((2, size, size))
    echo = np.stack([ndimage.gaussian_filter(part * amplitude, blur) for part in echo])
    # One unit of amplitude gives a mean power of 1 again, whatever the blur takes.
    echo *= 2 * np.sqrt(np.pi * blur[0] * blur[1])
    noise = 0.004 * random.standard_normal((2, size, size))
    power = np.square(echo + noise).sum(0) / 2
    decibels = 10 * np.log10(power + 1e-12)
    return np.rint(255 * np.clip((decibels + _RANGE - 5) / _RANGE, 0, 1)).astype(np.uint8)
