"""The CUDA kernels of scan conversion, behind the emulation header, against the NumPy oracle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from emulation import sanitized
from emulation.calls import ORDERS, SCALARS
from reference import scan_conversion as oracle
from reference.scan_conversion import QUAD, SECTOR, Plan

pytestmark = [pytest.mark.emulated, pytest.mark.usefixtures("no_leaks")]

DIRECTIONS = ("to_beam", "to_scan")
# The core takes fractions of a pixel below 1e-9 for 0, the oracle does not.
SNAP = 2e-9


def sector(apex, radii, angles, shape, picture, spacing=(1.0, 1.0)):
    return Plan(SECTOR, (*apex, *radii, *angles, *spacing, 0.0, 0.0), *shape, *picture)


def quad(corners, shape, picture, spacing=(1.0, 1.0)):
    return Plan(QUAD, (*np.ravel(corners), *spacing), *shape, *picture)


PLANS = {
    "symmetric": sector((29.5, -21), (25, 68), (-0.5, 0.5), (45, 40), (50, 60)),
    "asymmetric": sector((20.3, -9.7), (14.2, 57), (-0.31, 0.66), (40, 37), (49, 58)),
    # The probe's face is cropped off: beams begin above the picture, some samples miss it.
    "cropped": sector((24, -30), (30.8, 75), (-0.55, 0.55), (44, 35), (47, 49)),
    # Apex in the picture: all lines meet in one pixel, a row of the table longer than a warp's.
    "phased": sector((30, 4), (0, 44), (-0.7, 0.7), (45, 90), (50, 61)),
    "sideways": sector((22, 22), (5, 20), (-2.6, 0.9), (20, 43), (45, 45)),
    "anisotropic, mm": sector(
        (5.2, -3.1), (4, 12.5), (-0.6, 0.5), (41, 33), (62, 49), (0.21, 0.155)
    ),
    "coarse": sector((29.5, -21), (25, 68), (-0.5, 0.5), (6, 5), (50, 60)),
    "dense": sector((14, -9), (12, 33), (-0.5, 0.5), (90, 71), (26, 30)),
    "linear": quad(
        [(7.3, 3.1), (41.6, 3.1), (41.6, 44.2), (7.3, 44.2)], (42, 35), (48, 50), (1.0, 0.95)
    ),
    "whole picture": quad([(0, 0), (30, 0), (30, 20), (0, 20)], (21, 31), (21, 31)),
    "steered": quad([(12.2, 2), (52.4, 2), (40.1, 43.3), (0.3, 43.3)], (43, 41), (46, 55)),
    "trapezoid": quad([(15.4, 3.2), (37.7, 4.1), (51.2, 44.8), (2.5, 43.3)], (40, 48), (48, 55)),
    "one line": sector((8, -3), (5, 19), (-0.4, 0.4), (15, 1), (17, 17)),
    "one sample": sector((8, -3), (5, 19), (-0.4, 0.4), (1, 9), (17, 17)),
    "one row": sector((8, -3), (2, 9), (-0.9, 0.9), (9, 7), (1, 17)),
}
PLAN_NAMES = list(PLANS)


@dataclass
class Conversion:
    """One operator of the emulated core, forward and transposed."""

    core: object
    plan: Plan
    direction: str
    nearest: bool = False

    @property
    def shapes(self):
        """Of the forward operator's source and target."""
        p = self.plan
        shapes = (p.height, p.width), (p.samples, p.lines)
        return shapes if self.direction == "to_beam" else shapes[::-1]

    @property
    def operator(self):
        build_operator = getattr(oracle, self.direction)
        return build_operator(self.plan, "nearest" if self.nearest else "bilinear")

    def call(self, source, target, mask=None, transpose=False, device=0):
        p = self.plan
        self.core.scan_conversion(
            DIRECTIONS.index(self.direction), self.nearest, transpose,
            SCALARS.index(source.dtype.name), len(source), p.kind, p.values, p.samples, p.lines,
            p.height, p.width, source.ctypes.data, target.ctypes.data,
            0 if mask is None else mask.ctypes.data, 1, device, 0,
        )  # fmt: skip

    def apply(self, source, transpose=False):
        """Target and mask for (frames, rows, columns). What is not written stays 0xFF bytes."""
        shape = self.shapes[0 if transpose else 1]
        source = np.ascontiguousarray(source)
        target = np.empty((len(source), *shape), source.dtype)
        target.view(np.uint8)[...] = 0xFF
        mask = np.full(self.shapes[1], 0xFF, np.uint8)
        self.call(source, target, mask, transpose)
        assert set(np.unique(mask)) <= {0, 1}
        return target, mask.astype(bool)

    def random(self, rng, frames=1, kind=np.float64, transpose=False):
        shape = (frames, *self.shapes[1 if transpose else 0])
        return rng.standard_normal(shape).astype(kind)


