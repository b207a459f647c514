"""The paths that are compared: a body, a head, logits to train on and draws to judge by."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from ...uncertainty import (
    DropoutHead,
    LaplaceHead,
    LowRankNormal,
    StochasticHead,
    dropout_samples,
)
from .encoder import FrozenEncoder
from .unets import FeatureBlock, UNet, pointwise, resized


class Pictures:
    """Images of a batch and, when they are asked for, the encoder's features of them.

    All heads on the encoder read the same features, and U-Nets none.
    """

    def __init__(self, images: Tensor, encoder: FrozenEncoder) -> None:
        self.images = images
        self.encoder = encoder

    @cached_property
    def encoded(self) -> Tensor:
        """Features on the encoder's grid."""
        return self.encoder(self.images)


class Draws(NamedTuple):
    """What a path's posterior holds for a batch.

    Attributes
    ----------
    logits : torch.Tensor
        (n, B, 1, *S), one sample of each draw: what is fused, and what counterfactuals are.
    gaussians : list of LowRankNormal or None
        The draws' distributions of logits, for paths that have one per draw.
    """

    logits: Tensor
    gaussians: list[LowRankNormal] | None = None

    @property
    def judged(self) -> Tensor | list[LowRankNormal]:
        """What measures are taken of."""
        return self.logits if self.gaussians is None else self.gaussians


class EncoderBody(nn.Module):
    """Frozen features -> trained block -> features at the picture's resolution."""

    def __init__(self, channels: int, hidden: int, dims: int) -> None:
        super().__init__()
        self.block = FeatureBlock(channels, hidden, dims)

    def forward(self, pictures: Pictures) -> Tensor:
        """(B, hidden, *S)."""
        found: Tensor = self.block(pictures.encoded, tuple(pictures.images.shape[2:]))
        return found


class UNetBody(nn.Module):
    """Images -> features at their resolution."""

    def __init__(self, width: int, levels: int, dims: int) -> None:
        super().__init__()
        self.unet = UNet(width, levels, dims)

    def forward(self, pictures: Pictures) -> Tensor:
        """(B, width, *S)."""
        found: Tensor = self.unet(pictures.images)
        return found


class StochasticPath(nn.Module):
    """A body with a stochastic head: one distribution of logits, and samples of it.

    Monteiro et al. 2020. There is no posterior of weights: its draws differ by what the data leave
    open (aleatoric) alone.
    """

    def __init__(self, body: nn.Module, channels: int, rank: int, dims: int) -> None:
        super().__init__()
        self.body = body
        self.head = StochasticHead(channels, 1, rank, dims)

    def loss(self, pictures: Pictures, target: Tensor, generator: Generator) -> Tensor:
        """Negative log-likelihood per pixel."""
        return _per_pixel(self.head, self.head(self.body(pictures)), target, generator)

    @torch.no_grad()
    def draw(self, pictures: Pictures, n: int, generator: Generator) -> Draws:
        """Samples of the one distribution."""
        return Draws(self.head(self.body(pictures)).sample(n, generator))


class LaplacePath(nn.Module):
    """A body with a Laplace head, and around each draw the Gaussian of a stochastic head.

    N(mu_theta(f), P P^T + D), theta from the Laplace posterior: L-FUSION's first path on the
    encoder's features, and the Laplacian segmentation network (Zepf et al., 2024) on a U-Net's.
    Trained in two parts: body and mean by cross entropy, whose minimum the posterior is around;
    then P and D alone, with that mean.
    """

    def __init__(self, body: nn.Module, channels: int, rank: int, dims: int) -> None:
        super().__init__()
        self.body = body
        self.head = LaplaceHead(channels, 1, dims)
        self.spread = StochasticHead(channels, 1, rank, dims)

    def loss(self, pictures: Pictures, target: Tensor, generator: Generator) -> Tensor:
        """Cross entropy of the mean, the first part."""
        del generator
        return cross_entropy(self.head(self.body(pictures)), target)

    def start_spread(self) -> Iterable[nn.Parameter]:
        """Give the stochastic head the trained mean; what its own part trains."""
        with torch.no_grad():
            self.spread.mean.load_state_dict(self.head.conv.state_dict())
        return [*self.spread.log_diagonal.parameters(), *self.spread.factor.parameters()]

    def spread_loss(self, pictures: Pictures, target: Tensor, generator: Generator) -> Tensor:
        """Negative log-likelihood per pixel, the second part."""
        with torch.no_grad():
            features = self.body(pictures)
        return _per_pixel(self.spread, self.spread(features), target, generator)

    @torch.no_grad()
    def draw(self, pictures: Pictures, n: int, generator: Generator) -> Draws:
        """One Gaussian for each draw of the weights, and one sample of each Gaussian."""
        features = self.body(pictures)
        means = self.head.sample(features, n, generator)
        around = self.spread(features)
        # Deviations about the common mean are the same in law for every draw of the weights.
        apart = around.sample(n, generator) - around.mean
        return Draws(means + apart, [around._replace(mean=mean) for mean in means])


