"""Layers for networks that use confidence maps, and the network that makes them."""

from __future__ import annotations

from .confidence_unet import ConfidenceUNet
from .dag import DAG
from .pgm import PGMLoss
from .random_walk import RandomWalk

__all__ = ["DAG", "ConfidenceUNet", "PGMLoss", "RandomWalk"]
