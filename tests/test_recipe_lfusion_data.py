"""Made heads, their deformation and motion; the folder of HC18, and what it must hold."""

from __future__ import annotations

import csv
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("torch")
Image = pytest.importorskip("PIL.Image")
from usconf.recipes.lfusion import data, hc18, made_data, segmentation  # noqa: E402
from usconf.uncertainty import head_circumference  # noqa: E402

pytestmark = pytest.mark.torch


def frames(count=6, **values):
    return made_data.made_frames(count, **{"size": 64, "seed": 3} | values)


# made heads


def test_made_heads_are_what_they_say():
    """The mask's ellipse has the stated circumference, and trimesters go round."""
    made = frames(10, size=128)
    assert made.images.shape == made.masks.shape == (10, 128, 128)
    assert made.images.dtype == made.masks.dtype == np.uint8
    for mask, spacing, truth in zip(
        made.masks, made.spacing_mm, made.circumference_mm, strict=True
    ):
        measured = head_circumference(mask, tuple(spacing)).circumference_mm
        assert measured == pytest.approx(truth, abs=1.5 * spacing[0])
    groups = data.trimester(made.circumference_mm).tolist()
    assert groups == [1, 2, 3, 2, 3, 1, 2, 3, 2, 3]


def test_made_heads_repeat_and_differ():
    one, again, other = frames(), frames(), frames(seed=4)
    assert np.array_equal(one.images, again.images)
    assert not np.array_equal(one.images, other.images)
    # The first frames are the same however many follow.
    assert np.array_equal(one.images[:2], frames(2).images)


def test_heads_look_like_ultrasound():
    """Brain is darker than the tissue around, the skull above it brighter than both."""
    made = frames(20)
    inside, outside = made.images[made.masks > 0].mean(), made.images[made.masks == 0].mean()
    tops = []
    for image, mask in zip(made.images, made.masks, strict=True):
        column = int(np.median(np.nonzero(mask)[1]))
        tops.append(image[int(np.nonzero(mask[:, column])[0][0]), column])
    assert inside + 30 < outside < np.mean(tops)


@pytest.mark.parametrize(("count", "size"), [(0, 64), (2, 23)])
def test_made_heads_refuse(count, size):
    with pytest.raises(ValueError, match=r"(count must be at least 1|size must be at least 24)"):
        made_data.made_frames(count, size=size, seed=0)


@pytest.mark.parametrize("deformation", ["pixels", "anatomy"])
def test_splits_share_no_picture(deformation):
    made = made_data.made_data(
        train=3,
        validation=2,
        test=4,
        ood=5,
        size=48,
        seed=1,
        elastic=0.4,
        deformation=deformation,
    )
    parts = (made.train, made.validation, made.test, made.ood)
    assert [len(part) for part in parts] == [3, 2, 4, 5]
    pictures = [image.tobytes() for part in parts for image in part.images]
    assert len(set(pictures)) == len(pictures)
    assert np.isfinite(made.test.circumference_mm).all()
    assert np.isnan(made.ood.circumference_mm).all()


# deformation, motion, age


def roundness(masks):
    """How far outlines are from ellipses: the worst residual of the fit, over the size."""
    worst = []
    for mask in masks:
        ellipse = head_circumference(mask, 1.0).ellipse
        y, x = np.indices(mask.shape)
        y, x = y - ellipse.center_mm[0], x - ellipse.center_mm[1]
        cos, sin = np.cos(ellipse.angle_rad), np.sin(ellipse.angle_rad)
        major, minor = ellipse.semi_axes_mm
        fitted = np.hypot((cos * x + sin * y) / major, (cos * y - sin * x) / minor) < 1
        worst.append((fitted != (mask > 0)).sum() / mask.sum())
    return np.array(worst)


def test_deformation_moves_the_skull_and_nothing_far_away():
    made = frames(8, size=96)
    moved = data.deformed(made, 0.35, seed=5)
    assert (roundness(moved.masks) > 2 * roundness(made.masks)).mean() > 0.7
    assert np.array_equal(data.deformed(made, 0.35, seed=5).images, moved.images)
    for image, changed, mask in zip(made.images, moved.images, made.masks, strict=True):
        from scipy import ndimage

        far = (
            ndimage.distance_transform_edt(mask == 0)
            > 1.05 * ndimage.distance_transform_edt(np.pad(mask, 1)).max()
        )
        assert np.array_equal(image[far], changed[far])


def test_anatomy_is_deformed_before_speckle():
    """Speckle keeps its correlation; a warp of pixels blurs it."""
    made = frames(12)
    warped = data.deformed(made, 0.35, seed=0)
    imaged = frames(12, elastic=0.35)
    assert (roundness(imaged.masks) > 0.03).mean() > 0.7

    def roughness(these):
        steps = np.abs(np.diff(these.images.astype(float), axis=2))
        return steps[these.masks[:, :, 1:] > 0].mean()

    assert roughness(imaged) == pytest.approx(roughness(made), rel=0.1)
    assert roughness(warped) < 0.85 * roughness(made)
    # The control is blurred as well.
    assert roughness(data.resampled(made, 0)) < 0.85 * roughness(made)


