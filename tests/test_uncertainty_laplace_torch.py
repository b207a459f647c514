"""LaplaceHead against laplace-torch, and deep heads through it."""

from __future__ import annotations

import copy
import sys

import pytest

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from usconf.uncertainty import LaplaceHead, deep_laplace, measures  # noqa: E402


class PerPixel(nn.Module):
    """One row of class scores per pixel, as laplace-torch wants them."""

    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, features):
        logits = self.conv(features).movedim(1, -1).flatten(0, -2)
        if logits.shape[1] == 1:
            return torch.cat((torch.zeros_like(logits), logits), 1)
        return logits


class Loader(list):
    dataset = ()


def scene(classes, dims=2, channels=4):
    torch.manual_seed(classes + dims)
    size = (3, 8, 6)[-dims:]
    features = torch.randn(5, channels, *size)
    labels = torch.randint(0, max(classes, 2), (5, *size))
    return features, labels


def deep_head(classes, dims=2):
    torch.manual_seed(classes)
    layer, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
    return nn.Sequential(
        layer(4, 5, 3, padding=1), norm(5), nn.ReLU(), nn.Dropout(0.3), layer(5, classes, 1)
    )


@pytest.mark.laplace
@pytest.mark.parametrize(("classes", "dims"), [(1, 2), (2, 2), (4, 2), (1, 3), (3, 3)])
def test_last_layer_equals_their_full_matrix(classes, dims):
    import laplace

    features, labels = scene(classes, dims)
    head = LaplaceHead(4, classes, dims)
    batches = Loader(
        (features[part], labels[part].flatten()) for part in (slice(0, 2), slice(2, 5))
    )
    batches.dataset = range(labels.numel())
    head.fit([(features[:2], labels[:2]), (features[2:], labels[2:])])
    theirs = laplace.Laplace(
        PerPixel(copy.deepcopy(head.conv)), "classification", subset_of_weights="all",
        hessian_structure="full", prior_precision=head.precision,
    )  # fmt: skip
    theirs.fit(batches)
    # Theirs: all weights, then all biases.
    order = [5 * c + k for c in range(classes) for k in range(4)]
    order += [5 * c + 4 for c in range(classes)]
    ours = head.hessian[order][:, order]
    assert (ours - theirs.H).abs().max() <= 1e-5 * ours.abs().max()
    evidence = theirs.log_marginal_likelihood().item()
    assert head.log_marginal_likelihood() == pytest.approx(evidence, rel=1e-5)
    precision = ours.float() + head.precision * torch.eye(len(ours))
    torch.testing.assert_close(theirs.posterior_precision, precision, rtol=1e-5, atol=1e-5)
    covariance = torch.linalg.inv(precision.double())
    assert (theirs.posterior_covariance - covariance).abs().max() <= 1e-4 * covariance.abs().max()
    if classes == 1:
        # d z / d theta = (phi, 1).
        phi = torch.cat((features, torch.ones_like(features[:, :1])), 1).movedim(1, -1)
        expected = (phi.double() @ covariance * phi).sum(-1)
        torch.testing.assert_close(
            head.variance(features)[:, 0].double(), expected, rtol=1e-4, atol=0
        )


@pytest.mark.laplace
@pytest.mark.parametrize(
    ("structure", "classes", "dims", "stochastic"),
    [("kron", 1, 2, False), ("kron", 3, 2, True), ("full", 2, 2, False), ("full", 1, 3, False)],
)
def test_deep_heads(structure, classes, dims, stochastic):
    features, labels = scene(classes, dims)
    head = deep_head(classes, dims)
    head[1].running_mean += 0.1
    kept = copy.deepcopy(head.state_dict())
    posterior = deep_laplace(
        head, [(features[:2], labels[:2]), (features[2:], labels[2:, None])],
        structure=structure, stochastic=stochastic,
    )  # fmt: skip
    assert head.training
    # 64 features of ReLU and dropout would differ in train mode; sampling runs in eval mode.
    draws = posterior.sample(features, 300, torch.Generator().manual_seed(0))
    assert draws.shape == (300, 5, classes, *features.shape[2:])
    assert torch.equal(draws, posterior.sample(features, 300, torch.Generator().manual_seed(0)))
    for name, value in head.state_dict().items():
        assert torch.equal(value, kept[name]), name
    best = posterior.laplace.log_marginal_likelihood().item()
    tau = posterior.precision
    for factor in (0.8, 1.25):
        posterior.laplace.prior_precision = tau * factor
        assert posterior.laplace.log_marginal_likelihood().item() < best + 1e-3
    posterior.laplace.prior_precision = 1e8
    tight = posterior.sample(features, 3)
    with torch.no_grad():
        expected = copy.deepcopy(head).eval()(features)
    torch.testing.assert_close(tight, expected.expand(3, *expected.shape), rtol=0, atol=1e-2)
    assert measures(draws).MI.min() >= 0 and measures(draws).MI.max() > measures(tight).MI.max()


@pytest.mark.laplace
def test_one_layer_is_the_exact_head():
    """structure="full" of a 1x1 convolution is LaplaceHead, with the same tau."""
    features, labels = scene(3)
    head = LaplaceHead(4, 3).fit([(features, labels)])
    posterior = deep_laplace(head.conv, [(features, labels)], structure="full")
    assert posterior.precision == pytest.approx(head.precision, rel=1e-5)
    deviation = posterior.sample(features, 3000, torch.Generator().manual_seed(0)).var(0)
    assert ((deviation / head.variance(features) - 1).abs() < 6 * (2 / 3000) ** 0.5).all()


@pytest.mark.laplace
def test_encoder_and_refusals():
    features, labels = scene(1)
    head = deep_head(1)
    images = features[:, :1]
    posterior = deep_laplace(
        head, [(images, labels)], lambda x: x.repeat(1, 4, 1, 1), precision=2.0
    )
    assert posterior.precision == 2.0
    with pytest.raises(ValueError, match=r"^structure must be one of \('kron', 'full'\)"):
        deep_laplace(head, [(features, labels)], structure="diag")
    with pytest.raises(ValueError, match=r"^precision must be above 0 or"):
        deep_laplace(head, [(features, labels)], precision=0.0)
    with pytest.raises(ValueError, match=r"^head must hold Linear or Conv2d layers"):
        deep_laplace(deep_head(1, 3), [(features, labels)])
    with pytest.raises(ValueError, match=r"^loader must yield \(images, labels\) for deep"):
        deep_laplace(head, [(features, labels, labels)])
    with pytest.raises(ValueError, match=r"^loader must yield at least one batch, got none"):
        deep_laplace(head, iter([(features, labels)]))
    with pytest.raises(ValueError, match=r"^labels must be class indices from 0 to 1, got 2"):
        deep_laplace(head, [(features, labels + 1)])
    with pytest.raises(ValueError, match=r"^labels must have the spatial size \(4, 4\)"):
        deep_laplace(head, [(features[..., :4, :4], labels)])
    assert all(parameter.requires_grad for parameter in head.parameters())


def test_tells_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "laplace", None)
    with pytest.raises(ImportError, match=r"pip install 'usconf\[laplace\]'"):
        deep_laplace(deep_head(1), [])
