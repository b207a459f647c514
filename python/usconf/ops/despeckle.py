"""Despeckling as a torch operator: traced by torch.compile, not differentiable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import arrays, seeds
from ..despeckle import Rule, rule
from ..despeckle import smooth as _smooth
from ..random_walk import check_choices
from . import arguments, differentiation

_library = torch.library.Library("usconf", "FRAGMENT")
_ops = torch.ops.usconf

_library.define(
    "despeckle(Tensor image, Tensor? mask, str method, SymInt iterations, float tolerance, "
    "float step, int[] roi, SymInt size, str nan, ScalarType dtype) -> Tensor",
    tags=torch.Tag.pt2_compliant_tag,
)


def despeckle(
    image: Tensor,
    method: str = "srad",
    *,
    iterations: int | None = None,
    tolerance: float | None = None,
    step: float | None = None,
    roi: tuple[int, int, int, int] | None = None,
    size: int | None = None,
    mask: Tensor | None = None,
    nan: str = "raise",
    dtype: torch.dtype | str | None = None,
) -> Tensor:
    """Despeckle tensors: ``torch.ops.usconf.despeckle`` with defaults.

    Parameters
    ----------
    image : torch.Tensor
        (..., H, W): all leading axes count frames. CPU or CUDA.
    mask : torch.Tensor, optional
        (H, W), or the image's shape.
    method, iterations, tolerance, step, roi, size, nan, dtype
        As in `usconf.despeckle`.

    Returns
    -------
    torch.Tensor
        The image's shape; float64 for float64 pixels or when asked, else float32. No gradient
        flows through it.

    Raises
    ------
    TypeError, ValueError
        As `usconf.despeckle`.
    RuntimeError
        In a backward pass that wants its gradient.

    Examples
    --------
    >>> import torch, usconf.ops
    >>> usconf.ops.despeckle(torch.rand(2, 1, 32, 24), "median", size=5).shape
    torch.Size([2, 1, 32, 24])
    """
    check_choices(nan=nan)
    arrays.check_pixels(image)
    arguments.check_frames(image)
    height, width = image.shape[-2:]
    todo = rule(
        method, height, width, iterations=iterations, tolerance=tolerance, step=step, roi=roi,
        size=size,
    )  # fmt: skip
    stack, mask = arguments.frames(image), arguments.mask("mask", mask, image)
    return smooth(stack, mask, todo, nan, arrays.result_dtype(image, dtype)).reshape(image.shape)


def smooth(image: Tensor, mask: Tensor | None, todo: Rule, nan: str, dtype: str) -> Tensor:
    """The operator on a stack (frames, H, W) with checked arguments."""
    return _ops.despeckle(
        image, mask, todo.method, todo.iterations, todo.tolerance, todo.step, todo.roi, todo.size,
        nan, getattr(torch, dtype),
    )  # fmt: skip


def _despeckle(
    image: Tensor, mask: Tensor | None, method: str, iterations: int, tolerance: float,
    step: float, roi: Sequence[int], size: int, nan: str, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    pixels, plane = arrays.handy(image.detach()), None if mask is None else arrays.handy(mask)
    valid = seeds.valid_pixels(pixels, plane, nan)
    valid = None if valid is None else arrays.restored(valid, image)
    row0, row1, column0, column1 = roi
    todo = Rule(method, iterations, tolerance, step, (row0, row1, column0, column1), size)
    return _smooth(image.detach(), valid, todo, str(dtype).removeprefix("torch."))


def _despeckle_fake(
    image: Tensor, mask: Tensor | None, method: str, iterations: int, tolerance: float,
    step: float, roi: Sequence[int], size: int, nan: str, dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    return image.new_empty(image.shape, dtype=dtype)


def refuse(ctx: Any, *_: Any) -> None:
    """The backward of despeckling."""
    raise RuntimeError(
        "despeckling has no gradient, got a backward pass through it; pass despeckle=None, or "
        "detach the image"
    )


for _device in ("CPU", "CUDA"):
    _library.impl("despeckle", _despeckle, _device)
torch.library.register_fake("usconf::despeckle", _despeckle_fake, lib=_library)
differentiation.register(_library, "despeckle", refuse)
