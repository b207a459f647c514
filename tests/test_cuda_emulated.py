"""The CUDA kernels on the CPU, behind the emulation header, against the NumPy oracle."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import sanitized
from emulation.calls import ORDERS, SCALARS, address
from reference import random_walk as oracle

pytestmark = [pytest.mark.emulated, pytest.mark.usefixtures("no_leaks")]

VARIANTS = {None: 0, "monai_1_3": 1}
FREE, SOURCE, SINK, OUTSIDE = range(4)
DIRECT, ITERATIVE = 0, 1


class Walk:
    """The emulated core on (frames, H, W) images, one set of arguments for all its functions."""

    def __init__(self, core, images, *, labels=None, double=False, solver=DIRECT, alpha=2.0,
                 beta=90.0, gamma=0.05, variant=None, normalise=True):  # fmt: skip
        self.core, self.double = core, double
        self.images = np.ascontiguousarray(images)
        self.labels = None if labels is None else np.ascontiguousarray(labels, np.uint8)
        frames, height, width = self.images.shape
        rows = (1, max(height - 1, 1)) if labels is None else (0, height)
        shared = labels is not None and len(labels) == 1
        self.arguments = (
            address(self.images), SCALARS.index(self.images.dtype.name), frames, height, width,
            address(self.labels), shared, *rows, alpha, beta, gamma, VARIANTS[variant], normalise,
            solver, double, 1, 0, 0,
        )  # fmt: skip

    @property
    def kind(self):
        return np.float64 if self.double else np.float32

    def map(self, factor=None):
        out = np.full(self.images.shape, np.nan, self.kind)
        self.report = self.core.random_walk(*self.arguments, address(out), address(factor))
        return out

    def factor(self):
        """Room for the factors, 64-byte aligned, NaN: what is read must have been written."""
        size = self.core.random_walk_factor_bytes(*self.arguments) * len(self.images) // 4
        room = np.full(size + 16, np.nan, np.float32)
        return room[-room.ctypes.data % 64 // 4 :]

    def backward(self, values, d_map, factor=None, want_image=True):
        d_image = np.full(self.images.shape, np.nan, self.kind) if want_image else None
        d_parameters = np.full(3, np.nan)
        d_map = np.ascontiguousarray(d_map, self.kind)
        self.core.random_walk_backward(
            *self.arguments, address(values), address(factor), address(d_map), address(d_image),
            address(d_parameters),
        )  # fmt: skip
        return d_image, d_parameters

    def edges(self):
        frames, height, width = self.images.shape
        out = np.full((frames, 4, height, width), np.nan)
        self.core.random_walk_edges(*self.arguments, address(out))
        return out


def reference_gradients(images, d_map, **parameters):
    all_of = [oracle.gradient(i, g, **parameters) for i, g in zip(images, d_map, strict=True)]
    parameters = np.array([[g.alpha, g.beta, g.gamma] for g in all_of]).sum(axis=0)
    return np.stack([g.image for g in all_of]), parameters


def speckle(rng, frames, height, width):
    """Blocks of different brightness under noise: weights from the floor to 1."""
    blocks = rng.random((frames, -(-height // 9), -(-width // 7)))
    smooth = blocks.repeat(9, 1).repeat(7, 2)[:, :height, :width]
    return (smooth * rng.rayleigh(0.4, (frames, height, width))).clip(0, 1)


def labels_of(image, **seeding):
    """What the package's front end makes of sink and mask, here from the oracle's own seeds."""
    mask = seeding.get("mask")
    prepared = oracle.prepare(image, mask=mask)
    kind = oracle.seed(
        prepared.intensity, prepared.valid, seeding.get("sink", "all"), seeding.get("sink_mask")
    )
    labels = np.choose(kind + 1, [SINK, FREE, SOURCE]).astype(np.uint8)
    labels[~prepared.valid] = OUTSIDE
    return labels[None]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    "shape",
    [(2, 3), (3, 3), (9, 1), (3, 40), (17, 15), (18, 16), (24, 20), (33, 32), (34, 33), (35, 48),
     (50, 70), (70, 50), (99, 20)],
)  # fmt: skip
def test_map_equals_the_oracle(emulated, rng, shape, double):
    images = speckle(rng, 1, *shape).astype(np.float32)
    walk = Walk(emulated, images, double=double)
    values = walk.map()
    assert abs(values[0] - oracle.solve(images[0])).max() <= (1e-13 if double else 1e-7)
    assert walk.report[0] == (0 if shape[0] == 2 else 4 if double else 2)


@pytest.mark.parametrize(
    "parameters",
    [{"beta": 400.0, "alpha": 0.5}, {"alpha": 0.0}, {"gamma": 0.0}, {"beta": 0.0},
     {"variant": "monai_1_3"}, {"alpha": 3.0, "beta": 10.0, "gamma": 1.0}],
    ids=str,
)  # fmt: skip
def test_map_equals_the_oracle_for_other_parameters(emulated, rng, parameters):
    images = speckle(rng, 2, 40, 36)
    expected = np.stack([oracle.solve(image, **parameters) for image in images])
    single = Walk(emulated, images.astype(np.float32), **parameters).map()
    assert abs(single - expected).max() <= 1e-6
    assert abs(Walk(emulated, images, double=True, **parameters).map() - expected).max() <= 1e-10


@pytest.mark.parametrize("scalar", SCALARS)
def test_every_scalar_type_is_read(emulated, rng, scalar):
    images = (speckle(rng, 2, 20, 19) * 200).astype(scalar)
    if scalar == "int16":
        images -= 90
    expected = np.stack([oracle.solve(image.astype(np.float64)) for image in images])
    assert abs(Walk(emulated, images).map() - expected).max() <= 1e-7


@pytest.mark.parametrize("sink", ["mid", "min", "mask"])
def test_other_sinks(emulated, rng, sink):
    image = speckle(rng, 1, 37, 33)[0]
    seeding = {"sink": sink}
    if sink == "mask":
        seeding["sink_mask"] = rng.random(image.shape) > 0.9
    walk = Walk(emulated, image[None], labels=labels_of(image, **seeding), double=True)
    assert abs(walk.map()[0] - oracle.solve(image, **seeding)).max() <= 1e-10


def test_a_mask_with_holes_and_islands(emulated, rng):
    """Pieces without a source are 0, without a sink 1, what lies outside is 0 and never read."""
    image = speckle(rng, 1, 45, 40)[0]
    mask = rng.random(image.shape) > 0.25
    mask[:, 17] = mask[30, :17] = False
    mask[:20, 18:24] = False
    sink = np.zeros(image.shape, bool)
    sink[40:, :30] = True
    seeding = {"mask": mask, "sink": "mask", "sink_mask": sink}
    expected = oracle.solve(image, **seeding)
    assert {0.0, 1.0} < set(np.unique(expected))
    image[~mask] = np.nan
    labels = labels_of(np.nan_to_num(image), **seeding)
    for double in (False, True):
        values = Walk(emulated, image[None], labels=labels, double=double).map()
        assert abs(values[0] - expected).max() <= (1e-10 if double else 1e-6)


@pytest.mark.parametrize("labelled", [False, True])
def test_extreme_images(emulated, labelled):
    """Constant, one bright pixel, no seeds but the source: all defined."""
    images = np.zeros((2, 21, 18))
    images[1, 10, 9] = 1
    labels = None
    if labelled:
        labels = np.zeros((1, 21, 18), np.uint8)
        labels[:, 0] = SOURCE
    values = Walk(emulated, images, labels=labels, double=True).map()
    if labelled:
        assert abs(values - 1).max() <= 1e-12
        return
    assert abs(values[0] - oracle.homogeneous((21, 18))).max() <= 1e-12
    assert abs(values[1] - oracle.solve(images[1])).max() <= 1e-12


def test_a_batch_equals_its_frames(emulated, rng):
    images = speckle(rng, 3, 35, 30).astype(np.float32)
    labels = np.concatenate([labels_of(image, sink="mid") for image in images])
    together = Walk(emulated, images, labels=labels).map()
    for i in range(3):
        alone = Walk(emulated, images[i : i + 1], labels=labels[i : i + 1]).map()
        assert np.array_equal(together[i], alone[0])


@pytest.mark.parametrize("double", [False, True])
def test_thread_orders_agree_bit_for_bit(emulated, rng, double):
    images = speckle(rng, 1, 70, 68)  # separators of three panels
    walk = Walk(emulated, images if double else images.astype(np.float32), double=double)
    d_map = rng.standard_normal(images.shape)
    results = []
    for order in ORDERS.values():
        emulated.set_thread_order(order)
        factor = walk.factor()
        values = walk.map(factor)
        results.append((values, *walk.backward(values, d_map, factor), walk.edges()))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert np.array_equal(a, b)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("shape", [(3, 4), (24, 20), (41, 50), (70, 50)])
def test_gradients_equal_the_oracle(emulated, rng, shape, double, kept):
    images = speckle(rng, 2, *shape).astype(np.float32)
    d_map = rng.standard_normal(images.shape).astype(np.float32)
    d_map[:, [0, -1]] = 100  # on seeds: must not matter
    walk = Walk(emulated, images.astype(np.float64 if double else np.float32), double=double)
    factor = walk.factor() if kept else None
    d_image, d_parameters = walk.backward(walk.map(factor), d_map, factor)
    expected, expected_parameters = reference_gradients(images, d_map)
    bound = 1e-9 if double else 1e-5
    assert abs(d_image - expected).max() <= bound * abs(expected).max()
    # The parameters' terms cancel: their own sum is no measure.
    scale = abs(expected_parameters) + abs(expected).max() * np.array([1, 0.01, 1])
    assert (abs(d_parameters - expected_parameters) <= bound * scale).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_tied_extremes_share_the_gradient(emulated, rng, variant):
    """Several pixels at minimum and maximum, edges at M and M2 (gamma = 0: of both kinds)."""
    images = np.round(speckle(rng, 1, 24, 20) * 3) / 3
    images[0, -1] = rng.integers(0, 2, 20)
    d_map = rng.standard_normal(images.shape)
    for gamma in (0.05, 0.0):
        walk = Walk(emulated, images, double=True, variant=variant, gamma=gamma)
        d_image, d_parameters = walk.backward(walk.map(), d_map)
        expected, expected_parameters = reference_gradients(
            images, d_map, variant=variant, gamma=gamma
        )
        assert np.allclose(d_image, expected, rtol=0, atol=1e-9 * abs(expected).max())
        assert np.allclose(d_parameters, expected_parameters, rtol=1e-8, atol=1e-9)


def test_gradients_with_mask_and_other_sinks(emulated, rng):
    image = speckle(rng, 1, 40, 37)[0]
    seeding = {"mask": rng.random(image.shape) > 0.15, "sink": "mid"}
    d_map = rng.standard_normal((1, *image.shape))
    walk = Walk(emulated, image[None], labels=labels_of(image, **seeding), double=True)
    d_image, d_parameters = walk.backward(walk.map(), d_map)
    expected = oracle.gradient(image, d_map[0], **seeding)
    assert abs(d_image[0] - expected.image).max() <= 1e-9 * abs(expected.image).max()
    wanted = [expected.alpha, expected.beta, expected.gamma]
    assert np.allclose(d_parameters, wanted, rtol=1e-8, atol=1e-9)


def test_only_the_parameters_gradient(emulated, rng):
    images = speckle(rng, 1, 20, 20)
    walk = Walk(emulated, images, double=True)
    values, d_map = walk.map(), rng.standard_normal(images.shape)
    _, both = walk.backward(values, d_map)
    nothing, alone = walk.backward(values, d_map, want_image=False)
    assert nothing is None
    assert np.array_equal(alone, both)


def test_an_envelope_is_not_normalised_again(emulated, rng):
    image = speckle(rng, 1, 30, 26)[0]
    prepared = oracle.prepare(image, mode="RF")
    walk = Walk(emulated, prepared.intensity[None], normalise=False, double=True)
    assert abs(walk.map()[0] - oracle.solve(image, mode="RF")).max() <= 1e-12
    # A factor on the envelope changes eps alone.
    walk = Walk(emulated, 1000 * prepared.intensity[None], normalise=False, double=True)
    assert abs(walk.map()[0] - oracle.solve(image, mode="RF")).max() <= 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
def test_edges_equal_the_oracle(emulated, rng, variant):
    image = speckle(rng, 1, 19, 23)[0]
    valid = rng.random(image.shape) > 0.1
    for mask in (None, valid):
        labels = None if mask is None else labels_of(image, mask=mask)
        out = Walk(emulated, image[None], labels=labels, variant=variant).edges()[0]
        prepared = oracle.prepare(image, mask=mask)
        links = oracle.edges(prepared.valid)
        expected = np.zeros(out.shape)
        (r0, c0), (r1, c1) = (np.divmod(end, 23) for end in (links.first, links.second))
        plane = np.where(r0 == r1, 0, np.where(c0 == c1, 1, np.where(c1 > c0, 2, 3)))
        weights = oracle.weigh(prepared.weighted, links, variant=variant).weight
        expected[plane, r0, c0] = weights
        assert np.allclose(out, expected, rtol=1e-13, atol=0)


def test_memory_is_what_was_announced(emulated, rng):
    for double in (False, True):
        walk = Walk(emulated, speckle(rng, 2, 60, 50), double=double)
        emulated.clear_cache()
        emulated.memory_peak(True)
        walk.map()
        assert emulated.memory_peak(False) == emulated.random_walk_memory(*walk.arguments)


def test_too_little_memory_is_a_memory_error(emulated, rng):
    walk = Walk(emulated, speckle(rng, 1, 60, 50))
    needed = emulated.random_walk_memory(*walk.arguments)
    emulated.set_memory_limit(needed - 1)
    with pytest.raises(MemoryError, match="out of device memory in reserving the workspace"):
        walk.map()
    emulated.set_memory_limit(needed)
    walk.map()


def test_a_device_that_is_not_there(emulated):
    assert emulated.devices() == ["emulated device (sm_90)"]
    walk = Walk(emulated, np.zeros((1, 9, 9)))
    walk.arguments = (*walk.arguments[:-2], 1, 0)
    with pytest.raises(RuntimeError, match="choosing the device: invalid value"):
        walk.map()


def test_a_call_takes_few_launches(emulated, rng):
    """A kernel launch costs microseconds on a device: their number is part of the design."""
    walk = Walk(emulated, speckle(rng, 2, 70, 68))
    before = emulated.launches()
    walk.map()
    # 71 now: one per panel and two per level of the tree, a few per level and sweep.
    assert emulated.launches() - before <= 80


def test_no_frames(emulated):
    walk = Walk(emulated, np.zeros((0, 20, 20), np.float32))
    assert walk.map().shape == (0, 20, 20)
    assert walk.edges().shape == (0, 4, 20, 20)
    _, d_parameters = walk.backward(walk.map(), np.zeros((0, 20, 20)))
    assert not d_parameters.any()


def test_the_iterative_solver_is_refused(emulated):
    walk = Walk(emulated, np.zeros((1, 20, 20)), solver=ITERATIVE)
    with pytest.raises(ValueError, match='solver must be "direct" on a CUDA device'):
        walk.map()


@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 3), (11, 7), (22, 18)])
@pytest.mark.parametrize("scalar", ["float32", "float16"])
def test_what_is_no_number_is_seen_in_the_map(emulated, rng, wrong, place, scalar):
    """To look for it on the host would make every call wait."""
    images = speckle(rng, 3, 23, 19).astype(scalar)
    whole = Walk(emulated, images).map()
    images[(1, *place)] = wrong
    found = Walk(emulated, images).map()
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[::2], whole[::2])


@pytest.mark.slow
def test_a_picture_of_usual_size(emulated, rng):
    images = speckle(rng, 1, 256, 230).astype(np.float32)
    assert abs(Walk(emulated, images).map()[0] - oracle.solve(images[0])).max() <= 1e-7


@pytest.mark.slow
@sanitized.skip_inside
def test_nothing_is_read_or_written_out_of_bounds():
    """The tests of this file once more on a build with AddressSanitizer."""
    sanitized.run_again(
        __file__, "(oracle or holes or batch or memory or no_frames) and not too_little"
    )
