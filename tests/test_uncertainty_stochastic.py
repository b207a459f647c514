"""Stochastic head: moments of samples, densities and divergences against full matrices, loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from reference import uncertainty as reference

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from usconf.uncertainty import LowRankNormal, StochasticHead, divergence, epkl, kl  # noqa: E402


def normal_of(rng, batch=2, classes=2, rank=3, size=(4, 5), floor=0.1, dtype=torch.float64):
    def of(*shape):
        return torch.from_numpy(rng.standard_normal(shape)).to(dtype)

    diagonal = of(batch, classes, *size).square() + floor
    return LowRankNormal(of(batch, classes, *size), diagonal, of(batch, rank, classes, *size))


def full(normal, image):
    return reference.covariance(normal.diagonal[image], normal.factor[image])


def torchs(normal):
    """torch's own distribution."""
    flat = normal.factor.flatten(2).mT
    return torch.distributions.LowRankMultivariateNormal(
        normal.mean.flatten(1), flat, normal.diagonal.flatten(1)
    )


@pytest.mark.parametrize("antithetic", [True, False])
def test_samples_have_the_moments(rng, antithetic):
    normal = normal_of(rng, size=(3, 2))
    n = 40000
    draws = normal.sample(n, torch.Generator().manual_seed(3), antithetic)
    assert draws.shape == (n, 2, 2, 3, 2)
    for image in range(2):
        flat = draws[:, image].flatten(1).numpy()
        expected = full(normal, image)
        deviation = np.sqrt(np.diag(expected))
        # Four standard errors of a mean and of a covariance; pairs halve the independent draws.
        bound = 4 * math.sqrt(2 / n)
        mean = np.abs(flat.mean(0) - normal.mean[image].numpy().ravel()) / deviation
        assert mean.max() < (1e-9 if antithetic else bound)
        moments = np.abs(np.cov(flat.T, bias=True) - expected) / np.outer(deviation, deviation)
        assert moments.max() < math.sqrt(2) * bound


def test_antithetic_pairs(rng):
    normal = normal_of(rng)
    for n in (1, 2, 5, 20):
        draws = normal.sample(n, torch.Generator().manual_seed(1))
        assert draws.shape[0] == n
        half = n // 2
        torch.testing.assert_close(
            draws[:half] + draws[half : 2 * half], (2 * normal.mean).expand(half, -1, -1, -1, -1)
        )
        assert torch.equal(draws, normal.sample(n, torch.Generator().manual_seed(1)))


def test_density_equals_the_full_matrix_and_torch(rng):
    normal = normal_of(rng)
    values = normal.sample(3, torch.Generator().manual_seed(0))
    found = normal.log_prob(values)
    assert found.shape == (3, 2)
    torch.testing.assert_close(found, torchs(normal).log_prob(values.flatten(2)))
    for image in range(2):
        expected = reference.log_density(values[1, image], normal.mean[image], full(normal, image))
        assert found[1, image].item() == pytest.approx(expected, rel=1e-12)
    assert torch.equal(normal.log_prob(values[0]), found[0])


def test_divergence_equals_the_full_matrix_and_torch(rng):
    p, q = normal_of(rng, rank=2), normal_of(rng, rank=4)
    found = kl(p, q)
    torch.testing.assert_close(
        found, torch.distributions.kl_divergence(torchs(p), torchs(q)), rtol=1e-11, atol=0
    )
    for image in range(2):
        expected = reference.kl(p.mean[image], full(p, image), q.mean[image], full(q, image))
        assert found[image].item() == pytest.approx(expected, rel=1e-11)
    assert kl(p, p).abs().max() < 1e-12
    single = LowRankNormal(*(part.float() for part in p[:3]))
    torch.testing.assert_close(
        kl(single, LowRankNormal(*(part.float() for part in q[:3]))), found.float(), rtol=1e-4,
        atol=0,
    )  # fmt: skip


