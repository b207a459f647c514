"""DAG confidence maps (Hung et al. 2021): the public function and its one door."""

from __future__ import annotations

import math
import numbers
from typing import Any

from . import arrays, hung2021, seeds
from .despeckle import region, rule, smooth
from .random_walk import check_choices, number
from .sweep import VARIANTS, Parameters, Sweep

PRESETS = {
    # the published code's defaults
    None: Parameters(0.1, 1.0, 8.0, 1.0),
    # the paper sets xi and alpha and leaves the rest
    "beyond_shadows": Parameters(0.4, 0.01, 8.0, 1.0),
}

CHOICES: dict[str, tuple[Any, ...]] = {
    "variant": tuple(VARIANTS),
    "despeckle": ("srad", "median", "hung2021", None),
    "nan": ("raise", "mask"),
}


def check_words(variant: str | None, despeckle: str | None, nan: str) -> None:
    """ValueError for a word that is none of its argument's; ImportError without SimpleITK."""
    check_choices(CHOICES, variant=variant, despeckle=despeckle, nan=nan)
    if despeckle == "hung2021":
        hung2021.simple_itk()


def check_combination(
    variant: str | None, despeckle: str | None, roi: Any, masked: bool, references: int
) -> None:
    """ValueError for arguments that exclude each other."""
    if masked and "hung2021" in (variant, despeckle):
        word = "variant" if variant == "hung2021" else "despeckle"
        raise ValueError(
            f'mask must be left out (and nan="mask") with {word}="hung2021", got one; the '
            f"published code knows no masks, take {word}=None"
        )
    if roi is not None and despeckle not in ("srad", "hung2021"):
        raise ValueError(
            f'roi must come with despeckle="srad" or "hung2021", got despeckle={despeckle!r}; '
            "leave it out"
        )
    if references > 1:
        raise ValueError(
            "reference_map must be left out when reference is given, got both; "
            "a reference image is mapped first"
        )


def check_half_width(half_width: Any, variant: str | None) -> None:
    """ValueError or TypeError unless it counts columns."""
    least = 1 if variant == "hung2021" else 0
    if isinstance(half_width, bool) or not isinstance(half_width, numbers.Integral):
        raise TypeError(
            f"half_width must be an integer, got {half_width!r}; a pixel has 2 half_width + 1 "
            "parents"
        )
    if half_width < least:
        raise ValueError(
            f"half_width must be at least {least}, got {half_width}; a pixel has "
            "2 half_width + 1 parents"
        )


def parameter(name: str, value: Any) -> float:
    """xi, alpha, var or power as a float; ValueError or TypeError if out of range."""
    found = number(name, value)
    if name == "xi" and not 0 < found <= 1:
        raise ValueError(
            f"xi must be above 0 and at most 1, got {found:g}; it is the confidence left in the "
            "last row where all gradients are average"
        )
    if name == "var" and found == 0:
        raise ValueError("var must be above 0, got 0; it is the beam's variance in columns^2")
    return found


def check_depth(alpha: float, xi: float, height: int) -> None:
    """ValueError where the depth weights vanish: exp(-alpha (r + 2) / H), r = 0..H-2."""
    if height < 2:
        return
    rate = alpha / height
    terms = height - 1 if rate == 0 else math.expm1(-rate * (height - 1)) / math.expm1(-rate)
    total = math.exp(-2 * rate) * terms
    if not (total > 0 and math.isfinite(math.log(xi) / total)):
        raise ValueError(
            f"alpha must leave weight to some of the {height} rows, got {alpha:g}; take a smaller "
            "one"
        )


def resolve(preset: str | None, **given: Any) -> tuple[Any, ...]:
    """xi, alpha, var, power: what was given, else the preset's value."""
    if preset not in PRESETS:
        words = ", ".join(repr(name) for name in PRESETS)
        raise ValueError(f"preset must be one of {words}, got {preset!r}; or give all parameters")
    values = PRESETS[preset]._asdict()
    return tuple(values[name] if given[name] is None else given[name] for name in values)


def check_soft(name: str, plane: Any) -> None:
    """ValueError unless a soft map lies in [0, 1]."""
    if plane is None or 0 in plane.shape:
        return
    low, high = float(plane.min()), float(plane.max())
    if not (low >= 0 and high <= 1):  # NaN is neither
        raise ValueError(
            f"{name} must hold probabilities in [0, 1], got values from {low:g} to {high:g}; "
            "divide an 8-bit map by 255"
        )


def rows_of(reference_map: Any) -> Any:
    """(1 or frames, H) float64: the largest confidence of each row of a reference's map."""
    return arrays.namespace(reference_map).amax(arrays.cast(reference_map, "float64"), axis=2)


