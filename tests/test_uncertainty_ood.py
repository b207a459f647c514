"""Scores per image, AUROC and its interval; head circumference."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import uncertainty as reference

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from usconf.uncertainty import auroc, head_circumference, ood_score  # noqa: E402
from usconf.uncertainty.head_circumference import fit_ellipse, perimeter  # noqa: E402

scores = st.lists(st.integers(-3, 3) | st.floats(-5, 5), min_size=1, max_size=12)


def test_scores(rng):
    maps = torch.from_numpy(rng.random((3, 17, 14)))
    torch.testing.assert_close(ood_score(maps), maps.mean((1, 2)))
    for size in (1, 4, 10, 14):
        expected = [reference.largest_patch(image, size) for image in maps.numpy()]
        np.testing.assert_allclose(ood_score(maps, "patch", size), expected, rtol=1e-12)
    mask = torch.from_numpy(rng.random((3, 17, 14)) > 0.5)
    expected = [image[valid].mean() for image, valid in zip(maps, mask, strict=True)]
    np.testing.assert_allclose(ood_score(maps, mask=mask), expected, rtol=1e-12)
    np.testing.assert_allclose(
        ood_score(maps, "patch", 5, mask), ood_score(maps * mask, "patch", 5), rtol=1e-12
    )
    clip = torch.from_numpy(rng.random((2, 4, 12, 13)))
    expected = [max(reference.largest_patch(frame, 10) for frame in one) for one in clip.numpy()]
    np.testing.assert_allclose(ood_score(clip, "patch"), expected, rtol=1e-12)
    torch.testing.assert_close(ood_score(clip), clip.mean((1, 2, 3)))


@given(scores, scores)
def test_auroc_counts_pairs(inside, outside):
    found = auroc(inside, outside)
    assert found.value == pytest.approx(reference.area_under_curve(inside, outside), abs=1e-12)
    assert 0 <= found.low <= found.high <= 1
    assert auroc(outside, inside).value == pytest.approx(1 - found.value, abs=1e-12)


def test_auroc_equals_scikit_learn(rng):
    metrics = pytest.importorskip("sklearn.metrics")
    inside, outside = rng.standard_normal(60), rng.standard_normal(45) + 0.7
    truth = np.r_[np.zeros(60), np.ones(45)]
    expected = metrics.roc_auc_score(truth, np.r_[inside, outside])
    assert auroc(torch.from_numpy(inside), outside.tolist()).value == pytest.approx(expected)


def test_interval_covers(rng):
    """The true area of two normals 1 apart, in about 95 of 100 experiments."""
    truth = 0.5 * (1 + math.erf(1 / 2))
    hits, widths = 0, []
    for seed in range(100):
        found = auroc(rng.standard_normal(40), 1 + rng.standard_normal(40), seed=seed)
        hits += found.low <= truth <= found.high
        widths.append(found.high - found.low)
    assert 87 <= hits <= 100 and 0.15 < np.mean(widths) < 0.25
    one = auroc([1, 2, 3], [2, 3, 4], seed=1)
    assert one == auroc([1, 2, 3], [2, 3, 4], seed=1)
    narrow = auroc(range(50), range(20, 70), confidence=0.5)
    wide = auroc(range(50), range(20, 70), confidence=0.99)
    assert wide.low < narrow.low < narrow.value < narrow.high < wide.high
    assert auroc([1, 2], [3, 4]) == (1.0, 1.0, 1.0)


def ellipse_mask(shape, centre, axes, angle):
    """Pixels whose middles are inside; axes (major, minor) in pixels, angle as in Ellipse."""
    row, column = np.indices(shape).astype(float)
    y, x = row - centre[0], column - centre[1]
    along = x * np.cos(angle) + y * np.sin(angle)
    across = -x * np.sin(angle) + y * np.cos(angle)
    return (along / axes[0]) ** 2 + (across / axes[1]) ** 2 < 1


@pytest.mark.parametrize("angle", [0.0, 0.4, math.pi / 2, -1.2])
@pytest.mark.parametrize("axes", [(80.0, 60.0), (50.0, 20.0), (30.0, 29.9)])
def test_ellipses_are_found(axes, angle):
    mask = ellipse_mask((200, 220), (97.3, 112.6), axes, angle)
    found = head_circumference(mask, 0.25)
    expected = reference.ellipse_perimeter(*axes) * 0.25
    assert found.circumference_mm == pytest.approx(expected, rel=2e-3)
    np.testing.assert_allclose(found.ellipse.center_mm, (97.3 / 4, 112.6 / 4), atol=0.05)
    np.testing.assert_allclose(found.ellipse.semi_axes_mm, np.array(axes) / 4, atol=0.08)
    if axes[0] > 1.1 * axes[1]:
        turn = (found.ellipse.angle_rad - angle + math.pi / 2) % math.pi - math.pi / 2
        assert abs(turn) < 0.02 and -math.pi / 2 < found.ellipse.angle_rad <= math.pi / 2


def test_circumference_has_no_bias(rng):
    """Pixel centres as outline would be half a pixel short all round: 3 pixels of circumference."""
    errors = []
    for _ in range(40):
        major = rng.uniform(20, 40)
        minor, angle = major * rng.uniform(0.6, 1), rng.uniform(-1.5, 1.5)
        mask = ellipse_mask((100, 100), 50 + rng.random(2), (major, minor), angle)
        found = head_circumference(mask, 1.0).circumference_mm
        errors.append(found - reference.ellipse_perimeter(major, minor))
    assert abs(np.mean(errors)) < 0.05 and np.std(errors) < 0.2


def test_unequal_spacing_holes_islands_and_borders():
    mask = ellipse_mask((200, 220), (100, 110), (60, 40), 0.0)
    # Rows twice as far apart: 60 x 80 mm.
    found = head_circumference(mask, (2.0, 1.0))
    assert found.circumference_mm == pytest.approx(reference.ellipse_perimeter(80, 60), rel=2e-3)
    assert abs(found.ellipse.angle_rad) == pytest.approx(math.pi / 2, abs=0.02)
    whole = head_circumference(mask, 1.0)
    ring = mask & ~ellipse_mask((200, 220), (100, 110), (55, 35), 0.0)
    assert head_circumference(ring, 1.0) == whole
    island = mask.copy()
    island[2:12, 2:12] = True
    assert head_circumference(island, 1.0) == whole
    assert head_circumference(torch.from_numpy(mask), 1.0) == whole
    assert head_circumference(mask.astype(np.uint8) * 255, 1.0) == whole
    cut = head_circumference(mask[:, 75:], 1.0)  # a piece of the head is outside the picture
    assert cut.circumference_mm == pytest.approx(whole.circumference_mm, rel=2e-3)


def test_perimeter_and_points_of_an_ellipse():
    for ratio in (1.0, 0.7, 0.3):
        expected = reference.ellipse_perimeter(50.0, 50.0 * ratio)
        assert perimeter(50.0, 50.0 * ratio) == pytest.approx(expected, rel=1e-6)
    assert perimeter(50, 0.5) == pytest.approx(reference.ellipse_perimeter(50, 0.5), rel=5e-4)
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x, y = 7 * np.cos(t), 3 * np.sin(t)
    turn = 0.3
    found = fit_ellipse(
        1000 + x * np.sin(turn) + y * np.cos(turn), x * np.cos(turn) - y * np.sin(turn)
    )
    np.testing.assert_allclose(found.center_mm, (1000, 0), atol=1e-9)
    np.testing.assert_allclose(found.semi_axes_mm, (7, 3), rtol=1e-9)
    assert found.angle_rad == pytest.approx(turn, abs=1e-9)


def test_refuses(rng):
    maps = torch.rand(2, 8, 8)
    with pytest.raises(ValueError, match=r"^size must be at most the map's smaller side, got 10"):
        ood_score(maps, "patch")
    with pytest.raises(ValueError, match=r"^how must be one of .*, got 'max'"):
        ood_score(maps, "max")
    with pytest.raises(ValueError, match=r"^maps must be \(B, H, W\) or \(B, D, H, W\)"):
        ood_score(maps[0])
    with pytest.raises(TypeError, match=r"^maps must be a floating-point tensor, got torch.int64"):
        ood_score(maps.long())
    mask = torch.ones(2, 8, 8)
    mask[1] = 0
    with pytest.raises(
        ValueError, match=r"^mask must hold a pixel of every image, got none in image 1"
    ):
        ood_score(maps, mask=mask)
    with pytest.raises(ValueError, match=r"^scores_in must hold at least one score"):
        auroc([], [1.0])
    with pytest.raises(ValueError, match=r"^scores_out must be numbers, got 1 NaN"):
        auroc([1.0], [math.nan, 2.0])
    with pytest.raises(ValueError, match=r"^confidence must be between 0 and 1, got 95"):
        auroc([1.0], [2.0], confidence=95)
    disc = ellipse_mask((40, 40), (20, 20), (10, 10), 0)
    with pytest.raises(ValueError, match=r"^mask must hold a head, got an empty mask"):
        head_circumference(disc & False, 1.0)
    with pytest.raises(ValueError, match=r"^mask must be \(H, W\), got \(1, 40, 40\)"):
        head_circumference(disc[None], 1.0)
    for bad in (0.0, -1.0, math.nan, (1.0, 1.0, 1.0)):
        with pytest.raises(ValueError, match=r"^spacing_mm must be one or two"):
            head_circumference(disc, bad)
    for line in (np.eye(1, 40, dtype=bool), np.ones((1, 1), bool), np.ones((5, 5), bool)):
        with pytest.raises(ValueError, match=r"^mask must have an outline that an ellipse fits"):
            head_circumference(line, 1.0)
