"""Uncertainty of segmentations: heads that can be sampled, and what their draws say.

Every head makes draws of logits (n, B, C, *S); `measures`, `epkl` and `fuse` turn draws into maps
and numbers, `ood_score` and `auroc` into a verdict.
"""

from __future__ import annotations

from .deep import DeepLaplace, deep_laplace
from .divergence import epkl
from .dropout import DropoutHead, dropout_samples
from .fusion import fuse
from .head_circumference import Ellipse, HeadCircumference, head_circumference
from .laplace import LaplaceHead, Weights
from .low_rank_normal import LowRankNormal, kl
from .measures import Measures, measures
from .ood import AUROC, auroc, ood_score
from .stochastic import StochasticHead

__all__ = [
    "AUROC",
    "DeepLaplace",
    "DropoutHead",
    "Ellipse",
    "HeadCircumference",
    "LaplaceHead",
    "LowRankNormal",
    "Measures",
    "StochasticHead",
    "Weights",
    "auroc",
    "deep_laplace",
    "dropout_samples",
    "epkl",
    "fuse",
    "head_circumference",
    "kl",
    "measures",
    "ood_score",
]
