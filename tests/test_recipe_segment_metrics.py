"""Figures of `usconf recipe segment`: metrics, statistics, variability, against plain NumPy."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import ndimage, stats
from usconf.recipes.segment import figures, statistics, variability
from usconf.recipes.segment.metrics import METRICS, score, undefined

pytestmark = [pytest.mark.torch, pytest.mark.monai]


@pytest.fixture
def pair(rng):
    """Two labellings of three classes that differ here and there."""
    smooth = ndimage.gaussian_filter(rng.standard_normal((2, 20, 24)), (0, 3, 3))
    smooth[1] = 0.7 * smooth[0] + 0.3 * smooth[1]
    return tuple(np.digitize(part, [-0.05, 0.05]).astype(np.uint8) for part in smooth)


def counts(predicted, reference, organ):
    found, there = predicted == organ, reference == organ
    return [
        np.count_nonzero(part)
        for part in (found & there, found & ~there, ~found & there, ~found & ~there)
    ]


def surface(mask):
    """Pixels of a mask with a neighbour (by sides) outside of it; beyond the picture is outside."""
    return mask & ~ndimage.binary_erosion(mask)


def distances(predicted, reference, organ, spacing):
    one, other = (np.argwhere(surface(m == organ)) * spacing for m in (predicted, reference))
    table = np.linalg.norm(one[:, None] - other[None], axis=-1)
    nearest = np.concatenate([table.min(axis=1), table.min(axis=0)])
    return nearest.mean(), nearest.max()


def test_metrics_equal_their_definitions(pair):
    spacing = (0.5, 0.25)
    scores = score(*pair, classes=3, spacing=spacing)
    assert list(scores) == list(METRICS)
    for place, organ in enumerate((1, 2)):
        tp, fp, fn, tn = counts(*pair, organ)
        expected = {
            "DSC": 2 * tp / (2 * tp + fp + fn),
            "mIoU": tp / (tp + fp + fn),
            "precision": tp / (tp + fp),
            "recall": tp / (tp + fn),
            "miss rate": fn / (tp + fn),
            "fall-out": fp / (fp + tn),
        }
        for name, value in expected.items():
            assert scores[name][place] == pytest.approx(value, abs=1e-6), name
        average, furthest = distances(*pair, organ, spacing)
        assert scores["HD"][place] == pytest.approx(furthest, rel=1e-5)
        assert scores["ASD"][place] == pytest.approx(average, rel=1e-5)


def test_perfect_prediction(pair):
    scores = score(pair[0], pair[0], classes=3, spacing=(1, 1))
    assert scores["DSC"] == scores["mIoU"] == scores["recall"] == [1, 1]
    assert scores["HD"] == scores["ASD"] == scores["miss rate"] == [0, 0]
    assert undefined(pair[0], pair[0], 3) == 0


def test_what_is_not_there_is_not_a_number():
    empty, some = np.zeros((2, 12, 12), np.uint8)
    some[3:7, 3:7] = 1
    missed = score(empty, some, classes=3, spacing=(1, 1))
    assert missed["DSC"][0] == 0 and missed["miss rate"][0] == 1 and missed["islands"] == [0, 0]
    for name in ("HD", "ASD", "precision"):
        assert math.isnan(missed[name][0]), name
    # Class 2 is nowhere and was found nowhere.
    assert math.isnan(missed["DSC"][1]) and missed["fall-out"] == [0, 0]
    assert undefined(empty, some, 3) == 1
    wrong = score(some, empty, classes=2, spacing=(1, 1))
    assert math.isnan(wrong["DSC"][0]) and math.isnan(wrong["HD"][0])
    assert undefined(some, empty, 2) == 1


def test_percentile_forgives_an_outlier():
    reference = np.zeros((40, 40), np.uint8)
    reference[5:20, 5:20] = 1
    predicted = reference.copy()
    predicted[38, 38] = 1
    far, near = (score(predicted, reference, 2, (1, 1), p)["HD"][0] for p in (None, 95))
    assert far == pytest.approx(19 * math.sqrt(2), rel=1e-5) and near < 1
    assert score(predicted, reference, 2, (1, 1))["islands"] == [2]


def test_islands_touch_by_corners_and_in_3d():
    diagonal = np.eye(6, dtype=np.uint8)
    assert score(diagonal, diagonal, 2, (1, 1))["islands"] == [1]
    apart = np.zeros((6, 6, 6), np.uint8)
    apart[0], apart[2], apart[3] = diagonal, diagonal, diagonal
    assert score(apart, apart, 2, (1, 1, 1))["islands"] == [2]


def records(*values):
    """(patient, DSC per organ) as the records of tasks."""
    return [
        {"patient": patient, "scores": {metric: list(dsc) for metric in METRICS}}
        for patient, dsc in values
    ]


def test_averages_go_over_organs_then_patients():
    told = records(("b", [0.2, 0.4]), ("b", [0.6, None]), ("a", [1.0, 0.8]), ("c", [None, None]))
    means = figures.by_patient(told, "DSC")
    assert list(means) == ["a", "b", "c"]
    assert [means["a"], means["b"]] == pytest.approx([0.9, (0.3 + 0.6) / 2])
    assert math.isnan(means["c"])
    value = figures.summary(told)["DSC"]
    assert value["mean"] == pytest.approx(0.675) and value["undefined"] == 3 and value["of"] == 8
    assert value["sd"] == pytest.approx(np.std([0.9, 0.45], ddof=1))
    assert figures.by_organ(told, "DSC", 1) == pytest.approx((0.8 + 0.4) / 2)


def test_statistics_are_those_of_scipy(rng):
    posthocs = pytest.importorskip("scikit_posthocs")
    base = rng.random(10)
    scores = {"a": base, "b": base + rng.normal(0.1, 0.1, 10), "c": rng.random(10)}
    tests = statistics.compare(scores, {"b": "a", "c": "a"}, higher_is_better=True)
    expected = stats.friedmanchisquare(*scores.values())
    assert (tests.chi2, tests.p) == pytest.approx((expected.statistic, expected.pvalue))
    order = [sorted(row, reverse=True).index(row[0]) + 1 for row in zip(*scores.values())]  # noqa: B905
    assert tests.ranks[0] == pytest.approx(np.mean(order))
    nemenyi = posthocs.posthoc_nemenyi_friedman(np.array(list(scores.values())).T)
    assert np.allclose(tests.nemenyi, nemenyi)
    raw = [stats.wilcoxon(scores[name], scores["a"]).pvalue for name in "bc"]
    assert [one.p for one in tests.comparisons] == pytest.approx(raw)
    assert [one.difference for one in tests.comparisons] == pytest.approx(
        [np.mean(scores[name] - scores["a"]) for name in "bc"]
    )
    falling = statistics.compare(scores, {}, higher_is_better=False)
    assert np.allclose(np.add(tests.ranks, falling.ranks), 4)


def test_statistics_leave_incomplete_blocks_out(rng):
    pytest.importorskip("scikit_posthocs")
    scores = {name: rng.random(8) for name in "abc"}
    holes = {**scores, "b": np.where(np.arange(8) < 2, np.nan, scores["b"])}
    tests = statistics.compare(holes, {"b": "a", "c": "a"}, higher_is_better=True)
    assert (tests.blocks, tests.dropped) == (6, 2)
    cut = statistics.compare({n: v[2:] for n, v in scores.items()}, {"b": "a"}, True)
    assert tests.chi2 == cut.chi2 and tests.comparisons[0].p == cut.comparisons[0].p
    # A pair needs its own two only.
    assert [one.blocks for one in tests.comparisons] == [6, 8]


def test_statistics_of_ties_and_of_nothing():
    pytest.importorskip("scikit_posthocs")
    same = {name: [0.5, 0.6, 0.7] for name in "abc"}
    tests = statistics.compare(same, {"b": "a"}, True)
    assert (tests.chi2, tests.p, tests.comparisons[0].p) == (0.0, 1.0, 1.0)
    assert tests.ranks == (2.0, 2.0, 2.0)
    lost = {name: [math.nan] * 3 for name in "abc"}
    tests = statistics.compare(lost, {"b": "a"}, True)
    assert tests.blocks == 0 and math.isnan(tests.p) and math.isnan(tests.comparisons[0].p_holm)
    with pytest.raises(ValueError, match="scores must have the same blocks"):
        statistics.compare({"a": [1.0], "b": [1.0, 2.0]}, {}, True)


def test_holm_by_hand():
    # 0.01 * 4, 0.02 * 3, then 0.03 * 2 = 0.06, then 0.04 lifted to what came before.
    assert statistics.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    corrected = statistics.holm([0.02, math.nan, 0.03])
    assert corrected[::2] == pytest.approx([0.04, 0.04]) and math.isnan(corrected[1])
    assert statistics.holm([]) == []


def test_label_entropy_is_that_of_the_frequency(rng):
    labellings = rng.integers(0, 3, (7, 5, 6))
    found = variability.label_entropy(labellings, 3)
    for row, column in itertools.product(range(5), range(6)):
        share = np.bincount(labellings[:, row, column], minlength=3) / 7
        assert found[row, column] == pytest.approx(stats.entropy(share), abs=1e-6)
    assert not variability.label_entropy(labellings[:1], 3).any()


def test_correlations_by_depth(rng):
    rows = np.repeat(np.arange(40.0)[:, None], 30, axis=1)
    noise = rng.random((40, 30))
    maps = {"falling": -rows, "depth": rows, "noise": noise, "flat": np.zeros((40, 30))}
    found = variability.correlations(maps, np.ones((40, 30), bool))
    assert found["falling | depth"]["all"] == pytest.approx(-1)
    assert found["falling | depth"]["bands"] == pytest.approx([-1] * 4)
    assert abs(found["depth | noise"]["all"]) < 0.1
    assert found["noise | flat"] == {"all": None, "bands": [None] * 4}
    expected = stats.spearmanr(noise[10:20].ravel(), rows[10:20].ravel()).statistic
    assert found["depth | noise"]["bands"][1] == pytest.approx(expected)
    top = rows < 10
    assert variability.correlations(maps, top)["falling | depth"]["bands"][1:] == [None] * 3


def test_near_borders_is_a_band_around_them():
    label = np.zeros((40, 40), np.uint8)
    label[20:] = 1
    near = variability.near_borders(label)
    assert near.all(axis=1).tolist() == [15 <= row <= 23 for row in range(40)]
    assert not (near.any(axis=1) & ~near.all(axis=1)).any()
    volume = np.stack([np.zeros_like(label), label])
    # Borders are those within a frame, and so is what is near them.
    assert not variability.near_borders(volume)[0].any()
    assert np.array_equal(variability.near_borders(volume)[1], near)


def test_depth_profile_leaves_other_pixels_out():
    values = np.arange(12.0).reshape(3, 4)
    where = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    assert variability.depth_profile(values, where) == [0.5, None, 9.5]
    volume = np.stack([values, values + 2])
    assert variability.depth_profile(volume, np.stack([where] * 2)) == [1.5, None, 10.5]


def test_dropout_entropy_of_known_probabilities():
    import torch

    class Coin(torch.nn.Module):
        """Class 1 where the first channel is dropped, else class 0: p = 1/2 each."""

        def __init__(self):
            super().__init__()
            self.drop = torch.nn.Dropout(0.5)

        def forward(self, image):
            kept = self.drop(image) > 0
            return torch.cat([100.0 * kept, 100.0 * ~kept], dim=1)

    network = Coin().eval()
    image = torch.ones(2, 1, 30, 30)
    found = variability.dropout_entropy(network, image, passes=200, seed=1)
    assert found.shape == (2, 30, 30) and not network.drop.training
    # Of 200 draws the plug-in entropy falls short of ln 2 by 1/400 in the mean.
    assert found.mean() == pytest.approx(math.log(2) - 1 / 400, abs=5e-4)
    again = variability.dropout_entropy(network, image, passes=200, seed=1)
    assert np.array_equal(found, again)
    assert not np.array_equal(found, variability.dropout_entropy(network, image, 200, seed=2))
