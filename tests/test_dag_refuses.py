"""Bad input: every refusal names the argument, what it must be, and what was given."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import usconf


@pytest.fixture
def image(rng):
    return rng.integers(1, 256, (32, 30), np.uint8)


# Pixels and shapes


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("despeckle", ["srad", None])
def test_not_finite_is_counted_and_located(image, bad, despeckle):
    image = image.astype(np.float32)
    image[4, 7] = image[9, 2] = bad
    match = r"^image must be finite, got 2 .*row 4, column 7.*nan=.mask"
    with pytest.raises(ValueError, match=match):
        usconf.dag(image, despeckle=despeckle)
    valid = np.isfinite(image)
    masked = usconf.dag(image, mask=valid, despeckle=despeckle)
    np.testing.assert_array_equal(usconf.dag(image, nan="mask", despeckle=despeckle), masked)
    assert masked[4, 7] == 0
    with pytest.raises(ValueError, match=r"^reference must be finite, got 2 "):
        usconf.dag(np.ones((32, 30), np.uint8), reference=image)


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (2, 1, 3, 0)], ids=str)
def test_empty_frames(shape):
    with pytest.raises(ValueError, match=r"^image must .*got.*\("):
        usconf.dag(np.empty(shape, np.float32))


def test_empty_batch_is_an_empty_batch():
    ours = usconf.dag(np.empty((0, 1, 6, 5), np.uint8))
    assert ours.shape == (0, 1, 6, 5) and ours.dtype == np.float32
    everything = usconf.dag(
        np.empty((0, 6, 5)), axes="thw", mask=np.ones((6, 5)), needle=np.ones((6, 5)),
        reference=np.ones((6, 5)), despeckle=None,
    )  # fmt: skip
    assert everything.shape == (0, 6, 5)


@pytest.mark.parametrize("despeckle", ["srad", "median", None])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (2, 2), (9, 1), (7, 8)], ids=str)
def test_smallest_frames(rng, shape, despeckle):
    ours = usconf.dag(rng.random(shape), despeckle=despeckle)
    assert ours.shape == shape and (ours[0] == 1).all() and (ours > 0).all() and (ours <= 1).all()


@pytest.mark.filterwarnings("ignore:.*fit_support")
@pytest.mark.parametrize("variant", [None, "hung2021"])
@pytest.mark.parametrize("despeckle", ["srad", "median", None])
@pytest.mark.parametrize("value", [0, 9, 255])
def test_constant_image(value, despeckle, variant):
    ours = usconf.dag(np.full((30, 24), value, np.uint8), despeckle=despeckle, variant=variant)
    assert np.isfinite(ours).all() and (np.diff(ours, axis=0) < 0).all()
    if variant is None:
        np.testing.assert_allclose(ours[-1], 0.1, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 12, 10), (4, 3, 12, 10), (12, 10, 3), (7,)], ids=str)
def test_ambiguous_stacks(shape):
    with pytest.raises(ValueError, match=r"^image must .*got"):
        usconf.dag(np.ones(shape, np.uint8))


@pytest.mark.parametrize("dtype", ["complex64", "bool", "int64", "O"])
def test_kinds_of_numbers(dtype):
    with pytest.raises(TypeError, match=r"^image must .*got"):
        usconf.dag(np.ones((16, 15)).astype(dtype))
    with pytest.raises(TypeError, match=r"^reference must .*got"):
        usconf.dag(np.ones((16, 15)), reference=np.ones((16, 15)).astype(dtype))


@pytest.mark.parametrize("name", ["reference", "reference_map", "needle", "artifact", "mask"])
def test_planes_of_another_shape(image, name):
    with pytest.raises(ValueError, match=rf"^{name} must have shape \(32, 30\).*got \(30, 32\)"):
        usconf.dag(image, **{name: np.ones((30, 32))})


# Parameters


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["xi", "alpha", "var", "power"])
def test_parameter_out_of_range(image, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must .*got"):
        usconf.dag(image, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("xi", 0), ("xi", 1.01), ("var", 0)])
def test_limits(image, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be above 0.*got {value}"):
        usconf.dag(image, **{name: value})


def test_depth_weights_must_not_vanish(image):
    with pytest.raises(ValueError, match=r"^alpha must leave weight .*32 rows, got 1e\+06"):
        usconf.dag(image, alpha=1e6)
    with pytest.raises(ValueError, match=r"^alpha must leave weight"):
        usconf.dag(image, alpha=11700.0)  # the sum is still above 0, x no longer finite
    assert (usconf.dag(image[:1], alpha=1e6, despeckle=None) == 1).all()
    assert np.isfinite(usconf.dag(image, alpha=1e3, despeckle=None)).all()


@pytest.mark.parametrize("value", ["2", [1.0, 2.0], np.ones(3), 1j], ids=repr)
@pytest.mark.parametrize("name", ["xi", "alpha", "var", "power"])
def test_parameter_is_one_number(image, name, value):
    with pytest.raises((TypeError, ValueError), match=rf"^{name} must .*got"):
        usconf.dag(image, **{name: value})


@pytest.mark.parametrize("value", [-1, 2.5, "3", True, None], ids=repr)
def test_half_width(image, value):
    with pytest.raises((TypeError, ValueError), match=r"^half_width must be .*got"):
        usconf.dag(image, half_width=value)


def test_published_half_width_is_at_least_one(image):
    with pytest.raises(ValueError, match=r"^half_width must be at least 1, got 0"):
        usconf.dag(image, half_width=0, variant="hung2021")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("preset", ["beyond_shadows"]),
        ("variant", ["hung2021"]),
        ("despeckle", ["srad", "median", "hung2021"]),
        ("nan", ["raise", "mask"]),
    ],
)
@pytest.mark.parametrize("value", ["nonsense", 7])
def test_unknown_words_list_the_known(image, name, known, value):
    with pytest.raises(ValueError, match=rf"^{name} must be one of .*got {value!r}") as raised:
        usconf.dag(image, **{name: value})
    assert all(repr(word) in str(raised.value) for word in known)


def test_a_parameter_wins_over_its_preset(image):
    ours = usconf.dag(image, preset="beyond_shadows", xi=0.2)
    np.testing.assert_array_equal(ours, usconf.dag(image, alpha=0.01, xi=0.2))


# Arguments that exclude each other


@pytest.mark.parametrize("given", [{"variant": "hung2021"}, {"despeckle": "hung2021"}], ids=str)
def test_the_published_code_knows_no_masks(image, given):
    pytest.importorskip("SimpleITK")
    for masked in ({"mask": np.ones((32, 30))}, {"nan": "mask"}):
        with pytest.raises(ValueError, match=r"^mask must be left out .*hung2021"):
            usconf.dag(image.astype(np.float32), **given, **masked)


@pytest.mark.parametrize("despeckle", ["median", None])
def test_roi_needs_its_filter(image, despeckle):
    with pytest.raises(ValueError, match=r"^roi must come with despeckle=.srad"):
        usconf.dag(image, despeckle=despeckle, roi=(1, 9, 1, 9))


@pytest.mark.parametrize(
    "roi", [(0, 33, 0, 5), (5, 5, 0, 5), (-1, 4, 0, 5), (3, 4, 3, 4), (9, 3, 1, 5)], ids=str
)
def test_roi_outside(image, roi):
    with pytest.raises(ValueError, match=r"^roi must .*got \("):
        usconf.dag(image, roi=roi)


@pytest.mark.parametrize("roi", [(1, 2, 3), "abcd", 5, (0.0, 4.0, 0.0, 4.0)], ids=repr)
def test_roi_is_four_integers(image, roi):
    with pytest.raises(TypeError, match=r"^roi must be four integers .*got"):
        usconf.dag(image, roi=roi)


def test_roi_without_speckle(image):
    image[4:9, 4:9] = 7
    with pytest.raises(ValueError, match=r"^roi must show speckle, got \(4, 9, 4, 9\)"):
        usconf.dag(image, roi=(4, 9, 4, 9))
    mask = np.ones(image.shape, bool)
    mask[10:20, 10:20] = False
    mask[12, 12] = True
    with pytest.raises(ValueError, match=r"^roi must show speckle"):
        usconf.dag(image, roi=(10, 20, 10, 20), mask=mask)


def test_one_reference_only(image):
    with pytest.raises(ValueError, match=r"^reference_map must be left out"):
        usconf.dag(image, reference=image, reference_map=np.ones(image.shape))


@pytest.mark.parametrize("value", [1.5, -0.1, np.nan, np.inf])
def test_reference_map_is_a_confidence_map(image, value):
    finished = np.full(image.shape, 0.5)
    finished[3] = value
    with pytest.raises(ValueError, match=r"^reference_map must be a confidence map"):
        usconf.dag(image, reference_map=finished)


@pytest.mark.parametrize("name", ["needle", "artifact"])
@pytest.mark.parametrize("value", [255, -1, np.nan])
def test_soft_maps_are_probabilities(image, name, value):
    plane = np.zeros(image.shape)
    plane[2, 3] = value
    with pytest.raises(ValueError, match=rf"^{name} must hold probabilities"):
        usconf.dag(image, **{name: plane})
    marked = usconf.dag(image, **{name: plane == value})  # booleans are fine
    assert np.isfinite(marked).all()


def test_without_simple_itk(image, monkeypatch):
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(ImportError, match=r"usconf\[hung2021\]"):
        usconf.dag(image, despeckle="hung2021")


def test_published_region_needs_a_large_image(image):
    pytest.importorskip("SimpleITK")
    with pytest.raises(ValueError, match=r"^roi must be given .*32 x 30"):
        usconf.dag(image, despeckle="hung2021")


def test_no_warning_for_plain_frames(image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        usconf.dag(image)
        usconf.dag(image, reference=image[::-1])