def operators(emulated, name, nearest=False):
    return [Conversion(emulated, PLANS[name], direction, nearest) for direction in DIRECTIONS]


@pytest.mark.parametrize("name", PLAN_NAMES)
@pytest.mark.parametrize(("kind", "error"), [("float32", 5e-7), ("float64", SNAP)])
def test_both_directions_equal_the_oracle(emulated, rng, name, kind, error):
    for conversion in operators(emulated, name):
        source = conversion.random(rng, 2, kind)
        target, mask = conversion.apply(source)
        expected = conversion.operator
        assert np.array_equal(mask, expected.mask)
        assert mask.any() and (mask.all() == expected.mask.all())
        assert abs(target - expected(source)).max() <= error * abs(source).max()
        assert not target[:, ~mask].any()


@pytest.mark.parametrize("name", PLAN_NAMES)
@pytest.mark.parametrize(("kind", "error"), [("float32", 5e-7), ("float64", SNAP)])
def test_both_transposes_equal_the_oracle(emulated, rng, name, kind, error):
    for conversion in operators(emulated, name):
        gradient = conversion.random(rng, 2, kind, transpose=True)
        found, mask = conversion.apply(gradient, transpose=True)
        expected = conversion.operator
        assert np.array_equal(mask, expected.mask)
        wanted = (expected.matrix.T @ gradient.reshape(2, -1).T).T.reshape(found.shape)
        # In units of what the longest row adds up.
        scale = abs(gradient).max() * max(1, expected.matrix.sum(0).max())
        assert abs(found - wanted).max() <= error * scale


@pytest.mark.parametrize("name", PLAN_NAMES)
@pytest.mark.parametrize(("kind", "error"), [("float16", 2e-3), ("float32", 1e-6),
                                             ("float64", 1e-13)])  # fmt: skip
@pytest.mark.parametrize("nearest", [False, True])
def test_adjoint(emulated, rng, name, kind, error, nearest):
    """<S x, y> = <x, S' y>, nearest too."""
    for conversion in operators(emulated, name, nearest):
        x = conversion.random(rng, 1, kind)
        y = conversion.random(rng, 1, kind, transpose=True)
        forward, _ = conversion.apply(x)
        backward, _ = conversion.apply(y, transpose=True)
        forward, backward = forward.astype(np.float64), backward.astype(np.float64)
        difference = abs((forward * y).sum() - (x * backward).sum())
        assert difference <= error * np.linalg.norm(forward) * np.linalg.norm(y)


@pytest.mark.parametrize("scalar", SCALARS)
def test_every_scalar(emulated, rng, scalar):
    low, high = {"uint8": (0, 256), "uint16": (0, 65536), "int16": (-32768, 32768)}.get(
        scalar, (-3, 3)
    )
    for name in ("asymmetric", "trapezoid"):
        for conversion in operators(emulated, name):
            shape = (2, *conversion.shapes[0])
            if scalar.startswith("float"):
                source = rng.uniform(low, high, shape).astype(scalar)
                allowed = {"float16": 2**-10, "float32": 2e-6, "float64": 3 * SNAP}[scalar]
            else:
                source = rng.integers(low, high, shape).astype(scalar)
                source[:, ::3] = high - 1  # the sum of weights must not wrap round
                allowed = 0.5 + 4e-7 * (high - low)
            target, _ = conversion.apply(source)
            exact = conversion.operator(source)
            assert abs(target.astype(np.float64) - exact).max() <= allowed
            source[...] = high - 1
            target, mask = conversion.apply(source)
            assert (abs(target[:, mask] - np.float64(high - 1)) <= allowed).all()


