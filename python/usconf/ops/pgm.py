"""The annotation model's loss as torch operators.

``usconf::pgm_loss`` finds value and gradient in one pass; ``_loss_backward`` scales the latter.
``usconf::pgm_map`` (every pixel's terms) and ``_map_backward`` are for reduction="none".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import arrays
from ..pgm import (
    PARTS,
    check_arrays,
    check_decay,
    check_reduction,
    energy,
    evaluate,
    refuse_values,
    scale_in_place,
    slope,
)
from . import arguments, differentiation

_library = torch.library.Library("usconf", "FRAGMENT")
_ops = torch.ops.usconf

_ENERGY = (
    "Tensor confidence, Tensor labels, Tensor? valid, float gamma, float s, float sigma, "
    "float[] label_weights, bool constants, bool from_logits"
)
_SCHEMAS = (
    f"pgm_loss({_ENERGY}, bool mean, bool wants_gradient) -> (Tensor, Tensor, Tensor)",
    "pgm_loss_backward(Tensor confidence, Tensor gradient, Tensor sums, Tensor d_loss, "
    "bool divide) -> Tensor",
    f"pgm_map({_ENERGY}, bool parts) -> Tensor",
    f"pgm_map_backward({_ENERGY}, Tensor d_map) -> Tensor",
)
for _schema in _SCHEMAS:
    _library.define(_schema, tags=torch.Tag.pt2_compliant_tag)


def pgm_loss(
    confidence: Tensor,
    labels: Tensor,
    *,
    gamma: float = 75.0,
    s: float | None = None,
    decay_total: float | None = None,
    sigma: float = 0.25,
    reduction: str = "mean",
    constants: bool = False,
    from_logits: bool = False,
    label_weights: Sequence[float] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """`usconf.pgm_loss` of tensors: value and gradient by one pass of ``usconf::pgm_loss``.

    Parameters
    ----------
    confidence : torch.Tensor
        (..., H, W) probabilities or, with `from_logits`, logits; CPU or CUDA. Gradients flow to it.
    labels : torch.Tensor
        uint8 of the same shape: 0 None, 1 Good, 2 Bad.
    mask : torch.Tensor, optional
        Nonzero = valid; (H, W) or the confidence's shape.
    gamma, s, decay_total, sigma, reduction, constants, from_logits, label_weights
        As in `usconf.pgm_loss`.

    Returns
    -------
    torch.Tensor
        0-d, or with reduction="none" of the confidence's shape; float64 for float64, else float32.

    Raises
    ------
    TypeError, ValueError
        As `usconf.pgm_loss`. On CUDA a wrong label or probability makes the loss NaN instead.
    RuntimeError
        In a backward pass that wants a second derivative.

    Notes
    -----
    Ronchetti et al., "Beyond Shadows", eq. 2-6. float16 and bfloat16 are computed as float32, and
    their gradient is rounded after it was scaled: in float16 a mean's would underflow before.

    Examples
    --------
    >>> import torch, usconf.ops
    >>> logits = torch.zeros(2, 1, 32, 24, requires_grad=True)
    >>> labels = torch.zeros(2, 1, 32, 24, dtype=torch.uint8)
    >>> labels[:, :, 20:] = 2
    >>> loss = usconf.ops.pgm_loss(logits, labels, from_logits=True)
    >>> loss.backward()
    >>> logits.grad.shape
    torch.Size([2, 1, 32, 24])
    """
    check_reduction(reduction)
    *stacks, given = _prepared(
        confidence, labels, gamma, s, decay_total, sigma, constants, from_logits, label_weights,
        mask,
    )  # fmt: skip
    if reduction == "none":
        return _call_map(*stacks, *given, False).reshape(confidence.shape)
    wants = torch.is_grad_enabled() and confidence.requires_grad
    return _call_loss(*stacks, *given, reduction == "mean", wants)[0]


def pgm_loss_with_parts(
    confidence: Tensor,
    labels: Tensor,
    *,
    gamma: float = 75.0,
    s: float | None = None,
    decay_total: float | None = None,
    sigma: float = 0.25,
    reduction: str = "mean",
    constants: bool = False,
    from_logits: bool = False,
    label_weights: Sequence[float] | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and its parts from the same pass, for training loops that log both.

    Parameters
    ----------
    confidence, labels, gamma, s, decay_total, sigma, constants, from_logits, label_weights, mask
        As in `pgm_loss`.
    reduction : {"mean", "sum"}
        As in `pgm_loss`.

    Returns
    -------
    loss : torch.Tensor
        As `pgm_loss` returns it.
    parts : dict
        "unary", "vertical", "horizontal": 0-d float64 tensors without gradient that add up to the
        loss, on the confidence's device.

    Raises
    ------
    TypeError, ValueError, RuntimeError
        As `pgm_loss`; and if `reduction` is "none".

    Notes
    -----
    Ronchetti et al., "Beyond Shadows", eq. 2-6.

    Examples
    --------
    >>> import torch, usconf.ops
    >>> x, labels = torch.full((8, 6), 0.5), torch.zeros((8, 6), dtype=torch.uint8)
    >>> loss, parts = usconf.ops.pgm_loss_with_parts(x, labels)
    >>> {name: round(part.item(), 4) for name, part in parts.items()}
    {'unary': 0.1386, 'vertical': 0.0769, 'horizontal': 0.0}
    """
    check_reduction(reduction)
    if reduction == "none":
        raise ValueError(
            'reduction must be "mean" or "sum" with parts of a loss, got \'none\'; '
            "usconf.pgm_parts returns their maps"
        )
    *stacks, given = _prepared(
        confidence, labels, gamma, s, decay_total, sigma, constants, from_logits, label_weights,
        mask,
    )  # fmt: skip
    mean = reduction == "mean"
    wants = torch.is_grad_enabled() and confidence.requires_grad
    loss, sums, _ = _call_loss(*stacks, *given, mean, wants)
    found = sums[:3] / sums[3].clamp(min=1) if mean else sums[:3]
    return loss, dict(zip(PARTS, found.unbind(), strict=True))


