"""What every reader returns, and the one rule that turns colour into gray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

# Rec. 601 luma as 16-bit fixed point: 0.299, 0.587, 0.114 times 65536, rounded so that they sum
# to 65536 exactly. A gray pixel stored as colour (R = G = B) therefore keeps its value.
_LUMA_16 = (19595, 38470, 7471)
_LUMA = (0.299, 0.587, 0.114)

_SUPPORTED = ("uint8", "uint16", "int16", "float16", "float32", "float64")


class UnreadableError(ValueError):
    """A file that exists but cannot be read as a picture; the message names the file."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Gray frames of one file and what must go back into a map written beside it.

    Attributes
    ----------
    frames : numpy.ndarray
        Gray frames ``(T, H, W)``, row 0 nearest the transducer, in the file's own number type
        where `usconf.confidence` takes it, else in the next wider one.
    kind : {"raster", "dicom", "nifti", "metaimage", "video", "npy"}
        Which reader made it.
    spacing_mm : tuple of float or None
        Distance of neighbouring rows and of neighbouring scanlines in mm; None when the file
        does not say or what it says is not believable.
    single : bool
        True when the file holds one frame rather than a clip of length 1.
    meta : mapping
        What the writer of the same kind needs (header fields, affine, transforms, frame rate).

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.io import Picture
    >>> Picture(np.zeros((1, 4, 3), np.uint8), "npy", single=True).frames.shape
    (1, 4, 3)
    """

    frames: np.ndarray
    kind: str
    spacing_mm: tuple[float, float] | None = None
    single: bool = False
    meta: Mapping[str, Any] = field(default_factory=dict)


def gray(image: Any) -> np.ndarray:
    """Turn a colour image into gray by Rec. 601 luma, 0.299 R + 0.587 G + 0.114 B.

    Parameters
    ----------
    image : array_like
        ``(..., 3)`` RGB or ``(..., 4)`` RGBA; alpha is ignored.

    Returns
    -------
    numpy.ndarray
        ``(...)`` of the same number type, integers rounded to the nearest.

    Raises
    ------
    ValueError
        If the last axis is not 3 or 4 long.
    TypeError
        If the image is complex or not numeric.

    Notes
    -----
    Weights from ITU-R BT.601-7, section 2.5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.io import gray
    >>> gray(np.array([[[255, 0, 0], [9, 9, 9]]], np.uint8)).tolist()
    [[76, 9]]
    """
    image = np.asarray(image)
    if not image.dtype.isnative:
        image = image.astype(image.dtype.newbyteorder("="))
    if image.dtype.kind not in "uif":
        raise TypeError(
            f"image must hold real numbers, got {image.dtype}; convert it to uint8 or float32"
        )
    if image.ndim < 1 or image.shape[-1] not in (3, 4):
        raise ValueError(
            f"image must be (..., 3) or (..., 4), got {image.shape}; a gray image needs no "
            "conversion"
        )
    if image.dtype in (np.uint8, np.uint16):
        total = np.full(image.shape[:-1], 1 << 15, np.uint32)
        for channel, weight in enumerate(_LUMA_16):
            total += image[..., channel].astype(np.uint32) * np.uint32(weight)
        return (total >> 16).astype(image.dtype)
    luma = sum(image[..., channel] * weight for channel, weight in enumerate(_LUMA))
    if image.dtype.kind in "ui":
        luma = np.rint(luma)
    return np.asarray(luma).astype(image.dtype)


def supported(array: np.ndarray) -> np.ndarray:
    """Return the array in a number type that `usconf.confidence` takes, without losing values."""
    array = np.asarray(array)
    if array.dtype == bool:
        return array.astype(np.uint8)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype.name in _SUPPORTED:
        return array
    if array.dtype == np.int8:
        return array.astype(np.int16)
    if array.dtype.kind in "ui" or array.dtype.kind == "f":
        return array.astype(np.float64)
    raise ValueError(f"pixels of type {array.dtype} are not gray values")


def require(module: str, package: str) -> ModuleType:
    """Import an optional library, or say how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f'this kind of file needs {package}; run: pip install "usconf[io]"'
        ) from error


def levels(array: np.ndarray, bits: int) -> np.ndarray:
    """Turn values in [0, 1] into unsigned integers: 0 is 0, 1 is 2**bits - 1, rounded.

    Unsigned integers pass unchanged: they are pixels already.
    """
    if array.dtype.kind == "u":
        return array
    lowest, highest = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    # Written so that NaN fails too.
    if not (lowest >= 0.0 and highest <= 1.0):
        raise ValueError(
            f"maps must lie in [0, 1], got {lowest:g} to {highest:g}; write .npy, .mha, .nii.gz "
            "or .tif for other values"
        )
    top = 2**bits - 1
    return np.rint(array * np.float64(top)).astype(np.uint8 if bits == 8 else np.uint16)
