"""The confidence maps of all cases, frame by frame, computed once for each alpha and beta."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...integrations.map_cache import MapCache
from .cases import Cases
from .resampling import resampled


def maps_of(
    cases: Cases,
    alpha: float,
    beta: float,
    cache: Path,
    note: Callable[[str], None] = lambda text: None,
) -> np.ndarray:
    """Random-walk maps of all cases, read from the cache where they were made before.

    Parameters
    ----------
    cases : Cases
        Volumes are taken as frames, as the paper does. Maps are made of the original frames and
        then brought to the cases' shape: what beta makes of an edge depends on the resolution.
    alpha, beta : float
        Of the random walk; gamma is 0.05 (preset "duque2023": the paper does not name it).
    cache : pathlib.Path
        Folder of the maps, named by content.
    note : callable, optional
        Told which case is at work.

    Returns
    -------
    numpy.ndarray
        float32 ``(N, *S)`` in [0, 1].
    """
    kept = MapCache(cache)
    made = []
    for case in cases.cases:
        note(f"map of {case.name}")
        image = case.image if case.original is None else case.original
        axes = "thw" if image.ndim == 3 else None
        found = kept.confidence(image, alpha=alpha, beta=beta, preset="duque2023", axes=axes)
        if case.original is not None:
            found = np.clip(resampled(found, case.image.shape, smooth=True), 0, 1)
        made.append(found)
    return np.stack(made)
