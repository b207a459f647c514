"""A weights file of a small untrained network, for tests that need any."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

GRID = (32, 24)


def network(head="monotone", width=8):
    """One whose weights are not those of the start: nothing is 0 by chance."""
    from usconf.nn import ConfidenceUNet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = ConfidenceUNet(head, width)
        with torch.no_grad():
            for parameter in made.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made.half().float().eval()


def saved(folder):
    """The path of its file in the folder; the grid is 32 x 24."""
    import usconf

    path = folder / "weights.safetensors"
    usconf.weights.save(path, network(), {"grid": GRID, "seed": 3})
    return path
