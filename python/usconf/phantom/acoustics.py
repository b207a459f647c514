"""Transmission, echoes and beam widths of a body: everything about it that is not random speckle.

Equation 1 of Ronchetti et al. (Beyond Shadows, MICCAI 2025): the echo from depth d is
``p0 exp(-int_0^d r + s) (r_up(d) + s_up(d))``. Losses are kept in dB there and back, so that the
one-way transmission ``exp(-int r + s)`` is ``10 ** (-dB / 20)``, and an echo's amplitude too is
multiplied by it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import scipy.fft

from .body import Body
from .grid import Grid

# Depth (mm) of the face itself: what a beam without contact loses, it loses here.
_FACE_MM = 0.8


@dataclass
class Still:
    """Maps (H, W') in float32 of a body at rest; amplitudes against white."""

    # Mean amplitude of the scatterers' echo, and of surfaces, after transmission.
    echo: np.ndarray
    surface: np.ndarray
    transmission: np.ndarray
    # What the frame's own tissue would return from here: shows whether a beam could still see.
    capable: np.ndarray
    fluid: np.ndarray
    dirt: np.ndarray
    rings: np.ndarray
    fog: np.ndarray

    def moved(self, motion: Motion | None) -> Still:
        """The maps where the tissue is now."""
        if motion is None:
            return self
        return Still(*(motion.carry(getattr(self, part.name)) for part in fields(self)))


class Motion:
    """Tissue pressed along the beams and slid across them: rows (H,) and columns to read from."""

    def __init__(self, grid: Grid, press: float, slide: float) -> None:
        height, width = grid.down.shape
        rows = (np.arange(height) + 0.5) * (1 + press) - 0.5
        self._row, self._rest = self._split(rows, height)
        self._column, self._part = self._split(np.arange(width) + slide, width)
        self._rest = self._rest[:, None]

    @staticmethod
    def _split(place: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        place = np.clip(place, 0, length - 1.001)
        whole = place.astype(np.intp)
        return whole, (place - whole).astype(np.float32)

    def carry(self, values: np.ndarray) -> np.ndarray:
        """Smooth maps (H, W'), read linearly."""
        across = values[:, self._column]
        across += self._part * (values[:, self._column + 1] - across)
        down = across[self._row]
        return down + self._rest * (across[self._row + 1] - down)

    def carry_noise(self, values: np.ndarray) -> np.ndarray:
        """White noise (H, W'), read linearly and kept at unit variance wherever it is read."""
        even = np.hypot(1 - self._part, self._part) * np.hypot(1 - self._rest, self._rest)
        return self.carry(values) / even


def still(body: Body, reference: float, penumbra: float) -> Still:
    """Work out a body's maps.

    `reference` is the echo (dB) that stands for tissue inside fluid, `penumbra` the half width of
    a shadow's edge at the bottom, as a share of the width.
    """
    passed = _transmission(body, penumbra)
    shown = passed * _amplitude(body.relief)
    echo = _amplitude(body.echo) * shown
    surface = body.surface * shown
    stands_for = np.maximum(body.echo, np.where(body.fluid, np.float32(reference), -200))
    capable = _amplitude(stands_for) * shown
    dirt = body.dirt
    for place, level, mirrored in body.copies:
        again = _copy(body, echo + surface, place, mirrored)
        dirt = dirt + again * np.float32(10 ** (level / 20))
    fluid = body.fluid.astype(np.float32)
    maps = [echo, surface, passed, capable, fluid, dirt, body.rings, body.fog]
    return Still(*(np.ascontiguousarray(one, np.float32) for one in maps))


def _amplitude(level: np.ndarray) -> np.ndarray:
    return np.exp(level * np.float32(np.log(10) / 20), dtype=np.float32)


def _transmission(body: Body, penumbra: float) -> np.ndarray:
    """1 in the first row, and nowhere more than above."""
    grid = body.grid
    lost = np.zeros_like(grid.down)
    np.cumsum(body.loss[:-1], axis=0, out=lost[1:])
    lost *= np.float32(grid.row_step)
    lost += body.spent
    passed = _amplitude(lost[:1] - lost)
    # Beams converge over their aperture: they pass a shadow's edge in part, ever more of them the
    # farther below.
    width = 0.35 + penumbra * grid.shape[1] * np.linspace(0.25, 1, grid.shape[0])
    columns = grid.down.shape[1]
    # Part of the aperture lies far to the side: edges in dB are soft.
    response = 0.7 * transfer(columns, width, real=True)
    response += np.float32(0.3) * transfer(columns, 3 * width, real=True)
    passed = blur_rows(passed, response)
    passed[0] = 1
    return np.clip(np.minimum.accumulate(passed, axis=0), 1e-6, 1)


def _copy(body: Body, echo: np.ndarray, place: np.ndarray, mirrored: bool) -> np.ndarray:
    """What lies above the surface, found again below it: mirrored in it, or from the face on."""
    height = body.grid.shape[0]
    row = np.arange(height, dtype=np.float32)[:, None]
    at = place / np.float32(body.grid.row_step)
    source = 2 * at - row if mirrored else row - at
    inside = (row > at) & (source >= 0)
    source = np.clip(source, 0, height - 1).astype(np.intp)
    return np.where(inside, np.take_along_axis(echo, source, axis=0), 0)


def transfer(length: int, deviation: np.ndarray, real: bool = False) -> np.ndarray:
    """Gaussian low pass of every row, (H, F) float32; deviations in columns."""
    frequency = (scipy.fft.rfftfreq if real else scipy.fft.fftfreq)(length)
    exponent = -2 * np.pi**2 * np.outer(np.square(deviation), np.square(frequency))
    return np.exp(np.maximum(exponent, -60)).astype(np.float32)


def blur_rows(values: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Filter every row of a real or complex map by its own response."""
    if np.iscomplexobj(values):
        return scipy.fft.ifft(scipy.fft.fft(values, axis=1) * response, axis=1)
    spectrum = scipy.fft.rfft(values, axis=1) * response
    return scipy.fft.irfft(spectrum, n=values.shape[1], axis=1)


@dataclass
class Contact:
    """Beams whose part of the face touches nothing: they see the face's own echoes alone."""

    # Loss (dB there and back) over columns in frame widths: center, half width, softness, loss.
    gaps: list[tuple[float, float, float, float]]
    # Echoes between face and air: first amplitude, period (mm), factor of each, fog and its reach.
    rings: tuple[float, float, float, float, float]

    def loss(self, grid: Grid, shift: float) -> np.ndarray:
        """Loss of each beam in dB, (W',); gaps move with the probe's tilt, by `shift` widths."""
        beam = grid.lateral / np.float32(grid.width)
        loss = np.zeros_like(beam)
        for center, half, soft, decibel in self.gaps:
            edge = (half - np.abs(beam - center - shift)) / soft
            loss = np.maximum(loss, decibel * np.clip(0.5 + edge, 0, 1))
        return loss

    def apply(self, maps: Still, grid: Grid, shift: float) -> np.ndarray:
        """Weaken the maps below the face, add the face's echoes; returns the loss, (W',)."""
        loss = self.loss(grid, shift)
        if not loss.any():
            return loss
        depth = grid.depth[:, None]
        met = np.clip((depth - depth[0]) / np.float32(_FACE_MM), 0, 1)
        left = np.exp(-loss * met * np.float32(np.log(10) / 20))
        for name in ("echo", "surface", "transmission", "capable"):
            setattr(maps, name, getattr(maps, name) * left)
        touching = 1 - np.minimum(loss / 25, 1)
        for name in ("dirt", "rings", "fog"):
            setattr(maps, name, getattr(maps, name) * touching)
        first, period, factor, fog, reach = self.rings
        count = int(np.clip(np.log(0.003) / np.log(factor), 1, 40))
        wide = max(0.16 * period, 0.8 * grid.row_step)
        profile = np.zeros_like(depth)
        for index in range(count):
            away = np.minimum(((depth - (index + 0.4) * period) / wide) ** 2, 20)
            profile = profile + first * factor**index * np.exp(-away)
        dead = np.minimum(loss / 25, 1)
        maps.rings = maps.rings + profile * dead
        maps.dirt = maps.dirt + fog * np.exp(-depth / reach) * dead
        return loss
