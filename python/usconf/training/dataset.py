"""Frames with labels as planes of uint8, and which of them a step trains on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# What the pixels of a label may be.
NONE, GOOD, BAD = 0, 1, 2

# Streams of random numbers that a run's seed opens; their first word keeps them apart.
_ORDER, _CHANGES = 1, 2


class Dataset:
    """Frames in memory or mapped from files, (n, planes, rows, columns) uint8 each part.

    Planes go by name: image and label always; mask (1 = valid) of folders; artifact (1 = must not
    be trusted) and transmission (255 = 1) of phantoms to validate with.
    """

    def __init__(self, planes: Sequence[str], parts: Sequence[np.ndarray]) -> None:
        self.planes = tuple(planes)
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of every frame."""
        rows, columns = self._parts[0].shape[2:]
        return int(rows), int(columns)

    def gather(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Copy the frames of these numbers: (n, rows, columns) under each plane's name."""
        stack = np.empty((len(indices), len(self.planes), *self.shape), np.uint8)
        for place, index in enumerate(indices):
            part = int(np.searchsorted(self._ends, index, side="right"))
            first = int(self._ends[part]) - len(self._parts[part])
            stack[place] = self._parts[part][int(index) - first]
        return {name: stack[:, number] for number, name in enumerate(self.planes)}


class Splits(NamedTuple):
    """What a run trains on, what it is judged by, and clips (n, frames, rows, columns)."""

    training: Dataset
    validation: Dataset
    clips: np.ndarray


class Order:
    """The frames of each step: all of them once an epoch, shuffled by (seed, epoch)."""

    def __init__(self, count: int, batch: int, seed: int) -> None:
        self._count, self._batch, self._seed = count, batch, seed
        self._epochs: dict[int, np.ndarray] = {}

    def of(self, step: int) -> np.ndarray:
        """Numbers of the frames of a step, a function of (seed, step) alone."""
        places = step * self._batch + np.arange(self._batch)
        epochs = places // self._count
        self._epochs = {epoch: self._shuffled(epoch) for epoch in np.unique(epochs).tolist()}
        return np.array(
            [self._epochs[e][p] for e, p in zip(epochs.tolist(), places % self._count, strict=True)]
        )

    def _shuffled(self, epoch: int) -> np.ndarray:
        known = self._epochs.get(epoch)
        if known is not None:
            return known
        random = np.random.default_rng((self._seed, _ORDER, epoch))
        return random.permutation(self._count)


def sample_seed(seed: int, step: int, place: int) -> np.random.SeedSequence:
    """Where the changes of the sample at this place of this step's batch come from."""
    return np.random.SeedSequence((seed, _CHANGES, step, place))
