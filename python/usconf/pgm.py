"""The annotation model of Ronchetti et al. as a loss: the public functions and their one door."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import _core, arrays

REDUCTIONS = ("mean", "sum", "none")
DECAY = 3 / 2560  # the paper's s: 0.3 over 256 rows
PARTS = ("unary", "vertical", "horizontal")


class Energy(NamedTuple):
    """The parameters as the core takes them."""

    gamma: float
    s: float
    sigma: float
    label_weights: tuple[float, float, float]
    constants: bool
    from_logits: bool


def _number(name: str, value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}; {what}")
    found = float(value)
    if not math.isfinite(found) or found < 0:
        raise ValueError(f"{name} must be finite and not negative, got {found:g}; {what}")
    return found


def check_reduction(reduction: Any) -> None:
    """ValueError unless it is one of the three words."""
    if reduction not in REDUCTIONS:
        words = ", ".join(map(repr, REDUCTIONS))
        raise ValueError(f"reduction must be one of {words}, got {reduction!r}")


def check_decay(s: Any, decay_total: Any) -> None:
    """ValueError if both are given."""
    if s is not None and decay_total is not None:
        raise ValueError(
            f"decay_total must be left out when s is given, got both {decay_total!r} and {s!r}; "
            "s is decay_total divided by the number of rows"
        )


def slope(s: Any, decay_total: Any, height: int) -> Any:
    """s of an image of that many rows."""
    check_decay(s, decay_total)
    if decay_total is not None:
        return decay_total / height
    return DECAY if s is None else s


def weights_of(label_weights: Any) -> tuple[float, float, float]:
    """Three numbers; None: ones."""
    if label_weights is None:
        return 1.0, 1.0, 1.0
    if isinstance(label_weights, str) or len(label_weights) != 3:
        raise ValueError(
            f"label_weights must be three numbers, got {label_weights!r}; "
            "one each for None, Good and Bad"
        )
    none, good, bad = (
        _number(f"label_weights[{index}]", value, "it multiplies that label's unary terms")
        for index, value in enumerate(label_weights)
    )
    return none, good, bad


def energy(
    gamma: Any, s: Any, sigma: Any, label_weights: Any, constants: bool, from_logits: bool
) -> Energy:
    """Checked parameters."""
    return Energy(
        _number("gamma", gamma, "the weight of the vertical term, 75 in the paper"),
        _number("s", s, "the least decay of ln x from row to row, 3/2560 in the paper"),
        _number("sigma", sigma, "the weight of the horizontal term, 0.25 in the paper"),
        weights_of(label_weights),
        bool(constants),
        bool(from_logits),
    )


def check_arrays(confidence: Any, labels: Any) -> None:
    """TypeError or ValueError unless they are floats and labels of one shape (..., H, W)."""
    arrays.check_pixels(confidence, "confidence")
    if not arrays.is_floating(confidence):
        raise TypeError(
            f"confidence must be of a floating dtype, got {arrays.dtype_name(confidence)}; "
            "probabilities, or logits with from_logits=True"
        )
    arrays.kind(labels, "labels")
    if arrays.dtype_name(labels) != "uint8":
        raise TypeError(
            f"labels must be uint8, got {arrays.dtype_name(labels)}; "
            "0 None, 1 Good, 2 Bad: convert them"
        )
    shape = tuple(confidence.shape)
    if len(shape) < 2 or shape[-1] == 0 or shape[-2] == 0:
        raise ValueError(
            f"confidence must be (..., H, W) with H and W at least 1, got shape {shape}; "
            "the last two axes are depth and scanlines"
        )
    if tuple(labels.shape) != shape:
        raise ValueError(
            f"labels must have the confidence's shape {shape}, got {tuple(labels.shape)}; "
            "one label for each pixel"
        )


def evaluate(
    confidence: Any, labels: Any, valid: Any, law: Energy, mean: bool, *, loss: Any = None,
    sums: Any = None, gradient: Any = None, d_map: Any = None, maps: Any = None,
) -> None:  # fmt: skip
    """Fill the arrays that are given with value, gradient and maps, in one pass.

    All of one library and contiguous. confidence: (frames, H, W) float32 or float64; labels: uint8
    likewise; valid: (1 or frames, H, W) booleans or None. loss: 0-d, divided by the valid pixels if
    `mean`; sums: (5,) float64, unary, vertical, horizontal, valid pixels, wrong ones; gradient:
    like the confidence, of sum(d_map maps), divided like the loss, but
    not behind a mask; maps: like the confidence, or (3, frames,
    H, W) by parts.
    """
    frames, height, width = confidence.shape
    if frames == 0:
        for total in (loss, sums):
            if total is not None:
                total[...] = 0
        return
    pointer = arrays.pointer
    device, stream = arrays.place(confidence)
    _core.pgm(
        pointer(confidence),
        confidence.dtype.itemsize == 8,
        law.from_logits,
        frames,
        height,
        width,
        pointer(labels),
        pointer(valid),
        valid is not None and valid.shape[0] != frames,
        law.gamma,
        law.s,
        law.sigma,
        law.label_weights,
        law.constants,
        mean,
        arrays.threads(confidence),
        device,
        stream,
        pointer(loss),
        pointer(sums),
        pointer(gradient),
        pointer(d_map),
        pointer(maps),
        maps is not None and maps.ndim == 4,
    )


def scale_in_place(gradient: Any, scale: Any) -> None:
    """gradient *= scale, 0-d of the same library and dtype, which a GPU reads by itself."""
    count = math.prod(gradient.shape)
    _core.pgm_scale(
        arrays.pointer(gradient),
        gradient.dtype.itemsize == 8,
        count,
        arrays.pointer(scale),
        arrays.threads(gradient),
        *arrays.place(gradient),
    )


def refuse_values(confidence: Any, labels: Any, from_logits: bool) -> None:
    """ValueError that counts and locates wrong labels, or wrong probabilities."""
    wrong = labels > 2
    count = int(wrong.sum())
    if count > 0:
        place = _first(wrong)
        raise ValueError(
            f"labels must be 0 (None), 1 (Good) or 2 (Bad), got {int(labels[place])} at row "
            f"{place[1]}, column {place[2]} of frame {place[0]}, and {count} such pixel(s); "
            "pixels that do not count are what mask= is for"
        )
    place = _first(~((confidence >= 0) & (confidence <= 1)))
    raise ValueError(
        f"confidence must be in [0, 1], got {float(confidence[place]):g} at row {place[1]}, "
        f"column {place[2]} of frame {place[0]}; for logits say from_logits=True"
    )


def _first(found: Any) -> tuple[int, int, int]:
    _, height, width = found.shape
    at = int(arrays.cast(found.reshape(-1), "uint8").argmax())
    frame, inside = divmod(at, height * width)
    return frame, *divmod(inside, width)


def pgm_loss(
    confidence: Any,
    labels: Any,
    *,
    gamma: float = 75.0,
    s: float | None = None,
    decay_total: float | None = None,
    sigma: float = 0.25,
    reduction: str = "mean",
    constants: bool = False,
    from_logits: bool = False,
    label_weights: Sequence[float] | None = None,
    mask: Any = None,
) -> Any:
    """Energy of a confidence map under sparse annotations: what `usconf.nn.PGMLoss` minimises.

    Each pixel's label asks for a confidence (Good: near 1, Bad: near 0, None: hardly anything);
    confidence must not increase along a scanline but decay a little; neighbouring scanlines must
    resemble each other.

    Parameters
    ----------
    confidence : numpy.ndarray, torch.Tensor or cupy.ndarray
        (..., H, W) beam-space maps x in [0, 1], rows = depth, transducer at row 0; or logits with
        `from_logits`. float16, float32, float64 (torch: bfloat16 too); halves are computed as
        float32. Probabilities nearer than 1e-7 to 0 or 1 are read as that near.
    labels : array of uint8
        0 None, 1 Good, 2 Bad; the confidence's shape.
    gamma : float, default 75 (the paper's)
        Weight of the vertical term.
    s : float, optional
        The least decay of ln x from a row to the next. Default: the paper's 3/2560.
    decay_total : float, optional
        The same over the whole depth: s = decay_total / H. The paper's is 0.3 over 256 rows.
    sigma : float, default 0.25 (the paper's)
        Weight of the horizontal term (it multiplies; it is no variance).
    reduction : {"mean", "sum", "none"}
        "mean" (default) divides by the number of valid pixels of all frames; "none" returns the map
        of terms, a pair standing at its lower or right pixel.
    constants : bool, default False
        Whether the Beta densities' ln 5 and ln B(1.1, 1.1) count. The paper's figures fit without.
    from_logits : bool, default False
        confidence holds z with x = sigmoid(z): more exact, and every gradient is bounded.
    label_weights : (none, good, bad), optional
        Multiply the unary terms by label; they do not enter the mean's divisor. Default: ones.
    mask : array, optional
        Nonzero = valid pixel, (H, W) or the confidence's shape. Terms of other pixels, and of pairs
        that hold one, do not exist; what the confidence is there does not matter.

    Returns
    -------
    float or array
        The loss; for tensors a 0-d tensor, differentiable by the confidence, float64 for float64
        and else float32. reduction="none": a map of the confidence's shape.

    Raises
    ------
    TypeError
        If an argument is of another type or dtype.
    ValueError
        If shapes differ, a parameter is negative, a word unknown, s and decay_total both given, a
        label beyond 2, a probability outside of [0, 1], or (no tensors) the energy not finite.

    Notes
    -----
    Ronchetti et al., "Beyond Shadows", eq. 2-6, the negative log-likelihood without the partition
    function: sum u(x, y) + gamma sum max(0, ln x[r+1] - ln x[r] + s) + sigma sum (x[c+1] - x[c])^2
    with u = -4 ln x for Good, -4 ln(1 - x) for Bad, -0.1 (ln x + ln(1 - x)) for None. The hinge has
    derivative 0 at its kink, as torch.relu.

    A CUDA tensor is not waited for: there a label beyond 2 or a probability outside of [0, 1] makes
    the loss NaN instead of raising.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> confidence = np.exp(-np.linspace(0.1, 2, 64))[:, None] * np.ones(48)
    >>> labels = np.zeros((64, 48), np.uint8)
    >>> labels[5:8, 10:40], labels[50:, 10:40] = 1, 2
    >>> round(usconf.pgm_loss(confidence, labels, decay_total=0.3), 4)
    0.2679
    """
    given = {
        "gamma": gamma, "s": s, "decay_total": decay_total, "sigma": sigma, "reduction": reduction,
        "constants": constants, "from_logits": from_logits, "label_weights": label_weights,
        "mask": mask,
    }  # fmt: skip
    if arrays.kind(confidence, "confidence") == "torch":
        from .ops import pgm_loss as operator

        return operator(confidence, _like(labels, confidence, "labels"), **given)
    sums, maps = _evaluated(confidence, labels, 1, **given)
    return sum(sums) if maps is None else maps[0]


def pgm_parts(confidence: Any, labels: Any, **given: Any) -> dict[str, Any]:
    """The three sums of `pgm_loss` apart, for logs.

    Parameters
    ----------
    confidence, labels, **given
        As in `pgm_loss`.

    Returns
    -------
    dict
        "unary", "vertical" (gamma included), "horizontal" (sigma included): floats, for tensors 0-d
        float64 tensors without gradient, with reduction="none" maps. They add up to the loss.

    Raises
    ------
    TypeError, ValueError
        As `pgm_loss`.

    Notes
    -----
    Ronchetti et al., "Beyond Shadows", eq. 2-6.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> flat, nothing = np.full((8, 6), 0.5), np.zeros((8, 6), np.uint8)
    >>> {name: round(value, 4) for name, value in usconf.pgm_parts(flat, nothing).items()}
    {'unary': 0.1386, 'vertical': 0.0769, 'horizontal': 0.0}
    """
    if arrays.kind(confidence, "confidence") == "torch":
        from .ops import pgm_parts as operator

        return operator(confidence, _like(labels, confidence, "labels"), **given)
    sums, maps = _evaluated(confidence, labels, 3, **given)
    return dict(zip(PARTS, sums if maps is None else maps, strict=True))


def _like(values: Any, confidence: Any, name: str) -> Any:
    """Values of another library as a tensor on the confidence's device."""
    if arrays.kind(values, name) == "torch":
        return values
    torch = arrays.namespace(confidence)
    return torch.as_tensor(arrays.on_host(values), device=confidence.device)


def _evaluated(
    confidence: Any, labels: Any, planes: int, *, gamma: Any = 75.0, s: Any = None,
    decay_total: Any = None, sigma: Any = 0.25, reduction: str = "mean", constants: bool = False,
    from_logits: bool = False, label_weights: Any = None, mask: Any = None,
) -> tuple[list[float], list[Any] | None]:  # fmt: skip
    """The three parts, and with reduction="none" that many maps."""
    check_reduction(reduction)
    check_arrays(confidence, labels)
    shape = tuple(confidence.shape)
    s = slope(s, decay_total, shape[-2])
    law = energy(gamma, s, sigma, label_weights, constants, from_logits)
    layout = arrays.Layout(shape, tuple(range(len(shape))))
    valid = None if mask is None else arrays.ready(layout.companion(mask, confidence, "mask"))
    if arrays.dtype_name(confidence) != "float64":
        confidence = arrays.cast(confidence, "float32")
    strokes = arrays.ready(layout.plane(labels, confidence, "labels"))
    frames = arrays.ready(layout.frames(confidence))
    sums, maps = arrays.empty(frames, (5,), "float64"), None
    if reduction == "none":
        size = (3, *frames.shape) if planes == 3 else frames.shape
        maps = arrays.empty(frames, size, arrays.dtype_name(frames))
    evaluate(frames, strokes, valid, law, False, sums=sums, maps=maps)
    *found, count, wrong = (float(value) for value in sums)
    if wrong > 0:
        refuse_values(frames, strokes, law.from_logits)
    if not math.isfinite(sum(found)):
        raise ValueError(
            f"confidence must be finite, got an energy of {sum(found):g}; leave out NaN and "
            "infinite pixels with mask="
        )
    by = max(count, 1.0) if reduction == "mean" else 1.0
    if maps is None:
        return [value / by for value in found], None
    return found, [layout.restore(plane) for plane in (maps if planes == 3 else [maps])]
