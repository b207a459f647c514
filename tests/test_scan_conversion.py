"""To the beams and back: equal to the oracle, whatever the geometry, dtype, layout and machine."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import usconf
from reference import scan_conversion as oracle
from test_arrays import cupy  # noqa: F401  a fixture
from usconf import _core

DTYPES = ["uint8", "uint16", "int16", "float16", "float32", "float64"]
BOTH = pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])

# name -> geometry, (height, width) of the scan image, (samples, lines) of the beam image
CASES = {
    "convex": (usconf.Sector((60, -20), 30, 110, -0.5, 0.5), (100, 121), (83, 57)),
    "asymmetric": (usconf.Sector((20.3, -31.7), 40.2, 117.9, -0.11, 0.73), (90, 101), (70, 66)),
    "cropped sides": (usconf.Sector((40, -10), 20, 85, -0.9, 0.8), (80, 81), (60, 90)),
    "no face": (usconf.Sector((50.5, -25), None, 90, -0.6, 0.6), (70, 100), (64, 48)),
    "phased": (usconf.Sector((45, 2), 0, 80, -0.75, 0.75), (85, 91), (81, 60)),
    "wide": (usconf.Sector((50, 60), 15, 45, -2.6, 2.4), (110, 101), (40, 150)),
    "mm": (usconf.Sector((9, -3), 4.5, 16.5, -0.5, 0.5, 0.15), (92, 121), (83, 57)),
    "oblong pixels": (usconf.Sector((9, -3), 4.5, 16, -0.5, 0.5, (0.15, 0.2)), (70, 121), (83, 57)),
    "linear": (usconf.Linear(3.3, 51.8, 7.2, 60.1), (70, 61), (77, 33)),
    "linear mm": (usconf.Linear(0.1, 3.7, -0.2, 5.5, (0.1, 0.08)), (66, 40), (90, 37)),
    "steered": (usconf.Trapezoid((30, 2), (89, 2), (59, 70), (0, 70)), (72, 91), (70, 60)),
    "diverging": (usconf.Trapezoid((30, 2), (60, 2), (88, 70), (2, 70)), (72, 91), (70, 60)),
    "crooked": (usconf.Trapezoid((20, 8), (61, 1), (95, 70), (-4, 60)), (68, 90), (61, 77)),
}


def plan_of(geometry, scan, beam=None):
    grid = geometry.beam_grid(scan, beam)
    return oracle.Plan(*geometry.parameters(grid), grid.n_samples, grid.n_lines, *scan)


def noise(rng, shape, dtype):
    """Values of the dtype's whole range (integers), or of a few units around 0."""
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def assert_equals(ours, exact, source):
    """To the round-off of the dtype; integers are rounded, which float32 weights may tip."""
    assert ours.dtype == source.dtype and ours.shape == exact.shape
    scale = np.abs(source.astype(np.float64)).max(initial=0)
    slack = {"float64": 1e-13, "float32": 5e-7, "float16": 1e-3}
    allowed = scale * slack.get(source.dtype.name, 5e-7)
    if source.dtype.kind != "f":
        allowed += 0.5
    assert np.abs(ours.astype(np.float64) - exact).max(initial=0) <= allowed


def run(direction, source, case, **options):
    geometry, scan, beam = CASES[case]
    if direction == "to_beam":
        return usconf.to_beam(source, geometry, beam, **options)
    return usconf.to_scan(source, geometry, scan, **options)


def shapes(direction, case):
    """(of the source, of the target)"""
    _, scan, beam = CASES[case]
    return (scan, beam) if direction == "to_beam" else (beam, scan)


def expected(direction, case, interpolation="bilinear"):
    return getattr(oracle, direction)(plan_of(*CASES[case]), interpolation)


EITHER = pytest.mark.parametrize("direction", ["to_beam", "to_scan"])


# Equals the oracle