@pytest.mark.parametrize("scalar", SCALARS)
@pytest.mark.parametrize("name", ["asymmetric", "cropped", "phased", "trapezoid", "dense"])
def test_nearest_takes_pixels_as_they_are(emulated, rng, name, scalar):
    for conversion in operators(emulated, name, nearest=True):
        source = rng.integers(0, 200, (1, *conversion.shapes[0])).astype(scalar)
        target, mask = conversion.apply(source)
        expected = conversion.operator
        assert np.array_equal(mask, expected.mask)
        wrong = target != expected(source)
        # The middle between two pixels may round either way.
        bilinear = Conversion(emulated, conversion.plan, conversion.direction).operator.matrix
        weights = np.sort(bilinear.toarray(), 1)[:, -2:]
        tied = (weights[:, 1] - weights[:, 0] < 1e-8).reshape(mask.shape)
        assert not (wrong[0] & ~tied).any()


def test_coinciding_grids_exchange_exact_values(emulated, rng):
    for kind in ("uint8", "float32", "float64"):
        for conversion in operators(emulated, "whole picture"):
            source = (200 * rng.random((2, *conversion.shapes[0]))).astype(kind)
            target, mask = conversion.apply(source)
            assert mask.all()
            assert np.array_equal(target, source)


def test_float_positions_are_as_good_as_double_ones(emulated, rng):
    """Masks and borders of random fans come out equal, weights to a float's rounding."""
    for _ in range(25):
        radius, depth = rng.uniform(0.1, 60), rng.uniform(5, 60)
        middle, width = rng.uniform(-2, 2), rng.uniform(0.05, 1.2)
        plan = sector(
            rng.integers(-20, 60, 2) + rng.choice([0, 0.5, rng.random()]),
            (radius, radius + depth),
            (middle - width, middle + width),
            rng.integers(2, 60, 2),
            rng.integers(2, 50, 2),
        )
        conversion = Conversion(emulated, plan, "to_scan")
        source = conversion.random(rng)
        exact, mask = conversion.apply(source)
        single, single_mask = conversion.apply(source.astype(np.float32))
        assert np.array_equal(mask, single_mask)
        assert abs(single - exact).max() <= 1e-6 * abs(source).max()


@pytest.mark.parametrize(
    ("plan", "spots"),
    [
        (
            sector((10, 0), (5, 30), (-np.pi / 4, np.pi / 2), (26, 31), (36, 41)),
            [(5, 5), (5, 10), (0, 30), (30, 10), (0, 40)],
        ),
        (
            sector((20, 0), (0, 25), (-np.pi / 4, np.pi / 4), (26, 31), (36, 41)),
            [(0, 20), (7, 27), (17, 3), (25, 20), (24, 27)],
        ),
        (
            quad([(3, 2), (30, 2), (30, 31), (3, 31)], (30, 28), (36, 41)),
            [(2, 3), (2, 30), (31, 3), (31, 30), (20, 3)],
        ),
    ],
    ids=["quarter", "phased", "linear"],
)
def test_pixels_on_the_border_are_inside(emulated, plan, spots):
    """In floats as in doubles."""
    conversion = Conversion(emulated, plan, "to_scan")
    for kind in ("float32", "float64"):
        _, mask = conversion.apply(np.ones((1, *conversion.shapes[0]), kind))
        assert np.array_equal(mask, conversion.operator.mask)
        assert all(mask[spot] for spot in spots)


