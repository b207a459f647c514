"""The DAG as torch operators.

``usconf::dag`` is composed of four inner ones: ``_valid`` (which pixels count; checks them),
``_smoothed`` (despeckling, which has no gradient), ``_swept`` (the map) and ``_backward`` (the
reverse sweep).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import arrays, seeds
from ..dag import (
    check_combination,
    check_depth,
    check_half_width,
    check_rows,
    check_soft,
    check_words,
    parameter,
    resolve,
    rows_of,
    smoothed,
)
from ..despeckle import region
from ..sweep import Parameters, Sweep
from . import arguments, differentiation
from .despeckle import refuse

_library = torch.library.Library("usconf", "FRAGMENT")
_ops = torch.ops.usconf

_PARAMETERS = "Tensor xi, Tensor alpha, Tensor var, Tensor power"
_SWEEPING = (
    f"Tensor image, Tensor? valid, {_PARAMETERS}, Tensor? reference, Tensor? needle, "
    "Tensor? artifact, SymInt half_width, str? variant, ScalarType dtype"
)
_SCHEMAS = (
    f"dag(Tensor image, {_PARAMETERS}, *, Tensor? reference=None, Tensor? needle=None, "
    "Tensor? artifact=None, Tensor? mask=None, SymInt half_width=10, str? despeckle=None, "
    'int[]? roi=None, str? variant=None, str nan="raise", ScalarType? dtype=None) -> Tensor',
    "dag_valid(Tensor image, Tensor? mask, str nan) -> Tensor",
    "dag_smoothed(Tensor image, Tensor? valid, str despeckle, int[]? roi, ScalarType dtype) "
    "-> Tensor",
    f"dag_swept({_SWEEPING}, bool raw) -> Tensor",
    f"dag_backward({_SWEEPING}, Tensor map, Tensor d_map, bool wants_image, "
    "bool wants_parameters) -> (Tensor, Tensor)",
)
for _schema in _SCHEMAS:
    _library.define(_schema, tags=torch.Tag.pt2_compliant_tag)


def dag(
    image: Tensor,
    xi: float | Tensor | None = None,
    alpha: float | Tensor | None = None,
    var: float | Tensor | None = None,
    power: float | Tensor | None = None,
    *,
    half_width: int = 10,
    despeckle: str | None = "srad",
    roi: tuple[int, int, int, int] | None = None,
    variant: str | None = None,
    preset: str | None = None,
    reference: Tensor | None = None,
    reference_map: Tensor | None = None,
    needle: Tensor | None = None,
    artifact: Tensor | None = None,
    mask: Tensor | None = None,
    nan: str = "raise",
    dtype: torch.dtype | str | None = None,
) -> Tensor:
    """DAG confidence maps of tensors: ``torch.ops.usconf.dag`` with defaults.

    Parameters
    ----------
    image : torch.Tensor
        (..., H, W): all leading axes count frames. CPU or CUDA.
    xi, alpha, var, power : float or 0-d tensor, optional
        As in `usconf.dag`; tensors receive gradients.
    reference, reference_map, needle, artifact, mask : torch.Tensor, optional
        (H, W), or the image's shape.
    half_width, despeckle, roi, variant, preset, nan, dtype
        As in `usconf.dag`.

    Returns
    -------
    torch.Tensor
        The image's shape, in [0, 1]; float64 for float64 pixels or when asked, else float32.
        Gradients flow to image, xi, alpha, var and power by one reverse sweep; to the image with
        ``despeckle=None`` only.

    Raises
    ------
    TypeError, ValueError, ImportError
        As `usconf.dag`.
    RuntimeError
        In a backward pass that wants a gradient through the despeckling, or a second derivative.

    Notes
    -----
    Hung, Chen, Galeotti, ISBI 2021 (arXiv 2011.11956). Maxima and minima of the image pass equal
    shares of gradient to all pixels that attain them, as torch.amax does; where a reference's
    row bounds the confidence, none passes.

    Examples
    --------
    >>> import torch, usconf.ops
    >>> image = torch.rand(2, 1, 32, 24, requires_grad=True)
    >>> xi = torch.tensor(0.1, requires_grad=True)
    >>> usconf.ops.dag(image, xi, despeckle=None).mean().backward()
    >>> image.grad.shape, xi.grad.shape
    (torch.Size([2, 1, 32, 24]), torch.Size([]))
    """
    arrays.check_pixels(image)
    check_half_width(half_width, variant)
    parameters = resolve(preset, xi=xi, alpha=alpha, var=var, power=power)
    named = zip(Parameters._fields, parameters, strict=True)
    tensors = [arguments.parameter(name, value, parameter) for name, value in named]
    references = [plane for plane in (reference, reference_map) if plane is not None]
    masked = mask is not None or (nan == "mask" and arrays.is_floating(image))
    check_combination(variant, despeckle, roi, masked, len(references))
    settings: dict[str, Any] = {
        "mask": mask,
        "half_width": half_width,
        "despeckle": despeckle,
        "roi": roi,
        "variant": variant,
        "nan": nan,
        "dtype": getattr(torch, arrays.result_dtype(image, dtype)),
    }
    rows = None
    if references:
        arguments.check_frames(image)
        with torch.no_grad():
            if reference is None:
                maps = arguments.plane("reference_map", references[0], image)
            else:
                arrays.check_pixels(reference, "reference")
                plane = arguments.plane("reference", reference, image)
                valid = _checked(plane, mask, image, nan)
                if valid is not None and mask is not None and mask.shape == image.shape:
                    plane = plane.expand(valid.shape)
                maps = _ops.dag(plane, *tensors, **settings | {"mask": valid})
            rows = rows_of(maps)
    return _ops.dag(image, *tensors, reference=rows, needle=needle, artifact=artifact, **settings)


def _checked(plane: Tensor, mask: Tensor | None, image: Tensor, nan: str) -> Tensor | None:
    """The mask as planes; ValueError where the reference is not finite."""
    valid = arguments.mask("mask", mask, image)
    if nan == "raise" and not torch.compiler.is_compiling():  # else it were called the image
        seen = None if valid is None else arrays.handy(valid)
        seeds.check_finite(arrays.handy(plane), seen, "reference")
    return valid


def _dag(
    image: Tensor, xi: Tensor, alpha: Tensor, var: Tensor, power: Tensor, *,
    reference: Tensor | None = None, needle: Tensor | None = None,
    artifact: Tensor | None = None, mask: Tensor | None = None, half_width: int = 10,
    despeckle: str | None = None, roi: Sequence[int] | None = None, variant: str | None = None,
    nan: str = "raise", dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    check_words(variant, despeckle, nan)
    arguments.check_frames(image)
    masked = mask is not None or (nan == "mask" and arrays.is_floating(image))
    check_combination(variant, despeckle, roi, masked, 0)
    region(roi, image.shape[-2], image.shape[-1])
    dtype = dtype or (torch.float64 if image.dtype == torch.float64 else torch.float32)
    frames = arguments.frames(image)
    soft = [
        None if plane is None else arguments.plane(name, plane.detach(), image)
        for name, plane in (("needle", needle), ("artifact", artifact))
    ]
    valid = None
    if masked:
        valid = _ops.dag_valid(frames.detach(), arguments.mask("mask", mask, image), nan)
    f = frames if variant is None else arrays.unit(frames)
    if despeckle is not None:
        f = _ops.dag_smoothed(f, valid, despeckle, roi, dtype)
    maps = _call_swept(
        f, valid, xi, alpha, var, power, reference, *soft, half_width, variant, dtype,
        despeckle is None,
    )  # fmt: skip
    return maps.reshape(image.shape)


def _valid(image: Tensor, mask: Tensor | None, nan: str) -> Tensor:
    plane = None if mask is None else arrays.handy(mask)
    valid = seeds.valid_pixels(arrays.handy(image.detach()), plane, nan)
    found = arrays.restored(valid, image)
    return found.clone() if found is mask or plane is valid else found


def _valid_fake(image: Tensor, mask: Tensor | None, nan: str) -> Tensor:
    if nan == "mask" and arrays.is_floating(image):
        return image.new_empty(image.shape, dtype=torch.bool)
    assert mask is not None  # `_dag` asks for valid pixels only then
    return torch.empty_like(mask)


def _smoothed(
    image: Tensor, valid: Tensor | None, despeckle: str, roi: Sequence[int] | None,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    if valid is None:
        seeds.admitted(image.detach(), None, "raise", look=True)
    edges = None if roi is None else tuple(roi)
    return smoothed(image.detach(), valid, despeckle, edges, str(dtype).removeprefix("torch."))


def _smoothed_fake(
    image: Tensor, valid: Tensor | None, despeckle: str, roi: Sequence[int] | None,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    return image.new_empty(image.shape, dtype=dtype)


def _sweep(
    image: Tensor, valid: Tensor | None, xi: Tensor, alpha: Tensor, var: Tensor, power: Tensor,
    reference: Tensor | None, needle: Tensor | None, artifact: Tensor | None, half_width: int,
    variant: str | None, dtype: torch.dtype,
) -> Sweep:  # fmt: skip
    given = zip(Parameters._fields, (xi, alpha, var, power), strict=True)
    values = Parameters(*(parameter(name, value) for name, value in given))
    check_depth(values.alpha, values.xi, image.shape[1])
    check_half_width(half_width, variant)
    if reference is not None:
        reference = reference.detach().to(image.device).reshape(-1, image.shape[1])
        if reference.shape[0] not in (1, image.shape[0]):
            raise ValueError(
                f"reference must hold rows for one frame or {image.shape[0]}, got "
                f"{reference.shape[0]}; the largest confidence of each row"
            )
        check_rows(reference, variant)
    name = str(dtype).removeprefix("torch.")
    return Sweep(
        image.detach(), values, half_width, variant, name, valid, reference, needle, artifact
    )


def _swept(
    image: Tensor, valid: Tensor | None, xi: Tensor, alpha: Tensor, var: Tensor, power: Tensor,
    reference: Tensor | None, needle: Tensor | None, artifact: Tensor | None, half_width: int,
    variant: str | None, dtype: torch.dtype, raw: bool,
) -> Tensor:  # fmt: skip
    sweep = _sweep(
        image, valid, xi, alpha, var, power, reference, needle, artifact, half_width, variant, dtype
    )
    if raw and valid is None:
        seeds.admitted(image.detach(), None, "raise")
    check_soft("needle", needle)
    check_soft("artifact", artifact)
    return sweep.solve()


def _swept_fake(
    image: Tensor, valid: Tensor | None, xi: Tensor, alpha: Tensor, var: Tensor, power: Tensor,
    reference: Tensor | None, needle: Tensor | None, artifact: Tensor | None, half_width: int,
    variant: str | None, dtype: torch.dtype, raw: bool,
) -> Tensor:  # fmt: skip
    return image.new_empty(image.shape, dtype=dtype)


def _backward(
    image: Tensor, valid: Tensor | None, xi: Tensor, alpha: Tensor, var: Tensor, power: Tensor,
    reference: Tensor | None, needle: Tensor | None, artifact: Tensor | None, half_width: int,
    variant: str | None, dtype: torch.dtype, map: Tensor, d_map: Tensor, wants_image: bool,
    wants_parameters: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    sweep = _sweep(
        image, valid, xi, alpha, var, power, reference, needle, artifact, half_width, variant, dtype
    )
    d_image, d_parameters = sweep.backward(map, d_map, wants_image, wants_parameters)
    return (
        map.new_empty(0) if d_image is None else d_image,
        map.new_empty(0, dtype=torch.float64) if d_parameters is None else d_parameters,
    )


def _backward_fake(
    image: Tensor, valid: Tensor | None, xi: Tensor, alpha: Tensor, var: Tensor, power: Tensor,
    reference: Tensor | None, needle: Tensor | None, artifact: Tensor | None, half_width: int,
    variant: str | None, dtype: torch.dtype, map: Tensor, d_map: Tensor, wants_image: bool,
    wants_parameters: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    d_image = map.new_empty(image.shape if wants_image else 0)
    return d_image, map.new_empty(4 if wants_parameters else 0, dtype=torch.float64)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:9], output)
    ctx.rule = inputs[9:12]


def _differentiate(ctx: Any, d_map: Tensor) -> tuple[Any, ...]:
    *inputs, map = ctx.saved_tensors
    wanted = ctx.needs_input_grad
    d_image, d_parameters = _call_backward(
        *inputs, *ctx.rule, map, d_map, wanted[0], any(wanted[2:6])
    )
    parameters = [
        d_parameters[index].to(tensor) if wanted[2 + index] else None
        for index, tensor in enumerate(inputs[2:6])
    ]
    image = d_image.to(inputs[0].dtype) if wanted[0] else None
    return image, None, *parameters, *[None] * 7


def _refuse(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "the DAG is differentiable once only, got a second backward pass; "
        "leave out create_graph=True"
    )


_library.impl("dag", _dag, "CompositeImplicitAutograd")
for _name, _real, _fake in (
    ("dag_valid", _valid, _valid_fake),
    ("dag_smoothed", _smoothed, _smoothed_fake),
    ("dag_swept", _swept, _swept_fake),
    ("dag_backward", _backward, _backward_fake),
):
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _real, _device)
    torch.library.register_fake(f"usconf::{_name}", _fake, lib=_library)
_call_swept = differentiation.register(
    _library, "dag_swept", _differentiate, setup_context=_remember, real=_swept
)
differentiation.register(_library, "dag_smoothed", refuse)
_call_backward = differentiation.register(_library, "dag_backward", _refuse, real=_backward)
