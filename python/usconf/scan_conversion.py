"""Between scan images and beam images: the two public functions, their door, the core's call.

A geometry is whatever has `beam_grid` and `parameters` (see `geometry`): this module knows none.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from . import _core, arrays

TO_BEAM, TO_SCAN = 0, 1
INTERPOLATIONS = ("bilinear", "nearest")


class Resampled(NamedTuple):
    """A resampled image, and where it is valid.

    Attributes
    ----------
    image : array
        0 where it is not valid.
    mask : array of bool
        (rows, columns), shared by all frames: whether the place was covered by the source.
    """

    image: Any
    mask: Any


Values = tuple[float, float, float, float, float, float, float, float, float, float]


class Conversion(NamedTuple):
    """A geometry in the core's words, with the sizes of its beam image and its scan image."""

    kind: int
    values: Values
    samples: int
    lines: int
    height: int
    width: int

    def target(self, direction: int) -> tuple[int, int]:
        """(rows, columns) of what a direction makes."""
        return (self.height, self.width) if direction == TO_SCAN else (self.samples, self.lines)


def is_nearest(interpolation: str) -> bool:
    """ValueError for a word that is none."""
    if interpolation not in INTERPOLATIONS:
        raise ValueError(
            f"interpolation must be 'bilinear' or 'nearest', got {interpolation!r}; "
            "nearest is for labels"
        )
    return interpolation == "nearest"


def convert(geometry: Any, scan: Any, beam: Any) -> Conversion:
    """The geometry between a scan image and a beam image of these shapes (None: its choice)."""
    if isinstance(geometry, type) or not hasattr(geometry, "beam_grid"):
        raise TypeError(
            "geometry must be a usconf.Sector, usconf.Linear or usconf.Trapezoid, got "
            f"{geometry if isinstance(geometry, (str, type)) else type(geometry).__name__!r}; "
            "fit one with usconf.fit_fan(image).geometry"
        )
    if _is_frozen(geometry) and type(scan) is tuple and type(beam) is tuple:
        sizes = (*scan, *beam)
        if len(scan) == len(beam) == 2 and all(type(size) is int for size in sizes):
            return _kept(geometry, *sizes)
    return _converted(geometry, scan, beam)


def _is_frozen(geometry: Any) -> bool:
    """Whether it can be kept: it stays what it is, and is known by its values."""
    rules = vars(type(geometry)).get("__dataclass_params__")
    return rules is not None and rules.frozen and rules.eq


@functools.lru_cache(maxsize=64)
def _kept(geometry: Any, height: int, width: int, samples: int, lines: int) -> Conversion:
    return _converted(geometry, (height, width), (samples, lines))


def _converted(geometry: Any, scan: Any, beam: Any) -> Conversion:
    grid = geometry.beam_grid(scan, beam)
    kind, values = geometry.parameters(grid)
    return Conversion(kind, values, grid.n_samples, grid.n_lines, *scan)


def convert_to_scan(geometry: Any, beam: tuple[int, int], shape: Any) -> Conversion:
    """`convert` for the two arguments of `to_scan` that have sizes."""
    if beam[0] < 2 or beam[1] < 2:
        raise ValueError(
            f"beam must have at least 2 samples and 2 lines, got {beam[0]} x {beam[1]}; "
            "they lie on both ends of the geometry"
        )
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise TypeError(f"shape must be (height, width), got {shape!r}; e.g. image.shape[-2:]")
    for size in shape:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)):
            raise TypeError(f"shape must hold integers, got {shape!r}; pass (height, width)")
        if size < 1:
            raise ValueError(
                f"shape must be at least 1 x 1, got {shape!r}; it is (height, width) in pixels"
            )
    return convert(geometry, tuple(shape), beam)


def resample(source: Any, direction: int, nearest: bool, conversion: Conversion) -> tuple[Any, Any]:
    """(target, mask) of a stack (frames, rows, columns), in its dtype."""
    shape = conversion.target(direction)
    mask = arrays.empty(source, shape, "bool")
    return _run(source, direction, nearest, False, conversion, shape, mask), mask


def resample_transpose(gradient: Any, direction: int, nearest: bool, conversion: Conversion) -> Any:
    """The transposed operator on a stack shaped like the target of `direction`."""
    if not arrays.is_floating(gradient):
        raise TypeError(
            f"gradient must be floating point, got {arrays.dtype_name(gradient)}; "
            "integers have no derivatives"
        )
    shape = conversion.target(TO_SCAN if direction == TO_BEAM else TO_BEAM)
    return _run(gradient, direction, nearest, True, conversion, shape, None)


def _run(
    source: Any, direction: int, nearest: bool, transpose: bool, conversion: Conversion,
    shape: tuple[int, int], mask: Any,
) -> Any:  # fmt: skip
    given = arrays.dtype_name(source)
    source = arrays.ready(source)
    name = arrays.dtype_name(source)
    target = arrays.empty(source, (source.shape[0], *shape), name)
    _core.scan_conversion(
        direction, nearest, transpose, arrays.SCALARS[name], source.shape[0], *conversion,
        arrays.pointer(source), arrays.pointer(target), arrays.pointer(mask),
        arrays.threads(source), *arrays.place(source),
    )  # fmt: skip
    return arrays.cast(target, given)  # bfloat16 reaches the core as float32


