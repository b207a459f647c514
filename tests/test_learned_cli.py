"""``usconf map --method learned``."""

from __future__ import annotations

import os

import numpy as np
import pytest
import usconf
from usconf.cli import main

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from learned_weights import network, saved  # noqa: E402


@pytest.fixture
def picture(rng, tmp_path):
    pixels = rng.integers(1, 256, (3, 60, 40), dtype=np.uint8)
    np.save(tmp_path / "clip.npy", pixels)
    return pixels


def status(*arguments):
    """Exit status of the command, whether it returns or leaves through argparse."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return leaving.code


@pytest.mark.parametrize("option, size", [(None, "weights"), ("own", None), ("20x16", (20, 16))])
def test_maps(tmp_path, picture, option, size):
    weights, out = saved(tmp_path), tmp_path / "map.npy"
    more = [] if option is None else ["--size", option]
    command = ("map", tmp_path / "clip.npy", "--method", "learned", "--weights", weights)
    assert status(*command, *more, "-o", out) == 0
    expected = usconf.learned(picture, weights=weights, size=size, axes="thw")
    np.testing.assert_allclose(np.load(out), expected, atol=1e-6)


def test_other_weights_are_other_settings(tmp_path, picture, capsys):
    weights = saved(tmp_path)
    command = ("map", tmp_path / "clip.npy", "--method", "learned", "--weights", weights)
    for expected in ("1 written", "1 skipped"):
        assert status(*command, "-o", tmp_path / "out") == 0
        assert expected in capsys.readouterr().out
    usconf.weights.save(weights, network("logits"))
    os.utime(weights, ns=(1, 1))
    assert status(*command, "-o", tmp_path / "out") == 0
    assert "1 written" in capsys.readouterr().out


def test_threads_reach_torch(tmp_path, picture):
    before = torch.get_num_threads(), usconf.get_num_threads()
    weights, out = saved(tmp_path), tmp_path / "map.npy"
    command = ("map", tmp_path / "clip.npy", "--method", "learned", "--weights", weights)
    try:
        torch.set_num_threads(2)
        assert status(*command, "--threads", 1, "-o", out) == 0
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before[0])
        usconf.set_num_threads(before[1])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--size", "20"], "must be ROWSxCOLUMNS or own, got '20'"),
        (["--size", "0x5"], "size must be (rows, columns)"),
        (["--weights", "absent.safetensors"], "got absent.safetensors"),
        (["--xi", "0.2"], "'xi'"),
    ],
)
def test_wrong_usage(tmp_path, picture, capsys, options, message):
    command = ("map", tmp_path / "clip.npy", "--method", "learned", "--weights", saved(tmp_path))
    assert status(*command, *options, "-o", tmp_path / "map.npy") == 2
    assert message in capsys.readouterr().err
