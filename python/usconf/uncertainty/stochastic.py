"""Stochastic segmentation head: a distribution over whole maps of logits."""

from __future__ import annotations

import math

import torch
from torch import Generator, Tensor, nn

from . import checks
from .likelihood import convolution, log_likelihood
from .low_rank_normal import LowRankNormal

# A deviation of 148 logits: every pixel is certain of some class, more changes nothing. Without a
# bound exp overflows where a uniform region lets the variance grow.
LARGEST_LOG_VARIANCE = 10.0


class StochasticHead(nn.Module):
    """Last layer of a stochastic segmentation network: three 1x1 convolutions.

    Parameters
    ----------
    in_channels : int
        Channels of the features.
    classes : int
        1: one logit per pixel, Bernoulli. 2 or more: softmax.
    rank : int, default 10 (the paper's)
        Columns R of the low-rank factor.
    dims : int, default 2
        Spatial axes: 2 for (B, K, H, W), 3 for (B, K, D, H, W).
    epsilon : float, default 1e-5 (the paper's)
        Added to the diagonal.

    Raises
    ------
    ValueError
        When a number is out of its range, or features do not fit.

    Notes
    -----
    Monteiro et al. (2020), eq. 3-6: eta ~ N(mu, P P^T + D), D = exp(.) + epsilon. There is no
    fallback to independent normals: what cannot be computed is an error. Large uniform regions let
    the covariance grow without bound; a mask takes them out of the distribution and the loss.
    The exponent of D is cut at 10 (a deviation of 148 logits).

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import StochasticHead
    >>> _ = torch.manual_seed(0)
    >>> head = StochasticHead(8, classes=3)
    >>> features = torch.randn(2, 8, 16, 16)
    >>> distribution = head(features)
    >>> distribution.mean.shape, distribution.factor.shape
    (torch.Size([2, 3, 16, 16]), torch.Size([2, 10, 3, 16, 16]))
    >>> head.loss(distribution, torch.randint(0, 3, (2, 16, 16))).backward()
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        rank: int = 10,
        dims: int = 2,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.in_channels = checks.whole("in_channels", in_channels, 1)
        self.classes = checks.whole("classes", classes, 1)
        self.rank = checks.whole("rank", rank, 1)
        self.dims = checks.dimensions(dims)
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon must be finite and above 0, got {epsilon!r}")
        self.epsilon = float(epsilon)
        layer = convolution(dims)
        self.mean = layer(in_channels, classes, 1)
        self.log_diagonal = layer(in_channels, classes, 1)
        self.factor = layer(in_channels, classes * rank, 1)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> LowRankNormal:
        """The distribution of the logits.

        Parameters
        ----------
        features : torch.Tensor
            (B, in_channels, *S).
        mask : torch.Tensor, optional
            (*S), (B, *S) or (B, 1, *S); outside it samples are the mean.

        Returns
        -------
        LowRankNormal
            mean and diagonal (B, C, *S), factor (B, R, C, *S).
        """
        checks.features_like(features, self.in_channels, self.dims)
        batch, size = features.shape[0], features.shape[2:]
        diagonal = self.log_diagonal(features).clamp(max=LARGEST_LOG_VARIANCE).exp() + self.epsilon
        factor = self.factor(features).reshape(batch, self.rank, self.classes, *size)
        inside = checks.mask_like(mask, batch, size, features.device)
        return LowRankNormal(self.mean(features), diagonal, factor, inside)

    @staticmethod
    def loss(
        distribution: LowRankNormal,
        target: Tensor,
        samples: int = 20,
        mask: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        """Negative log-likelihood of label maps under the distribution, by sampling.

        Parameters
        ----------
        distribution : LowRankNormal
            What `forward` returned.
        target : torch.Tensor
            Class indices (B, *S) or (B, 1, *S).
        samples : int, default 20 (the paper's)
            Draws S, in antithetic pairs.
        mask : torch.Tensor, optional
            Pixels that count; those of `distribution` by default.
        generator : torch.Generator, optional
            Source of the noise.

        Returns
        -------
        torch.Tensor
            -mean_b [logsumexp_s sum_i ln p(y_i | eta_s,i) - ln S]: a sum over pixels, as the
            paper's eq. 8, so that its size grows with the image's.
        """
        checks.whole("samples", samples, 1)
        mean = distribution.mean
        batch, classes, size = mean.shape[0], mean.shape[1], mean.shape[2:]
        inside = checks.mask_like(mask, batch, size, mean.device)
        if inside is None:
            inside = distribution.mask
        elif distribution.mask is not None:
            inside = inside & distribution.mask
        labels = checks.labels_like(target, batch, classes, size, inside)
        draws = distribution.sample(samples, generator)
        repeated = labels.expand(samples, *labels.shape).flatten(0, 1)
        log_p = log_likelihood(draws.flatten(0, 1), repeated).unflatten(0, (samples, batch))
        if inside is not None:
            log_p = torch.where(inside, log_p, 0.0)
        # float64: maps of 1e5 nats must not lose what tells two draws apart.
        per_image = log_p.flatten(2).sum(2, dtype=torch.float64)
        return (math.log(samples) - per_image.logsumexp(0)).mean().to(mean.dtype)

    def extra_repr(self) -> str:
        """All settings."""
        return f"classes={self.classes}, rank={self.rank}, dims={self.dims}"
