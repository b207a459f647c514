"""Last-layer Laplace: the Hessian pixel by pixel, tau, variances, draws, memory, refusals."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
from reference import uncertainty as reference

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from usconf.uncertainty import (  # noqa: E402
    LaplaceHead,
    LowRankNormal,
    StochasticHead,
    epkl,
    gauss_newton,
    measures,
)

CASES = [(1, 2), (2, 2), (4, 2), (1, 3), (3, 3)]


def scene(rng, classes, dims=2, channels=3, batch=4, scale=1.5):
    """A head with some weights, features, labels drawn from its prediction, and a mask."""
    torch.manual_seed(int(rng.integers(2**31)))
    head = LaplaceHead(channels, classes, dims)
    with torch.no_grad():
        for parameter in head.conv.parameters():
            parameter.normal_().mul_(scale)
    size = (3, 4, 5)[-dims:]
    features = torch.from_numpy(rng.standard_normal((batch, channels, *size)).astype(np.float32))
    logits = head(features)
    if classes == 1:
        labels = torch.bernoulli(logits.sigmoid()[:, 0]).long()
    else:
        labels = torch.distributions.Categorical(logits=logits.movedim(1, -1)).sample()
    mask = torch.from_numpy(rng.random(labels.shape) > 0.3)
    return head, features, labels, mask


def arrays(head):
    weight = head.conv.weight.detach().double().flatten(1).numpy()
    bias = head.conv.bias
    return weight, None if bias is None else bias.detach().double().numpy()


def batches(features, labels, mask=None):
    """Two of unlike size."""
    parts = [features, labels[:, None]] + ([] if mask is None else [mask[:, None]])
    return list(zip(*(part.split([1, len(features) - 1]) for part in parts), strict=True))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("classes", "dims"), CASES)
def test_hessian_equals_the_sum_over_pixels(rng, classes, dims, masked):
    head, features, labels, mask = scene(rng, classes, dims)
    mask = mask if masked else None
    head.fit(batches(features, labels, mask), precision=1.0)
    valid = np.ones(labels.shape) if mask is None else mask.numpy()
    expected = reference.gauss_newton(*arrays(head), features.numpy(), valid)
    assert head.hessian.dtype == torch.float64
    # The logits come out of a float32 convolution.
    np.testing.assert_allclose(head.hessian.numpy(), expected, rtol=1e-6, atol=1e-5)
    if masked:  # what is outside does not count, whatever it is
        features = torch.where(mask[:, None], features, torch.nan)
    head.double().fit(batches(features.double(), labels, mask), precision=1.0)
    assert np.isfinite(head.log_likelihood)
    np.testing.assert_allclose(head.hessian.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("classes", "dims"), CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_variance_and_evidence_equal_full_matrices(rng, classes, dims, bias):
    head, features, labels, _ = scene(rng, classes, dims)
    head.double()
    if not bias:
        head.conv.bias = None
        head = LaplaceHead.of(head.conv)
    features = features.double()
    weights = arrays(head)
    theta = weights[0] if weights[1] is None else np.column_stack(weights)
    for tau in (1e-3, 2.0):
        head.fit([(features, labels)], precision=tau)
        hessian = reference.gauss_newton(*weights, features.numpy(), np.ones(labels.shape))
        np.testing.assert_allclose(
            head.variance(features).numpy(),
            reference.logit_variance(hessian, tau, features.numpy(), weights[1], classes),
            rtol=1e-9,
        )
        p = reference.probabilities(head(features).detach().numpy()[None])[0]
        likelihood = np.log(np.take_along_axis(p, labels.numpy()[:, None], 1)).sum()
        assert head.log_likelihood == pytest.approx(likelihood, rel=1e-12)
        expected = reference.log_evidence(likelihood, theta, hessian, tau)
        assert head.log_marginal_likelihood() == pytest.approx(expected, rel=1e-12)


def test_two_classes_agree_with_one_logit(rng):
    """Softmax of (-z/2, z/2): the variance of the difference is that of z at twice the precision.

    A prior of tau on both halves is one of tau / 2 on their difference.
    """
    head, features, labels, _ = scene(rng, 1)
    two = LaplaceHead(3, 2)
    with torch.no_grad():
        for target, source in zip(two.conv.parameters(), head.conv.parameters(), strict=True):
            target.copy_(torch.cat((-source, source)) / 2)
    head.double().fit([(features.double(), labels)], precision=0.5)
    two.double().fit([(features.double(), labels)], precision=1.0)
    generator = torch.Generator().manual_seed(0)
    draws = two.sample(features.double(), 20000, generator)
    apart = (draws[:, :, 1] - draws[:, :, 0]).var(0)
    expected = head.variance(features.double())[:, 0]
    assert ((apart / expected - 1).abs() < 6 * (2 / 20000) ** 0.5).all()
    half = two.hessian.view(2, 4, 2, 4)
    torch.testing.assert_close(half[0, :, 0], head.hessian)
    torch.testing.assert_close(half[0, :, 1], -head.hessian)


@pytest.mark.parametrize("classes", [1, 3])
def test_precision_maximises_the_evidence(rng, classes):
    head, features, labels, _ = scene(rng, classes, batch=8)
    head.fit(batches(features, labels))
    best = head.log_marginal_likelihood()
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert head.log_marginal_likelihood(head.precision * factor) < best
    tau = head.precision
    head.precision = 3.0
    assert head.precision == 3.0 and head.log_marginal_likelihood() < best
    assert head.log_marginal_likelihood(tau) == pytest.approx(best)


@pytest.mark.parametrize("classes", [1, 3])
def test_precision_by_held_out_labels(rng, classes):
    """The grid's choice, against the predictive likelihood written out for every tau."""
    head, features, labels, mask = scene(rng, classes, batch=6)
    train, rest = (features[:2], labels[:2]), (features[2:], labels[2:], mask[2:])
    grid = [1e-3, 0.1, 1.0, 10.0, 1e3]
    head.fit([train], precision="held_out", held_out=[rest], grid=grid)
    chosen, found = head.precision, []
    for tau in grid:
        head.precision = tau
        z = head(rest[0]) / (1 + torch.pi / 8 * head.variance(rest[0])).sqrt()
        p = reference.probabilities(z.detach().numpy()[None])[0]
        log_p = np.log(np.take_along_axis(p, rest[1].numpy()[:, None], 1)[:, 0])
        found.append(log_p[rest[2].numpy()].sum())
    assert chosen == grid[int(np.argmax(found))] and np.ptp(found) > 1e-3


