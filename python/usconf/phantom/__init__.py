"""Synthetic B-mode pictures: two demos, and phantoms with known transmission by the thousand."""

from __future__ import annotations

from .categories import CATEGORIES
from .demo import demo_fan, demo_frame
from .grid import PROBES
from .labels import strokes
from .phantoms import HELD_OUT, Phantom, generate
from .rendering import SHADOW_LEVEL

__all__ = [
    "CATEGORIES",
    "HELD_OUT",
    "PROBES",
    "SHADOW_LEVEL",
    "Phantom",
    "demo_fan",
    "demo_frame",
    "generate",
    "strokes",
]