@pytest.mark.parametrize("case", CASES)
def test_oracle_and_geometry_agree(case):
    """Two derivations of where samples sit and which pixels lie inside."""
    geometry, scan, beam = CASES[case]
    plan = plan_of(geometry, scan, beam)
    ours = geometry.positions(geometry.beam_grid(scan, beam))
    np.testing.assert_allclose(oracle.positions(plan), ours, rtol=0, atol=1e-12)
    down, across, _ = oracle.beam_coordinates(plan, *ours)
    fractions = np.linspace(0, 1, beam[1])[None].repeat(beam[0] - 1, 0)
    np.testing.assert_allclose(across[1:], fractions, rtol=0, atol=1e-12)
    np.testing.assert_allclose(down, np.linspace(0, 1, beam[0])[:, None] + 0 * down, atol=1e-12)
    z, x = np.mgrid[: scan[0], : scan[1]]
    if geometry.kind != "sector" or geometry.r_min is not None:
        np.testing.assert_array_equal(oracle.to_scan(plan).mask, geometry.contains(x, z))


@EITHER
@BOTH
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_equals_oracle(rng, direction, case, dtype, interpolation):
    source = noise(rng, shapes(direction, case)[0], dtype)
    exact = expected(direction, case, interpolation)
    ours = run(direction, source, case, interpolation=interpolation)
    assert type(ours).__name__ == "Resampled" and ours.mask.dtype == bool
    np.testing.assert_array_equal(ours.mask, exact.mask)
    assert_equals(ours.image, exact(source), source)
    if interpolation == "nearest":
        np.testing.assert_array_equal(ours.image, exact(source))
    assert not ours.image[~ours.mask].any()


@pytest.mark.parametrize("case", CASES)
def test_default_shape(rng, case):
    geometry, scan, _ = CASES[case]
    image = noise(rng, scan, "float32")
    grid, plan = geometry.beam_grid(scan), plan_of(geometry, scan)
    ours = usconf.to_beam(image, geometry)
    assert ours.image.shape == ours.mask.shape == grid.shape
    assert_equals(ours.image, oracle.to_beam(plan)(image), image)
    back = usconf.to_scan(ours.image, geometry, scan)
    assert_equals(back.image, oracle.to_scan(plan)(ours.image), image)


@EITHER
def test_integers_are_rounded_to_nearest(direction):
    """A ramp between 0 and 1, and one at the dtype's ends, which must not wrap round."""
    geometry = usconf.Linear(0, 1, 0, 1) if direction == "to_beam" else usconf.Linear(0, 10, 0, 10)
    shape = (11, 11)
    for dtype, low, high in (("uint8", 0, 1), ("uint8", 254, 255), ("int16", -32768, -32767)):
        source = np.array([[low, high], [low, high]], dtype)
        ours = getattr(usconf, direction)(source, geometry, shape).image
        ours = np.delete(ours[3], 5)  # halves may go either way
        np.testing.assert_array_equal(ours, [low] * 5 + [high] * 5)


# Layouts


@EITHER
def test_batches_and_axes(rng, direction):
    source, target = shapes(direction, "asymmetric")
    clip = rng.random((3, *source), np.float32)
    alone = [run(direction, frame, "asymmetric") for frame in clip]
    stack = np.stack([frame.image for frame in alone])
    for given, axes, back in (
        (clip[:, None], None, (slice(None), 0)),
        (clip[:1], None, slice(None)),
        (clip, "thw", slice(None)),
        (clip.transpose(1, 2, 0), "hwt", None),
        (clip.transpose(2, 1, 0)[:, None], "wchb", None),
    ):
        ours, mask = run(direction, given, "asymmetric", axes=axes)
        np.testing.assert_array_equal(mask, alone[0].mask)
        if axes == "hwt":
            assert ours.shape == (*target, 3)
            ours = ours.transpose(2, 0, 1)
        elif axes == "wchb":
            assert ours.shape == (target[1], 1, target[0], 3)
            ours = ours[:, 0].transpose(2, 1, 0)
        else:
            ours = ours[back]
        np.testing.assert_array_equal(ours, stack[: len(ours)])


@EITHER
def test_empty_batch(direction):
    source, target = shapes(direction, "convex")
    image, mask = run(direction, np.empty((0, 1, *source), np.uint8), "convex")
    assert image.shape == (0, 1, *target) and image.dtype == np.uint8
    np.testing.assert_array_equal(mask, expected(direction, "convex").mask)


