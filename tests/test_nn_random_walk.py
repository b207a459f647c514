"""The random walk as a layer with parameters to learn."""

from __future__ import annotations

import numpy as np
import pytest
import usconf

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


def pictures(rng, *shape, dtype=torch.float64):
    return torch.from_numpy(np.sqrt(rng.random(shape)) + 0.1).to(dtype)


def test_layer_learns(rng):
    from usconf.nn import RandomWalk

    image = pictures(rng, 2, 1, 12, 10, dtype=torch.float32)
    target = usconf.random_walk(image, beta=40.0)
    layer = RandomWalk(beta=60.0, learnable=["beta"])
    assert [name for name, _ in layer.named_parameters()] == ["beta"]
    optimiser = torch.optim.Adam(layer.parameters(), lr=2.0)
    losses = []
    for _ in range(15):
        loss = (layer(image) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0] and abs(layer.beta.item() - 40) < 10


def test_layer_is_the_same_call(rng):
    from usconf.nn import RandomWalk

    image = pictures(rng, 9, 8)
    mask = torch.from_numpy(rng.random((9, 8)) < 0.9)
    layer = RandomWalk(gamma=0.1, preset="duque2023", sink="mid", learnable=True)
    assert {name for name, _ in layer.named_parameters()} == {"alpha", "beta", "gamma"}
    expected = usconf.random_walk(image, gamma=0.1, preset="duque2023", sink="mid", mask=mask)
    ours = layer.double()(image, mask=mask)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)  # parameters were float32
    assert "beta=100" in repr(layer) and "sink='mid'" in repr(layer)
    fixed = RandomWalk()
    assert not list(fixed.parameters()) and not fixed.state_dict()
    torch.testing.assert_close(fixed(image), usconf.random_walk(image))


def test_layer_refuses_when_made():
    from usconf.nn import RandomWalk

    for given, message in (
        ({"learnable": ["delta"]}, r"^learnable must .*got \['delta'\]"),
        ({"beta": -1.0}, r"^beta must .*got -1"),
        ({"sink": "nowhere"}, r"^sink must .*got 'nowhere'"),
        ({"memory_limit": "much"}, r"^memory_limit must .*got 'much'"),
        ({"preset": "mine"}, r"^preset must .*got 'mine'"),
    ):
        with pytest.raises(ValueError, match=message):
            RandomWalk(**given)
