"""Frames and volumes on another grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate


def resampled(values: np.ndarray, shape: tuple[int, ...], smooth: bool) -> np.ndarray:
    """Bring ``(T, H, W)`` to `shape`: each frame first, then along the sweep.

    Parameters
    ----------
    values : numpy.ndarray
        Any dtype; one frame for a shape of two numbers.
    shape : tuple of int
        ``(H, W)`` or ``(D, H, W)``.
    smooth : bool
        Linear, smoothed where it shrinks within frames (images, maps); else the nearest pixel
        (labels).

    Returns
    -------
    numpy.ndarray
        float32 of `shape`.
    """
    frames = torch.from_numpy(values.astype(np.float32))[:, None]
    how: dict[str, Any] = {"mode": "nearest-exact"}
    if smooth:
        how = {"mode": "bilinear", "antialias": True}
    frames = interpolate(frames, size=shape[-2:], **how)[:, 0]
    if len(shape) == 3:
        mode = "trilinear" if smooth else "nearest-exact"
        frames = interpolate(frames[None, None], size=shape, mode=mode)[0]
    return frames.numpy().reshape(shape)
