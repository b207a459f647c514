"""Which reader a file needs, and writing that never leaves half a file."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ..atomic import whole
from .picture import Picture, UnreadableError

# Suffix -> reader and the suffix of a map "in the input's kind". JPEG would change a map and a raw
# stream has no frame rate, so those become PNG and MP4.
READABLE = {
    ".png": ("raster", ".png"),
    ".jpg": ("raster", ".png"),
    ".jpeg": ("raster", ".png"),
    ".bmp": ("raster", ".png"),
    ".tif": ("raster", ".tif"),
    ".tiff": ("raster", ".tif"),
    ".dcm": ("dicom", ".dcm"),
    ".dicom": ("dicom", ".dcm"),
    ".nii": ("nifti", ".nii"),
    ".nii.gz": ("nifti", ".nii.gz"),
    ".igs.mha": ("metaimage", ".igs.mha"),
    ".mha": ("metaimage", ".mha"),
    ".mhd": ("metaimage", ".mha"),
    ".mp4": ("video", ".mp4"),
    ".m4v": ("video", ".mp4"),
    ".mov": ("video", ".mp4"),
    ".avi": ("video", ".mp4"),
    ".mpg": ("video", ".mp4"),
    ".mpeg": ("video", ".mp4"),
    ".mkv": ("video", ".mp4"),
    ".h264": ("video", ".mp4"),
    ".264": ("video", ".mp4"),
    ".npy": ("npy", ".npy"),
}
WRITABLE = {
    ".png": "raster",
    ".tif": "raster",
    ".tiff": "raster",
    ".dcm": "dicom_derived",
    ".nii": "nifti",
    ".nii.gz": "nifti",
    ".mha": "metaimage",
    ".mp4": "video",
    ".npy": "npy",
}
_COLOUR = ("raster", "video")


def readable_suffix(path: str | os.PathLike[str]) -> str | None:
    """Return the suffix that names the reader, ``.dcm`` for DICOM without one, else None."""
    path = Path(path)
    suffix = _longest(path.name, READABLE)
    if suffix is None and not path.suffix.strip(".0123456789") and _is_dicom(path):
        return ".dcm"
    return suffix


def read(path: str | os.PathLike[str]) -> Picture:
    """Read a picture, a clip or a volume of frames as gray.

    Parameters
    ----------
    path : path-like
        PNG, JPEG, BMP, TIFF, DICOM (also without suffix), NIfTI, MetaImage (.mha, .mhd, PLUS
        .igs.mha), MP4, AVI, MPEG, raw H.264 or .npy.

    Returns
    -------
    Picture
        Frames ``(T, H, W)`` in the file's own gray values, colour turned into Rec. 601 luma, with
        row and column spacing in mm where the file says it.

    Raises
    ------
    FileNotFoundError, PermissionError, IsADirectoryError
        As `open` does.
    UnreadableError
        If the suffix is unknown or the content damaged; the message names the file.
    ImportError
        If the library for this kind is not installed.

    Warns
    -----
    UserWarning
        If a video ends early (with the number of frames) or a DICOM region exceeds its matrix.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from usconf.io import read
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "frame.npy"
    >>> np.save(path, np.zeros((4, 3), np.uint8))
    >>> read(path).frames.shape
    (1, 4, 3)
    """
    path = Path(path)
    with open(path, "rb") as file:
        empty = not file.read(1)
    if empty:
        raise UnreadableError(f"{path} cannot be read: it is empty")
    suffix = readable_suffix(path)
    if suffix is None:
        raise UnreadableError(
            f"{path} cannot be read: its name must end in one of {', '.join(READABLE)}"
        )
    try:
        picture = _module(READABLE[suffix][0]).read(path)
    except (ImportError, MemoryError, Warning):
        raise
    # The libraries raise whatever a damaged byte leads them to (KeyError, struct.error,
    # SyntaxError from Pillow, ...): no list of theirs would be complete.
    except Exception as error:
        raise UnreadableError(f"{path} cannot be read: {error}") from error
    if picture.frames.size == 0:
        raise UnreadableError(f"{path} cannot be read: it holds no pixels")
    return picture


def write(
    path: str | os.PathLike[str],
    maps: Any,
    *,
    like: Picture | None = None,
    bits: int = 16,
) -> None:
    """Write maps (or overlays) to the kind that the suffix names, all or nothing.

    Parameters
    ----------
    path : path-like
        Ends in .png, .tif, .npy, .mha, .nii, .nii.gz, .dcm or .mp4.
    maps : array_like
        ``(H, W)`` or ``(T, H, W)`` in [0, 1]. uint8 and uint16 are pixels and stored as they are;
        uint8 ``(..., H, W, 3)`` is colour (.png, .tif, .mp4).
    like : Picture, optional
        Where spacing, header, transforms and frame rate come from. A header is kept whole when
        the kind is the same, the spacing in every kind that can hold it.
    bits : {16, 8}, optional
        Levels of a PNG map: ``round(65535 c)`` (default) or ``round(255 c)``.

    Raises
    ------
    ValueError
        If the suffix is unknown, the shape does not fit `like`, a PNG would hold several frames,
        or values leave [0, 1] where the kind stores integers.
    ImportError
        If the library for this kind is not installed.

    Notes
    -----
    .tif, .npy, .mha and .nii hold the numbers as they are (float32 or float64; .tif float32),
    .dcm 16-bit pixels with rescale slope 1/65535, .mp4 8-bit luma 16 + 219 c, slightly lossy. The
    file appears under its name only when complete.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from usconf.io import read, write
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "map.npy"
    >>> write(path, np.full((4, 3), 0.5, np.float32))
    >>> float(read(path).frames[0, 0, 0])
    0.5
    """
    path = Path(path)
    suffix = _longest(path.name, WRITABLE)
    if suffix is None:
        raise ValueError(f"path must end in one of {', '.join(WRITABLE)}, got {path.name}")
    if bits not in (8, 16):
        raise ValueError(f"bits must be 8 or 16, got {bits!r}")
    array = _checked(np.asarray(maps), suffix, like)
    options = {"bits": bits} if WRITABLE[suffix] == "raster" else {}
    with whole(path) as part:
        _module(WRITABLE[suffix]).write(part, array, like, **options)


def _checked(array: np.ndarray, suffix: str, like: Picture | None) -> np.ndarray:
    if array.dtype.kind != "f" and array.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"maps must be float, uint8 or uint16, got {array.dtype}")
    colour = array.dtype == np.uint8 and array.ndim >= 3 and array.shape[-1] == 3
    if colour and WRITABLE[suffix] not in _COLOUR:
        raise ValueError(f"maps must be gray for {suffix}, got colour {array.shape}; write .png")
    pixels = array.ndim - 1 if colour else array.ndim
    if pixels not in (2, 3) or array.size == 0:
        raise ValueError(f"maps must be (H, W) or (T, H, W) and not empty, got {array.shape}")
    if like is None:
        return array
    shape = array.shape[:-1] if colour else array.shape
    if shape != like.frames.shape and (len(like.frames) > 1 or shape != like.frames.shape[1:]):
        raise ValueError(f"maps must have the shape of like, {like.frames.shape}, got {shape}")
    if like.single and pixels == 3:
        return array[0]
    return array


def _longest(name: str, suffixes: Any) -> str | None:
    matches = [suffix for suffix in suffixes if name.lower().endswith(suffix)]
    return max(matches, key=len, default=None)


def _is_dicom(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _module(name: str) -> ModuleType:
    return import_module(f".{name}", __package__)
