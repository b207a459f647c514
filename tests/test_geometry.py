"""Shapes of beams: where samples lie, what a picture shows of them, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import math
import pickle
import sys

import numpy as np
import pytest
import usconf
from conftest import data_folder
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import geometry as oracle
from usconf import Linear, Sector, Trapezoid
from usconf.geometry import Geometry, from_fan_json

FAN = Sector((99.5, -60.0), 80.0, 300.0, -0.5, 0.6)
CROPPED = dataclasses.replace(FAN, r_min=None)
BOX = Linear(4, 103, 2, 201)
STEERED = Trapezoid((40, 0), (199, 0), (159, 199), (0, 199))
DIVERGING = Trapezoid((60, 10), (140, 12), (195, 190), (5, 180))
SHAPES = {"fan": FAN, "cropped": CROPPED, "box": BOX, "steered": STEERED, "diverging": DIVERGING}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@st.composite
def fans(draw):
    low = draw(st.floats(-1.6, 1.5))
    high = draw(st.floats(low + 0.02, 1.7))
    r_min = draw(st.floats(0, 200))
    r_max = r_min + draw(st.floats(1, 300))
    apex = draw(st.floats(-100, 300)), draw(st.floats(-300, -1))
    return (*apex, r_min, r_max, low, high)


@st.composite
def quadrilaterals(draw):
    """Convex outlines: a rectangle whose corners moved by less than a third of its sides."""
    left, top = draw(st.floats(-50, 50)), draw(st.floats(-50, 50))
    width, height = draw(st.floats(20, 200)), draw(st.floats(20, 200))
    moves = [draw(st.floats(-0.2, 0.2)) for _ in range(8)]
    base = [(0, 0), (1, 0), (1, 1), (0, 1)]
    return [
        (left + (x + moves[2 * k]) * width, top + (z + moves[2 * k + 1]) * height)
        for k, (x, z) in enumerate(base)
    ]


scales = st.tuples(st.floats(0.05, 2), st.floats(0.05, 2))


# where samples lie


@given(fans(), st.tuples(st.integers(2, 6), st.integers(2, 6)), scales)
def test_samples_of_a_fan_lie_where_the_definition_says(fan, shape, scale):
    sector = Sector(fan[:2], *fan[2:], spacing=scale)
    x, z = sector.positions(grid_of(sector, shape))
    expected = oracle.fan_positions(fan, fan[2], shape, scale)
    np.testing.assert_allclose((x, z), expected, rtol=0, atol=1e-9 / min(scale))


@given(quadrilaterals(), st.tuples(st.integers(2, 6), st.integers(2, 6)), scales)
def test_samples_of_a_quadrilateral_lie_at_equal_fractions(corners, shape, scale):
    outline = Trapezoid(*corners, spacing=scale)
    x, z = outline.positions(grid_of(outline, shape))
    expected = oracle.quad_positions(corners, shape, scale)
    np.testing.assert_allclose((x, z), expected, rtol=0, atol=1e-9 / min(scale))


def grid_of(geometry, shape, r_start=None):
    """A grid with no picture around: positions ask for its shape and r_start only."""
    start = getattr(geometry, "r_min", 0.0) if r_start is None else r_start
    return usconf.geometry.BeamGrid(*shape, start, 0.0, 0.0, geometry.unit, "")


@every_shape
def test_samples_lie_in_the_shape_and_on_its_border(shape):
    grid = shape.beam_grid((240, 200), (7, 5))
    x, z = shape.positions(grid)
    assert x.shape == z.shape == (7, 5) == grid.shape
    assert shape.contains(x, z).all()
    middle = x.mean(), z.mean()
    for rows in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        # A thousandth further from the middle than the border is outside.
        out = [
            c + 1e-3 * (v[rows] - c) + (v[rows] - c) for c, v in zip(middle, (x, z), strict=True)
        ]
        cropped_face = shape is CROPPED and rows == np.s_[0]
        assert cropped_face or not shape.contains(*out).all()


def test_mm_are_pixels_times_spacing():
    grid = FAN.beam_grid((240, 200), (9, 5))
    scaled = FAN.to_mm(0.25)
    assert scaled == Sector((24.875, -15.0), 20.0, 75.0, -0.5, 0.6, 0.25)
    fine = scaled.beam_grid((240, 200), (9, 5))
    assert (fine.unit, fine.line_unit, fine.r_start) == ("mm", "rad", 20.0)
    assert fine.sample_spacing == pytest.approx(grid.sample_spacing / 4)
    np.testing.assert_allclose(scaled.positions(fine), FAN.positions(grid), atol=1e-9)
    assert scaled.to_pixels() == FAN and scaled.to_mm(0.25) == scaled
    for shape in (BOX, STEERED):
        there = shape.to_mm((0.5, 0.25))
        assert there.spacing == (0.5, 0.25) and there.unit == "mm"
        assert there.to_pixels() == shape


# what lies inside


@given(fans(), scales)
def test_contains_of_a_fan(fan, scale):
    x, z = np.meshgrid(np.linspace(-400, 500, 40) / scale[0], np.linspace(-300, 500, 40) / scale[1])
    expected = oracle.in_fan(fan, x, z, scale)
    radius, theta = oracle.fan_coordinates(fan, x, z, scale)
    gap = [np.abs(radius - fan[2]), np.abs(radius - fan[3])]
    gap += [np.abs(theta - fan[4]), np.abs(theta - fan[5])]
    clear = np.min(gap, axis=0) > 1e-6
    found = Sector(fan[:2], *fan[2:], spacing=scale).contains(x, z)
    assert found.dtype == bool and np.array_equal(found[clear], expected[clear])


@given(quadrilaterals(), scales)
def test_contains_of_a_quadrilateral(corners, scale):
    x, z = np.meshgrid(np.linspace(-100, 300, 40) / scale[0], np.linspace(-100, 300, 40) / scale[1])
    sure = oracle.in_quad(corners, x, z, scale, -1e-6), oracle.in_quad(corners, x, z, scale, 1e-6)
    found = Trapezoid(*corners, spacing=scale).contains(x, z)
    assert found[sure[0]].all() and not found[~sure[1]].any()


def test_border_pixels_belong_to_the_shape():
    assert BOX.contains([4, 103, 3.99, 103.01], [2, 201, 50, 50]).tolist() == [
        True,
        True,
        False,
        False,
    ]
    right = Sector((0, 0), 5, 10, 0, math.pi / 2)
    assert right.contains([0, 5, 10, 6, 3], [5, 0, 0, 8, 3.999]).tolist() == [True] * 4 + [False]
    assert CROPPED.contains(99.5, -59)


# what a picture shows


@pytest.mark.parametrize(
    ("apex", "sides", "expected"),
    [
        # Straight above the picture: row 0 is nearest.
        ((50, -30), (-0.5, 0.5), 30),
        # The picture's corner is nearest where the foot of the perpendicular is not in it.
        ((-40, -30), (0.3, 1.2), math.hypot(40, 30)),
        # Neither foot nor corner is in the wedge: where the left side meets row 0.
        ((50, -30), (0.4, 0.7), 30 / math.cos(0.4)),
        ((50, -30), (-0.7, -0.4), 30 / math.cos(0.4)),
        # From the side, nearly level beams.
        ((-20, 40), (1.2, 1.9), 20),
        # The apex itself.
        ((50, 3), (-0.5, 0.5), 0.0),
    ],
)
def test_beams_start_at_the_pictures_edge(apex, sides, expected):
    grid = Sector(apex, None, 400, *sides).beam_grid((100, 101))
    assert grid.r_start == pytest.approx(expected, abs=1e-9)


@given(fans(), st.tuples(st.integers(8, 300), st.integers(8, 300)))
def test_least_radius_against_trial(fan, size):
    shown = oracle.radii_shown(fan, *size)
    assume(shown is not None)
    sector = Sector(fan[:2], None, shown[1] + 1, *fan[4:])
    least = sector.beam_grid(size, (2, 2)).r_start
    assert least <= shown[0] + 1e-9
    # No trial was nearer, and the arc at that radius does touch the picture.
    x, z = (place[0] for place in sector.positions(grid_of(sector, (2, 999), least)))
    beside = np.maximum(np.abs(x - (size[1] - 1) / 2) - (size[1] - 1) / 2, 0)
    above = np.maximum(np.abs(z - (size[0] - 1) / 2) - (size[0] - 1) / 2, 0)
    step = least * (fan[5] - fan[4]) / 998
    assert np.hypot(beside, above).min() <= step + 1e-6


def test_row_0_of_a_cropped_fan_sees_the_picture():
    z = CROPPED.positions(CROPPED.beam_grid((240, 200)))[1]
    assert (z[0] >= -0.5).mean() > 0.1 and z[0].max() == pytest.approx(0, abs=0.01)
    # Nothing but a border of less than half a pixel is in the picture.
    sliver = Sector((-10, 20), None, 9.8, 1.2, 1.9)
    assert 9.5 < sliver.beam_grid((40, 40), (5, 5)).r_start < 9.8
    line = Sector((20, -10), None, 30, -0.5, 0.5).beam_grid((1, 40))
    assert line.r_start == 10


def test_default_grid_is_a_pixel_fine():
    for shape in SHAPES.values():
        x, z = shape.positions(shape.beam_grid((240, 200)))
        along = np.hypot(np.diff(x, axis=0), np.diff(z, axis=0))
        across = np.hypot(np.diff(x, axis=1), np.diff(z, axis=1))
        for steps in (along, across):
            assert 0.99 < steps.max() <= 1 + 1e-9


def test_default_grid_of_a_rectangle_is_its_pixels():
    grid = BOX.beam_grid((240, 200))
    x, z = BOX.positions(grid)
    assert grid.shape == (200, 100) and (grid.sample_spacing, grid.line_spacing) == (1, 1)
    np.testing.assert_allclose(x, np.arange(4, 104)[None] + np.zeros((200, 1)), rtol=1e-14)
    np.testing.assert_allclose(z, np.arange(2, 202)[:, None] + np.zeros(100), rtol=1e-14)
    # 38.1 / 0.1 is a little more than 381.
    assert Linear(0, 38.1, 0, 60, 0.1).beam_grid((601, 382)).shape == (601, 382)
    assert Linear(0, 19.8, 0, 60, (0.1, 0.2)).beam_grid((301, 199)).shape == (301, 199)


def test_default_grid_of_oblong_pixels_follows_their_short_side():
    fan = Sector((10, -5), 8, 30, -0.5, 0.5, (0.1, 0.05))
    grid = fan.beam_grid((400, 200))
    assert grid.sample_spacing <= 0.05 and grid.line_spacing * 30 <= 0.05
    assert grid.shape == (441, 601)


@every_shape
def test_given_shape_is_kept(shape):
    grid = shape.beam_grid((240, 200), (33, np.int64(17)))
    assert grid.shape == (33, 17) and (grid.n_samples, grid.n_lines) == (33, 17)
    assert type(grid.n_lines) is int
    assert grid == shape.beam_grid([240, 200], [33, 17])


def test_core_parameters():
    grid = CROPPED.beam_grid((240, 200))
    assert CROPPED.parameters(grid) == (0, (99.5, -60, 60, 300, -0.5, 0.6, 1, 1, 0, 0))
    assert FAN.to_mm(0.5).parameters(FAN.to_mm(0.5).beam_grid((240, 200)))[1][2:8] == (
        40, 150, -0.5, 0.6, 0.5, 0.5,
    )  # fmt: skip
    grid = BOX.beam_grid((240, 200))
    assert BOX.parameters(grid) == (1, (4, 2, 103, 2, 103, 201, 4, 201, 1, 1))
    kind, values = STEERED.to_mm((0.5, 0.25)).parameters(grid)
    assert kind == 1 and values == (20, 0, 99.5, 0, 79.5, 49.75, 0, 49.75, 0.5, 0.25)
    assert all(type(value) is float for value in values)


# as values


@every_shape
def test_shapes_are_values(shape):
    assert isinstance(shape, Geometry)
    for twin in (copy.deepcopy(shape), pickle.loads(pickle.dumps(shape)), eval(repr(shape))):
        assert twin == shape and hash(twin) == hash(shape)
    with pytest.raises(dataclasses.FrozenInstanceError):
        shape.spacing = 2.0
    assert shape.to_mm(0.5) != shape
    assert len({shape, shape.to_mm(0.5), dataclasses.replace(shape)}) == 2
    assert shape.kind in str(shape) and " px" in str(shape) and " mm" in str(shape.to_mm(0.5))


def test_numbers_become_plain():
    fan = Sector(np.array([1, 2]), np.float32(3), 5, -0.5, np.float64(0.5), [0.25, 0.25])
    assert fan == Sector((1.0, 2.0), 3.0, 5.0, -0.5, 0.5, 0.25)
    assert all(type(value) is float for value in (*fan.apex, fan.r_min, fan.r_max, fan.spacing))


# refusals

PI = math.pi
BAD = [
    (lambda: Sector((0, 0), 50, 20, -0.5, 0.5), ValueError, "r_min must be less than r_max, got 5"),
    (lambda: Sector((0, 0), 20, 20, -0.5, 0.5), ValueError, "r_min must be less than r_max"),
    (lambda: Sector((0, 0), -1, 20, -0.5, 0.5), ValueError, "r_min must not be negative, got -1"),
    (lambda: Sector((0, 0), None, 0, -0.5, 0.5), ValueError, "r_max must be positive, got 0"),
    (lambda: Sector((0, 0), 1, 2, 0.5, -0.5), ValueError, "theta_min must be less than theta_max"),
    (lambda: Sector((0, 0), 1, 2, -30, 30), ValueError, "theta_min must lie in .*radians"),
    (lambda: Sector((0, 0), 1, 2, -0.5, PI), ValueError, "theta_max must lie in"),
    (lambda: Sector((0, math.nan), 1, 2, -0.5, 0.5), ValueError, r"apex\[1\] must be finite"),
    (lambda: Sector((0, 0), math.inf, 2, -0.5, 0.5), ValueError, "r_min must be finite, got inf"),
    (lambda: Sector((0, 0), 1, math.inf, -0.5, 0.5), ValueError, "r_max must be finite"),
    (lambda: Sector((0, 0), 1, 2, -0.5, math.nan), ValueError, "theta_max must be finite"),
    (lambda: Sector(5, 1, 2, -0.5, 0.5), TypeError, r"apex must be .* got 5; pass \(x, z\)"),
    (lambda: Sector("ab", 1, 2, -0.5, 0.5), TypeError, "apex must be two numbers, got 'ab'"),
    (lambda: Sector((0, 0), "1", 2, -0.5, 0.5), TypeError, "r_min must be a number, got '1'"),
    (lambda: Sector((0, 0), True, 2, -0.5, 0.5), TypeError, "r_min must be a number, got True"),
    (lambda: Sector((0, 0), 1, 2, -0.5, 0.5, 0), ValueError, "spacing must be positive, got 0"),
    (lambda: Sector((0, 0), 1, 2, -0.5, 0.5, (1, -1)), ValueError, "spacing must be positive"),
    (lambda: Sector((0, 0), 1, 2, -0.5, 0.5, "mm"), TypeError, "spacing must be two numbers"),
    (lambda: Linear(5, 5, 0, 9), ValueError, "x_min must be less than x_max, got 5.0 and 5.0"),
    (lambda: Linear(0, 5, 9, 1), ValueError, "z_min must be less than z_max.*probe face"),
    (lambda: Linear(0, math.nan, 0, 9), ValueError, "x_max must be finite"),
    (lambda: Linear(0, 5, 0, 9, math.inf), ValueError, "spacing must be finite"),
    (lambda: Trapezoid((0, 0), (9, 0), (9, math.nan), (0, 9)), ValueError, r"right\[1\] must be"),
    (lambda: Trapezoid((0, 0), (9, 0), (0, 9), (9, 9)), ValueError, "convex outline in that order"),
    (lambda: Trapezoid((9, 0), (0, 0), (0, 9), (9, 9)), ValueError, "convex outline in that order"),
    (lambda: Trapezoid((9, 0), (9, 9), (0, 9), (0, 0)), ValueError, "convex outline in that order"),
    (lambda: Trapezoid((0, 9), (9, 9), (9, 0), (0, 0)), ValueError, "convex outline in that order"),
    (lambda: Trapezoid((0, 0), (9, 0), (2, 2), (0, 9)), ValueError, "convex outline in that order"),
    (lambda: Trapezoid((0, 0), (0, 0), (9, 9), (0, 9)), ValueError, "convex outline in that order"),
    (lambda: FAN.to_mm((0.1, 0.2)), ValueError, "spacing must be one number for a fan"),
    (lambda: FAN.to_mm(None), ValueError, "spacing must be one number for a fan"),
    (lambda: BOX.to_mm(None), TypeError, "spacing must be mm per pixel, got None"),
    (
        lambda: dataclasses.replace(FAN, spacing=(0.1, 0.2)).to_pixels(),
        ValueError,
        "spacing must be equal in x and z",
    ),
    (lambda: FAN.beam_grid((0, 9)), ValueError, r"image_shape\[0\] must be at least 1, got 0"),
    (lambda: FAN.beam_grid((9, 9, 3)), ValueError, r"image_shape must be two integers.*height"),
    (lambda: FAN.beam_grid(9), ValueError, "image_shape must be two integers"),
    (lambda: FAN.beam_grid((9.5, 9)), TypeError, r"image_shape\[0\] must be an integer, got 9.5"),
    (lambda: FAN.beam_grid((240, 200), (1, 9)), ValueError, r"shape\[0\] must be at least 2"),
    (lambda: FAN.beam_grid((240, 200), (9, 0)), ValueError, r"shape\[1\] must be at least 2"),
    (lambda: FAN.beam_grid((240, 200), 9), ValueError, r"shape must be two integers.*n_samples"),
    # The picture ends above the probe face; the fan ends beside or above the picture.
    (lambda: FAN.beam_grid((5, 200)), ValueError, "geometry must meet the picture of 5 x 200"),
    (
        lambda: Sector((600, -60), 80, 300, -0.5, 0.5).beam_grid((240, 200)),
        ValueError,
        "geometry must meet the picture",
    ),
    (
        lambda: Sector((99, -60), None, 50, -0.5, 0.5).beam_grid((240, 200)),
        ValueError,
        "geometry must meet the picture",
    ),
    (lambda: BOX.beam_grid((2, 200)), ValueError, "geometry must meet the picture"),
    # Its bounding box meets the picture, the parallelogram does not.
    (
        lambda: Trapezoid((60, -20), (90, -20), (30, 90), (0, 90)).beam_grid((20, 20)),
        ValueError,
        "geometry must meet the picture",
    ),
    (
        lambda: Sector((99, 120), 0, 100, -0.5, 0.5).beam_grid((240, 200)),
        ValueError,
        "apex must lie above the picture or in the top quarter of its 240 rows.*got row 120",
    ),
    (
        lambda: Sector((99, 120), None, 100, -0.5, 0.5).beam_grid((240, 200)),
        ValueError,
        "apex must lie above .*r_min=None; pass the radius of the probe face",
    ),
    (
        lambda: Sector((0, 0), 0, 1e9, -0.5, 0.5).beam_grid((240, 200)),
        ValueError,
        "shape must be given for a geometry of .* pixels, got None; check its unit",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_apexes_that_scanners_have_are_legal():
    # A phased array in a screenshot: the apex under a header.
    phased = Sector((512, 90), 0, 600, -0.8, 0.8)
    assert phased.beam_grid((768, 1024)).r_start == 0
    assert dataclasses.replace(phased, r_min=None).beam_grid((768, 1024)).r_start == 0
    # An endocavity probe sees more than half a circle: its sides rise above the apex.
    wide = Sector((300, 250), 60, 240, -1.9, 1.9)
    assert wide.beam_grid((500, 600)).r_start == 60
    assert wide.contains(110, 190) and not wide.contains(300, 200)


# pictures


@pytest.fixture
def pyplot():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


@every_shape
@pytest.mark.parametrize("spacing", [None, 0.5])
def test_plot(pyplot, rng, shape, spacing):
    shape = shape.to_mm(spacing) if spacing else shape
    scale, unit = (0.5, "mm") if spacing else (1.0, "px")
    bare = shape.plot()
    over = shape.plot(rng.random((240, 200)))
    for axes in (bare, over):
        axes.figure.canvas.draw()
        assert (axes.get_xlabel(), axes.get_ylabel()) == (f"x ({unit})", f"z ({unit})")
        assert axes.yaxis_inverted() and axes.get_aspect() == 1
        labels = axes.get_legend_handles_labels()[1]
        assert "border" in labels and "beams" in labels
        assert ("apex" in labels) == isinstance(shape, Sector)
        assert ("probe face" in labels) == (shape.kind != "sector" or shape.r_min is not None)
    extent = over.images[0].get_extent()
    assert extent == [-0.5 * scale, 199.5 * scale, 239.5 * scale, -0.5 * scale]


def test_plot_draws_the_border_where_it_is(pyplot):
    axes = FAN.plot(np.zeros((240, 200, 3), np.uint8))
    border = next(line for line in axes.lines if line.get_label() == "border").get_xydata()
    assert FAN.contains(*border.T).all()
    np.testing.assert_allclose(
        border.min(0), (99.5 - 300 * math.sin(0.5), -60 + 80 * math.cos(0.6))
    )
    assert border[:, 1].max() == pytest.approx(240, abs=0.01)


def test_plot_uses_the_axes_it_is_given_and_any_fan(pyplot):
    _, mine = pyplot.subplots()
    astray = Sector((5000, 0), None, 50, -0.5, 0.5)
    assert astray.plot(np.zeros((9, 9)), ax=mine) is mine


@pytest.mark.parametrize("shape", [(9,), (2, 9, 9), (0, 9)])
def test_plot_refuses(shape):
    with pytest.raises(ValueError, match="image must"):
        FAN.plot(np.zeros(shape))


def test_plot_names_the_missing_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install \"usconf\[plot\]\""):
        FAN.plot()


@pytest.mark.data
@pytest.mark.parametrize("name", ["liver_f069", "lung_a_f140", "ultrasonix_phantom_f0"])
def test_real_pictures_lie_in_their_fans(name):
    image = pytest.importorskip("PIL.Image")
    folder = data_folder() / "convex"
    pixels = np.asarray(image.open(folder / f"{name}.png")).astype(float)
    fan = from_fan_json(folder / f"{name}.fan.json", fit_check=name.startswith("liver"))
    z, x = np.indices(pixels.shape)
    inside = fan.contains(x, z)
    assert pixels[~inside].sum() < 0.01 * pixels.sum()
    grid = fan.beam_grid(pixels.shape)
    assert grid.sample_spacing <= 1 and grid.line_spacing * fan.r_max <= 1
