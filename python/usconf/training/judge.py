"""Figures of a network on the frames that it was not trained on."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from .. import nn as layers
from ..pgm import PARTS
from . import metrics
from .augmentation import Batch, plain
from .config import Loss
from .dataset import BAD, Dataset, Splits


class Frames(NamedTuple):
    """Planes of some frames and what the network makes of them, (n, rows, columns) each."""

    planes: dict[str, np.ndarray]
    map: np.ndarray


def loss_of(settings: Loss, gamma: float) -> layers.PGMLoss:
    """The loss as a sum: its mean is the business of those who know all processes' pixels."""
    return layers.PGMLoss(
        gamma=gamma,
        decay_total=settings.decay_total,
        sigma=settings.sigma,
        reduction="sum",
        label_weights=settings.label_weights,
    )


def valid_pixels(batch: Batch) -> float:
    """How many pixels of a batch count."""
    return float(batch.label.numel() if batch.mask is None else batch.mask.sum())


def judge(
    network: nn.Module, settings: Loss, splits: Splits, batch: int, device: torch.device
) -> dict[str, float | None]:
    """Loss at the final gamma and the figures of `metrics` on the validation split.

    Parameters
    ----------
    network : torch.nn.Module
        From images to logits.
    settings : Loss
        Of the run. gamma is the final one at any step, so that figures of all steps compare.
    splits : Splits
        The data.
    batch : int
        Frames at once.
    device : torch.device
        Of the network.

    Returns
    -------
    dict
        By the names of the columns of validation.csv; None where the data do not tell: artifact
        AUROC and Spearman (mean over frames) need phantoms, frame_change clips.
    """
    loss = loss_of(settings, settings.gamma)
    dataset = splits.validation
    total, parts, count = 0.0, np.zeros(len(PARTS)), 0.0
    maps = np.empty((len(dataset), *dataset.shape), np.float32)
    chunks: dict[str, list[np.ndarray]] = {name: [] for name in dataset.planes if name != "image"}
    with torch.inference_mode():
        for first in range(0, len(dataset), batch):
            planes = dataset.gather(np.arange(first, min(first + batch, len(dataset))))
            frames = plain(planes, device)
            logits = network(frames.image, frames.mask).float()
            whole, found = loss.with_parts(logits, frames.label, frames.mask)
            total += float(whole)
            parts += [float(found[name]) for name in PARTS]
            count += valid_pixels(frames)
            maps[first : first + len(logits)] = torch.sigmoid(logits)[:, 0].cpu().numpy()
            for name, chunk in chunks.items():
                chunk.append(planes[name])
        change = _change(network, splits.clips, device)
    truth = {name: np.concatenate(chunk) for name, chunk in chunks.items()}
    figures = {"loss": total / count, **dict(zip(PARTS, (parts / count).tolist(), strict=True))}
    return {**figures, **_figures(maps, truth), "frame_change": change}


def look(network: nn.Module, dataset: Dataset, count: int, device: torch.device) -> Frames:
    """Maps of `count` frames spread over a dataset, to look at."""
    count = min(count, len(dataset))
    planes = dataset.gather(np.linspace(0, len(dataset) - 1, count).round().astype(int))
    frames = plain(planes, device)
    with torch.inference_mode():
        logits = network(frames.image, frames.mask).float()
    return Frames(planes, torch.sigmoid(logits)[:, 0].cpu().numpy())


def _figures(maps: np.ndarray, truth: dict[str, np.ndarray]) -> dict[str, float | None]:
    label = truth["label"]
    mask = truth.get("mask")
    if mask is not None:
        label = label * mask
    found: dict[str, Any] = {
        "accuracy": metrics.annotated_accuracy(maps, label),
        "auroc": metrics.auroc(maps, label == BAD, where=label > 0),
        "violations": metrics.monotonicity_violations(maps),
        "roughness": metrics.horizontal_roughness(maps),
    }
    if "artifact" in truth:
        found["artifact_auroc"] = metrics.auroc(maps, truth["artifact"])
    if "transmission" in truth:
        pairs = zip(maps, truth["transmission"], strict=True)
        found["spearman"] = _mean([metrics.spearman(*pair) for pair in pairs])
    return {name: None if value is None or np.isnan(value) else value
            for name, value in found.items()}  # fmt: skip


def _change(network: nn.Module, clips: np.ndarray, device: torch.device) -> float | None:
    found = []
    for clip in clips:
        logits = network(plain({"image": clip, "label": clip}, device).image).float()
        found.append(metrics.frame_change(torch.sigmoid(logits)[:, 0].cpu().numpy()))
    return _mean(found) if found else None


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
