"""The DAG as a layer with parameters to learn."""

from __future__ import annotations

import numpy as np
import pytest
import usconf

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


def pictures(rng, *shape, dtype=torch.float64):
    return torch.from_numpy(np.sqrt(rng.random(shape)) + 0.1).to(dtype)


@pytest.mark.parametrize("despeckle", ["median", None])
def test_layer_learns(rng, despeckle):
    from usconf.nn import DAG

    image = pictures(rng, 2, 1, 24, 20, dtype=torch.float32)
    target = usconf.dag(image, xi=0.4, despeckle=despeckle)
    layer = DAG(xi=0.1, learnable=["xi"], despeckle=despeckle)
    assert [name for name, _ in layer.named_parameters()] == ["xi"]
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        loss = (layer(image) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0] and abs(layer.xi.item() - 0.4) < 0.1


def test_layer_is_the_same_call(rng):
    from usconf.nn import DAG

    image, normal = pictures(rng, 19, 28), pictures(rng, 19, 28)
    planes = {"needle": pictures(rng, 19, 28).clamp(max=1), "artifact": 0.5 * normal.clamp(max=1)}
    planes |= {"mask": torch.from_numpy(rng.random((19, 28)) < 0.9), "reference": normal}
    layer = DAG(var=5.0, preset="beyond_shadows", half_width=4, learnable=True)
    assert {name for name, _ in layer.named_parameters()} == {"xi", "alpha", "var", "power"}
    expected = usconf.dag(image, var=5.0, preset="beyond_shadows", half_width=4, **planes)
    ours = layer.double()(image, **planes)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)  # parameters were float32
    finished = usconf.dag(normal, var=5.0, preset="beyond_shadows", half_width=4)
    layer(image, reference_map=finished).sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())
    assert "xi=0.4" in repr(layer) and "half_width=4" in repr(layer)
    assert "despeckle='srad'" in repr(layer) and "despeckle=None" in repr(DAG(despeckle=None))
    fixed = DAG()
    assert not list(fixed.parameters()) and not fixed.state_dict()
    torch.testing.assert_close(fixed(image), usconf.dag(image))


def test_layer_refuses_when_made():
    from usconf.nn import DAG

    for given, message in (
        ({"learnable": ["beta"]}, r"^learnable must .*got \['beta'\]"),
        ({"xi": 2.0}, r"^xi must .*got 2"),
        ({"var": -1.0}, r"^var must .*got -1"),
        ({"despeckle": "wiener"}, r"^despeckle must .*got 'wiener'"),
        ({"variant": "newer"}, r"^variant must .*got 'newer'"),
        ({"preset": "mine"}, r"^preset must .*got 'mine'"),
        ({"half_width": -2}, r"^half_width must .*got -2"),
        ({"despeckle": None, "roi": (0, 9, 0, 9)}, r"^roi must come with"),
        ({"variant": "hung2021", "nan": "mask"}, r"^mask must be left out"),
    ):
        with pytest.raises(ValueError, match=message):
            DAG(**given)


def test_parameters_out_of_range_are_refused_when_used(rng):
    from usconf.nn import DAG

    layer = DAG(learnable=["xi"])
    with torch.no_grad():
        layer.xi.fill_(-0.2)
    with pytest.raises(ValueError, match=r"^xi must .*got -0.2"):
        layer(pictures(rng, 12, 10))
