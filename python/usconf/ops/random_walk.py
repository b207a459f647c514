"""The random walk as torch operators.

``usconf::random_walk`` is composed of three inner ones: ``_seeds`` (labels; checks the pixels),
``_factored`` (map and, when a gradient is wanted, the factors) and ``_backward`` (one adjoint
solve). The envelope of mode RF lies outside of them, in torch's own differentiable functions.

The factors come as a tensor of one byte whose storage is as large as they are. A tensor as long as
them would have a size that no tracer can derive from the image's, and torch.compile refuses such
unbacked sizes inside of a composed operator. Whoever copies that byte (offloading hooks) loses the
rest: the backward sees it from the storage's size and eliminates again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import arrays, memory, seeds
from ..random_walk import Preset, check_choices, check_sink_mask, number, resolve
from ..walk import TRAILER, Walk
from . import arguments, differentiation

_library = torch.library.Library("usconf", "FRAGMENT")
_ops = torch.ops.usconf

_PARAMETERS = "Tensor alpha, Tensor beta, Tensor gamma"
_SOLVING = (
    "str? variant, str sink, bool normalise, str solver, SymInt? memory_limit, ScalarType dtype"
)
_SCHEMAS = (
    f"random_walk(Tensor image, {_PARAMETERS}, *, Tensor? sink_mask=None, Tensor? mask=None, "
    'str? variant=None, str mode="B", str sink="all", str nan="raise", str solver="auto", '
    "SymInt? memory_limit=None, ScalarType? dtype=None) -> Tensor",
    "random_walk_seeds(Tensor image, Tensor? sink_mask, Tensor? mask, str mode, str sink, "
    "str nan) -> Tensor",
    f"random_walk_factored(Tensor image, Tensor? labels, {_PARAMETERS}, {_SOLVING}, bool keep) "
    "-> (Tensor, Tensor)",
    f"random_walk_backward(Tensor image, Tensor? labels, {_PARAMETERS}, {_SOLVING}, Tensor map, "
    "Tensor factor, Tensor d_map, bool wants_image) -> (Tensor, Tensor)",
)
for _schema in _SCHEMAS:
    _library.define(_schema, tags=torch.Tag.pt2_compliant_tag)


def random_walk(
    image: Tensor,
    alpha: float | Tensor | None = None,
    beta: float | Tensor | None = None,
    gamma: float | Tensor | None = None,
    *,
    preset: str = "monai",
    sink_mask: Tensor | None = None,
    mask: Tensor | None = None,
    variant: str | None = None,
    mode: str = "B",
    sink: str = "all",
    nan: str = "raise",
    solver: str = "auto",
    memory_limit: int | str | None = None,
    dtype: torch.dtype | str | None = None,
) -> Tensor:
    """Random-walk confidence maps of tensors: ``torch.ops.usconf.random_walk`` with defaults.

    Parameters
    ----------
    image : torch.Tensor
        (..., H, W): all leading axes count frames. CPU or CUDA.
    alpha, beta, gamma : float or 0-d tensor, optional
        As in `usconf.random_walk`; tensors receive gradients.
    sink_mask, mask : torch.Tensor, optional
        (H, W), or the image's shape.
    preset, variant, mode, sink, nan, solver, memory_limit, dtype
        As in `usconf.random_walk`.

    Returns
    -------
    torch.Tensor
        The image's shape, in [0, 1]; float64 for float64 pixels or when asked, else float32.
        Gradients flow to image, alpha, beta and gamma by one adjoint solve. It takes the factors
        the forward kept; when they are larger than `memory_limit` it eliminates again. Without
        gradients nothing is kept.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As `usconf.random_walk`.

    Notes
    -----
    Karamalis et al., Medical Image Analysis 16 (2012) 1101-1112. Maxima and minima (of the image,
    of the edge differences) pass equal shares of gradient to all pixels that attain them, as
    torch.amax does.

    Examples
    --------
    >>> import torch, usconf.ops
    >>> image = torch.rand(2, 1, 32, 24, requires_grad=True)
    >>> beta = torch.tensor(90.0, requires_grad=True)
    >>> usconf.ops.random_walk(image, beta=beta).mean().backward()
    >>> image.grad.shape, beta.grad.shape
    (torch.Size([2, 1, 32, 24]), torch.Size([]))
    """
    arrays.check_pixels(image)
    parameters = resolve(preset, alpha=alpha, beta=beta, gamma=gamma)
    named = zip(Preset._fields, parameters, strict=True)
    tensors = [arguments.parameter(name, value, number) for name, value in named]
    return _ops.random_walk(
        image, *tensors, sink_mask=sink_mask, mask=mask, variant=variant, mode=mode, sink=sink,
        nan=nan, solver=solver, memory_limit=memory.parse_limit(memory_limit),
        dtype=getattr(torch, arrays.result_dtype(image, dtype)),
    )  # fmt: skip


def _random_walk(
    image: Tensor, alpha: Tensor, beta: Tensor, gamma: Tensor, *, sink_mask: Tensor | None = None,
    mask: Tensor | None = None, variant: str | None = None, mode: str = "B", sink: str = "all",
    nan: str = "raise", solver: str = "auto", memory_limit: int | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    check_choices(variant=variant, mode=mode, sink=sink, nan=nan, solver=solver)
    check_sink_mask(sink, sink_mask)
    arguments.check_frames(image)
    dtype = dtype or (torch.float64 if image.dtype == torch.float64 else torch.float32)
    frames = arguments.frames(image)
    masks = (
        arguments.mask("sink_mask", sink_mask, image),
        arguments.mask("mask", mask, image),
    )
    masked = mask is not None or (nan == "mask" and arrays.is_floating(image))
    labels = None
    if masked or mode == "RF" or sink != "all":
        labels = _ops.random_walk_seeds(frames.detach(), *masks, mode, sink, nan)
    if mode == "RF":
        frames = seeds.intensity(frames, labels != seeds.OUTSIDE if masked else None, mode)
    differentiable = (image, alpha, beta, gamma)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in differentiable)
    maps, _ = _ops.random_walk_factored(
        frames, labels, alpha, beta, gamma, variant, sink, mode == "B", solver, memory_limit,
        dtype, keep,
    )  # fmt: skip
    return maps.reshape(image.shape)


def _seeds(
    image: Tensor, sink_mask: Tensor | None, mask: Tensor | None, mode: str, sink: str, nan: str
) -> Tensor:
    pixels, planes = (
        arrays.handy(image.detach()),
        [None if plane is None else arrays.handy(plane) for plane in (sink_mask, mask)],
    )
    valid = seeds.admitted(pixels, planes[1], nan, warn=mode == "B")
    labels = seeds.plant(pixels, valid, sink, planes[0], mode)
    if labels is None:
        labels = seeds.first_and_last(pixels)
    return arrays.restored(labels, image).contiguous()


def _seeds_fake(
    image: Tensor, sink_mask: Tensor | None, mask: Tensor | None, mode: str, sink: str, nan: str
) -> Tensor:
    frames = [plane.shape[0] for plane in (sink_mask, mask) if plane is not None]
    if sink == "min" or (nan == "mask" and arrays.is_floating(image)):
        frames.append(image.shape[0])
    count = 1
    for size in frames:
        count = size if isinstance(count, int) and count == 1 else count
    return image.new_empty((count, *image.shape[1:]), dtype=torch.uint8)


def _walk(
    image: Tensor, labels: Tensor | None, alpha: Tensor, beta: Tensor, gamma: Tensor,
    variant: str | None, sink: str, normalise: bool, dtype: torch.dtype,
) -> Walk:  # fmt: skip
    return Walk(
        image.detach(),
        number("alpha", alpha),
        number("beta", beta),
        number("gamma", gamma),
        variant=variant,
        sink=sink,
        normalise=normalise,
        dtype=str(dtype).removeprefix("torch."),
        outside=labels is not None,
    )


def _factored(
    image: Tensor, labels: Tensor | None, alpha: Tensor, beta: Tensor, gamma: Tensor,
    variant: str | None, sink: str, normalise: bool, solver: str, memory_limit: int | None,
    dtype: torch.dtype, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    walk = _walk(image, labels, alpha, beta, gamma, variant, sink, normalise, dtype).seeded(labels)
    chosen = walk.choose(solver, memory_limit)
    if labels is None:  # else they were made from checked pixels
        seeds.admitted(walk.image, None, "raise")
    maps, factor = walk.solve(chosen, keep and walk.keeps(chosen, memory_limit))
    if factor is None:
        factor = image.new_empty(1, dtype=torch.uint8)
    return maps, factor[:1]


def _factored_fake(
    image: Tensor, labels: Tensor | None, alpha: Tensor, beta: Tensor, gamma: Tensor,
    variant: str | None, sink: str, normalise: bool, solver: str, memory_limit: int | None,
    dtype: torch.dtype, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return image.new_empty(image.shape, dtype=dtype), image.new_empty(1, dtype=torch.uint8)


def _backward(
    image: Tensor, labels: Tensor | None, alpha: Tensor, beta: Tensor, gamma: Tensor,
    variant: str | None, sink: str, normalise: bool, solver: str, memory_limit: int | None,
    dtype: torch.dtype, map: Tensor, factor: Tensor, d_map: Tensor, wants_image: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    walk = _walk(image, labels, alpha, beta, gamma, variant, sink, normalise, dtype).seeded(labels)
    whole = factor.untyped_storage().nbytes() == walk.factor_bytes() + TRAILER
    kept = factor if whole and factor.storage_offset() == 0 else None
    chosen = walk.choose(solver, memory_limit) if kept is None else "direct"
    d_image, d_parameters = walk.backward(chosen, map, kept, d_map, wants_image)
    return map.new_empty(0) if d_image is None else d_image, d_parameters


def _backward_fake(
    image: Tensor, labels: Tensor | None, alpha: Tensor, beta: Tensor, gamma: Tensor,
    variant: str | None, sink: str, normalise: bool, solver: str, memory_limit: int | None,
    dtype: torch.dtype, map: Tensor, factor: Tensor, d_map: Tensor, wants_image: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    d_image = map.new_empty(image.shape if wants_image else 0)
    return d_image, map.new_empty(3, dtype=torch.float64)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:5], *output)
    ctx.rule = inputs[5:11]


def _differentiate(ctx: Any, d_map: Tensor, d_factor: Tensor | None) -> tuple[Any, ...]:
    *inputs, map, factor = ctx.saved_tensors
    image, _, alpha, beta, gamma = inputs
    wanted = ctx.needs_input_grad
    d_image, d_parameters = _ops.random_walk_backward(
        *inputs, *ctx.rule, map, factor, d_map, wanted[0]
    )
    parameters = [
        d_parameters[index].to(tensor) if wanted[2 + index] else None
        for index, tensor in enumerate((alpha, beta, gamma))
    ]
    return d_image.to(image.dtype) if wanted[0] else None, None, *parameters, *[None] * 7


def _refuse(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "the random walk is differentiable once only, got a second backward pass; "
        "leave out create_graph=True"
    )


_library.impl("random_walk", _random_walk, "CompositeImplicitAutograd")
for _name, _real, _fake in (
    ("random_walk_seeds", _seeds, _seeds_fake),
    ("random_walk_factored", _factored, _factored_fake),
    ("random_walk_backward", _backward, _backward_fake),
):
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _real, _device)
    torch.library.register_fake(f"usconf::{_name}", _fake, lib=_library)
differentiation.register(_library, "random_walk_factored", _differentiate, setup_context=_remember)
differentiation.register(_library, "random_walk_backward", _refuse)
