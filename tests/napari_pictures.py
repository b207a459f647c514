"""A folder to label, for the tests of `usconf label`."""

from __future__ import annotations

import numpy as np
from usconf import io


def picture(seed=0, shape=(40, 32)):
    return np.random.default_rng(seed).integers(1, 256, shape, dtype=np.uint8)


def fill(folder):
    """Two stills, one of them below a folder, and a clip of three frames."""
    io.write(folder / "ann_1.png", picture(1))
    (folder / "bob").mkdir()
    io.write(folder / "bob" / "7.png", picture(2, (24, 20)))
    np.save(folder / "clip.npy", np.stack([picture(seed) for seed in (3, 4, 5)]))
    return folder