def pgm_parts(confidence: Tensor, labels: Tensor, **given: Any) -> dict[str, Tensor]:
    """`usconf.pgm_parts` of tensors.

    Parameters
    ----------
    confidence, labels, **given
        As in `pgm_loss`.

    Returns
    -------
    dict
        "unary", "vertical", "horizontal": 0-d float64 tensors, or maps with reduction="none";
        without gradient.

    Raises
    ------
    TypeError, ValueError
        As `pgm_loss`.

    Notes
    -----
    Ronchetti et al., "Beyond Shadows", eq. 2-6.

    Examples
    --------
    >>> import torch, usconf.ops
    >>> x, labels = torch.full((8, 6), 0.5), torch.zeros((8, 6), dtype=torch.uint8)
    >>> sorted(usconf.ops.pgm_parts(x, labels))
    ['horizontal', 'unary', 'vertical']
    """
    confidence = confidence.detach()
    if given.get("reduction", "mean") != "none":
        return pgm_loss_with_parts(confidence, labels, **given)[1]
    values: dict[str, Any] = {
        "gamma": 75.0, "s": None, "decay_total": None, "sigma": 0.25, "constants": False,
        "from_logits": False, "label_weights": None, "mask": None,
    }  # fmt: skip
    values |= {name: value for name, value in given.items() if name != "reduction"}
    *stacks, numbers = _prepared(confidence, labels, **values)
    maps = _call_map(*stacks, *numbers, True)
    return {name: maps[index].reshape(confidence.shape) for index, name in enumerate(PARTS)}


def _prepared(
    confidence: Tensor, labels: Tensor, gamma: Any, s: Any, decay_total: Any, sigma: Any,
    constants: bool, from_logits: bool, label_weights: Any, mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor | None, tuple[Any, ...]]:  # fmt: skip
    """(frames, H, W) of confidence, labels and mask, and the numbers behind them in the schemas."""
    check_arrays(confidence, labels)
    check_decay(s, decay_total)
    if labels.device != confidence.device:
        raise ValueError(
            f"labels must be on the confidence's device {confidence.device}, got {labels.device}; "
            "use labels.to(confidence.device)"
        )
    valid = arguments.mask("mask", mask, confidence)
    if confidence.dtype not in (torch.float32, torch.float64):
        confidence = confidence.float()
    s = slope(s, decay_total, confidence.shape[-2])
    weights = (1.0, 1.0, 1.0) if label_weights is None else label_weights
    numbers = (gamma, s, sigma, weights, bool(constants), bool(from_logits))
    return arguments.frames(confidence), arguments.frames(labels), valid, numbers


