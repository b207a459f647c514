"""Layers for networks that use confidence maps."""

from __future__ import annotations

from .dag import DAG
from .random_walk import RandomWalk

__all__ = ["DAG", "RandomWalk"]
