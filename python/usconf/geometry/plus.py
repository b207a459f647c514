"""Scan conversion settings of the PLUS toolkit: the ScanConversion element of its XML files."""

from __future__ import annotations

import math
import os
from typing import Any

from . import checks, keys
from .base import Geometry
from .shapes import Linear, Sector


def from_plus(source: Any) -> Geometry:
    """Read the ``ScanConversion`` element of a PLUS configuration.

    Parameters
    ----------
    source : str, path-like or xml.etree.ElementTree.Element
        XML text (it starts with "<"), a configuration file, or an element. It must hold exactly
        one ``ScanConversion`` element, at any depth.

    Returns
    -------
    Sector or Linear
        In mm: for TransducerGeometry="CURVILINEAR" and "LINEAR".

    Raises
    ------
    ValueError
        If there is none or several, an attribute is missing or no number, or the values are no
        geometry.
    OSError
        If the file cannot be read.

    Notes
    -----
    As PlusLib's vtkPlusUsScanConvertCurvilinear computes it, ``TransducerCenterPixel`` is the
    middle of the probe *face*, with half a pixel taken off x:
    apex = ((center_x - 0.5) dx, center_z dz - RadiusStartMm). For a linear probe
    x = center_x dx -+ TransducerWidthMm / 2 and z = center_z dz to that + ImagingDepthMm.
    Without ``TransducerCenterPixel`` the probe is centred, with the apex (or the linear face) at
    row 0; the older ``OutputImageStartDepthMm`` is read too. PLUS places its last beam sample one
    sample before RadiusStopMm or ImagingDepthMm; the geometry keeps the nominal limits.

    Examples
    --------
    >>> import usconf
    >>> text = '''<ScanConversion TransducerGeometry="CURVILINEAR" RadiusStartMm="10"
    ...   RadiusStopMm="60" ThetaStartDeg="-70" ThetaStopDeg="70" OutputImageSizePixel="600 400"
    ...   TransducerCenterPixel="300 53" OutputImageSpacingMmPerPixel="0.15 0.15" />'''
    >>> print(usconf.geometry.from_plus(text))
    sector: apex (44.925, -2.05) mm, radii 10 to 60 mm, -70 to 70 degrees
    """
    element = _element(source)
    kind = element.get("TransducerGeometry", "").upper()
    if kind not in ("CURVILINEAR", "LINEAR"):
        raise ValueError(
            "TransducerGeometry must be CURVILINEAR or LINEAR, got "
            f"{element.get('TransducerGeometry')!r}; other probes are no fan or rectangle"
        )
    dx, dz = _numbers(element, "OutputImageSpacingMmPerPixel", 2)
    if kind == "LINEAR":
        (depth,), (width,) = (
            _numbers(element, "ImagingDepthMm"),
            _numbers(element, "TransducerWidthMm"),
        )
        x, z = _center(element, 0.0)
        x, z = x * dx, z * dz
        return Linear(x - width / 2, x + width / 2, z, z + depth, (dx, dz))
    names = "RadiusStartMm", "RadiusStopMm", "ThetaStartDeg", "ThetaStopDeg"
    r_min, r_max, start, stop = (_numbers(element, name)[0] for name in names)
    row = r_min / dz
    if element.get("OutputImageStartDepthMm") is not None:
        row = (r_min - _numbers(element, "OutputImageStartDepthMm")[0]) / dz
    x, z = _center(element, row)
    apex = (x - 0.5) * dx, z * dz - r_min
    return Sector(apex, r_min, r_max, math.radians(start), math.radians(stop), (dx, dz))


def to_plus(geometry: Geometry, image_shape: Any) -> str:
    """Write the ``ScanConversion`` element of a PLUS configuration.

    Parameters
    ----------
    geometry : Sector or Linear
        In mm, with r_min where it is a `Sector`.
    image_shape : tuple of int
        (height, width) of the scan image.

    Returns
    -------
    str
        XML text; `from_plus` reads it back.

    Raises
    ------
    TypeError, ValueError
        If the geometry is a `Trapezoid`, in pixels, or has no probe face.

    Examples
    --------
    >>> import usconf
    >>> probe = usconf.Linear(0, 38, 0, 50, spacing=0.1)
    >>> usconf.geometry.from_plus(usconf.geometry.to_plus(probe, (500, 381))) == probe
    True
    """
    from xml.etree import ElementTree

    height, width = checks.sizes("image_shape", image_shape, 1, ("height", "width"))
    if geometry.spacing is None:
        raise ValueError(
            "geometry must be in mm for PLUS, got one in pixels; give it a spacing with to_mm"
        )
    dx, dz = geometry.scale
    if isinstance(geometry, Sector):
        r_min = keys.face(geometry, "PLUS")
        x, z = geometry.apex[0] / dx + 0.5, (geometry.apex[1] + r_min) / dz
        values: dict[str, Any] = {
            "TransducerGeometry": "CURVILINEAR",
            "RadiusStartMm": r_min,
            "RadiusStopMm": geometry.r_max,
            "ThetaStartDeg": math.degrees(geometry.theta_min),
            "ThetaStopDeg": math.degrees(geometry.theta_max),
        }
    elif isinstance(geometry, Linear):
        x, z = (geometry.x_min + geometry.x_max) / 2 / dx, geometry.z_min / dz
        values = {
            "TransducerGeometry": "LINEAR",
            "ImagingDepthMm": geometry.z_max - geometry.z_min,
            "TransducerWidthMm": geometry.x_max - geometry.x_min,
        }
    else:
        raise TypeError(f"geometry must be a Sector or Linear for PLUS, got {geometry}")
    values["OutputImageSizePixel"] = f"{width} {height}"
    values["TransducerCenterPixel"] = f"{x!r} {z!r}"
    values["OutputImageSpacingMmPerPixel"] = f"{dx!r} {dz!r}"
    attributes = {name: str(value) for name, value in values.items()}
    return ElementTree.tostring(ElementTree.Element("ScanConversion", attributes), "unicode")


def _element(source: Any) -> Any:
    from xml.etree import ElementTree

    root = source
    if isinstance(source, (str, os.PathLike)):
        try:
            if isinstance(source, str) and source.lstrip().startswith("<"):
                root = ElementTree.fromstring(source.strip())
            else:
                root = ElementTree.parse(source).getroot()
        except ElementTree.ParseError as error:
            raise ValueError(f"source must be XML, got an error: {error}; check it") from None
    if not hasattr(root, "iter"):
        raise TypeError(
            f"source must be XML text, a path or an element, got {type(source).__name__}; "
            "pass the PLUS configuration file"
        )
    found = list(root.iter("ScanConversion"))
    if len(found) != 1:
        raise ValueError(
            f"source must hold one ScanConversion element, got {len(found)}; "
            "pass the element of the device"
        )
    return found[0]


def _numbers(element: Any, name: str, count: int = 1) -> list[float]:
    text = element.get(name)
    try:
        values = [float(word) for word in (text or "").split()]
    except ValueError:
        values = []
    if len(values) != count:
        raise ValueError(
            f"{name} must be {count} number{'s' * (count > 1)}, got {text!r}; "
            "it is an attribute of ScanConversion"
        )
    return values


def _center(element: Any, row: float) -> tuple[float, float]:
    """TransducerCenterPixel; without one the middle column and the row given."""
    if element.get("TransducerCenterPixel") is not None:
        x, z = _numbers(element, "TransducerCenterPixel", 2)
        return x, z
    return _numbers(element, "OutputImageSizePixel", 2)[0] / 2, row
