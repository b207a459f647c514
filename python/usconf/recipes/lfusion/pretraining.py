"""How the small encoder is trained: made pictures without labels, parts of which are hidden."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import Config
from .encoder import MadeEncoder
from .made_data import made_frames
from .unets import pointwise, resized

# Seeds that no split has: these are 4 seed + 0 to 3.
_SEED = 1_000_003


def pretrain(
    encoder: MadeEncoder, config: Config, device: torch.device, tick: Callable[[], None]
) -> dict[str, Any]:
    """Train the encoder to guess what it does not see.

    Parameters
    ----------
    encoder : MadeEncoder
        Changed, and in evaluation mode afterwards.
    config : Config
        encoder_frames, encoder_steps, batch, learning_rate, seed.
    device : torch.device
        Of the encoder.
    tick : callable
        Called after every step.

    Returns
    -------
    dict
        ``steps``, and the ``loss`` of the last one.

    Notes
    -----
    Masked image modelling, as the encoder of the paper (USFM) was trained on three million
    pictures; here on a few hundred made ones.
    """
    size = config.encoder_size or config.side
    frames = made_frames(config.encoder_frames, size=size, seed=_SEED + config.seed)
    images = torch.from_numpy(frames.images).float()[:, None] / 255
    generator = torch.Generator().manual_seed(config.seed)
    torch.manual_seed(config.seed)
    decoder = pointwise(sum(encoder.WIDTHS), 1, 2).to(device)
    encoder.train()
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.AdamW(parameters, config.learning_rate)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.encoder_steps + 1, pct_start=0.1
    )
    value = torch.zeros(())
    for _ in range(config.encoder_steps):
        picked = torch.randint(len(images), (config.batch,), generator=generator)
        value = reconstruction_loss(encoder, decoder, images[picked].to(device), generator)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()
        rate.step()
        tick()
    encoder.eval()
    return {"steps": config.encoder_steps, "loss": float(value.detach())}


def reconstruction_loss(
    encoder: nn.Module, decoder: nn.Module, images: Tensor, generator: torch.Generator
) -> Tensor:
    """How badly hidden squares of the pictures are guessed from the rest of them.

    Half of the squares, an eighth of the side wide, are hidden by the pictures' mean. What is
    guessed is the picture at half resolution: speckle itself cannot be guessed.
    """
    half = (images.shape[-2] // 2, images.shape[-1] // 2)
    squares = torch.rand((images.shape[0], 1, 8, 8), generator=generator) < 0.5
    hidden = F.interpolate(squares.float(), size=images.shape[2:], mode="nearest")
    hidden = hidden.to(images.device)
    seen = torch.where(hidden > 0, images.mean((2, 3), keepdim=True), images)
    truth = F.avg_pool2d(images, 2)
    error = (resized(decoder(encoder(seen)), half) - truth).square()
    weight = 0.2 + resized(hidden, half)
    return (weight * error).sum() / weight.sum()
