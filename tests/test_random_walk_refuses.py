"""Bad input: every refusal names the argument, what it must be, and what was given."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import usconf


@pytest.fixture
def image(rng):
    return rng.integers(1, 256, (12, 10), np.uint8)


# Not-finite pixels


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_not_finite_is_counted_and_located(image, dtype, bad):
    image = image.astype(dtype)
    image[4, 7] = image[9, 2] = image[9, 3] = bad
    with pytest.raises(
        ValueError, match=r"^image must .*finite.*got 3 .*row 4, column 7.*nan=.mask"
    ):
        usconf.random_walk(image)


def test_not_finite_is_located_in_clips(rng):
    clip = rng.random((3, 8, 9))
    clip[2, 5, 6] = np.nan
    with pytest.raises(ValueError, match=r"^image must .*finite.*got 1 .*row 5, column 6.*frame 2"):
        usconf.random_walk(clip, axes="thw")


# Shapes


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 0, 4), (2, 1, 3, 0)], ids=str)
def test_empty_frames(shape):
    with pytest.raises(ValueError, match=r"^image must .*got.*\("):
        usconf.random_walk(np.empty(shape, np.float32))


def test_empty_batch_is_an_empty_batch():
    ours = usconf.random_walk(np.empty((0, 1, 6, 5), np.uint8))
    assert ours.shape == (0, 1, 6, 5) and ours.dtype == np.float32
    assert usconf.random_walk(np.empty((0, 6, 5)), axes="thw").shape == (0, 6, 5)


def test_smallest_frames(rng):
    """Defined, not refused: the source wins where it meets the sink."""
    assert (usconf.random_walk(rng.random((1, 7))) == 1).all()
    assert (usconf.random_walk(rng.random((1, 1))) == 1).all()
    np.testing.assert_array_equal(usconf.random_walk(rng.random((2, 2))), [[1, 1], [0, 0]])
    column = usconf.random_walk(rng.random((5, 1)))
    assert column.shape == (5, 1) and column[0] == 1 and column[-1] == 0
    assert (np.diff(column, axis=0) < 0).all()


@pytest.mark.filterwarnings("ignore:.*fit_support")
@pytest.mark.parametrize("value", [0, 9, 255])
def test_constant_image(value):
    ours = usconf.random_walk(np.full((5, 3), value, np.uint8))
    np.testing.assert_allclose(ours, np.linspace(1, 0, 5)[:, None].repeat(3, 1), atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (), (2, 2, 1, 8, 9)], ids=str)
def test_not_an_image(shape):
    with pytest.raises(ValueError, match=r"^image must .*got"):
        usconf.random_walk(np.ones(shape))


@pytest.mark.parametrize("shape", [(3, 12, 10), (2, 12, 10), (4, 3, 12, 10)], ids=str)
def test_ambiguous_stacks_name_the_line_to_write(shape):
    with pytest.raises(ValueError, match=r"^image must .*got.*axes=") as raised:
        usconf.random_walk(np.ones(shape, np.uint8))
    assert str(shape) in str(raised.value)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_names_gray(channels):
    with pytest.raises(ValueError, match=r"^image must .*got.*usconf\.io\.gray"):
        usconf.random_walk(np.ones((12, 10, channels), np.uint8))


def test_three_planes_name_both():
    with pytest.raises(ValueError, match=r'axes="thw"'):
        usconf.random_walk(np.ones((3, 12, 10), np.uint8))


@pytest.mark.parametrize(
    "axes", ["", "h", "hh", "hwx", "thw", "ht", "tw", "hwhw", "HW"], ids=lambda axes: axes or "none"
)
def test_wrong_axes(image, axes):
    with pytest.raises(ValueError, match=r"^axes must .*got"):
        usconf.random_walk(image, axes=axes)


def test_axes_of_another_kind(image):
    with pytest.raises((TypeError, ValueError), match=r"^axes must .*got"):
        usconf.random_walk(image, axes=3)


def test_channels_by_name_must_be_one():
    with pytest.raises(ValueError, match=r"^axes m(ust|ay) .*got.*usconf\.io\.gray"):
        usconf.random_walk(np.ones((3, 12, 10), np.uint8), axes="chw")


# Kinds of input


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "bool", "int64", "U1", "O"])
def test_kinds_of_numbers(dtype):
    with pytest.raises(TypeError, match=r"^image must .*got"):
        usconf.random_walk(np.ones((6, 5)).astype(dtype))


@pytest.mark.parametrize("thing", [None, "picture.png", 3.0, object()], ids=str)
def test_not_an_array(thing):
    with pytest.raises((TypeError, ValueError), match=r"^image must .*got"):
        usconf.random_walk(thing)


@pytest.mark.parametrize("dtype", ["int8", "float16", "complex64", "nonsense"])
def test_output_dtype(image, dtype):
    with pytest.raises((TypeError, ValueError), match=r"^dtype must .*got"):
        usconf.random_walk(image, dtype=dtype)


# Parameters


@pytest.mark.parametrize("value", [-1, -1e-9, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
def test_parameter_out_of_range(image, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must .*got"):
        usconf.random_walk(image, **{name: value})


@pytest.mark.parametrize("value", ["2", [1.0, 2.0], np.ones(3), 1j], ids=repr)
@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
def test_parameter_is_one_number(image, name, value):
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must .*got"):
        usconf.random_walk(image, **{name: value})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("preset", ["monai", "beyond_shadows", "duque2023"]),
        ("variant", ["monai_1_3"]),
        ("mode", ["B", "RF"]),
        ("sink", ["all", "mid", "min", "mask"]),
        ("solver", ["auto", "direct", "iterative"]),
        ("nan", ["raise", "mask"]),
    ],
)
@pytest.mark.parametrize("value", ["nonsense", 7])
def test_unknown_choice_lists_the_known(image, name, known, value):
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must .*got") as raised:
        usconf.random_walk(image, **{name: value})
    message = str(raised.value)
    assert repr(value) in message
    assert all(choice in message for choice in known)


def test_unknown_method(image):
    with pytest.raises(ValueError, match=r"^method must .*random_walk.*got 'nonsense'"):
        usconf.confidence(image, method="nonsense")


def test_unknown_parameter(image):
    with pytest.raises(TypeError, match="betta"):
        usconf.random_walk(image, betta=90)
    with pytest.raises(TypeError, match="betta"):
        usconf.confidence(image, betta=90)


# Masks and sinks


@pytest.mark.parametrize("shape", [(12, 9), (10, 12), (120,), (2, 12, 10)], ids=str)
def test_mask_of_another_shape(image, shape):
    with pytest.raises(ValueError, match=r"^mask must .*got"):
        usconf.random_walk(image, mask=np.ones(shape, bool))
    with pytest.raises(ValueError, match=r"^sink_mask must .*got"):
        usconf.random_walk(image, sink="mask", sink_mask=np.ones(shape, bool))


def test_sink_mask_and_sink_belong_together(image):
    with pytest.raises(ValueError, match=r"^sink_mask must .*got None"):
        usconf.random_walk(image, sink="mask")
    with pytest.raises(ValueError, match=r"^sink_mask must .*got|^sink must .*got"):
        usconf.random_walk(image, sink_mask=np.ones(image.shape, bool))


def map_of(image, **parameters):
    """The map, and the messages of whatever was warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        ours = usconf.random_walk(image, **parameters)
    return ours, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("where", ["nowhere", "source row"])
