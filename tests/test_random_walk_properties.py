"""What must hold for every picture, whatever the oracle says."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from reference import random_walk as oracle

# Generated pictures often start with a black row, generated sinks may be none at all.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fit_support"),
    pytest.mark.filterwarnings("ignore:.*sink"),
]

DTYPES = ["uint8", "uint16", "int16", "float16", "float32", "float64"]
TOLERANCE = {"float32": 1e-6, "float64": 1e-9}


def shapes(smallest=2, largest=40):
    side = st.integers(smallest, largest)
    return st.tuples(side, side)


@st.composite
def pictures(draw, dtype=None, shape=None):
    """Noise, steps, checkerboards, sparse echoes, ramps; any dtype, values of its whole range."""
    shape = draw(shapes()) if shape is None else shape
    dtype = draw(st.sampled_from(DTYPES)) if dtype is None else dtype
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    y, x = np.mgrid[: shape[0], : shape[1]]
    unit = draw(
        st.sampled_from(
            [
                rng.random(shape),
                rng.integers(0, 2, shape).astype(float),
                ((x + y) % 2).astype(float),
                (rng.random(shape) < 0.03).astype(float),
                y / max(shape[0] - 1, 1),
                np.sqrt(rng.random(shape) ** 2 + (x / max(shape[1], 1)) ** 2) / 2,
            ]
        )
    )
    if np.dtype(dtype).kind == "f":
        low, high = draw(st.sampled_from([(0.0, 1.0), (-3.0, 5.0), (0.0, 6e4), (1e-3, 2e-3)]))
    else:
        limits = np.iinfo(dtype)
        low, high = draw(st.sampled_from([(0, 1), (0, 255), (limits.min, limits.max)]))
        low, high = max(low, limits.min), min(high, limits.max)
    return (low + (high - low) * unit).astype(dtype)


def exact(image):
    """Largest difference from the oracle that the result's dtype allows."""
    return TOLERANCE["float64" if image.dtype == np.float64 else "float32"]


@given(pictures(), st.sampled_from(["all", "mid", "min"]), st.sampled_from([None, "monai_1_3"]))
def test_any_picture(image, sink, variant):
    ours = usconf.random_walk(image, sink=sink, variant=variant)
    expected = oracle.solve(image, sink=sink, variant=variant)
    assert np.abs(ours - expected).max() <= exact(image)


@given(pictures(), st.data())
def test_maximum_principle(image, data):
    """Sources are 1, sinks 0, all else between; an unknown is between its neighbours' extremes."""
    chosen = data.draw(arrays.arrays(bool, image.shape))
    ours = usconf.random_walk(image, sink="mask", sink_mask=chosen)
    assert (ours[0] == 1).all()
    assert (ours[1:][chosen[1:]] == 0).all()
    assert (ours >= 0).all() and (ours <= 1).all()
    framed = np.pad(ours, 1, constant_values=np.nan)
    rows, columns = image.shape
    around = [
        framed[1 + dy : 1 + dy + rows, 1 + dx : 1 + dx + columns]
        for dy in (-1, 0, 1)
        for dx in (-1, 0, 1)
        if (dy, dx) != (0, 0)
    ]
    unknown = ~chosen
    unknown[0] = False
    slack = exact(image)
    assert (ours <= np.nanmax(around, axis=0) + slack)[unknown].all()
    assert (ours >= np.nanmin(around, axis=0) - slack)[unknown].all()


@given(pictures(), st.data())
def test_masked_maximum_principle(image, data):
    valid = data.draw(arrays.arrays(bool, image.shape))
    valid[0, 0] = True
    ours = usconf.random_walk(image, mask=valid)
    assert (ours >= 0).all() and (ours <= 1).all()
    assert (ours[~valid] == 0).all()
    columns = np.flatnonzero(valid.any(axis=0))
    assert (ours[valid.argmax(axis=0)[columns], columns] == 1).all()
    assert np.abs(ours - oracle.solve(image, mask=valid)).max() <= exact(image)


@given(pictures(), st.sampled_from(["all", "min"]))
def test_mirror_symmetry(image, sink):
    there = usconf.random_walk(image, sink=sink)
    back = usconf.random_walk(image[:, ::-1], sink=sink)[:, ::-1]
    assert np.abs(there - back).max() <= 2 * exact(image)


@given(pictures(dtype="float64"), st.floats(0.01, 100.0), st.floats(-2.0, 2.0))
def test_brightness_and_contrast_do_not_matter(image, factor, offset):
    there = usconf.random_walk(image)
    back = usconf.random_walk(factor * (image + offset * np.ptp(image)))
    assert np.abs(there - back).max() <= 1e-9


@given(st.data(), st.sampled_from(DTYPES), st.integers(2, 6))
def test_permuting_frames_permutes_maps(data, dtype, count):
    shape = data.draw(shapes(largest=20))
    clip = np.stack([data.draw(pictures(dtype=dtype, shape=shape)) for _ in range(count)])
    order = data.draw(st.permutations(range(count)))
    maps = usconf.random_walk(clip, axes="thw")
    np.testing.assert_array_equal(usconf.random_walk(clip[order], axes="thw"), maps[order])
    alone = usconf.random_walk(clip[0])
    np.testing.assert_array_equal(maps[0], alone)


