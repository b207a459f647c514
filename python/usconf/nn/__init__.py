"""Layers for networks that use confidence maps."""

from __future__ import annotations

from .random_walk import RandomWalk

__all__ = ["RandomWalk"]