def to_beam(
    image: Any,
    geometry: Any,
    shape: tuple[int, int] | None = None,
    *,
    interpolation: str = "bilinear",
    axes: str | None = None,
) -> Resampled:
    """Unroll a scan image to a beam image: one column per beam, row 0 at the transducer.

    Parameters
    ----------
    image : numpy.ndarray, torch.Tensor or cupy.ndarray
        Scan images (H, W), (1, H, W) or (B, 1, H, W), or as `axes` says. uint8, uint16, int16,
        float16, float32, float64 (torch: bfloat16 too). Any strides; never written to.
    geometry : Sector, Linear or Trapezoid
        Where the beams run in the image.
    shape : (n_samples, n_lines), optional
        Of the beam image, each at least 2. Default: `geometry.beam_grid`'s, which loses no detail.
    interpolation : {"bilinear", "nearest"}
        "nearest" copies pixels, for labels.
    axes : str, optional
        A letter for each axis: h, w, t (time), b (batch), c (channel of length 1); e.g. "thw".

    Returns
    -------
    Resampled
        `image`: library, device, dtype and axes of the argument, with n_samples for H and n_lines
        for W; integers are rounded. `mask`: (n_samples, n_lines) booleans, False (and the image
        0) where a beam leaves the picture by more than half a pixel. Torch gradients flow to the
        image.

    Raises
    ------
    TypeError
        If an argument is of another type; complex images, unsupported dtypes.
    ValueError
        If a shape is ambiguous or too small, the word unknown, or the geometry misses the image.

    Notes
    -----
    The sample (i, j) of a sector is read at r_i = r_start + i (r_max - r_start) / (n_samples - 1),
    theta_j = theta_min + j (theta_max - theta_min) / (n_lines - 1), x = apex_x + r sin(theta),
    z = apex_z + r cos(theta). At the border, pixels whose centres lie outside the geometry carry
    display black instead of echo: their weight goes to the others of the footprint, so that the
    first row and the side lines are not darkened. The operator is linear and its gradient is its
    transpose, to round-off.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> fan = usconf.Sector((32, -20), 30, 80, -0.4, 0.4)
    >>> image, mask = usconf.to_beam(np.ones((64, 64), np.float32), fan, (100, 50))
    >>> image.shape, mask.dtype.name
    ((100, 50), 'bool')
    """
    nearest = is_nearest(interpolation)
    arrays.check_pixels(image)
    layout = arrays.layout(tuple(image.shape), axes)
    frames = layout.frames(image)
    if arrays.kind(frames) == "torch":
        from .ops import to_beam as operator

        beams, mask = operator(frames, geometry, shape, interpolation=interpolation)
    else:
        conversion = convert(geometry, layout.stack[1:], shape)
        beams, mask = resample(frames, TO_BEAM, nearest, conversion)
    return Resampled(layout.resized(*beams.shape[1:]).restore(beams), mask)


def to_scan(
    beam: Any,
    geometry: Any,
    shape: tuple[int, int],
    *,
    interpolation: str = "bilinear",
    axes: str | None = None,
) -> Resampled:
    """Roll a beam image up to a scan image (scan conversion): 0 outside the geometry.

    Parameters
    ----------
    beam : numpy.ndarray, torch.Tensor or cupy.ndarray
        Beam images (n_samples, n_lines), (1, n_samples, n_lines), (B, 1, n_samples, n_lines), or
        as `axes` says: rows = depth from the transducer, columns = scanlines from the left. Dtypes
        as for `to_beam`.
    geometry : Sector, Linear or Trapezoid
        Where the beams run in the scan image.
    shape : (height, width)
        Of the scan image.
    interpolation : {"bilinear", "nearest"}
        "nearest" copies samples, for labels.
    axes : str, optional
        A letter for each axis: h depth, w scanlines, t, b, c as for `to_beam`.

    Returns
    -------
    Resampled
        `image`: library, device, dtype and axes of the argument, with height and width for
        n_samples and n_lines; integers are rounded. `mask`: (height, width) booleans, True for
        pixels whose centre lies inside the geometry. Torch gradients flow to the beam image.

    Raises
    ------
    TypeError
        If an argument is of another type; complex images, unsupported dtypes.
    ValueError
        If a shape is ambiguous or too small, the word unknown, or the geometry misses the image.

    Notes
    -----
    A pixel of a sector is read at r = hypot(x - apex_x, z - apex_z), theta = atan2(x - apex_x,
    z - apex_z); the rows and lines of the beam image are those of `to_beam`. With ``r_min=None``
    row 0 is where `to_beam` has it for a scan image of this shape. The operator is linear and its
    gradient is its transpose, to round-off.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> fan = usconf.Sector((32, -20), 30, 80, -0.4, 0.4)
    >>> image, mask = usconf.to_scan(np.ones((100, 50), np.float32), fan, (64, 64))
    >>> bool((image == mask).all())
    True
    """
    nearest = is_nearest(interpolation)
    arrays.check_pixels(beam, "beam")
    layout = arrays.layout(tuple(beam.shape), axes, "beam")
    frames = layout.frames(beam)
    if arrays.kind(frames) == "torch":
        from .ops import to_scan as operator

        scans, mask = operator(frames, geometry, shape, interpolation=interpolation)
    else:
        conversion = convert_to_scan(geometry, layout.stack[1:], shape)
        scans, mask = resample(frames, TO_SCAN, nearest, conversion)
    return Resampled(layout.resized(*scans.shape[1:]).restore(scans), mask)
