"""The core's uncertainty measures without torch: what the sanitizers look at."""

from __future__ import annotations

import numpy as np
import pytest
from reference import uncertainty as oracle
from usconf import _core, arrays

TOLERANCE = {"float64": 1e-13, "float32": 5e-7}


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (2, 3, 1, 255), (6, 2, 4, 257), (3, 1, 2, 513), (20, 2, 3, 1111)]
)
def test_equals_oracle(rng, kind, threads, shape):
    logits = (3 * rng.standard_normal(shape)).astype(kind)
    draws, images, classes, pixels = shape
    maps = np.full((4, images, pixels), np.nan, kind)
    _core.uncertainty(
        arrays.pointer(logits), kind == "float64", draws, images, classes, pixels, threads, -1, 0,
        arrays.pointer(maps), 0, 0,
    )  # fmt: skip
    expected = oracle.measures(logits.astype(np.float64))
    for name, found in zip(("TU", "EE", "MI", "PV"), maps, strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=TOLERANCE[kind])


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 255), (4, 2, 4, 257), (3, 1, 2, 513)])
def test_noise_equals_oracle(rng, kind, threads, shape):
    draws, images, classes, pixels = shape
    logits = (3 * rng.standard_normal(shape)).astype(kind)
    noise = rng.standard_normal((5, *shape[1:])).astype(kind)
    maps = np.full((4, images, pixels), np.nan, kind)
    _core.uncertainty(
        arrays.pointer(logits), kind == "float64", draws, images, classes, pixels, threads, -1, 0,
        arrays.pointer(maps), arrays.pointer(noise), 5,
    )  # fmt: skip
    expected = oracle.noisy_measures(logits.astype(np.float64), noise.astype(np.float64))
    for name, found in zip(("TU", "EE", "MI", "PV"), maps, strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=2 * TOLERANCE[kind])