@pytest.mark.parametrize(("classes", "dims"), CASES)
def test_draws_are_convolutions_with_the_posterior(rng, classes, dims):
    head, features, labels, _ = scene(rng, classes, dims)
    head.fit([(features, labels)], precision=1.0)
    before = copy.deepcopy(head.state_dict())
    n = 4000
    weight, bias = head.draw(n, torch.Generator().manual_seed(7))
    logits = head.sample(features, n, torch.Generator().manual_seed(7))
    assert logits.shape == (n, len(features), classes, *features.shape[2:])
    for t in (0, n - 1):
        run = nn.functional.conv2d if dims == 2 else nn.functional.conv3d
        torch.testing.assert_close(
            logits[t], run(features, weight[t], bias[t]), rtol=1e-5, atol=1e-5
        )
    # theta's covariance, in units of its deviations.
    theta = torch.cat((weight.flatten(2), bias[..., None]), 2).flatten(1).double().numpy()
    covariance = np.linalg.inv(head.hessian.numpy() + np.eye(len(head.hessian)))
    deviation = np.sqrt(np.diag(covariance))
    found = np.cov(theta.T) / np.outer(deviation, deviation)
    assert np.abs(found - covariance / np.outer(deviation, deviation)).max() < 6 / n**0.5
    ratio = logits.var(0) / head.variance(features)
    assert (ratio - 1).abs().max() < 6 * (2 / n) ** 0.5
    assert (((logits.mean(0) - head(features)) / head.variance(features).sqrt()).abs()
            < 5 / n**0.5).all()  # fmt: skip
    for name, value in head.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(logits, head.sample(features, n, torch.Generator().manual_seed(7)))


