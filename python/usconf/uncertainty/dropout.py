"""Monte-Carlo dropout: a head, and draws of any network that has dropout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Generator, Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from . import checks
from .likelihood import convolution


class DropoutHead(nn.Module):
    """Convolution blocks with dropout after each, and a last 1x1 convolution.

    Parameters
    ----------
    in_channels : int
        Channels of the features.
    classes : int
        1: one logit per pixel. 2 or more: softmax.
    hidden : int or sequence of int, default 64
        Channels of the blocks, one block each: 3x3 convolution, batch normalisation, ReLU, dropout.
    p : float, default 0.1
        Probability that a value is dropped.
    dims : int, default 2
        Spatial axes: 2 or 3.
    whole_channels : bool, default False
        Drop channels (Dropout2d, Dropout3d) in place of single values: neighbours change together,
        and the n draws of a head of one block become one matrix product.

    Raises
    ------
    ValueError
        When a number is out of its range, or features do not fit.

    Notes
    -----
    Kendall et al., "Bayesian SegNet" (2015); Mueller et al., "L-FUSION", section 2, which does not
    say what is dropped; its reference drops values. `sample` runs what comes before the first
    dropout once for all draws.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import DropoutHead
    >>> head = DropoutHead(8, classes=1, hidden=16)
    >>> features = torch.randn(2, 8, 16, 16)
    >>> head(features).shape, head.sample(features, 20).shape
    (torch.Size([2, 1, 16, 16]), torch.Size([20, 2, 1, 16, 16]))
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        hidden: int | Sequence[int] = 64,
        p: float = 0.1,
        dims: int = 2,
        whole_channels: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = checks.whole("in_channels", in_channels, 1)
        self.classes = checks.whole("classes", classes, 1)
        self.dims = checks.dimensions(dims)
        if not 0 < p < 1:
            raise ValueError(f"p must be between 0 and 1, got {p!r}; 0 draws nothing")
        self.p = float(p)
        widths = [hidden] if isinstance(hidden, int) else list(hidden)
        if not widths:
            raise ValueError("hidden must name at least one block, got none; dropout follows each")
        self.whole_channels = bool(whole_channels)
        layer = convolution(dims)
        of_channels = nn.Dropout2d if dims == 2 else nn.Dropout3d
        drop = of_channels if whole_channels else nn.Dropout
        norm = nn.BatchNorm2d if dims == 2 else nn.BatchNorm3d
        self.blocks = nn.ModuleList()
        self.dropouts = nn.ModuleList()
        channels = in_channels
        for width in widths:
            checks.whole("hidden", width, 1)
            self.blocks.append(
                nn.Sequential(
                    layer(channels, width, 3, padding=1, bias=False), norm(width), nn.ReLU()
                )
            )
            self.dropouts.append(drop(p))
            channels = width
        self.last = layer(channels, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C, *S); with dropout in train mode only."""
        checks.features_like(features, self.in_channels, self.dims)
        return self._after(self.blocks[0](features))

    def _after(self, hidden: Tensor) -> Tensor:
        """From the first dropout on."""
        hidden = self.dropouts[0](hidden)
        for block, dropout in zip(self.blocks[1:], self.dropouts[1:], strict=True):
            hidden = dropout(block(hidden))
        logits: Tensor = self.last(hidden)
        return logits

    @torch.no_grad()
    def sample(self, features: Tensor, n: int, generator: Generator | None = None) -> Tensor:
        """Logits of n passes, of which only dropout differs.

        Parameters
        ----------
        features : torch.Tensor
            (B, in_channels, *S).
        n : int
            Number of passes.
        generator : torch.Generator, optional
            Decides what is dropped, and leaves torch's own random numbers as they were.

        Returns
        -------
        torch.Tensor
            (n, B, C, *S), without a gradient.
        """
        checks.features_like(features, self.in_channels, self.dims)
        checks.whole("n", n, 1)
        with only_dropout(self):
            hidden = self.blocks[0](features)
            if self.whole_channels and len(self.blocks) == 1:
                return self._folded(hidden, n, generator)
            return _draws(lambda: self._after(hidden), n, generator, features.device)

    def _folded(self, hidden: Tensor, n: int, generator: Generator | None) -> Tensor:
        """Draws with what is dropped multiplied into the last layer's weights, (n, B, C, *S)."""
        batch, width = hidden.shape[:2]
        kept = hidden.new_empty((n, batch, 1, width)).bernoulli_(1 - self.p, generator=generator)
        weight = self.last.weight.flatten(1) * (kept / (1 - self.p))  # (n, B, C, K)
        rows = weight.transpose(0, 1).flatten(1, 2)
        logits = (rows @ hidden.flatten(2)).unflatten(1, (n, self.classes)).transpose(0, 1)
        logits = logits.unflatten(3, hidden.shape[2:])
        assert self.last.bias is not None
        return logits + self.last.bias.view(-1, *[1] * self.dims)

    def extra_repr(self) -> str:
        """All settings."""
        given = f"classes={self.classes}, p={self.p}, dims={self.dims}"
        return f"{given}, whole_channels={self.whole_channels}"


@torch.no_grad()
def dropout_samples(
    model: nn.Module, image: Tensor, n: int, generator: Generator | None = None
) -> Tensor:
    """Logits of n passes of any network with only its dropout layers in train mode.

    Parameters
    ----------
    model : torch.nn.Module
        Holds layers of torch.nn's dropout family, such as a U-Net of MONAI with ``dropout=0.1``.
        (Dropout that a layer calls as a function goes by that layer's mode: it stays off.)
    image : torch.Tensor
        (B, ...), the network's input.
    n : int
        Number of passes.
    generator : torch.Generator, optional
        Decides what is dropped, and leaves torch's own random numbers as they were.

    Returns
    -------
    torch.Tensor
        (n, B, C, *S), without a gradient. Every layer is in the mode it was in afterwards, also
        after an error.

    Raises
    ------
    TypeError, ValueError
        When the network has no dropout, or does not return one tensor.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import dropout_samples
    >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Dropout(0.2))
    >>> dropout_samples(network, torch.rand(1, 1, 16, 16), 8).shape
    torch.Size([8, 1, 4, 14, 14])
    """
    with only_dropout(model):
        return _draws(lambda: model(image), n, generator, image.device)


@contextmanager
def only_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout layers in train mode, all others in eval mode; all as before in the end."""
    before = {module: module.training for module in model.modules()}
    layers = [module for module in before if isinstance(module, _DropoutNd) and module.p > 0]
    if not layers:
        raise ValueError(
            f"model must hold a dropout layer with p above 0, got {type(model).__name__} without; "
            "every draw would be the same"
        )
    try:
        model.eval()
        for layer in layers:
            layer.training = True
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def _draws(
    run: Callable[[], Tensor], n: int, generator: Generator | None, device: torch.device
) -> Tensor:
    checks.whole("n", n, 1)
    if generator is None:
        return torch.stack([_one(run) for _ in range(n)])
    # Dropout takes no generator: a seed drawn from it goes into a forked state.
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        return torch.stack([_one(run) for _ in range(n)])


def _one(run: Callable[[], Tensor]) -> Tensor:
    logits = run()
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"model must return one tensor of logits, got {type(logits).__name__}; "
            "wrap it to return the last"
        )
    return logits
