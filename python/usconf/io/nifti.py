"""NIfTI through nibabel.

NIfTI's first axis is taken as the scanlines and its second as depth, the order in which
ultrasound converters (PLUS, 3D Slicer) store B-mode frames; further axes count frames.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .picture import Picture, gray, require, supported

# xyzt_units codes of the NIfTI-1 standard: 1 metre, 2 millimetre, 3 micrometre, 0 unknown (which
# every program reads as millimetres).
_UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


def read(path: Path) -> Picture:
    """Read (X, Y), (X, Y, Z) or (X, Y, Z, T) as frames (Z T, Y, X)."""
    nibabel = require("nibabel", "nibabel")
    image = nibabel.load(path)
    data = np.asanyarray(image.dataobj)
    if data.dtype.names:
        data = gray(np.stack([data[name] for name in data.dtype.names[:3]], axis=-1))
    if data.ndim < 2:
        raise ValueError(f"its shape {data.shape} has no rows and columns")
    shape = data.shape
    frames = data.T.reshape((-1, shape[1], shape[0]))
    scale = _UNIT_MM.get(int(image.header["xyzt_units"]) & 7, 1.0)
    zoom_x, zoom_y = (float(zoom) * scale for zoom in image.header.get_zooms()[:2])
    spacing = (zoom_y, zoom_x) if zoom_x > 0 and zoom_y > 0 else None
    meta = {"image": type(image), "header": image.header.copy(), "affine": image.affine,
            "shape": shape}  # fmt: skip
    single = all(length == 1 for length in shape[2:])
    return Picture(supported(frames), "nifti", spacing, single=single, meta=meta)


def write(path: Path, array: np.ndarray, like: Picture | None) -> None:
    """Write float32 (float64 maps as float64); affine, units and extensions as in the input."""
    nibabel = require("nibabel", "nibabel")
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if like is not None and like.kind == "nifti":
        shape = like.meta["shape"]
        image = like.meta["image"](_volume(array, shape), like.meta["affine"],
                                   like.meta["header"].copy())  # fmt: skip
        image.header.set_slope_inter(1, 0)
        image.header["cal_min"] = image.header["cal_max"] = 0
    else:
        frames = array.reshape((-1, *array.shape[-2:]))
        shape = (frames.shape[2], frames.shape[1])
        if array.ndim > 2:
            shape = (*shape, len(frames))
        row, column = (like.spacing_mm if like is not None else None) or (1.0, 1.0)
        image = nibabel.Nifti1Image(_volume(array, shape), np.diag([column, row, 1.0, 1.0]))
        image.header.set_xyzt_units("mm")
    image.set_data_dtype(array.dtype)
    nibabel.save(image, path)


def _volume(array: np.ndarray, shape: tuple[int, ...]) -> Any:
    return array.reshape(tuple(reversed(shape))).T
