"""Fused maps: the formula with both entropies, classes, masks, extremes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference import uncertainty as reference

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from usconf.uncertainty import Measures, fuse, measures  # noqa: E402


def pair_of(rng, *shape):
    return torch.from_numpy(2 * rng.standard_normal((2, *shape))).unbind(0)


@pytest.mark.parametrize("size", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("classes", [1, 2, 4])
@pytest.mark.parametrize("mean", ["logits", "probability"])
def test_equals_the_formula(rng, classes, mean, size):
    one, other = pair_of(rng, 6, 2, classes, *size)
    for name in Measures._fields:
        auxiliary = reference.measures(one.numpy())[name]
        expected = reference.fuse(one.numpy(), other.numpy(), mean, auxiliary)
        found = fuse(one, other, mean=mean, auxiliary=name)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-15)
    given = measures(other).PV
    expected = reference.fuse(one.numpy(), other.numpy(), mean, given.numpy())
    np.testing.assert_allclose(fuse(one, other, mean=mean, auxiliary=given), expected, rtol=1e-9)
    default = reference.fuse(
        one.numpy(), other.numpy(), "logits", reference.measures(one.numpy())["MI"]
    )
    np.testing.assert_allclose(fuse(one, other), default, rtol=1e-9, atol=1e-15)


def test_written_out_for_one_logit():
    """Two pairs, two pixels, by hand: eta_L - eta_D = (1, 3) and (0, 0)."""
    one = torch.tensor([[2.0, 0.0], [4.0, 1.0]], dtype=torch.float64).view(2, 1, 1, 1, 2)
    other = torch.tensor([[1.0, 0.0], [1.0, 1.0]], dtype=torch.float64).view(2, 1, 1, 1, 2)
    weight = torch.tensor([[[0.0, 2.0]]], dtype=torch.float64)  # its variance is 1
    found = fuse(one, other, auxiliary=weight)
    p = 1 / (1 + math.exp(-2))
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    np.testing.assert_allclose(found.numpy(), [[[1.0 * entropy, 0.0]]], rtol=1e-12)


@pytest.mark.parametrize("mean", ["logits", "probability"])
def test_two_classes_agree_with_one_logit(rng, mean):
    one, other = pair_of(rng, 5, 2, 1, 6, 6)
    shift = torch.from_numpy(rng.standard_normal((5, 2, 1, 6, 6)))
    two = [torch.cat((shift, z + shift), 2) for z in (one, other)]
    torch.testing.assert_close(fuse(*two, mean=mean), fuse(one, other, mean=mean))


def test_identical_draws_fuse_to_nothing(rng):
    one, other = pair_of(rng, 5, 1, 1, 6, 6)
    assert fuse(one, one + 0.5).max() < 1e-12  # no deviation
    same = one[:1].expand(5, -1, -1, -1, -1)
    assert not fuse(same, other).any()  # no spread of the measure: MI is 0 everywhere


@pytest.mark.parametrize("mean", ["logits", "probability"])
@pytest.mark.parametrize("classes", [1, 3])
def test_extreme_logits_stay_finite(rng, mean, classes):
    one, other = (torch.from_numpy(rng.choice([-1e4, 0.0, 1e4], (4, 1, classes, 8, 8))).float()
                  for _ in range(2))  # fmt: skip
    for fused in (fuse(one, other, mean=mean), fuse(one.half(), other.half(), mean=mean)):
        assert torch.isfinite(fused).all() and fused.min() >= 0 and fused.dtype == torch.float32


def test_classes_that_both_heads_exclude():
    """ln 0 - ln 0 is not a number."""
    for logits in ([1e4], [1e4, -1e4, -1e4]):
        draws = torch.tensor(logits).view(1, 1, -1, 1, 1).expand(3, 1, -1, 2, 2)
        assert not fuse(draws, draws, mean="probability").isnan().any()


def test_mask_bounds_the_spread(rng):
    one, other = pair_of(rng, 6, 2, 1, 8, 8)
    mask = torch.zeros(8, 8)
    mask[2:6, 1:7] = 1
    found = fuse(one, other, mask=mask)
    inner = fuse(one[..., 2:6, 1:7], other[..., 2:6, 1:7])
    torch.testing.assert_close(found[:, 2:6, 1:7], inner)
    found[:, 2:6, 1:7] = 0
    assert not found.any() and inner.min() >= 0 and inner.max() > 0
    assert not fuse(one, other, mask=torch.zeros(8, 8)).any()


def test_refuses(rng):
    one, other = pair_of(rng, 6, 2, 1, 8, 8)
    with pytest.raises(ValueError, match=r"^dropout_draws must have the shape of laplace_draws"):
        fuse(one, other[:5])
    with pytest.raises(ValueError, match=r"^laplace_draws must hold at least 2 draws"):
        fuse(one[:1], other[:1])
    with pytest.raises(ValueError, match=r"^mean must be one of .*, got 'median'"):
        fuse(one, other, mean="median")
    with pytest.raises(ValueError, match=r"^auxiliary must be one of .*, got 'EPKL'"):
        fuse(one, other, auxiliary="EPKL")
    with pytest.raises(ValueError, match=r"^auxiliary must be one of .*, got \(1, 8, 8\)"):
        fuse(one, other, auxiliary=torch.zeros(1, 8, 8))