def check_rows(rows: Any, variant: str | None) -> None:
    """ValueError unless the rows of a reference are confidences."""
    if rows is None or 0 in rows.shape:
        return
    low, high = float(rows.min()), float(rows.max())
    most = math.inf if variant == "hung2021" else 1 + 1e-6  # float32 maps may be rounded up
    if not (low >= 0 and high <= most and math.isfinite(high)):
        raise ValueError(
            f"reference_map must be a confidence map in [0, 1], got rows whose maxima are {low:g} "
            f"to {high:g}; pass usconf.dag(reference), or reference="
        )


def smoothed(image: Any, valid: Any, despeckle: str, roi: Any, dtype: str) -> Any:
    """(frames, H, W) despeckled: Hung et al.'s order, diffusion and then the 7 x 7 median."""
    size = image.shape[1:]
    if despeckle == "hung2021":
        image = _as_published(image, region(roi, *size) if roi is not None else None)
    elif despeckle == "srad":
        image = smooth(image, valid, rule("srad", *size, roi=roi), dtype)
    return smooth(image, valid, rule("median", *size), dtype)


def _as_published(image: Any, roi: Any) -> Any:
    height, width = image.shape[1:]
    if roi is None and min(height, width) < hung2021.ROI[1]:
        raise ValueError(
            f"roi must be given with images below {hung2021.ROI[1]} x {hung2021.ROI[3]} and "
            f'despeckle="hung2021", got {height} x {width}; the published one is rows and columns '
            "50 to 60"
        )
    host = arrays.on_host(image)
    found = arrays.empty(image, tuple(image.shape), "float64")
    xp = arrays.namespace(image)
    for index, frame in enumerate(host):
        found[index] = xp.asarray(hung2021.log_diffused(frame, roi))
    return found


