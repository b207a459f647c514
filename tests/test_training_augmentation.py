"""Augmentation: one window for image, labels and mask; a function of (seed, step, place)."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from usconf.training.augmentation import changed, plain  # noqa: E402
from usconf.training.config import Augmentation  # noqa: E402

CPU = torch.device("cpu")
NOTHING = Augmentation(
    **{item.name: False if item.name == "flip" else 0.0 for item in fields(Augmentation)}
)
WINDOW = replace(NOTHING, flip=True, zoom=0.4, top_crop=0.2)


@pytest.fixture
def planes(rng):
    """Smooth pictures whose labels and masks can be read off the pixels."""
    rows, columns = np.mgrid[0:48, 0:40]
    image = np.stack([60 + 2 * rows + (k + 1) * columns // 4 for k in range(6)]).astype(np.uint8)
    label = (image > 150).astype(np.uint8) + (image > 180)
    return {"image": image, "label": label.astype(np.uint8), "mask": (image > 120).astype(np.uint8)}


def run(planes, settings, seed=1, step=3, places=None):
    places = np.arange(len(planes["image"])) if places is None else places
    return changed(planes, CPU, settings, seed, step, places)


def test_nothing_changes_nothing(planes):
    found, as_it_was = run(planes, NOTHING), plain(planes, CPU)
    torch.testing.assert_close(found.image, as_it_was.image, atol=1e-6, rtol=0)
    assert torch.equal(found.label, as_it_was.label)
    assert torch.equal(found.mask, as_it_was.mask)


def test_labels_and_mask_move_with_the_image(planes):
    found = run(planes, WINDOW)
    image = 255 * found.image
    assert found.image.dtype == torch.float32
    assert (found.label.dtype, found.mask.dtype) == (torch.uint8, torch.bool)
    assert not torch.equal(found.label, plain(planes, CPU).label)
    # A level step of the image is 2 to 3 a pixel, and the nearest pixel half of one away.
    for level, cut in ((150, 1), (180, 2)):
        clear = (image - level - 0.5).abs() > 6
        assert torch.equal((image > level + 0.5)[clear], (found.label >= cut)[clear])
    clear = (image - 120.5).abs() > 6
    assert torch.equal((image > 120.5)[clear], found.mask[clear])


def test_labels_are_copied_never_mixed(planes):
    only = {**planes, "label": np.where(planes["label"] == 1, 0, planes["label"])}
    assert set(run(only, Augmentation()).label.unique().tolist()) <= {0, 2}


def test_windows_flip_zoom_and_crop(planes):
    depth = {**planes, "image": np.broadcast_to(np.arange(48, dtype=np.uint8)[:, None] * 5,
                                                (64, 48, 40))}  # fmt: skip
    depth["label"] = np.zeros(depth["image"].shape, np.uint8)
    del depth["mask"]
    found = run(depth, WINDOW)
    assert found.mask is None
    first, last = found.image[:, 0, 0, 0] * 51, found.image[:, 0, -1, 0] * 51
    spans = (last - first) / 47
    # Down to 0.6 of the height, from the first row in half of them, never beyond.
    assert 0.58 < spans.min() < 0.7 and 0.93 < spans.max() <= 1
    assert 0.3 < (first < 0.01).float().mean() < 0.8
    assert first.max() < 0.2 * 48 + 1 and last.max() <= 47.01
    across = {**depth, "image": np.ascontiguousarray(depth["image"].transpose(0, 2, 1))}
    across["label"] = np.zeros(across["image"].shape, np.uint8)
    rising = run(across, WINDOW).image[:, 0, 5].diff(dim=-1).sum(dim=-1) > 0
    assert 0.3 < rising.float().mean() < 0.7


@pytest.mark.parametrize(
    "name", ["gamma", "gain", "depth_gain", "floor", "noise", "blur", "zoom", "top_crop", "flip"]
)
def test_each_setting_acts_by_itself_and_keeps_the_range(planes, name):
    value = True if name == "flip" else 0.5
    settings = replace(NOTHING, **{name: value})
    if name == "top_crop":
        settings = replace(settings, zoom=0.4)
    found = run(planes, settings)
    assert not torch.allclose(found.image, plain(planes, CPU).image, atol=1e-4)
    assert 0 <= found.image.min() and found.image.max() <= 1
    moves = name in ("zoom", "top_crop", "flip")
    assert torch.equal(found.label, plain(planes, CPU).label) != moves


def test_a_part_of_the_batch_is_changed_as_in_the_whole(planes):
    whole = run(planes, Augmentation())
    part = run({name: plane[2:5] for name, plane in planes.items()}, Augmentation(),
               places=np.arange(2, 5))  # fmt: skip
    torch.testing.assert_close(part.image, whole.image[2:5], atol=1e-6, rtol=0)
    assert torch.equal(part.label, whole.label[2:5])


def test_seed_and_step_change_it(planes):
    one = run(planes, Augmentation()).image
    assert torch.equal(one, run(planes, Augmentation()).image)
    assert not torch.equal(one, run(planes, Augmentation(), step=4).image)
    assert not torch.equal(one, run(planes, Augmentation(), seed=2).image)
