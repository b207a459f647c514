"""Random-walk confidence maps (Karamalis et al. 2012): the public function and its one door."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any, NamedTuple

from . import arrays, memory, seeds
from .walk import SOLVERS, VARIANTS, Walk


class Preset(NamedTuple):
    """Parameters of a published source."""

    alpha: float
    beta: float
    gamma: float


PRESETS = {
    # MONAI's UltrasoundConfidenceMapTransform and the authors' MATLAB code
    "monai": Preset(2.0, 90.0, 0.05),
    # the paper sets alpha = 1 in MONAI and leaves the rest
    "beyond_shadows": Preset(1.0, 90.0, 0.05),
    # the paper gives alpha and beta; gamma is MONAI's
    "duque2023": Preset(0.5, 100.0, 0.05),
}

CHOICES: dict[str, tuple[Any, ...]] = {
    "variant": tuple(VARIANTS),
    "mode": ("B", "RF"),
    "sink": ("all", "mid", "min", "mask"),
    "nan": ("raise", "mask"),
    "solver": ("auto", *SOLVERS),
}


def check_choices(choices: dict[str, tuple[Any, ...]] = CHOICES, /, **chosen: Any) -> None:
    """ValueError for a word that is none of its argument's."""
    for name, value in chosen.items():
        if not any(value is word or value == word for word in choices[name]):
            words = ", ".join(repr(word) for word in choices[name])
            raise ValueError(f"{name} must be one of {words}, got {value!r}; see the docstring")


def check_sink_mask(sink: str, sink_mask: Any) -> None:
    """ValueError unless sink_mask comes with sink="mask", and only then."""
    if sink == "mask" and sink_mask is None:
        raise ValueError(
            'sink_mask must be given for sink="mask", got None; its nonzero pixels are the sinks'
        )
    if sink != "mask" and sink_mask is not None:
        raise ValueError(
            f'sink_mask must come with sink="mask", got sink={sink!r}; write sink="mask"'
        )


def number(name: str, value: Any) -> float:
    """A parameter as a float; ValueError or TypeError unless it is finite and not negative."""
    if getattr(value, "ndim", 0) != 0:
        raise ValueError(
            f"{name} must be a number or a 0-d tensor, got shape {tuple(value.shape)}; "
            "all frames share it"
        )
    if not isinstance(value, numbers.Real) and not hasattr(value, "ndim"):
        raise TypeError(
            f"{name} must be a number or a 0-d tensor, got {type(value).__name__}; "
            "None takes the preset's value"
        )
    try:
        found = float(value.item() if hasattr(value, "ndim") else value)
    except TypeError:
        raise TypeError(f"{name} must be real, got {value!r}; it is no complex number") from None
    if not math.isfinite(found) or found < 0:
        raise ValueError(f"{name} must be finite and not negative, got {found:g}; see preset=")
    return found


def resolve(preset: str, **given: Any) -> tuple[Any, ...]:
    """alpha, beta, gamma: what was given, else the preset's value."""
    if preset not in PRESETS:
        words = ", ".join(repr(name) for name in PRESETS)
        raise ValueError(f"preset must be one of {words}, got {preset!r}; or give all parameters")
    values = PRESETS[preset]._asdict()
    return tuple(values[name] if given[name] is None else given[name] for name in values)


class Door(NamedTuple):
    """Checked arguments. image (frames, H, W); masks (1 or frames, H, W) booleans or None."""

    layout: arrays.Layout
    image: Any
    mask: Any
    sink_mask: Any
    dtype: str


def enter(image: Any, mask: Any, sink: str, sink_mask: Any, axes: str | None, dtype: Any) -> Door:
    """Check what depends on the image's shape and dtype, not on its pixels."""
    arrays.check_pixels(image)
    check_sink_mask(sink, sink_mask)
    layout = arrays.layout(tuple(image.shape), axes)
    return Door(
        layout,
        layout.frames(image),
        None if mask is None else layout.companion(mask, image, "mask"),
        None if sink_mask is None else layout.companion(sink_mask, image, "sink_mask"),
        arrays.result_dtype(image, dtype),
    )


def inspect(walk: Walk, mask: Any, sink_mask: Any, mode: str, nan: str) -> Walk:
    """Check the pixels and place the seeds; mode RF: replace the pixels by their envelope."""
    valid = seeds.admitted(walk.image, mask, nan, warn=mode == "B")
    labels = seeds.plant(walk.image, valid, walk.sink, sink_mask, mode)
    if mode == "RF":
        scaled = seeds.intensity(walk.image, valid, mode)
        walk = dataclasses.replace(walk, image=scaled, normalise=False)
    return walk.seeded(labels)