@given(pictures(), st.integers(-3, 3), st.integers(-3, 3), st.booleans())
def test_any_strides(image, down, across, fortran):
    """Every view of a larger picture, read-only, gives what its contiguous copy gives."""
    view = image[:: down or 1, :: across or 1]
    view = np.asfortranarray(view) if fortran else view
    if min(view.shape) < 2:
        return
    view.flags.writeable = False
    before = image.copy()
    ours = usconf.random_walk(view)
    np.testing.assert_array_equal(ours, usconf.random_walk(np.ascontiguousarray(view)))
    np.testing.assert_array_equal(image, before)
    assert ours.flags.writeable and not np.shares_memory(ours, view)


def test_broadcast_and_unaligned_input(rng):
    clip = np.broadcast_to(rng.integers(0, 256, (12, 1, 9), np.uint8), (12, 10, 9))
    maps = usconf.random_walk(clip, axes="thw")
    np.testing.assert_array_equal(maps[5], usconf.random_walk(np.ascontiguousarray(clip[5])))
    image = rng.random((14, 11), np.float32)
    shifted = np.frombuffer(b"x" + image.tobytes(), np.uint8)[1:].view(np.float32)
    unaligned = shifted.reshape(image.shape)
    np.testing.assert_array_equal(usconf.random_walk(unaligned), usconf.random_walk(image))
    swapped = image.astype(image.dtype.newbyteorder())
    np.testing.assert_array_equal(usconf.random_walk(swapped), usconf.random_walk(image))


@given(pictures(dtype="uint8"))
def test_same_values_same_map(image):
    ours = usconf.random_walk(image)
    for dtype in ("uint16", "int16", "float16", "float32"):
        np.testing.assert_array_equal(usconf.random_walk(image.astype(dtype)), ours)
    double = usconf.random_walk(image, dtype="float64")
    np.testing.assert_array_equal(usconf.random_walk(image.astype("float64")), double)
    single = usconf.random_walk(image.astype("float64"), dtype="float32")
    assert single.dtype == np.float32
    assert np.abs(single - double).max() <= 1e-6


@pytest.fixture
def threads():
    before = usconf.get_num_threads()
    yield usconf.set_num_threads
    usconf.set_num_threads(before)


@pytest.mark.parametrize("solver", ["direct", "iterative"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(1, 150, 131), (7, 40, 33)], ids=str)
def test_bit_equal_for_any_threads(rng, threads, shape, dtype, solver):
    """Frames large enough to be shared among threads, and clips with a frame per thread."""
    clip = rng.integers(0, 256, shape, np.uint8)
    results = []
    for count in (1, 2, 2, 3, 1):
        threads(count)
        assert usconf.get_num_threads() == count
        results.append(usconf.random_walk(clip, axes="thw", dtype=dtype, solver=solver))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_bit_equal_after_clearing_the_cache(rng):
    image = rng.random((45, 52), np.float32)
    before = usconf.random_walk(image)
    usconf.clear_cache()
    np.testing.assert_array_equal(usconf.random_walk(image), before)


@given(shapes(largest=60), st.sampled_from([0.0, 7.0, -2.5]), st.sampled_from(list(TOLERANCE)))
def test_constant_image_falls_linearly(shape, value, dtype):
    ours = usconf.random_walk(np.full(shape, value), dtype=dtype)
    assert np.abs(ours - oracle.homogeneous(shape)).max() <= TOLERANCE[dtype]


@given(pictures(), st.sampled_from(list(TOLERANCE)))
def test_no_attenuation_is_a_constant_image(image, dtype):
    ours = usconf.random_walk(image, alpha=0, dtype=dtype)
    assert np.abs(ours - oracle.homogeneous(image.shape)).max() <= TOLERANCE[dtype]


@given(st.data(), st.integers(2, 60), st.sampled_from(list(TOLERANCE)))
def test_single_scanline_is_a_chain(data, rows, dtype):
    image = data.draw(pictures(dtype="float64", shape=(rows, 1)))
    ours = usconf.random_walk(image, dtype=dtype)
    assert np.abs(ours - oracle.chain(image)).max() <= TOLERANCE[dtype]


@settings(max_examples=40)
@given(st.lists(shapes(largest=24), min_size=2, max_size=4), st.data())
def test_calls_leave_no_trace(sizes, data):
    """Plans are cached by shape and sinks: shapes and sinks in any order give the same maps."""
    images = [data.draw(pictures(shape=shape)) for shape in sizes]
    sinks = [data.draw(st.sampled_from(["all", "mid", "min"])) for _ in sizes]
    first = [usconf.random_walk(i, sink=s) for i, s in zip(images, sinks, strict=True)]
    for image, sink, expected in reversed(list(zip(images, sinks, first, strict=True))):
        np.testing.assert_array_equal(usconf.random_walk(image, sink=sink), expected)
