"""Pictures, masks and planes that the tests of the DAG share; how exact its maps are."""

from __future__ import annotations

import numpy as np

TOLERANCE = {"float32": 2e-6, "float64": 1e-12}


def speckle(rng, shape, dtype=np.uint8):
    """Neighbours alike, multiplicative noise, a bright line with a shadow."""
    noise = np.hypot(*rng.standard_normal((2, *shape)))
    picture = 40 * noise + 20
    picture[shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 250
    picture[shape[0] // 2 + 1 :, shape[1] // 3 : shape[1] // 2] *= 0.1
    return np.clip(picture, 1, 255).astype(dtype)


def holes(rng, shape, share=0.25):
    """Scattered invalid pixels, a black corner, a column whose source lies deep."""
    valid = rng.random(shape) > share
    valid[: shape[0] // 3, : shape[1] // 4] = False
    return valid


def soft(rng, shape):
    """A needle and its artifacts, to the last row; float32, as they are read."""
    height, width = shape
    needle, artifact = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    needle[height // 4 : height // 4 + 2, width // 5 : -(width // 5) or None] = 0.95
    artifact[height // 2 :, width // 4 : width // 2 + 1] = rng.random(
        artifact[height // 2 :, width // 4 : width // 2 + 1].shape
    )
    artifact[-1, 0] = 1.0
    return {"needle": needle, "artifact": artifact}


def gap(ours, expected):
    """Largest difference; relative where values exceed 1, as the published code's do."""
    return np.abs(ours - expected).max() / max(1.0, np.abs(expected).max())