@EITHER
@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_byte_order_and_alignment(rng, direction, dtype):
    plain = noise(rng, shapes(direction, "crooked")[0], dtype)
    kept = plain.copy()
    plain.flags.writeable = False
    wanted = run(direction, plain, "crooked").image
    wide = np.zeros((2 * plain.shape[0], 3 * plain.shape[1]), dtype)
    wide[::2, ::3] = plain
    unaligned = np.zeros(plain.nbytes + 1, np.uint8)[1:].view(dtype).reshape(plain.shape)
    unaligned[:] = plain
    for given in (
        wide[::2, ::3],
        plain[::-1].copy()[::-1],
        np.asfortranarray(plain),
        unaligned,
        plain.astype(plain.dtype.newbyteorder()),
    ):
        ours = run(direction, given, "crooked").image
        assert ours.flags.writeable and ours.dtype == dtype
        np.testing.assert_array_equal(ours, wanted)
    np.testing.assert_array_equal(plain, kept)


@EITHER
def test_smallest(direction):
    geometry = usconf.Linear(-0.4, 0.4, -0.4, 0.4)
    if direction == "to_beam":
        image, mask = usconf.to_beam(np.full((1, 1), 7, np.uint8), geometry, (2, 3))
        assert mask.all() and (image == 7).all() and image.shape == (2, 3)
    else:
        corners = np.array([[1.0, 2.0], [3.0, 6.0]])
        image, mask = usconf.to_scan(corners, geometry, (1, 1))
        assert mask.all() and image == [[3.0]]
    assert usconf.to_beam(np.ones((1, 40)), usconf.Linear(0, 39, -0.5, 0.5)).mask.all()
    assert usconf.to_beam(np.ones((40, 1)), usconf.Linear(-0.5, 0.5, 0, 39)).mask.all()


@EITHER
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_cupy_arrays_give_cupy_arrays(rng, cupy, direction, interpolation):  # noqa: F811
    image = rng.integers(0, 256, shapes(direction, "convex")[0], np.uint8)
    wanted = run(direction, image, "convex", interpolation=interpolation)
    ours = run(direction, image.view(cupy.ndarray), "convex", interpolation=interpolation)
    for found, exact in zip(ours, wanted, strict=True):
        assert type(found) is cupy.ndarray and found.dtype == exact.dtype
        np.testing.assert_array_equal(np.asarray(found), exact)
    assert (3, 77) in cupy.seen


# Machines: threads, processes, instruction sets


@pytest.fixture(scope="module")
def large():
    fan = usconf.Sector((255.5, -90), 110, 590, -0.62, 0.58)
    rng = np.random.default_rng(4)
    return fan, rng.random((3, 512, 512), np.float32), rng.random((3, 512, 256), np.float32)


def test_any_number_of_threads_to_the_last_bit(large):
    fan, images, beams = large
    results = []
    before = usconf.get_num_threads()
    try:
        for count in (1, 2, 3, 5):
            usconf.set_num_threads(count)
            results.append(usconf.to_beam(images, fan, (512, 256), axes="thw").image)
            results.append(usconf.to_scan(beams, fan, (512, 512), axes="thw").image)
    finally:
        usconf.set_num_threads(before)
    for later in range(2, len(results)):
        np.testing.assert_array_equal(results[later], results[later % 2])
    np.testing.assert_array_equal(usconf.to_beam(images[1], fan, (512, 256)).image, results[0][1])
    np.testing.assert_array_equal(usconf.to_scan(beams[1], fan, (512, 512)).image, results[1][1])


def test_cache_is_dropped_under_way(rng):
    """Threads that plan, drop plans and resample at the same time."""
    images = [rng.random((40 + 3 * k, 60 - 2 * k)) for k in range(8)]
    fans = [usconf.Sector((30, -20 - k), 21 + k, 60 + k, -0.7, 0.7) for k in range(8)]
    wanted = [usconf.to_beam(*pair).image for pair in zip(images, fans, strict=True)]

    def work(k):
        if k % 5 == 0:
            usconf.clear_cache()
        return usconf.to_beam(images[k % 8], fans[k % 8]).image

    with ThreadPoolExecutor(4) as pool:
        for k, ours in enumerate(pool.map(work, range(48))):
            np.testing.assert_array_equal(ours, wanted[k % 8])


