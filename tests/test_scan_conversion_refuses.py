"""Bad input of scan conversion: every refusal names the argument, and says what to do."""

from __future__ import annotations

import numpy as np
import pytest
import usconf

FAN = usconf.Sector((20, -10), 12, 50, -0.6, 0.6)


@pytest.fixture
def image(rng):
    return rng.random((40, 41))


@pytest.fixture(params=["numpy", "torch"])
def given(request, image):
    """The image in both of the libraries that have a door each."""
    if request.param == "numpy":
        return image
    return pytest.importorskip("torch").from_numpy(image)


@pytest.mark.parametrize("geometry", ["auto", None, 3, usconf.Sector, np.ones(10)], ids=str)
def test_geometry_of_another_type(given, geometry):
    with pytest.raises(TypeError, match=r"^geometry must be a usconf.Sector.*got .*; fit one with"):
        usconf.to_beam(given, geometry)
    with pytest.raises(TypeError, match=r"^geometry must be a usconf.Sector.*got .*; fit one with"):
        usconf.to_scan(given, geometry, (40, 41))


@pytest.mark.parametrize(
    "geometry",
    [
        usconf.Sector((500, -10), 12, 50, -0.6, 0.6),
        usconf.Sector((20, -10), 2, 8, -0.6, 0.6),
        usconf.Sector((20, -10), 12, 50, -3, -2),
        usconf.Linear(50, 60, 0, 10),
        usconf.Linear(41, 60, 0, 10),
        usconf.Trapezoid((60, 0), (99, 0), (90, 30), (41, 30)),
    ],
    ids=str,
)
def test_geometry_that_misses_the_image(given, geometry):
    for call in (
        lambda: usconf.to_beam(given, geometry),
        lambda: usconf.to_scan(given, geometry, (40, 41)),
    ):
        with pytest.raises(ValueError, match=r"^geometry must .*40 x 41.*got .*; .*lengths"):
            call()


@pytest.mark.parametrize("shape", [(5,), (5, 6, 7), 5, "55", None], ids=str)
def test_shape_is_two_sizes(given, shape):
    if shape is not None:
        with pytest.raises((TypeError, ValueError), match=r"^shape must be .*got .*; pass"):
            usconf.to_beam(given, FAN, shape)
    with pytest.raises(TypeError, match=r"^shape must be \(height, width\), got .*; e\.g\."):
        usconf.to_scan(given, FAN, shape)


@pytest.mark.parametrize("shape", [(5.0, 6), (True, 5), ("5", 6)], ids=str)
def test_shape_is_of_integers(given, shape):
    with pytest.raises(TypeError, match=r"^shape(\[0\])? must .*integer.*got .*; pass"):
        usconf.to_beam(given, FAN, shape)
    with pytest.raises(TypeError, match=r"^shape must hold integers, got .*; pass"):
        usconf.to_scan(given, FAN, shape)


@pytest.mark.parametrize("shape", [(0, 6), (6, 0), (-3, 6)], ids=str)
def test_shape_is_positive(given, shape):
    with pytest.raises(ValueError, match=r"^shape\[\d\] must be at least 2, got .*; pass"):
        usconf.to_beam(given, FAN, shape)
    with pytest.raises(ValueError, match=r"^shape must be at least 1 x 1, got .*; it is"):
        usconf.to_scan(given, FAN, shape)


def test_sizes_of_numpy_are_sizes(image):
    shape = np.array([30, 20])
    assert usconf.to_beam(image, FAN, tuple(shape)).image.shape == (30, 20)
    assert usconf.to_scan(image, FAN, [*shape]).image.shape == (30, 20)


@pytest.mark.parametrize("shape", [(1, 5), (5, 1)], ids=str)
def test_beams_have_two_ends(given, shape):
    beam = given[: shape[0], : shape[1]]
    with pytest.raises(ValueError, match=r"^beam must have at least 2 .*got \d x \d; they"):
        usconf.to_scan(beam, FAN, (40, 41))


def test_words(given):
    for call in (
        lambda: usconf.to_beam(given, FAN, interpolation="cubic"),
        lambda: usconf.to_scan(given, FAN, (9, 9), interpolation="cubic"),
    ):
        with pytest.raises(ValueError, match=r"^interpolation must be .*got 'cubic'; nearest"):
            call()


@pytest.mark.parametrize("shape", [(3, 40, 41), (40, 41, 3), (2, 3, 40, 41), (7,)], ids=str)
def test_ambiguous_stacks_name_the_line_to_write(shape):
    stack = np.ones(shape, np.uint8)
    for name, call in (
        ("image", lambda: usconf.to_beam(stack, FAN)),
        ("beam", lambda: usconf.to_scan(stack, FAN, (40, 41))),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must be \(H, W\).*got \(") as raised:
            call()
        assert len(shape) == 1 or f"usconf.io.gray({name})" in str(raised.value)
        assert len(shape) == 1 or "axes=" in str(raised.value)


def test_axes(image):
    with pytest.raises(ValueError, match=r"^axes must name each of the beam's 2 axes, got 'thw'"):
        usconf.to_scan(image, FAN, (40, 41), axes="thw")
    with pytest.raises(ValueError, match=r"^axes must name h .*got 'hx'"):
        usconf.to_beam(image, FAN, axes="hx")


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (2, 1, 0, 4)], ids=str)
def test_empty_frames(shape):
    with pytest.raises(ValueError, match=r"^image must have at least one row.*got shape"):
        usconf.to_beam(np.empty(shape), FAN)
    with pytest.raises(ValueError, match=r"^beam must have at least one row.*got shape"):
        usconf.to_scan(np.empty(shape), FAN, (40, 41))


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint32, complex, object])
def test_dtypes(image, dtype):
    reason = "real" if dtype is complex else "of dtype"
    with pytest.raises(TypeError, match=rf"^image must be {reason}.*got"):
        usconf.to_beam(image.astype(dtype), FAN)
    with pytest.raises(TypeError, match=rf"^beam must be {reason}.*got"):
        usconf.to_scan(image.astype(dtype), FAN, (40, 41))


def test_not_an_array(image):
    with pytest.raises(TypeError, match=r"^image must be a NumPy array.*got list"):
        usconf.to_beam(image.tolist(), FAN)
    with pytest.raises(TypeError, match=r"^beam must be a plain array, got a masked one"):
        usconf.to_scan(np.ma.masked_less(image, 0.5), FAN, (40, 41))
