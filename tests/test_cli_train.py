"""``usconf train`` and ``usconf export``: exit statuses, messages, from one to the other."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import usconf
from usconf.cli import main

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
yaml = pytest.importorskip("yaml")
pytest.importorskip("safetensors")
pytest.importorskip("PIL")

TINY = ["data.count=8", "data.validation=2", "data.clips=0", "data.shape=[32, 32]",
        "model.width=4", "train.steps=3", "train.batch=2", "train.threads=1"]  # fmt: skip


def status(*arguments):
    """Exit status of the command, whether it returns or leaves through argparse."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return leaving.code


def changes(*more):
    return [word for change in (*TINY, *more) for word in ("--set", change)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train") / "run"
    assert status("train", "--demo", "-o", folder, *changes()) == 0
    return folder


def test_demo_says_what_it_does_and_where_the_weights_are(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status("train", "--demo", *changes()) == 0
    captured = capsys.readouterr()
    assert captured.out == "usconf-demo/best.safetensors\n"
    assert "8 + 2 frames of 32 x 32" in captured.err and "step 3: validation loss" in captured.err
    names = {path.name for path in (tmp_path / "usconf-demo").iterdir()}
    assert names == {"best.safetensors", "last.safetensors", "checkpoint.pt", "training.csv",
                     "validation.csv", "previews", "phantoms"}  # fmt: skip


def test_weights_make_maps(run):
    image = usconf.phantom.demo_frame(48, 40)
    map = usconf.learned(image, weights=run / "best.safetensors")
    assert map.shape == image.shape and np.isfinite(map).all()


def test_config_by_path_and_folder_by_its_name(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("train: {seed: 3}")
    assert status("train", "mine.yaml", *changes("train.steps=1")) == 0
    assert capsys.readouterr().out == "mine/best.safetensors\n"


def test_second_run_into_the_same_folder_needs_resume(run, capsys):
    assert status("train", "--demo", "-o", run, *changes()) == 1
    assert "go on with --resume" in capsys.readouterr().err
    assert status("train", "--demo", "-o", run, "--resume", *changes()) == 0
    assert "going on from step 3" in capsys.readouterr().err


def test_recipe_paths_start_where_one_stands(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert status("train", "--recipe", "folder", "-o", "run", "--set", "model.weights=null") == 1
    assert str(tmp_path / "frames" / "manifest.csv") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "one of the arguments"),
        (["--demo", "--recipe", "phantoms"], 2, "not allowed with"),
        (["--recipe", "nothing"], 2, "recipe must be one of demo, folder, phantoms"),
        (["absent.yaml"], 2, "absent.yaml"),
        (["wrong.yaml"], 2, "wrong.yaml: the key train.stpes is unknown; did you mean steps?"),
        (["--demo", "--set", "train.steps"], 2, "a change must be section.key=value"),
        (["--demo", "--set", "data.seed=1000000"], 2, "never trained on"),
        (["--demo", "--set", "model.weights=none.pt"], 1, "none.pt"),
        (["--demo", "--set", "train.device=tpu"], 1, "train.device must be auto, cpu or cuda"),
    ],
)
def test_refuses(tmp_path, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.yaml").write_text("train: {stpes: 1}")
    small = changes() if "--demo" in arguments and code == 1 else []
    assert status("train", *small, *arguments) == code
    assert message in capsys.readouterr().err


def test_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert status("train", "--demo", "-o", tmp_path / "run") == 2
    assert 'pip install "usconf[train]"' in capsys.readouterr().err


def test_exports_a_checkpoint(run, tmp_path, capsys):
    path = tmp_path / "net.pt2"
    assert status("export", run / "checkpoint.pt", "-o", path, "--size", 48, 40) == 0
    assert capsys.readouterr().out.startswith(f"{path}: 48 x 40, maps differ by ")
    program = torch.export.load(path).module()
    assert program(torch.rand(3, 1, 48, 40)).shape == (3, 1, 48, 40)


def test_export_refuses(run, tmp_path, capsys):
    assert status("export", run / "checkpoint.pt", "-o", tmp_path / "net.txt") == 2
    assert "-o must end in .pt2 or .onnx" in capsys.readouterr().err
    (tmp_path / "broken.pt").write_bytes(b"nothing")
    assert status("export", tmp_path / "broken.pt", "-o", tmp_path / "net.pt2") == 1
    assert "broken.pt must be a checkpoint of usconf train" in capsys.readouterr().err
    assert status("export", tmp_path / "absent.safetensors", "-o", tmp_path / "net.pt2") == 1
    assert "absent.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "net.pt2").exists()
