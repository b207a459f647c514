"""Metrics of maps against their plain formulas and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from usconf.training import metrics


def plain_auroc(confidence, bad):
    """Every bad pixel beside every good one."""
    low, high = confidence[bad != 0][:, None], confidence[bad == 0][None, :]
    return np.mean((low < high) + 0.5 * (low == high))


@pytest.fixture(params=["no ties", "ties", "many ties", "uint8"])
def values(request, rng):
    found = rng.random((2, 23, 17))
    if request.param == "ties":
        return np.round(found, 2)
    if request.param == "many ties":
        return np.round(found * 3) / 3
    return (found * 20).astype(np.uint8) if request.param == "uint8" else found


def test_auroc_equals_all_pairs_and_mann_whitney(values, rng):
    bad = (rng.random(values[0].shape) < 0.3).astype(np.uint8)
    found = metrics.auroc(values[0], bad)
    assert found == pytest.approx(plain_auroc(values[0], bad), abs=1e-12)
    test = stats.mannwhitneyu(values[0][bad == 0], values[0][bad != 0])
    assert found == pytest.approx(test.statistic / (bad != 0).sum() / (bad == 0).sum(), abs=1e-12)


def test_auroc_turns_with_the_map_and_knows_no_scale(values, rng):
    bad = rng.random(values[0].shape) < 0.3
    map = values[0].astype(float)
    found = metrics.auroc(map, bad)
    assert metrics.auroc(-map, bad) == pytest.approx(1 - found, abs=1e-12)
    assert metrics.auroc(np.exp(map), bad) == pytest.approx(found, abs=1e-12)


def test_auroc_where(values, rng):
    bad, where = rng.random((2, *values[0].shape)) < 0.4
    found = metrics.auroc(values[0], bad, where)
    assert found == pytest.approx(plain_auroc(values[0][where], bad[where]), abs=1e-12)


def test_auroc_ends():
    assert metrics.auroc([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0]) == 1
    assert metrics.auroc([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]) == 0
    assert metrics.auroc([0.5, 0.5, 0.5], [0, 1, 1]) == 0.5
    assert np.isnan(metrics.auroc([0.1, 0.2], [0, 0]))
    assert np.isnan(metrics.auroc([0.1, 0.2], [1, 0], where=[1, 0]))


def test_auroc_of_a_million_does_not_overflow(rng):
    map, bad = rng.random(1_000_000, np.float32), np.arange(1_000_000) % 2
    assert metrics.auroc(map, bad) == pytest.approx(0.5, abs=0.002)
    assert metrics.auroc(map + bad, bad) == 0


def test_auroc_by_row(values, rng):
    map, bad = values[0].astype(float), rng.random(values[0].shape) < 0.3
    bad[3], bad[5] = True, False  # rows with one kind only
    rows = [plain_auroc(m, b) for m, b in zip(map, bad, strict=True) if b.any() and not b.all()]
    assert metrics.auroc_by_row(map, bad) == pytest.approx(np.mean(rows), abs=1e-12)
    falling = map - 10 * np.arange(len(map))[:, None]
    assert metrics.auroc_by_row(falling, bad) == pytest.approx(np.mean(rows), abs=1e-12)
    where = rng.random(map.shape) < 0.5
    rows = [plain_auroc(m[k], b[k]) for m, b, k in zip(map, bad, where, strict=True)
            if b[k].any() and not b[k].all()]  # fmt: skip
    assert metrics.auroc_by_row(map, bad, where) == pytest.approx(np.mean(rows), abs=1e-12)
    assert np.isnan(metrics.auroc_by_row(map, np.zeros_like(map)))


def test_spearman_equals_scipy(values, rng):
    other = np.round(values[1] + 0.5 * values[0], 1)
    expected = stats.spearmanr(values[0].ravel(), other.ravel()).statistic
    assert metrics.spearman(values[0], other) == pytest.approx(expected, abs=1e-12)
    where = rng.random(other.shape) < 0.5
    expected = stats.spearmanr(values[0][where], other[where]).statistic
    assert metrics.spearman(values[0], other, where) == pytest.approx(expected, abs=1e-12)


def test_spearman_ends():
    assert metrics.spearman([1, 2, 3], [2, 40, 41]) == pytest.approx(1)
    assert metrics.spearman([1, 2, 3], [0, -1, -5]) == pytest.approx(-1)
    assert np.isnan(metrics.spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(metrics.spearman([1], [1]))
    assert np.isnan(metrics.spearman([], []))


def test_violations(rng):
    map = rng.random((3, 9, 7))
    plain = [
        map[f, r + 1, c] > map[f, r, c] + 1e-6
        for f in range(3) for r in range(8) for c in range(7)
    ]  # fmt: skip
    assert metrics.monotonicity_violations(map) == pytest.approx(np.mean(plain), abs=1e-12)
    falling = np.cumprod(map, axis=1)
    assert metrics.monotonicity_violations(falling) == 0
    assert metrics.monotonicity_violations(falling[:, ::-1], tolerance=0) == 1
    rounded = falling.astype(np.float32) + np.float32(1) - np.float32(1)
    assert metrics.monotonicity_violations(rounded) == 0
    assert metrics.monotonicity_violations(map, tolerance=2) == 0
    assert metrics.monotonicity_violations(map[0, :1]) == 0


def test_roughness(rng):
    map = rng.random((9, 7))
    plain = np.mean([sum(abs(row[c + 1] - row[c]) for c in range(6)) for row in map])
    assert metrics.horizontal_roughness(map) == pytest.approx(plain, abs=1e-12)
    assert metrics.horizontal_roughness(np.repeat(map[:, :1], 7, axis=1)) == 0
    assert metrics.horizontal_roughness(map[:, :1]) == 0
    wide = [0.5 + 0.5 * np.cos(np.linspace(0, 4 * np.pi, n))[None] for n in (129, 257)]
    assert [metrics.horizontal_roughness(row) for row in wide] == pytest.approx([4, 4])


def test_roughness_of_bytes_does_not_wrap():
    assert metrics.horizontal_roughness(np.array([[200, 100, 200]], np.uint8)) == 200
    assert metrics.monotonicity_violations(np.array([[200], [100]], np.uint8)) == 0


def test_frame_change(rng):
    maps, where = rng.random((4, 6, 5)), rng.random((6, 5)) < 0.5
    plain = np.mean([np.abs(maps[t + 1] - maps[t]) for t in range(3)])
    assert metrics.frame_change(maps) == pytest.approx(plain, abs=1e-12)
    inside = np.mean([np.abs(maps[t + 1] - maps[t])[where] for t in range(3)])
    assert metrics.frame_change(maps, where) == pytest.approx(inside, abs=1e-12)
    contrast = np.mean([map.std() for map in maps])
    relative = metrics.frame_change(maps, relative=True)
    assert relative == pytest.approx(plain / contrast, abs=1e-12)
    assert metrics.frame_change(0.1 * maps, relative=True) == pytest.approx(relative)
    assert np.isnan(metrics.frame_change(maps[:1]))
    assert np.isnan(metrics.frame_change(np.ones((3, 2, 2)), relative=True))


def test_annotated_accuracy(rng):
    map, labels = rng.random((8, 9)), rng.integers(0, 3, (8, 9)).astype(np.uint8)
    plain = [
        (x > 0.5) if y == 1 else (x <= 0.5)
        for x, y in zip(map.ravel(), labels.ravel(), strict=True) if y
    ]  # fmt: skip
    assert metrics.annotated_accuracy(map, labels) == pytest.approx(np.mean(plain), abs=1e-12)
    assert metrics.annotated_accuracy(map, labels, threshold=-1) == np.mean(labels[labels > 0] == 1)
    assert np.isnan(metrics.annotated_accuracy(map, np.zeros_like(labels)))


def test_refuses(rng):
    map = rng.random((4, 3))
    with pytest.raises(ValueError, match=r"bad must be of confidence's shape \(4, 3\), got"):
        metrics.auroc(map, np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"where must be of confidence's shape"):
        metrics.auroc(map, np.ones((4, 3)), np.ones(3))
    with pytest.raises(ValueError, match=r"b must be of a's shape"):
        metrics.spearman(map, map[:2])
    with pytest.raises(ValueError, match=r"labels must be of map's shape"):
        metrics.annotated_accuracy(map, map[:2])
    with pytest.raises(ValueError, match=r"maps must be \(T, H, W\)"):
        metrics.frame_change(map)
    with pytest.raises(ValueError, match=r"where must be of shape \(4, 3\)"):
        metrics.frame_change(map[None], map[:2])
    map[1, 1] = np.nan
    with pytest.raises(ValueError, match=r"confidence must hold numbers, got 1 NaN"):
        metrics.auroc(map, np.eye(4, 3))
    assert np.isfinite(metrics.auroc(map, np.eye(4, 3), ~np.isnan(map)))
