"""How gamma and the learning rate go over the steps."""

from __future__ import annotations

import math

from .config import Loss, Train


def gamma(loss: Loss, step: int, steps: int) -> float:
    """Weight of the vertical term at a step: geometric from gamma_start to gamma, then level.

    The full weight from the start hardly trains: a map that learns to fall in shadows pays at
    once for every row in which it rises.
    """
    span = loss.anneal * steps
    share = min(1.0, step / span) if span > 0 else 1.0
    return float(loss.gamma_start * (loss.gamma / loss.gamma_start) ** share)


def learning_rate(train: Train, step: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the peak."""
    warmup = max(1, round(train.warmup * train.steps))
    if step < warmup:
        return train.learning_rate * (step + 1) / warmup
    share = (step - warmup) / max(1, train.steps - warmup)
    return train.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * share)))