@pytest.mark.parametrize("epsilon", [1e-5, 1e-10, 1e-14])
def test_vanishing_diagonal(rng, epsilon):
    """D -> 0: samples approach mu + P e, densities and divergences stay right."""
    p, q = (one._replace(diagonal=torch.full_like(one.diagonal, epsilon)) for one in
            (normal_of(rng, rank=2), normal_of(rng, rank=2)))  # fmt: skip
    q = q._replace(factor=p.factor * 1.1, mean=p.mean + 0.3 * p.factor[:, 0])
    generator = torch.Generator().manual_seed(5)
    apart = (p.sample(8, generator) - p.mean).flatten(2)
    columns = p.factor.flatten(2).mT
    for image in range(2):
        onto = torch.linalg.lstsq(columns[image], apart[:, image].mT).solution
        left = apart[:, image].mT - columns[image] @ onto
        assert left.abs().max() < 6 * math.sqrt(epsilon)
    # In the plane of P both are normals of coordinates e: the divergence of N(0, I) from
    # N(0.3 e_1, 1.21 I); every other direction is the same.
    expected = 0.5 * (2 / 1.21 + 0.09 / 1.21 - 2 + 2 * math.log(1.21))
    torch.testing.assert_close(
        kl(p, q), torch.full((2,), expected, dtype=torch.float64), rtol=0, atol=20 * epsilon + 1e-6
    )
    assert kl(p, p).abs().max() < 1e-7


def test_zero_diagonal_can_be_sampled_but_has_no_density(rng):
    normal = normal_of(rng)
    flat = normal._replace(diagonal=torch.zeros_like(normal.diagonal))
    assert torch.isfinite(flat.sample(4)).all()
    with pytest.raises(ValueError, match=r"^diagonal must be above 0 for a density, got 0\.0"):
        flat.log_prob(flat.mean)


def test_mask_leaves_logits_out(rng):
    p, q = normal_of(rng, size=(4, 4)), normal_of(rng, size=(4, 4))
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[:, 1:, :3] = True

    def cut(one):
        return LowRankNormal(*(part[..., 1:, :3] for part in one[:3]))

    masked_p, masked_q = p._replace(mask=mask), q._replace(mask=mask)
    torch.testing.assert_close(kl(masked_p, masked_q), kl(cut(p), cut(q)))
    torch.testing.assert_close(masked_p.log_prob(q.mean), cut(p).log_prob(cut(q).mean))
    torch.testing.assert_close(epkl([masked_p, masked_q]), epkl([cut(p), cut(q)]))
    draws = masked_p.sample(6)
    outside = (~mask)[:, None].expand_as(p.mean)
    assert torch.equal(draws[:, outside], p.mean[outside].expand(6, -1))
    assert (draws[:, ~outside] != p.mean[~outside]).all()
    # What is outside may be anything at all.
    wild = masked_p._replace(factor=torch.where(mask[:, None, None], p.factor, 1e30))
    torch.testing.assert_close(kl(wild, masked_q), kl(masked_p, masked_q))


@pytest.mark.parametrize("shared", [True, False])
def test_pairwise_divergence(rng, shared, monkeypatch):
    first = normal_of(rng, size=(3, 3))
    draws = [normal_of(rng, size=(3, 3)) for _ in range(4)]
    if shared:
        draws = [first._replace(mean=one.mean) for one in draws]
    found = epkl(draws)
    for image in range(2):
        parts = [(one.mean[image], full(one, image)) for one in draws]
        expected = reference.expected_pairwise(lambda i, j: reference.kl(*i, *j), parts)
        assert found[image].item() == pytest.approx(expected, rel=1e-11)
    torch.testing.assert_close(found, torch.stack([kl(i, j) for i in draws for j in draws
                                                   if i is not j]).mean(0))  # fmt: skip
    monkeypatch.setattr(divergence, "MOST", 0)
    monkeypatch.setattr(divergence, "CHUNK", 5)
    torch.testing.assert_close(epkl(draws), found, rtol=1e-12, atol=0)
    assert epkl([first, first, first]).abs().max() < 1e-10
    copies = [LowRankNormal(*(part.clone() for part in first[:3])) for _ in range(3)]
    assert epkl(copies).abs().max() < 1e-10


