"""Every method that a learned map is held against, called the same way: frame in, map out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import usconf
from scipy.ndimage import gaussian_filter

Call = Callable[[np.ndarray], np.ndarray]

# Deviation in pixels of the blur that takes the speckle out of plain darkness; on the bone frames
# any from 1 to 10 gives the same to half a percent.
BLUR = 2.0
# ln of what is left at the bottom in the annotation model, see usconf.pgm_loss.
DECAY_TOTAL = 0.3


def darkness(image: np.ndarray) -> np.ndarray:
    """Brightness as confidence: dark is bad."""
    return gaussian_filter(image.astype(np.float32) / 255, BLUR)


def decay(image: np.ndarray) -> np.ndarray:
    """Depth alone, whatever the image: what the annotation model's prior says of an empty one."""
    height, width = image.shape
    rows = np.exp(-DECAY_TOTAL * np.arange(height) / height)
    return np.repeat(rows[:, None], width, axis=1)


def random_walk(image: np.ndarray) -> np.ndarray:
    return usconf.random_walk(image)


def wide_random_walk(image: np.ndarray) -> np.ndarray:
    return usconf.random_walk(image, alpha=0.5, beta=100)


def dag(image: np.ndarray) -> np.ndarray:
    return usconf.dag(image)


def plain_dag(image: np.ndarray) -> np.ndarray:
    return usconf.dag(image, despeckle=None)


BASELINES: dict[str, Call] = {
    "random walk": random_walk,
    "random walk, alpha 0.5, beta 100": wide_random_walk,
    "DAG": dag,
    "DAG, despeckle=None": plain_dag,
    "darkness": darkness,
    "decay only": decay,
}
# Learned and blurred maps come at their own scale; these see the bone frames at a third.
AT_A_THIRD = tuple(name for name in BASELINES if name.startswith(("random", "DAG")))
QUICK = ("random walk", "darkness", "decay only")


def learned(weights: Sequence[str]) -> dict[str, Call]:
    """One method for each file (or "default"), named after it."""

    def call(name: str) -> Call:
        return lambda image: usconf.learned(image, weights=name)

    return {f"learned: {Path(name).name}": call(name) for name in weights}


def is_learned(name: str) -> bool:
    return name.startswith("learned: ")
