"""DAG maps through `confidence` and through a geometry."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from dag_pictures import holes, soft, speckle
from test_arrays import cupy  # noqa: F401  a fixture
from usconf.phantom import demo_fan


@pytest.fixture(scope="module")
def fan():
    return demo_fan(120, 150)


def test_confidence_knows_the_method(rng):
    image = speckle(rng, (40, 33))
    found = usconf.confidence(image, method="dag", preset="beyond_shadows")
    np.testing.assert_array_equal(found, usconf.dag(image, preset="beyond_shadows"))


@pytest.mark.parametrize("despeckle", ["srad", None])
def test_is_the_map_of_the_beams_rolled_back(fan, despeckle):
    image, geometry = fan
    found = usconf.confidence(image, method="dag", geometry=geometry, despeckle=despeckle)
    beams, _ = usconf.to_beam(image.astype(np.float32), geometry)
    maps = usconf.dag(beams, despeckle=despeckle)
    expected = usconf.to_scan(maps, geometry, image.shape).image
    np.testing.assert_allclose(found, expected, atol=1e-6)
    rows, columns = np.indices(image.shape)
    inside = geometry.contains(columns, rows)
    assert found[~inside].max() == 0 and found[inside].min() > 0 and found.max() <= 1


def test_planes_are_unrolled_with_the_image(fan, rng):
    image, geometry = fan
    planes = soft(rng, image.shape)
    planes["reference"] = np.roll(image, 3, axis=1)
    found = usconf.confidence(image, method="dag", geometry=geometry, **planes)
    beams = {
        name: usconf.to_beam(np.asarray(plane, np.float32), geometry).image
        for name, plane in {"image": image, **planes}.items()
    }
    expected = usconf.to_scan(usconf.dag(**beams), geometry, image.shape).image
    np.testing.assert_allclose(found, expected, atol=1e-6)
    clip = np.stack([image, image])
    both = usconf.confidence(clip, method="dag", geometry=geometry, axes="thw", **planes)
    np.testing.assert_allclose(both, np.stack([found, found]), atol=1e-6)
    finished = usconf.confidence(planes["reference"], method="dag", geometry=geometry)
    other = usconf.confidence(image, method="dag", geometry=geometry, reference_map=finished)
    inside = other > 0
    assert other.max() <= 1 and inside.mean() > 0.3


def test_published_pixels_are_scaled_before_the_beams(fan):
    image, geometry = fan
    settings = {"method": "dag", "geometry": geometry, "variant": "hung2021", "despeckle": None}
    there = usconf.confidence(image, **settings)
    back = usconf.confidence(image / np.float32(255), **settings)
    np.testing.assert_allclose(there, back, atol=1e-5)


def test_published_recurrence_wants_whole_beams(fan):
    image, geometry = fan
    with pytest.raises(ValueError, match=r"^variant must be None with this geometry"):
        usconf.confidence(
            image[:, :90], method="dag", geometry=geometry, variant="hung2021", despeckle=None
        )


def test_a_mask_of_the_image(fan):
    image, geometry = fan
    mask = np.ones(image.shape, np.uint8)
    mask[60:70, 70:80] = 0
    found = usconf.confidence(image, method="dag", geometry=geometry, mask=mask)
    assert (found[60:70, 70:80] == 0).all()
    assert (usconf.confidence(image, method="dag", geometry=geometry)[62:68, 72:78] > 0).all()


def test_roi_is_refused_with_a_geometry(fan):
    image, geometry = fan
    with pytest.raises(ValueError, match=r"^roi must be left out with a geometry"):
        usconf.confidence(image, method="dag", geometry=geometry, roi=(5, 20, 5, 20))


@pytest.mark.filterwarnings("error")
def test_a_fan_without_geometry_draws_one_warning(fan):
    for image in (fan[0], fan[0].astype(np.float32)):
        with pytest.warns(UserWarning, match='geometry="auto"') as caught:
            usconf.confidence(image, method="dag")
        assert len(caught) == 1


# Through CuPy


@pytest.mark.parametrize("despeckle", ["srad", "median", None])
def test_cupy_arrays_give_cupy_arrays(rng, cupy, despeckle):  # noqa: F811
    clip, planes = speckle(rng, (3, 40, 33)), soft(rng, (40, 33))
    planes |= {"mask": holes(rng, (40, 33)), "reference": clip[0]}
    wanted = usconf.dag(clip, axes="thw", despeckle=despeckle, **planes)
    ours = usconf.dag(clip.view(cupy.ndarray), axes="thw", despeckle=despeckle, **planes)
    assert type(ours) is cupy.ndarray and (3, 77) in cupy.seen
    np.testing.assert_array_equal(np.asarray(ours), wanted)
    if despeckle:
        smooth = usconf.despeckle(clip[0].view(cupy.ndarray), despeckle)
        assert type(smooth) is cupy.ndarray
        np.testing.assert_array_equal(np.asarray(smooth), usconf.despeckle(clip[0], despeckle))


def test_published_values_above_one_are_not_clipped(rng):
    image = rng.random((60, 48))
    settings = {"variant": "hung2021", "despeckle": None, "var": 100.0, "xi": 1.0}
    expected = usconf.dag(image, **settings)
    assert expected.max() > 1.5
    whole = usconf.Linear(0, 47, 0, 59)
    found = usconf.confidence(image, method="dag", geometry=whole, **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
