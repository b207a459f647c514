"""Frames at the working grid: images smoothed as they shrink, labels copied."""

from __future__ import annotations

import numpy as np


def smooth(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resample (H, W) uint8 with a triangle as wide as a pixel of the coarser grid."""
    values = _weights(image.shape[0], shape[0]) @ image.astype(np.float32)
    values = values @ _weights(image.shape[1], shape[1]).T
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def nearest(values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Copy the pixel at each new pixel's centre: (H, W) of any type."""
    rows, columns = (
        ((np.arange(count) + 0.5) * length / count).astype(int)
        for count, length in zip(shape, values.shape, strict=True)
    )
    return values[rows[:, None], columns]


def _weights(length: int, count: int) -> np.ndarray:
    """(count, length): each new sample as a mean of old ones; rows sum to 1."""
    step = length / count
    centres = (np.arange(count) + 0.5) * step - 0.5
    distance = np.abs(np.arange(length) - centres[:, None]) / max(step, 1.0)
    weights = np.maximum(0, 1 - distance)
    # Beyond the border there is nothing: the rest of the triangle carries the sample.
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
