"""The frozen encoder: any callable, names, files of weights, and what each is refused for."""

from __future__ import annotations

import sys
import types

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from usconf.recipes.lfusion.encoder import (  # noqa: E402
    FrozenEncoder,
    MadeEncoder,
    load_encoder,
    load_weights,
)
from usconf.recipes.lfusion.pretraining import reconstruction_loss  # noqa: E402

IMAGES = torch.rand(2, 1, 24, 32, generator=torch.Generator().manual_seed(0))


def patches(channels=1, features=5):
    torch.manual_seed(0)
    return nn.Conv2d(channels, features, 8, stride=8)


@pytest.fixture
def module(monkeypatch):
    """A module that users could have on their path."""
    made = types.ModuleType("users_encoder")
    made.network = patches()
    made.function = lambda images: made.network(images)
    made.build = patches
    made.Network = type("Network", (nn.Conv2d,), {"__init__": lambda self: None})
    made.number = 3
    monkeypatch.setitem(sys.modules, "users_encoder", made)
    return made


def test_a_module_is_frozen():
    network = nn.Sequential(patches(), nn.Dropout(0.5))
    encoder = FrozenEncoder(network, "mine")
    features = encoder(IMAGES)
    assert features.shape == (2, 5, 3, 4) and encoder.features == 5
    assert not network.training and not features.requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(features, encoder(IMAGES))


def test_input_is_what_was_asked_for():
    seen = []
    encoder = FrozenEncoder(
        lambda images: (seen.append(images), images)[1],
        "mine",
        channels=3,
        size=16,
        mean=0.5,
        std=0.25,
    )
    encoder(IMAGES)
    assert seen[0].shape == (2, 3, 16, 16)
    assert torch.equal(seen[0][:, 0], seen[0][:, 2])
    small = nn.functional.interpolate(IMAGES, size=(16, 16), mode="bilinear", align_corners=False)
    assert torch.allclose(seen[0][:, :1], (small - 0.5) / 0.25)


def test_clips_are_encoded_frame_by_frame():
    encoder = FrozenEncoder(patches(), "mine")
    clips = torch.rand(2, 1, 5, 24, 32)
    features = encoder(clips)
    assert features.shape == (2, 5, 5, 3, 4)
    assert torch.allclose(features[:, :, 3], encoder(clips[:, :, 3]), atol=1e-6)


RETURNED = {
    "a list": (lambda images: [images], TypeError, "must return a float tensor .* got list"),
    "integers": (lambda images: images.long(), TypeError, "got torch.int64"),
    "tokens": (
        lambda images: images.flatten(2).mT,
        ValueError,
        r"must return a 4-D tensor \(B, F, h, w\), got \(2, 768, 1\); reshape tokens",
    ),
    "one image": (lambda images: images[:1], ValueError, "features of all 2 images"),
    "NaN": (lambda images: images / 0 * 0, ValueError, "must return finite features"),
}


@pytest.mark.parametrize("what", RETURNED)
def test_what_an_encoder_returns_is_checked(what):
    call, kind, message = RETURNED[what]
    with pytest.raises(kind, match=message):
        FrozenEncoder(call, "mine")(IMAGES)
    with pytest.raises(kind, match="the encoder mine"):
        FrozenEncoder(call, "mine")(IMAGES)


def test_another_size_or_number_of_channels_is_refused():
    sizes = iter([(4, 4), (5, 4), (4, 4)])
    encoder = FrozenEncoder(lambda images: torch.zeros(2, 3, *next(sizes)), "mine")
    encoder(IMAGES)
    with pytest.raises(ValueError, match="maps of 4 x 4 pixels as before, got 5 x 4"):
        encoder(IMAGES)
    # Other images may have another grid.
    encoder(IMAGES[..., :16])
    channels = iter([3, 4])
    encoder = FrozenEncoder(lambda images: torch.zeros(2, next(channels), 4, 4), "mine")
    encoder(IMAGES)
    with pytest.raises(ValueError, match="must return 3 channels as before, got 4"):
        encoder(IMAGES)


def test_not_callable():
    with pytest.raises(TypeError, match="encoder must be callable, got int for mine"):
        FrozenEncoder(3, "mine")


# by name


@pytest.mark.parametrize("name", ["network", "function", "build()"])
def test_module_and_function(module, name):
    found = load_encoder(f"users_encoder:{name}")
    assert torch.allclose(found(IMAGES), patches()(IMAGES))


