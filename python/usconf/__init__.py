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
    from . import cli, io, nn, ops, plot
    from ._core import version as __version__
    from .confidence import confidence
    from .config import clear_cache, get_num_threads, set_num_threads, show_config
    from .envelope import envelope
    from .random_walk import random_walk
    from .random_walk_system import random_walk_system

# public name -> (module that holds it, its name there)
_HOMES = {
    "__version__": ("_core", "version"),
    "clear_cache": ("config", "clear_cache"),
    "confidence": ("confidence", "confidence"),
    "envelope": ("envelope", "envelope"),
    "get_num_threads": ("config", "get_num_threads"),
    "random_walk": ("random_walk", "random_walk"),
    "random_walk_system": ("random_walk_system", "random_walk_system"),
    "set_num_threads": ("config", "set_num_threads"),
    "show_config": ("config", "show_config"),
}
_SUBPACKAGES = ("cli", "io", "nn", "ops", "plot")

__all__ = [
    "__version__",
    "clear_cache",
    "cli",
    "confidence",
    "envelope",
    "get_num_threads",
    "io",
    "nn",
    "ops",
    "plot",
    "random_walk",
    "random_walk_system",
    "set_num_threads",
    "show_config",
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
