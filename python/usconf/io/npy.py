"""NumPy arrays on disk (.npy)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .picture import Picture, supported


def read(path: Path) -> Picture:
    """Read (H, W), (T, H, W) or (B, 1, H, W); pickled objects are refused."""
    array = np.load(path, allow_pickle=False)
    if not isinstance(array, np.ndarray):
        raise ValueError("it holds several arrays; save one with numpy.save")
    shape = array.shape
    if array.ndim == 4 and shape[1] == 1:
        array = array[:, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[-1] in (3, 4)):
        raise ValueError(
            f"its shape {shape} is not (H, W), (T, H, W) or (B, 1, H, W); save "
            "usconf.io.gray(array) for colour"
        )
    frames = supported(array.reshape((-1, *array.shape[-2:])))
    return Picture(frames, "npy", single=len(shape) == 2, meta={"shape": shape})


def write(path: Path, array: np.ndarray, like: Picture | None) -> None:
    """Write the numbers as they are, in the input's shape when that was .npy too."""
    if like is not None and like.kind == "npy":
        array = array.reshape(like.meta["shape"])
    np.save(path, array, allow_pickle=False)
