"""Scan conversion as torch operators.

``usconf::to_beam`` and ``usconf::to_scan`` take the geometry as plain numbers, so that tracers see
through them, and return the image and its mask. Each is linear: its backward is the operator
``usconf::to_beam_transpose`` or ``usconf::to_scan_transpose``, whose own backward is the forward.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from .. import arrays
from ..scan_conversion import (
    TO_BEAM,
    TO_SCAN,
    Conversion,
    Resampled,
    Values,
    convert,
    convert_to_scan,
    is_nearest,
    resample,
    resample_transpose,
)
from . import differentiation

_library = torch.library.Library("usconf", "FRAGMENT")
_call: dict[str, Callable[..., Any]] = {}  # operator by name

_GEOMETRY = "int kind, float[] geometry"
_BEAM = "SymInt samples, SymInt lines, bool nearest=False"
_SCAN = "SymInt height, SymInt width, bool nearest=False"
for _schema in (
    f"to_beam(Tensor image, {_GEOMETRY}, {_BEAM}) -> (Tensor, Tensor)",
    f"to_beam_transpose(Tensor gradient, {_GEOMETRY}, {_SCAN}) -> Tensor",
    f"to_scan(Tensor beam, {_GEOMETRY}, {_SCAN}) -> (Tensor, Tensor)",
    f"to_scan_transpose(Tensor gradient, {_GEOMETRY}, {_BEAM}) -> Tensor",
):
    _library.define(_schema, tags=torch.Tag.pt2_compliant_tag)


def to_beam(
    image: Tensor,
    geometry: Any,
    shape: tuple[int, int] | None = None,
    *,
    interpolation: str = "bilinear",
) -> Resampled:
    """Unroll scan images held in tensors: ``torch.ops.usconf.to_beam`` with a geometry object.

    Parameters
    ----------
    image : torch.Tensor
        (..., H, W): all leading axes count frames. CPU or CUDA.
    geometry, shape, interpolation
        As in `usconf.to_beam`.

    Returns
    -------
    Resampled
        `image` (..., n_samples, n_lines), of the argument's dtype, and `mask` (n_samples, n_lines).
        Differentiable any number of times; the backward is the transposed operator.

    Raises
    ------
    TypeError, ValueError
        As `usconf.to_beam`.

    Examples
    --------
    >>> import torch, usconf, usconf.ops
    >>> fan = usconf.Sector((32, -20), 30, 80, -0.4, 0.4)
    >>> image = torch.rand(2, 1, 64, 64, requires_grad=True)
    >>> usconf.ops.to_beam(image, fan, (100, 50)).image.mean().backward()
    >>> image.grad.shape
    torch.Size([2, 1, 64, 64])
    """
    nearest = is_nearest(interpolation)
    _check(image, "image")
    found = _convert(convert, geometry, image.shape[-2:], shape)
    return Resampled(
        *_call["to_beam"](image, found.kind, found.values, found.samples, found.lines, nearest)
    )


def to_scan(
    beam: Tensor,
    geometry: Any,
    shape: tuple[int, int],
    *,
    interpolation: str = "bilinear",
) -> Resampled:
    """Roll beam images held in tensors up: ``torch.ops.usconf.to_scan`` with a geometry object.

    Parameters
    ----------
    beam : torch.Tensor
        (..., n_samples, n_lines): all leading axes count frames. CPU or CUDA.
    geometry, shape, interpolation
        As in `usconf.to_scan`.

    Returns
    -------
    Resampled
        `image` (..., height, width), of the argument's dtype, and `mask` (height, width).
        Differentiable any number of times; the backward is the transposed operator.

    Raises
    ------
    TypeError, ValueError
        As `usconf.to_scan`.

    Examples
    --------
    >>> import torch, usconf, usconf.ops
    >>> fan = usconf.Sector((32, -20), 30, 80, -0.4, 0.4)
    >>> beam = torch.rand(3, 100, 50, requires_grad=True)
    >>> image, mask = usconf.ops.to_scan(beam, fan, (64, 64))
    >>> image.shape, mask.shape
    (torch.Size([3, 64, 64]), torch.Size([64, 64]))
    """
    nearest = is_nearest(interpolation)
    _check(beam, "beam")
    found = _convert(convert_to_scan, geometry, beam.shape[-2:], shape)
    return Resampled(
        *_call["to_scan"](beam, found.kind, found.values, found.height, found.width, nearest)
    )


def _convert(door: Any, geometry: Any, size: Sequence[int], shape: Any) -> Conversion:
    """What the door makes of a geometry. Tracers take it as constant, and guard what it is from.

    They cannot follow the geometry's own arithmetic, and would miss that it changed.
    """
    if not torch.compiler.is_compiling():
        return door(geometry, tuple(size), shape)
    fields = tuple(_text(getattr(geometry, name)) for name in type(geometry).__match_args__)
    size = tuple(operator.index(length) for length in size)
    shape = None if shape is None else tuple(operator.index(length) for length in shape)
    return Conversion(*_constant(door, type(geometry), fields, size, shape))


def _text(value: Any) -> Any:
    """Floats as text: the tracer then sees numbers, not symbols."""
    if isinstance(value, tuple):
        return tuple(_text(part) for part in value)
    return value.hex() if isinstance(value, float) else value


def _float(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_float(part) for part in value)
    return float.fromhex(value) if isinstance(value, str) else value


@torch.compiler.assume_constant_result
def _constant(
    door: Any, outline: Any, fields: tuple[Any, ...], size: tuple[int, int], shape: Any
) -> tuple[Any, ...]:
    return tuple(door(outline(*_float(fields)), size, shape))


def _check(frames: Tensor, name: str) -> None:
    arrays.check_pixels(frames, name)
    if frames.ndim < 2 or frames.shape[-1] == 0 or frames.shape[-2] == 0:
        raise ValueError(
            f"{name} must have two last axes of at least 1, rows and columns, got shape "
            f"{tuple(frames.shape)}; all leading axes count frames"
        )


def _stack(frames: Tensor, name: str) -> Tensor:
    _check(frames, name)
    return frames.reshape(frames.shape[:-2].numel(), *frames.shape[-2:])


def _conversion(
    kind: int, geometry: Sequence[float], beam: Sequence[int], scan: Sequence[int]
) -> Conversion:
    if kind not in (0, 1) or len(geometry) != 10:
        raise ValueError(
            f"geometry must be ten numbers of kind 0 or 1, got {len(geometry)} of kind {kind}; "
            "take them from geometry.parameters(geometry.beam_grid(image.shape[-2:]))"
        )
    if min(*beam, *scan) < 1:
        raise ValueError(
            f"shape must be two sizes of at least 1, got {tuple(beam)} for the beam image and "
            f"{tuple(scan)} for the scan image; e.g. (512, 256)"
        )
    return Conversion(kind, cast(Values, tuple(geometry)), *beam, *scan)


def _to_beam(
    image: Tensor, kind: int, geometry: Sequence[float], samples: int, lines: int,
    nearest: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    stack = _stack(image, "image")
    conversion = _conversion(kind, geometry, (samples, lines), stack.shape[1:])
    beams, mask = resample(stack, TO_BEAM, nearest, conversion)
    return beams.reshape(*image.shape[:-2], samples, lines), mask


def _to_beam_transpose(
    gradient: Tensor, kind: int, geometry: Sequence[float], height: int, width: int,
    nearest: bool = False,
) -> Tensor:  # fmt: skip
    stack = _stack(gradient, "gradient")
    conversion = _conversion(kind, geometry, stack.shape[1:], (height, width))
    found = resample_transpose(stack, TO_BEAM, nearest, conversion)
    return found.reshape(*gradient.shape[:-2], height, width)


def _to_scan(
    beam: Tensor, kind: int, geometry: Sequence[float], height: int, width: int,
    nearest: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    stack = _stack(beam, "beam")
    conversion = _conversion(kind, geometry, stack.shape[1:], (height, width))
    scans, mask = resample(stack, TO_SCAN, nearest, conversion)
    return scans.reshape(*beam.shape[:-2], height, width), mask


def _to_scan_transpose(
    gradient: Tensor, kind: int, geometry: Sequence[float], samples: int, lines: int,
    nearest: bool = False,
) -> Tensor:  # fmt: skip
    stack = _stack(gradient, "gradient")
    conversion = _conversion(kind, geometry, (samples, lines), stack.shape[1:])
    found = resample_transpose(stack, TO_SCAN, nearest, conversion)
    return found.reshape(*gradient.shape[:-2], samples, lines)


def _fake(
    source: Tensor, kind: int, geometry: Sequence[float], rows: int, columns: int,
    nearest: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    target = source.new_empty((*source.shape[:-2], rows, columns))
    return target, source.new_empty((rows, columns), dtype=torch.bool)


def _fake_transpose(
    source: Tensor, kind: int, geometry: Sequence[float], rows: int, columns: int,
    nearest: bool = False,
) -> Tensor:  # fmt: skip
    return source.new_empty((*source.shape[:-2], rows, columns))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    source, kind, geometry, _, _, nearest = inputs
    # a leading axis may be long; only the frame's size is needed to go back
    ctx.call = kind, geometry, *source.shape[-2:], nearest


def _by_to_beam(ctx: Any, d_beam: Tensor, d_mask: Any) -> tuple[Any, ...]:
    return _call["to_beam_transpose"](d_beam, *ctx.call), *[None] * 5


def _by_to_beam_transpose(ctx: Any, d_image: Tensor) -> tuple[Any, ...]:
    return _call["to_beam"](d_image, *ctx.call)[0], *[None] * 5


def _by_to_scan(ctx: Any, d_scan: Tensor, d_mask: Any) -> tuple[Any, ...]:
    return _call["to_scan_transpose"](d_scan, *ctx.call), *[None] * 5


def _by_to_scan_transpose(ctx: Any, d_beam: Tensor) -> tuple[Any, ...]:
    return _call["to_scan"](d_beam, *ctx.call)[0], *[None] * 5


for _name, _real, _shapes, _backward in (
    ("to_beam", _to_beam, _fake, _by_to_beam),
    ("to_beam_transpose", _to_beam_transpose, _fake_transpose, _by_to_beam_transpose),
    ("to_scan", _to_scan, _fake, _by_to_scan),
    ("to_scan_transpose", _to_scan_transpose, _fake_transpose, _by_to_scan_transpose),
):
    for _device in ("CPU", "CUDA"):
        _library.impl(_name, _real, _device)
    torch.library.register_fake(f"usconf::{_name}", _shapes, lib=_library)
    _call[_name] = differentiation.register(
        _library, _name, _backward, setup_context=_remember, real=_real
    )
