"""Training of learned confidence maps from phantoms or from a folder of strokes.

`usconf train` is the command; `train` the function behind it. Nothing here is imported by
``import usconf``, and torch only when training starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config
    from .loop import train

_HOMES = {"Config": "config", "train": "loop"}

__all__ = ["Config", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'usconf.training' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
