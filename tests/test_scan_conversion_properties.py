"""What must hold for every geometry: borders, masks, NaN, symmetry, the way there and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import usconf
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import scan_conversion as oracle
from test_scan_conversion import (
    BOTH,
    CASES,
    DTYPES,
    EITHER,
    assert_equals,
    expected,
    noise,
    plan_of,
    run,
    shapes,
)

# Borders


@pytest.mark.parametrize("case", CASES)
def test_first_row_and_sides_are_not_darkened(case):
    """A constant fan on black comes back constant, in every valid sample."""
    geometry, scan, _ = CASES[case]
    fan = oracle.to_scan(plan_of(geometry, scan)).mask
    for shape in (CASES[case][2], None):
        image, mask = usconf.to_beam((200 * fan).astype(np.uint8), geometry, shape)
        assert (image == 200 * mask).all() and mask.any()
        for dtype, slack in (("float32", 3e-7), ("float64", 5e-16)):
            image = usconf.to_beam(fan.astype(dtype), geometry, shape).image
            assert np.abs(image - mask).max() <= slack


def test_beams_outside_the_picture_are_masked():
    geometry, scan, beam = CASES["cropped sides"]
    x, z = geometry.positions(geometry.beam_grid(scan, beam))
    within = (np.abs(x - 40) <= 40.5) & (np.abs(z - 39.5) <= 40)
    image, mask = usconf.to_beam(np.ones(scan, np.float32), geometry, beam)
    np.testing.assert_array_equal(mask, within)
    assert not mask.all() and (image[~mask] == 0).all()


def test_without_a_face_beams_start_at_the_edge():
    geometry, scan, beam = CASES["no face"]
    grid = geometry.beam_grid(scan, beam)
    assert 24.5 <= grid.r_start <= 25  # straight down to the first row of pixels
    mask = usconf.to_beam(np.ones(scan, np.float32), geometry, beam).mask
    first = mask.argmax(axis=0)
    assert first[24] <= 1 and first[0] > 3 and first[-1] > 3
    below = np.arange(beam[0])[:, None] >= first
    x, _ = geometry.positions(grid)
    np.testing.assert_array_equal(mask, below & (np.abs(x - 49.5) <= 50))


def test_the_apex_is_a_pixel_like_any_other():
    geometry = usconf.Sector((5, 0), 0, 10, -0.5, 0.5)
    image = np.arange(121, dtype=np.float64).reshape(11, 11)
    beams, mask = usconf.to_beam(image, geometry, (11, 9))
    assert mask.all() and (beams[0] == image[0, 5]).all()
    np.testing.assert_allclose(beams[:, 4], image[:, 5])
    scan, mask = usconf.to_scan(beams, geometry, (11, 11))
    assert mask[0, 5] and scan[0, 5] == image[0, 5] and not mask[0, [4, 6]].any()


@EITHER
@BOTH
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_stays_local(rng, direction, dtype, interpolation):
    """It goes where its weight goes, and nowhere else: 0 NaN would be NaN."""
    source = noise(rng, shapes(direction, "convex")[0], dtype)
    source[50:53, 20] = source[40, 30] = np.nan
    source[60, 40] = np.inf
    exact = expected(direction, "convex", interpolation).matrix
    touched = (exact > 1e-9) @ ~np.isfinite(source.ravel())
    ours = run(direction, source, "convex", interpolation=interpolation).image
    np.testing.assert_array_equal(~np.isfinite(ours.ravel()), touched)
    assert touched.any()


def test_coinciding_grids_exchange_exact_values(rng):
    """Whatever surrounds the rectangle, be it NaN."""
    image = np.full((20, 16), np.nan)
    image[3:15, 2:12] = rng.random((12, 10))
    geometry = usconf.Linear(2, 11, 3, 14)
    for interpolation in ("bilinear", "nearest"):
        beams, mask = usconf.to_beam(image, geometry, interpolation=interpolation)
        assert mask.all()
        np.testing.assert_array_equal(beams, image[3:15, 2:12])
        back, mask = usconf.to_scan(beams, geometry, image.shape, interpolation=interpolation)
        np.testing.assert_array_equal(back, np.nan_to_num(image))
        np.testing.assert_array_equal(mask, ~np.isnan(image))


@EITHER
def test_mirror(rng, direction):
    geometry = usconf.Sector((61.5, -20), 30, 110, -0.3, 0.55)
    mirrored = usconf.Sector((120 - 61.5, -20), 30, 110, -0.55, 0.3)
    source, target = ((100, 121), (80, 60)) if direction == "to_beam" else ((80, 60), (100, 121))
    image = rng.random(source)
    operator = getattr(usconf, direction)
    one, other = operator(image, geometry, target), operator(image[:, ::-1], mirrored, target)
    np.testing.assert_array_equal(one.mask, other.mask[:, ::-1])
    np.testing.assert_allclose(one.image, other.image[:, ::-1], rtol=0, atol=1e-9)


# Round trip


def inner(geometry, scan, pixels):
    """Pixels at least so far from the border of the geometry and of the picture."""
    from scipy.ndimage import binary_erosion

    z, x = np.mgrid[: scan[0], : scan[1]]
    return binary_erosion(geometry.contains(x, z), iterations=pixels)


@pytest.mark.parametrize("case", CASES)
def test_round_trip_of_a_smooth_picture(case):
    """Two bilinear interpolations on grids of one pixel err by h^2/8 (|f_xx| + |f_zz|) each."""
    geometry, scan, _ = CASES[case]
    z, x = np.mgrid[: scan[0], : scan[1]]
    wave = 2 * np.pi / 20
    smooth = np.sin(wave * x) * np.cos(wave * z)
    pixel = geometry.spacing if isinstance(geometry.spacing, tuple) else (1, 1)
    allowed = 2 * wave**2 / 8 * 2 * max(1, max(pixel) / min(pixel))
    back = usconf.to_scan(usconf.to_beam(smooth, geometry).image, geometry, scan).image
    error = np.abs(back - smooth)
    assert error[inner(geometry, scan, 2)].max() <= allowed
    # at the border the nearest pixels stand for those outside: first order, one pixel
    seen = oracle.to_scan(plan_of(geometry, scan)).mask
    assert error[seen].max() <= allowed + wave * math.sqrt(2)


def half_a_pixel_and_back(image):
    """What two bilinear interpolations lose at worst: the yardstick of the round trip."""
    from scipy.ndimage import shift

    moved = shift(image, 0.5, order=1, mode="nearest")
    return shift(moved, -0.5, order=1, mode="nearest")


def psnr(ours, image, where):
    return 10 * np.log10(255**2 / np.mean((ours - image)[where] ** 2))


@pytest.mark.parametrize("case", ["convex", "asymmetric", "phased", "wide", "steered"])
def test_round_trip_of_speckle(rng, case):
    """No worse than moving the picture by half a pixel and back, in the mean and at its worst."""
    from scipy.ndimage import gaussian_filter

    geometry, scan, _ = CASES[case]
    speckle = gaussian_filter(rng.standard_normal((*scan, 2)), (1.2, 1.2, 0))
    image = np.hypot(*np.moveaxis(speckle, -1, 0))
    image *= 255 / image.max()
    back = usconf.to_scan(usconf.to_beam(image, geometry).image, geometry, scan).image
    limit = half_a_pixel_and_back(image)
    where = inner(geometry, scan, 2)
    assert psnr(back, image, where) >= psnr(limit, image, where)
    assert np.abs(back - image)[where].max() <= np.abs(limit - image)[where].max()


FANS = ["lightbeam_f154", "liver_f034", "lung_a_f140", "lung_b_f108", "oliveira_15A"]


@pytest.mark.parametrize("name", FANS)
def test_round_trip_of_a_real_frame(frames, data_dir, name):
    fan = json.loads((data_dir / "convex" / f"{name}.fan.json").read_text())
    angles = math.radians(fan["theta_left_deg"]), math.radians(fan["theta_right_deg"])
    geometry = usconf.Sector(fan["apex_xy"], fan["r_inner"], fan["r_outer"], *angles)
    image = frames(f"convex/{name}").astype(np.float32)
    back = usconf.to_scan(usconf.to_beam(image, geometry).image, geometry, image.shape).image
    limit, where = half_a_pixel_and_back(image), inner(geometry, image.shape, 2)
    assert psnr(back, image, where) >= psnr(limit, image, where) + 2  # measured: 3.4 to 3.9 dB
    assert np.abs(back - image)[where].max() <= np.abs(limit - image)[where].max()
    # the first row of beams, where zero fill would be off by half of what is there
    seen = oracle.to_scan(plan_of(geometry, image.shape)).mask
    rim = np.abs(back - image)[seen & ~where].mean()
    assert rim <= 0.1 * image[seen & ~where].mean() + 1


# Whatever the geometry


@st.composite
def geometries(draw):
    """A geometry in a picture that need not hold all of it, and both shapes."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    beam = draw(st.integers(2, 60)), draw(st.integers(2, 60))
    number = st.floats(-1, 1, width=32)
    scale = draw(st.sampled_from([None, 0.25, 3.0, (0.5, 0.75)]))
    unit = scale if isinstance(scale, tuple) else (scale or 1, scale or 1)
    size = max(height, width)
    if draw(st.booleans()):
        r_max = size * draw(st.floats(0.25, 2.5, width=32)) * unit[0]
        r_min = draw(st.none() | st.floats(0, 0.95).map(lambda share: share * r_max))
        middle, half = 2 * draw(number), draw(st.floats(0.02, 1.1))
        apex = width / 2 * (1 + draw(number)) * unit[0], size * (draw(number) - 0.4) * unit[1]
        return usconf.Sector(apex, r_min, r_max, middle - half, middle + half, scale), (
            height, width), beam  # fmt: skip
    # corners of a square, each moved by less than a quarter of it: convex
    moved = [
        ((x + 0.24 * draw(number)) * width * unit[0], (z + 0.24 * draw(number)) * height * unit[1])
        for x, z in ((0, 0), (1, 0), (1, 1), (0, 1))
    ]
    if draw(st.booleans()):
        (left, top), _, (right, bottom), _ = moved
        return usconf.Linear(left, right, top, bottom, scale), (height, width), beam
    return usconf.Trapezoid(*moved, scale), (height, width), beam


@given(geometries(), st.sampled_from(DTYPES), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_geometry_equals_oracle(drawn, dtype, nearest, seed):
    geometry, scan, beam = drawn
    try:
        plan = plan_of(geometry, scan, beam)
    except ValueError as refusal:
        assume("must" not in str(refusal))
        raise
    rng = np.random.default_rng(seed)
    word = "nearest" if nearest else "bilinear"
    for direction, source, target in (("to_beam", scan, beam), ("to_scan", beam, scan)):
        given = noise(rng, source, dtype)
        ours = getattr(usconf, direction)(given, geometry, target, interpolation=word)
        exact = getattr(oracle, direction)(plan, word)
        np.testing.assert_array_equal(ours.mask, exact.mask)
        assert_equals(ours.image, exact(given), given)
