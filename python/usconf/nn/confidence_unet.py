"""A small U-Net that reads confidence off an image, with a head that keeps it from rising."""

from __future__ import annotations

import numbers
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..random_walk import check_choices, number

HEADS = ("monotone", "logits")

# Rows that one unit of the head's rate is spread over: a network trained at one height then
# attenuates alike at any other.
_ROWS = 128

# Narrower pictures than this are constant: float32 cannot hold gradients through 1 / range.
_LEAST_RANGE = 1e-30

# Added to the standard deviation of the pixels in [0, 1]: empty pictures stay quiet.
_FLOOR = 0.05


class ConfidenceUNet(nn.Module):
    """A U-Net of ConvNeXt blocks from a B-mode image to the logit of its confidence.

    Parameters
    ----------
    head : {"monotone", "logits"}
        "monotone" (default): the network gives a rate of loss for every pixel, and confidence is
        ``exp(-cumsum(rates))`` down each beam: it cannot rise with depth, so it cannot be high
        again under a shadow; nor can a strong echo below a weak beam regain any. "logits": the
        network gives the logit itself, and may do both.
    width : int, optional
        Channels at 1/4 of the image's resolution; at 1/2, 1/8 and 1/16 there are half, 2 and 4
        times as many. Even. Default: 32, which makes 0.49 million weights; 42 makes 0.84 million.
    decay_total : float, optional
        What ln x loses from the first row to the last however good the image is (monotone head);
        the `decay_total` of `usconf.nn.PGMLoss`. Default: 0.3, the published 3/2560 a row at 256
        rows.
    smoothing : int, optional
        Half width in columns of the two box filters that rates pass through sideways (monotone
        head): without them errors of a rate draw a streak down to the last row. 0: none.
        Default: 2.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or out of range.

    Notes
    -----
    Ronchetti et al., 'Beyond Shadows': a small U-Net of ConvNeXt blocks (Liu et al., CVPR 2022)
    trained with `usconf.nn.PGMLoss`. What is dear happens at 1/4 of the image's resolution and
    below; one layer at 1/2 draws the edges. Frames are scaled to [0, 1] and then to mean 0 and
    standard deviation near 1, each by itself; depth is a second input. No custom operator is
    called: the network compiles, and exports to torch.export and ONNX.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> network = usconf.nn.ConfidenceUNet(width=16)
    >>> logits = network(255 * torch.rand(2, 1, 60, 50))
    >>> logits.shape
    torch.Size([2, 1, 60, 50])
    >>> bool((logits.diff(dim=-2) <= 0).all())
    True
    """

    def __init__(
        self,
        head: str = "monotone",
        width: int = 32,
        *,
        decay_total: float = 0.3,
        smoothing: int = 2,
    ) -> None:
        super().__init__()
        check_choices({"head": HEADS}, head=head)
        _check_count("width", width, 2)
        _check_count("smoothing", smoothing, 0)
        if width % 2:
            raise ValueError(f"width must be even, got {width}; the finest layers have half of it")
        self.head = head
        self.width = int(width)
        self.decay_total = number("decay_total", decay_total)
        if self.decay_total == 0:
            raise ValueError("decay_total must be above 0, got 0; a confidence of 1 has no logit")
        self.smoothing = int(smoothing)
        half, fine, middle, coarse = width // 2, width, 2 * width, 4 * width
        # One layer on (pixels, depth), split in two: depth is the same in all columns.
        self.stem = nn.Conv2d(1, half, 4, stride=2, padding=1)
        self.depth = nn.Parameter(torch.empty(half, 1, 1))
        self.fine = nn.Sequential(Step(half, fine), Block(fine))
        self.middle = nn.Sequential(Step(fine, middle), Block(middle), Block(middle))
        self.coarse = nn.Sequential(Step(middle, coarse), Block(coarse), Block(coarse))
        self.to_middle = nn.ConvTranspose2d(coarse, middle, 2, stride=2)
        self.middle_again = Block(middle)
        self.to_fine = nn.ConvTranspose2d(middle, fine, 2, stride=2)
        self.fine_again = Block(fine)
        self.to_half = nn.ConvTranspose2d(fine, half, 2, stride=2)
        self.last = nn.Conv2d(half, 4, 3, padding=1)
        self._start()
        whole: Any = self  # torch's own annotations know no memory_format here
        whole.to(memory_format=torch.channels_last)  # twice as fast on a CPU

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that make the same network again."""
        names = ("head", "width", "decay_total", "smoothing")
        return {name: getattr(self, name) for name in names}

    def forward(self, image: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of the confidence, (B, 1, H, W), float32 (float64 for a float64 network).

        Parameters
        ----------
        image : torch.Tensor
            (B, 1, H, W), at least 1 x 1, rows = depth, transducer at row 0; finite values of any
            scale and floating dtype.
        mask : torch.Tensor, optional
            Nonzero = valid pixel, of a shape that broadcasts to the image's. Others take no part
            in the scaling of the image, look neither dark nor bright, and cost no confidence.
        """
        pixels = standardised(image, mask)
        height, width = pixels.shape[-2:]
        dtype = self.stem.weight.dtype
        below, beside = -height % 16, -width % 16
        x = F.pad(pixels.to(dtype), (0, beside, 0, below), mode="replicate")
        x = x.contiguous(memory_format=torch.channels_last)
        depth = _depth_of_pairs(pixels, (height + below) // 2).to(dtype)
        half = F.relu(self.stem(x) + self.depth * depth)
        fine = self.fine(half)
        middle = self.middle(fine)
        middle = self.middle_again(middle + self.to_middle(self.coarse(middle)))
        fine = self.fine_again(fine + self.to_fine(middle))
        half = F.relu(half + self.to_half(fine))
        found = F.pixel_shuffle(self.last(half), 2)[..., :height, :width].to(pixels.dtype)
        return found if self.head == "logits" else self._falling(found, mask)

    def _falling(self, rates: Tensor, mask: Tensor | None) -> Tensor:
        """Logits of a confidence that the rates diminish row by row.

        All of it in float32 also under autocast, which leaves sums and pools in their dtype:
        bfloat16 could not hold a sum over hundreds of rows.
        """
        height = rates.shape[-2]
        losses = F.softplus(rates) * (_ROWS / height)
        if self.smoothing:
            sides = [-1, -1, -1, 2 * self.smoothing]
            left, right = losses[..., :1].expand(sides), losses[..., -1:].expand(sides)
            # Not F.pad, which inductor (torch 2.13) cannot compile here.
            losses = torch.cat((left, losses, right), dim=-1)
            losses = _box(_box(losses, self.smoothing), self.smoothing)
        if mask is not None:
            losses = losses * (mask != 0)
        log_x = -torch.cumsum(losses + self.decay_total / height, dim=-2)
        return log_x - torch.log(-torch.expm1(log_x))

    def _start(self) -> None:
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        for layer in (self.stem, self.last):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.normal_(self.depth, std=0.5)
        if self.head == "monotone":
            # softplus(-5) = 0.0067: an untrained map falls from 1 to about a third.
            nn.init.constant_(self.last.get_parameter("bias"), -5.0)


class Block(nn.Module):
    """ConvNeXt block: depthwise 7 x 7, normalisation over channels, two layers with a ReLU.

    ReLU: a GELU takes a fourth of the time on a CPU, and is found to be no better.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.widen = nn.Linear(channels, 4 * channels)
        self.narrow = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the features and what the block makes of them."""
        y = self.norm(self.spread(x).permute(0, 2, 3, 1))
        return x + self.narrow(F.relu(self.widen(y))).permute(0, 3, 1, 2)


class Step(nn.Module):
    """Normalisation over channels, then one pixel for every 2 x 2."""

    def __init__(self, channels: int, more: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.merge = nn.Conv2d(channels, more, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Features of the next coarser grid."""
        return self.merge(self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def _check_count(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}; it counts columns or channels")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}; see the docstring")


def standardised(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """Frames scaled to [0, 1], less their mean, over their standard deviation + 0.05.

    float32, or float64 for float64 frames. Pixels outside of the mask do not count and become 0.
    """
    pixels = image if image.dtype == torch.float64 else image.float()
    over = (-3, -2, -1)
    valid = None if mask is None else (mask != 0).expand_as(pixels)
    if valid is None:
        low, high = pixels.amin(over, keepdim=True), pixels.amax(over, keepdim=True)
    else:
        some = valid.any(-1, keepdim=True).any(-2, keepdim=True).any(-3, keepdim=True)
        low = pixels.masked_fill(~valid, torch.inf).amin(over, keepdim=True)
        high = pixels.masked_fill(~valid, -torch.inf).amax(over, keepdim=True)
        low, high = low.masked_fill(~some, 0), high.masked_fill(~some, 0)
        pixels = torch.where(valid, pixels, low)
    # Halves: the range of finite numbers may be none.
    span = high / 2 - low / 2
    pixels = (pixels / 2 - low / 2) / torch.where(span > _LEAST_RANGE, span, 1)
    if valid is None:
        pixels = pixels - pixels.mean(over, keepdim=True)
        return pixels / (pixels.square().mean(over, keepdim=True).add(1e-12).sqrt() + _FLOOR)
    weight = valid.to(pixels.dtype)
    weight = weight / weight.sum(over, keepdim=True).clamp(min=1)
    pixels = (pixels - (weight * pixels).sum(over, keepdim=True)) * valid
    variance = (weight * pixels.square()).sum(over, keepdim=True)
    return pixels / (variance.add(1e-12).sqrt() + _FLOOR)


def _depth_of_pairs(pixels: Tensor, count: int) -> Tensor:
    """Depth of each pair of rows, (count, 1): 0 at the first row of the image, 1 at its last."""
    pairs = torch.arange(count, dtype=pixels.dtype, device=pixels.device)
    return ((2 * pairs + 0.5) / max(pixels.shape[-2] - 1, 1)).clamp(max=1)[:, None]


def _box(rates: Tensor, half_width: int) -> Tensor:
    """Mean over 2 half_width + 1 columns, those alone that have them all.

    A sum of slices: torch's average pool takes ten times as long on a CPU.
    """
    width = 2 * half_width + 1
    count = rates.shape[-1] - width + 1
    total = rates[..., :count]
    for column in range(1, width):
        total = total + rates[..., column : column + count]
    return total / width
