"""Which pixels are valid, sources, sinks (step 7).

Karamalis et al., Medical Image Analysis 16 (2012) 1101-1112, in the form of the authors' MATLAB
code. Works on NumPy, CuPy and torch alike: `xp` is the module of the array.

With a mask the roles of the first and last row go to the first and last valid pixel of each
column: `all` takes every last valid pixel, `mid` that of column W // 2 (none if that column holds
no valid pixel), `min` the lowest among those of the columns [int(.1W), W - int(.1W)), `mask` the
nonzero pixels of sink_mask that are valid. Where source and sink meet the source wins.
"""

from __future__ import annotations

import warnings
from typing import Any

from . import arrays, margins
from .envelope import magnitude

FREE, SOURCE, SINK, OUTSIDE = range(4)  # csrc/kernels.h

EPSILON = 2.0**-52  # step 1, as MATLAB's eps


def admitted(
    image: Any, mask: Any, nan: str, name: str = "image", *, look: bool = False, warn: bool = True
) -> Any:
    """`valid_pixels`; where all are, a warning of margins.

    Without mask, on a GPU, nothing is looked at: the host would have to wait for it. What is not
    finite makes the map NaN there. look: what comes next would hide it, or waits anyhow.
    """
    if mask is None and nan == "raise" and not look and arrays.on_device(image):
        return None
    pixels = arrays.handy(image)
    valid = valid_pixels(pixels, None if mask is None else arrays.handy(mask), nan, name)
    if valid is None and warn:
        margins.warn_of_margins(pixels)
    return arrays.restored(valid, image) if valid is not None else None


def valid_pixels(image: Any, mask: Any, nan: str, name: str = "image") -> Any:
    """(1 or frames, H, W) booleans, or None where all pixels are valid.

    image: (frames, H, W); mask: (1 or frames, H, W) booleans or None.
    """
    if nan == "raise" or not arrays.is_floating(image):
        check_finite(image, mask, name)
        return mask
    finite = arrays.namespace(image).isfinite(image)
    return finite if mask is None else finite & mask


def check_finite(image: Any, valid: Any, name: str = "image") -> None:
    """ValueError that counts and locates NaN and Inf among the valid pixels."""
    if not arrays.is_floating(image):
        return
    xp = arrays.namespace(image)
    finite = xp.isfinite(image)
    if bool(finite.all()):
        return
    bad = ~finite if valid is None else ~finite & valid
    count = int(bad.sum())
    if count == 0:
        return
    first = int(arrays.cast(bad.reshape(-1), "uint8").argmax())
    frame, inside = divmod(first, image.shape[1] * image.shape[2])
    row, column = divmod(inside, image.shape[2])
    raise ValueError(
        f"{name} must be finite, got {count} NaN or infinite pixel(s), the first at row {row}, "
        f'column {column} of frame {frame}; nan="mask" treats them as invalid pixels'
    )


def extremes(image: Any, valid: Any) -> tuple[Any, Any]:
    """Smallest and largest valid value of each frame, (frames, 1, 1) float64; 0 without any."""
    xp = arrays.namespace(image)
    if valid is None:
        if arrays.dtype_name(image) == "uint16" and arrays.kind(image) == "torch":
            image = arrays.cast(image, "int32")  # torch has no amin of uint16
        low, high = xp.amin(image, axis=(1, 2)), xp.amax(image, axis=(1, 2))
        low, high = arrays.cast(low, "float64"), arrays.cast(high, "float64")
        return low[:, None, None], high[:, None, None]
    image = arrays.cast(image, "float64")
    low = xp.amin(xp.where(valid, image, float("inf")), axis=(1, 2), keepdims=True)
    high = xp.amax(xp.where(valid, image, float("-inf")), axis=(1, 2), keepdims=True)
    some = xp.isfinite(low)
    return xp.where(some, low, 0.0), xp.where(some, high, 0.0)


def intensity(image: Any, valid: Any, mode: str) -> Any:
    """Step 1 in float64: g in [0, 1] (mode RF: its envelope), 0 where invalid. Differentiable."""
    xp = arrays.namespace(image)
    image = arrays.cast(image, "float64")
    if valid is not None:
        image = xp.where(valid, image, 0.0)  # before any arithmetic: NaN times 0 is NaN
    low, high = extremes(image, valid)
    scaled = (image - low) / ((high - low) + EPSILON)
    if valid is not None:
        scaled = xp.where(valid, scaled, 0.0)
    if mode == "RF":
        scaled = magnitude(scaled, 1)
        if valid is not None:
            scaled = xp.where(valid, scaled, 0.0)
    return scaled


def plant(image: Any, valid: Any, sink: str, sink_mask: Any, mode: str) -> Any:
    """Labels (1 or frames, H, W) uint8, or None for first row source, last row sink.

    image: (frames, H, W) as given; valid, sink_mask: (1 or frames, H, W) booleans or None.
    """
    if sink == "all" and valid is None:
        return None
    xp = arrays.namespace(image)
    height, width = image.shape[1:]
    rows, columns = _grid(image, xp)
    everywhere = xp.ones_like(rows + columns, dtype=bool_of(xp))
    inside = everywhere if valid is None else valid
    across = inside.any(axis=1)[:, None]
    flat = arrays.cast(inside, "uint8")
    first = (rows == flat.argmax(axis=1)[:, None]) & across
    last = (rows == height - 1 - xp.flip(flat, (1,)).argmax(axis=1)[:, None]) & across
    if sink == "mid":
        sinks = last & (columns == width // 2)
    elif sink == "min":
        margin = int(0.1 * width)
        inner = last & (columns >= margin) & (columns < width - margin)
        values = xp.where(inner, intensity(image, valid, mode), float("inf"))
        sinks = inner & (values == xp.amin(values, axis=(1, 2), keepdims=True))
    else:
        sinks = last if sink == "all" else sink_mask & inside
    sinks = sinks & ~first
    if sink == "mask" and not bool(sinks.any(axis=2).any(axis=1).all()):
        warnings.warn(
            "sink_mask leaves a frame without sinks (pixels of the source and pixels that are not "
            "valid are none): its map is 1 wherever a source is in reach; mark deep pixels",
            UserWarning,
            stacklevel=2,
        )
    outside = arrays.cast(~inside, "uint8") * OUTSIDE
    return outside + arrays.cast(first, "uint8") * SOURCE + arrays.cast(sinks, "uint8") * SINK


def first_and_last(image: Any) -> Any:
    """The labels that None stands for, (1, H, W): first row source, last row sink."""
    labels = arrays.empty(image, (1, *image.shape[1:]), "uint8")
    labels[:] = FREE
    labels[:, -1] = SINK
    labels[:, 0] = SOURCE
    return labels


def bool_of(xp: Any) -> Any:
    """The library's boolean dtype."""
    return getattr(xp, "bool_", None) or xp.bool


def _grid(image: Any, xp: Any) -> tuple[Any, Any]:
    """Row numbers (1, H, 1) and column numbers (1, 1, W), on the image's device."""
    height, width = image.shape[1:]
    where = {"device": image.device} if arrays.kind(image) == "torch" else {}
    rows, columns = xp.arange(height, **where), xp.arange(width, **where)
    return rows[None, :, None], columns[None, None, :]
