"""Where the beams of a phantom run: samples in millimetres, with tissue beyond both sides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.fft import next_fast_len

PROBES = ("linear", "sector")
# Tissue beyond each side, of the width: blurs wrap there, and clips slide into it.
_BESIDE = 0.15
# Depth of view (mm), width of the face (mm) or angle (degrees), radius of the face (mm): ranges of
# linear probes of 5-15 MHz and of convex and phased probes of 2-5 MHz.
_LINEAR_DEPTH, _LINEAR_WIDTH = (20.0, 60.0), (24.0, 50.0)
_SECTOR_DEPTH, _SECTOR_ANGLE, _SECTOR_FACE = (60.0, 170.0), (45.0, 80.0), (12.0, 60.0)


class Grid(NamedTuple):
    """Samples of all beams; (H,) along a beam, (W',) across with the tissue beside."""

    probe: str
    shape: tuple[int, int]
    side: int
    depth: np.ndarray
    lateral: np.ndarray
    spacing: np.ndarray
    across: np.ndarray
    down: np.ndarray
    extent: float
    width: float

    @property
    def row_step(self) -> float:
        """Millimetres between samples of a beam."""
        return self.extent / self.shape[0]

    @property
    def half(self) -> float:
        """A bound on `lateral` (mm) that no resolution exceeds."""
        return 0.9 * self.width

    @property
    def visible(self) -> slice:
        """The columns that the picture shows."""
        return slice(self.side, self.side + self.shape[1])


def draw_grid(random: np.random.Generator, shape: tuple[int, int], probe: str) -> Grid:
    """Draw depth, width and face of a probe.

    `lateral` (W',) is the place across in mm at middle depth, `spacing` (H, 1) the millimetres
    between beams, `across` and `down` (H, W') Cartesian places in mm.
    """
    height, width = shape
    side = max(4, round(_BESIDE * width))
    columns = next_fast_len(width + 2 * side)
    beam = (np.arange(columns) - side + 0.5) / width - 0.5
    if probe == "linear":
        extent, breadth = random.uniform(*_LINEAR_DEPTH), random.uniform(*_LINEAR_WIDTH)
        depth = (np.arange(height) + 0.5) * (extent / height)
        spacing = np.full((height, 1), breadth / width)
        across, down = np.broadcast_arrays(beam[None] * breadth, depth[:, None])
    else:
        extent, face = random.uniform(*_SECTOR_DEPTH), random.uniform(*_SECTOR_FACE)
        angle = np.deg2rad(random.uniform(*_SECTOR_ANGLE))
        depth = (np.arange(height) + 0.5) * (extent / height)
        radius = (face + depth)[:, None]
        spacing = radius * angle / width
        breadth = float(spacing[height // 2, 0] * width)
        across = radius * np.sin(beam * angle)
        down = radius * np.cos(beam * angle) - face
    return Grid(
        probe=probe,
        shape=(height, width),
        side=side,
        depth=depth.astype(np.float32),
        lateral=(beam * breadth).astype(np.float32),
        spacing=spacing.astype(np.float32),
        across=across.astype(np.float32),
        down=down.astype(np.float32),
        extent=extent,
        width=breadth,
    )
