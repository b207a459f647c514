"""Where experts disagree, where the network wavers, and whether the confidence map tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage, stats

# Bands of equal height in which correlations are taken apart from the trend with depth.
BANDS = 4
# Pixels count as near a border within this share of the rows.
_NEAR = 0.1
# Of fewer pixels than this a correlation tells nothing.
_FEW = 10


def label_entropy(labellings: np.ndarray, classes: int) -> np.ndarray:
    """Entropy of the label frequency over repeated labellings.

    Parameters
    ----------
    labellings : numpy.ndarray
        Class indices ``(L, *S)``.
    classes : int
        With the background.

    Returns
    -------
    numpy.ndarray
        float32 ``(*S)`` in [0, ln classes]; 0 everywhere for one labelling.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.recipes.segment.variability import label_entropy
    >>> label_entropy(np.array([[[0, 1]], [[1, 1]]]), classes=2).round(3).tolist()
    [[0.6930000185966492, 0.0]]
    """
    share = np.stack([(labellings == index).mean(axis=0) for index in range(classes)])
    return entropy(share)


def entropy(share: np.ndarray) -> np.ndarray:
    """-sum_c p ln p over the first axis, float32; 0 ln 0 is 0."""
    logarithm = np.log(np.where(share > 0, share, 1))
    return np.maximum(-(share * logarithm).sum(axis=0), 0).astype(np.float32)


def dropout_entropy(network: Any, image: Any, passes: int, seed: int) -> np.ndarray:
    """Entropy of the mean probability over Monte Carlo dropout passes.

    Parameters
    ----------
    network : torch.nn.Module
        With dropout layers; only these are in training mode meanwhile.
    image : torch.Tensor
        ``(B, channels, *S)``.
    passes : int
        The paper's T = 100.
    seed : int
        Of the dropout.

    Returns
    -------
    numpy.ndarray
        float32 ``(B, *S)`` in [0, ln classes].
    """
    import torch

    from ...uncertainty import dropout_samples

    generator = torch.Generator(device=image.device).manual_seed(seed)
    total: Any = 0
    # In parts: all passes of a volume at once would not fit into memory.
    for start in range(0, passes, 10):
        count = min(10, passes - start)
        draws = dropout_samples(network, image, count, generator)
        total = total + draws.softmax(dim=2).sum(dim=0).double()
    return entropy((total / passes).transpose(0, 1).cpu().numpy())


def near_borders(reference: np.ndarray) -> np.ndarray:
    """Pixels within a tenth of the rows of a border between classes, bool ``(*S)``.

    Inside organs and far from them all entropies are 0 and tell nothing.
    """
    border = np.zeros(reference.shape, bool)
    for axis in (-2, -1):
        step = np.diff(reference.astype(np.int16), axis=axis) != 0
        widths = [(0, 0)] * reference.ndim
        widths[axis] = (0, 1)
        border |= np.pad(step, widths)
    reach = max(1, round(_NEAR * reference.shape[-2]))
    away = ndimage.distance_transform_edt(
        ~border, sampling=[1e6] * (reference.ndim - 2) + [1.0, 1.0]
    )
    return np.asarray(away <= reach)


def correlations(maps: Mapping[str, np.ndarray], where: np.ndarray) -> dict[str, Any]:
    """Spearman's correlation of every pair of maps, and within bands of depth.

    Parameters
    ----------
    maps : mapping
        Name -> ``(*S)``, rows second last.
    where : numpy.ndarray
        Pixels to compare, bool ``(*S)``.

    Returns
    -------
    dict
        ``"a | b"`` -> ``{"all": rho, "bands": [rho of each of `BANDS` bands from the top]}``; None
        where a map is constant or fewer than 10 pixels are there.
    """
    names = list(maps)
    rows = where.shape[-2]
    band = np.broadcast_to((np.arange(rows) * BANDS // rows)[:, None], where.shape)
    regions = [where, *(where & (band == index) for index in range(BANDS))]
    tables = [_spearman([maps[name][region] for name in names]) for region in regions]
    found = {}
    for place, one in enumerate(names):
        for other in range(place + 1, len(names)):
            whole, *bands = (table[place][other] for table in tables)
            found[f"{one} | {names[other]}"] = {"all": whole, "bands": bands}
    return found


def depth_profile(values: np.ndarray, where: np.ndarray) -> list[float | None]:
    """Mean of each row over the pixels that count; None for rows without any."""
    axes = (*range(values.ndim - 2), values.ndim - 1)
    count = where.sum(axis=axes)
    total = np.where(where, values, 0).sum(axis=axes, dtype=np.float64)
    return [float(t / n) if n else None for t, n in zip(total, count, strict=True)]


def _spearman(values: list[np.ndarray]) -> list[list[float | None]]:
    """Of every pair; each map is ranked once, ties by their mean rank."""
    if len(values[0]) < _FEW:
        return [[None] * len(values)] * len(values)
    ranks = np.stack([stats.rankdata(part) for part in values])
    ranks -= ranks.mean(axis=1, keepdims=True)
    size = np.sqrt((ranks**2).sum(axis=1))
    # Where one is constant its ranks are all 0.
    rho = ranks @ ranks.T / np.where(size > 0, size, np.nan)[:, None]
    rho /= np.where(size > 0, size, np.nan)
    return [[None if np.isnan(value) else float(value) for value in row] for row in rho]
