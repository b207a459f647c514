"""The same on a CUDA device: nothing stays behind on the CPU, and the numbers agree."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.cuda]
torch = pytest.importorskip("torch")

from usconf.uncertainty import (  # noqa: E402
    DropoutHead,
    LaplaceHead,
    StochasticHead,
    dropout_samples,
    epkl,
    fuse,
    kl,
    measures,
    ood_score,
)


def scene(classes, dims=2):
    torch.manual_seed(classes)
    size = (3, 12, 14)[-dims:]
    features = torch.randn(2, 5, *size)
    return features, torch.randint(0, max(classes, 2), (2, *size)), torch.rand(2, *size) > 0.3


def agree(one, other, tolerance=1e-4):
    assert other.is_cuda
    torch.testing.assert_close(other.cpu(), one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("classes", "dims"), [(1, 2), (3, 2), (1, 3)])
def test_laplace(classes, dims):
    features, labels, mask = scene(classes, dims)
    head = LaplaceHead(5, classes, dims)
    moved = LaplaceHead(5, classes, dims)
    moved.load_state_dict(head.state_dict())
    moved = moved.cuda()
    batches = [(features, labels, mask)]  # of the CPU, as a DataLoader's
    kept = {"held_out": batches, "precision": "held_out"}
    for given in ({}, {"precision": 2.0}, kept):
        head.fit(batches, **given)
        moved.fit(batches, **given)
        agree(head.hessian, moved.hessian)
        assert moved.precision == pytest.approx(head.precision, rel=1e-4)
    agree(head.variance(features), moved.variance(features.cuda()))
    agree(head(features), moved(features.cuda()))
    generator = torch.Generator("cuda").manual_seed(0)
    draws = moved.sample(features.cuda(), 8, generator)
    assert draws.is_cuda and draws.shape[:2] == (8, 2)
    assert moved.log_marginal_likelihood() == pytest.approx(
        head.log_marginal_likelihood(), rel=1e-4
    )
    back = moved.cpu()
    agree(back.variance(features), back.cuda().variance(features.cuda()))


@pytest.mark.parametrize("classes", [1, 3])
def test_draws_to_numbers(classes):
    torch.manual_seed(0)
    one, other = 3 * torch.randn(2, 9, 2, classes, 16, 18)
    mask = torch.rand(2, 1, 16, 18) > 0.3
    for cpu, cuda in zip(measures(one, mask=mask), measures(one.cuda(), mask=mask), strict=True):
        agree(cpu, cuda, 1e-5)
        agree(ood_score(cpu, "patch"), ood_score(cuda, "patch"), 1e-4)
        agree(ood_score(cpu, mask=mask), ood_score(cuda, mask=mask.cuda()), 1e-5)
    for mean in ("logits", "probability"):
        agree(fuse(one, other, mean=mean), fuse(one.cuda(), other.cuda(), mean=mean))
    agree(epkl(one), epkl(one.cuda()))


@pytest.mark.parametrize("classes", [1, 3])
def test_distributions(classes):
    features, labels, mask = scene(classes)
    head = StochasticHead(5, classes, rank=3)
    with torch.no_grad():
        distribution = head(features, mask)
        other = head(features + 0.1, mask)
    parts = [type(distribution)(*(part.cuda() for part in one)) for one in (distribution, other)]
    agree(kl(distribution, other), kl(*parts), 1e-3)
    agree(epkl([distribution, other]), epkl(parts), 1e-3)
    values = distribution.sample(4)
    agree(distribution.log_prob(values), parts[0].log_prob(values.cuda()), 1e-3)
    generator = torch.Generator("cuda").manual_seed(0)
    assert parts[0].sample(5, generator).is_cuda
    assert measures(parts, generator=generator).MI.is_cuda
    moved = StochasticHead(5, classes, rank=3).cuda()
    loss = moved.loss(moved(features.cuda(), mask), labels.cuda(), mask=mask)
    loss.backward()
    assert loss.is_cuda and moved.factor.weight.grad.is_cuda


@pytest.mark.parametrize("whole_channels", [False, True])
def test_dropout(whole_channels):
    head = DropoutHead(5, 1, hidden=4, whole_channels=whole_channels).cuda()
    features = scene(1)[0].cuda()
    state = torch.cuda.get_rng_state()
    for generator in (torch.Generator("cuda"), torch.Generator("cpu")):
        if whole_channels and generator.device.type == "cpu":
            continue
        one, other = (head.sample(features, 4, generator.manual_seed(1)) for _ in range(2))
        assert one.is_cuda and torch.equal(one, other) and not torch.equal(one[0], one[1])
    assert torch.equal(torch.cuda.get_rng_state(), state)
    assert dropout_samples(head, features, 3).is_cuda
