"""Maps from draws: the definitions, identical draws, extreme logits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference import uncertainty as reference

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from usconf.uncertainty import (  # noqa: E402
    DropoutHead,
    LaplaceHead,
    LowRankNormal,
    Measures,
    StochasticHead,
    epkl,
    fuse,
    measures,
    ood_score,
)


def draws_of(rng, *shape, scale=3.0, dtype=np.float64):
    return torch.from_numpy((scale * rng.standard_normal(shape)).astype(dtype))


@pytest.mark.parametrize("size", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-6)])
def test_equals_the_definitions(rng, classes, size, dtype, tolerance):
    draws = draws_of(rng, 9, 2, classes, *size, dtype=dtype)
    maps = measures(draws)
    for name, expected in reference.measures(draws.numpy()).items():
        found = getattr(maps, name)
        assert found.shape == (2, *size) and found.dtype == draws.dtype
        np.testing.assert_allclose(found.numpy(), expected, atol=tolerance, err_msg=name)


def test_two_classes_agree_with_one_logit(rng):
    z = draws_of(rng, 8, 2, 1, 5, 6)
    for one, two in zip(measures(z), measures(torch.cat((torch.zeros_like(z), z), 2)), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-14)


@pytest.mark.parametrize("classes", [1, 4])
def test_identical_draws_carry_no_information(rng, classes):
    one = draws_of(rng, 1, 2, classes, 8, 8, dtype=np.float32)
    maps = measures(one.expand(20, -1, -1, -1, -1))
    assert not maps.MI.any() and not maps.PV.any()
    assert torch.equal(maps.TU, maps.EE) and maps.EE.min() > 0
    single = measures(one)
    assert torch.equal(single.TU, maps.TU) and not single.PV.any()


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_extreme_logits_stay_finite(rng, classes, dtype):
    draws = torch.from_numpy(rng.choice([-1e4, -90.0, 0.0, 90.0, 1e4], (6, 1, classes, 16, 16)))
    maps = measures(draws.to(dtype))
    bound = math.log(max(classes, 2)) + 1e-6
    for one in maps:
        assert torch.isfinite(one).all() and one.min() >= 0
        assert one.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert maps.TU.max() <= bound and maps.PV.max() <= 0.25
    assert (maps.EE <= maps.TU + 1e-6).all()
    # Draws that contradict each other with certainty: all of it is epistemic.
    z = torch.tensor([-1e4, 1e4], dtype=dtype).view(2, 1, 1, 1, 1)
    certain = measures(z)
    assert certain.EE.item() == 0
    assert certain.MI.item() == pytest.approx(math.log(2)) and certain.PV.item() == 0.25


@pytest.mark.parametrize("classes", [1, 3])
def test_small_probabilities_are_not_lost(classes):
    """The entropy of sigmoid(+-20) is 4.3e-8 in float32 too; 1 - p would make it 0."""
    for z in (20.0, -20.0):
        draws = torch.tensor([z] + [0.0, -50.0] * (classes > 1)).view(1, 1, -1, 1, 1)
        expected = reference.measures(draws.double().numpy())["TU"]
        np.testing.assert_allclose(measures(draws).TU.numpy(), expected, rtol=0.06)


def test_mask_and_permutations(rng):
    draws = draws_of(rng, 7, 2, 3, 8, 9)
    mask = torch.from_numpy(rng.random((2, 1, 8, 9)) > 0.4)
    whole, masked = measures(draws), measures(draws, mask=mask)
    for one, other in zip(whole, masked, strict=True):
        assert torch.equal(other, torch.where(mask[:, 0], one, 0.0)) and other.any()
    order = torch.from_numpy(rng.permutation(7))
    for one, other in zip(whole, measures(draws[order].flip(2)), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-14)


def test_distributions_of_logits(rng):
    """p_t is the mean over a distribution's samples; PV is that of the means."""
    means = draws_of(rng, 5, 1, 1, 6, 6)
    diagonal = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64)
    factor = torch.ones(1, 2, 1, 6, 6, dtype=torch.float64)
    dists = [LowRankNormal(mean, diagonal, factor) for mean in means]
    maps = measures(dists, samples=4000, generator=torch.Generator().manual_seed(0))
    # The logit's marginal is N(m, 0.5 + 2): its mean probability by Gauss-Hermite quadrature.
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z = means.numpy()[..., None] + math.sqrt(2.5) * nodes
    p = (1 / (1 + np.exp(-z)) * weights).sum(-1) / weights.sum()
    expected = reference.measures(np.log(p) - np.log1p(-p))
    np.testing.assert_allclose(maps.EE.numpy(), expected["EE"], atol=0.01)
    np.testing.assert_allclose(maps.TU.numpy(), expected["TU"], atol=0.01)
    torch.testing.assert_close(maps.PV, measures(means).PV)
    # One noise for all: equal distributions differ in nothing, shared or not.
    copies = [LowRankNormal(means[0], diagonal.clone(), factor.clone()) for _ in range(4)]
    for same in (copies, [dists[0]] * 4):
        found = measures(same, samples=5)
        assert not found.MI.any() and not found.PV.any() and found.EE.min() > 0
    tight = [one._replace(diagonal=diagonal * 1e-30, factor=factor * 0) for one in dists]
    for one, other in zip(measures(tight), measures(means), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_gradient_reaches_the_logits(rng):
    draws = draws_of(rng, 4, 1, 3, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda z: tuple(measures(z)), (draws,))


def test_refuses(rng):
    draws = draws_of(rng, 4, 2, 1, 5, 5)
    with pytest.raises(ValueError, match=r"^draws must be \(n, B, C, \*S\), got \(2, 1, 5\)"):
        measures(draws[0, :, :, 0])
    with pytest.raises(ValueError, match=r"^draws must hold at least 1 draw and no empty axis"):
        measures(draws[:0])
    with pytest.raises(TypeError, match=r"^draws must be floating-point logits, got torch.int64"):
        measures(draws.long())
    with pytest.raises(TypeError, match=r"^draws must be a tensor .* or LowRankNormals"):
        measures([draws])
    one = LowRankNormal(draws[0], draws[0].exp(), draws[0][:, None])
    two = one._replace(factor=one.factor.repeat(1, 2, 1, 1, 1))
    with pytest.raises(ValueError, match=r"^draws must be LowRankNormals of one shape and rank"):
        measures([one, two])
    with pytest.raises(ValueError, match=r"^mask must be \(5, 5\), \(2, 5, 5\) or"):
        measures(draws, mask=torch.ones(4, 5))
    assert Measures._fields == ("TU", "EE", "MI", "PV")


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_graphs_do_not_break(rng):
    """Heads and measures inside a compiled function, and a head inside an exported network."""
    torch._dynamo.reset()
    draws = draws_of(rng, 4, 1, 2, 8, 8, dtype=np.float32)
    features = draws[:1, 0]
    for head in (LaplaceHead(2, 1), StochasticHead(2, 3), DropoutHead(2, 1, hidden=3).eval()):
        found = torch.compile(head, backend="eager", fullgraph=True)(features)
        for one, expected in zip(found, head(features), strict=True):
            assert one is None or torch.equal(one, expected)
    for function in (measures, epkl, lambda z: fuse(z, z.flip(0)), lambda z: ood_score(z[:, 0, 0])):
        found = torch.compile(function, backend="eager", fullgraph=True)(draws)
        for one, expected in zip(found, function(draws), strict=True):
            assert torch.equal(one, expected)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), LaplaceHead(4, 1))
    image = torch.rand(1, 1, 8, 8)
    exported = torch.export.export(network, (image,)).module()
    torch.testing.assert_close(exported(image), network(image))
