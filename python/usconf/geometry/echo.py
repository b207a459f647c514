"""What of a picture is echo: its pixels against a dark, even surround, whatever is written there.

`fan` and `support` find borders in what these functions hand them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from .. import arrays

# Steps above the surround, in 255ths of the picture's range. The first takes exact digital black,
# the others the ringing of lossy compression (8 on the POCUS clips) and dim interface paint.
THRESHOLDS = (0.5, 3.5, 8.5, 16.5, 30.5)
# Borders are first sought in a picture of about this size; they are refined at full size.
_COARSE = 320
# Change over a clip, in 255ths, that tells echo from burned-in marks.
_MOVING = 3.0
# Parts smaller than this share of the largest are letters, ticks and focus marks.
_PART = 0.02


class Still(NamedTuple):
    """One picture to fit, cut to the region."""

    pixels: np.ndarray  # (H, W) float32, 0..255 over the picture's range
    moving: np.ndarray | None  # (H, W) bool, where a clip changed
    origin: tuple[int, int]  # x, z of pixels[0, 0] in the whole picture
    shape: tuple[int, int]  # of the whole picture


class Echo(NamedTuple):
    """What differs from one grey of the surround, and the coarse outline of that."""

    contrast: np.ndarray  # (H, W) float32, distance from the surround's grey
    threshold: float
    factor: int  # pixels per coarse pixel
    solid: np.ndarray  # coarse bool picture of the large parts
    sides: np.ndarray  # (N, 2) outermost echo seen from left, right and below, pixels x, z
    top: np.ndarray  # (M, 2) outermost echo seen from above


def read_still(image: Any, axes: str | None, region: Any, wanted: str) -> Still:
    """Bring a still or a clip to one float picture; `wanted` names in errors what it must show."""
    arrays.check_pixels(image)
    layout = arrays.layout(tuple(image.shape), axes)
    count = layout.stack[0]
    if count == 0:
        raise ValueError(f"image must show {wanted}, got no frame; pass at least one")
    if count > 1 and (axes is None or "b" in axes):
        raise ValueError(
            f"image must be one still or one clip, got {count} frames of shape "
            f'{tuple(image.shape)}; fit each, or write axes="thw" where they are one clip'
        )
    frames = layout.frames(image)
    if min(layout.stack[1:]) < 2:
        raise ValueError(
            f"image must show {wanted}, got {layout.stack[1]} x {layout.stack[2]} pixels; "
            "pass a whole picture"
        )
    x0, z0, x1, z1 = _bounds(region, layout.stack[1:])
    high, low = (_on_host(part) for part in _extremes(frames[:, z0 : z1 + 1, x0 : x1 + 1]))
    finite = np.isfinite(high) & np.isfinite(low)
    if not finite.any() or np.ptp(high[finite]) == 0:
        raise ValueError(f"image must show {wanted}, got a constant picture; check what was read")
    floor, ceiling = float(high[finite].min()), float(high[finite].max())
    gain = 255.0 / (ceiling - floor)
    high = np.where(finite, high, floor)
    pixels = ((high - floor) * gain).astype(np.float32)
    moving = None
    if count > 1:
        moving = (high - np.where(finite, low, floor)) * gain > _MOVING
    return Still(pixels, moving, (x0, z0), (layout.stack[1], layout.stack[2]))


def _extremes(frames: Any) -> tuple[Any, Any]:
    """The brightest and darkest that every pixel gets."""
    high = low = frames[0]
    if len(frames) > 1:
        xp = arrays.namespace(frames)
        for frame in frames[1:]:
            high, low = xp.maximum(high, frame), xp.minimum(low, frame)
    return high, low


def _on_host(array: Any) -> np.ndarray:
    array = arrays.on_host(array)
    return np.asarray(array, np.float64 if array.dtype == np.float64 else np.float32)


def _bounds(region: Any, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    height, width = shape
    if region is None:
        return 0, 0, width - 1, height - 1
    advice = "pass (x0, y0, x1, y1), both ends inclusive, as DICOM's ultrasound regions are"
    values = np.asarray(region)
    if values.shape != (4,) or not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"region must be four numbers, got {region!r}; {advice}")
    if not np.all(np.isfinite(values)) or np.any(values != np.round(values)):
        raise ValueError(f"region must be whole pixels, got {region!r}; {advice}")
    x0, z0, x1, z1 = (int(value) for value in values)
    # Some makers count the far end one pixel too many.
    if x0 < 0 or z0 < 0 or x1 > width or z1 > height or x0 >= x1 or z0 >= z1:
        raise ValueError(
            f"region must lie inside the picture of {height} rows and {width} columns, got "
            f"{tuple(values.tolist())}; the matrix may have been cropped or rescaled after the "
            "region was written: clip it or leave it out"
        )
    return x0, z0, min(x1, width - 1), min(z1, height - 1)


def echoes(still: Still) -> Iterator[Echo]:
    """Yield what exceeds the surround, for every plausible grey of the surround and threshold."""
    for surround in _surrounds(still.pixels):
        contrast = np.abs(still.pixels - np.float32(surround))
        _clear_bars(contrast, still.pixels)
        for threshold in THRESHOLDS:
            mask = contrast > threshold
            filled = float(mask.mean())
            if 0.01 < filled < 0.999:
                echo = _outlined(contrast, threshold, mask, still)
                if echo.solid.any():
                    yield echo


def _clear_bars(contrast: np.ndarray, pixels: np.ndarray) -> None:
    """Take title bars, even lines along the picture's edges, for surround."""
    for turned, values in ((contrast, pixels), (contrast.T, pixels.T)):
        for lines, greys in ((turned, values), (turned[::-1], values[::-1])):
            lines[: _bar(lines, greys)] = 0.0