def test_more_data_less_epistemic_uncertainty(rng):
    head, features, labels, _ = scene(rng, 1)
    head.fit([(features, labels)], precision=1.0)
    few = head.variance(features)
    head.fit([(features, labels)] * 10, precision=1.0)
    assert (head.variance(features) < few).all()
    far = 20 * features
    assert (head.variance(far) > head.variance(features)).all()
    assert measures(head.sample(far, 20)).MI.max() > 0


def test_state_survives_saving_and_casting(rng):
    head, features, labels, _ = scene(rng, 3)
    fresh = LaplaceHead(3, 3)
    assert not fresh.fitted and head.fit([(features, labels)]).fitted
    fresh.load_state_dict(head.state_dict())
    assert fresh.fitted and fresh.precision == head.precision
    assert torch.equal(fresh.variance(features), head.variance(features))
    other = LaplaceHead(3, 3).fit([(features, labels)])
    different = other.variance(features)
    other.load_state_dict(head.state_dict())  # also forgets what it had worked out
    assert torch.equal(other.variance(features), head.variance(features))
    assert not torch.equal(different, head.variance(features))
    exact = head.hessian.clone()
    head.half()
    assert head.conv.weight.dtype == torch.float16 and torch.equal(head.hessian, exact)
    assert copy.deepcopy(head).sample(features.half(), 3).dtype == torch.float16


def test_encoder_runs_in_eval_mode_and_gets_its_mode_back(rng):
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)
            self.frozen = nn.Dropout(0.5).eval()
            self.broken = False

        def forward(self, images):
            assert not self.training and not self.norm.training
            return images[:, :2] if self.broken else self.frozen(self.norm(images))

    head, features, labels, _ = scene(rng, 1)
    encoder = Encoder()
    encoder.norm.running_mean += 1.0
    before = encoder.norm.running_mean.clone()
    head.fit(batches(features, labels), encoder, precision=1.0)
    direct = copy.deepcopy(head).fit([(encoder.eval()(features), labels)], precision=1.0)
    encoder.train()
    encoder.frozen.eval()
    torch.testing.assert_close(head.hessian, direct.hessian)
    assert torch.equal(encoder.norm.running_mean, before)
    encoder.broken = True
    kept = head.hessian.clone()
    with pytest.raises(ValueError, match=r"^features must have the 3 channels .*, got 2") as caught:
        head.fit(batches(features, labels), encoder)
    assert caught.tb is not None  # frames are alive: nothing waits for a generator to be collected
    assert encoder.training and encoder.norm.training and not encoder.frozen.training
    assert torch.equal(head.hessian, kept)


def test_fits_from_a_data_loader(rng):
    head, features, labels, mask = scene(rng, 3, batch=7)
    data = torch.utils.data.TensorDataset(features, labels, mask)
    loader = torch.utils.data.DataLoader(data, batch_size=3, shuffle=True)
    head.fit(loader)
    other = copy.deepcopy(head).fit([(features, labels, mask)])
    torch.testing.assert_close(head.hessian, other.hessian, rtol=1e-9, atol=1e-9)
    assert head.precision == pytest.approx(other.precision, rel=1e-9)