def dag(
    image: Any,
    *,
    xi: Any = None,
    alpha: Any = None,
    var: Any = None,
    power: Any = None,
    half_width: int = 10,
    despeckle: str | None = "srad",
    roi: tuple[int, int, int, int] | None = None,
    variant: str | None = None,
    preset: str | None = None,
    reference: Any = None,
    reference_map: Any = None,
    needle: Any = None,
    artifact: Any = None,
    mask: Any = None,
    nan: str = "raise",
    axes: str | None = None,
    dtype: Any = None,
) -> Any:
    """Confidence map by a directed acyclic graph: one sweep from the transducer downwards.

    The confidence of a pixel is a mean of its parents' in the row above, over a beam of
    2 half_width + 1 columns, diminished where the edge to a parent is strong for its row.

    Parameters
    ----------
    image : numpy.ndarray, torch.Tensor or cupy.ndarray
        Frames (H, W), (1, H, W) or (B, 1, H, W), rows = depth, columns = scanlines, transducer at
        row 0; other layouts through `axes`. uint8, uint16, int16, float16, float32, float64
        (torch: bfloat16 too). Any strides; never written to.
    xi : float or 0-d tensor, optional
        The paper's xi, in (0, 1]: the confidence left in the last row if every gradient were its
        row's average. Default: 0.1, the published code's.
    alpha : float or 0-d tensor, optional
        The paper's alpha: attenuation; row r decays by exp(-alpha (r + 2) / H). Default: 1.
    var : float or 0-d tensor, optional
        Variance of the beam, columns^2. Default: 8.
    power : float or 0-d tensor, optional
        Exponent of the relative gradient. Default: 1.
    half_width : int, optional
        Columns to each side from which a pixel is reached. Default: 10, the published code's.
    despeckle : {"srad", "median", "hung2021", None}
        Before the sweep. "srad" (default): `usconf.despeckle` and then a 7 x 7 median. "median":
        the median only. "hung2021": the published loop, slow, with SimpleITK, for comparison.
        None: nothing; then gradients reach the image, and thin echoes of reverberation, which the
        median removes, reach the map.
    roi : (row0, row1, column0, column1), optional
        Homogeneous tissue, see `usconf.despeckle`; with "srad" or "hung2021" only.
    variant : {None, "hung2021"}
        None: the paper's recurrence; frames are scaled to [0, 1]. "hung2021": the published code's,
        with its three defects (gradients of parallel edges, side columns upside down, beam weights
        that sum to more than 1, so that values may exceed 1); pixels as they are, integers divided
        by the largest their dtype holds; no masks.
    preset : {None, "beyond_shadows"}
        Values (xi, alpha) of the parameters left out: "beyond_shadows" (0.4, 0.01), that paper's.
    reference : array, optional
        Structural confidence: an image of normal structure, (H, W) or the image's shape. It is
        mapped alike, with the same parameters, despeckling and mask; the largest confidence of
        each of its rows bounds that of the image's, and the result is their ratio.
    reference_map : array, optional
        The same with the reference's finished map.
    needle, artifact : array, optional
        Probabilities in [0, 1], (H, W) or the image's shape, read as float32: the needle model. Top
        edges of the needle (above 0.9) get the frame's largest gradient; artifacts (above 0.05)
        get the average one, and their confidence is multiplied by 1 - artifact.
    mask : array, optional
        Nonzero = valid pixel, (H, W) or the image's shape. The first valid pixel of each column is
        source. The map is 0 outside and where no valid path leads to a source.
    nan : {"raise", "mask"}
        What to do with NaN and infinite valid pixels: refuse them, or leave them out like `mask`.
    axes : str, optional
        A letter for each axis: h depth, w scanlines, t time, b batch, c channel (of length 1);
        e.g. "thw" for a clip.
    dtype : float32 or float64, optional
        The map's. Default: float64 for float64 pixels, else float32.

    Returns
    -------
    same kind of array
        The map, in [0, 1] (variant "hung2021": from 0), of the image's library, device and shape.
        Torch gradients flow to image (with ``despeckle=None``), xi, alpha, var and power; not to
        references, needle, artifact and masks.

    Raises
    ------
    TypeError
        If an argument is of another type; complex images, unsupported dtypes.
    ValueError
        If a shape is ambiguous, a parameter out of range, a word unknown, a plane of another shape,
        `roi` outside of the image or without speckle, arguments exclude each other, or NaN or Inf
        met with nan="raise". On a GPU these are not looked for without a mask and despeckling,
        since the host would have to wait: the frame's map is NaN below its first row.
    ImportError
        If despeckle is "hung2021" and SimpleITK is not installed.

    Warns
    -----
    UserWarning
        If the picture is a fan, or its first row is black (no mask): the first row is then not the
        transducer. `usconf.confidence` with ``geometry=`` sees to both.

    Notes
    -----
    Hung, Chen, Galeotti: "Ultrasound confidence maps of intensity and structure based on directed
    acyclic graphs and artifact models", ISBI 2021 (arXiv 2011.11956), section 2. The edge from
    parent (r, m(c + k)) to (r + 1, c), m mirroring columns at the sides, has the weight
    g_k exp(-x d_r rel^power): g a normal density that sums to 1, rel the absolute difference of its
    two pixels plus 1e-4 over the mean of its row and k, d_r = exp(-alpha (r + 2) / H),
    x = -log(xi) / sum d. Inside a clean shadow there are no gradients, and nothing decays: there
    the random walk is the better method.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> clip = np.random.default_rng(0).integers(0, 256, (3, 64, 48), dtype=np.uint8)
    >>> map = usconf.dag(clip, preset="beyond_shadows", axes="thw")
    >>> map.shape, map.dtype.name, float(map[0, 0, 0])
    ((3, 64, 48), 'float32', 1.0)
    """
    check_words(variant, despeckle, nan)
    check_half_width(half_width, variant)
    parameters = resolve(preset, xi=xi, alpha=alpha, var=var, power=power)
    arrays.check_pixels(image)
    layout = arrays.layout(tuple(image.shape), axes)
    frames = layout.frames(image)
    given = {"reference": reference, "reference_map": reference_map, "needle": needle,
             "artifact": artifact}  # fmt: skip
    for name in ("reference", "reference_map", "needle", "artifact"):
        if given[name] is not None:
            given[name] = layout.plane(given[name], image, name)
    mask = None if mask is None else layout.companion(mask, image, "mask")
    dtype = arrays.result_dtype(frames, dtype)
    if arrays.kind(frames) == "torch":
        from .ops import dag as operator

        maps = operator(
            frames, *parameters, half_width=half_width, despeckle=despeckle, roi=roi,
            variant=variant, mask=mask, nan=nan, dtype=dtype, **given,
        )  # fmt: skip
        return layout.restore(maps)
    masked = mask is not None or (nan == "mask" and arrays.is_floating(frames))
    check_combination(variant, despeckle, roi, masked, _count(reference, reference_map))
    values = Parameters(
        *(parameter(*named) for named in zip(Parameters._fields, parameters, strict=True))
    )
    check_depth(values.alpha, values.xi, frames.shape[1])
    region(roi, *frames.shape[1:])

    def mapped(picture: Any, name: str, **more: Any) -> Any:
        valid = seeds.admitted(picture, mask, nan, name, look=despeckle is not None)
        # The corrected recurrence scales every frame by itself.
        f = picture if variant is None else arrays.unit(picture)
        if despeckle is not None:
            f = smoothed(f, valid, despeckle, roi, dtype)
        return Sweep(f, values, int(half_width), variant, dtype, valid, **more).solve()

    rows = None
    if reference is not None:
        arrays.check_pixels(given["reference"], "reference")
        picture = given["reference"]
        if mask is not None and picture.shape[0] != mask.shape[0] > 1:
            picture = arrays.namespace(picture).broadcast_to(picture, mask.shape)
        rows = rows_of(mapped(picture, "reference"))
    elif reference_map is not None:
        rows = rows_of(given["reference_map"])
    check_rows(rows, variant)
    for name in ("needle", "artifact"):
        check_soft(name, given[name])
    soft = {name: given[name] for name in ("needle", "artifact")}
    return layout.restore(mapped(frames, "image", reference=rows, **soft))


def _count(*given: Any) -> int:
    return sum(value is not None for value in given)
