"""All figures of a finished experiment, ready for JSON."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..settings import plain
from .configurations import Configuration
from .figures import by_organ, by_patient, summary
from .metrics import METRICS
from .statistics import compare
from .task import Prepared, Task, read
from .variability import correlations, depth_profile, label_entropy, near_borders

# The paper tests HD; DSC and ASD are what people ask for next.
TESTED = ("DSC", "HD", "ASD")


def collect(prepared: Prepared, folder: Path) -> dict[str, Any]:
    """Read all tasks; summarise, test, correlate.

    Returns
    -------
    dict
        ``settings``, ``folds``, ``configurations`` (name -> summary, organs, patients, records),
        ``statistics`` (network -> metric -> tests), ``ablation``, ``variability``; NaN is None.
    """
    config, organs = prepared.config, prepared.cases.classes[1:]
    read_all = {run.name: _all_folds(prepared, run, folder) for run in config.runs()}
    found = {name: _configuration(figures, organs) for name, (figures, _) in read_all.items()}
    statistics = {
        network: {
            metric: _tests(
                found,
                [run for run in config.runs() if run.network == network and not run.ablation],
                metric,
            )
            for metric in TESTED
        }
        for network in config.networks
    }
    cases = prepared.cases
    results = {
        "settings": plain(config),
        "classes": list(cases.classes),
        "unit": cases.unit,
        "folds": [
            {
                part: [cases.cases[index].name for index in getattr(fold, part)]
                for part in ("training", "validation", "test")
            }
            for fold in prepared.folds
        ],
        "configurations": found,
        "statistics": statistics,
        "ablation": [
            {"alpha": run.alpha, "beta": run.beta, "configuration": run.short, "name": run.name}
            for run in config.ablation_runs()
        ],
        "variability": _variability(prepared, folder),
    }
    return _without_nan(results)


def _all_folds(
    prepared: Prepared, run: Configuration, folder: Path
) -> tuple[list[dict[str, Any]], list[dict[str, np.ndarray]]]:
    parts = [read(Task(run, fold), folder) for fold in range(len(prepared.folds))]
    return [part[0] for part in parts], [part[1] for part in parts]


def _configuration(figures: list[dict[str, Any]], organs: tuple[str, ...]) -> dict[str, Any]:
    records = [record for fold in figures for record in fold["records"]]
    return {
        "summary": summary(records),
        "organs": {
            organ: {metric: by_organ(records, metric, index) for metric in METRICS}
            for index, organ in enumerate(organs)
        },
        "patients": {metric: by_patient(records, metric) for metric in METRICS},
        # Organs missed, or found where there are none: their distances left every mean.
        "undefined_distances": sum(record["undefined"] for record in records),
        "of_organs": len(records) * len(organs),
        "weights": figures[0]["weights"],
        "seconds": [fold["seconds"] for fold in figures],
        "best_epochs": [fold["best_epoch"] for fold in figures],
        "losses": [fold["losses"] for fold in figures],
        "validation": [fold["validation"] for fold in figures],
        "records": records,
    }


def _tests(found: dict[str, Any], runs: list[Configuration], metric: str) -> dict[str, Any]:
    scores = {run.name: list(found[run.name]["patients"][metric].values()) for run in runs}
    baselines = {run.name: run.baseline for run in runs if run.uses_map}
    tests = compare(scores, baselines, METRICS[metric] == "up")
    return {
        "methods": list(tests.methods),
        "blocks": tests.blocks,
        "dropped": tests.dropped,
        "chi2": tests.chi2,
        "p": tests.p,
        "ranks": list(tests.ranks),
        "nemenyi": tests.nemenyi.tolist(),
        "comparisons": [vars(one) for one in tests.comparisons],
    }


def _variability(prepared: Prepared, folder: Path) -> dict[str, Any] | None:
    """Correlations of every tested case and the mean maps by depth; None if not asked for."""
    config, cases = prepared.config, prepared.cases
    runs = [run for run in config.runs() if run.short in config.variability and not run.ablation]
    if not runs:
        return None
    maps = prepared.maps[config.alpha, config.beta]
    entries = []
    for number, fold in enumerate(prepared.folds):
        arrays = {run.name: read(Task(run, number), folder)[1]["entropy"] for run in runs}
        for place, index in enumerate(fold.test):
            case = cases.cases[index]
            compared = {"confidence": maps[index], "depth": _depth(case.image.shape)}
            if len(case.labellings) > 1:
                compared["experts"] = label_entropy(case.labellings, len(cases.classes))
            if case.seen is not None:
                compared["visibility"] = case.seen
            compared |= {f"dropout {name}": part[place] for name, part in arrays.items()}
            near = near_borders(case.reference)
            everywhere = np.ones_like(near)
            entries.append(
                {
                    "case": case.name,
                    "patient": case.patient,
                    "near": correlations(compared, near),
                    "everywhere": correlations(compared, everywhere),
                    "profiles": {
                        name: depth_profile(values, near)
                        for name, values in compared.items()
                        if name != "depth"
                    },
                }
            )
    return {"names": [run.name for run in runs], "cases": entries}


def _depth(shape: tuple[int, ...]) -> np.ndarray:
    rows = np.arange(shape[-2], dtype=np.float32)[:, None]
    return np.ascontiguousarray(np.broadcast_to(rows, shape))


def _without_nan(value: Any) -> Any:
    """The same with None for NaN, which JSON has no word for."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(part) for part in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
