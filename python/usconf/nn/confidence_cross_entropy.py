"""Losses that trust a label as far as the picture lets one see: confidence-weighted."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..random_walk import check_choices, number

CHOICES: dict[str, tuple[Any, ...]] = {
    "reduction": ("mean", "sum", "none"),
    "dice_on": ("labels", "confidence"),
}

# Maps that were resampled or stored as float32 may be rounded up.
_ROUNDING = 1e-6


class ConfidenceCrossEntropy(nn.Module):
    """Cross entropy weighted by confidence: the paper's CE_conf.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        "mean" (default, the paper's): the sum over the number of pixels, not over the sum of the
        weights. "none": a map (B, *S).
    ignore_index : int, optional
        Label of pixels that nobody labelled: they add nothing and are not counted. Default: none.

    Raises
    ------
    ValueError
        If a word is none of its argument's; by `forward` if a class index is out of range, the
        channels or shapes do not match, or confidence or soft labels leave [0, 1].
    TypeError
        If an argument is of another type.

    Notes
    -----
    Gonzalez Duque et al., "Can ultrasound confidence maps predict sonographers' labeling
    variability?", eq. 1: -1/m sum_i CM_i sum_c y_ic ln p_ic, p the softmax of the logits over the
    channels, m the number of pixels. It equals `torch.nn.functional.cross_entropy` with the soft
    target Y * CM. One channel means two classes: the sum has the terms y ln p and
    (1 - y) ln(1 - p), p the sigmoid of the logit.

    The weight scales the gradient of each pixel; the loss is still least at p = 1. It makes no
    probability the confidence.

    Checks read the values. On the CPU they raise; on a GPU and in compiled code, where reading
    would mean waiting, a wrong value makes the loss NaN instead. float16 and bfloat16 logits are
    computed as float32. Gradients flow to logits, soft labels and confidence.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> criterion = usconf.nn.ConfidenceCrossEntropy()
    >>> logits = torch.zeros(2, 4, 32, 24, requires_grad=True)
    >>> labels = torch.randint(0, 4, (2, 32, 24))
    >>> confidence = torch.full((2, 1, 32, 24), 0.5)
    >>> loss = criterion(logits, labels, confidence)
    >>> round(loss.item(), 4)  # 0.5 ln 4
    0.6931
    >>> loss.backward()
    """

    def __init__(self, reduction: str = "mean", ignore_index: int | None = None) -> None:
        super().__init__()
        check_choices(CHOICES, reduction=reduction)
        if ignore_index is not None and not isinstance(ignore_index, int):
            raise TypeError(
                f"ignore_index must be an integer or None, got {type(ignore_index).__name__}; "
                "None counts every pixel"
            )
        self.reduction = reduction
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, target: Tensor, confidence: Tensor) -> Tensor:
        """The loss of logits under labels that are as certain as the confidence.

        Parameters
        ----------
        logits : torch.Tensor
            (B, C, *S), S of two or three axes (one and more work alike); C = 1: one logit for two
            classes.
        target : torch.Tensor
            Class indices (B, *S) or (B, 1, *S), integers, or floats that are whole; or shares of
            the classes (B, C, *S) in [0, 1], one-hot or soft. With C = 1: 0, 1, or between.
        confidence : torch.Tensor
            (B, 1, *S) or (B, *S), in [0, 1].

        Returns
        -------
        torch.Tensor
            0-d, or (B, *S) with reduction="none"; float64 for float64 logits, else float32. 0 where
            there is no pixel to count.
        """
        given = _entered(logits, target, confidence, self.ignore_index)
        entropy = given.entropy()
        if self.reduction == "none":
            return entropy
        if self.reduction == "sum":
            return entropy.sum()
        if given.counted is None:
            return entropy.sum() / max(entropy.numel(), 1)
        return entropy.sum() / given.counted.sum().clamp(min=1)

    def extra_repr(self) -> str:
        """All settings."""
        return f"reduction={self.reduction!r}, ignore_index={self.ignore_index!r}"


class DiceConfidenceCrossEntropy(nn.Module):
    """Dice loss plus confidence-weighted cross entropy, in both readings of the paper.

    Parameters
    ----------
    dice_on : {"labels", "confidence"}
        What the Dice part compares the probabilities with. "labels" (default): the labels Y.
        "confidence": the confidence mask Y * CM, as the cross entropy does. The paper does not say.
    include_background : bool, default True
        Whether channel 0 counts in the Dice part.
    batch : bool, default False
        Whether to sum over the batch before the quotient is taken, rather than take the mean of the
        quotients of the images.
    squared_pred : bool, default False
        Whether the denominator holds squares.
    smooth_nr, smooth_dr : float, default 1e-5
        Added to numerator and denominator: a class that is nowhere, and is predicted nowhere,
        costs nothing.
    lambda_dice, lambda_ce : float, default 1
        Weights of the two parts.

    Raises
    ------
    ValueError
        If a word is none of its argument's or a number is negative; by `forward` as
        `ConfidenceCrossEntropy`, and if the background is left out of a single channel.
    TypeError
        If an argument is of another type.

    Notes
    -----
    Gonzalez Duque et al., "Can ultrasound confidence maps predict sonographers' labeling
    variability?", eq. 1 and the configurations "diceCEconf". With g the labels or the mask, the
    Dice part is the mean over images and classes of

        1 - (2 sum p g + smooth_nr) / (sum p^k + sum g^k + smooth_dr),  k = 1, or 2 if squared_pred

    Defaults and names are those of MONAI's DiceCELoss, which equals this loss with softmax=True:
    given Y * CM as target the reading "confidence", its Dice part given Y and its cross entropy
    given Y * CM the reading "labels". In the reading "confidence" the Dice part stays above 0 for a
    perfect prediction wherever confidence is below 1.

    One channel means two classes for the cross entropy (see `ConfidenceCrossEntropy`) and the
    class 1 alone for the Dice part. Checks, dtypes and gradients: see there too.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> criterion = usconf.nn.DiceConfidenceCrossEntropy(dice_on="labels", include_background=False)
    >>> logits = torch.randn(2, 4, 16, 32, 24, requires_grad=True)
    >>> labels = torch.randint(0, 4, (2, 1, 16, 32, 24))
    >>> criterion(logits, labels, torch.rand(2, 1, 16, 32, 24)).backward()
    >>> logits.grad.shape
    torch.Size([2, 4, 16, 32, 24])
    """

    def __init__(
        self,
        dice_on: str = "labels",
        include_background: bool = True,
        batch: bool = False,
        squared_pred: bool = False,
        smooth_nr: float = 1e-5,
        smooth_dr: float = 1e-5,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
    ) -> None:
        super().__init__()
        check_choices(CHOICES, dice_on=dice_on)
        self.dice_on = dice_on
        self.include_background = bool(include_background)
        self.batch = bool(batch)
        self.squared_pred = bool(squared_pred)
        self.smooth_nr = number("smooth_nr", smooth_nr)
        self.smooth_dr = number("smooth_dr", smooth_dr)
        self.lambda_dice = number("lambda_dice", lambda_dice)
        self.lambda_ce = number("lambda_ce", lambda_ce)

    def forward(self, logits: Tensor, target: Tensor, confidence: Tensor) -> Tensor:
        """The loss, 0-d; arguments as `ConfidenceCrossEntropy.forward` takes them."""
        dice, entropy = self.parts(logits, target, confidence)
        return self.lambda_dice * dice + self.lambda_ce * entropy

    def parts(self, logits: Tensor, target: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """The Dice part and the cross entropy, each 0-d and not yet weighted, for logs."""
        given = _entered(logits, target, confidence, None)
        entropy = given.entropy()
        return self._dice(given), entropy.sum() / max(entropy.numel(), 1)

    def _dice(self, given: _Given) -> Tensor:
        found, wanted = given.probabilities(), given.shares()
        if self.dice_on == "confidence":
            wanted = wanted * given.confidence.unsqueeze(1)
        if not self.include_background:
            if found.shape[1] == 1:
                raise ValueError(
                    "include_background must be True for one channel, got False; its only class "
                    "is no background"
                )
            found, wanted = found[:, 1:], wanted[:, 1:]
        axes = ([0] if self.batch else []) + list(range(2, found.ndim))
        both = (found * wanted).sum(axes)
        if self.squared_pred:
            found, wanted = found.square(), wanted.square()
        each = found.sum(axes) + wanted.sum(axes)
        quotient = (2 * both + self.smooth_nr) / (each + self.smooth_dr)
        return (1 - quotient).sum() / max(quotient.numel(), 1)

    def extra_repr(self) -> str:
        """All settings."""
        names = (
            "dice_on", "include_background", "batch", "squared_pred", "smooth_nr", "smooth_dr",
            "lambda_dice", "lambda_ce",
        )  # fmt: skip
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


class _Given(NamedTuple):
    """Checked arguments. `confidence` is NaN where a value is wrong that could not be read."""

    logits: Tensor  # (B, C, *S), float32 or float64
    labels: Tensor  # (B, *S): int64 indices; or shares (B, C, *S) of the logits' dtype
    confidence: Tensor  # (B, *S), of the logits' dtype
    counted: Tensor | None  # (B, *S), False where the label is ignore_index; None: all are counted

    def entropy(self) -> Tensor:
        """CM_i times the cross entropy of pixel i, (B, *S); 0 where it is not counted."""
        if self.logits.shape[1] == 1:
            found = F.binary_cross_entropy_with_logits(self.logits, self.labels, reduction="none")
            found = found[:, 0]
        else:
            found = F.cross_entropy(self.logits, self.labels, reduction="none")
        found = found * self.confidence
        return found if self.counted is None else found.where(self.counted, 0)

    def probabilities(self) -> Tensor:
        """(B, C, *S)"""
        return self.logits.sigmoid() if self.logits.shape[1] == 1 else self.logits.softmax(1)

    def shares(self) -> Tensor:
        """The labels one-hot, or as soft as they were given: (B, C, *S)."""
        if self.labels.ndim == self.logits.ndim:
            return self.labels
        return torch.zeros_like(self.logits).scatter_(1, self.labels.unsqueeze(1), 1.0)


def _entered(
    logits: Tensor, target: Tensor, confidence: Tensor, ignore_index: int | None
) -> _Given:
    """The one door."""
    for name, value in {"logits": logits, "target": target, "confidence": confidence}.items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name} must be a tensor, got {type(value).__name__}; convert it with "
                "torch.as_tensor"
            )
        if value.is_complex() or (name != "target" and not value.is_floating_point()):
            kind = "real" if name == "target" else "of a floating dtype"
            raise TypeError(f"{name} must be {kind}, got {value.dtype}; use {name}.float()")
    shape = tuple(logits.shape)
    if len(shape) < 3 or shape[1] == 0:
        raise ValueError(
            f"logits must be (B, C, *S) with a channel for every class, got shape {shape}; a "
            "network's output before its softmax"
        )
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    plane = (shape[0], *shape[2:])
    trusted = _plane(confidence, plane, "confidence", shape).to(logits.dtype)
    faulty = _refused(
        trusted,
        1 + _ROUNDING,
        "confidence must lie in [0, 1], got {}; divide an 8-bit map by 255",
    )
    if shape[1] > 1 and tuple(target.shape) == shape:
        if ignore_index is not None:
            raise ValueError(
                "target must hold class indices with ignore_index, got shares of the classes; "
                "set the confidence of unlabelled pixels to 0"
            )
        labels, wrong = _shares(target.to(logits.dtype))
        counted = None
    else:
        labels = _plane(target, plane, "target", shape)
        counted = None if ignore_index is None else labels != ignore_index
        if counted is not None:
            labels = labels.where(counted, 0)
        labels, wrong = _binary(labels, logits) if shape[1] == 1 else _indices(labels, shape[1])
    for marks in (faulty, wrong):
        if marks is not None:
            # A product with NaN is NaN in its gradient too: no step is taken unseen.
            trusted = trusted.masked_fill(marks, torch.nan)
            counted = None if counted is None else counted | marks
    return _Given(logits, labels, trusted, counted)


def _plane(values: Tensor, plane: tuple[int, ...], name: str, shape: tuple[int, ...]) -> Tensor:
    """(B, *S) of (B, *S) or (B, 1, *S); ValueError for another shape."""
    found = tuple(values.shape)
    if found == plane:
        return values
    if found == (plane[0], 1, *plane[1:]):
        return values[:, 0]
    forms = f"{plane} or {(plane[0], 1, *plane[1:])}"
    if name == "target" and shape[1] > 1:
        forms += f" as class indices, or {shape} as shares"
    raise ValueError(
        f"{name} must have shape {forms}, got {found}; the logits have {shape[1]} channels and "
        f"shape {shape}"
    )


def _shares(target: Tensor) -> tuple[Tensor, Tensor | None]:
    complaint = "target must hold shares of the classes in [0, 1], got {}; or class indices"
    marks = _refused(target, 1 + _ROUNDING, complaint)
    return target, None if marks is None else marks.any(1)


def _binary(target: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None]:
    """(B, 1, *S) in the logits' dtype."""
    complaint = "target must lie in [0, 1] for one logit, got {}; more classes take a channel each"
    marks = _refused(target, 1 + _ROUNDING, complaint)
    return target.to(logits.dtype).unsqueeze(1), marks


