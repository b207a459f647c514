"""The paper's eight metrics, by MONAI, and the number of islands."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import ndimage

# Name in tables -> the direction that is better, as the paper's arrows say.
METRICS = {
    "DSC": "up",
    "mIoU": "up",
    "precision": "up",
    "recall": "up",
    "ASD": "down",
    "HD": "down",
    "miss rate": "down",
    "fall-out": "down",
    "islands": "down",
}
DISTANCES = ("ASD", "HD")
# What MONAI calls the four that come from the confusion matrix.
_CONFUSION = {
    "precision": "precision",
    "recall": "sensitivity",
    "miss rate": "miss rate",
    "fall-out": "fall out",
}


def score(
    predicted: np.ndarray,
    reference: np.ndarray,
    classes: int,
    spacing: tuple[float, ...],
    percentile: float | None = None,
) -> dict[str, list[float]]:
    """All metrics of one case, a number per organ.

    Parameters
    ----------
    predicted, reference : numpy.ndarray
        Class indices ``(*S)``.
    classes : int
        With the background, which is not scored.
    spacing : tuple of float
        Size of a pixel along each axis; distances are in its unit.
    percentile : float, optional
        Of the Hausdorff distance; None (default) is its maximum.

    Returns
    -------
    dict
        Metric -> one float per organ. NaN where it is not defined: DSC, mIoU, recall and miss rate
        of an organ that is not there; precision of an empty prediction; distances where one of the
        two is empty.

    Notes
    -----
    MONAI 1.4 and later. ASD is the symmetric one (MONAI's default looks from the prediction only,
    and would not see what was missed). Islands: connected parts of a prediction, neighbours by
    corners included; 1 is right for one organ.
    """
    import torch
    from monai.metrics import (
        compute_confusion_matrix_metric,
        compute_dice,
        compute_iou,
        get_confusion_matrix,
    )

    one, other = (
        torch.from_numpy(np.stack([values == index for index in range(1, classes)]))[None].float()
        for values in (predicted, reference)
    )
    found: dict[str, Any] = {
        "DSC": compute_dice(one, other)[0].tolist(),
        "mIoU": compute_iou(one, other)[0].tolist(),
    }
    matrix = get_confusion_matrix(one, other)
    for name, theirs in _CONFUSION.items():
        found[name] = compute_confusion_matrix_metric(theirs, matrix)[0].tolist()
    distances = [
        _distances(predicted == index, reference == index, spacing, percentile)
        for index in range(1, classes)
    ]
    found["ASD"], found["HD"] = ([part[place] for part in distances] for place in (0, 1))
    found["islands"] = [_islands(predicted == index) for index in range(1, classes)]
    return {name: [float(value) for value in found[name]] for name in METRICS}


def undefined(predicted: np.ndarray, reference: np.ndarray, classes: int) -> int:
    """Organs whose distances are not defined because they were not found, or found wrongly."""
    return sum(
        bool((predicted == index).any()) != bool((reference == index).any())
        for index in range(1, classes)
    )


def _distances(
    found: np.ndarray, there: np.ndarray, spacing: tuple[float, ...], percentile: float | None
) -> tuple[float, float]:
    """ASD and HD; NaN where one is empty, for which MONAI warns and returns Inf or NaN."""
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    if not found.any() or not there.any():
        return float("nan"), float("nan")
    one, other = found[None, None], there[None, None]
    given: dict[str, Any] = {"include_background": True, "spacing": list(spacing)}
    with warnings.catch_warnings():
        # MONAI 1.5 and 1.6 call a function of their own in a way that they have deprecated.
        warnings.filterwarnings("ignore", message=".*always_return_as_numpy")
        average = compute_average_surface_distance(one, other, symmetric=True, **given)
        furthest = compute_hausdorff_distance(one, other, percentile=percentile, **given)
    return float(average), float(furthest)


def _islands(found: np.ndarray) -> int:
    _, count = ndimage.label(found, np.ones((3,) * found.ndim))
    return int(count)
