"""DICOM through pydicom: gray frames in, a derived 16-bit object out."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .picture import Picture, gray, require, supported

# Ultrasound pixels lie between a few micrometres (acoustic microscopy) and a few millimetres
# (echo of a whole heart on a thumbnail); anything else is a default or a mistake.
_PLAUSIBLE_MM = (1e-3, 10.0)
_CENTIMETRE = 3
_TISSUE = 1
_TWO_DIMENSIONAL = 1


class Region(NamedTuple):
    """One item of Sequence of Ultrasound Regions, clipped to the matrix; both ends inclusive."""

    x0: int
    y0: int
    x1: int
    y1: int
    data_type: int
    spacing_mm: tuple[float, float] | None


def read(path: Path) -> Picture:
    """Read single or multi-frame pixels as gray.

    YBR images give their Y channel as stored, RGB and palette images Rec. 601 luma; MONOCHROME1
    is inverted; the rescale slope and intercept are applied when they are not 1 and 0. Window
    settings are not applied: they change what a screen shows, not what was measured.
    """
    pydicom = require("pydicom", "pydicom")
    pixels = require("pydicom.pixels", "pydicom 3 or newer")
    dataset = pydicom.dcmread(path)
    decoder = pixels.get_decoder(dataset.file_meta.TransferSyntaxUID)
    samples, info = decoder.as_array(dataset, raw=True)
    frames = _gray_frames(pixels, dataset, samples, info["photometric_interpretation"])
    frames = frames.reshape((-1, int(dataset.Rows), int(dataset.Columns)))
    slope = float(dataset.get("RescaleSlope", 1) or 1)
    intercept = float(dataset.get("RescaleIntercept", 0) or 0)
    if (slope, intercept) != (1.0, 0.0):
        frames = (frames * slope + intercept).astype(np.float32)
    regions = _regions(path, dataset)
    spacing = next((region.spacing_mm for region in regions if region.spacing_mm), None)
    if spacing is None:
        spacing = _plausible(dataset.get("PixelSpacing"))
    for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"):
        if name in dataset:
            delattr(dataset, name)
    meta: dict[str, Any] = {"dataset": dataset, "regions": regions}
    if dataset.get("FrameTime"):
        meta["rate"] = _rate(float(dataset.FrameTime))
    single = len(frames) == 1
    return Picture(supported(frames), "dicom", spacing, single=single, meta=meta)


def _gray_frames(pixels: Any, dataset: Any, samples: np.ndarray, photometric: str) -> np.ndarray:
    if photometric == "MONOCHROME2":
        return samples
    if photometric == "MONOCHROME1":
        if dataset.get("PixelRepresentation", 0):
            return -1 - samples
        return (2 ** int(dataset.BitsStored) - 1) - samples
    if photometric == "PALETTE COLOR":
        return gray(pixels.apply_color_lut(samples, dataset))
    if photometric.startswith("YBR"):
        return np.ascontiguousarray(samples[..., 0])
    if photometric == "RGB":
        return gray(samples)
    raise ValueError(f"its Photometric Interpretation {photometric} is not supported")


def _rate(frame_time_ms: float) -> Any:
    from fractions import Fraction

    return Fraction(1000 / frame_time_ms).limit_denominator(1001)


def _regions(path: Path, dataset: Any) -> tuple[Region, ...]:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    regions = []
    for item in dataset.get("SequenceOfUltrasoundRegions") or ():
        bounds = [
            item.get(name)
            for name in (
                "RegionLocationMinX0",
                "RegionLocationMinY0",
                "RegionLocationMaxX1",
                "RegionLocationMaxY1",
            )
        ]
        if None in bounds:
            continue
        x0, y0, x1, y1 = (int(value) for value in bounds)
        spacing = _region_spacing(item)
        clipped = max(x0, 0), max(y0, 0), min(x1, columns - 1), min(y1, rows - 1)
        if clipped[0] > clipped[2] or clipped[1] > clipped[3]:
            _warn(path, item, columns, rows, "left out")
            continue
        # One pixel too many is how some makers count the far end; more means that the matrix was
        # cropped or rescaled after the region was written, so its spacing can't be trusted.
        if x0 < 0 or y0 < 0 or x1 > columns or y1 > rows:
            _warn(path, item, columns, rows, "clipped and its spacing ignored")
            spacing = None
        regions.append(Region(*clipped, int(item.get("RegionDataType", 0)), spacing))
    return tuple(regions)


def _warn(path: Path, item: Any, columns: int, rows: int, consequence: str) -> None:
    warnings.warn(
        f"{path}: an ultrasound region (x {item.RegionLocationMinX0}..{item.RegionLocationMaxX1}, "
        f"y {item.RegionLocationMinY0}..{item.RegionLocationMaxY1}) exceeds the {columns} x {rows} "
        f"matrix; it is {consequence}",
        stacklevel=4,
    )


def _region_spacing(item: Any) -> tuple[float, float] | None:
    units = item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")
    if units != (_CENTIMETRE, _CENTIMETRE) or item.get("RegionDataType") != _TISSUE:
        return None
    if item.get("RegionSpatialFormat") != _TWO_DIMENSIONAL:
        return None
    delta = item.get("PhysicalDeltaY"), item.get("PhysicalDeltaX")
    return _plausible([abs(float(value)) * 10 for value in delta if value is not None])


def _plausible(spacing: Any) -> tuple[float, float] | None:
    if not spacing or len(spacing) != 2:
        return None
    row, column = float(spacing[0]), float(spacing[1])
    low, high = _PLAUSIBLE_MM
    believable = all(math.isfinite(mm) and low <= mm <= high for mm in (row, column))
    return (row, column) if believable else None
