"""Bernoulli (one logit) and categorical (several) pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def convolution(dims: int) -> type[nn.Conv2d] | type[nn.Conv3d]:
    """The layer for 2 or 3 spatial axes."""
    return nn.Conv2d if dims == 2 else nn.Conv3d


def log_likelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """ln p(label) per pixel, (B, *S), of (B, C, *S) logits; one channel is the logit of label 1."""
    if logits.shape[1] == 1:
        z = logits[:, 0]
        return F.logsigmoid(z.where(labels == 1, -z))
    return -F.cross_entropy(logits, labels, reduction="none")
