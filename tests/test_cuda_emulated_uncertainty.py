"""The CUDA kernel of the uncertainty measures, behind the emulation header, and the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from emulation.calls import ORDERS, address
from reference import uncertainty as oracle

pytestmark = [pytest.mark.emulated, pytest.mark.usefixtures("no_leaks")]

TOLERANCE = {"float64": 1e-13, "float32": 5e-7}


def run(core, logits, noise=None):
    draws, images, classes, pixels = logits.shape
    maps = np.full((4, images, pixels), np.nan, logits.dtype)
    core.uncertainty(
        address(logits), logits.dtype == np.float64, draws, images, classes, pixels, 1, 0, 0,
        address(maps), address(noise), 0 if noise is None else len(noise),
    )  # fmt: skip
    return maps


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (6, 2, 1, 300), (5, 3, 4, 77), (3, 1, 2, 515)])
def test_equals_oracle(rng, emulated, kind, shape):
    logits = (3 * rng.standard_normal(shape)).astype(kind)
    before = emulated.launches()
    maps = run(emulated, logits)
    assert emulated.launches() == before + 1
    expected = oracle.measures(logits.astype(np.float64))
    for name, found in zip(("TU", "EE", "MI", "PV"), maps, strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=TOLERANCE[kind])


def test_bits_do_not_depend_on_the_order_of_threads(rng, emulated):
    logits = rng.standard_normal((4, 2, 3, 290)).astype("float32")
    found = []
    for order in ORDERS.values():
        emulated.set_thread_order(order)
        found.append(run(emulated, logits))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


@pytest.mark.parametrize("classes", [1, 3])
def test_identical_draws_carry_no_information(rng, emulated, classes):
    one = rng.standard_normal((1, 1, classes, 40)).astype("float32")
    total, expected, mutual, variance = run(emulated, np.repeat(one, 7, axis=0))
    assert not mutual.any() and not variance.any()
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (4, 2, 1, 300), (3, 2, 4, 77)])
def test_noise_equals_oracle(rng, emulated, kind, shape):
    logits = (3 * rng.standard_normal(shape)).astype(kind)
    noise = rng.standard_normal((5, *shape[1:])).astype(kind)
    before = emulated.launches()
    maps = run(emulated, logits, noise)
    assert emulated.launches() == before + 1
    expected = oracle.noisy_measures(logits.astype(np.float64), noise.astype(np.float64))
    for name, found in zip(("TU", "EE", "MI", "PV"), maps, strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=2 * TOLERANCE[kind])
