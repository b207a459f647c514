"""What the heads and measures ask of tensors, and the errors when they do not get it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def whole(name: str, value: object, least: int) -> int:
    """`value` as an int that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value


def dimensions(dims: object) -> int:
    """2 or 3."""
    if dims not in (2, 3) or isinstance(dims, bool):
        raise ValueError(
            f"dims must be 2 (images) or 3 (volumes and clips), got {dims!r}; "
            "it is the number of spatial axes of the features"
        )
    return int(dims)  # type: ignore[call-overload, no-any-return]


def same_size(name: str, got: Sequence[int], expected: Sequence[int], of: str) -> None:
    """Refuses another number of pixels."""
    if tuple(got) != tuple(expected):
        raise ValueError(
            f"{name} must have the spatial size {tuple(expected)} of {of}, got {tuple(got)}; "
            "resize the features, e.g. torch.nn.functional.interpolate(features, "
            'size=labels.shape[-2:], mode="bilinear")'
        )


def features_like(features: Tensor, channels: int, dims: int) -> None:
    """(B, channels, *S) with `dims` spatial axes and something in it."""
    shape = "(B, {}, {})".format(channels, "H, W" if dims == 2 else "D, H, W")
    if not isinstance(features, Tensor):
        raise TypeError(
            f"features must be a tensor {shape}, got {type(features).__name__}; "
            "an encoder that returns several maps has to be wrapped to return one"
        )
    if features.ndim != dims + 2:
        raise ValueError(
            f"features must be {shape}, got {tuple(features.shape)}; "
            f"this head was made with dims={dims}"
        )
    if features.shape[1] != channels:
        raise ValueError(
            f"features must have the {channels} channels the head was made for, "
            f"got {features.shape[1]} in {tuple(features.shape)}; set in_channels to the encoder's"
        )
    if not features.is_floating_point():
        raise TypeError(f"features must be floating point, got {features.dtype}")


def draws_like(draws: Tensor, name: str, least: int = 1) -> None:
    """(n, B, C, *S) logits with n >= `least`."""
    if not isinstance(draws, Tensor):
        raise TypeError(f"{name} must be a tensor (n, B, C, *S), got {type(draws).__name__}")
    if draws.ndim < 4:
        raise ValueError(
            f"{name} must be (n, B, C, *S), got {tuple(draws.shape)}; "
            "a single draw is draws[None], a single image draws[:, None]"
        )
    if not draws.is_floating_point():
        raise TypeError(f"{name} must be floating-point logits, got {draws.dtype}")
    if draws.shape[0] < least or 0 in draws.shape:
        raise ValueError(
            f"{name} must hold at least {least} draw{'s' * (least > 1)} and no empty axis, "
            f"got {tuple(draws.shape)}"
        )


def mask_like(
    mask: Tensor | None, batch: int, size: Sequence[int], device: torch.device
) -> Tensor | None:
    """The mask as (B, *S) bool, from (*S), (B, *S) or (B, 1, *S); None stays None."""
    if mask is None:
        return None
    mask = torch.as_tensor(mask, device=device)
    size = tuple(size)
    if mask.ndim == len(size) + 2 and mask.shape[1] == 1:
        mask = mask[:, 0]
    if mask.shape != size and mask.shape != (batch, *size):
        raise ValueError(
            f"mask must be {size}, {(batch, *size)} or {(batch, 1, *size)}, "
            f"got {tuple(mask.shape)}; True (or not 0) is inside the region of interest"
        )
    return (mask != 0).expand(batch, *size)


def labels_like(
    target: Tensor, batch: int, classes: int, size: Sequence[int], mask: Tensor | None
) -> Tensor:
    """Class indices (B, *S) int64 from (B, *S) or (B, 1, *S); outside the mask they become 0."""
    if not isinstance(target, Tensor):
        raise TypeError(f"labels must be a tensor, got {type(target).__name__}")
    if target.ndim == len(size) + 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.ndim != len(size) + 1 or target.shape[0] != batch:
        raise ValueError(
            f"labels must be {(batch, *size)} or {(batch, 1, *size)} class indices, "
            f"got {tuple(target.shape)}"
        )
    same_size("labels", target.shape[1:], size, "the logits")
    if mask is not None:
        target = torch.where(mask, target, torch.zeros_like(target))
    labels = target.to(torch.int64)
    if target.is_floating_point() and bool((labels != target).any()):
        raise ValueError("labels must be class indices, got fractions; take argmax of soft labels")
    low, high = (int(value) for value in labels.aminmax())
    last = max(classes, 2) - 1
    if low < 0 or high > last:
        raise ValueError(
            f"labels must be class indices from 0 to {last}, got {low if low < 0 else high}; "
            "give mask= for pixels without a label"
        )
    return labels