FORKED = """
import os
import numpy as np, usconf
fan = usconf.Sector((255.5, -90), 110, 590, -0.6, 0.6)
image = np.random.default_rng(0).random((512, 512))
beams = usconf.to_beam(image, fan).image
for _ in range(3):
    child = os.fork()
    if child == 0:
        same = (usconf.to_beam(image, fan).image == beams).all()
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_children_give_the_same():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "done\n", done.stderr


# Frames of one process, whose kernels are chosen when it starts.
WORK = """
import sys
import numpy as np, usconf
given = dict(np.load(sys.argv[1]))
fan = usconf.Sector((60.2, -20), 30, 110, -0.62, 0.5)
found = {}
for name, source in given.items():
    for interpolation in ("bilinear", "nearest"):
        direction, dtype = name.split()
        operator, shape = (
            (usconf.to_beam, (83, 57)) if direction == "to_beam" else (usconf.to_scan, (100, 121))
        )
        image, mask = operator(source, fan, shape, interpolation=interpolation, axes="thw")
        found[f"{name} {interpolation}"] = image
        found[f"{name} {interpolation} mask"] = mask
np.savez(sys.argv[2], isa=usconf._core.isa(), **found)
"""


@pytest.mark.parametrize("isa", _core.isa_list())
def test_every_instruction_set(rng, tmp_path, isa):
    plan = plan_of(usconf.Sector((60.2, -20), 30, 110, -0.62, 0.5), (100, 121), (83, 57))
    given = {}
    for dtype in DTYPES:
        given[f"to_beam {dtype}"] = noise(rng, (3, 100, 121), dtype)
        given[f"to_scan {dtype}"] = noise(rng, (3, 83, 57), dtype)
    np.savez(tmp_path / "given.npz", **given)
    files = [str(tmp_path / name) for name in ("given.npz", "found.npz")]
    done = subprocess.run(
        [sys.executable, "-c", WORK, *files],
        env={**os.environ, "USCONF_ISA": isa}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(np.load(files[1]))
    assert found["isa"] == isa
    for name, source in given.items():
        for interpolation in ("bilinear", "nearest"):
            exact = getattr(oracle, name.split()[0])(plan, interpolation)
            assert_equals(found[f"{name} {interpolation}"], exact(source), source)
            np.testing.assert_array_equal(found[f"{name} {interpolation} mask"], exact.mask)


# torch


@pytest.mark.torch
@EITHER
@BOTH
@pytest.mark.parametrize("dtype", [*DTYPES, "bfloat16"])
def test_tensors_give_tensors(rng, direction, dtype, interpolation):
    import torch

    clip = rng.integers(0, 256, (2, *shapes(direction, "convex")[0]), np.uint8)
    tensor = torch.from_numpy(clip).to(getattr(torch, dtype))
    ours = run(direction, tensor, "convex", interpolation=interpolation, axes="thw")
    assert type(ours).__name__ == "Resampled"
    assert ours.image.dtype == tensor.dtype and ours.mask.dtype == torch.bool
    same = tensor.float().numpy() if dtype == "bfloat16" else tensor.numpy()
    wanted = run(direction, same, "convex", interpolation=interpolation, axes="thw")
    np.testing.assert_array_equal(ours.mask.numpy(), wanted.mask)
    exact = torch.from_numpy(wanted.image).to(tensor.dtype)
    assert ours.image.shape == exact.shape and torch.equal(ours.image, exact)


class Changing:
    """A geometry of somebody's own: two words of one that is known, and it may change."""

    def __init__(self, known):
        self.known = known

    def beam_grid(self, *shapes):
        return self.known.beam_grid(*shapes)

    def parameters(self, grid):
        return self.known.parameters(grid)


def test_a_geometry_that_changes_is_not_remembered(rng):
    fans = [usconf.Sector((20, -10), 15, 50, -0.4, 0.4), usconf.Sector((18, -9), 14, 45, -0.3, 0.4)]
    image, own = rng.random((40, 41)), Changing(None)
    for own.known in fans:
        ours = usconf.to_beam(image, own, (30, 20)).image
        np.testing.assert_array_equal(ours, usconf.to_beam(image, own.known, (30, 20)).image)