def _loss(
    confidence: Tensor, labels: Tensor, valid: Tensor | None, gamma: float, s: float, sigma: float,
    label_weights: Sequence[float], constants: bool, from_logits: bool, mean: bool,
    wants_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    law = energy(gamma, s, sigma, label_weights, constants, from_logits)
    confidence, labels = confidence.detach().contiguous(), labels.contiguous()
    loss, sums = confidence.new_empty(()), confidence.new_empty(5, dtype=torch.float64)
    gradient = _recycled(confidence) if wants_gradient else None
    evaluate(
        confidence, labels, _contiguous(valid), law, mean, loss=loss, sums=sums, gradient=gradient
    )
    _check_values(sums, confidence, labels, from_logits)
    return loss, sums, confidence.new_empty(0) if gradient is None else gradient


def _recycled(like: Tensor) -> Tensor:
    """Memory for a gradient. First touch of fresh one costs as much as the gradient itself."""
    size = like.numel() * like.element_size()
    if size < 2**18 or like.device.type != "cpu":
        return torch.empty_like(like)
    return arrays.block(like, size).view(like.dtype).view(like.shape)


def _contiguous(plane: Tensor | None) -> Tensor | None:
    return None if plane is None else plane.contiguous()


def _check_values(sums: Tensor, confidence: Tensor, labels: Tensor, from_logits: bool) -> None:
    # To look costs a wait for the device.
    if sums.device.type == "cpu" and sums.tolist()[4] > 0:
        refuse_values(confidence, labels, from_logits)


def _loss_fake(
    confidence: Tensor, labels: Tensor, valid: Tensor | None, gamma: float, s: float, sigma: float,
    label_weights: Sequence[float], constants: bool, from_logits: bool, mean: bool,
    wants_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        confidence.new_empty(()),
        confidence.new_empty(5, dtype=torch.float64),
        confidence.new_empty(confidence.shape if wants_gradient else 0),
    )


def _remember_loss(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, sums, gradient = output
    ctx.mark_non_differentiable(sums, gradient)
    ctx.set_materialize_grads(False)  # or zeros are made for these two
    ctx.save_for_backward(inputs[0], gradient, sums)
    ctx.divide = inputs[9] and inputs[2] is not None  # else the pass has done it


def _differentiate_loss(ctx: Any, d_loss: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if d_loss is None:
        return (None,) * 11
    # What is traced, and what may be differentiated again (which is refused), needs the operator.
    traced = torch.compiler.is_compiling() or type(d_loss) is not Tensor
    by_operator = traced or torch.is_grad_enabled()
    confidence, gradient, sums = ctx.saved_tensors
    if by_operator:
        return _ops.pgm_loss_backward(confidence, gradient, sums, d_loss, ctx.divide), *[None] * 10
    d_loss = d_loss.resolve_neg()  # torch's lazy minus is not in memory, nor are its lazy zeros
    in_memory = not d_loss._is_zerotensor()
    if ctx.ours and in_memory and gradient.shape == confidence.shape and not _keeps_graph():
        # A graph that ends here can give its own; loss.backward() has nothing to multiply with.
        scale_in_place(gradient, _scale(gradient, sums, d_loss, ctx.divide))
        return gradient, *[None] * 10
    return _loss_backward(confidence, gradient, sums, d_loss, ctx.divide), *[None] * 10


def _scale(gradient: Tensor, sums: Tensor, d_loss: Tensor, divide: bool) -> Tensor:
    return (d_loss / sums[3].clamp(min=1)).to(gradient.dtype) if divide else d_loss


def _keeps_graph() -> bool:
    asked = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return asked is None or bool(asked())


def _loss_backward(
    confidence: Tensor, gradient: Tensor, sums: Tensor, d_loss: Tensor, divide: bool
) -> Tensor:
    if gradient.shape != confidence.shape:
        raise RuntimeError(
            "wants_gradient must be True where a gradient is wanted, got False; "
            "call usconf.ops.pgm_loss"
        )
    scale = _scale(gradient, sums, d_loss, divide)
    return torch.mul(gradient, scale, out=_recycled(gradient))


def _loss_backward_fake(
    confidence: Tensor, gradient: Tensor, sums: Tensor, d_loss: Tensor, divide: bool
) -> Tensor:
    return confidence.new_empty(confidence.shape)


def _map(
    confidence: Tensor, labels: Tensor, valid: Tensor | None, gamma: float, s: float, sigma: float,
    label_weights: Sequence[float], constants: bool, from_logits: bool, parts: bool,
) -> Tensor:  # fmt: skip
    law = energy(gamma, s, sigma, label_weights, constants, from_logits)
    confidence, labels = confidence.detach().contiguous(), labels.contiguous()
    maps = confidence.new_empty((3, *confidence.shape) if parts else confidence.shape)
    sums = confidence.new_empty(5, dtype=torch.float64)
    evaluate(confidence, labels, _contiguous(valid), law, False, sums=sums, maps=maps)
    _check_values(sums, confidence, labels, from_logits)
    return maps


def _map_fake(
    confidence: Tensor, labels: Tensor, valid: Tensor | None, gamma: float, s: float, sigma: float,
    label_weights: Sequence[float], constants: bool, from_logits: bool, parts: bool,
) -> Tensor:  # fmt: skip
    return confidence.new_empty((3, *confidence.shape) if parts else confidence.shape)


def _map_backward(
    confidence: Tensor, labels: Tensor, valid: Tensor | None, gamma: float, s: float, sigma: float,
    label_weights: Sequence[float], constants: bool, from_logits: bool, d_map: Tensor,
) -> Tensor:  # fmt: skip
    law = energy(gamma, s, sigma, label_weights, constants, from_logits)
    confidence, labels = confidence.detach().contiguous(), labels.contiguous()
    weights = d_map.to(confidence.dtype).contiguous()
    gradient, sums = torch.empty_like(confidence), confidence.new_empty(5, dtype=torch.float64)
    evaluate(
        confidence, labels, _contiguous(valid), law, False, sums=sums, gradient=gradient,
        d_map=weights,
    )  # fmt: skip
    return gradient


def _map_backward_fake(
    confidence: Tensor, labels: Tensor, valid: Tensor | None, gamma: float, s: float, sigma: float,
    label_weights: Sequence[float], constants: bool, from_logits: bool, d_map: Tensor,
) -> Tensor:  # fmt: skip
    return confidence.new_empty(confidence.shape)


def _remember_map(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.numbers, ctx.parts = inputs[3:9], inputs[9]


def _differentiate_map(ctx: Any, d_map: Tensor) -> tuple[Any, ...]:
    if ctx.parts:
        raise RuntimeError("maps by parts must not be differentiated; take reduction='none'")
    return _ops.pgm_map_backward(*ctx.saved_tensors, *ctx.numbers, d_map), *[None] * 9


def _refuse(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "the annotation model's loss is differentiable once only, got a second backward pass; "
        "leave out create_graph=True"
    )


for _name, _real, _fake in (
    ("pgm_loss", _loss, _loss_fake),
    ("pgm_loss_backward", _loss_backward, _loss_backward_fake),
    ("pgm_map", _map, _map_fake),
    ("pgm_map_backward", _map_backward, _map_backward_fake),
):
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _real, _device)
    torch.library.register_fake(f"usconf::{_name}", _fake, lib=_library)
_call_loss = differentiation.register(
    _library, "pgm_loss", _differentiate_loss, setup_context=_remember_loss, real=_loss
)
_call_map = differentiation.register(
    _library, "pgm_map", _differentiate_map, setup_context=_remember_map, real=_map
)
for _name in ("pgm_loss_backward", "pgm_map_backward"):
    differentiation.register(_library, _name, _refuse)
