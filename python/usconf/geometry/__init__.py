"""Beam geometry: where the scanlines of a picture run.

A geometry is a `Sector` (convex and phased probes), a `Linear` rectangle or a `Trapezoid` (steered
or diverging straight beams): frozen, validated, in mm or in pixels. `fit` finds one in a picture,
`fit_fan` and `fit_support` do so for one kind. `load` reads what its ``save``
wrote; the pairs ``from_...`` and ``to_...`` know the words of other software.
"""

from __future__ import annotations

from .base import Geometry
from .fan import FanFit, fit_fan
from .files import load
from .fitting import fit
from .formats import from_itk, from_zea, to_itk, to_zea
from .grid import BeamGrid
from .picture_formats import from_fan_json, from_slicer, to_fan_json, to_slicer
from .plus import from_plus, to_plus
from .points import from_points, to_points
from .shapes import Linear, Sector, Trapezoid
from .support import SupportFit, fit_support

__all__ = [
    "BeamGrid",
    "FanFit",
    "Geometry",
    "Linear",
    "Sector",
    "SupportFit",
    "Trapezoid",
    "fit",
    "fit_fan",
    "fit_support",
    "from_fan_json",
    "from_itk",
    "from_plus",
    "from_points",
    "from_slicer",
    "from_zea",
    "load",
    "to_fan_json",
    "to_itk",
    "to_plus",
    "to_points",
    "to_slicer",
    "to_zea",
]
