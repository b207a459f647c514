"""A map through a geometry: unroll to beams, map them, roll the map back."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from typing import Any

from .. import arrays, seeds
from ..scan_conversion import to_beam, to_scan
from .base import Geometry
from .fitting import fit

# Parameters of a method that are pictures of the image's shape: labels, and values.
_PLANES = ("mask", "sink_mask")
_PICTURES = ("reference", "reference_map", "needle", "artifact")


def chosen(geometry: Any, image: Any, axes: str | None) -> Geometry:
    """The geometry an argument stands for; TypeError or ValueError if none."""
    if isinstance(geometry, str) and geometry == "auto":
        return fit(image, axes=axes).geometry
    if isinstance(geometry, Geometry):
        return geometry
    if isinstance(getattr(geometry, "geometry", None), Geometry):
        advice = "pass its .geometry"
    elif isinstance(geometry, (str, PathLike)):
        advice = "usconf.geometry.load reads a file"
    else:
        advice = "usconf.fit_fan finds one"
    given = repr(geometry) if isinstance(geometry, (str, type)) else type(geometry).__name__
    raise TypeError(
        'geometry must be None, "auto" or a usconf.Sector, usconf.Linear or usconf.Trapezoid, got '
        f"{given}; {advice}"
    )


def map_through(
    method: Callable[..., Any], image: Any, geometry: Geometry, parameters: dict[str, Any]
) -> Any:
    """The map that `method` makes of the beams, as a scan image: 0 outside the geometry.

    Pixels are resampled as float32 (float64 stays), so that 8-bit pictures are not rounded twice.
    """
    if parameters.get("mode") == "RF":
        raise ValueError(
            'mode must be "B" with a geometry, got "RF"; radio-frequency lines are beams already'
        )
    if parameters.get("roi") is not None:
        raise ValueError(
            f"roi must be left out with a geometry, got {parameters['roi']!r}; a rectangle of the "
            "image is none of the beams (usconf.to_beam unrolls the image)"
        )
    parameters = dict(parameters)
    arrays.check_pixels(image)
    layout = arrays.layout(tuple(image.shape), parameters.pop("axes", None))
    frames = layout.frames(image)
    planes = {
        name: layout.companion(parameters.pop(name), image, name)
        for name in _PLANES
        if parameters.get(name) is not None
    }
    pictures = {
        name: layout.plane(parameters.pop(name), image, name)
        for name in _PICTURES
        if parameters.get(name) is not None
    }
    published = parameters.get("variant") == "hung2021"
    frames = _floating(frames, published)
    shape = layout.stack[1:]
    beams, seen = to_beam(frames, geometry, axes="thw")
    known = arrays.cast(seen[None], arrays.dtype_name(frames))
    covered = to_scan(known, geometry, shape, axes="thw")
    mask = planes.get("mask")
    if parameters.get("nan", "raise") == "raise":
        inside = covered.mask[None]
        seeds.check_finite(frames, inside if mask is None else inside & mask)
    beam_planes = {name: _unrolled(plane, geometry) for name, plane in planes.items()}
    for name, plane in pictures.items():
        if name == "reference":
            arrays.check_pixels(plane, name)
        plane = _floating(plane, published and name == "reference")
        beam_planes[name] = to_beam(plane, geometry, axes="thw").image
    valid = beam_planes.get("mask")
    if not bool(seen.all()):
        valid = seen[None] if valid is None else valid & seen
    if parameters.get("nan") == "mask":
        finite = arrays.namespace(beams).isfinite(beams)
        if not bool(finite.all()):
            valid = finite if valid is None else valid & finite
    if published and valid is not None and mask is None:
        raise ValueError(
            f'variant must be None with this geometry, got "hung2021"; {geometry.kind} beams leave '
            "the picture here, and the published code knows no masks"
        )
    if valid is not None:
        beam_planes["mask"] = valid if valid.shape[0] > 1 else valid[0]
    for name in pictures:
        if beam_planes[name].shape[0] != beams.shape[0]:
            beam_planes[name] = beam_planes[name][0]
    maps = method(beams, axes="thw", **beam_planes, **parameters)
    scan = to_scan(maps, geometry, shape, axes="thw").image
    xp = arrays.namespace(scan)
    if valid is not None:
        # Samples that are not valid hold 0 for want of a map: they take no part in the mean.
        weight = to_scan(arrays.cast(valid, arrays.dtype_name(maps)), geometry, shape, axes="thw")
        known_here = weight.image > 0
        scan = xp.where(known_here, scan / xp.where(known_here, weight.image, 1), 0)
    if mask is not None:
        scan = xp.where(mask, scan, 0)
    if not published:  # whose values may exceed 1; all others are means of values in [0, 1]
        scan = xp.clip(scan, 0, 1)  # but for their rounding
    return layout.restore(scan)


def _floating(pixels: Any, over_limit: bool) -> Any:
    """As float32 (float64 stays); `over_limit`: integers over the largest their dtype holds."""
    if over_limit:
        pixels = arrays.unit(pixels)
    return pixels if arrays.dtype_name(pixels) == "float64" else arrays.cast(pixels, "float32")


def _unrolled(plane: Any, geometry: Geometry) -> Any:
    """Booleans (1 or frames, H, W) along the beams."""
    labels = arrays.cast(plane, "uint8")
    return to_beam(labels, geometry, interpolation="nearest", axes="thw").image != 0
