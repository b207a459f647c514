"""The report's section on variability: experts, networks and the map, side by side."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ..report import Report
from . import pictures, plots
from .task import Prepared, Task, read
from .variability import BANDS, label_entropy

_CASES = 3


def add_variability(
    report: Report, prepared: Prepared, results: dict[str, Any], folder: Path
) -> None:
    """Pictures as the paper's Fig. 5, correlations near borders and by depth, depth curves."""
    found = results["variability"]
    if found is None:
        return
    config = prepared.config
    report.heading("Variability")
    report.text(
        "Experts: entropy of the label frequency over repeated labellings of a picture. Networks: "
        f"entropy of the mean probability of {config.passes} Monte Carlo dropout passes. Does the "
        "network waver where the experts do, and does the confidence map tell where that is? "
        "Spearman's correlation per picture, then the mean and standard deviation over pictures."
    )
    report.text(
        "If the map predicts variability, its correlation with the experts is negative: much "
        "confidence, little disagreement. Any map that falls with depth correlates with what "
        "grows with depth, so the row number itself ('depth') is listed too: the map is of use "
        "only as far as it beats that, or as it tells more within a band of depth."
    )
    if prepared.config.data is None:
        report.text(
            "Visibility is known for made data: the share of echo in the received power, 0 in a "
            "deep shadow. The made experts wander where it is low, so their correlation with it is "
            "given; that of the confidence map with either is not."
        )
    _add_pictures(report, prepared, found["names"], folder)
    _add_table(report, found, "near", "Near borders (within a tenth of the rows of one).")
    _add_table(report, found, "everywhere", "All pixels. Most are far from any border.")
    profiles = _profiles(found)
    if profiles:
        first = prepared.cases.cases[0]
        report.picture(
            plots.depth_curves(profiles, 100 / first.image.shape[-2], "% of the picture"),
            "Mean near borders by depth, each divided by its largest value.",
        )


def variability_finding(results: dict[str, Any]) -> str:
    """One sentence: what the map tells about the experts beyond depth; empty without experts."""
    found = results["variability"]
    if found is None:
        return ""
    means = {}
    for pair in ("confidence | experts", "depth | experts"):
        values = [entry["near"][pair] for entry in found["cases"] if pair in entry["near"]]
        means[pair] = _spread([value["all"] for value in values])
    if means["confidence | experts"] == "-":
        return ""
    return (
        "Variability: near borders the Spearman correlation of the confidence map with the "
        f"experts' entropy is {means['confidence | experts']} (mean and standard deviation over "
        f"pictures), that of the depth alone {means['depth | experts']}."
    )


def _add_pictures(report: Report, prepared: Prepared, names: list[str], folder: Path) -> None:
    config, cases = prepared.config, prepared.cases
    runs = [run for run in config.runs() if run.name in names]
    arrays = {run.name: read(Task(run, 0), folder)[1]["entropy"] for run in runs}
    maps = prepared.maps[config.alpha, config.beta]
    highest = float(np.log(len(cases.classes)))
    test = prepared.folds[0].test
    grid = []
    places = range(0, len(test), max(1, len(test) // _CASES))[:_CASES]
    for place in places:
        case = cases.cases[test[place]]
        image = pictures.middle(case.image)
        grid.append((pictures.tinted(image, pictures.middle(case.reference), 0.3), case.name))
        if len(case.labellings) > 1:
            experts = pictures.middle(label_entropy(case.labellings, len(cases.classes)))
            grid.append((pictures.heat(experts, highest), "experts"))
        for name in names:
            drawn = pictures.middle(arrays[name][place])
            grid.append((pictures.heat(drawn, highest), f"dropout, {name}"))
        grid.append((pictures.gray(pictures.middle(maps[test[place]])), "confidence map"))
    report.pictures(grid, columns=len(grid) // len(places))
    report.text("Entropies from black (0) to white (ln of the number of classes).")


def _add_table(report: Report, found: dict[str, Any], where: str, caption: str) -> None:
    pairs: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in found["cases"]:
        for pair, values in entry[where].items():
            pairs[pair].append(values)
    rows = []
    for pair, values in pairs.items():
        if "depth" in pair and not {"experts", "visibility"} & set(pair.split(" | ")):
            continue
        row: dict[str, Any] = {"pair": pair, "Spearman": _spread([v["all"] for v in values])}
        for band in range(BANDS):
            name = f"depth {100 * band // BANDS}-{100 * (band + 1) // BANDS} %"
            row[name] = _spread([v["bands"][band] for v in values])
        row["pictures"] = sum(v["all"] is not None for v in values)
        rows.append(row)
    if rows:
        report.table(rows, caption)


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    text = f"{np.mean(known):.2f}"
    return f"{text} ± {np.std(known, ddof=1):.2f}" if len(known) > 1 else text


def _profiles(found: dict[str, Any]) -> dict[str, list[float]]:
    """Mean over the cases of every map's profile; NaN for rows that few cases have pixels in."""
    stacks: dict[str, list[np.ndarray]] = defaultdict(list)
    for entry in found["cases"]:
        for name, values in entry["profiles"].items():
            stacks[name].append(np.array(values, dtype=np.float64))
    means = {}
    for name, stack in stacks.items():
        table = np.stack(stack)
        count = (~np.isnan(table)).sum(axis=0)
        total = np.nansum(table, axis=0)
        means[name] = np.where(4 * count >= len(stack), total / np.maximum(count, 1), np.nan)
    return {name: rows.tolist() for name, rows in means.items() if np.nanmax(rows, initial=0) > 0}
