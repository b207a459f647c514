"""Geometries as software for beam images writes them: ITK and zea, in mm."""

from __future__ import annotations

import math
from typing import Any

from . import checks, keys
from .grid import BeamGrid
from .shapes import Sector


def from_itk(metadata: Any, shape: Any, spacing: Any, apex: Any = None) -> Sector:
    """Read the metadata of ITK's CurvilinearArraySpecialCoordinatesImage.

    Parameters
    ----------
    metadata : mapping
        FirstSampleDistance and RadiusSampleSize (mm), LateralAngularSeparation (radians); numbers
        or text, as in a MetaImage header.
    shape : tuple of int
        (n_samples, n_lines) of the beam image: ITK's size along index 0 and index 1.
    spacing : float or tuple of float
        mm per pixel of the scan image that the fan is to be seen in; ITK's image has none.
    apex : tuple of float, optional
        (x, z) of the apex in that scan image, in mm. Default: where the fan just touches the
        picture's left column and first row.

    Returns
    -------
    Sector
        In mm. Beam sample (i, j) is ITK's index (i, j).

    Raises
    ------
    TypeError, ValueError
        If a key is missing or the numbers are no fan.

    Notes
    -----
    radius = FirstSampleDistance + i RadiusSampleSize and
    lateral = (j - (n_lines - 1) / 2) LateralAngularSeparation, as in ITKUltrasound's header; its
    lateral angle is 0 straight down and positive to the right, like theta.

    Examples
    --------
    >>> import usconf
    >>> metadata = {"FirstSampleDistance": 26.4, "RadiusSampleSize": 0.0477,
    ...             "LateralAngularSeparation": 0.00862}
    >>> print(usconf.geometry.from_itk(metadata, (1595, 127), spacing=0.2, apex=(60, -20)))
    sector: apex (60, -20) mm, radii 26.4 to 102.434 mm, -31.12 to 31.12 degrees
    """
    values = keys.mapping(metadata, "metadata")
    samples, lines = checks.sizes("shape", shape, 2, ("n_samples", "n_lines"))
    r_min = keys.value(values, "FirstSampleDistance")
    r_max = r_min + (samples - 1) * keys.value(values, "RadiusSampleSize")
    theta = (lines - 1) / 2 * keys.value(values, "LateralAngularSeparation")
    if spacing is None:
        raise TypeError("spacing must be mm per pixel of the scan image, got None; ITK has mm")
    fan = Sector((0.0, 0.0), r_min, r_max, -theta, theta, spacing)
    if apex is None:
        left, top = _first(fan)
        apex = -left, -top
    return Sector(apex, r_min, r_max, -theta, theta, spacing)


def to_itk(geometry: Sector, grid: BeamGrid) -> dict[str, float]:
    """Write the metadata of ITK's CurvilinearArraySpecialCoordinatesImage.

    Parameters
    ----------
    geometry : Sector
        In mm, with theta_min = -theta_max: ITK has no word for another axis.
    grid : BeamGrid
        The beam image's grid: ``geometry.beam_grid(image_shape, shape)``.

    Returns
    -------
    dict
        FirstSampleDistance, RadiusSampleSize, LateralAngularSeparation. The place of the apex and
        the scan image's spacing have no key: keep them.

    Raises
    ------
    TypeError, ValueError
        If the geometry is no fan, in pixels, or not symmetric.

    Examples
    --------
    >>> import usconf
    >>> fan = usconf.Sector((30, -20), 30, 90, -0.5, 0.5, spacing=0.25)
    >>> metadata = usconf.geometry.to_itk(fan, fan.beam_grid((300, 240), (241, 101)))
    >>> sorted(metadata.items())[0], round(metadata["LateralAngularSeparation"], 9)
    (('FirstSampleDistance', 30.0), 0.01)
    """
    keys.fan(geometry, "ITK")
    if geometry.spacing is None:
        raise ValueError(
            "geometry must be in mm for ITK, got one in pixels; give it a spacing with to_mm"
        )
    if abs(geometry.theta_min + geometry.theta_max) > 1e-9:
        raise ValueError(
            f"theta_min must be -theta_max for ITK, got {geometry.theta_min} and "
            f"{geometry.theta_max}; widen the narrower side with dataclasses.replace"
        )
    return {
        "FirstSampleDistance": grid.r_start,
        "RadiusSampleSize": grid.sample_spacing,
        "LateralAngularSeparation": grid.line_spacing,
    }