def _bar(contrast: np.ndarray, greys: np.ndarray) -> int:
    """How many first lines are even and brighter than the surround that must come after them."""
    for line in range(len(greys) // 3):
        even = np.abs(greys[line] - np.median(greys[line])) < 2
        if np.median(contrast[line]) < 2 or even.mean() < 0.8:
            return line if (contrast[line] < 2).mean() > 0.8 else 0
    return 0


def _surrounds(pixels: np.ndarray) -> list[int]:
    """The commonest grey of the picture and that of its rim, seldom different."""
    levels = np.rint(pixels).astype(np.intp)
    rim = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    return sorted({int(np.bincount(part).argmax()) for part in (levels.ravel(), rim)})


def _outlined(contrast: np.ndarray, threshold: float, mask: np.ndarray, still: Still) -> Echo:
    height, width = mask.shape
    factor = max(1, round(max(height, width) / _COARSE))
    coarse = _blocks(mask, factor) if factor > 1 else mask.astype(np.float32)
    # The majority of 3 x 3: closes speckle and drops thin strokes, corners stay where they are.
    solid = ndimage.uniform_filter(coarse, 3, mode="constant") > 0.45
    solid = _large_parts(solid, still, factor)
    return Echo(contrast, threshold, factor, solid, *_outline(solid, factor))


def _blocks(array: np.ndarray, factor: int) -> np.ndarray:
    """Means of factor x factor blocks; a remainder at the far ends is left out."""
    rows, columns = (size // factor for size in array.shape)
    part = array[: rows * factor, : columns * factor].astype(np.uint8)
    sums = np.add.reduceat(part, np.arange(0, rows * factor, factor), axis=0, dtype=np.uint16)
    sums = sums.reshape(rows, columns, factor).sum(axis=2, dtype=np.uint32)
    return sums.astype(np.float32) / np.float32(factor**2)


def _large_parts(solid: np.ndarray, still: Still, factor: int) -> np.ndarray:
    """Without letters, ticks, bars, and in clips whatever stands still."""
    labels, count = ndimage.label(solid)
    if count == 0:
        return solid
    area = np.bincount(labels.ravel(), minlength=count + 1)
    area[0] = 0
    keep = area >= _PART * area.max()
    levels = np.rint(still.pixels[factor // 2 :: factor, factor // 2 :: factor]).astype(np.intp)
    levels = levels[: labels.shape[0], : labels.shape[1]]
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        if keep[number]:
            inside = labels[box] == number
            narrow = min(np.array(inside.shape) / solid.shape) < 0.2
            bar = narrow and inside.mean() > 0.92
            # One grey or two; the largest may be a fan that is flat but for its near field.
            commonest = np.sort(np.bincount(levels[box][inside]))[-2:].sum()
            painted = commonest > 0.8 * area[number] and area[number] < 0.5 * area.max()
            keep[number] = not (bar or painted)
    if still.moving is not None:
        moving = _blocks(still.moving, factor) > 0 if factor > 1 else still.moving
        moved = np.bincount(labels.ravel(), moving.ravel(), minlength=count + 1)
        keep &= moved > 0.2 * area
    if not keep.any():
        keep = area == area.max()
    return keep[labels]


def _outline(solid: np.ndarray, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """Outermost pixels seen from the four sides, without those at the picture's own edge."""
    height, width = solid.shape
    rows, columns = np.flatnonzero(solid.any(axis=1)), np.flatnonzero(solid.any(axis=0))
    left = np.stack([solid[rows].argmax(axis=1), rows], axis=1)
    right = np.stack([width - 1 - solid[rows, ::-1].argmax(axis=1), rows], axis=1)
    upper = np.stack([columns, solid[:, columns].argmax(axis=0)], axis=1)
    lower = np.stack([columns, height - 1 - solid[::-1, columns].argmax(axis=0)], axis=1)

    def inner(points: np.ndarray) -> np.ndarray:
        points = np.unique(points, axis=0)
        x, z = points.T
        kept = points[(x > 0) & (x < width - 1) & (z > 0) & (z < height - 1)]
        return kept * float(factor) + (factor - 1) / 2

    return inner(np.concatenate([left, right, lower])), inner(upper)
