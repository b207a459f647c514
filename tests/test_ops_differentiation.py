"""Calls past torch's dispatcher: only where nobody would miss the operator."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import usconf  # noqa: E402
import usconf.ops  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

FAN = usconf.Sector((16, -20), 30, 60, -0.4, 0.4)
CALLS = {
    "pgm_loss": lambda x: usconf.ops.pgm_loss(x, torch.ones(32, 32, dtype=torch.uint8)),
    "pgm_map": lambda x: usconf.ops.pgm_loss(
        x, torch.ones(32, 32, dtype=torch.uint8), reduction="none"
    ),
    "to_beam": lambda x: usconf.ops.to_beam(x, FAN, (40, 30)).image,
    "to_scan": lambda x: usconf.ops.to_scan(x, FAN, (40, 40)).image,
    "dag_swept": lambda x: usconf.ops.dag(x, despeckle=None, half_width=5),
}
TENSORS = [pytest.param(name, call, id=name) for name, call in CALLS.items()]


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.__name__.split(".")[0])
        return function(*args, **(kwargs or {}))


class Named(torch.Tensor):
    """A type of its own, whose results are of it as well."""


@pytest.fixture
def image():
    return torch.rand(32, 32, generator=torch.Generator().manual_seed(3)) * 0.8 + 0.1


def of(call, leaf):
    found = call(leaf)
    found.sum().backward()
    return found.detach(), leaf.grad


@pytest.mark.parametrize(("name", "call"), TENSORS)
def test_modes_see_the_operator_and_nothing_changes(name, call, image):
    plain = of(call, image.clone().requires_grad_())
    with Seen() as seen:
        watched = of(call, image.clone().requires_grad_())
    assert name in seen.names
    for ours, theirs in zip(plain, watched, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("name", "call"), TENSORS)
def test_profilers_see_the_operator(name, call, image):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call(image.clone().requires_grad_())
    assert f"usconf::{name}" in {event.name for event in profile.events()}


@pytest.mark.parametrize(("name", "call"), TENSORS)
def test_tensors_of_another_type_keep_it(name, call, image):
    found = call(image.as_subclass(Named))
    assert type(found) is Named
    assert torch.equal(found.as_subclass(torch.Tensor), call(image))


@pytest.mark.parametrize(("name", "call"), TENSORS)
def test_without_a_gradient_none_is_tracked(name, call, image):
    with torch.no_grad():
        assert not call(image.clone().requires_grad_()).requires_grad
    with torch.inference_mode():
        assert torch.equal(call(image), call(image.clone()))
    assert not call(image).requires_grad


@pytest.mark.parametrize(("name", "call"), TENSORS)
def test_gradients_go_on_to_what_came_before(name, call, image):
    leaf = image.clone().requires_grad_()
    (found,) = torch.autograd.grad(call(leaf * 0.5).sum(), leaf)
    other = (image * 0.5).requires_grad_()
    (wanted,) = torch.autograd.grad(call(other).sum(), other)
    assert torch.equal(found, 0.5 * wanted)


@pytest.mark.parametrize(("name", "call"), TENSORS)
def test_lazy_signs_are_resolved(name, call, image):
    """Conjugates leave a minus that no memory holds."""
    lazy = torch.complex(torch.zeros_like(image), -image).conj().imag
    assert lazy.is_neg()
    assert torch.equal(call(lazy), call(image))
    assert torch.equal(call(torch._neg_view(-image)), call(image))


def test_a_lazy_sign_from_above(image):
    def gradient(**kept):
        leaf = image.clone().requires_grad_()
        loss = CALLS["pgm_loss"](leaf)
        (torch.complex(torch.zeros(()), loss).conj() * 1).imag.backward(**kept)
        return leaf.grad

    leaf = image.clone().requires_grad_()
    CALLS["pgm_loss"](leaf).backward()
    assert torch.equal(gradient(), -leaf.grad)
    assert torch.equal(gradient(retain_graph=True), -leaf.grad)
