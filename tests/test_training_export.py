"""Networks for other runtimes give the same maps."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import usconf

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from learned_weights import network, saved  # noqa: E402


@pytest.fixture
def images():
    return 255 * torch.rand(3, 1, 32, 24, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("head", ["monotone", "logits"])
def test_torch_export(tmp_path, images, head):
    from usconf.training.export import export

    made = network(head)
    written = export(made, tmp_path / "net.pt2", size=(32, 24))
    assert written.path == tmp_path / "net.pt2" and written.difference < 1e-5
    extra = {"usconf.json": ""}
    program = torch.export.load(written.path, extra_files=extra).module()
    for count in (1, 2, 3):
        found = program(images[:count])
        torch.testing.assert_close(found, made(images[:count]).sigmoid(), rtol=0, atol=1e-5)
    assert json.loads(extra["usconf.json"])["config"] == made.config
    assert os.listdir(tmp_path) == ["net.pt2"]


@pytest.mark.parametrize("head", ["monotone", "logits"])
def test_onnx(tmp_path, images, head):
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    runtime = pytest.importorskip("onnxruntime")
    from usconf.training.export import export

    made = network(head)
    written = export(made, tmp_path / "net.onnx", size=(32, 24))
    assert written.difference < 1e-5 and os.listdir(tmp_path) == ["net.onnx"]
    session = runtime.InferenceSession(written.path, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["usconf"])["size"] == [32, 24]
    for frames in (images, images[:1], 0 * images, 1e-30 * images, 1e30 * images):
        (found,) = session.run(["confidence"], {"image": frames.numpy()})
        expected = made(frames).sigmoid().detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_from_weights_at_their_grid(tmp_path, images):
    from usconf.training.export import export

    weights = saved(tmp_path)
    written = export(weights, tmp_path / "net.pt2")
    assert written.size == (32, 24)
    found = torch.export.load(written.path).module()(images)[1, 0]
    expected = usconf.learned(images[1, 0], weights=weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_bad_export_is_not_kept(tmp_path, monkeypatch):
    from usconf.training import export as module

    def other(network, example, part, about):
        part.write_bytes(b"")
        return torch.zeros_like

    monkeypatch.setattr(module, "_write_program", other)
    with pytest.raises(RuntimeError, match=r"net\.pt2 must give the network's maps to 0.0001"):
        module.export(network(), tmp_path / "net.pt2", size=(32, 24))
    assert os.listdir(tmp_path) == []


def test_refuses(tmp_path, monkeypatch):
    from usconf.training import export as module

    weights = saved(tmp_path)
    for source, output, size, error, message in (
        (weights, "net.pb", None, ValueError, r"^output must end in \.pt2 or \.onnx, got net\.pb"),
        (
            network(),
            "net.pt2",
            None,
            ValueError,
            r"^size must be given for a source without a grid",
        ),
        (weights, "net.pt2", (0, 1), ValueError, r"^size must be \(rows, columns\)"),
        (tmp_path / "absent.safetensors", "net.pt2", None, FileNotFoundError, r"absent"),
    ):
        with pytest.raises(error, match=message):
            module.export(source, output, size=size)

    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(module, "import_module", absent)
    with pytest.raises(ImportError, match=r'onnx must be installed.*"usconf\[export\]"'):
        module.export(weights, tmp_path / "net.onnx")
