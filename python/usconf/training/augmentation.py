"""Random changes of a batch that leave the truth as it is: the same window for image and labels."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .config import Augmentation
from .dataset import sample_seed


class Batch(NamedTuple):
    """What a step trains on.

    Attributes
    ----------
    image : torch.Tensor
        (B, 1, H, W) float32 in [0, 1].
    label : torch.Tensor
        (B, 1, H, W) uint8: 0 None, 1 Good, 2 Bad.
    mask : torch.Tensor or None
        (B, 1, H, W) bool, True = valid; None: all is.
    """

    image: Tensor
    label: Tensor
    mask: Tensor | None


class _Drawn(NamedTuple):
    """Random choices of a batch, each (B,) float32 or int64."""

    top: np.ndarray
    height: np.ndarray
    left: np.ndarray
    width: np.ndarray
    gamma: np.ndarray
    gain: np.ndarray
    depth_gain: np.ndarray
    floor: np.ndarray
    noise: np.ndarray
    blur: np.ndarray
    noise_seed: np.ndarray


def plain(planes: dict[str, np.ndarray], device: torch.device) -> Batch:
    """The batch as it is, on the device."""
    return Batch(
        _on(planes["image"], device).float() / 255,
        _on(planes["label"], device),
        _on(planes["mask"], device).bool() if "mask" in planes else None,
    )


def changed(
    planes: dict[str, np.ndarray],
    device: torch.device,
    settings: Augmentation,
    seed: int,
    step: int,
    places: np.ndarray,
) -> Batch:
    """The batch changed at random, by choices that depend on (seed, step, place) alone.

    Parameters
    ----------
    planes : dict of numpy.ndarray
        image, label and perhaps mask, each (B, H, W) uint8.
    device : torch.device
        Where the work is done.
    settings : Augmentation
        How far.
    seed, step : int
        Of the run; the step counts from 0.
    places : numpy.ndarray
        (B,) places of these frames in the whole batch of the step.

    Returns
    -------
    Batch
        Of the same size.

    Notes
    -----
    A window (flip, zoom per axis, top crop) is read bilinearly from the image and copied from the
    nearest pixel of label and mask. Then, on values in [0, 1]: gamma curve, gain that changes with
    depth, black level and saturation (both clip, as scanners do), blur, noise.
    """
    batch = plain(planes, device)
    drawn = _draw(settings, seed, step, places)
    rows = _window(drawn.top, drawn.height, batch.image.shape[-2], device)
    columns = _window(drawn.left, drawn.width, batch.image.shape[-1], device)
    image = _bilinear(batch.image, rows, columns)
    label = _nearest(batch.label, rows, columns)
    mask = None if batch.mask is None else _nearest(batch.mask, rows, columns)
    return Batch(_look(image, drawn, device), label, mask)


def _draw(settings: Augmentation, seed: int, step: int, places: np.ndarray) -> _Drawn:
    count = len(places)
    generators = [np.random.default_rng(sample_seed(seed, step, int(place))) for place in places]
    # One row of uniform numbers per sample, always all of them: a setting that is turned off
    # does not move the others' numbers.
    u = np.stack([generator.random(16) for generator in generators]).T
    height = 1 - settings.zoom * u[0]
    width = 1 - settings.zoom * u[1]
    room = 1 - height
    top = np.where(u[2] < 0.5, 0.0, np.minimum(room, settings.top_crop * u[3]))
    left = (1 - width) * u[4]
    flipped = settings.flip & (u[5] < 0.5)
    left, width = np.where(flipped, left + width, left), np.where(flipped, -width, width)
    return _Drawn(
        top,
        height,
        left,
        width,
        np.exp(settings.gamma * (2 * u[6] - 1)),
        np.exp(settings.gain * (2 * u[7] - 1)),
        settings.depth_gain * (2 * u[8] - 1),
        settings.floor * (1.5 * u[9] - 0.5),
        np.where(u[10] < 0.5, 0.0, settings.noise * u[11]),
        np.where(u[12] < settings.blur, u[13] * 0.25, 0.0),
        np.array([generator.integers(2**62) for generator in generators]).reshape(count),
    )


def _window(first: np.ndarray, size: np.ndarray, length: int, device: torch.device) -> Tensor:
    """(B, length) places in pixels that a window [first, first + size] of [0, 1] reads."""
    centres = (np.arange(length) + 0.5) / length
    places = (first[:, None] + size[:, None] * centres) * length - 0.5
    return torch.from_numpy(places.astype(np.float32)).to(device)


def _bilinear(image: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    y = (rows + 0.5) * (2 / image.shape[-2]) - 1
    x = (columns + 0.5) * (2 / image.shape[-1]) - 1
    grid = torch.stack(
        [x[:, None, :].expand(-1, y.shape[1], -1), y[:, :, None].expand(-1, -1, x.shape[1])], -1
    )
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


def _nearest(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    frames, _, height, width = values.shape
    row = rows.round().clamp(0, height - 1).long()
    column = columns.round().clamp(0, width - 1).long()
    number = torch.arange(frames, device=values.device)[:, None, None]
    return values[:, 0][number, row[:, :, None], column[:, None, :]][:, None]


def _look(image: Tensor, drawn: _Drawn, device: torch.device) -> Tensor:
    height = image.shape[-2]
    image = image ** _each(drawn.gamma, device)
    depth = torch.linspace(-0.5, 0.5, height, device=device)[None, None, :, None]
    image = image * (_each(drawn.gain, device) * torch.exp(_each(drawn.depth_gain, device) * depth))
    floor = _each(drawn.floor, device)
    image = ((image - floor) / (1 - floor)).clamp(0, 1)
    share = _each(drawn.blur, device)
    image = _blurred(image, share)
    if drawn.noise.any():
        image = image + _each(drawn.noise, device) * _noise(drawn.noise_seed, image)
    return image.clamp(0, 1)


def _blurred(image: Tensor, share: Tensor) -> Tensor:
    """A (share, 1 - 2 share, share) filter along both axes."""
    wide = F.pad(image, (1, 1, 0, 0), mode="replicate")
    image = image + share * (wide[..., :-2] + wide[..., 2:] - 2 * image)
    high = F.pad(image, (0, 0, 1, 1), mode="replicate")
    return image + share * (high[..., :-2, :] + high[..., 2:, :] - 2 * image)


def _noise(seeds: np.ndarray, image: Tensor) -> Tensor:
    generator = torch.Generator(image.device)
    fields = [
        torch.randn(
            image.shape[1:], generator=generator.manual_seed(int(seed)), device=image.device
        )
        for seed in seeds
    ]
    return torch.stack(fields)


def _each(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device)[:, None, None, None]


def _on(plane: np.ndarray, device: torch.device) -> Tensor:
    # Copied: planes are views of one stack, and views of read-only files.
    return torch.from_numpy(np.ascontiguousarray(plane)).to(device)[:, None]
