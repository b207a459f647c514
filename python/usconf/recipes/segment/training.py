"""Training one network with one loss, and predicting with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..device import chosen_device
from .cases import Cases
from .config import Config
from .configurations import Configuration, criterion
from .folds import Fold
from .networks import build


@dataclass
class Planes:
    """All cases as tensors: image, label ``(N, *S)`` uint8, confidence ``(N, *S)`` float32."""

    image: Tensor
    label: Tensor
    confidence: Tensor

    @classmethod
    def of(cls, cases: Cases, maps: np.ndarray) -> Planes:
        """From the cases and their maps ``(N, *S)``."""
        return cls(
            torch.from_numpy(np.stack([case.image for case in cases.cases])),
            torch.from_numpy(np.stack([case.label for case in cases.cases])),
            torch.from_numpy(maps),
        )

    def input(self, indices: list[int], channels: int, device: torch.device) -> Tensor:
        """``(B, channels, *S)`` float32: image in [0, 1], and the map."""
        image = self.image[indices].to(device).float().div_(255)
        if channels == 1:
            return image[:, None]
        return torch.stack((image, self.confidence[indices].to(device)), dim=1)


@dataclass
class Trained:
    """The network of the best epoch, and how it came about."""

    network: nn.Module
    # Mean loss of each epoch, and (epoch, DSC) of each validation.
    losses: list[float]
    validation: list[tuple[int, float]]
    best_epoch: int


def train(
    planes: Planes,
    fold: Fold,
    classes: int,
    run: Configuration,
    config: Config,
    seed: int,
    note: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Trained:
    """Train with Adam; keep the weights of the epoch with the best validation DSC.

    Parameters
    ----------
    planes : Planes
        All cases, with the map of the run's alpha and beta.
    fold : Fold
        Whose cases train, whose validate.
    classes : int
        With the background.
    run : Configuration
        Network, channels, loss.
    config : Config
        Epochs, batch and the like.
    seed : int
        Of weights, order and dropout: all runs of a fold share it, so that they differ in the
        configuration alone.
    note : callable, optional
        Told epoch and mean loss.

    Returns
    -------
    Trained
        In evaluation mode.
    """
    device = chosen_device(config.device)
    torch.manual_seed(seed)
    network = _network(run, classes, config).to(device)
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate)
    loss_of = criterion(run.loss)
    order = np.random.default_rng([seed, 5])
    losses: list[float] = []
    validation: list[tuple[int, float]] = []
    best, weights = -1.0, copy.deepcopy(network.state_dict())
    for epoch in range(1, config.epochs + 1):
        network.train()
        shuffled = order.permutation(fold.training).tolist()
        total = 0.0
        for start in range(0, len(shuffled), config.batch):
            indices = shuffled[start : start + config.batch]
            logits = network(planes.input(indices, run.channels, device))
            target = planes.label[indices].to(device).long()[:, None]
            loss = loss_of(logits, target, planes.confidence[indices].to(device)[:, None])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(indices)
        losses.append(total / len(shuffled))
        if epoch % config.validate_every == 0 or epoch == config.epochs:
            score = _validation_dice(network, planes, fold.validation, run.channels, classes,
                                     config.batch)  # fmt: skip
            validation.append((epoch, score))
            if score > best:
                best, weights = score, copy.deepcopy(network.state_dict())
        note(epoch, losses[-1])
    network.load_state_dict(weights)
    best_epoch = next(epoch for epoch, score in validation if score == max(best, score))
    return Trained(network.eval(), losses, validation, best_epoch)


def predict(
    network: nn.Module, planes: Planes, indices: list[int], channels: int, batch: int
) -> np.ndarray:
    """Most likely class of every pixel, uint8 ``(N, *S)``."""
    device = next(network.parameters()).device
    network.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(indices), batch):
            some = indices[start : start + batch]
            logits = network(planes.input(some, channels, device))
            parts.append(logits.argmax(dim=1).to(torch.uint8).cpu().numpy())
    return np.concatenate(parts)


def _network(run: Configuration, classes: int, config: Config) -> Any:
    return build(
        run.network,
        run.channels,
        classes,
        config.shape,
        width=config.width,
        residual_units=config.residual_units,
        dropout=config.dropout,
    )


def _validation_dice(
    network: nn.Module,
    planes: Planes,
    indices: list[int],
    channels: int,
    classes: int,
    batch: int,
) -> float:
    """Mean over the organs of the DSC of all validation pixels together: never undefined."""
    found = predict(network, planes, indices, channels, batch)
    label = planes.label[indices].numpy()
    scores = []
    for index in range(1, classes):
        one, other = found == index, label == index
        both = np.count_nonzero(one) + np.count_nonzero(other)
        scores.append(2 * np.count_nonzero(one & other) / both if both else 1.0)
    return float(np.mean(scores))
