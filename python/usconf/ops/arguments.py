"""What the operators' arguments have in common: stacks of frames, planes, 0-d parameters."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def frames(image: Tensor) -> Tensor:
    """(frames, H, W) of (..., H, W)."""
    count = 1
    for size in image.shape[:-2]:
        count = count * size
    return image.reshape(count, image.shape[-2], image.shape[-1])


def check_frames(image: Tensor) -> None:
    """ValueError unless the image is (..., H, W) with pixels."""
    if image.ndim < 2 or image.shape[-1] == 0 or image.shape[-2] == 0:
        raise ValueError(
            f"image must be (..., H, W) with H and W at least 1, got shape {tuple(image.shape)}; "
            "the last two axes are depth and scanlines"
        )


def plane(name: str, values: Tensor, image: Tensor) -> Tensor:
    """(1 or frames, H, W) of values of (H, W) or the image's shape."""
    one = values.shape[-2:] == image.shape[-2:] and all(size == 1 for size in values.shape[:-2])
    if values.shape != image.shape and not (values.ndim >= 2 and one):
        raise ValueError(
            f"{name} must have shape {tuple(image.shape[-2:])} or the image's "
            f"{tuple(image.shape)}, got {tuple(values.shape)}; give one plane or one for each frame"
        )
    if values.device != image.device:
        raise ValueError(
            f"{name} must be on the image's device {image.device}, got {values.device}; "
            f"use {name}.to(image.device)"
        )
    return frames(values)


def mask(name: str, values: Tensor | None, image: Tensor) -> Tensor | None:
    """(1 or frames, H, W) booleans of a mask of (H, W) or the image's shape."""
    return None if values is None else plane(name, values, image) != 0


def parameter(name: str, value: float | Tensor, number: Callable[[str, float], float]) -> Tensor:
    """A 0-d tensor; `number` checks plain numbers."""
    if not isinstance(value, Tensor):
        if not torch.compiler.is_compiling():  # numbers may be symbols there; the operator checks
            value = number(name, value)
        return torch.full((), value, dtype=torch.float64)
    if value.ndim != 0:
        raise ValueError(
            f"{name} must be a number or a 0-d tensor, got shape {tuple(value.shape)}; "
            "all frames share it"
        )
    return value