def random_walk(
    image: Any,
    *,
    alpha: Any = None,
    beta: Any = None,
    gamma: Any = None,
    preset: str = "monai",
    variant: str | None = None,
    mode: str = "B",
    sink: str = "all",
    sink_mask: Any = None,
    mask: Any = None,
    nan: str = "raise",
    axes: str | None = None,
    solver: str = "auto",
    memory_limit: int | str | None = None,
    dtype: Any = None,
) -> Any:
    """Confidence map by random walks: exact, for one frame or many.

    The confidence of a pixel is the probability that a random walker starting there reaches the
    transducer (first row) before a sink (last row); steps across strong edges and sideways are
    unlikely, and more so the deeper.

    Parameters
    ----------
    image : numpy.ndarray, torch.Tensor or cupy.ndarray
        Frames (H, W), (1, H, W) or (B, 1, H, W), rows = depth, columns = scanlines, transducer at
        row 0; other layouts through `axes`. uint8, uint16, int16, float16, float32, float64
        (torch: bfloat16 too). Any strides; never written to.
    alpha : float or 0-d tensor, optional
        Attenuation, the paper's alpha: pixel values are weighted by 1 - exp(-alpha y/(H-1)).
    beta : float or 0-d tensor, optional
        Contrast, the paper's beta: edge weights are exp(-beta d) + 1e-5.
    gamma : float or 0-d tensor, optional
        Penalty of lateral and diagonal steps, the paper's gamma, added to d.
    preset : {"monai", "beyond_shadows", "duque2023"}
        Values (alpha, beta, gamma) of the parameters left out. "monai" (2, 90, 0.05): MONAI and
        the authors' MATLAB code. "beyond_shadows" (1, 90, 0.05): that paper sets alpha = 1 in
        MONAI. "duque2023" (0.5, 100, 0.05): the paper gives alpha and beta only.
    variant : {None, "monai_1_3"}
        None: the weighting of the authors' MATLAB code and of MONAI >= 1.4. "monai_1_3": MONAI
        <= 1.3, gamma on the vertical edges instead and a floor of 1e-6.
    mode : {"B", "RF"}
        "RF": the image holds radio-frequency lines; they are scaled to [0, 1] and replaced by the
        magnitude of their analytic signal along the depth (MONAI's behaviour; for lines with an
        offset take `usconf.envelope` and mode "B").
    sink : {"all", "mid", "min", "mask"}
        "all": the last row. "mid": its pixel W // 2. "min": every minimum of its pixels in the
        columns [int(.1W), W - int(.1W)), before attenuation. "mask": see `sink_mask`.
        With a mask, the last valid pixel of each column stands for the last row ("mid": none if
        column W // 2 holds no valid pixel). Where source and sink meet the source wins. Without
        any sink the map is 1.
    sink_mask : array, optional
        Nonzero = sink, (H, W) or the image's shape; with sink="mask" only. Pixels that `mask`
        leaves out are no sinks.
    mask : array, optional
        Nonzero = valid pixel, (H, W) or the image's shape. The first valid pixel of each column
        is source. The map is 0 outside and where no valid path leads to a source.
    nan : {"raise", "mask"}
        What to do with NaN and infinite valid pixels: refuse them, or leave them out like `mask`.
    axes : str, optional
        A letter for each axis: h depth, w scanlines, t time, b batch, c channel (of length 1);
        e.g. "thw" for a clip.
    solver : {"auto", "direct", "iterative"}
        "direct": nested dissection. "iterative": conjugate gradients with multigrid, slower and
        lean; not on a GPU, and it does not converge for variant="monai_1_3". "auto": direct where
        it fits into `memory_limit`, else iterative where that is to be had.
    memory_limit : int or str, optional
        Bytes the call may take, or text such as "2GB". Default: most of what is free.
    dtype : float32 or float64, optional
        The map's; float64 costs about twice the time. Default: float64 for float64 pixels, else
        float32.

    Returns
    -------
    same kind of array
        The map, in [0, 1], of the image's library, device and shape. float32 maps are exact to
        1e-6. Torch gradients flow to image, alpha, beta and gamma.

    Raises
    ------
    TypeError
        If an argument is of another type; complex images, unsupported dtypes.
    ValueError
        If a shape is ambiguous, a parameter negative, a word unknown, a mask of another shape,
        the image empty (no rows or columns), or NaN or Inf met with nan="raise". On a GPU these are
        not looked for without a mask, since the host would have to wait: the frame's map is NaN.
    MemoryError
        If the solver does not fit into `memory_limit`, before anything large is allocated.
    RuntimeError
        If the solver's map does not settle: an extreme parameter, or the iterative solver where it
        does not converge.

    Warns
    -----
    UserWarning
        If the picture is a fan, or its first row is black (mode "B", no mask): the first row is
        then not the transducer. `usconf.confidence` with ``geometry=`` sees to both.

    Notes
    -----
    Karamalis, Wein, Klein, Navab: "Ultrasound confidence maps using random walks", Medical Image
    Analysis 16 (2012) 1101-1112; the system is the one of the authors' MATLAB code. Equal input
    gives equal maps to the last bit on one machine, for any number of threads.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> clip = np.random.default_rng(0).integers(0, 256, (3, 64, 48), dtype=np.uint8)
    >>> map = usconf.random_walk(clip, beta=80, axes="thw")
    >>> map.shape, map.dtype.name
    ((3, 64, 48), 'float32')
    """
    check_choices(variant=variant, mode=mode, sink=sink, nan=nan, solver=solver)
    limit = memory.parse_limit(memory_limit)
    parameters = resolve(preset, alpha=alpha, beta=beta, gamma=gamma)
    layout, frames, mask, sink_mask, dtype = enter(image, mask, sink, sink_mask, axes, dtype)
    if arrays.kind(frames) == "torch":
        from .ops import random_walk as operator

        maps = operator(
            frames, *parameters, sink_mask=sink_mask, mask=mask, variant=variant, mode=mode,
            sink=sink, nan=nan, solver=solver, memory_limit=limit, dtype=dtype,
        )  # fmt: skip
        return layout.restore(maps)
    alpha, beta, gamma = (number(*named) for named in zip(Preset._fields, parameters, strict=True))
    walk = Walk(frames, alpha, beta, gamma, variant, sink, dtype=dtype, outside=mask is not None)
    chosen = walk.choose(solver, limit)
    return layout.restore(inspect(walk, mask, sink_mask, mode, nan).solve(chosen)[0])
