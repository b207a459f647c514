"""Data of `usconf recipe segment`: made patients, one's own folder, splits by patient."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytestmark = pytest.mark.torch
pytest.importorskip("torch")
pytest.importorskip("PIL")

from usconf import io  # noqa: E402
from usconf.recipes.segment.anatomy import CLASSES  # noqa: E402
from usconf.recipes.segment.cases import Case, Cases  # noqa: E402
from usconf.recipes.segment.confidence_maps import maps_of  # noqa: E402
from usconf.recipes.segment.folder_data import load  # noqa: E402
from usconf.recipes.segment.folds import divide  # noqa: E402
from usconf.recipes.segment.made_data import make  # noqa: E402
from usconf.recipes.segment.variability import label_entropy, near_borders  # noqa: E402


@pytest.fixture(scope="module")
def flat():
    return make(6, 3, (64, 64), labellings=12, seed=3)


def test_made_pictures_are_whole(flat):
    assert flat.classes == CLASSES and flat.dims == 2 and len(flat.cases) == 18
    assert flat.patients == [f"p{number:02d}" for number in range(6)]
    for case in flat.cases:
        assert case.image.shape == case.label.shape == case.reference.shape == (64, 64)
        assert case.image.dtype == case.label.dtype == np.uint8 and case.image.std() > 10
        assert case.labellings.shape == (12, 64, 64)
        assert np.array_equal(case.labellings[0], case.label)
        assert set(np.unique(case.reference)) == {0, 1, 2, 3}
        assert all(0.2 < size < 1.5 for size in case.spacing)


def test_same_seed_same_patients(flat):
    # Fewer of all: what is left is the same.
    again = make(2, 2, (64, 64), labellings=5, seed=3)
    named = {case.name: case for case in flat.cases}
    assert [case.name for case in again.cases] == ["p00-00", "p00-01", "p01-00", "p01-01"]
    for one in again.cases:
        other = named[one.name]
        assert np.array_equal(one.image, other.image)
        assert np.array_equal(one.labellings, other.labellings[:5])
    other = make(1, 1, (64, 64), labellings=1, seed=4)
    assert not np.array_equal(other.cases[0].image, flat.cases[0].image)


def test_experts_disagree_where_nothing_shows(flat):
    hidden, shown = [], []
    for case in flat.cases:
        entropy = label_entropy(case.labellings, 4)
        near = near_borders(case.reference)
        hidden.append(entropy[near & (case.seen < 0.2)])
        shown.append(entropy[near & (case.seen > 0.9)])
    hidden, shown = np.concatenate(hidden), np.concatenate(shown)
    assert len(hidden) > 200 and len(shown) > 2000
    assert hidden.mean() > 2 * shown.mean()


def test_experts_agree_with_the_truth_in_the_mean(flat):
    for case in flat.cases:
        votes = np.stack([(case.labellings == index).sum(axis=0) for index in range(4)])
        assert np.mean(votes.argmax(axis=0) == case.reference) > 0.85


def test_shadows_hide(flat):
    """Where the received power holds no echo the picture is dark: seen is not made up."""
    dark = [case.image[case.seen < 0.05].mean() for case in flat.cases if (case.seen < 0.05).any()]
    light = [case.image[case.seen > 0.9].mean() for case in flat.cases]
    assert len(dark) >= 3 and np.mean(dark) < 0.6 * np.mean(light)


def test_made_sweeps_are_smooth_along():
    cases = make(2, 1, (8, 48, 48), labellings=3, seed=0)
    assert cases.dims == 3 and len(cases.cases) == 2
    for case in cases.cases:
        assert case.image.shape == (8, 48, 48) and case.labellings.shape == (3, 8, 48, 48)
        assert len(case.spacing) == 3
        change = [np.mean(a != b) for a, b in zip(case.reference, case.reference[1:], strict=False)]
        assert 0 < np.mean(change) and np.max(change) < 0.15
        # Speckle is new in every frame.
        assert (case.image[0] != case.image[1]).mean() > 0.5


def test_shadows_of_sweeps_come_and_go():
    cases = make(12, 1, (6, 32, 32), labellings=1, seed=2)
    hidden = np.array([(case.seen < 0.5).mean(axis=(1, 2)) for case in cases.cases])
    lit = hidden[hidden.max(axis=1) > 0.05]
    assert len(lit) >= 5 and (np.ptp(lit, axis=1) > 0.02).sum() >= 4
    # Some begin, some end, some lie in the middle of a sweep.
    assert len(set(lit.argmax(axis=1))) >= 3


def test_maps_are_the_duque_preset_and_cached(flat, tmp_path):
    import usconf

    few = Cases(flat.cases[:2], flat.classes, flat.unit)
    maps = maps_of(few, 0.5, 100.0, tmp_path)
    assert maps.dtype == np.float32 and maps.shape == (2, 64, 64)
    assert np.array_equal(maps[0], usconf.random_walk(few.cases[0].image, preset="duque2023"))
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2
    assert np.array_equal(maps_of(few, 0.5, 100.0, tmp_path), maps)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files
    assert not np.array_equal(maps_of(few, 0.2, 400.0, tmp_path), maps)


def test_maps_of_volumes_are_those_of_their_frames(tmp_path):
    import usconf

    cases = make(1, 1, (3, 32, 32), labellings=1, seed=0)
    (volume,) = maps_of(cases, 0.2, 100.0, tmp_path)
    for frame, image in zip(volume, cases.cases[0].image, strict=True):
        alone = usconf.random_walk(image, alpha=0.2, beta=100.0, gamma=0.05)
        assert np.allclose(frame, alone, atol=1e-6)


def test_maps_of_a_folder_are_made_at_its_own_resolution(tmp_path, rng):
    import usconf

    image = rng.integers(30, 220, (64, 48), dtype=np.uint8)
    io.write(tmp_path / "a.png", image)
    io.write(tmp_path / "l.png", np.ones_like(image))
    write_folder(tmp_path, [("a.png", "l.png", "p")])
    cases = load(tmp_path, (32, 24))
    (found,) = maps_of(cases, 0.5, 100.0, tmp_path / "maps")
    full = usconf.random_walk(image, preset="duque2023")
    # Shrunk by two: about the mean of each 2 x 2 pixels.
    mean = full.reshape(32, 2, 24, 2).mean(axis=(1, 3))
    assert np.abs(found - mean).max() < 0.06
    coarse = usconf.random_walk(cases.cases[0].image, preset="duque2023")
    assert np.abs(coarse - mean).max() > 0.1
    assert cases.without_originals().cases[0].original is None


# splits


def blank(patient, split=None):
    nothing = np.zeros((8, 8), np.uint8)
    return Case("x", patient, nothing, nothing, nothing, nothing[None], (1.0, 1.0), split)


@given(
    st.lists(st.integers(1, 4), min_size=5, max_size=20),
    st.integers(2, 4),
    st.integers(1, 2),
    st.integers(0, 5),
)
def test_no_patient_on_two_sides(sizes, folds, validation, seed):
    cases = Cases(
        [blank(f"p{place}") for place, size in enumerate(sizes) for _ in range(size)], ("a",), ""
    )
    try:
        made = divide(cases, folds, validation, seed)
    except ValueError:
        # As documented: too few patients to train on any.
        assert len(sizes) - -(-len(sizes) // folds) <= validation
        return
    tested = [index for fold in made for index in fold.test]
    assert sorted(tested) == list(range(len(cases.cases)))
    for fold in made:
        sides = [{cases.cases[index].patient for index in part} for part in fold]
        assert all(sides) and len(sides[1]) == validation
        assert sum(map(len, sides)) == len(set.union(*sides)) == len(sizes)


def test_given_splits_are_kept():
    splits = ["test", "training", "validation", "training"]
    cases = Cases([blank(str(n), split) for n, split in enumerate(splits)], ("a",), "")
    (fold,) = divide(cases, 3, 2, 0)
    assert fold == ([1, 3], [2], [0])
    with pytest.raises(ValueError, match="the validation split must not be empty"):
        divide(Cases([blank("1", "test"), blank("2", "training")], ("a",), ""), 3, 2, 0)
    torn = [*cases.cases, blank("0", "training")]
    with pytest.raises(ValueError, match="a patient must lie in one split, got 0 in test"):
        divide(Cases(torn, ("a",), ""), 3, 2, 0)


def test_too_few_patients():
    cases = Cases([blank(str(number)) for number in range(3)], ("a",), "")
    with pytest.raises(ValueError, match="more patients for 3 folds and 2 to validate with, got 3"):
        divide(cases, 3, 2, 0)
    assert len(divide(cases, 3, 1, 0)) == 3


# one's own folder


def write_folder(root, rows, columns=("image", "label", "patient")):
    with open(root / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


@pytest.fixture
def picture(rng):
    """Image with a black frame around it, and a label of two organs inside."""
    image = np.zeros((50, 60), np.uint8)
    image[10:42, 8:56] = rng.integers(40, 200, (32, 48))
    label = np.zeros((50, 60), np.uint8)
    label[20:30, 20:40], label[32:38, 20:40] = 1, 2
    return image, label


def test_folder_of_pictures(tmp_path, picture):
    image, label = picture
    io.write(tmp_path / "a.png", image)
    io.write(tmp_path / "a_label.png", label)
    io.write(tmp_path / "b_label.png", np.roll(label, 1, axis=1))
    write_folder(
        tmp_path,
        [("a.png", "a_label.png; b_label.png", "one", "0.2 0.1")],
        ("image", "label", "patient", "spacing_mm"),
    )
    cases = load(tmp_path, (32, 48))
    (case,) = cases.cases
    # Cut to what is not black, which is as large as the shape: nothing was resampled.
    assert np.array_equal(case.image, image[10:42, 8:56])
    assert np.array_equal(case.label, label[10:42, 8:56])
    assert np.array_equal(case.reference, case.label)
    assert np.array_equal(case.labellings[1], np.roll(label, 1, axis=1)[10:42, 8:56])
    assert (case.name, case.patient, case.split, cases.unit) == ("a", "one", None, "mm")
    assert cases.classes == ("background", "class 1", "class 2")
    assert case.spacing == pytest.approx((0.2, 0.1))
    half = load(tmp_path, (16, 24), ("nerve", "vessel"))
    assert half.cases[0].spacing == pytest.approx((0.4, 0.2)) and half.classes[1] == "nerve"
    assert set(np.unique(half.cases[0].label)) == {0, 1, 2}
    assert np.count_nonzero(half.cases[0].label) == pytest.approx(320 / 4, rel=0.2)


def test_margins_with_a_label_stay(tmp_path, picture):
    image, label = picture
    label[4, 30] = 1
    io.write(tmp_path / "a.png", image)
    io.write(tmp_path / "l.png", label)
    write_folder(tmp_path, [("a.png", "l.png", "p")])
    (case,) = load(tmp_path, (38, 48)).cases
    assert np.array_equal(case.image, image[4:42, 8:56])
    assert case.label[0, 22] == 1


def test_palette_labels_are_indices(tmp_path, picture):
    from PIL import Image

    image, label = picture
    io.write(tmp_path / "a.png", image)
    coloured = Image.fromarray(label, mode=None).convert("P")
    coloured.putdata(label.ravel().tolist())
    coloured.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    coloured.save(tmp_path / "label.png")
    write_folder(tmp_path, [("a.png", "label.png", "p")])
    cases = load(tmp_path, (32, 48))
    assert np.array_equal(cases.cases[0].label, label[10:42, 8:56])
    assert cases.unit == "pixels" and cases.cases[0].spacing == (1.0, 1.0)


def test_folder_of_volumes(tmp_path, rng):
    nibabel = pytest.importorskip("nibabel")
    frames = rng.integers(20, 220, (6, 16, 24), dtype=np.uint8)
    label = np.zeros((6, 16, 24), np.uint8)
    label[2:4, 4:12, 6:18] = 1
    for name, values in (("v", frames), ("l", label)):
        image = nibabel.Nifti1Image(values.T, np.diag([0.5, 0.25, 2.0, 1.0]))
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
    write_folder(tmp_path, [("v.nii.gz", "l.nii.gz", "p")])
    cases = load(tmp_path, (3, 16, 24))
    (case,) = cases.cases
    assert case.image.shape == (3, 16, 24) and cases.dims == 3
    assert case.spacing == pytest.approx((4.0, 0.25, 0.5)) and cases.unit == "mm"
    assert case.label[1, 8, 12] == 1 and not case.label[0].any() and not case.label[2].any()
    whole = load(tmp_path, (6, 16, 24)).cases[0]
    assert np.array_equal(whole.image, frames) and np.array_equal(whole.label, label)


def test_folder_refuses(tmp_path, picture):
    image, label = picture
    io.write(tmp_path / "a.png", image)
    io.write(tmp_path / "l.png", label)
    io.write(tmp_path / "small.png", label[:20])
    io.write(tmp_path / "loud.png", label * 100)
    io.write(tmp_path / "empty.png", 0 * label)
    np.save(tmp_path / "clip.npy", np.stack([image, image]))
    np.save(tmp_path / "nan.npy", np.where(image > 0, np.nan, 1.0))
    many = ("image", "label", "patient", "split")
    spaced = ("image", "label", "patient", "spacing_mm")
    wrong = [
        ([], ("image", "mask", "patient"), "must have the columns image, label, patient"),
        ([], ("image", "label", "patient"), "must list at least one picture"),
        ([("a.png", "", "p")], many[:3], "line 2: label must not be empty"),
        ([("a.png", "l.png", "p", "train")], many, "split must be one of training"),
        ([("a.png", "l.png", "p", "test"), ("a.png", "l.png", "q", "")], many, "on every line"),
        ([("a.png", "l.png", "p", "0.1")], spaced, "spacing_mm must be 2 or 3 positive numbers"),
        ([("a.png", "l.png", "p", "1 1 1")], spaced, "must hold 2 numbers for the shape, got 3"),
        ([("a.png", "small.png", "p")], many[:3], "small.png must be of the size of .*a.png"),
        ([("a.png", "loud.png", "p")], many[:3], "must hold class indices .* got 100"),
        ([("a.png", "empty.png", "p")], many[:3], "some class above 0"),
        ([("clip.npy", "l.png", "p")], many[:3], "must hold one frame .* got 2"),
        ([("nan.npy", "l.png", "p")], many[:3], "must hold finite pixels"),
    ]
    for rows, columns, message in wrong:
        write_folder(tmp_path, rows, columns)
        with pytest.raises(ValueError, match=message):
            load(tmp_path, (32, 48))
    write_folder(tmp_path, [("a.png", "l.png", "p")])
    with pytest.raises(ValueError, match="must hold 0 to 1 for the organs nerve, got 2"):
        load(tmp_path, (32, 48), ("nerve",))
    write_folder(tmp_path, [("gone.png", "l.png", "p")])
    with pytest.raises(OSError):
        load(tmp_path, (32, 48))