def test_elastic_field_is_smooth():
    field = data.elastic_field((60, 60), np.random.default_rng(0), 4.0, 20.0)
    assert np.hypot(*field).max() == pytest.approx(4.0)
    assert np.abs(np.diff(field, axis=1)).max() < 1.5


def test_clips_move_smoothly():
    made = frames(3)
    moving = data.clips(made, 16, seed=0)
    assert moving.images.shape == moving.masks.shape == (3, 16, 64, 64)
    assert moving.names == made.names
    for clip in moving.masks:
        steps = [overlap(one, other) for one, other in pairwise(clip)]
        assert min(steps) > 0.85
        assert overlap(clip[0], clip[-1]) < min(steps)
    with pytest.raises(ValueError, match="length must be at least 2, got 1"):
        data.clips(made, 1, seed=0)


def overlap(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_gestational_age_is_hadlocks():
    """Hadlock 1984, table: 175 mm is 20.0 weeks, 300 mm 33.3 (rounded there to days)."""
    assert data.gestational_weeks([175, 300]) == pytest.approx([20.0, 33.3], abs=0.15)
    assert data.trimester([80, 95, 250, 262, np.nan]).tolist() == [1, 2, 2, 3, 0]


# HC18


def ellipse(shape, center, axes, angle):
    y, x = np.indices(shape)
    y, x = y - center[0], x - center[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return np.hypot((cos * x + sin * y) / axes[0], (cos * y - sin * x) / axes[1])


SHAPE = (54, 80)
RADIUS = ellipse(SHAPE, (26, 41), (26, 19), 0.4)


@pytest.fixture
def folder(tmp_path):
    """HC18 in small: five fetuses, one of them seen twice; outlines and a filled mask."""
    inside = tmp_path / "training_set"
    inside.mkdir()
    rng = np.random.default_rng(0)
    names = ["000_HC", "001_HC", "002_HC", "002_2HC", "003_HC", "004_HC"]
    for number, name in enumerate(names):
        image = rng.integers(0, 255, SHAPE, dtype=np.uint8)
        drawn = RADIUS < 1 if number == 1 else np.abs(RADIUS - 1) < 0.05
        Image.fromarray(image).save(inside / f"{name}.png")
        Image.fromarray((255 * drawn).astype(np.uint8)).save(inside / f"{name}_Annotation.png")
    with open(tmp_path / "training_set_pixel_size_and_HC.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "pixel size(mm)", "head circumference (mm)"])
        rows.writerows([f"{name}.png", 1.5, 210 + number] for number, name in enumerate(names))
    return tmp_path


def test_hc18_is_read(folder):
    for place in (folder, folder / "training_set"):
        read, fetuses = hc18.read_hc18(place, 48)
        assert read.images.shape == read.masks.shape == (6, 48, 48)
        assert fetuses == ("000", "001", "002", "002", "003", "004")
        # Rows and columns shrink differently.
        assert read.spacing_mm[0] == pytest.approx([1.5 * 54 / 48, 1.5 * 80 / 48])
        assert dict(zip(read.names, read.circumference_mm, strict=True)) == {
            "000_HC.png": 210,
            "001_HC.png": 211,
            "002_2HC.png": 213,
            "002_HC.png": 212,
            "003_HC.png": 214,
            "004_HC.png": 215,
        }
        # An outline becomes the ellipse through the middle of its line: as the filled mask.
        assert overlap(read.masks[0], read.masks[1]) > 0.98


def test_hc18_splits_by_fetus(folder):
    split = hc18.hc18_data(folder, 48, (0.2, 0.4), 0.35, seed=1)
    fetuses = [
        {name[:3] for name in part.names} for part in (split.train, split.validation, split.test)
    ]
    assert [len(group) for group in fetuses] == [2, 1, 2]
    assert not (fetuses[0] & fetuses[1] or fetuses[0] & fetuses[2] or fetuses[1] & fetuses[2])
    assert split.ood.names == tuple(f"{name} deformed" for name in split.test.names)
    assert not np.array_equal(split.ood.masks, split.test.masks)


def test_an_outline_that_the_border_cuts_is_an_ellipse():
    radius = ellipse((60, 80), (30, 70), (30, 22), 0.2)
    assert overlap(hc18.filled(np.abs(radius - 1) < 0.05), (radius < 1).astype(np.uint8)) > 0.98


def test_a_filled_mask_stays_as_it_is():
    mask = (RADIUS < 1).astype(np.uint8)
    assert np.array_equal(hc18.filled(255 * mask), mask)
    mask[20:24, 40:44] = 0  # holes are filled
    assert np.array_equal(hc18.filled(mask), RADIUS < 1)


def remove(folder, name):
    next(folder.rglob(name)).unlink()


def rewrite(folder, before, after):
    path = next(folder.rglob("*.csv"))
    path.write_text(path.read_text().replace(before, after))


def grow(folder):
    Image.new("L", (10, 10), 255).save(folder / "training_set" / "003_HC_Annotation.png")


def blank(folder):
    Image.new("L", SHAPE[::-1]).save(folder / "training_set" / "003_HC_Annotation.png")


def spoil(folder):
    (folder / "training_set" / "003_HC.png").write_bytes(b"no picture")


def three_lines(folder):
    drawn = np.zeros(SHAPE, np.uint8)
    drawn[5, :] = drawn[50, :] = 255
    drawn[5:50, 3] = 255
    Image.fromarray(drawn).save(folder / "training_set" / "003_HC_Annotation.png")


BROKEN = {
    "annotation": (
        lambda folder: remove(folder, "001_HC_Annotation.png"),
        FileNotFoundError,
        r"001_HC\.png must have an annotation, got no 001_HC_Annotation\.png",
    ),
    "table": (
        lambda folder: remove(folder, "*.csv"),
        FileNotFoundError,
        "training_set must have a CSV file",
    ),
    "column": (
        lambda folder: rewrite(folder, "pixel size(mm)", "size"),
        ValueError,
        "must have the columns filename, pixel size",
    ),
    "row": (
        lambda folder: rewrite(folder, "003_HC.png", "903_HC.png"),
        ValueError,
        r"must have a row for 003_HC\.png",
    ),
    "number": (
        lambda folder: rewrite(folder, ",1.5,213", ",,213"),
        ValueError,
        r"must be a positive number, got '' in the row of 002_2HC\.png",
    ),
    "size": (grow, ValueError, r"003_HC_Annotation\.png must be as large as its picture"),
    "blank": (blank, ValueError, r"003_HC_Annotation\.png must show a head, got 0 drawn"),
    "picture": (spoil, ValueError, r"003_HC\.png must be a picture"),
    "shape": (three_lines, ValueError, r"003_HC_Annotation\.png must show the outline of an ell"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_hc18_refuses(folder, name):
    change, kind, message = BROKEN[name]
    change(folder)
    with pytest.raises(kind, match=message):
        hc18.read_hc18(folder, 48)


def test_hc18_refuses_folders(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="data must be a folder"):
        hc18.read_hc18(tmp_path / "nowhere", 48)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"must hold pictures named NNN_HC\.png, got none"):
        hc18.read_hc18(tmp_path / "empty", 48)
    for name in ("000_HC", "001_HC", "003_HC"):
        remove(folder, f"{name}.png")
        remove(folder, f"{name}_Annotation.png")
    with pytest.raises(ValueError, match="pictures of at least 3 fetuses, got 2"):
        hc18.hc18_data(folder, 48, (0.1, 0.2), 0.3, seed=0)


# judging


@pytest.mark.monai
@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_distances_and_overlap_are_monais():
    metrics = pytest.importorskip("monai.metrics")
    import torch

    one, other = RADIUS < 1, ellipse(SHAPE, (24, 37), (24, 20), 0.1) < 1
    spacing = np.array([0.7, 1.3])
    pair = [torch.from_numpy(part[None, None]).float() for part in (one, other)]
    distance = metrics.compute_hausdorff_distance(
        *pair, include_background=True, spacing=spacing.tolist()
    )
    assert segmentation.hausdorff(one, other, spacing) == pytest.approx(float(distance), abs=1e-5)
    assert segmentation.overlap(one, other) == pytest.approx(
        float(metrics.compute_dice(*pair)), abs=1e-6
    )


def test_silence_is_not_rewarded():
    empty, spacing = np.zeros(SHAPE), np.array([0.5, 2.0])
    judged = segmentation.judge(empty, RADIUS < 1, spacing, 123.0)
    assert judged == {
        "DSC [%]": 0.0,
        "HD [mm]": pytest.approx(np.hypot(54 * 0.5, 80 * 2.0)),
        "AD [mm]": 123.0,
        "missed": 1.0,
    }
    perfect = segmentation.judge(RADIUS < 1, RADIUS < 1, spacing, 123.0)
    assert perfect["DSC [%]"] == 100 and perfect["HD [mm]"] == 0 and perfect["missed"] == 0
    measured = head_circumference(RADIUS < 1, (0.5, 2.0)).circumference_mm
    assert perfect["AD [mm]"] == pytest.approx(abs(measured - 123.0))


def test_table_of_percentiles():
    judged = {
        "DSC [%]": [90.0, 80.0, 70.0, 60.0, 50.0],
        "HD [mm]": [1.0, 2.0, 3.0, 4.0, 5.0],
        "AD [mm]": [0.0, 0.0, 10.0, 0.0, 0.0],
        "missed": [0.0, 0.0, 1.0, 0.0, 0.0],
    }
    (row,) = segmentation.table({"X": judged}, np.array([70, 180, 300, 180, 80]))
    assert row["DSC [%] mean"] == "70.0 ± 14.1"
    assert (row["DSC [%] 25 %"], row["HD [mm] 75 %"]) == (60.0, 4.0)
    assert row["HD [mm] 1st trimester"] == "3.0 ± 2.0"
    assert row["missed"] == 1
    (row,) = segmentation.table({"X": judged}, np.full(5, 200.0))
    assert row["HD [mm] 1st trimester"] is None
