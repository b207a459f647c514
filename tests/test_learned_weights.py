"""Weights files: what is written, and what is refused by name."""

from __future__ import annotations

import json
import os

import pytest
import usconf

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors.torch")

from learned_weights import network, saved  # noqa: E402


@pytest.fixture
def weights(tmp_path):
    return saved(tmp_path)


def rewritten(path, **changes):
    """The file with other entries in what it says of itself."""
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    about = {**json.loads(header["__metadata__"]["usconf"]), **changes}
    tensors = safetensors.load(content)
    path.write_bytes(safetensors.save(tensors, {"usconf": json.dumps(about)}))
    return path


def test_round_trip(weights):
    made, found = network(), usconf.weights.load(weights)
    image = 255 * torch.rand(1, 1, 30, 20)
    torch.testing.assert_close(found(image), made(image))
    assert not found.training and found.config == made.config
    about = usconf.weights.metadata(weights)
    assert about["grid"] == [32, 24] and about["seed"] == 3 and about["version"] == 1
    about["grid"][0] = 1  # nobody's but the caller's
    assert usconf.weights.metadata(weights)["grid"] == [32, 24]


def test_halves_and_plain_numbers(weights):
    """float16, half of the shippable size by width, readable by any safetensors reader."""
    tensors = safetensors.load(weights.read_bytes())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    count = sum(tensor.numel() for tensor in tensors.values())
    assert weights.stat().st_size < 2 * count + 10_000
    from usconf.nn import ConfidenceUNet

    largest = sum(parameter.numel() for parameter in ConfidenceUNet(width=42).parameters())
    assert 2 * largest < 2e6


def test_same_bytes_every_time(tmp_path):
    for name in "ab":
        usconf.weights.save(tmp_path / name, network(), {"seed": 1, "grid": (8, 8), "a": 0.5})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_cached_until_the_file_changes(weights):
    first = usconf.weights.load(weights)
    assert usconf.weights.load(str(weights)) is first
    double = usconf.weights.load(weights, dtype=torch.float64)
    assert double is not first and double.stem.weight.dtype == torch.float64
    usconf.weights.save(weights, network("logits"))
    assert usconf.weights.load(weights).head == "logits"


def test_of_other_dtypes_and_devices(tmp_path):
    made = network().double()
    usconf.weights.save(tmp_path / "double", made)
    with torch.device("meta"):
        found = usconf.weights.load(tmp_path / "double")
    assert found.stem.weight.device.type == "cpu" and found.stem.weight.dtype == torch.float32


def test_default():
    path = usconf.weights.default_path()
    if path.exists():
        assert usconf.weights.load().config["head"] in ("monotone", "logits")
        assert path.stat().st_size <= 2e6
    else:
        with pytest.raises(FileNotFoundError, match=r"default\.safetensors must hold the default"):
            usconf.weights.load("default")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.99])
def test_a_cut_file_is_named(weights, share):
    content = weights.read_bytes()
    weights.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"weights\.safetensors must be a weights file of usconf"):
        usconf.weights.load(weights)


@pytest.mark.parametrize("position", [0, 7, 9, 30, 500])
def test_a_damaged_file_is_named(weights, position):
    content = bytearray(weights.read_bytes())
    content[position] ^= 0xFF
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors must "):
        usconf.weights.load(weights)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"version": 2}, "must be of version 1, got 2"),
        ({"format": "other"}, "must hold weights of usconf's network"),
        ({"config": {"head": "none", "width": 8}}, "cannot be used .*head must be one of"),
        ({"config": {"width": 10}}, "cannot be used"),
        ({"config": {"depth": 10}}, "cannot be used .*depth"),
        ({"config": None}, "cannot be used"),
        ({"grid": [0, 5]}, "cannot be used .*grid must be"),
    ],
)
def test_refuses_what_it_cannot_read(weights, changes, message):
    with pytest.raises(ValueError, match=rf"weights\.safetensors .*{message}"):
        usconf.weights.load(rewritten(weights, **changes))


def test_refuses_other_files(tmp_path):
    other = tmp_path / "other.safetensors"
    other.write_bytes(safetensors.save({"a": torch.ones(3)}))
    with pytest.raises(ValueError, match=r"other\.safetensors must hold weights of usconf"):
        usconf.weights.load(other)
    torch.save({"a": torch.ones(3)}, tmp_path / "pickled.pt")
    with pytest.raises(ValueError, match=r"pickled\.pt must be a weights file of usconf"):
        usconf.weights.load(tmp_path / "pickled.pt")
    with pytest.raises(FileNotFoundError, match=r"got .*absent"):
        usconf.weights.load(tmp_path / "absent")


def test_refuses_numbers_that_are_none(weights):
    tensors = safetensors.load(weights.read_bytes())
    tensors["last.bias"][0] = torch.nan
    about = json.dumps({"format": "usconf confidence network", "version": 1,
                        "config": network().config})  # fmt: skip
    weights.write_bytes(safetensors.save(tensors, {"usconf": about}))
    with pytest.raises(ValueError, match=r"weights\.safetensors .*not finite"):
        usconf.weights.load(weights)


def test_refuses_to_write(weights, tmp_path):
    before = weights.read_bytes()
    large = network()
    with torch.no_grad():
        large.last.bias[0] = 1e6
    for made, about, message in (
        (large, {}, r"^network must have finite weights within float16.*last\.bias"),
        (network(), {"version": 3}, r"^metadata must not hold version"),
        (network(), {"path": object()}, r"^metadata must be JSON"),
        (network(), {"loss": float("nan")}, r"^metadata must be JSON"),
        (network(), {"grid": (3, 0)}, r"^grid must be \(rows, columns\)"),
    ):
        with pytest.raises(ValueError, match=message):
            usconf.weights.save(weights, made, about)
    assert weights.read_bytes() == before and os.listdir(tmp_path) == [weights.name]
