"""How far an image is from what a network was trained on: one score each, and their AUROC."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import checks

SCORES = ("mean", "patch")
RESAMPLES = 2000
# Counts held at a time, 8 bytes each.
BLOCK = 2**21


class AUROC(NamedTuple):
    """Area under the ROC curve with the bounds of its confidence interval."""

    value: float
    low: float
    high: float


def ood_score(
    maps: Tensor, how: str = "mean", size: int = 10, mask: Tensor | None = None
) -> Tensor:
    """One score per image from its map of uncertainty.

    Parameters
    ----------
    maps : torch.Tensor
        (B, H, W) or (B, D, H, W), any measure.
    how : {"mean", "patch"}, default "mean"
        "mean" over the pixels, or the largest sum over a patch of size x size pixels (of any
        slice or frame; patches overlap).
    size : int, default 10 (the paper's)
        Side of the patches.
    mask : torch.Tensor, optional
        (*S), (B, *S) or (B, 1, *S): pixels that count.

    Returns
    -------
    torch.Tensor
        (B,).

    Raises
    ------
    TypeError, ValueError
        When the map is too small for a patch, a mask is empty, or an option is not known.

    Notes
    -----
    Zepf et al. (2024), section 4, use the patches. Choose measure and score before looking at the
    test set, or report all of them.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import ood_score
    >>> maps = torch.zeros(1, 32, 32)
    >>> maps[0, 3:8, 4:9] = 1.0
    >>> ood_score(maps, "patch"), ood_score(maps)
    (tensor([25.]), tensor([0.0244]))
    """
    if how not in SCORES:
        raise ValueError(f"how must be one of {SCORES}, got {how!r}")
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        raise TypeError(
            f"maps must be a floating-point tensor, got {getattr(maps, 'dtype', type(maps))}"
        )
    if maps.ndim not in (3, 4) or 0 in maps.shape:
        raise ValueError(f"maps must be (B, H, W) or (B, D, H, W), got {tuple(maps.shape)}")
    inside = checks.mask_like(mask, maps.shape[0], maps.shape[1:], maps.device)
    if inside is not None:
        maps = torch.where(inside, maps, 0.0)
    if how == "patch":
        return _largest_patch(maps, checks.whole("size", size, 1))
    if inside is None:
        return maps.flatten(1).mean(1)
    count = inside.flatten(1).sum(1)
    if not bool(count.all()):
        empty = int((count == 0).nonzero()[0])
        raise ValueError(f"mask must hold a pixel of every image, got none in image {empty}")
    return maps.flatten(1).sum(1) / count


def _largest_patch(maps: Tensor, size: int) -> Tensor:
    if size > min(maps.shape[-2:]):
        raise ValueError(
            f"size must be at most the map's smaller side, got {size} for {tuple(maps.shape)}"
        )
    frames = maps.reshape(-1, 1, *maps.shape[-2:])
    sums = F.avg_pool2d(frames, size, stride=1, divisor_override=1)
    return sums.reshape(maps.shape[0], -1).amax(1)


def auroc(scores_in: Any, scores_out: Any, confidence: float = 0.95, seed: int = 0) -> AUROC:
    """How well scores tell images like those of the training set (0) from others (1).

    Parameters
    ----------
    scores_in, scores_out : array of numbers
        Scores of in-distribution and of out-of-distribution images (tensors or sequences).
    confidence : float, default 0.95
        Level of the interval.
    seed : int, default 0
        Of the 2000 bootstrap samples.

    Returns
    -------
    AUROC
        value, low, high: the chance that an image from outside scores higher than one from inside
        (ties count half), and the percentile bootstrap interval; both groups are resampled.

    Raises
    ------
    ValueError
        When a group is empty or holds NaN, or confidence is not between 0 and 1.

    Notes
    -----
    The rank formula of Mann and Whitney, equal to scikit-learn's ``roc_auc_score``. A perfect
    separation gives the interval [1, 1], whatever the number of images: read it with that number.

    Examples
    --------
    >>> from usconf.uncertainty import auroc
    >>> round(auroc([0.1, 0.2, 0.3], [0.25, 0.4, 0.5]).value, 3)
    0.889
    """
    inside, outside = _scores("scores_in", scores_in), _scores("scores_out", scores_out)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence!r}")
    values, place = np.unique(np.concatenate((inside, outside)), return_inverse=True)
    below = np.bincount(place[: inside.size], minlength=values.size)
    above = np.bincount(place[inside.size :], minlength=values.size)
    resampled = _resampled(below, above, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail))
    return AUROC(float(_area(below, above)), float(low), float(high))


def _area(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """AUROC from how often each of the sorted values (last axis) occurs in either group."""
    smaller = np.cumsum(below, -1) - below / 2
    return np.asarray((above * smaller).sum(-1) / (below.sum(-1) * above.sum(-1)))


def _resampled(below: np.ndarray, above: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Areas of bootstrap samples: multinomial draws of how often each value occurs."""
    step = max(1, BLOCK // below.size)
    areas = []
    for start in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - start)
        drawn = [rng.multinomial(one.sum(), one / one.sum(), count) for one in (below, above)]
        areas.append(_area(*drawn))
    return np.concatenate(areas)


def _scores(name: str, scores: Any) -> np.ndarray:
    if isinstance(scores, Tensor):
        scores = scores.detach().cpu()
    array = np.asarray(scores, np.float64).ravel()
    if array.size == 0:
        raise ValueError(f"{name} must hold at least one score, got none")
    if np.isnan(array).any():
        raise ValueError(f"{name} must be numbers, got {int(np.isnan(array).sum())} NaN")
    return array
