"""The U-Net that all baselines share, and the convolutions on an encoder's features; 2-D, 3-D."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LAYERS: dict[int, tuple[Any, Any, Any, Any]] = {
    2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.Dropout2d),
    3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.Dropout3d),
}
_SMOOTH = {2: "bilinear", 3: "trilinear"}


class UNet(nn.Module):
    """A U-Net from gray pictures or clips to features at full resolution.

    Parameters
    ----------
    width : int
        Channels at full resolution, and of the result; they double with every halving.
    levels : int
        How often the resolution is halved.
    dims : {2, 3}
        Pictures or clips. Default: 2.
    dropout : float
        Share of channels that is dropped after each convolution block; 0 (default): no dropout.

    Notes
    -----
    Convolution 3, batch normalisation, ReLU, twice per level; max pooling; interpolation upwards.
    Dropout after each convolution block is Kendall et al.'s Bayesian SegNet as L-FUSION uses it. A
    head on top turns features into logits: one network each for `StochasticHead`, `LaplaceHead`
    and a plain 1 x 1 convolution.

    Examples
    --------
    >>> import torch
    >>> from usconf.recipes.lfusion.unets import UNet
    >>> UNet(8, 2)(torch.rand(1, 1, 30, 37)).shape
    torch.Size([1, 8, 30, 37])
    """

    def __init__(self, width: int, levels: int, dims: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.levels = levels
        self.dims = dims
        channels = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList(
            block(before, after, dims, dropout)
            for before, after in zip([1, *channels[:-1]], channels, strict=True)
        )
        self.up = nn.ModuleList(
            block(fine + coarse, fine, dims, dropout)
            for fine, coarse in zip(channels[-2::-1], channels[:0:-1], strict=True)
        )
        self.pool = _LAYERS[dims][2](2)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, width, *S) of images (B, 1, *S) in [0, 1]."""
        shape = images.shape[2:]
        beyond = [extent for size in reversed(shape) for extent in (0, -size % 2**self.levels)]
        x = F.pad(images, beyond, mode="replicate") if any(beyond) else images
        skips: list[Tensor] = []
        for number, layer in enumerate(self.down):
            x = layer(x if number == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for layer in self.up:
            skip = skips.pop()
            x = layer(torch.cat([skip, resized(x, skip.shape[2:])], 1))
        for axis, size in enumerate(shape, 2):
            x = x.narrow(axis, 0, size)
        return x


class FeatureBlock(nn.Module):
    """Two convolutions on the encoder's own grid, then interpolation to the picture's.

    What the Laplace head's last 1 x 1 convolution reads. Interpolating before or after a 1 x 1
    convolution is the same, but its Hessian sums over the picture's pixels.
    """

    def __init__(self, channels: int, hidden: int, dims: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            block(channels, hidden, dims, 0.0), block(hidden, hidden, dims, 0.0)
        )

    def forward(self, features: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(B, hidden, *shape) of features (B, channels, *s)."""
        return resized(self.layers(features), shape)


def block(before: int, after: int, dims: int, dropout: float) -> nn.Sequential:
    """Twice convolution, normalisation, ReLU; dropout of whole channels after each."""
    convolution, normalisation, _, drop = _LAYERS[dims]
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [
            convolution(channels, after, 3, padding=1, bias=False),
            normalisation(after),
            nn.ReLU(),
        ]
        if dropout > 0:
            layers.append(drop(dropout))
    return nn.Sequential(*layers)


def resized(x: Tensor, shape: Any) -> Tensor:
    """(B, C, *shape) by linear interpolation along every axis."""
    if tuple(x.shape[2:]) == tuple(shape):
        return x
    mode = _SMOOTH[x.dim() - 2]
    return F.interpolate(x, size=tuple(shape), mode=mode, align_corners=False)


def pointwise(channels: int, classes: int, dims: int) -> nn.Module:
    """The last 1 x 1 convolution."""
    layer: nn.Module = _LAYERS[dims][0](channels, classes, 1)
    return layer