REFUSED = {
    "made_up": (ValueError, 'encoder must be "made", "timm:NAME"'),
    "users_encoder:other": (ValueError, "there is no other"),
    "users_encoder:number": (TypeError, "encoder must be callable, got int"),
    "users_encoder:Network": (TypeError, r"write users_encoder:Network\(\)"),
    "no_such_module_here:f": (ImportError, "needs the module no_such_module_here"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_are_refused(module, name):
    kind, message = REFUSED[name]
    with pytest.raises(kind, match=message):
        load_encoder(name)


def test_options_that_do_not_belong_to_a_function(module, tmp_path):
    with pytest.raises(ValueError, match="encoder_layer must be left out"):
        load_encoder("users_encoder:function", layer="layer4")
    with pytest.raises(ValueError, match=r"encoder_weights must be left out .* no torch module"):
        load_encoder("users_encoder:function", weights=str(tmp_path / "weights.pt"))


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_from_a_file(module, tmp_path, suffix):
    other = nn.Conv2d(1, 5, 8, stride=8)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pt":
        torch.save({"state_dict": other.state_dict(), "epoch": 3}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file(other.state_dict(), path)
    found = load_encoder("users_encoder:network", weights=str(path))
    assert torch.equal(found(IMAGES), other(IMAGES))


def test_weights_that_do_not_fit(tmp_path):
    network, path = patches(), tmp_path / "weights.pt"
    with pytest.raises(FileNotFoundError, match="encoder_weights must be a file"):
        load_weights(network, str(path), "mine")
    for state, message in (
        ({"other": torch.zeros(1)}, "without any of its keys; one of them is weight"),
        ({"weight": network.weight}, "without 1 of them; the first is bias"),
        ({"weight": torch.zeros(1), "bias": network.bias}, "must fit mine"),
    ):
        torch.save(state, path)
        with pytest.raises(ValueError, match=message):
            load_weights(network, str(path), "mine")


@pytest.mark.timm
def test_timm_without_download():
    """Random weights, a convolutional network and a transformer; its tokens come as a grid."""
    images = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert load_encoder("timm:resnet10t")(images).shape[-2:] == (2, 2)
        assert load_encoder("timm:resnet10t", layer="1")(images).shape[-2:] == (16, 16)
    with pytest.raises(ValueError, match="must be an architecture of timm, got 'resnet10x'"):
        load_encoder("timm:resnet10x")
    with pytest.raises(ValueError, match="encoder_layer must be a number for timm"):
        load_encoder("timm:resnet10t", layer="last")


@pytest.mark.torchvision
def test_torchvision_without_download():
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        found = load_encoder("torchvision:resnet18", channels=3).eval()
        assert found(images).shape == (1, 512, 2, 2)
        earlier = load_encoder("torchvision:resnet18", channels=3, layer="layer2").eval()
        assert earlier(images).shape == (1, 128, 8, 8)
    with pytest.raises(ValueError, match="encoder_channels must be 3"):
        load_encoder("torchvision:resnet18")
    with pytest.raises(ValueError, match="must be an architecture of torchvision"):
        load_encoder("torchvision:resnet1", channels=3)
    with pytest.raises(ValueError, match="encoder_layer must be a module of resnet18"):
        load_encoder("torchvision:resnet18", channels=3, layer="layer9")


def test_a_broken_installation_is_named(monkeypatch):
    """torchvision built for another torch raises RuntimeError while it is imported."""

    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "timm":
                raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ImportError, match="'timm:resnet18' needs the module timm, got: operator"):
        load_encoder("timm:resnet18")


# the made one


def test_hidden_squares_are_what_counts():
    """A decoder that repeats its input is wrong where squares are hidden; a perfect one is not."""

    class Perfect(nn.Module):
        def forward(self, seen):
            return nn.functional.avg_pool2d(IMAGES, 2)

    generator = torch.Generator().manual_seed(0)
    found = reconstruction_loss(nn.Identity(), Perfect(), IMAGES, generator)
    assert float(found) == pytest.approx(0, abs=1e-12)
    flat = reconstruction_loss(nn.Identity(), nn.Identity(), IMAGES, generator)
    assert float(flat) > 1e-3


def test_made_encoder_sees_the_whole_picture():
    torch.manual_seed(0)
    network = MadeEncoder().eval()
    image = torch.rand(1, 1, 64, 64, requires_grad=True)
    network(image)[0, :, 16, 16].sum().backward()
    touched = image.grad[0, 0].abs().sum(1).nonzero()
    assert touched.max() - touched.min() > 56
