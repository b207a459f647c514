"""Batches of a loader as features, labels and masks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from . import checks

Loader = Iterable[Any]
Encoder = Callable[[Tensor], Tensor]


@contextmanager
def evaluating(encoder: object) -> Iterator[None]:
    """Eval mode for a module; every layer in its own mode afterwards."""
    modules = list(encoder.modules()) if isinstance(encoder, nn.Module) else []
    before = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode


def encoded(
    loader: Loader, encoder: Encoder | None, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """What the encoder makes of the images, labels, and mask or None, of every batch."""
    empty = True
    for number, batch in enumerate(loader):
        images, target, mask = _parts(batch, number)
        features = images.to(device)
        if encoder is not None:
            with torch.no_grad():
                features = encoder(features)
        yield features, target.to(device), mask
        empty = False
    if empty:
        raise ValueError(
            "loader must yield at least one batch, got none; an iterator that was used up is empty"
        )


def checked(
    features: Tensor, target: Tensor, mask: Tensor | None, channels: int, classes: int, dims: int
) -> tuple[Tensor, Tensor | None]:
    """Labels (B, *S) and mask (B, *S) or None that fit features (B, channels, *S)."""
    checks.features_like(features, channels, dims)
    count, size = features.shape[0], features.shape[2:]
    spatial = target.ndim - 1 - (target.ndim == dims + 2)
    if spatial == dims:
        checks.same_size("features", size, target.shape[-dims:], "the labels")
    inside = checks.mask_like(mask, count, size, features.device)
    return checks.labels_like(target, count, classes, size, inside), inside


def _parts(batch: Any, number: int) -> tuple[Tensor, Tensor, Tensor | None]:
    told = (
        "loader must yield (images, labels) or (images, labels, mask) tensors, got {} in batch "
        f"{number}; for dictionaries give ((b['image'], b['label']) for b in loader)"
    )
    if not isinstance(batch, Sequence):
        raise TypeError(told.format(type(batch).__name__))
    if len(batch) not in (2, 3):
        raise ValueError(told.format(f"{len(batch)} parts"))
    for part in batch[:2]:
        if not isinstance(part, Tensor):
            raise TypeError(told.format(type(part).__name__))
    return batch[0], batch[1], batch[2] if len(batch) == 3 else None
