"""The CUDA kernel of the annotation model's loss, behind the emulation header, and the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from emulation.calls import ORDERS, address
from reference import pgm as oracle

pytestmark = [pytest.mark.emulated, pytest.mark.usefixtures("no_leaks")]

LAW = {"gamma": 7.0, "s": 0.01, "sigma": 0.3}
SHAPES = [(2, 37, 41), (1, 1, 9), (1, 9, 1), (1, 1, 1), (3, 16, 30), (1, 33, 61)]
TOLERANCE = {"float64": 1e-10, "float32": 2e-6}


class Call:
    """One call of `core.pgm` with everything wanted."""

    def __init__(self, rng, shape, kind="float64", logits=True, masked=False, weighted=False):
        z = 2 * rng.standard_normal(shape)
        self.value = np.ascontiguousarray((z if logits else 1 / (1 + np.exp(-z))).astype(kind))
        self.labels = rng.integers(0, 3, shape).astype(np.uint8)
        self.mask = (rng.random((1, *shape[1:])) > 0.3).astype(np.uint8) if masked else None
        self.upstream = rng.standard_normal(shape).astype(kind) if weighted else None
        self.weights = (0.5, 3.0, 2.0) if masked else (1.0, 1.0, 1.0)
        self.logits, self.constants, self.kind = logits, masked, kind

    def run(self, core, mean=True, parts=True, gradient=True, maps=True):
        self.loss, self.sums = np.full((), np.nan, self.kind), np.full(5, np.nan)
        self.d = np.full(self.value.shape, np.nan, self.kind) if gradient else None
        planes = (3, *self.value.shape) if parts else self.value.shape
        self.map = np.full(planes, np.nan, self.kind) if maps else None
        core.pgm(
            address(self.value), self.kind == "float64", self.logits, *self.value.shape,
            address(self.labels), address(self.mask), self.mask is not None, *LAW.values(),
            self.weights, self.constants, mean, 1, 0, 0, address(self.loss), address(self.sums),
            address(self.d), address(self.upstream), address(self.map), parts,
        )  # fmt: skip
        return self

    def given(self):
        law = {"weights": self.weights, "constants": self.constants, "logits": self.logits, **LAW}
        return law | {"mask": self.mask}


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_equals_oracle(rng, emulated, kind, logits, masked, weighted):
    slack = TOLERANCE[kind]
    for shape in SHAPES:
        call = Call(rng, shape, kind, logits, masked, weighted).run(emulated)
        weights = 1 if call.upstream is None else call.upstream
        terms = [weights * t for t in oracle.terms(call.value, call.labels, **call.given())]
        for found, term in zip(call.map, terms, strict=True):
            scale = max(1, np.abs(term).max())
            np.testing.assert_allclose(found, term, rtol=0, atol=3 * slack * scale)
        sums = [term.sum() for term in terms]
        size = max(1, *(np.abs(term).sum() for term in terms))
        np.testing.assert_allclose(call.sums[:3], sums, rtol=0, atol=slack * size)
        count = np.broadcast_to(True if call.mask is None else call.mask != 0, shape).sum()
        assert call.sums[3] == count and call.sums[4] == 0
        assert abs(call.loss - sum(sums) / max(count, 1)) <= 3 * slack * size / max(count, 1)
        expected = oracle.gradient(call.value, call.labels, upstream=call.upstream, **call.given())
        scale = max(1, np.abs(expected).max())
        # A mean divides it too, but not behind a mask.
        divided = call.d if masked else call.d * call.value.size
        np.testing.assert_allclose(divided, expected, rtol=0, atol=slack * scale)


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("by", [1.0, 0.25, -3.0, 0.0, np.nan])
@pytest.mark.parametrize("count", [1, 255, 70_001])
def test_a_gradient_is_scaled_in_place(rng, emulated, kind, by, count):
    gradient = rng.standard_normal(count + 2).astype(kind)
    expected = gradient.copy()
    expected[1:-1] *= np.asarray(by, kind)
    scale = np.full((), by, kind)
    inside = address(gradient) + gradient.itemsize
    emulated.pgm_scale(inside, kind == "float64", count, address(scale), 1, 0, 0)
    np.testing.assert_array_equal(gradient, expected)


def test_one_launch_whatever_is_wanted(rng, emulated):
    before = emulated.launches()
    call = Call(rng, (2, 40, 50), "float32").run(emulated)
    assert emulated.launches() == before + 1
    whole = call.map.sum(0)
    call.run(emulated, parts=False, gradient=False, mean=False)
    np.testing.assert_allclose(call.map, whole, rtol=0, atol=1e-5)
    assert abs(call.loss - call.sums[:3].sum()) < 1e-6 * abs(call.loss)
    total = call.sums.copy()
    np.testing.assert_array_equal(call.run(emulated, gradient=False, maps=False).sums, total)


def test_bits_do_not_depend_on_the_order_of_threads(rng, emulated):
    call = Call(rng, (3, 70, 65), "float32", masked=True)
    found = []
    for order in ORDERS.values():
        emulated.set_thread_order(order)
        call.run(emulated)
        found.append((call.loss, call.sums, call.d, call.map))
    for other in found[1:]:
        for ours, first in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(ours, first)


def test_wrong_labels_make_the_loss_nan(rng, emulated):
    call = Call(rng, (1, 20, 33), logits=False)
    call.labels[0, 3, 4] = 3
    call.value[0, 19, 32] = 1.25
    call.run(emulated)
    assert np.isnan(call.loss) and call.sums[4] == 2


def test_more_blocks_than_frames(rng, emulated):
    """The last block adds up what all have left, however many there are."""
    call = Call(rng, (1, 300, 200), "float64").run(emulated, maps=False)
    expected = oracle.parts(call.value, call.labels, reduction="sum", **call.given())
    np.testing.assert_allclose(call.sums[:3], expected, rtol=1e-12)
