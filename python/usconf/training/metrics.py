"""Figures that judge a confidence map: against masks, transmission, labels, and by its own looks.

All of them take NumPy arrays (H, W) or, where said, whole clips; all are plain numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

GOOD, BAD = 1, 2


def auroc(confidence: Any, bad: Any, where: Any = None) -> float:
    """AUROC of *low* confidence as the sign of a bad pixel.

    The probability that a bad pixel, drawn at random, has a lower confidence than a good one; ties
    count half (Mann-Whitney U / (n_bad n_good)). 1: every bad pixel lies below every good one; 0.5:
    a coin; below 0.5: the map is higher where it should be lower. No scale: any increasing function
    of the map gives the same.

    Parameters
    ----------
    confidence : array of any shape
        The map, high = trusted.
    bad : array of the same shape
        Nonzero where the image must not be trusted; everything else counts as good.
    where : array of the same shape, optional
        Only pixels where it is nonzero count. Default: all.

    Returns
    -------
    float
        In [0, 1]; NaN when there is no bad or no good pixel.

    Raises
    ------
    ValueError
        If shapes differ or a confidence that counts is NaN.

    Examples
    --------
    >>> from usconf.training.metrics import auroc
    >>> auroc([0.9, 0.4, 0.6, 0.1], [0, 0, 1, 1])
    0.75
    """
    values, wrong = _equal_shapes(confidence=confidence, bad=bad)
    wrong = wrong != 0
    if where is not None:
        kept = _equal_shapes(confidence=values, where=where)[1] != 0
        values, wrong = values[kept], wrong[kept]
    _refuse_nan("confidence", values)
    # Sorted both: a binary search with sorted keys stays in the cache.
    low, high = np.sort(values[wrong]), np.sort(values[~wrong])
    if not (low.size and high.size):
        return float("nan")
    below = np.searchsorted(high, low, side="left").sum(dtype=np.float64)
    not_above = np.searchsorted(high, low, side="right").sum(dtype=np.float64)
    return float(1 - (below + not_above) / 2 / low.size / high.size)


def auroc_by_row(confidence: Any, bad: Any, where: Any = None) -> float:
    """`auroc` of each row by itself, averaged over the rows that hold both kinds of pixels.

    What is left of the AUROC when depth is taken away: a map that only falls with depth has 0.5.

    Parameters
    ----------
    confidence, bad, where : arrays (H, W)
        As of `auroc`.

    Returns
    -------
    float
        In [0, 1]; NaN when no row holds both.

    Raises
    ------
    ValueError
        If shapes differ or a confidence that counts is NaN.

    Examples
    --------
    >>> from usconf.training.metrics import auroc_by_row
    >>> auroc_by_row([[0.9, 0.8], [0.5, 0.1]], [[0, 1], [0, 1]])
    1.0
    """
    values, wrong = _equal_shapes(confidence=confidence, bad=bad)
    kept = np.ones(values.shape, bool) if where is None else np.asarray(where) != 0
    rows = [auroc(*row) for row in zip(values, wrong, kept, strict=True)]
    found = [value for value in rows if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")


def spearman(a: Any, b: Any, where: Any = None) -> float:
    """Spearman's rank correlation: Pearson's of the ranks, ties sharing their mean rank.

    Parameters
    ----------
    a, b : arrays of one shape
        For instance a map and the transmission of a phantom.
    where : array of the same shape, optional
        Only pixels where it is nonzero count. Default: all.

    Returns
    -------
    float
        In [-1, 1]; NaN when one of them is constant or fewer than two pixels count.

    Raises
    ------
    ValueError
        If shapes differ or a value that counts is NaN.

    Examples
    --------
    >>> from usconf.training.metrics import spearman
    >>> round(spearman([1, 2, 3, 4], [1, 4, 9, 8]), 6)
    0.8
    """
    first, second = _equal_shapes(a=a, b=b)
    if where is not None:
        kept = _equal_shapes(a=first, where=where)[1] != 0
        first, second = first[kept], second[kept]
    _refuse_nan("a", first)
    _refuse_nan("b", second)
    x, y = _centred_ranks(first.ravel()), _centred_ranks(second.ravel())
    norm = np.sqrt((x @ x) * (y @ y))
    return float(x @ y / norm) if norm > 0 else float("nan")


def monotonicity_violations(map: Any, tolerance: float = 1e-6) -> float:
    """Share of the pairs of neighbours on a scanline in which the deeper one is higher.

    Counts ``map[r + 1, c] > map[r, c] + tolerance`` over all (H - 1) W pairs. Sound does not
    recover on its way: property 1 of Ronchetti et al. ('Beyond Shadows'), which their loss enforces
    with a margin s that this count leaves out.

    Parameters
    ----------
    map : array (..., H, W)
        Rows are depth.
    tolerance : float, optional
        A rise up to here is rounding. Default: 1e-6, a few steps of float32 near 1.

    Returns
    -------
    float
        In [0, 1]; 0 where there is no pair.

    Examples
    --------
    >>> from usconf.training.metrics import monotonicity_violations
    >>> monotonicity_violations([[1.0, 1.0], [0.5, 0.7], [0.6, 0.3]])
    0.25
    """
    steps = np.diff(np.asarray(map, np.float64), axis=-2)
    return float(np.mean(steps > tolerance)) if steps.size else 0.0


def horizontal_roughness(map: Any) -> float:
    """Total variation along a row, averaged over the rows: mean_r sum_c |map[r, c+1] - map[r, c]|.

    How far confidence travels up and down on its way across the image; independent of how finely
    the row is sampled as long as the map is smooth. The two sides of one black shadow in a white
    row cost 2, which no map can save; streaks and speckle come on top. A map without lateral
    structure has 0, so read it beside the AUROC.

    Parameters
    ----------
    map : array (..., H, W)
        The last axis is lateral.

    Returns
    -------
    float
        Not negative; 0 where there is one column.

    Examples
    --------
    >>> from usconf.training.metrics import horizontal_roughness
    >>> horizontal_roughness([[0.0, 1.0, 0.0], [0.5, 0.5, 0.5]])
    1.0
    """
    steps = np.abs(np.diff(np.asarray(map, np.float64), axis=-1)).sum(axis=-1)
    return float(np.mean(steps)) if steps.size else 0.0


def frame_change(maps: Any, where: Any = None, relative: bool = False) -> float:
    """How much a clip's maps differ from one frame to the next: mean |map[t+1] - map[t]|.

    Parameters
    ----------
    maps : array (T, H, W)
        Maps of successive frames.
    where : array (H, W), optional
        Only pixels where it is nonzero count. Default: all.
    relative : bool, optional
        Divide by the mean over the frames of each map's standard deviation: maps with little
        contrast change little, and a constant one not at all. Default: False.

    Returns
    -------
    float
        Not negative; NaN for less than two frames, or for constant maps with `relative`.

    Raises
    ------
    ValueError
        If `maps` is no (T, H, W) or `where` no (H, W) of it.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.training.metrics import frame_change
    >>> frame_change(np.stack([np.zeros((2, 2)), np.full((2, 2), 0.5)]))
    0.5
    """
    clip = np.asarray(maps, np.float64)
    if clip.ndim != 3:
        raise ValueError(f"maps must be (T, H, W), got shape {clip.shape}; stack maps[None] of one")
    pixels = clip.reshape(len(clip), -1)
    if where is not None:
        kept = np.asarray(where) != 0
        if kept.shape != clip.shape[1:]:
            raise ValueError(
                f"where must be of shape {clip.shape[1:]}, got {kept.shape}; it is one frame's"
            )
        pixels = pixels[:, kept.ravel()]
    if len(pixels) < 2 or not pixels.shape[1]:
        return float("nan")
    change = float(np.mean(np.abs(np.diff(pixels, axis=0))))
    if not relative:
        return change
    contrast = float(np.mean(pixels.std(axis=1)))
    return change / contrast if contrast > 0 else float("nan")


def annotated_accuracy(map: Any, labels: Any, threshold: float = 0.5) -> float:
    """Share of the labelled pixels on the right side: Good above the threshold, Bad not above it.

    Parameters
    ----------
    map : array of any shape
        Confidence in [0, 1].
    labels : array of the same shape
        0 None, 1 Good, 2 Bad.
    threshold : float, optional
        Default: 0.5, where the model's Good and Bad are equally likely.

    Returns
    -------
    float
        In [0, 1]; NaN where nothing is labelled.

    Raises
    ------
    ValueError
        If shapes differ.

    Examples
    --------
    >>> from usconf.training.metrics import annotated_accuracy
    >>> annotated_accuracy([0.9, 0.2, 0.7, 0.4], [1, 1, 2, 0])  # right, wrong, wrong, not counted
    0.3333333333333333
    """
    values, given = _equal_shapes(map=map, labels=labels)
    counted = (given == GOOD) | (given == BAD)
    if not counted.any():
        return float("nan")
    right = (values > threshold) == (given == GOOD)
    return float(np.mean(right[counted]))


def _equal_shapes(**pair: Any) -> tuple[np.ndarray, np.ndarray]:
    """Both values as arrays."""
    (first_name, first), (name, second) = ((key, np.asarray(v)) for key, v in pair.items())
    if first.shape != second.shape:
        raise ValueError(
            f"{name} must be of {first_name}'s shape {first.shape}, got {second.shape}; "
            "bring them to one grid"
        )
    return first, second


def _refuse_nan(name: str, values: np.ndarray) -> None:
    if values.dtype.kind == "f" and np.isnan(values).any():
        count = int(np.isnan(values).sum())
        raise ValueError(f"{name} must hold numbers, got {count} NaN; leave them out by where=")


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks less their mean, float64; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2 - (len(values) + 1) / 2)[place.ravel()]
