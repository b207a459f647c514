"""Table 1 of the paper: Dice, Hausdorff distance and head circumference, with percentiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from ...uncertainty import head_circumference
from .data import Frames, trimester

# Name in the table, decimals that make sense, better when larger.
COLUMNS = ("DSC [%]", "HD [mm]", "AD [mm]")


def judge(
    mask: np.ndarray, truth: np.ndarray, spacing_mm: np.ndarray, circumference_mm: float
) -> dict[str, float]:
    """DSC in %, HD and AD in mm of one picture.

    Parameters
    ----------
    mask, truth : numpy.ndarray
        ``(H, W)``, not 0 is head; `truth` is not empty.
    spacing_mm : numpy.ndarray
        ``(2,)``: of rows and columns.
    circumference_mm : float
        True head circumference.

    Returns
    -------
    dict
        DSC [%], HD [mm], AD [mm] and missed (1 where no ellipse fits the mask). Where nothing was
        found DSC is 0, HD is the diagonal of the picture and AD the whole circumference: leaving
        such pictures out would reward silence.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.recipes.lfusion.segmentation import judge
    >>> y, x = np.mgrid[-20:21, -24:25]
    >>> head = np.hypot(y / 12, x / 16) < 1
    >>> judge(head, head, np.array([1.0, 1.0]), 88.4)["DSC [%]"]
    100.0
    """
    found, there = mask != 0, truth != 0
    judged = {
        "DSC [%]": 100 * overlap(found, there),
        "HD [mm]": hausdorff(found, there, spacing_mm),
    }
    try:
        measured = head_circumference(found, tuple(spacing_mm)).circumference_mm
        missed = 0.0
    except ValueError:
        measured, missed = 0.0, 1.0
    judged["AD [mm]"] = abs(measured - circumference_mm)
    return judged | {"missed": missed}


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two masks, from 0 to 1; 1 for two empty ones."""
    sizes = int((one != 0).sum() + (other != 0).sum())
    return 1.0 if sizes == 0 else 2 * float(((one != 0) & (other != 0)).sum()) / sizes


def hausdorff(one: np.ndarray, other: np.ndarray, spacing_mm: np.ndarray) -> float:
    """Largest distance in mm from either outline to the other one.

    Parameters
    ----------
    one, other : numpy.ndarray
        ``(H, W)``, not 0 is inside. Outlines are the pixels inside that have a neighbour outside.
    spacing_mm : numpy.ndarray
        ``(2,)``: of rows and columns.

    Returns
    -------
    float
        As MONAI's compute_hausdorff_distance; the picture's diagonal where one is empty.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.recipes.lfusion.segmentation import hausdorff
    >>> one, other = np.zeros((2, 9, 9)) > 0
    >>> one[2:5, 2:5] = other[2:5, 2:7] = True
    >>> hausdorff(one, other, np.array([1.0, 0.5]))
    1.0
    """
    outlines = [(mask != 0) & ~ndimage.binary_erosion(mask != 0) for mask in (one, other)]
    if not (outlines[0].any() and outlines[1].any()):
        return float(np.hypot(*(np.array(one.shape) * spacing_mm)))
    away = [ndimage.distance_transform_edt(~edge, sampling=spacing_mm) for edge in outlines]
    return float(max(away[1][outlines[0]].max(), away[0][outlines[1]].max()))


def judge_all(masks: np.ndarray, frames: Frames) -> dict[str, list[float]]:
    """`judge` of every picture, column by column."""
    rows = [
        judge(mask, truth, spacing, circumference)
        for mask, truth, spacing, circumference in zip(
            masks, frames.masks, frames.spacing_mm, frames.circumference_mm, strict=True
        )
    ]
    return {name: [row[name] for row in rows] for name in rows[0]}


def dice(masks: np.ndarray, truths: np.ndarray) -> list[float]:
    """DSC in % of every clip (or picture), over all of its frames."""
    return [100 * overlap(mask, truth) for mask, truth in zip(masks, truths, strict=True)]


def table(
    judged: Mapping[str, Mapping[str, Sequence[float]]], circumference_mm: np.ndarray
) -> list[dict[str, Any]]:
    """Rows of the paper's table: mean and deviation, percentiles, the first trimester.

    Parameters
    ----------
    judged : mapping
        Method -> what `judge_all` returned; of clips DSC alone.
    circumference_mm : numpy.ndarray
        True ones; they tell the trimester.

    Returns
    -------
    list of dict
        A row per method. The percentiles of HD and AD are those of their own values, as in the
        paper: the 75th percentile of a distance is one of the worse pictures, that of DSC one of
        the better ones.
    """
    early = trimester(circumference_mm) == 1
    rows = []
    for method, columns in judged.items():
        row: dict[str, Any] = {"method": method}
        values = {name: np.asarray(columns[name]) for name in COLUMNS if name in columns}
        for name, column in values.items():
            row[f"{name} mean"] = _mean(column)
        for percent in (25, 75):
            for name, column in values.items():
                row[f"{name} {percent} %"] = float(np.percentile(column, percent))
        for name, column in values.items():
            row[f"{name} 1st trimester"] = _mean(column[early]) if early.any() else None
        if "missed" in columns:
            row["missed"] = int(np.sum(columns["missed"]))
        rows.append(row)
    return rows


def _mean(values: np.ndarray) -> str:
    return f"{values.mean():.1f} ± {values.std():.1f}"
