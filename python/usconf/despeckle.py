"""Despeckling: anisotropic diffusion (SRAD) and the median, Hung et al.'s before a map."""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

from . import _core, arrays, seeds
from .random_walk import check_choices

METHODS = ("srad", "median")

# Hung et al.'s, but for the tolerance. With their 1e-6 the loop stops in its first iteration, with
# 94 to 99 % of the speckle left, on seven of ten real frames; with 1e-7 after 11 to 58 iterations
# with 46 to 92 % left and 93 to 100 % of the edges (tests/reference/despeckle.py).
ITERATIONS, TOLERANCE, STEP = 3000, 1e-7, 0.1
SIZE, LARGEST_SIZE = 7, 15

Roi = tuple[int, int, int, int]


class Rule(NamedTuple):
    """Checked arguments: what to do to every frame. roi (0, 0, 0, 0): none."""

    method: str
    iterations: int = ITERATIONS
    tolerance: float = TOLERANCE
    step: float = STEP
    roi: Roi = (0, 0, 0, 0)
    size: int = SIZE


def _integer(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def region(roi: Any, height: int, width: int) -> Roi:
    """A checked region; (0, 0, 0, 0) for None."""
    if roi is None:
        return (0, 0, 0, 0)
    found = tuple(roi) if isinstance(roi, (tuple, list)) or hasattr(roi, "tolist") else ()
    if len(found) != 4 or not all(_integer(edge) for edge in found):
        raise TypeError(
            f"roi must be four integers (row0, row1, column0, column1), got {roi!r}; "
            "rows [row0, row1) and columns [column0, column1) of homogeneous tissue"
        )
    row0, row1, column0, column1 = (int(edge) for edge in found)
    if not (0 <= row0 < row1 <= height and 0 <= column0 < column1 <= width):
        raise ValueError(
            f"roi must be (row0, row1, column0, column1) inside the {height} x {width} image, "
            f"got {roi!r}; rows [row0, row1), columns [column0, column1)"
        )
    if (row1 - row0) * (column1 - column0) < 2:
        raise ValueError(f"roi must hold at least two pixels, got {roi!r}; speckle has a variance")
    return row0, row1, column0, column1


def rule(
    method: str, height: int, width: int, *, iterations: Any = None, tolerance: Any = None,
    step: Any = None, roi: Any = None, size: Any = None,
) -> Rule:  # fmt: skip
    """Check the arguments of a method and fill in what was left out."""
    if method not in METHODS:
        words = ", ".join(repr(name) for name in METHODS)
        raise ValueError(f"method must be one of {words}, got {method!r}; see the docstring")
    others = {"size": size}
    if method == "median":
        others = {"iterations": iterations, "tolerance": tolerance, "step": step, "roi": roi}
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f'{name} must be left out with method="{method}", got {value!r}; it has no such '
                "parameter"
            )
    iterations = ITERATIONS if iterations is None else iterations
    if not _integer(iterations) or iterations < 0:
        raise ValueError(
            f"iterations must be a whole number and not negative, got {iterations!r}; "
            "the loop ends earlier when `tolerance` is met"
        )
    size = SIZE if size is None else size
    if not _integer(size) or size % 2 == 0 or not 1 <= size <= LARGEST_SIZE:
        raise ValueError(
            f"size must be odd, from 1 to {LARGEST_SIZE}, got {size!r}; it is the window's side"
        )
    return Rule(
        method,
        int(iterations),
        _real("tolerance", TOLERANCE if tolerance is None else tolerance, 0, float("inf")),
        _real("step", STEP if step is None else step, 0, 1),
        region(roi, height, width),
        int(size),
    )


def _real(name: str, value: Any, low: float, high: float) -> float:
    if not isinstance(value, numbers.Real) or not low <= float(value) <= high:
        raise ValueError(
            f"{name} must be a number from {low} to {high}, got {value!r}; "
            "leave it out for the usual one"
        )
    return float(value)


def check_region(image: Any, valid: Any, roi: Roi) -> None:
    """ValueError where a region shows no speckle, which switches the filter off."""
    row0, row1, column0, column1 = roi
    if row1 == 0 or image.shape[0] == 0:
        return
    inside = None if valid is None else valid[:, row0:row1, column0:column1]
    low, high = seeds.extremes(image[:, row0:row1, column0:column1], inside)
    flat = arrays.on_host((low == high).reshape(-1))
    if flat.any():
        raise ValueError(
            f"roi must show speckle, got {roi!r} without two different valid pixels in frame "
            f"{int(flat.argmax())}; choose homogeneous tissue, or leave it out"
        )


