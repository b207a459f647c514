"""The paper's ten configurations: how many channels go in, which loss trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LOSSES = ("dice", "CE", "diceCE", "CEconf", "diceCEconf")
# Section 3, in its order: baselines, map as second channel, map in the loss, both.
TEN = (
    "1ch-dice",
    "1ch-CE",
    "1ch-diceCE",
    "2ch-dice",
    "2ch-CE",
    "2ch-diceCE",
    "1ch-CEconf",
    "1ch-diceCEconf",
    "2ch-CEconf",
    "2ch-diceCEconf",
)
# The supplement's table: these two, over the pairs of alpha and beta.
ABLATED = ("2ch-dice", "1ch-CEconf")
# Losses without the map that those with it are held against.
_PLAIN = {"CEconf": "CE", "diceCEconf": "diceCE"}


@dataclass(frozen=True)
class Configuration:
    """One network, its input and its loss, and the map's parameters."""

    network: str
    channels: int
    loss: str
    alpha: float
    beta: float
    # True for a run of the ablation, whose name tells alpha and beta.
    ablation: bool = False

    @property
    def short(self) -> str:
        """Its name without the network, such as 2ch-diceCEconf."""
        return f"{self.channels}ch-{self.loss}"

    @property
    def name(self) -> str:
        """Its name in tables and files, such as unet-2ch-dice."""
        pair = f"-alpha{self.alpha:g}-beta{self.beta:g}" if self.ablation else ""
        return f"{self.network}-{self.short}{pair}"

    @property
    def uses_map(self) -> bool:
        """Whether the confidence map has any part in it."""
        return self.channels == 2 or self.loss in _PLAIN

    @property
    def baseline(self) -> str:
        """Name of what it is held against: the same loss without the map, one channel."""
        return f"{self.network}-1ch-{_PLAIN.get(self.loss, self.loss)}"


def parse(word: str, network: str, alpha: float, beta: float) -> Configuration:
    """The configuration of a word such as ``"2ch-dice"``; ValueError if there is none."""
    channels, _, loss = word.partition("ch-")
    if channels not in ("1", "2") or loss not in LOSSES:
        raise ValueError(f"configurations must be among {', '.join(TEN)}, got {word!r}")
    return Configuration(network, int(channels), loss, alpha, beta)


def criterion(loss: str) -> Callable[[Any, Any, Any], Any]:
    """The loss as a function of (logits, target, confidence).

    Logits ``(B, C, *S)``, target class indices ``(B, 1, *S)`` in int64, confidence ``(B, 1, *S)``.
    Dice and Dice + CE are MONAI's with softmax, background included, as MONAI's defaults have it;
    Dice + CE_conf is the reading "Dice on the labels".
    """
    from monai.losses import DiceCELoss, DiceLoss
    from torch.nn.functional import cross_entropy

    from ...nn.confidence_cross_entropy import ConfidenceCrossEntropy, DiceConfidenceCrossEntropy

    if loss == "dice":
        dice = DiceLoss(softmax=True, to_onehot_y=True)
        return lambda logits, target, confidence: dice(logits, target)
    if loss == "CE":
        return lambda logits, target, confidence: cross_entropy(logits, target[:, 0])
    if loss == "diceCE":
        both = DiceCELoss(softmax=True, to_onehot_y=True)
        return lambda logits, target, confidence: both(logits, target)
    if loss == "CEconf":
        return ConfidenceCrossEntropy()
    return DiceConfidenceCrossEntropy()