@pytest.mark.parametrize("classes", [1, 3])
def test_pairwise_divergence_of_labels(rng, classes):
    draws = torch.from_numpy(rng.standard_normal((5, 2, classes, 3, 4)))
    found = epkl(draws)
    for image in range(2):
        expected = reference.expected_pairwise(reference.label_divergence, draws[:, image].numpy())
        assert found[image].item() == pytest.approx(expected, rel=1e-11)
    same = draws[:1].expand(6, -1, -1, -1, -1)
    assert epkl(same).max() < 1e-30
    extreme = torch.from_numpy(rng.choice([-1e4, 0, 1e4], (5, 2, classes, 3, 4))).float()
    assert torch.isfinite(epkl(extreme)).all()


@pytest.mark.parametrize("classes", [1, 3])
def test_loss_is_the_formula(rng, classes):
    normal = normal_of(rng, classes=classes)
    labels = torch.from_numpy(rng.integers(0, max(classes, 2), (2, 4, 5)))
    mask = torch.from_numpy(rng.random((2, 4, 5)) > 0.3)
    found = StochasticHead.loss(
        normal, labels[:, None], 8, generator=torch.Generator().manual_seed(2)
    )
    draws = normal.sample(8, torch.Generator().manual_seed(2))
    whole = np.ones((2, 4, 5), bool)
    expected = reference.stochastic_loss(draws.numpy(), labels.numpy(), whole)
    assert found.item() == pytest.approx(expected, rel=1e-12)
    labels = torch.where(mask, labels, 255)
    found = StochasticHead.loss(normal, labels, 8, mask, torch.Generator().manual_seed(2))
    expected = reference.stochastic_loss(
        draws.numpy(), torch.where(mask, labels, 0).numpy(), mask.numpy()
    )
    assert found.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_head_learns_what_two_raters_disagree_on(dims):
    """Half of the masks hold a square, half do not: its pixels must come and go together."""
    torch.manual_seed(0)
    size = (2, 8, 8)[-dims:]
    features = torch.zeros(1, 2, *size)
    features[:, 0] = 1.0
    features[..., 2:6, 2:6] = 1.0
    features[:, 0, ..., 2:6, 2:6] = 0.0
    labels = torch.zeros(2, *size, dtype=torch.int64)
    labels[1, ..., 2:6, 2:6] = 1
    head = StochasticHead(2, classes=1, rank=2, dims=dims)
    optimiser = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        head.loss(head(features.expand(2, *features.shape[1:])), labels).backward()
        optimiser.step()
    distribution = head(features)
    drawn = distribution.sample(400, torch.Generator().manual_seed(0))[:, 0, 0] > 0
    share = drawn[..., 2:6, 2:6].flatten(1).float().mean(1)
    assert (
        0.3 < (share > 0.9).float().mean() < 0.7
        and ((share > 0.9) | (share < 0.1)).float().mean() > 0.8
    )
    assert drawn[..., :2].float().mean() < 0.05


