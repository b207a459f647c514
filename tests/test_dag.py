"""DAG maps against the published code's own, and against the oracle."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from dag_pictures import TOLERANCE, gap, holes, soft, speckle
from reference import dag as oracle
from reference import despeckle as smoothing

# Generated pictures often start with a black row, or look like a fan.
pytestmark = pytest.mark.filterwarnings("ignore:image (has|looks)")

SHAPES = [(41, 33), (64, 21), (37, 20), (29, 5), (50, 1), (9, 150), (2, 2), (1, 7), (3, 64)]
PARAMETERS = {
    "defaults": {},
    "beyond_shadows": {"xi": 0.4, "alpha": 0.01},
    "power 2.5": {"power": 2.5},
    "power 0.5": {"power": 0.5, "xi": 0.02},
    "power 0": {"power": 0.0},
    "wide": {"var": 100.0, "alpha": 4.0},
    "narrow": {"var": 0.3},
    "no decay": {"xi": 1.0},
    "straight down": {"half_width": 0},
    "three": {"half_width": 3, "var": 2.0},
    "far": {"half_width": 23, "var": 60.0},
}


# Equals the paper


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("femur_dag_nosmooth", {}),
        ("femur_dag_nosmooth_xi04_alpha001", {"preset": "beyond_shadows"}),
    ],
)
def test_published_maps(data_dir, frames, name, parameters):
    image = frames("golden/femur_input")
    official = np.load(data_dir / "golden" / f"{name}.npy")
    settings = {"variant": "hung2021", "despeckle": None, **parameters}
    for picture in (image, image / 255):
        ours = usconf.dag(picture, dtype="float64", **settings)
        assert np.abs(ours - official).max() <= 1e-7
    assert np.abs(usconf.dag(image, **settings) - official).max() <= 1e-6
    given = {"xi": 0.4, "alpha": 0.01} if parameters else {}
    assert (
        np.abs(oracle.confidence(image / 255, variant="hung2021", **given) - official).max() < 1e-7
    )


@pytest.mark.slow
def test_published_map_with_its_despeckling(data_dir, frames):
    """Their loop is chaotic: 5.6e-5 is what another order of the same sums leaves."""
    pytest.importorskip("SimpleITK")
    official = np.load(data_dir / "golden" / "femur_dag_full.npy")
    ours = usconf.dag(frames("golden/femur_input"), variant="hung2021", despeckle="hung2021")
    assert np.abs(ours - official).max() <= 2e-4
    assert np.abs(ours - official).mean() <= 1e-5


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", [None, "hung2021"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes(rng, shape, variant, dtype):
    image = rng.random(shape)
    ours = usconf.dag(image, variant=variant, despeckle=None, dtype=dtype)
    assert ours.dtype == dtype and ours.shape == shape
    assert gap(ours, oracle.confidence(image, variant=variant)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("case", "variant"),
    [(case, None) for case in PARAMETERS]
    + [(case, "hung2021") for case in PARAMETERS if case != "straight down"],
)
def test_parameters(rng, case, variant, dtype):
    given = PARAMETERS[case]
    image = speckle(rng, (57, 45), np.float64) / 255
    ours = usconf.dag(image, variant=variant, despeckle=None, dtype=dtype, **given)
    assert gap(ours, oracle.confidence(image, variant=variant, **given)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("power", [1.0, 1.7])
@pytest.mark.parametrize("shape", [(131, 77), (200, 96)], ids=str)
def test_a_larger_picture(rng, shape, power, dtype):
    image = speckle(rng, shape)
    ours = usconf.dag(image, power=power, despeckle=None, dtype=dtype)
    assert gap(ours, oracle.confidence(image, power=power)) <= TOLERANCE[dtype]


def test_a_real_frame(frames):
    image = frames("linear/bone_ct_163296")[100:400, 300:620]
    ours = usconf.dag(image, despeckle=None)
    assert gap(ours, oracle.confidence(image)) <= TOLERANCE["float32"]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(41, 33), (24, 60), (30, 7)], ids=str)
def test_masked(rng, shape, dtype):
    image, valid = speckle(rng, shape, np.float64), holes(rng, shape)
    expected = oracle.confidence(image, mask=valid)
    image[~valid] = 1e9  # brighter than all that is valid: must not leak
    ours = usconf.dag(image, mask=valid, despeckle=None, dtype=dtype)
    assert gap(ours, expected) <= TOLERANCE[dtype]
    assert (ours[~valid] == 0).all()
    image[~valid] = np.nan
    again = usconf.dag(image, nan="mask", despeckle=None, dtype=dtype)
    np.testing.assert_array_equal(again, ours)


def test_mask_in_pieces(rng):
    """Few valid pixels: some without any parent are 0, sources are 1."""
    image, valid = speckle(rng, (40, 50)), holes(rng, (40, 50), 0.93)
    ours = usconf.dag(image, mask=valid, half_width=2, despeckle=None)
    assert gap(ours, oracle.confidence(image, mask=valid, half_width=2)) <= 2e-6
    assert (ours[oracle.sources(valid)] == 1).all() and (ours[valid] == 0).any()


def test_full_mask_changes_nothing(rng):
    image = speckle(rng, (30, 46))
    whole = usconf.dag(image, mask=np.ones(image.shape, np.uint8))
    assert gap(whole, usconf.dag(image)) <= TOLERANCE["float32"]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("variant", [None, "hung2021"])
def test_structural(rng, variant, dtype):
    image, normal = speckle(rng, (44, 37), np.float64), speckle(rng, (44, 37), np.float64)
    if variant:
        image, normal = image / 255, normal / 255
    settings = {"variant": variant, "despeckle": None, "dtype": dtype}
    rows = oracle.reference_rows(oracle.confidence(normal, variant=variant))
    rows = 0.93 * rows  # somewhere the clamp works
    ours = usconf.dag(image, reference_map=np.repeat(rows[:, None], 37, 1), **settings)
    expected = oracle.confidence(image, variant=variant, reference=rows)
    assert gap(ours, expected) <= 2 * TOLERANCE[dtype] / rows.min()
    if variant is None:
        assert (ours.max(axis=1) == 1).any() and ours.max() <= 1 and ours.min() > 0


def test_reference_image_is_mapped_alike(rng):
    image, normal = speckle(rng, (2, 40, 33)), speckle(rng, (40, 33))
    settings = {"axes": "thw", "preset": "beyond_shadows", "dtype": "float64"}
    ours = usconf.dag(image, reference=normal, **settings)
    finished = usconf.dag(normal, preset="beyond_shadows", dtype="float64")
    assert gap(ours, usconf.dag(image, reference_map=finished, **settings)) <= 1e-12
    each = usconf.dag(image, reference=np.stack([normal, normal]), **settings)
    np.testing.assert_array_equal(each, ours)
    own = usconf.dag(image, reference=image, **settings)
    np.testing.assert_allclose(own.max(axis=2), 1.0, rtol=0, atol=1e-15)


def test_a_reference_that_ends(rng):
    """Where the reference has no confidence left there is none to compare with."""
    image = speckle(rng, (20, 25))
    rows = np.where(np.arange(20) < 12, 0.8, 0.0)
    ours = usconf.dag(image, reference_map=np.repeat(rows[:, None], 25, 1), despeckle=None)
    assert gap(ours, oracle.confidence(image, reference=rows)) <= 1e-5
    assert (ours[12:] == 0).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("power", [1.0, 1.6])
@pytest.mark.parametrize("variant", [None, "hung2021"])
@pytest.mark.parametrize("which", [("needle",), ("artifact",), ("needle", "artifact")], ids=str)
def test_needle_and_artifact(rng, which, variant, power, dtype):
    image = speckle(rng, (43, 35), np.float64) / 255
    planes = {name: soft(rng, image.shape)[name] for name in which}
    ours = usconf.dag(image, variant=variant, power=power, despeckle=None, dtype=dtype, **planes)
    expected = oracle.confidence(image, variant=variant, power=power, **planes)
    assert gap(ours, expected) <= TOLERANCE[dtype]
    if "artifact" in which:
        assert ours[-1, 0] == 0  # the artifact is certain there, in the last row


def test_everything_at_once(rng):
    shape = (3, 31, 40)
    clip = speckle(rng, shape)
    valid = np.stack([holes(rng, shape[1:]) for _ in clip])
    planes = soft(rng, shape[1:])
    needles = np.stack([planes["needle"], 0 * planes["needle"], planes["needle"][::-1]])
    rows = np.linspace(1, 0.3, 31)
    reference = np.repeat(rows[:, None], 40, 1)
    ours = usconf.dag(
        clip, mask=valid, needle=needles, artifact=planes["artifact"], reference_map=reference,
        axes="thw", despeckle=None, dtype="float64",
    )  # fmt: skip
    for k, frame in enumerate(clip):
        expected = oracle.confidence(
            frame, mask=valid[k], needle=needles[k], artifact=planes["artifact"], reference=rows
        )
        assert gap(ours[k], expected) <= 1e-11


@pytest.mark.parametrize("despeckle", ["srad", "median"])
def test_despeckling_comes_first(rng, despeckle):
    image = speckle(rng, (48, 56))
    smooth = image.astype(float)
    if despeckle == "srad":
        smooth = smoothing.srad(image).image
    expected = oracle.confidence(smoothing.median(smooth))
    assert gap(usconf.dag(image, despeckle=despeckle, dtype="float64"), expected) <= 1e-7
    single = usconf.dag(image, despeckle=despeckle)
    assert gap(single, expected) <= 5e-4  # of float32 intensities beside the 1e-4 in D
    default = usconf.dag(image)
    assert (default == single).all() == (despeckle == "srad")


def test_roi_reaches_the_despeckling(rng):
    image = speckle(rng, (48, 56))
    smooth = smoothing.median(smoothing.srad(image, roi=(2, 20, 30, 50)).image)
    ours = usconf.dag(image, roi=(2, 20, 30, 50), dtype="float64")
    assert gap(ours, oracle.confidence(smooth)) <= 1e-7
    assert gap(ours, usconf.dag(image, dtype="float64")) > 1e-5


def test_published_despeckling_runs(rng):
    pytest.importorskip("SimpleITK")
    image = speckle(rng, (64, 66))
    ours = usconf.dag(image, variant="hung2021", despeckle="hung2021")
    assert ours.shape == image.shape and np.isfinite(ours).all() and (ours[0] == 1).all()
    other = usconf.dag(image, despeckle="hung2021", roi=(5, 40, 5, 40))
    assert other.max() <= 1 and gap(ours, other) > 1e-4
