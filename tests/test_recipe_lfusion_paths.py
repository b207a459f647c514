"""The paths of L-FUSION's recipe, their training, and the scores of their draws."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from usconf.recipes import settings  # noqa: E402
from usconf.recipes.lfusion import (  # noqa: E402
    data,
    evaluation,
    experiment,
    networks,
    pages,
    pictures,
    training,
    unets,
)
from usconf.recipes.lfusion.config import Config  # noqa: E402
from usconf.recipes.lfusion.encoder import FrozenEncoder  # noqa: E402
from usconf.recipes.lfusion.made_data import made_frames  # noqa: E402

PATHS = ["SSN U-Net", "Dropout U-Net", "Laplace U-Net", "L", "D"]
SMALL = {"width": 2, "levels": 1, "hidden": 4, "rank": 2, "steps": 3, "batch": 2, "draws": 3}


def config(**values):
    return settings.from_dict(Config, {**SMALL, **values})


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# paths


def paths_of(dims, **values):
    torch.manual_seed(0)
    return networks.make_paths(config(**values), 3, dims)


def seen(dims, batch=2):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 1, 16, 18) if dims == 2 else (batch, 1, 4, 16, 18)
    images = torch.rand(shape, generator=generator)
    encoder = FrozenEncoder(
        lambda frames: torch.nn.functional.avg_pool2d(frames, 2).repeat(1, 3, 1, 1), "pool"
    )
    masks = (torch.rand(shape[:1] + shape[2:], generator=generator) > 0.5).long()
    return networks.Pictures(images, encoder), masks


def fitted(path, pictures_, masks):
    if isinstance(path, networks.LaplacePath):
        path.start_spread()
        path.head.fit([(path.body(pictures_).detach(), masks)], precision=1.0)
    return path


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", PATHS)
def test_paths_train_and_draw(dims, name):
    pictures_, masks = seen(dims)
    path = paths_of(dims)[name].eval()
    noise = torch.Generator().manual_seed(1)
    loss = path.loss(pictures_, masks, noise)
    loss.backward()
    assert loss.shape == () and torch.isfinite(loss)
    assert sum(float(p.grad.abs().sum()) for p in path.parameters() if p.grad is not None) > 0
    draws = fitted(path, pictures_, masks).draw(pictures_, 5, noise)
    assert draws.logits.shape == (5, 2, 1, *pictures_.images.shape[2:])
    assert not draws.logits.requires_grad and float(draws.logits.var(0).min()) >= 0
    assert float(draws.logits.var(0).max()) > 0
    again = path.draw(pictures_, 5, torch.Generator().manual_seed(7))
    once_more = path.draw(pictures_, 5, torch.Generator().manual_seed(7))
    assert torch.equal(again.logits, once_more.logits)
    assert not torch.equal(again.logits, draws.logits)


def test_laplace_path_draws_weights_and_keeps_the_covariance():
    pictures_, masks = seen(2)
    path = fitted(paths_of(2)["L"].eval(), pictures_, masks)
    draws = path.draw(pictures_, 400, torch.Generator().manual_seed(0))
    features = path.body(pictures_).detach()
    first = draws.gaussians[0]
    assert all(one.diagonal is first.diagonal for one in draws.gaussians)
    assert torch.allclose(first.diagonal, path.spread(features).diagonal)
    means = torch.stack([one.mean for one in draws.gaussians])
    of_weights = path.head.variance(features)
    assert torch.allclose(means.var(0), of_weights, rtol=0.5)
    # Samples add the stochastic head's variance to that of the weights.
    around = path.spread(features)
    variance = (around.diagonal + around.factor.square().sum(1)).detach() + of_weights
    assert float((draws.logits.var(0) / variance).mean()) == pytest.approx(1, abs=0.1)


def test_the_second_part_trains_the_covariance_alone():
    pictures_, masks = seen(2)
    path = paths_of(2)["Laplace U-Net"].eval()
    chosen = path.start_spread()
    path.spread_loss(pictures_, masks, torch.Generator().manual_seed(0)).backward()
    touched = {name for name, one in path.named_parameters() if one.grad is not None}
    assert touched == {
        f"spread.{layer}.{kind}"
        for layer in ("mean", "log_diagonal", "factor")
        for kind in ("weight", "bias")
    }
    assert len(chosen) == 4 and not any(one is path.spread.mean.weight for one in chosen)
    assert torch.equal(path.spread.mean.weight, path.head.conv.weight)


def test_the_encoder_runs_once_for_all_heads():
    calls = []
    pictures_, masks = seen(2)
    call = pictures_.encoder.call
    pictures_.encoder.call = lambda images: (calls.append(1), call(images))[1]
    paths, noise = paths_of(2), torch.Generator().manual_seed(0)
    for path in paths.values():
        fitted(path.eval(), pictures_, masks).draw(pictures_, 2, noise)
    assert len(calls) == 1


@pytest.mark.parametrize(("dims", "size"), [(2, (13, 22)), (3, (3, 13, 22))])
def test_unet_takes_any_size(dims, size):
    network = unets.UNet(3, 2, dims).eval()
    assert network(torch.rand(2, 1, *size)).shape == (2, 3, *size)


def test_dropout_follows_every_convolution():
    network = unets.UNet(2, 2, dropout=0.3)
    layers = [type(one).__name__ for one in network.modules()]
    assert layers.count("Dropout2d") == layers.count("Conv2d") == 2 * (3 + 2)
    assert not any(isinstance(one, torch.nn.Dropout2d) for one in unets.UNet(2, 2).modules())


# training


POOL = FrozenEncoder(lambda images: torch.nn.functional.avg_pool2d(images, 2), "pool")


def test_training_learns_and_keeps_the_best():
    frames = made_frames(8, size=32, seed=0)
    one = config(steps=40, batch=4, width=8, learning_rate=0.03)
    path = networks.make_paths(one, 1, 2)["Dropout U-Net"]
    encoder, ticks = POOL, []
    before = training.validation_loss(path, path.loss, frames, encoder, 4, 0)
    found = training.train(
        path,
        path.loss,
        path.parameters(),
        (frames, frames),
        encoder,
        one,
        0,
        lambda: ticks.append(1),
    )
    after = training.validation_loss(path, path.loss, frames, encoder, 4, 0)
    assert after == pytest.approx(found["validation_loss"], rel=1e-5)
    assert after < 0.7 * before
    assert len(ticks) == 40 and not path.training


def test_training_ends_early():
    """Nothing changes: the first of 12 checks stays the best one, and two more end it."""
    frames = made_frames(4, size=32, seed=0)
    one = config(steps=60, weight_decay=0, patience=2)
    path, ticks = networks.make_paths(one, 1, 2)["SSN U-Net"], []
    found = training.train(
        path,
        lambda *given: path.head.mean.bias.sum() * 0,
        [path.head.mean.bias],
        (frames, frames),
        POOL,
        one,
        0,
        lambda: ticks.append(1),
    )
    assert found == {"steps": 15, "validation_loss": 0.0, "best_step": 5}
    assert len(ticks) == 60


@pytest.mark.parametrize("clip", [False, True])
def test_augmentation_moves_mask_and_picture_together(clip):
    frames = made_frames(6, size=48, seed=2)
    if clip:
        frames = data.clips(frames, 3, seed=0)
    masks = torch.from_numpy(frames.masks).long()
    images = masks.float()[:, None] * 0.8 + 0.1
    moved, labels = training.augmented(images, masks, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape and labels.shape == masks.shape
    assert labels.dtype == masks.dtype and not torch.equal(labels, masks)
    # Contrast and brightness change, but the head's outline is the mask's.
    inside = moved[:, 0] > moved.flatten(1).mean(1).view(-1, *[1] * (moved.dim() - 2))
    assert float((inside == (labels > 0)).float().mean()) > 0.985
    if clip:
        still = torch.from_numpy(frames.masks[:, :1]).repeat(1, 3, 1, 1).long()
        one, other = training.augmented(
            still.float()[:, None], still, torch.Generator().manual_seed(3)
        )
        assert torch.equal(other[:, 0], other[:, 2]) and torch.equal(one[:, :, 0], one[:, :, 2])


# scores


def scored(frames, seed=0):
    one = config(draws=4, inner=3, patch=6)
    pictures_, masks = seen(2)
    paths = {
        name: fitted(path.eval(), pictures_, masks) for name, path in paths_of(2, hidden=4).items()
    }
    return evaluation.score_split(paths, pictures_.encoder, frames, one, seed)


def test_scores_of_every_frame():
    frames = made_frames(5, size=32, seed=1)
    scores, masks = scored(frames)
    assert set(scores) == {*PATHS, *(f"intra {name}" for name in PATHS), "C-1", "C-2"}
    for of_path in scores.values():
        for of_measure in of_path.values():
            assert [len(values) for values in of_measure.values()] == [5, 5]
            assert np.isfinite(list(of_measure.values())).all()
    for name in PATHS:
        assert masks[name].shape == (5, 32, 32)
        total, expected, mutual = (
            np.array(scores[name][measure]["mean"]) for measure in ("TU", "EE", "MI")
        )
        assert np.allclose(total, expected + mutual, atol=1e-6)
    # Of 36 pixels, the largest sum is at least 36 times the mean.
    spread = scores["D"]["TU"]
    assert (np.array(spread["patch"]) >= 36 * np.array(spread["mean"]) - 1e-6).all()


def test_aurocs_know_which_is_higher():
    frames = made_frames(4, size=32, seed=1)
    scores, _ = scored(frames)
    assert {row["AUROC"] for row in evaluation.aurocs(scores, scores, 0)} == {0.5}
    higher = {
        path: {
            measure: {how: [value + 1e6 for value in values] for how, values in one.items()}
            for measure, one in of_path.items()
        }
        for path, of_path in scores.items()
    }
    rows = evaluation.aurocs(scores, higher, 0)
    assert all(row["AUROC"] == row["low"] == row["high"] == 1 for row in rows)
    table = pages.auroc_table(rows, ["L"], ["TU", "EPKL"], "patch")
    assert table == [{"path": "L", "TU": "1.00 [1.00, 1.00]", "EPKL": "1.00 [1.00, 1.00]"}]


# pictures


def test_outlines_lie_on_the_mask():
    mask = np.zeros((30, 40), bool)
    mask[10:20, 15:30] = True
    shown = pictures.outlined(np.full((30, 40), 50, np.uint8), [(mask, (255, 0, 0))])
    times = shown.shape[0] // 30
    assert shown.shape == (30 * times, 40 * times, 3)
    red = (shown == (255, 0, 0)).all(-1)
    assert red[10 * times, 20 * times] and not red[15 * times, 20 * times]
    assert not red[: 10 * times].any()


def test_counterfactuals_are_draws():
    """Smallest, largest and least alike, next to the mean, for each path."""
    pictures_, masks = seen(2)
    one = config(draws=6)
    paths = {name: fitted(path.eval(), pictures_, masks) for name, path in paths_of(2).items()}
    frames = made_frames(1, size=32, seed=1)
    outcome = experiment.Outcome("pictures", one, None, pictures_.encoder, paths, {}, {})
    cells = pictures.counterfactuals(outcome, frames, 0, ("L", "D"))
    assert [title.split(",")[0] for _, title in cells] == [
        f"{name}: {what}"
        for name in ("L", "D")
        for what in ("mean", "smallest", "largest", "least alike")
    ]
    assert len({picture.tobytes() for picture, _ in cells[:4]}) > 1
