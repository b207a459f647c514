"""From the scores of cases to figures of patients and configurations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .metrics import METRICS


def by_patient(records: Sequence[dict[str, Any]], metric: str) -> dict[str, float]:
    """Mean over the organs, then over a patient's cases; NaN where nothing is defined.

    Parameters
    ----------
    records : sequence of dict
        One per case: ``patient``, and ``scores`` (metric -> one value per organ, None: undefined).
    metric : str
        One of `METRICS`.

    Returns
    -------
    dict
        Patient -> value, in the order of their names: the blocks of the statistics.
    """
    cases: dict[str, list[float]] = {}
    for record in records:
        cases.setdefault(record["patient"], []).append(_mean(numbers(record["scores"][metric])))
    return {patient: _mean(np.array(cases[patient])) for patient in sorted(cases)}


def by_organ(records: Sequence[dict[str, Any]], metric: str, organ: int) -> float:
    """Mean over the patients' means of one organ (0: the first after the background)."""
    cases: dict[str, list[float]] = {}
    for record in records:
        value = numbers(record["scores"][metric])[organ]
        cases.setdefault(record["patient"], []).append(value)
    return _mean(np.array([_mean(np.array(values)) for values in cases.values()]))


def summary(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Metric -> mean and standard deviation over the patients, and how many values were NaN."""
    found = {}
    for metric in METRICS:
        values = np.array(list(by_patient(records, metric).values()))
        single = np.concatenate([numbers(record["scores"][metric]) for record in records])
        known = values[~np.isnan(values)]
        found[metric] = {
            "mean": _mean(values),
            "sd": float(np.std(known, ddof=1)) if len(known) > 1 else float("nan"),
            "undefined": int(np.isnan(single).sum()),
            "of": len(single),
        }
    return found


def numbers(values: Sequence[float | None]) -> np.ndarray:
    """Floats, with None (NaN has no place in JSON) as NaN."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _mean(values: np.ndarray) -> float:
    with warnings.catch_warnings():
        # All NaN: the mean is NaN, which is what is meant.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(np.nanmean(values)) if len(values) else float("nan")
