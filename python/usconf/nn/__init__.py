"""Layers and losses for networks that use confidence maps, and the network that makes them."""

from __future__ import annotations

from .confidence_cross_entropy import ConfidenceCrossEntropy, DiceConfidenceCrossEntropy
from .confidence_unet import ConfidenceUNet
from .dag import DAG
from .pgm import PGMLoss
from .random_walk import RandomWalk

__all__ = [
    "DAG",
    "ConfidenceCrossEntropy",
    "ConfidenceUNet",
    "DiceConfidenceCrossEntropy",
    "PGMLoss",
    "RandomWalk",
]
