"""Despeckling against the oracle, SciPy's median, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from hypothesis import given
from hypothesis import strategies as st
from reference import despeckle as oracle
from scipy import ndimage
from test_isa import ISAS, process

# Of the frame's range. float32 keeps E = exp(I) to 1e-7 and takes differences of it.
TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
SHAPES = [(64, 72), (41, 33), (33, 21), (8, 8), (7, 9), (1, 30), (30, 1), (2, 2), (1, 1), (16, 131)]


def speckle(rng, shape, dtype=np.uint8):
    """Homogeneous tissue, multiplicative noise, a bright line, a black margin."""
    picture = 20 + 50 * np.hypot(*rng.standard_normal((2, *shape)))
    picture[shape[0] // 2, shape[1] // 3 :] = 250
    picture[-(shape[0] // 4) or shape[0] :] = 2
    return np.clip(picture, 0, 255).astype(dtype)


def holes(rng, shape):
    valid = rng.random(shape) > 0.2
    valid[: shape[0] // 3, : shape[1] // 4] = False
    return valid


def gap(ours, expected, image):
    return np.abs(ours - expected).max() / max(float(np.ptp(image)), 1e-12)


# SRAD


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("iterations", [0, 1, 10, 50])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_srad_step_by_step(rng, shape, iterations, dtype):
    image = speckle(rng, shape, np.float64)
    settings = {"iterations": iterations, "tolerance": 0}
    ours = usconf.despeckle(image, dtype=dtype, **settings)
    expected = oracle.srad(image, **settings)
    assert ours.dtype == dtype and ours.shape == shape
    assert gap(ours, expected.image, image) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_srad_to_its_end(rng, dtype):
    """The default tolerance. A rounding may make the loop end an iteration earlier or later."""
    image = speckle(rng, (64, 72))
    ours = usconf.despeckle(image, dtype=dtype)
    expected = oracle.srad(image)
    assert 5 < expected.iterations < 500
    near = [oracle.srad(image, iterations=expected.iterations + k).image for k in (-1, 0)]
    near.append(oracle.srad(image, iterations=expected.iterations + 1, tolerance=0).image)
    assert min(gap(ours, each, image) for each in near) <= TOLERANCE[dtype]


def test_iterations_are_counted(rng):
    from usconf import _core, arrays

    clip = np.stack([speckle(rng, (40, 48), np.float32), np.full((40, 48), 9, np.float32)])
    result = np.empty_like(clip)
    expected = [oracle.srad(frame).iterations for frame in clip]
    done = _core.srad(
        clip.ctypes.data, arrays.SCALARS["float32"], 2, 40, 48, 0, False, (0, 0, 0, 0), 3000,
        1e-7, 0.1, False, 1, -1, 0, result.ctypes.data,
    )  # fmt: skip
    assert abs(done[0] - expected[0]) <= 1 and done[1] == expected[1] == 1


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("given", [{"step": 1.0}, {"step": 0.03}, {"roi": (1, 12, 3, 17)}], ids=str)
def test_srad_parameters(rng, given, dtype):
    image = speckle(rng, (40, 48))
    settings = {"iterations": 20, "tolerance": 0, **given}
    ours = usconf.despeckle(image, dtype=dtype, **settings)
    expected = oracle.srad(image, **settings).image
    assert gap(ours, expected, image) <= TOLERANCE[dtype]
    assert gap(ours, oracle.srad(image, iterations=20, tolerance=0).image, image) > 1e-4


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("roi", [None, (10, 30, 5, 40)], ids=str)
def test_srad_masked(rng, roi, dtype):
    image, valid = speckle(rng, (40, 48), np.float64), holes(rng, (40, 48))
    settings = {"iterations": 30, "tolerance": 0, "roi": roi}
    expected = oracle.srad(image, mask=valid, **settings).image
    span = image[valid]
    image[~valid] = np.nan
    ours = usconf.despeckle(image, mask=valid, dtype=dtype, **settings)
    assert gap(ours, expected, span) <= TOLERANCE[dtype]
    assert (ours[~valid] == 0).all()
    again = usconf.despeckle(image, nan="mask", dtype=dtype, **settings)
    np.testing.assert_array_equal(again, ours)


def test_nothing_valid():
    image = np.full((9, 12), 5.0)
    for method in ("srad", "median"):
        ours = usconf.despeckle(image, method, mask=np.zeros((9, 12)))
        assert (ours == 0).all()


def test_speckle_goes_edges_stay(rng):
    """Two homogeneous halves: their noise falls, their step stays."""
    image = np.where(np.arange(96) < 48, 60.0, 160.0) + 6 * rng.standard_normal((96, 96))
    ours = usconf.despeckle(image)
    left, right = np.s_[8:-8, 8:40], np.s_[8:-8, 56:-8]
    assert ours[left].std() < 0.4 * image[left].std()
    assert ours[right].std() < 0.4 * image[right].std()
    step = ours[:, 49].mean() - ours[:, 46].mean()
    assert step > 0.85 * (image[:, 49].mean() - image[:, 46].mean())


def test_black_margins_do_not_switch_it_off(rng):
    """In three of eight real frames the published, fixed region was black."""
    image = speckle(rng, (96, 96))
    framed = np.zeros((192, 192), np.uint8)
    framed[40:136, 40:136] = image
    ours = usconf.despeckle(framed, iterations=20, tolerance=0)[40:136, 40:136]
    assert np.abs(ours - image).mean() > 1.0


def test_real_frames_are_smoothed(frames):
    image = frames("linear/bone_ct_164262")[200:456, 300:556]
    ours = usconf.despeckle(image)
    assert ours.min() >= image.min() and ours.max() <= image.max()
    bright = image > 12
    assert 0.2 < np.abs(ours - image)[bright].mean() < 20


# Median


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 15])
@pytest.mark.parametrize("shape", [(41, 33), (64, 72), (5, 40), (3, 3), (1, 1), (1, 20)], ids=str)
def test_median_is_scipys(rng, shape, size, dtype):
    image = speckle(rng, shape, np.float64)
    image = (image * 117 if dtype == "uint16" else 60 - image).astype(dtype)
    if dtype == "uint8":
        image = speckle(rng, shape)
    ours = usconf.despeckle(image, "median", size=size)
    expected = ndimage.median_filter(image, size, mode="nearest")
    assert ours.dtype == (np.float64 if dtype == "float64" else np.float32)
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(oracle.median(image, size), expected)


@pytest.mark.parametrize("size", [3, 7, 11])
@pytest.mark.parametrize("shape", [(41, 33), (9, 60)], ids=str)
def test_median_masked(rng, shape, size):
    image, valid = rng.random(shape), holes(rng, shape)
    expected = oracle.median(image, size, valid)
    image[~valid] = np.nan
    ours = usconf.despeckle(image, "median", size=size, mask=valid)
    np.testing.assert_array_equal(ours, expected)


# What must always hold


@st.composite
def pictures(draw):
    side = st.integers(1, 40)
    shape = draw(st.tuples(side, side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(["uint8", "int16", "float32", "float64"]))
    unit = draw(
        st.sampled_from(
            [rng.random(shape), rng.integers(0, 2, shape).astype(float), np.full(shape, 0.4)]
        )
    )
    low, high = draw(st.sampled_from([(0, 255), (0, 1), (-30, 70)]))
    if dtype == "uint8":
        low, high = 0, 255
    return (low + (high - low) * unit).astype(dtype)


@given(pictures(), st.integers(0, 12))
def test_no_new_extremes(image, iterations):
    """A step is a convex combination of neighbours."""
    ours = usconf.despeckle(image, iterations=iterations, step=1.0)
    slack = 2e-6 * max(float(np.ptp(image)), np.abs(image).max(), 1e-12)
    assert np.isfinite(ours).all()
    assert ours.min() >= image.min() - slack and ours.max() <= image.max() + slack


@given(pictures(), st.sampled_from([3, 7]))
def test_the_median_knows_no_brightness(image, size):
    ours = usconf.despeckle(image, "median", size=size)
    assert np.isin(ours, image.astype(ours.dtype)).all()
    image = image.astype(np.float64)
    stretched = usconf.despeckle(2 * image + 8, "median", size=size)
    np.testing.assert_array_equal(stretched, 2 * usconf.despeckle(image, "median", size=size) + 8)


def test_mirror_symmetry_of_the_median(rng):
    """SRAD has none: its coefficients belong to one side of a pixel, as published."""
    image = speckle(rng, (40, 43))
    back = usconf.despeckle(image[:, ::-1], "median")[:, ::-1]
    np.testing.assert_array_equal(back, usconf.despeckle(image, "median"))


@pytest.mark.parametrize("method", ["srad", "median"])
def test_same_values_same_result(rng, method):
    image = speckle(rng, (40, 43))
    ours = usconf.despeckle(image, method)
    for dtype in ("uint16", "int16", "float16", "float32"):
        np.testing.assert_array_equal(usconf.despeckle(image.astype(dtype), method), ours)


@pytest.mark.parametrize("method", ["srad", "median"])
def test_frames_are_alone(rng, method):
    clip = np.stack([speckle(rng, (40, 43)) for _ in range(4)])
    ours = usconf.despeckle(clip, method, axes="thw")
    np.testing.assert_array_equal(usconf.despeckle(clip[::-1], method, axes="thw"), ours[::-1])
    np.testing.assert_array_equal(usconf.despeckle(clip[1], method), ours[1])
    turned = usconf.despeckle(np.moveaxis(clip, 0, 2), method, axes="hwt")
    np.testing.assert_array_equal(np.moveaxis(turned, 2, 0), ours)
    masks = np.stack([holes(rng, (40, 43)) for _ in clip])
    masked = usconf.despeckle(clip, method, mask=masks, axes="thw")
    np.testing.assert_array_equal(usconf.despeckle(clip[2], method, mask=masks[2]), masked[2])
    shared = usconf.despeckle(clip, method, mask=masks[0], axes="thw")
    np.testing.assert_array_equal(shared[0], masked[0])


@pytest.mark.parametrize("method", ["srad", "median"])
def test_constant_frames_stay(method):
    for value in (0, 7, 255):
        ours = usconf.despeckle(np.full((20, 17), value, np.uint8), method)
        np.testing.assert_allclose(ours, value, rtol=0, atol=1e-12)


@pytest.fixture
def threads():
    before = usconf.get_num_threads()
    yield usconf.set_num_threads
    usconf.set_num_threads(before)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("method", ["srad", "median"])
@pytest.mark.parametrize("shape", [(1, 300, 260), (5, 60, 53)], ids=str)
def test_bit_equal_for_any_threads(rng, threads, shape, method, dtype):
    clip = np.stack([speckle(rng, shape[1:]) for _ in range(shape[0])])
    for mask in (None, holes(rng, shape[1:])):
        results = []
        for count in (1, 2, 2, 3, 1):
            threads(count)
            results.append(usconf.despeckle(clip, method, mask=mask, axes="thw", dtype=dtype))
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])


WORK = """
import sys
import numpy as np, usconf
rng = np.random.default_rng(7)
image = rng.integers(1, 256, (61, 53))
mask = rng.random(image.shape) < 0.8
cases = {}
for dtype in ("float32", "float64"):
    pixels = image.astype(dtype)
    for name, given in {"plain": {}, "mask": {"mask": mask}}.items():
        steps = {"iterations": 20, "tolerance": 0} | given
        cases[f"srad {name} {dtype}"] = usconf.despeckle(pixels, **steps)
        cases[f"median {name} {dtype}"] = usconf.despeckle(pixels, "median", **given)