def from_zea(parameters: Any) -> Sector:
    """Read the ranges of zea's scan conversion.

    Parameters
    ----------
    parameters : mapping
        What ``zea.display.scan_convert_2d`` takes or returns: rho_range (mm), theta_range
        (radians), resolution (mm per pixel) and, 0 if absent, distance_to_apex (mm). Other keys
        are of no use here.

    Returns
    -------
    Sector
        In mm, with the apex where zea's picture has it.

    Raises
    ------
    TypeError, ValueError
        If a key is missing or the numbers are no fan.

    Notes
    -----
    zea's picture begins at the fan's leftmost and topmost point, and distance_to_apex rows (in mm)
    further down.

    Examples
    --------
    >>> import usconf
    >>> parameters = {"rho_range": (40.0, 120.0), "theta_range": (-0.5, 0.5), "resolution": 0.3}
    >>> print(usconf.geometry.from_zea(parameters))
    sector: apex (57.5311, -35.1033) mm, radii 40 to 120 mm, -28.65 to 28.65 degrees
    """
    values = keys.mapping(parameters, "parameters")
    (r_min, r_max), (low, high) = (
        keys.limits(values, "rho_range"),
        keys.limits(values, "theta_range"),
    )
    resolution = keys.value(values, "resolution")
    skipped = keys.value(values, "distance_to_apex") if "distance_to_apex" in values else 0.0
    left, top = _first(Sector((0.0, 0.0), r_min, r_max, low, high, resolution))
    return Sector((-left, -top - skipped), r_min, r_max, low, high, resolution)


def to_zea(geometry: Sector) -> dict[str, Any]:
    """Write the ranges of zea's scan conversion.

    Parameters
    ----------
    geometry : Sector
        With r_min and square pixels; a fan in pixels gives a resolution of 1.

    Returns
    -------
    dict
        rho_range, theta_range, resolution and distance_to_apex. zea's picture begins in the column
        of the fan's leftmost point: a margin left of it has no key.

    Raises
    ------
    TypeError, ValueError
        If the geometry is no fan, has no r_min, or its pixels are no squares.

    Examples
    --------
    >>> import usconf
    >>> fan = usconf.Sector((0, -30), 40, 120, -0.5, 0.5, spacing=0.3)
    >>> usconf.geometry.to_zea(fan)["rho_range"]
    (40.0, 120.0)
    """
    keys.fan(geometry, "zea")
    r_min = keys.face(geometry, "zea")
    scale_x, scale_z = geometry.scale
    if scale_x != scale_z:
        raise ValueError(
            f"spacing must be one number for zea, got {geometry.spacing}; resample the picture"
        )
    top = _first(geometry)[1] - geometry.apex[1]
    return {
        "rho_range": (r_min, geometry.r_max),
        "theta_range": (geometry.theta_min, geometry.theta_max),
        "resolution": scale_x,
        "distance_to_apex": -geometry.apex[1] - top,
    }


def _first(fan: Sector) -> tuple[float, float]:
    """The least x and the least z of a fan."""
    angles = [fan.theta_min, fan.theta_max]
    level = [-math.pi / 2] if angles[0] < -math.pi / 2 < angles[1] else []
    radii = fan.r_min or 0.0, fan.r_max
    x = min(r * math.sin(angle) for r in radii for angle in angles + level)
    z = min(r * math.cos(angle) for r in radii for angle in angles)
    return fan.apex[0] + x, fan.apex[1] + z
