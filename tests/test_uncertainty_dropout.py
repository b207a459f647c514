"""Dropout draws: what varies, what does not, and that modes and random numbers are left alone."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from usconf.uncertainty import DropoutHead, dropout_samples, measures  # noqa: E402


class Network(nn.Module):
    """Batch normalisation, a block kept in eval mode on purpose, and three kinds of dropout."""

    def __init__(self, p=0.3):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.drop = nn.ModuleList((nn.Dropout(p), nn.Dropout2d(p), nn.AlphaDropout(p)))
        self.last = nn.Conv2d(6, 2, 1)
        self.calls, self.fails_at = 0, None

    def forward(self, image):
        self.calls += 1
        if self.calls == self.fails_at:
            raise RuntimeError("on purpose")
        hidden = self.first(image)
        for layer in self.drop:
            hidden = layer(hidden)
        return self.last(hidden)


def modes(model):
    return [module.training for module in model.modules()]


def test_only_dropout_varies_and_everything_is_restored():
    torch.manual_seed(0)
    network, image = Network(), torch.rand(2, 1, 8, 8)
    network.train()
    network.first[1].eval()
    before, statistics = modes(network), network.first[1].running_mean.clone()
    seen = []
    network.last.register_forward_pre_hook(lambda *_: seen.append(modes(network)))
    draws = dropout_samples(network, image, 6)
    assert draws.shape == (6, 2, 2, 8, 8) and not draws.requires_grad
    assert draws.std(0).max() > 0.01 and measures(draws).MI.max() > 0
    on = {id(layer) for layer in network.drop}
    expected = [id(module) in on for module in network.modules()]
    assert seen == [expected] * 6
    assert modes(network) == before
    assert torch.equal(network.first[1].running_mean, statistics)
    network.fails_at = network.calls + 3
    with pytest.raises(RuntimeError, match="on purpose"):
        dropout_samples(network, image, 6)
    assert modes(network) == before and network.calls == 9


def test_mean_of_draws_is_that_without_dropout():
    """The network after the dropout is linear: inverted dropout keeps the mean."""
    torch.manual_seed(0)
    head = DropoutHead(3, classes=2, hidden=8, p=0.4).eval()
    features = torch.randn(1, 3, 6, 6)
    draws = head.sample(features, 4000, torch.Generator().manual_seed(0))
    with torch.no_grad():
        z = (draws.mean(0) - head(features)) / draws.std(0) * 4000**0.5
    assert z.abs().max() < 5 and draws.std(0).mean() > 0.05


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("hidden", [7, (6, 5)])
def test_head_equals_the_general_sampler(dims, hidden):
    """What runs once for all draws changes nothing: same random numbers, same draws."""
    torch.manual_seed(1)
    head = DropoutHead(3, classes=2, hidden=hidden, dims=dims)
    head(torch.randn(8, 3, *(4,) * dims))  # batch statistics to differ from the running ones
    features = torch.randn(2, 3, *(5,) * dims)
    one = head.sample(features, 5, torch.Generator().manual_seed(3))
    other = dropout_samples(head, features, 5, torch.Generator().manual_seed(3))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    assert one.shape == (5, 2, 2, *(5,) * dims) and head.training


@pytest.mark.parametrize("dims", [2, 3])
def test_whole_channels_fold_into_the_weights(dims):
    """The product of all draws has the law of as many passes; the values of one channel agree."""
    torch.manual_seed(2)
    head = DropoutHead(3, classes=2, hidden=4, p=0.5, dims=dims, whole_channels=True).eval()
    features = torch.randn(2, 3, *(3,) * dims)
    n = 3000
    one = head.sample(features, n, torch.Generator().manual_seed(3)).double()
    other = dropout_samples(head, features, n, torch.Generator().manual_seed(4)).double()
    spread = one.std(0).clamp(min=1e-6)  # where ReLU leaves nothing to drop
    assert ((one.mean(0) - other.mean(0)) / spread).abs().max() < 5 * (2 / n) ** 0.5
    ratio = torch.cov(one.flatten(1).T) - torch.cov(other.flatten(1).T)
    scale = spread.flatten()[:, None] * spread.flatten()
    assert (ratio / scale).abs().max() < 6 * (2 / n) ** 0.5
    with torch.no_grad():
        hidden = head.blocks[0](features)
        patterns = torch.cartesian_prod(*[torch.tensor([0.0, 2.0])] * 4)
        possible = torch.stack(
            [head.last(hidden[:1] * kept.view(1, -1, *[1] * dims)) for kept in patterns]
        ).double()
    # Every draw of an image is one of the 2^4 that whole channels allow.
    nearest = (one[:50, :1].flatten(1)[:, None] - possible.flatten(1)).abs().amax(2).amin(1)
    assert nearest.max() < 1e-5
    deep = DropoutHead(3, 1, hidden=(4, 4), dims=dims, whole_channels=True)
    assert deep.sample(features, 5).shape == (5, 2, 1, *(3,) * dims)


def test_generator_decides_and_leaves_torch_alone():
    torch.manual_seed(5)
    head, features = DropoutHead(3, classes=1, p=0.5), torch.randn(1, 3, 8, 8)
    state = torch.get_rng_state()
    one = head.sample(features, 4, torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one, head.sample(features, 4, torch.Generator().manual_seed(1)))
    assert not torch.equal(one, head.sample(features, 4, torch.Generator().manual_seed(2)))
    assert not torch.equal(one[0], one[1])
    generator = torch.Generator().manual_seed(1)
    head.sample(features, 4, generator)
    assert not torch.equal(one, head.sample(features, 4, generator))
    torch.manual_seed(9)
    first = head.sample(features, 2)
    assert not torch.equal(first, head.sample(features, 2))
    torch.manual_seed(9)
    assert torch.equal(first, head.sample(features, 2))


def test_head_trains():
    torch.manual_seed(0)
    head = DropoutHead(2, classes=1, hidden=8)
    features = torch.randn(4, 2, 8, 8)
    labels = (features[:, :1] > 0).float()
    optimiser = torch.optim.Adam(head.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.binary_cross_entropy_with_logits(head(features), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3


def test_refuses():
    image = torch.rand(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"^model must hold a dropout layer with p above 0"):
        dropout_samples(nn.Conv2d(1, 1, 1), image, 3)
    with pytest.raises(ValueError, match=r"^model must hold a dropout layer with p above 0"):
        dropout_samples(Network(p=0.0), image, 3)
    with pytest.raises(ValueError, match=r"^n must be a whole number of at least 1, got 0"):
        dropout_samples(Network(), image, 0)

    class Several(Network):
        def forward(self, image):
            return (super().forward(image),) * 2

    network = Several()
    with pytest.raises(TypeError, match=r"^model must return one tensor of logits, got tuple"):
        dropout_samples(network, image, 3)
    assert all(modes(network))
    for bad in (0, 1, -0.1, 1.5):
        with pytest.raises(ValueError, match=r"^p must be between 0 and 1, got"):
            DropoutHead(3, 2, p=bad)
    with pytest.raises(ValueError, match=r"^hidden must name at least one block"):
        DropoutHead(3, 2, hidden=())
    head = DropoutHead(3, 2)
    for call in (head, lambda features: head.sample(features, 2)):
        with pytest.raises(ValueError, match=r"^features must have the 3 channels .*, got 1"):
            call(image)