np.savez(sys.argv[1], **cases)
"""


def test_isas_agree(tmp_path):
    found = []
    for isa in ISAS:
        done = process(isa, "-c", WORK, str(tmp_path / f"{isa}.npz"))
        assert done.returncode == 0, done.stderr
        found.append(dict(np.load(tmp_path / f"{isa}.npz")))
    for other in found[1:]:
        for name, result in other.items():
            tolerance = 255 * TOLERANCE[name.split()[-1]] if "srad" in name else 0
            assert np.abs(result - found[0][name]).max() <= tolerance, name


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_tensors(rng):
    torch = pytest.importorskip("torch")
    import usconf.ops

    image, valid = speckle(rng, (2, 1, 40, 43)), holes(rng, (40, 43))
    for method in ("srad", "median"):
        expected = usconf.despeckle(image, method, mask=valid)
        ours = usconf.despeckle(torch.from_numpy(image), method, mask=torch.from_numpy(valid))
        np.testing.assert_array_equal(ours.numpy(), expected)
        assert usconf.ops.despeckle(torch.from_numpy(image), method).shape == image.shape
    todo = ("srad", 3, 0.0, 0.1, [0, 0, 0, 0], 7, "raise", torch.float32)
    operator = torch.ops.usconf.despeckle
    stack = torch.from_numpy(image)[:, 0].float()
    torch.library.opcheck(operator.default, (stack, None, *todo))
    torch.library.opcheck(operator.default, (stack, torch.from_numpy(valid)[None], *todo))
    compiled = torch.compile(lambda x: usconf.despeckle(x, "median", axes="thw"), fullgraph=True)
    torch.testing.assert_close(compiled(stack), usconf.despeckle(stack, "median", axes="thw"))
    leaf = stack.clone().requires_grad_()
    with pytest.raises(RuntimeError, match=r"^despeckling has no gradient"):
        usconf.despeckle(leaf, axes="thw").sum().backward()


# Refuses


@pytest.fixture
def image(rng):
    return rng.integers(1, 256, (32, 30), np.uint8)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"method": "mean"}, r"^method must be one of 'srad', 'median', got 'mean'"),
        ({"iterations": -1}, r"^iterations must .*got -1"),
        ({"iterations": 2.5}, r"^iterations must .*got 2.5"),
        ({"tolerance": -1e-9}, r"^tolerance must .*got -1e-09"),
        ({"tolerance": float("nan")}, r"^tolerance must .*got nan"),
        ({"step": 1.5}, r"^step must .*from 0 to 1, got 1.5"),
        ({"step": "x"}, r"^step must .*got 'x'"),
        ({"size": 7}, r'^size must be left out with method="srad", got 7'),
        ({"method": "median", "size": 4}, r"^size must be odd, from 1 to 15, got 4"),
        ({"method": "median", "size": 17}, r"^size must be odd.*got 17"),
        ({"method": "median", "size": True}, r"^size must be odd.*got True"),
        ({"method": "median", "step": 0.1}, r"^step must be left out .*median.*got 0.1"),
        ({"method": "median", "roi": (0, 9, 0, 9)}, r"^roi must be left out .*median"),
        ({"method": "median", "iterations": 3}, r"^iterations must be left out .*median"),
        ({"method": "median", "tolerance": 3}, r"^tolerance must be left out .*median"),
        ({"roi": (0, 33, 0, 9)}, r"^roi must be .*inside the 32 x 30 image, got \(0, 33, 0, 9\)"),
        ({"roi": (3, 4, 5, 6)}, r"^roi must hold at least two pixels"),
        ({"nan": "skip"}, r"^nan must be one of 'raise', 'mask', got 'skip'"),
        ({"mask": np.ones((30, 32))}, r"^mask must have shape \(32, 30\).*got \(30, 32\)"),
        ({"dtype": "int8"}, r"^dtype must be float32 or float64, got int8"),
    ],
    ids=str,
)
def test_refuses(image, given, match):
    with pytest.raises(ValueError, match=match):
        usconf.despeckle(image, **given)


def test_refuses_pixels(image):
    with pytest.raises(TypeError, match=r"^image must .*got int64"):
        usconf.despeckle(image.astype(int))
    with pytest.raises(ValueError, match=r"^image must .*axes="):
        usconf.despeckle(np.stack([image, image]))
    bad = image.astype(np.float32)
    bad[3, 4] = np.inf
    for method in ("srad", "median"):
        with pytest.raises(ValueError, match=r"^image must be finite, got 1 .*row 3, column 4"):
            usconf.despeckle(bad, method)
    with pytest.raises(TypeError, match=r"^roi must be four integers"):
        usconf.despeckle(image, roi="left")
    image[4:9, 4:9] = 7
    with pytest.raises(ValueError, match=r"^roi must show speckle, got \(4, 9, 4, 9\).*frame 0"):
        usconf.despeckle(image, roi=(4, 9, 4, 9))


def test_empty_batch():
    ours = usconf.despeckle(np.empty((0, 1, 6, 5), np.uint8))
    assert ours.shape == (0, 1, 6, 5) and ours.dtype == np.float32
    assert usconf.despeckle(np.empty((0, 6, 5)), roi=(0, 3, 0, 3), axes="thw").shape == (0, 6, 5)
