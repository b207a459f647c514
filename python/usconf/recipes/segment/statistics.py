"""Do the configurations differ? Friedman, Nemenyi, and Wilcoxon against the baselines with Holm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Comparison:
    """One method against its baseline, over the blocks that both have."""

    method: str
    baseline: str
    # Mean of method minus baseline, blocks, p, and p after Holm.
    difference: float
    blocks: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class Tests:
    """Of one metric. `blocks` complete ones were used, `dropped` lacked a value of some method."""

    methods: tuple[str, ...]
    blocks: int
    dropped: int
    chi2: float
    p: float
    # Mean rank of each method, 1 = best; and Nemenyi's p of every pair.
    ranks: tuple[float, ...]
    nemenyi: np.ndarray
    comparisons: tuple[Comparison, ...]


def compare(
    scores: Mapping[str, Sequence[float]], baselines: Mapping[str, str], higher_is_better: bool
) -> Tests:
    """Test whether methods differ over the same blocks.

    Parameters
    ----------
    scores : mapping
        Method -> one value per block (here: patient), NaN where undefined.
    baselines : mapping
        Method -> the method it is compared with; others are not.
    higher_is_better : bool
        For the ranks.

    Returns
    -------
    Tests
        With NaN for chi2 and p, and for Nemenyi's, below three methods or two complete blocks.

    Raises
    ------
    ValueError
        If methods differ in the number of blocks.

    Notes
    -----
    Friedman (1937) and Wilcoxon from SciPy, Nemenyi (1963) from scikit-posthocs, Holm (1979).
    Wilcoxon with n blocks cannot give a p below 2^(1-n): with few patients nothing is significant,
    however large the difference.

    Examples
    --------
    >>> from usconf.recipes.segment.statistics import compare
    >>> base = [0.80, 0.70, 0.75, 0.78, 0.72, 0.74]
    >>> other = [value + 0.01 * index for index, value in enumerate(base, 1)]
    >>> tests = compare({"a": base, "b": other}, {"b": "a"}, higher_is_better=True)
    >>> tests.ranks, round(tests.comparisons[0].p, 5)
    ((2.0, 1.0), 0.03125)
    """
    methods = tuple(scores)
    if len({len(scores[method]) for method in methods}) > 1:
        raise ValueError("scores must have the same blocks for all methods, got different numbers")
    table = np.array([scores[method] for method in methods], dtype=np.float64).T
    whole = ~np.isnan(table).any(axis=1)
    used = table[whole]
    count = len(methods)
    chi2 = p = float("nan")
    nemenyi = np.full((count, count), np.nan)
    ranks = np.full(count, np.nan)
    if len(used):
        order = -used if higher_is_better else used
        ranks = stats.rankdata(order, axis=1).mean(axis=0)
    if count >= 3 and len(used) >= 2:
        chi2, p = _friedman(used)
        nemenyi = _nemenyi(used)
    pairs = [(method, base) for method, base in baselines.items() if base in scores]
    raw = [_wilcoxon(scores[method], scores[base]) for method, base in pairs]
    adjusted = holm([value[2] for value in raw])
    comparisons = tuple(
        Comparison(method, base, *value, corrected)
        for (method, base), value, corrected in zip(pairs, raw, adjusted, strict=True)
    )
    return Tests(methods, len(used), int((~whole).sum()), chi2, p,
                 tuple(float(rank) for rank in ranks), nemenyi, comparisons)  # fmt: skip


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction; NaN are no tests and stay."""
    values = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    result = values.copy()
    highest = 0.0
    for place, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - place) * values[index]))
        result[index] = highest
    return [float(value) for value in result]


def _friedman(used: np.ndarray) -> tuple[float, float]:
    if (used == used[:, :1]).all():
        return 0.0, 1.0  # SciPy divides by zero when all methods tie everywhere
    found = stats.friedmanchisquare(*used.T)
    return float(found.statistic), float(found.pvalue)


def _nemenyi(used: np.ndarray) -> np.ndarray:
    try:
        import scikit_posthocs
    except ImportError as problem:
        raise ImportError(
            'the statistics need scikit-posthocs; run: pip install "usconf[recipes]"'
        ) from problem
    return np.asarray(scikit_posthocs.posthoc_nemenyi_friedman(used), dtype=np.float64)


def _wilcoxon(method: Sequence[float], base: Sequence[float]) -> tuple[float, int, float]:
    """Mean difference, blocks, two-sided p; p is 1 where nothing differs."""
    difference = np.asarray(method, np.float64) - np.asarray(base, np.float64)
    difference = difference[~np.isnan(difference)]
    if len(difference) < 2:
        return float("nan"), len(difference), float("nan")
    mean = float(difference.mean())
    if not difference.any():
        return mean, len(difference), 1.0
    # "auto" of SciPy is exact for up to 50 blocks without ties or zeros.
    found = stats.wilcoxon(difference)
    return mean, len(difference), float(found.pvalue)