def test_posterior_of_a_stochastic_heads_mean(rng):
    """Epistemic by the Laplace head, aleatoric by the distribution that it is the mean of."""
    _, features, labels, _ = scene(rng, 1)
    stochastic = StochasticHead(3, classes=1, rank=2)
    with torch.no_grad():
        distribution = stochastic(features)
    head = LaplaceHead.of(stochastic.mean).fit([(features, labels)], precision=1.0)
    means = head.sample(features, 6, torch.Generator().manual_seed(0))
    draws = [distribution._replace(mean=mean) for mean in means]
    maps = measures(draws, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(maps.PV, measures(means).PV)
    assert maps.MI.min() >= 0 and (maps.EE > 0).all()
    copies = [LowRankNormal(m, distribution.diagonal.clone(), distribution.factor) for m in means]
    torch.testing.assert_close(epkl(draws), epkl(copies), rtol=1e-5, atol=0)


def test_certain_pixels_weigh_what_they_weigh():
    """p (1 - p) of logits +-30 in float32 features: 1e-13, not 0; and +-1e4 is finite."""
    for classes in (1, 2):
        head = LaplaceHead(1, classes)
        with torch.no_grad():
            head.conv.bias.zero_()
            head.conv.weight.copy_(
                torch.tensor([1.0] if classes == 1 else [-0.5, 0.5]).view(-1, 1, 1, 1)
            )
        features = torch.tensor([30.0, -30.0]).view(1, 1, 1, 2)
        labels = torch.tensor([[[1, 0]]])
        head.fit([(features, labels)], precision=1.0)
        expected = 2 * 900 * np.exp(-30) / (1 + np.exp(-30)) ** 2
        assert head.hessian[0, 0].item() == pytest.approx(expected, rel=1e-12)
        head.fit([(features * 1e4 / 30, labels)], precision=1.0)
        assert torch.isfinite(head.hessian).all()
        for one in measures(head.sample(features * 1e4 / 30, 20)):
            assert torch.isfinite(one).all()


def test_chunks_add_up(rng, monkeypatch):
    head, features, labels, mask = scene(rng, 3, batch=2)
    big = features.repeat(1, 1, 12, 15)
    labels, mask = labels.repeat(1, 12, 15), mask.repeat(1, 12, 15)
    head.fit([(big, labels, mask)], precision=1.0)
    hessian, variance = head.hessian.clone(), head.variance(big)
    monkeypatch.setattr(gauss_newton, "CHUNK", 1)
    assert len(list(gauss_newton.chunks(big[0].flatten(1), 8))) > 10
    head.fit([(big, labels, mask)], precision=1.0)
    torch.testing.assert_close(head.hessian, hessian, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head.variance(big), variance)


MEMORY = """
import resource, torch
from usconf.uncertainty import LaplaceHead
torch.set_num_threads(1)
head = LaplaceHead(64, {classes})
images = (
    (torch.randn(1, 64, size, size), torch.randint(0, 2, (1, size, size))) for size in {sizes}
)
head.fit([next(images)], precision=1.0)
start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
head.fit(images, precision=1.0)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads ru_maxrss in KiB")
@pytest.mark.parametrize("classes", [1, 4])
def test_memory_of_a_512_image(classes):
    """Peak above what is loaded, with 64 channels (64 MiB an image): issue 6 asks for 1 GB."""
    code = MEMORY.format(classes=classes, sizes=[32, 512])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 400


def test_refuses_bad_batches(rng):
    head, features, labels, mask = scene(rng, 3)
    with pytest.raises(ValueError, match=r"^loader must yield at least one batch, got none"):
        head.fit([])
    used_up = iter([(features, labels)])
    head.fit(used_up)
    with pytest.raises(ValueError, match=r"^loader must yield at least one batch, got none"):
        head.fit(used_up)
    wrong = labels.clone()
    wrong[1, 2, 2] = 3
    with pytest.raises(ValueError, match=r"^labels must be class indices from 0 to 2, got 3"):
        head.fit([(features, wrong)])
    wrong[1, 2, 2] = -1
    with pytest.raises(ValueError, match=r"^labels must be class indices from 0 to 2, got -1"):
        head.fit([(features, wrong)])
    mask[1, 2, 2] = False
    head.fit([(features, wrong, mask)])
    with pytest.raises(ValueError, match=r"^features must have the 3 channels .*, got 4"):
        head.fit([(features.repeat(1, 2, 1, 1)[:, :4], labels)])
    with pytest.raises(ValueError, match=r"^features must have the spatial size \(4, 5\) of the "
                                         r"labels, got \(2, 2\); resize"):  # fmt: skip
        head.fit([(features, labels)], lambda images: images[..., :2, :2])
    with pytest.raises(TypeError, match=r"^features must be a tensor \(B, 3, H, W\), got list"):
        head.fit([(features, labels)], lambda images: [images])
    with pytest.raises(TypeError, match=r"^loader must yield \(images, labels\) .*got dict"):
        head.fit([{"image": features, "label": labels}])
    with pytest.raises(ValueError, match=r"^loader must yield .*got 1 parts in batch 0"):
        head.fit([(features,)])
    with pytest.raises(ValueError, match=r"^labels must be class indices, got fractions"):
        head.fit([(features, labels + 0.5)])
    with pytest.raises(ValueError, match=r"^mask must be \(4, 5\)"):
        head.fit([(features, labels, mask[:2])])
    with pytest.raises(ValueError, match=r"^features must be finite, got NaN or infinity"):
        head.fit([(features * torch.nan, labels)])
    with pytest.raises(ValueError, match=r"^labels must be \(4, 4, 5\) or \(4, 1, 4, 5\)"):
        head.fit([(features, labels[:2])])


def test_refuses_singular_hessians_and_bad_precisions(rng):
    head, features, labels, _ = scene(rng, 3)
    singular = r"^precision must make the Hessian positive definite, got 0, with"
    with pytest.raises(ValueError, match=singular):
        head.fit([(features, labels)], precision=0.0)
    assert not head.fitted
    one, features, labels, _ = scene(rng, 1)
    assert one.fit([(features, labels)], precision=0).fitted  # all directions were seen
    twice = torch.cat((features, features[:, :1]), 1)
    with pytest.raises(ValueError, match=singular):
        LaplaceHead(4, 1).fit([(twice, labels)], precision=0)
    head.fit([(features, labels)])
    head.precision = 0.0
    with pytest.raises(ValueError, match=singular):
        head.sample(features, 2)
    for bad in (-1.0, float("nan"), float("inf"), True):
        with pytest.raises(ValueError, match=r"^precision must be a finite number of at least 0"):
            head.fit([(features, labels)], precision=bad)
    with pytest.raises(ValueError, match=r'^precision must be a number, "marginal_likelihood"'):
        head.fit([(features, labels)], precision="best")
    with pytest.raises(ValueError, match=r"^held_out must be given with precision="):
        head.fit([(features, labels)], precision="held_out")
    with pytest.raises(ValueError, match=r"^grid must hold at least one"):
        head.fit([(features, labels)], precision="held_out", held_out=[(features, labels)], grid=[])
    with pytest.raises(ValueError, match=r"^precision must be above 0 for a marginal likelihood"):
        one.log_marginal_likelihood(0.0)
    nothing = LaplaceHead(3, 1)
    nn.init.zeros_(nothing.conv.weight)
    nn.init.zeros_(nothing.conv.bias)
    with pytest.raises(ValueError, match=r"^precision must be given as a number, for the marginal"):
        nothing.fit([(features, labels)])
    certain = LaplaceHead(3, 1)
    nn.init.constant_(certain.conv.bias, 1e4)
    with pytest.raises(ValueError, match=r"^precision must be given as a number, for the labels"):
        certain.fit([(features, labels)])


def test_refuses_other_layers_and_use_before_fit(rng):
    head, features, _, _ = scene(rng, 1)
    for call in (lambda: head.sample(features, 2), lambda: head.variance(features),
                 lambda: head.draw(2), lambda: head.log_marginal_likelihood()):  # fmt: skip
        with pytest.raises(RuntimeError, match=r"^the head must be fitted first: head\.fit"):
            call()
    with pytest.raises(ValueError, match=r"^conv must be 1x1 with stride 1 and one group"):
        LaplaceHead.of(nn.Conv2d(4, 2, 3))
    with pytest.raises(ValueError, match=r"^conv must be 1x1 with stride 1 and one group"):
        LaplaceHead.of(nn.Conv2d(4, 2, 1, groups=2))
    with pytest.raises(ValueError, match=r"^conv must have no padding"):
        LaplaceHead.of(nn.Conv2d(4, 2, 1, padding=1))
    with pytest.raises(TypeError, match=r"^conv must be a Conv2d or Conv3d, got Linear"):
        LaplaceHead.of(nn.Linear(4, 2))
    conv = nn.Conv3d(4, 2, 1)
    assert LaplaceHead.of(conv).conv is conv and LaplaceHead.of(conv).dims == 3