def smooth(image: Any, valid: Any, rule: Rule, dtype: str) -> Any:
    """(frames, H, W) of `dtype`: every frame despeckled, 0 where it is not valid.

    image: (frames, H, W), finite where valid; valid: (1 or frames, H, W) booleans or None.
    """
    if rule.method == "srad":
        check_region(image, valid, rule.roi)
    image = arrays.ready(image)
    valid = None if valid is None else arrays.ready(valid)
    result = arrays.empty(image, tuple(image.shape), dtype)
    frames = image.shape[0]
    if frames == 0:
        return result
    own: tuple[Any, ...] = (rule.size,)
    if rule.method == "srad":
        own = (rule.roi, rule.iterations, rule.tolerance, rule.step)
    arguments: tuple[Any, ...] = (
        arrays.pointer(image),
        arrays.SCALARS[arrays.dtype_name(image)],
        *image.shape,
        arrays.pointer(valid),
        valid is not None and valid.shape[0] != frames,
        *own,
        dtype == "float64",
        arrays.threads(image),
        *arrays.place(image),
        arrays.pointer(result),
    )
    if rule.method == "srad":
        _core.srad(*arguments)
    else:
        _core.median(*arguments)
    return result


def despeckle(
    image: Any,
    method: str = "srad",
    *,
    iterations: int | None = None,
    tolerance: float | None = None,
    step: float | None = None,
    roi: tuple[int, int, int, int] | None = None,
    size: int | None = None,
    mask: Any = None,
    nan: str = "raise",
    axes: str | None = None,
    dtype: Any = None,
) -> Any:
    """Smooth speckle, keep edges: speckle reducing anisotropic diffusion, or the median.

    Parameters
    ----------
    image : numpy.ndarray, torch.Tensor or cupy.ndarray
        Frames (H, W), (1, H, W) or (B, 1, H, W), or as `axes` says. uint8, uint16, int16, float16,
        float32, float64 (torch: bfloat16 too). Log-compressed, as displayed. Any strides; never
        written to.
    method : {"srad", "median"}
        "srad": diffusion of E = exp(I), I the frame scaled to [0, 1], until it changes no more.
        "median": of the window around each pixel, replicated at the borders.
    iterations : int, optional
        The most that "srad" takes. Default: 3000, Hung et al.'s.
    tolerance : float, optional
        "srad" stops after the iteration whose mean squared change of E is at most this. Default:
        1e-7 (Hung et al.: 1e-6, where most real frames stop in the first iteration).
    step : float, optional
        Of "srad", in [0, 1]; E moves by a quarter of it times the divergence. Default: 0.1, Hung
        et al.'s.
    roi : (row0, row1, column0, column1), optional
        Homogeneous tissue from which "srad" takes the strength of the speckle in each iteration.
        Default: the median over the image's blocks of 8 x 8 pixels, black ones left out.
    size : int, optional
        The window's side for "median", odd, at most 15. Default: 7, Hung et al.'s.
    mask : array, optional
        Nonzero = valid pixel, (H, W) or the image's shape. Others take no part; the result is 0
        there.
    nan : {"raise", "mask"}
        What to do with NaN and infinite valid pixels: refuse them, or leave them out like `mask`.
    axes : str, optional
        A letter for each axis: h depth, w scanlines, t time, b batch, c channel (of length 1).
    dtype : float32 or float64, optional
        The result's. Default: float64 for float64 pixels, else float32.

    Returns
    -------
    same kind of array
        Of the image's library, device and shape, in the range of its frame's values. Torch
        gradients do not flow through: their backward is refused.

    Raises
    ------
    TypeError
        If an argument is of another type; complex images, unsupported dtypes.
    ValueError
        If a shape is ambiguous, a word unknown, a number out of range, a parameter of the other
        method given, `roi` outside of the image or without speckle, or NaN met with nan="raise".

    Notes
    -----
    Yu, Acton: "Speckle reducing anisotropic diffusion", IEEE Trans. Image Processing 11 (2002)
    1260-1270, as discretised by Hung, Chen, Galeotti, ISBI 2021 (arXiv 2011.11956), without their
    histogram matching, which makes the loop chaotic. The result is low + (high - low) log E. Of an
    even number of valid pixels the median is the lower one in the middle.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> image = np.random.default_rng(0).integers(90, 110, (64, 48), dtype=np.uint8)
    >>> smooth = usconf.despeckle(image)
    >>> smooth.dtype.name, bool(smooth.std() < 0.5 * image.std())
    ('float32', True)
    """
    check_choices(nan=nan)
    arrays.check_pixels(image)
    layout = arrays.layout(tuple(image.shape), axes)
    frames = layout.frames(image)
    todo = rule(
        method, *layout.stack[1:], iterations=iterations, tolerance=tolerance, step=step, roi=roi,
        size=size,
    )  # fmt: skip
    mask = None if mask is None else layout.companion(mask, image, "mask")
    dtype = arrays.result_dtype(frames, dtype)
    if arrays.kind(frames) == "torch":
        from .ops.despeckle import smooth as operator

        return layout.restore(operator(frames, mask, todo, nan, dtype))
    valid = seeds.valid_pixels(frames, mask, nan)
    return layout.restore(smooth(frames, valid, todo, dtype))
