"""What must hold for every DAG map, whatever the oracle says."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from dag_pictures import TOLERANCE, gap, holes, soft, speckle
from hypothesis import given
from hypothesis import strategies as st
from reference import dag as oracle
from test_isa import ISAS, process

# Generated pictures often start with a black row, or look like a fan.
pytestmark = pytest.mark.filterwarnings("ignore:image (has|looks)")


@st.composite
def pictures(draw, smallest=1, largest=34, dtype=None):
    shape = draw(st.tuples(st.integers(smallest, largest), st.integers(smallest, largest)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from(["uint8", "int16", "float32", "float64"])) if not dtype else dtype
    unit = draw(
        st.sampled_from(
            [
                rng.random(shape),
                rng.integers(0, 2, shape).astype(float),
                (rng.random(shape) < 0.03).astype(float),
                np.full(shape, 0.4),
                np.linspace(0, 1, shape[0])[:, None] + np.zeros(shape),
            ]
        )
    )
    return (unit * (255 if np.dtype(dtype).kind != "f" else 1)).astype(dtype)


PARAMETER = st.fixed_dictionaries(
    {
        "xi": st.floats(1e-6, 1.0),
        "alpha": st.floats(0.0, 20.0),
        "var": st.floats(0.05, 1e3),
        "power": st.floats(0.0, 6.0),
        "half_width": st.integers(0, 16),
    }
)


@given(pictures(), PARAMETER)
def test_in_the_unit_interval(image, parameters):
    ours = usconf.dag(image, despeckle=None, **parameters)
    assert (ours[0] == 1).all() and (ours >= 0).all() and (ours <= 1).all()
    dtype = "float64" if image.dtype == np.float64 else "float32"
    expected = oracle.confidence(image, **parameters)
    assert gap(ours, expected) <= (1e-11 if dtype == "float64" else 3e-6)


@given(pictures(), PARAMETER, st.data())
def test_in_the_unit_interval_with_everything(image, parameters, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    planes = {"needle": rng.random(image.shape), "artifact": rng.random(image.shape)}
    chosen = {name: planes[name] for name in planes if data.draw(st.booleans())}
    if data.draw(st.booleans()):
        chosen["mask"] = rng.random(image.shape) < 0.7
    if data.draw(st.booleans()):
        chosen["reference_map"] = rng.random(image.shape)
    ours = usconf.dag(image, despeckle=None, **chosen, **parameters)
    assert np.isfinite(ours).all() and (ours >= 0).all() and (ours <= 1).all()


@given(pictures(), PARAMETER)
def test_mirror_symmetry(image, parameters):
    there = usconf.dag(image, despeckle=None, **parameters)
    back = usconf.dag(image[:, ::-1], despeckle=None, **parameters)[:, ::-1]
    assert np.abs(there - back).max() <= 4e-6


@given(st.integers(1, 40), st.integers(1, 40), PARAMETER, st.sampled_from(list(TOLERANCE)))
def test_homogeneous_images_fall_by_the_closed_form(height, width, parameters, dtype):
    """rel = 1 everywhere: C[r+1] = C[r] exp(-x d_r), from 1 down to xi."""
    ours = usconf.dag(np.full((height, width), 3.0), despeckle=None, dtype=dtype, **parameters)
    depth = np.exp(-parameters["alpha"] * (np.arange(height - 1) + 2) / height)
    share = np.concatenate([[0.0], np.cumsum(depth)]) / max(depth.sum(), 1e-300)
    expected = np.repeat(parameters["xi"] ** share[:, None], width, 1)
    assert np.abs(ours - expected).max() <= TOLERANCE[dtype]
    assert (np.diff(ours, axis=0) <= 1e-7).all()


@given(st.data(), st.integers(2, 5))
def test_permuting_frames_permutes_maps(data, count):
    one = data.draw(pictures(dtype="uint8"))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    clip = np.stack([one, *rng.integers(0, 256, (count - 1, *one.shape), np.uint8)])
    order = data.draw(st.permutations(range(count)))
    maps = usconf.dag(clip, axes="thw", despeckle="median")
    np.testing.assert_array_equal(
        usconf.dag(clip[order], axes="thw", despeckle="median"), maps[order]
    )
    np.testing.assert_array_equal(usconf.dag(one, despeckle="median"), maps[0])


@pytest.mark.parametrize("despeckle", ["srad", "median", None])
def test_same_values_same_map(rng, despeckle):
    image = speckle(rng, (40, 43))
    ours = usconf.dag(image, despeckle=despeckle)
    for dtype in ("uint16", "int16", "float16", "float32"):
        np.testing.assert_array_equal(usconf.dag(image.astype(dtype), despeckle=despeckle), ours)
    double = usconf.dag(image, despeckle=despeckle, dtype="float64")
    np.testing.assert_array_equal(usconf.dag(image.astype(float), despeckle=despeckle), double)


@given(pictures(dtype="float64"), st.floats(0.01, 100.0), st.floats(-2.0, 2.0))
def test_brightness_and_contrast_do_not_matter(image, factor, offset):
    there = usconf.dag(image, despeckle=None)
    back = usconf.dag(factor * (image + offset), despeckle=None)
    assert np.abs(there - back).max() <= 1e-8  # the offset rounds what D compares with 1e-4


@given(pictures(smallest=2), st.integers(-3, 3), st.integers(-3, 3), st.booleans())
def test_any_strides(image, down, across, fortran):
    view = image[:: down or 1, :: across or 1]
    view = np.asfortranarray(view) if fortran else view
    view.flags.writeable = False
    ours = usconf.dag(view, despeckle="median")
    np.testing.assert_array_equal(ours, usconf.dag(np.ascontiguousarray(view), despeckle="median"))
    assert not np.shares_memory(ours, view)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [(None, (1, 20, 27)), (None, (3, 1, 20, 27)), ("wh", (27, 20)), ("hwt", (20, 27, 3)),
     ("bthw", (2, 3, 20, 27)), ("hwc", (20, 27, 1))],
)  # fmt: skip
def test_layouts(rng, axes, shape):
    image = rng.integers(1, 256, shape, np.uint8)
    letters = axes or {3: "chw", 4: "bchw"}[len(shape)]
    order = [k for k, letter in enumerate(letters) if letter not in "hw"]
    order += [letters.index("h"), letters.index("w")]
    ours = usconf.dag(image, axes=axes, despeckle=None)
    assert ours.shape == shape
    stack = np.transpose(image, order).reshape(-1, 20, 27)
    maps = np.transpose(ours, order).reshape(-1, 20, 27)
    for frame, found in zip(stack, maps, strict=True):
        assert gap(found, oracle.confidence(frame)) <= 2e-6


@pytest.fixture
def threads():
    before = usconf.get_num_threads()
    yield usconf.set_num_threads
    usconf.set_num_threads(before)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 300, 260), (1, 90, 30), (7, 60, 53)], ids=str)
def test_bit_equal_for_any_threads(rng, threads, shape, dtype):
    clip = speckle(rng, shape)
    planes = soft(rng, shape[1:])
    cases = ({}, {"power": 1.5, "despeckle": None}, {"mask": holes(rng, shape[1:]), **planes},
             {"variant": "hung2021", "despeckle": None})  # fmt: skip
    for case in cases:
        results = []
        for count in (1, 2, 2, 3, 1):
            threads(count)
            results.append(usconf.dag(clip, axes="thw", dtype=dtype, **case))
        for other in results[1:]:
            np.testing.assert_array_equal(other, results[0])


WORK = """
import sys
import numpy as np, usconf
rng = np.random.default_rng(7)
image = rng.integers(1, 256, (61, 53)).astype(np.float32)
mask = rng.random(image.shape) < 0.8
soft = {"needle": rng.random(image.shape), "artifact": rng.random(image.shape)}
cases = {}
for dtype in ("float32", "float64"):
    for name, given in {
        "plain": {}, "power": {"power": 1.5}, "mask": {"mask": mask}, "soft": soft,
        "hung2021": {"variant": "hung2021"}, "median": {"despeckle": "median"},
    }.items():
        pixels = image / 255 if name == "hung2021" else image
        given = {"despeckle": None, "dtype": dtype} | given
        cases[f"{name} {dtype}"] = usconf.dag(pixels, **given)
np.savez(sys.argv[1], **cases)
"""


def test_isas_agree(tmp_path):
    found = []
    for isa in ISAS:
        done = process(isa, "-W", "ignore", "-c", WORK, str(tmp_path / f"{isa}.npz"))
        assert done.returncode == 0, done.stderr
        found.append(dict(np.load(tmp_path / f"{isa}.npz")))
    for other in found[1:]:
        for name, map in other.items():
            tolerance = 1e-12 if name.endswith("float64") else 2e-6
            assert np.abs(map - found[0][name]).max() <= tolerance, name


def test_members_that_lag_change_nothing(rng):
    """More members than cores, so that some sleep inside a strip; a last strip that is short."""
    image = rng.random((75, 640), dtype=np.float32)
    before = usconf.get_num_threads()
    try:
        usconf.set_num_threads(1)
        alone = usconf.dag(image, despeckle=None)
        usconf.set_num_threads(5)
        for _ in range(100):
            np.testing.assert_array_equal(usconf.dag(image, despeckle=None), alone)
    finally:
        usconf.set_num_threads(before)
