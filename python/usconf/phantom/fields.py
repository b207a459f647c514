"""Random curves and fields from few knots: cubic B-splines, as matrix products in float32.

Knots lie in millimetres, not in pixels: the same draw makes the same anatomy at any resolution.
"""

from __future__ import annotations

import numpy as np

# Standard deviation of a cubic B-spline of unit white knots, mean over the places between them.
_DEVIATION = 0.6925


def spline_basis(position: np.ndarray, spacing: float, first: float, last: float) -> np.ndarray:
    """Weights at the positions (N,) of knots from `first` to `last`, as (N, K) float32."""
    place = (position - first) / spacing
    knot = np.floor(place).astype(np.intp)
    rest = place - knot
    weights = np.zeros((len(place), int((last - first) / spacing) + 5), np.float32)
    at = np.arange(len(place))
    weights[at, knot] = (1 - rest) ** 3 / 6
    weights[at, knot + 1] = (3 * rest**3 - 6 * rest**2 + 4) / 6
    weights[at, knot + 2] = (-3 * rest**3 + 3 * rest**2 + 3 * rest + 1) / 6
    weights[at, knot + 3] = rest**3 / 6
    return weights


def branch(random: np.random.Generator) -> np.random.Generator:
    """A generator of its own for a draw whose count depends on the resolution."""
    return np.random.Generator(np.random.SFC64(int(random.integers(2**63))))


def curve(
    random: np.random.Generator, position: np.ndarray, spacing: float, half: float
) -> np.ndarray:
    """Smooth random curve of about unit variance at the positions (N,) in [-half, half]."""
    basis = spline_basis(position, spacing, -half, half)
    knots = branch(random).standard_normal(basis.shape[1], dtype=np.float32)
    return basis @ knots / np.float32(_DEVIATION)


def field(
    random: np.random.Generator,
    rows: np.ndarray,
    columns: np.ndarray,
    spacing: tuple[float, float],
    extent: float,
    half: float,
) -> np.ndarray:
    """Smooth random field of about unit variance over rows (H,) x columns (W,), float32.

    Rows lie in [0, extent], columns in [-half, half]. Spacings finer than two pixels are widened
    to two: finer detail is speckle's business.
    """
    down = max(spacing[0], 2 * abs(float(rows[1] - rows[0])))
    across = max(spacing[1], 2 * abs(float(columns[1] - columns[0])))
    left = spline_basis(rows, down, 0.0, extent)
    right = spline_basis(columns, across, -half, half)
    knots = branch(random).standard_normal((left.shape[1], right.shape[1]), dtype=np.float32)
    return (left @ knots) @ right.T / np.float32(_DEVIATION**2)


def strands(
    random: np.random.Generator, across: np.ndarray, period: float, sparse: float
) -> np.ndarray:
    """Irregular parallel strands in [0, 1]: a random profile read at the coordinate `across`.

    `sparse` in [0, 1) is the share of the profile that stays empty.
    """
    lowest = float(across.min())
    count = int((float(across.max()) - lowest) / period) + 3
    profile = branch(random).random(count, dtype=np.float32)
    profile = np.clip((profile - sparse) / (1 - sparse), 0, 1)
    place = (across - lowest) / np.float32(period)
    whole = place.astype(np.intp)
    rest = (place - whole).astype(np.float32)
    rest = rest * rest * (3 - 2 * rest)
    return profile[whole] * (1 - rest) + profile[whole + 1] * rest


def step(height: np.ndarray, width: float) -> np.ndarray:
    """Smooth step from 0 (height <= 0) to 1 (height >= width), never falling."""
    part = np.clip(height * np.float32(1 / width), 0, 1)
    return part * part * (3 - 2 * part)
