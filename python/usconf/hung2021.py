"""The despeckling loop that Hung et al. (ISBI 2021) published, for comparison with their maps only.

Edge-enhanced and histogram-matched SRAD, with SimpleITK's Canny filter and histogram matching. The
matching makes it chaotic on speckle, and an iteration takes about a second: `usconf.despeckle` is
the filter to use.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
from scipy import ndimage

# All of them the published code's.
ITERATIONS, TOLERANCE, STEP = 3000, 1e-6, 0.1
ROI = (50, 61, 50, 61)
EDGE, ELSEWHERE = 0.05, 1.0
LEVELS, REACH = 3, 8  # of the Laplacian pyramid; its coarsest band is so many times smaller
BINS, PIXELS_PER_MATCH = 8, 10
TINY = 2e-16


def simple_itk() -> ModuleType:
    """The package SimpleITK; ImportError that says how to get it."""
    try:
        import SimpleITK
    except ImportError:
        raise ImportError(
            'despeckle="hung2021" needs SimpleITK for its histogram matching; '
            'run: pip install "usconf[hung2021]", or take despeckle="srad"'
        ) from None
    return SimpleITK


def coarsest_band(image: np.ndarray) -> np.ndarray:
    """The last band of a Laplacian pyramid (downscale 2, sigma 4/6, bilinear)."""
    smooth = ndimage.gaussian_filter(image, 4 / 6, mode="reflect")
    for _ in range(LEVELS):
        smaller = [math.ceil(size / 2) / size for size in smooth.shape]
        image = ndimage.zoom(smooth, smaller, order=1, mode="mirror", grid_mode=True)
        smooth = ndimage.gaussian_filter(image, 4 / 6, mode="reflect")
    return image - smooth


def edge_scale(e: np.ndarray, itk: Any) -> np.ndarray:
    """s: 0.05 at edges of the coarsest band, 1 elsewhere."""
    band = itk.GetImageFromArray(coarsest_band(e).astype(np.float32))
    edges = itk.GetArrayFromImage(itk.CannyEdgeDetection(band)).astype(np.float64)
    large = ndimage.zoom(edges, REACH, order=1, mode="mirror", grid_mode=True)
    large = ndimage.gaussian_filter(large, 2 * REACH / 6, mode="reflect")
    return np.where(large[: e.shape[0], : e.shape[1]] > 0.5, EDGE, ELSEWHERE)


def diffused(e: np.ndarray, scale: np.ndarray, q0: float) -> np.ndarray:
    """One iteration, before the matching."""
    framed = np.pad(e, 1, mode="edge")
    north, south = framed[:-2, 1:-1] - e, framed[2:, 1:-1] - e
    west, east = framed[1:-1, :-2] - e, framed[1:-1, 2:] - e
    squares = (north**2 + south**2 + west**2 + east**2) / e**2
    laplacian = (north + south + west + east) / e
    q = (squares / 2 - laplacian**2 / 16) / ((1 + laplacian / 4) ** 2 + TINY)
    c = np.clip(scale / (1 + (q - q0) / (q0 * (1 + q0) + TINY)), 0, 1)
    below, right = np.vstack([c[1:], c[-1:]]), np.hstack([c[:, 1:], c[:, -1:]])
    return e + STEP / 4 * (c * north + below * south + c * west + right * east)


def log_diffused(image: np.ndarray, roi: tuple[int, int, int, int] | None = None) -> np.ndarray:
    """log E (float64) of one frame (H, W) after the published loop; their median comes after it.

    roi: rows and columns, half open, of which the speckle's q0 is taken.
    """
    itk = simple_itk()
    low, high = float(image.min()), float(image.max())
    if high == low:
        return np.zeros(image.shape)
    row0, row1, column0, column1 = roi or ROI
    scaled = ((image.astype(np.float64) - low) / (high - low)).astype(np.float32)
    e = np.exp(scaled).astype(np.float64)
    scale = edge_scale(e, itk)
    first = None
    for _ in range(ITERATIONS):
        region = e[row0:row1, column0:column1]
        found = diffused(e, scale, float(region.var(ddof=1) / region.mean() ** 2))
        new = itk.GetImageFromArray(found)
        first = new if first is None else first
        matched = itk.HistogramMatching(new, first, BINS, e.size // PIXELS_PER_MATCH, True)
        found = itk.GetArrayFromImage(matched)
        change = float(((found - e) ** 2).mean())
        e = found
        if change <= TOLERANCE:
            break
    return np.log(e)