@pytest.mark.parametrize("name", ["asymmetric", "trapezoid", "phased"])
def test_nan_spreads_no_further_than_its_footprint(emulated, name):
    for conversion in operators(emulated, name):
        shape = conversion.shapes[0]
        spot = np.ravel_multi_index((shape[0] // 2, shape[1] // 2), shape)
        source = np.ones((1, *shape))
        source.reshape(-1)[spot] = np.nan
        expected = conversion.operator.matrix[:, [spot]].toarray()[:, 0] > SNAP
        target, _ = conversion.apply(source)
        assert np.array_equal(np.isnan(target).ravel(), expected)
        source.reshape(-1)[spot] = np.inf
        target, _ = conversion.apply(source)
        assert np.array_equal(np.isinf(target).ravel(), expected)


@pytest.mark.parametrize("transpose", [False, True])
def test_a_batch_equals_its_frames(emulated, rng, transpose):
    """11 frames go in several layers, the last ones with less than four frames."""
    for name in ("asymmetric", "phased"):
        for conversion in operators(emulated, name):
            source = conversion.random(rng, 11, np.float32, transpose)
            together, _ = conversion.apply(source, transpose)
            for i in range(len(source)):
                alone, _ = conversion.apply(source[i : i + 1], transpose)
                assert np.array_equal(together[i], alone[0])


@pytest.mark.parametrize("name", ["asymmetric", "phased", "coarse", "trapezoid"])
def test_thread_orders_agree_bit_for_bit(emulated, rng, name):
    """Also where the table's entries arrive in another order."""
    for conversion in operators(emulated, name):
        x = conversion.random(rng, 3, np.float32)
        y = conversion.random(rng, 3, np.float32, transpose=True)
        results = []
        for order in ORDERS.values():
            emulated.set_thread_order(order)
            emulated.clear_cache()
            results.append((*conversion.apply(x), conversion.apply(y, transpose=True)[0]))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                assert np.array_equal(a, b)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_one_launch_a_batch(emulated, rng, direction):
    """The mask comes out of the same launch; a table takes four more, once."""
    conversion = Conversion(emulated, PLANS["asymmetric"], direction)
    x = conversion.random(rng, 9, np.float32)
    y = conversion.random(rng, 9, np.float32, transpose=True)
    into, back = np.empty_like(y), np.empty_like(x)
    mask = np.empty(y.shape[1:], np.uint8)
    start = emulated.launches()
    conversion.call(x, into, mask)
    assert emulated.launches() == start + 1
    conversion.call(y, back, transpose=True)
    assert emulated.launches() == start + 6
    conversion.call(y, back, transpose=True)
    assert emulated.launches() == start + 7


def test_forward_needs_no_memory_and_tables_are_kept_once(emulated, rng):
    conversion = operators(emulated, "asymmetric")[1]
    conversion.apply(conversion.random(rng))
    assert emulated.memory_used() == 0
    conversion.apply(conversion.random(rng, 2, np.float32, transpose=True), transpose=True)
    held = emulated.memory_used()
    entries = conversion.operator.matrix.nnz
    pixels = np.prod(conversion.shapes[0])
    assert 8 * entries + 4 * pixels <= held <= 8 * entries + 4 * pixels + 64
    conversion.apply(conversion.random(rng, 5, np.float16, transpose=True), transpose=True)
    assert emulated.memory_used() == held
    conversion.apply(conversion.random(rng, 1, np.float64, transpose=True), transpose=True)
    assert emulated.memory_used() > 2 * held


def test_too_little_memory_is_a_memory_error_and_leaves_nothing(emulated, rng):
    conversion = operators(emulated, "asymmetric")[0]
    gradient = conversion.random(rng, transpose=True)
    emulated.memory_peak(True)
    conversion.apply(gradient, transpose=True)
    most = emulated.memory_peak(False)
    for limit in (100, most // 4, most // 2, most - 1):
        emulated.clear_cache()
        emulated.set_memory_limit(limit)
        with pytest.raises(MemoryError, match="out of device memory"):
            conversion.apply(gradient, transpose=True)
        assert emulated.memory_used() == 0
    emulated.set_memory_limit(most)
    conversion.apply(gradient, transpose=True)


def test_no_frames(emulated):
    for conversion in operators(emulated, "asymmetric"):
        for transpose in (False, True):
            nothing = np.empty((0, *conversion.shapes[1 if transpose else 0]), np.float32)
            target, mask = conversion.apply(nothing, transpose)
            assert target.size == 0
            assert np.array_equal(mask, conversion.operator.mask)


def test_refuses(emulated):
    conversion = operators(emulated, "asymmetric")[0]
    with pytest.raises(ValueError, match="float16, float32 or float64 for the transposed operator"):
        conversion.apply(np.zeros((1, *conversion.shapes[1]), np.uint8), transpose=True)
    with pytest.raises(RuntimeError, match="choosing the device: invalid value"):
        one = np.zeros((1, 1, 1))
        conversion.call(one, one, device=1)
    large = sector((9, -9), (9, 30), (-0.5, 0.5), (9, 9), (2**15, 2**14))
    with pytest.raises(ValueError, match=r"less than 2\^29 pixels on a CUDA device"):
        Conversion(emulated, large, "to_beam").call(one, one)
    high = sector((9, -9), (9, 30), (-0.5, 0.5), (9, 9), (2**20, 9))
    with pytest.raises(ValueError, match="at most 1048560 rows on a CUDA device, got 1048576"):
        Conversion(emulated, high, "to_scan").call(one, one)


@pytest.mark.slow
@sanitized.skip_inside
def test_nothing_is_read_or_written_out_of_bounds():
    """The tests of this file once more on a build with AddressSanitizer."""
    sanitized.run_again(__file__, "oracle or scalar or nearest or batch or frames")