def test_uniform_512_image():
    """One value everywhere: 262,144 equal rows of P; Cholesky of I + P^T D^-1 P fails on this."""
    torch.manual_seed(0)
    head = StochasticHead(3, classes=1)
    features = torch.full((1, 3, 512, 512), 2.0)
    distribution = head(features)
    loss = head.loss(distribution, torch.zeros(1, 512, 512, dtype=torch.int64), samples=4)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(one.grad).all() for one in head.parameters())
    normal = LowRankNormal(*(part.detach() for part in distribution[:3]))
    wide = normal._replace(
        diagonal=torch.full_like(normal.diagonal, 1e-5), factor=1e3 * torch.ones_like(normal.factor)
    )
    shifted = wide._replace(mean=wide.mean + 1e3)
    # A shift of one deviation in each of 10 equal columns: |shift|^2 = 1e6 / (10 * 1e6).
    torch.testing.assert_close(kl(shifted, wide), torch.tensor([0.05]), rtol=1e-4, atol=1e-6)
    # ln N at the mean, with one eigenvalue 1e-5 + 10 * 1e6 N and N - 1 of 1e-5.
    count = 512 * 512
    spread = math.log1p(10 * 1e6 * count / 1e-5) + count * math.log(2 * math.pi * 1e-5)
    assert wide.log_prob(wide.mean).item() == pytest.approx(-0.5 * spread, rel=1e-6)


def test_log_variance_cannot_overflow():
    head = StochasticHead(2, classes=2)
    with torch.no_grad():
        head.log_diagonal.bias.fill_(1e4)
    distribution = head(torch.zeros(1, 2, 4, 4))
    assert (
        torch.isfinite(distribution.diagonal).all() and torch.isfinite(distribution.sample(4)).all()
    )


def test_gradients_of_density_and_divergence(rng):
    p, q = normal_of(rng, batch=1, size=(2, 3)), normal_of(rng, batch=1, size=(2, 3))
    parts = [part.requires_grad_() for part in (*p[:3], *q[:3])]
    torch.autograd.gradcheck(lambda *x: kl(LowRankNormal(*x[:3]), LowRankNormal(*x[3:])), parts)
    torch.autograd.gradcheck(lambda *x: LowRankNormal(*x[:3]).log_prob(x[3]), parts[:4])


def test_refuses(rng):
    with pytest.raises(ValueError, match=r"^dims must be 2 .* or 3 .*, got 4"):
        StochasticHead(4, 2, dims=4)
    with pytest.raises(ValueError, match=r"^rank must be a whole number of at least 1, got 0"):
        StochasticHead(4, 2, rank=0)
    with pytest.raises(ValueError, match=r"^epsilon must be finite and above 0, got 0"):
        StochasticHead(4, 2, epsilon=0)
    head = StochasticHead(4, 2)
    with pytest.raises(ValueError, match=r"^features must have the 4 channels .*, got 3"):
        head(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match=r"^features must be \(B, 4, H, W\), got"):
        head(torch.zeros(1, 4, 8))
    distribution = head(torch.zeros(1, 4, 8, 8))
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, 3, 3] = 2
    with pytest.raises(ValueError, match=r"^labels must be class indices from 0 to 1, got 2"):
        head.loss(distribution, labels)
    with pytest.raises(ValueError, match=r"^labels must have the spatial size \(8, 8\)"):
        head.loss(distribution, labels[:, :4])
    with pytest.raises(ValueError, match=r"^samples must be a whole number of at least 1, got 0"):
        head.loss(distribution, labels * 0, samples=0)
    p = normal_of(rng)
    with pytest.raises(ValueError, match=r"^p and q must have one shape"):
        kl(p, normal_of(rng, size=(3, 3)))
    with pytest.raises(ValueError, match=r"^p and q must have the same mask"):
        kl(p, p._replace(mask=torch.ones(2, 4, 5, dtype=torch.bool)))
    with pytest.raises(ValueError, match=r"^factor and diagonal must be finite"):
        kl(p, p._replace(factor=p.factor * torch.inf))
    with pytest.raises(ValueError, match=r"^distributions must be at least two"):
        epkl([p])
    with pytest.raises(ValueError, match=r"^distributions must have one shape and rank"):
        epkl([p, normal_of(rng, rank=2)])
    with pytest.raises(ValueError, match=r"^value must be \(\.\.\., 2, 2, 4, 5\)"):
        p.log_prob(p.mean[..., :3])
