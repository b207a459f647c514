"""The uncertainty measures as a torch operator: all maps in one pass over the draws."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _core, arrays
from . import differentiation

_library = torch.library.Library("usconf", "FRAGMENT")
_library.define(
    "uncertainty(Tensor draws, Tensor? noise) -> Tensor", tags=torch.Tag.pt2_compliant_tag
)


def uncertainty(draws: Tensor, noise: Tensor | None = None) -> Tensor:
    """Total, expected and mutual uncertainty and the variance of draws, in one pass.

    Parameters
    ----------
    draws : torch.Tensor
        (n, B, C, *S) logits, CPU or CUDA, n and C at least 1; C = 1 is a sigmoid. float16 and
        bfloat16 are read as float32.
    noise : torch.Tensor, optional
        (S, B, C, *S) logits: the probability of a draw is then the mean over the S sums of draw and
        noise, and the variance that of the draws alone, as for distributions that share their
        covariance.

    Returns
    -------
    torch.Tensor
        (4, B, *S): the fields of `usconf.uncertainty.Measures`, without gradient; float64 for
        float64, else float32.

    Raises
    ------
    TypeError, ValueError
        When the draws are no floats, or have another shape.

    Notes
    -----
    Mueller et al., "L-FUSION", section 2. `usconf.uncertainty.measures` takes this operator where
    no gradient is wanted, and checks values and masks.

    Examples
    --------
    >>> import torch, usconf.ops
    >>> draws = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1, 1).expand(2, 1, 1, 4, 4)
    >>> usconf.ops.uncertainty(draws)[:, 0, 0, 0]
    tensor([0.6931, 0.5822, 0.1109, 0.0534])
    """
    arrays.check_pixels(draws, "draws")
    if not arrays.is_floating(draws):
        raise TypeError(f"draws must be floating, got {draws.dtype}; they are logits")
    if draws.ndim < 4 or draws.shape[0] == 0 or draws.shape[2] == 0:
        raise ValueError(
            f"draws must be (n, B, C, *S) with n and C at least 1, got {tuple(draws.shape)}; "
            "stack the logits of all draws"
        )
    if draws.dtype not in (torch.float32, torch.float64):
        draws = draws.float()
    if noise is not None:
        if noise.ndim != draws.ndim or noise.shape[1:] != draws.shape[1:] or noise.shape[0] == 0:
            raise ValueError(
                f"noise must be (S, B, C, *S), the draws' shape {tuple(draws.shape)} but for the "
                f"first axis, got {tuple(noise.shape)}"
            )
        noise = noise.to(draws).detach().flatten(3)
    maps = torch.ops.usconf.uncertainty(draws.detach().flatten(3), noise)
    return maps.reshape(4, draws.shape[1], *draws.shape[3:])


def _uncertainty(draws: Tensor, noise: Tensor | None) -> Tensor:
    draws = draws.contiguous()
    noise = None if noise is None else noise.contiguous()
    count, images, classes, pixels = draws.shape
    maps = draws.new_empty((4, images, pixels))
    if maps.numel():
        device, stream = arrays.place(draws)
        _core.uncertainty(
            arrays.pointer(draws), draws.dtype == torch.float64, count, images, classes, pixels,
            arrays.threads(draws), device, stream, arrays.pointer(maps), arrays.pointer(noise),
            0 if noise is None else noise.shape[0],
        )  # fmt: skip
    return maps


def _uncertainty_fake(draws: Tensor, noise: Tensor | None) -> Tensor:
    return draws.new_empty((4, draws.shape[1], draws.shape[3]))


def _refuse(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "usconf::uncertainty has no gradient; usconf.uncertainty.measures has, of the same maps"
    )


for _device in ("CPU", "CUDA"):
    _library.impl("uncertainty", _uncertainty, _device)
torch.library.register_fake("usconf::uncertainty", _uncertainty_fake, lib=_library)
differentiation.register(_library, "uncertainty", _refuse)