class DropoutUNet(nn.Module):
    """A U-Net with dropout after each convolution block, left on for draws."""

    def __init__(self, width: int, levels: int, dims: int, dropout: float) -> None:
        super().__init__()
        self.network = nn.Sequential(UNet(width, levels, dims, dropout), pointwise(width, 1, dims))

    def loss(self, pictures: Pictures, target: Tensor, generator: Generator) -> Tensor:
        """Cross entropy."""
        del generator
        return cross_entropy(self.network(pictures.images), target)

    def draw(self, pictures: Pictures, n: int, generator: Generator) -> Draws:
        """One pass of the whole network for each draw."""
        return Draws(dropout_samples(self.network, pictures.images, n, generator))


class DropoutPath(nn.Module):
    """The dropout head on the encoder's features, L-FUSION's second path.

    Its logits are interpolated: the last layer is a 1 x 1 convolution, which commutes with that.
    """

    def __init__(self, channels: int, hidden: int, dims: int, dropout: float) -> None:
        super().__init__()
        self.head = DropoutHead(channels, 1, (hidden, hidden), dropout, dims)

    def loss(self, pictures: Pictures, target: Tensor, generator: Generator) -> Tensor:
        """Cross entropy."""
        del generator
        logits = resized(self.head(pictures.encoded), pictures.images.shape[2:])
        return cross_entropy(logits, target)

    def draw(self, pictures: Pictures, n: int, generator: Generator) -> Draws:
        """One pass of the head for each draw."""
        found = self.head.sample(pictures.encoded, n, generator)
        shape = pictures.images.shape[2:]
        return Draws(resized(found.flatten(0, 1), shape).unflatten(0, (n, -1)))


def make_paths(config: Any, channels: int, dims: int) -> dict[str, nn.Module]:
    """All paths, untrained: the three baselines, then L-FUSION's two.

    Parameters
    ----------
    config : usconf.recipes.lfusion.config.Config
        For widths, rank, dropout.
    channels : int
        Of the encoder's features.
    dims : int
        2 for pictures, 3 for clips.

    Returns
    -------
    dict of str to torch.nn.Module
        Name -> network with `loss` and `draw`.
    """
    width, levels, hidden = config.width, config.levels, config.hidden

    def unet() -> nn.Module:
        return UNetBody(width, levels, dims)

    paths: dict[str, Any] = {
        "SSN U-Net": StochasticPath(unet(), width, config.rank, dims),
        "Dropout U-Net": DropoutUNet(width, levels, dims, config.dropout),
        "Laplace U-Net": LaplacePath(unet(), width, config.rank, dims),
        "L": LaplacePath(EncoderBody(channels, hidden, dims), hidden, config.rank, dims),
        "D": DropoutPath(channels, hidden, dims, config.dropout),
    }
    if dims == 2:
        for path in paths.values():
            # A third faster on a CPU.
            path.to(memory_format=torch.channels_last)
    return paths


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over pixels of logits (B, 1, *S) against masks (B, *S)."""
    found: Tensor = nn.functional.binary_cross_entropy_with_logits(
        logits[:, 0], target.to(logits.dtype)
    )
    return found


def _per_pixel(
    head: StochasticHead, distribution: LowRankNormal, target: Tensor, generator: Generator
) -> Tensor:
    total = head.loss(distribution, target, generator=generator)
    return total / target[0].numel()
