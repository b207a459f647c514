"""The annotation model's loss as a module."""

from __future__ import annotations

import numpy as np
import pytest
import usconf

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
torch = pytest.importorskip("torch")


def scene(rng, *shape):
    logits = torch.from_numpy(rng.standard_normal(shape).astype(np.float32)).requires_grad_()
    return logits, torch.from_numpy(rng.integers(0, 3, shape).astype(np.uint8))


@pytest.mark.parametrize("shape", [(12, 10), (3, 12, 10), (3, 1, 12, 10)])
def test_module_is_the_same_call(rng, shape):
    from usconf.nn import PGMLoss

    logits, labels = scene(rng, *shape)
    mask = torch.from_numpy(rng.random((12, 10)) > 0.2)
    given = {"gamma": 20.0, "decay_total": 0.3, "sigma": 0.5, "label_weights": (1, 8, 8)}
    criterion = PGMLoss(**given)
    expected = usconf.pgm_loss(logits, labels, mask=mask, from_logits=True, **given)
    assert torch.equal(criterion(logits, labels, mask), expected)
    loss, parts = criterion.with_parts(logits, labels, mask)
    assert torch.equal(loss, expected)
    torch.testing.assert_close(sum(parts.values()).float(), loss.detach())
    assert "gamma=20.0" in repr(criterion) and "decay_total=0.3" in repr(criterion)
    probabilities = PGMLoss(from_logits=False, reduction="none")(logits.sigmoid(), labels)
    assert probabilities.shape == shape


def test_gamma_may_be_annealed(rng):
    from usconf.nn import PGMLoss

    logits, labels = scene(rng, 2, 1, 12, 10)
    criterion = PGMLoss()
    torch._dynamo.reset()
    compiled = torch.compile(lambda z: criterion(z, labels), fullgraph=True)
    for gamma in (75.0, 10.0, 33.5):
        criterion.gamma = gamma
        expected = usconf.pgm_loss(logits, labels, gamma=gamma, from_logits=True)
        assert torch.equal(criterion(logits, labels), expected)
        torch.testing.assert_close(compiled(logits), expected)


def test_network_learns_from_strokes(rng):
    """What is labelled Good ends above what is labelled Bad, and confidence falls with depth."""
    from usconf.nn import PGMLoss

    torch.manual_seed(0)
    labels = torch.zeros((1, 1, 24, 16), dtype=torch.uint8)
    labels[..., 2:6, 3:12], labels[..., 18:21, 3:12] = 1, 2
    logits = torch.zeros((1, 1, 24, 16), requires_grad=True)
    criterion = PGMLoss(decay_total=0.3)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        criterion(logits, labels).backward()
        optimiser.step()
    x = logits.detach().sigmoid()[0, 0]
    assert x[3, 5] > 0.7 and x[19, 5] < 0.3
    assert (x[1:].log() - x[:-1].log()).max() < 0.05


def test_refuses():
    from usconf.nn import PGMLoss

    with pytest.raises(ValueError, match=r"^gamma must be finite and not negative, got -3"):
        PGMLoss(gamma=-3)
    with pytest.raises(ValueError, match=r"^decay_total must be left out"):
        PGMLoss(s=0.1, decay_total=0.3)
    with pytest.raises(ValueError, match=r"^reduction must be one of"):
        PGMLoss(reduction="median")
    with pytest.raises(ValueError, match=r"^label_weights must be three numbers"):
        PGMLoss(label_weights=(1, 2))
