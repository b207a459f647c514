"""Confidence maps for ultrasound: for every pixel, how far it can be trusted.

``usconf.confidence(image)`` is the one call to know. Names are loaded when first used, so that
``import usconf`` costs next to nothing and never imports torch, CuPy, readers or plots.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        cli,
        geometry,
        integrations,
        io,
        nn,
        ops,
        phantom,
        plot,
        recipes,
        stream,
        training,
        uncertainty,
        weights,
    )
    from ._core import version as __version__
    from .confidence import confidence
    from .config import clear_cache, get_num_threads, set_num_threads, show_config
    from .dag import dag
    from .despeckle import despeckle
    from .envelope import envelope
    from .geometry import Linear, Sector, Trapezoid, fit_fan, fit_support
    from .learned import learned
    from .pgm import pgm_loss, pgm_parts
    from .random_walk import random_walk
    from .random_walk_system import random_walk_system
    from .scan_conversion import to_beam, to_scan
    from .stream import Stream

# public name -> (module that holds it, its name there)
_HOMES = {
    "Linear": ("geometry", "Linear"),
    "Sector": ("geometry", "Sector"),
    "Stream": ("stream", "Stream"),
    "Trapezoid": ("geometry", "Trapezoid"),
    "__version__": ("_core", "version"),
    "clear_cache": ("config", "clear_cache"),
    "confidence": ("confidence", "confidence"),
    "dag": ("dag", "dag"),
    "despeckle": ("despeckle", "despeckle"),
    "envelope": ("envelope", "envelope"),
    "fit_fan": ("geometry", "fit_fan"),
    "fit_support": ("geometry", "fit_support"),
    "get_num_threads": ("config", "get_num_threads"),
    "learned": ("learned", "learned"),
    "pgm_loss": ("pgm", "pgm_loss"),
    "pgm_parts": ("pgm", "pgm_parts"),
    "random_walk": ("random_walk", "random_walk"),
    "random_walk_system": ("random_walk_system", "random_walk_system"),
    "set_num_threads": ("config", "set_num_threads"),
    "show_config": ("config", "show_config"),
    "to_beam": ("scan_conversion", "to_beam"),
    "to_scan": ("scan_conversion", "to_scan"),
}
_SUBPACKAGES = (
    "cli", "geometry", "integrations", "io", "nn", "ops", "phantom", "plot", "recipes", "stream",
    "training", "uncertainty", "weights",
)  # fmt: skip

__all__ = [
    "Linear",
    "Sector",
    "Stream",
    "Trapezoid",
    "__version__",
    "clear_cache",
    "cli",
    "confidence",
    "dag",
    "despeckle",
    "envelope",
    "fit_fan",
    "fit_support",
    "geometry",
    "get_num_threads",
    "integrations",
    "io",
    "learned",
    "nn",
    "ops",
    "pgm_loss",
    "pgm_parts",
    "phantom",
    "plot",
    "random_walk",
    "random_walk_system",
    "recipes",
    "set_num_threads",
    "show_config",
    "stream",
    "to_beam",
    "to_scan",
    "training",
    "uncertainty",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module 'usconf' has no attribute {name!r}")
    module, inner = _HOMES[name]
    value = getattr(import_module(f".{module}", __name__), inner)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


class _Package(ModuleType):
    """Keeps `usconf.random_walk` the function.

    Python sets a freshly imported submodule as attribute of its package, whatever was there.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
