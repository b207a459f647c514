"""Strokes: where the definition says, as many as a person draws, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label
from usconf.phantom import CATEGORIES, generate, strokes


@pytest.mark.parametrize("category", CATEGORIES)
def test_good_and_bad_lie_where_they_are_defined(category):
    for seed in range(3):
        phantom = generate((96, 96), seed=seed, category=category)
        labels = phantom.labels
        assert set(np.unique(labels)) <= {0, 1, 2}
        assert phantom.good[labels == 1].all()
        assert phantom.bad[labels == 2].all()
        assert not phantom.tissue[labels == 2].any()
        assert (phantom.transmission[labels == 1] > 0.4).all()


@pytest.mark.parametrize("shape", [(64, 64), (128, 128), (256, 200)])
def test_a_few_percent_are_labelled(shape):
    shares = [(generate(shape, seed=seed).labels > 0).mean() for seed in range(12)]
    assert np.mean([0.02 <= share <= 0.06 for share in shares]) > 0.9
    assert max(shares) <= 0.06


def test_both_are_drawn_where_both_are():
    balance = []
    for seed in range(12):
        phantom = generate((96, 96), seed=seed, category="bone")
        if min(phantom.good.mean(), phantom.bad.mean()) > 0.1:
            good, bad = (np.count_nonzero(phantom.labels == value) for value in (1, 2))
            balance.append(good / (good + bad))
    assert len(balance) > 4 and min(balance) > 0.2 and max(balance) < 0.8


def test_strokes_hang_together():
    """A few strokes and blobs, not pepper."""
    phantom = generate((128, 128), seed=3, category="bone")
    for value in (1, 2):
        _, count = label(phantom.labels == value, np.ones((3, 3)))
        assert 1 <= count < 30


def test_another_seed_draws_other_strokes_on_the_same_image():
    phantom = generate((64, 64), seed=3, category="bone")
    assert np.array_equal(strokes(phantom, 1), strokes(phantom, 1))
    assert not np.array_equal(strokes(phantom, 1), strokes(phantom, 2))
    assert np.array_equal(strokes(phantom, phantom.seed), phantom.labels)


def test_coverage_is_followed():
    phantom = generate((128, 128), seed=3, category="bone")
    for coverage in (0.01, 0.05, 0.2):
        share = (strokes(phantom, 0, coverage) > 0).mean()
        assert 0.6 * coverage <= share <= 1.05 * coverage


def test_clips_have_strokes_of_their_own_in_every_frame():
    labels = generate((64, 64), seed=3, category="bone", frames=3).labels
    assert all((frame > 0).any() for frame in labels)
    assert not np.array_equal(labels[0], labels[1])


@pytest.mark.parametrize("coverage", [0, -0.1, 0.6, float("nan")])
def test_coverage_is_checked(coverage):
    with pytest.raises(ValueError, match=r"coverage must be in \(0, 0.5\]"):
        strokes(generate((16, 16)), 0, coverage)