def test_no_sink_is_one_everywhere(image, where):
    chosen = np.zeros(image.shape, bool)
    chosen[0] = where == "source row"
    with pytest.warns(UserWarning, match=r"sink"):
        ours = usconf.random_walk(image, sink="mask", sink_mask=chosen)
    np.testing.assert_array_equal(ours, 1)


def test_sink_partly_on_the_source_row(image):
    chosen = np.zeros(image.shape, bool)
    chosen[0, 3] = chosen[6, 3] = True
    ours, said = map_of(image, sink="mask", sink_mask=chosen)
    assert ours[0, 3] == 1 and ours[6, 3] == 0 and not said


def test_nothing_valid_is_zero_everywhere(image):
    assert (usconf.random_walk(image, mask=np.zeros(image.shape)) == 0).all()
    assert (usconf.random_walk(np.full((6, 5), np.nan), nan="mask") == 0).all()


# Margins


@pytest.mark.parametrize("rows", [1, 4])
def test_black_first_row_names_fit_support(image, rows):
    image[:rows] = 0
    with pytest.warns(UserWarning, match="fit_support"):
        usconf.random_walk(image)
    with pytest.warns(UserWarning, match="fit_support"):
        usconf.random_walk(np.stack([np.full_like(image, 3), image]), axes="thw")


def test_black_elsewhere_is_no_margin(image):
    image[0] = 0
    image[0, 4] = 200
    image[3:5] = 0
    assert map_of(image)[1] == []
    image[0] = 0
    assert map_of(image, mask=image > 0)[1] == []


# Size


@pytest.mark.parametrize("solver", ["auto", "direct", "iterative"])
def test_too_large_is_a_memory_error(solver):
    """Refused before anything of the picture's size is touched: the view takes one byte."""
    large = np.broadcast_to(np.uint8(7), (20_000, 20_000))
    with pytest.raises(MemoryError, match=r"memory_limit"):
        usconf.random_walk(large, solver=solver, memory_limit=2**31)


@pytest.mark.parametrize("limit", [0, -5, "much", float("nan")])
def test_memory_limit(image, limit):
    with pytest.raises((TypeError, ValueError), match=r"^memory_limit must .*got"):
        usconf.random_walk(image, memory_limit=limit)


def test_iterative_solver_within_less_memory(rng):
    """Just too little for the direct solver: `auto` goes on, "direct" says what to do instead."""
    image = rng.random((300, 280), np.float32)
    expected = usconf.random_walk(image, solver="direct")
    limit = 2**28
    with pytest.raises(MemoryError, match=r"memory_limit.*iterative"):
        while limit > 2**20:
            usconf.random_walk(image, solver="direct", memory_limit=limit)
            limit = int(0.9 * limit)
    ours = usconf.random_walk(image, memory_limit=limit)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)
    assert (ours != expected).any()


def test_a_range_that_overflows_is_refused():
    image = np.where(np.indices((8, 8)).sum(0) % 2, 1e308, -1e308)
    for solver in ("direct", "iterative"):
        with pytest.raises(ValueError, match="image must span a finite range"):
            usconf.random_walk(image, solver=solver)


@pytest.mark.parametrize("parameters", [{"beta": 1e39}, {"beta": 1e8, "gamma": 0.0}])
def test_extreme_parameters_on_a_constant_image_still_give_numbers(parameters):
    map = usconf.random_walk(np.full((9, 7), 3.0, np.float32), **parameters)
    assert ((map >= 0) & (map <= 1)).all()


def test_many_large_frames_do_not_leave_the_direct_solver():
    from usconf import _core

    one, many = (
        _core.random_walk_memory(
            0,
            0,
            frames,
            1024,
            1024,
            0,
            False,
            1,
            1023,
            2.0,
            90.0,
            0.05,
            0,
            True,
            0,
            False,
            64,
            -1,
            0,
        )
        for frames in (1, 64)
    )
    assert many <= one