def _indices(target: Tensor, classes: int) -> tuple[Tensor, Tensor | None]:
    """int64, within the classes."""
    complaint = (
        f"target must hold class indices from 0 to {classes - 1}, got {{}}; the logits have "
        f"{classes} channels"
    )
    marks = _refused(target, classes - 1, complaint, whole=target.is_floating_point())
    # What is wrong and could not be refused must still be an index.
    return (target if marks is None else target.masked_fill(marks, 0)).long(), marks


def _refused(values: Tensor, most: float, complaint: str, whole: bool = False) -> Tensor | None:
    """ValueError with the first value outside [0, most]; where none can be read, their marks."""
    if values.device.type == "cpu" and not torch.compiler.is_compiling():
        seen = values.detach()
        if seen.numel() == 0 or _sound(seen, most, whole):
            return None
        value = seen[_wrong(seen, most, whole)][0].item()
        raise ValueError(complaint.format(f"{value:g}"))
    return _wrong(values, most, whole)


def _sound(values: Tensor, most: float, whole: bool) -> bool:
    """One pass over the values; NaN is the least and the greatest of those it is among."""
    least, greatest = values.aminmax()
    within = bool(least >= 0) and bool(greatest <= most)
    return within and (not whole or bool((values == values.round()).all()))


def _wrong(values: Tensor, most: float, whole: bool) -> Tensor:
    wrong = ~((values >= 0) & (values <= most))
    return wrong | (values != values.round()) if whole else wrong
