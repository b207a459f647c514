"""Batches, augmentation, and one loop that trains every network here."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from .data import Frames
from .encoder import FrozenEncoder
from .networks import LaplacePath, Pictures

# Validations of one training.
CHECKS = 12
# Linear augmentation: crops keep 80 % of the side (the paper's), turns up to 15 degrees.
_CROP, _TURN = 0.8, math.radians(15)
_CONTRAST, _BRIGHTNESS = 0.15, 0.05

Loss = Callable[[Pictures, Tensor, Generator], Tensor]


def batches(
    frames: Frames, encoder: FrozenEncoder, batch: int, device: torch.device
) -> Iterator[tuple[Pictures, Tensor]]:
    """All frames in order: images (B, 1, *S) in [0, 1] with what the encoder sees, and masks."""
    for start in range(0, len(frames), batch):
        chosen = np.arange(start, min(start + batch, len(frames)))
        images, masks = tensors(frames, chosen, device)
        yield Pictures(images, encoder), masks


def tensors(frames: Frames, chosen: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images (B, 1, *S) in [0, 1] and masks (B, *S) of the frames at these places."""
    images = torch.from_numpy(frames.images[chosen]).to(device).float()[:, None] / 255
    return images, torch.from_numpy(frames.masks[chosen]).to(device).long()


def augmented(images: Tensor, masks: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Random flips, crops, turns, contrast; all frames of a clip alike.

    Parameters
    ----------
    images, masks : torch.Tensor
        ``(B, 1, *S)`` and ``(B, *S)``.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    tuple of torch.Tensor
        The same shapes; masks keep their type.
    """
    batch = images.shape[0]
    draw = torch.rand((6, batch), generator=generator)
    zoom = 1 - (1 - _CROP) * draw[0]
    angle = _TURN * (2 * draw[1] - 1)
    flip = torch.where(draw[2] < 0.5, 1.0, -1.0)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    shift = (1 - zoom) * (2 * draw[3:5] - 1)
    matrix = torch.stack(
        [torch.stack([flip * cos, -sin, shift[0]], 1), torch.stack([flip * sin, cos, shift[1]], 1)],
        1,
    ).to(images.device)
    planes = images.flatten(1, -3)
    labels = masks.to(images.dtype).reshape(planes.shape)
    both = torch.cat([planes, labels], 1)
    grid = F.affine_grid(matrix, [batch, 1, *both.shape[2:]], align_corners=False)
    moved = F.grid_sample(both, grid, padding_mode="reflection", align_corners=False)
    pixels, labels = moved.chunk(2, 1)
    change = torch.rand((2, batch, 1, 1, 1), generator=generator).to(images.device)
    pixels = pixels * (1 + _CONTRAST * (2 * change[0] - 1)) + _BRIGHTNESS * (2 * change[1] - 1)
    return pixels.clamp(0, 1).reshape(images.shape), (labels > 0.5).to(masks.dtype).reshape(
        masks.shape
    )


def train(
    network: nn.Module,
    loss: Loss,
    parameters: Iterable[nn.Parameter],
    splits: tuple[Frames, Frames],
    encoder: FrozenEncoder,
    config: Any,
    seed: int,
    tick: Callable[[], None],
) -> dict[str, Any]:
    """Train, and leave the network with the weights of its best validation.

    Parameters
    ----------
    network : torch.nn.Module
        In evaluation mode afterwards.
    loss : callable
        ``loss(pictures, masks, generator)``, a mean per pixel.
    parameters : iterable of torch.nn.Parameter
        Those that are trained.
    splits : tuple of Frames
        To train on, and to validate by.
    encoder : FrozenEncoder
        Of the heads that need it.
    config : usconf.recipes.lfusion.config.Config
        steps, batch, learning_rate, weight_decay, patience.
    seed : int
        Of batches, augmentation, dropout and samples.
    tick : callable
        Called after every step, and for those that an early end leaves out.

    Returns
    -------
    dict
        ``steps`` done, ``validation_loss`` (the best), ``best_step``.
    """
    chosen = list(parameters)
    device = next(network.parameters()).device
    optimiser = torch.optim.AdamW(chosen, config.learning_rate, weight_decay=config.weight_decay)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, total_steps=config.steps + 1, pct_start=0.1
    )
    every = max(1, config.steps // CHECKS)
    order = torch.Generator().manual_seed(seed)
    noise = torch.Generator(device).manual_seed(seed)
    best: tuple[float, int, Any] = (math.inf, 0, copy.deepcopy(network.state_dict()))
    step = 0
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        while step < config.steps:
            network.train()
            picked = torch.randint(len(splits[0]), (config.batch,), generator=order).numpy()
            images, masks = augmented(*tensors(splits[0], picked, device), order)
            value = loss(Pictures(images, encoder), masks, noise)
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            # An exploding covariance must not cost the network.
            nn.utils.clip_grad_norm_(chosen, 1.0)
            optimiser.step()
            rate.step()
            step += 1
            tick()
            if step % every == 0 or step == config.steps:
                now = validation_loss(network, loss, splits[1], encoder, config.batch, seed)
                if now < best[0]:
                    best = (now, step, copy.deepcopy(network.state_dict()))
                elif step - best[1] >= config.patience * every:
                    break
    for _ in range(config.steps - step):
        tick()
    network.load_state_dict(best[2])
    network.eval()
    return {"steps": step, "validation_loss": best[0], "best_step": best[1]}


@torch.no_grad()
def validation_loss(
    network: nn.Module,
    loss: Loss,
    frames: Frames,
    encoder: FrozenEncoder,
    batch: int,
    seed: int,
) -> float:
    """Mean loss over a split, with the same noise at every call."""
    network.eval()
    device = next(network.parameters()).device
    noise = torch.Generator(device).manual_seed(seed)
    total = 0.0
    for pictures, masks in batches(frames, encoder, batch, device):
        total += float(loss(pictures, masks, noise)) * len(masks)
    return total / len(frames)


def fit_laplace(
    path: LaplacePath, frames: Frames, encoder: FrozenEncoder, batch: int
) -> dict[str, float]:
    """The Hessian of the trained mean over all training frames, and its prior precision."""
    device = next(path.parameters()).device
    path.eval()
    with torch.no_grad():
        path.head.fit(_Features(path, frames, encoder, batch, device))
    return {"precision": float(path.head.precision)}


class _Features:
    """Batches of (features, masks) that can be gone through more than once."""

    def __init__(
        self,
        path: LaplacePath,
        frames: Frames,
        encoder: FrozenEncoder,
        batch: int,
        device: torch.device,
    ) -> None:
        self.path, self.frames, self.encoder = path, frames, encoder
        self.batch, self.device = batch, device

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for pictures, masks in batches(self.frames, self.encoder, self.batch, self.device):
            yield self.path.body(pictures), masks
