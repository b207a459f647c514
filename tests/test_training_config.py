"""Configs of training: defaults, refusals by file and key, schedules, the order of frames."""

from __future__ import annotations

import numpy as np
import pytest
from usconf.training import config as configs
from usconf.training import schedule
from usconf.training.dataset import Order

yaml = pytest.importorskip("yaml")


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_empty_file_is_all_defaults(written):
    config = configs.read(written(""))
    assert config == configs.from_dict({})
    assert config.loss.label_weights == (1.0, 8.0, 8.0)
    assert (config.loss.gamma, config.loss.anneal, config.loss.decay_total) == (75, 0.6, 0.3)


@pytest.mark.parametrize("name", sorted(path.stem for path in configs.RECIPES.glob("*.yaml")))
def test_recipes_are_valid_and_round_trip(name):
    config = configs.read(configs.recipe(name))
    assert configs.from_dict(config.to_dict()) == config


def test_paths_start_at_the_file_and_changes_where_one_stands(written, tmp_path, monkeypatch):
    path = written("data: {source: folder, root: frames}\nmodel: {weights: start.safetensors}")
    config = configs.read(path)
    assert config.data.root == str(tmp_path / "frames")
    assert config.model.weights == str(tmp_path / "start.safetensors")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    changed = configs.read(path, ["data.root=mine", "train.steps=7", "model.weights=default"])
    assert changed.data.root == str(elsewhere / "mine")
    assert (changed.train.steps, changed.model.weights) == (7, "default")


def test_numbers_as_people_write_them(written):
    assert configs.read(written("train: {learning_rate: 1e-3}")).train.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trian: {}", r"run\.yaml: the key trian is unknown; did you mean train\?"),
        ("train: {stps: 3}", r"run\.yaml: the key train\.stps is unknown; did you mean steps"),
        ("data: {root: x}", r"the key data\.root is unknown"),
        ("data: {source: folder}", r"data\.root must be given"),
        ("data: {source: web}", r"data\.source must be one of phantoms, folder, got 'web'"),
        ("train: {steps: 0}", r"train\.steps must be an integer of at least 1, got 0"),
        ("train: {steps: true}", r"train\.steps must be an integer"),
        ("train: {learning_rate: fast}", r"train\.learning_rate must be a positive number"),
        ("loss: {label_weights: [1, 8]}", r"loss\.label_weights must be \[none, good, bad\]"),
        ("loss: {gamma: 1, gamma_start: 2}", r"gamma_start must be at most loss\.gamma"),
        ("loss: {gamma: .nan}", r"loss\.gamma must be a positive number"),
        ("model: {head: both}", r"model\.head must be one of monotone, logits, got 'both'"),
        ("train: [1]", r"train must be a mapping"),
        ("data: phantoms", r"data must be a mapping"),
        ("- 1", r"the file must be a mapping"),
        ("a: b: c", r"run\.yaml must be a YAML file"),
    ],
)
def test_refuses_naming_file_and_key(written, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        configs.read(written(text))
    assert "run.yaml" in str(caught.value)


@pytest.mark.parametrize("data", ["seed: 1000000", "seed: 899999, count: 2", "count: 900001"])
def test_held_out_seeds_are_refused(written, data):
    with pytest.raises(ValueError, match=r"run\.yaml: data\.seed.*HELD_OUT are never trained on"):
        configs.read(written(f"data: {{{data}}}"))
    with pytest.raises(ValueError, match="held out"):
        configs.read(written("data: {validation: 100001}"))


@pytest.mark.parametrize("change", ["steps=3", "train.steps", "train.=3", ".steps=3", "a.b={"])
def test_refuses_changes_that_are_none(written, change):
    with pytest.raises(ValueError, match=r"a change must be section\.key=value"):
        configs.read(written(""), [change])


def test_unknown_recipe():
    with pytest.raises(ValueError, match="recipe must be one of demo, folder, phantoms, got 'x'"):
        configs.recipe("x")


def test_differences_leave_out_what_changes_nothing():
    one = configs.from_dict({})
    other = configs.from_dict({"train": {"threads": 1, "seed": 3}, "data": {"cache": "x"}})
    assert configs.differences(one, other) == ["train.seed"]


def test_gamma_grows_geometrically_and_stays():
    loss = configs.Loss(gamma=64.0, gamma_start=1.0, anneal=0.6)
    values = [schedule.gamma(loss, step, 100) for step in range(100)]
    assert values[0] == 1
    np.testing.assert_allclose(values[30], 8.0)
    assert values[60:] == [64.0] * 40
    assert schedule.gamma(configs.Loss(anneal=0.0), 0, 100) == 75


def test_learning_rate_warms_up_and_falls_to_a_hundredth():
    train = configs.Train(steps=100, learning_rate=1.0, warmup=0.1)
    values = np.array([schedule.learning_rate(train, step) for step in range(100)])
    np.testing.assert_allclose(values[:10], np.arange(1, 11) / 10)
    assert (np.diff(values[10:]) < 0).all()
    np.testing.assert_allclose(values[-1], 0.01, atol=1e-3)


def test_order_sees_every_frame_once_an_epoch_from_any_step():
    order = Order(10, 4, seed=5)
    seen = np.concatenate([order.of(step) for step in range(10)])
    for epoch in range(4):
        assert sorted(seen[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert not np.array_equal(seen[:10], seen[10:20])
    np.testing.assert_array_equal(Order(10, 4, seed=5).of(7), seen[28:32])
    assert not np.array_equal(Order(10, 4, seed=6).of(7), seen[28:32])
    assert len(Order(2, 7, seed=0).of(3)) == 7
