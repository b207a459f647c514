"""Pictures of a geometry: border, probe face, apex and some beams over the image."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Geometry
from .grid import BeamGrid, picture_corners, radii_in_picture
from .shapes import Sector

# Okabe and Ito's palette for all kinds of colour vision (2008), its bright half: on black.
_BORDER, _BEAMS, _FACE = "#E69F00", "#56B4E9", "#F0E442"
_BACKGROUND = "0.12"
# Points along a line, divisible so that seven beams between the sides fall on some of them.
_POINTS = 8 * 20 + 1


def draw(geometry: Geometry, image: Any, ax: Any) -> Any:
    """Draw with matplotlib, see `Geometry.plot`."""
    pixels = None if image is None else _pixels(image)
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError('plot needs matplotlib; run: pip install "usconf[plot]"') from error
    if ax is None:
        _, ax = pyplot.subplots(figsize=(6.4, 5.6), layout="compressed")
    ax.set_facecolor(_BACKGROUND)
    seen, size = [], None
    if pixels is not None:
        size = pixels.shape[0], pixels.shape[1]
        corners = picture_corners(*size, geometry.scale)
        seen.append(corners)
        (left, top), (right, bottom) = corners[0], corners[2]
        span = {"vmin": 0, "vmax": 255} if pixels.dtype == np.uint8 else {}
        ax.imshow(pixels, extent=(left, right, bottom, top), cmap="gray", **span)
    beams = _beams(geometry, size)
    border = np.concatenate([beams[::-1, 0], beams[0], beams[:, -1], beams[-1, ::-1]])
    for column in range(20, _POINTS - 1, 20):
        label = "beams" if column == 20 else None
        ax.plot(*beams[:, column].T, color=_BEAMS, linewidth=0.7, alpha=0.8, label=label)
    ax.plot(*border.T, color=_BORDER, linewidth=1.2, label="border")
    seen.append(border)
    if isinstance(geometry, Sector):
        seen.append(np.array([geometry.apex]))
        _draw_apex(geometry, beams, ax)
    if not (isinstance(geometry, Sector) and not geometry.r_min):
        ax.plot(*beams[0].T, color=_FACE, linewidth=1.6, label="probe face")
    _frame(ax, np.concatenate(seen))
    ax.set_xlabel(f"x ({geometry.unit})")
    ax.set_ylabel(f"z ({geometry.unit})")
    # Beside the picture, not on it.
    key = ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, fontsize="small")
    key.get_frame().set_facecolor(_BACKGROUND)
    for text in key.get_texts():
        text.set_color("white")
    return ax


def _beams(geometry: Geometry, size: tuple[int, int] | None) -> np.ndarray:
    """Points along beams in the geometry's unit: (points, beams, 2)."""
    r_start = 0.0
    if isinstance(geometry, Sector):
        r_start = geometry.r_min or 0.0
        if geometry.r_min is None and size is not None:
            corners = picture_corners(*size, geometry.scale, 0.0)
            angles = geometry.theta_min, geometry.theta_max
            radii = radii_in_picture(corners, geometry.apex, *angles)
            # A fan that misses the picture is drawn too: that shows what is wrong with it.
            r_start = min(radii[0], geometry.r_max) if radii else 0.0
    grid = BeamGrid(_POINTS, _POINTS, r_start, 0.0, 0.0, geometry.unit, "")
    return np.stack(geometry.positions(grid), axis=-1) * geometry.scale


def _draw_apex(geometry: Sector, beams: np.ndarray, ax: Any) -> None:
    for start in (beams[0, 0], beams[0, -1]):
        dashes = np.array([geometry.apex, start])
        ax.plot(*dashes.T, color=_BORDER, linewidth=0.8, linestyle=(0, (4, 4)))
    ax.plot(*geometry.apex, color=_FACE, marker="+", markersize=9, linestyle="none", label="apex")


def _frame(ax: Any, points: np.ndarray) -> None:
    (left, top), (right, bottom) = points.min(0), points.max(0)
    margin = 0.03 * max(right - left, bottom - top)
    ax.set_xlim(left - margin, right + margin)
    ax.set_ylim(bottom + margin, top - margin)
    ax.set_aspect("equal")


def _pixels(image: Any) -> np.ndarray:
    pixels = np.asarray(image)
    if pixels.ndim != 2 and not (pixels.ndim == 3 and pixels.shape[-1] == 3):
        raise ValueError(
            f"image must be one frame (H, W) or (H, W, 3), got {pixels.shape}; pick a frame"
        )
    if pixels.size == 0:
        raise ValueError(f"image must have pixels, got {pixels.shape}; pass the scan image")
    return pixels
