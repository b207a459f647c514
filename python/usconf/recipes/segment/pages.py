"""The report, section by section."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..report import Report
from . import pictures, plots
from .configurations import Configuration
from .metrics import METRICS
from .results import TESTED
from .task import Prepared, Task, read
from .variability import label_entropy
from .variability_page import add_variability, variability_finding

_ARROWS = {"up": "↑", "down": "↓"}
# Colours of the paper's four groups: baselines, second channel, loss, both.
_GROUPS = {(1, False): "#c8c8c8", (2, False): "#56b4e9", (1, True): "#e69f00", (2, True): "#009e73"}
# Supplement, and Table 1 and Fig. 3 in words: what a reader holds our numbers against.
_PAPER = (
    "The paper's numbers, of its own volumes of muscles (mean and standard deviation of three "
    "folds): UNet 1ch-diceCE DSC 0.84 ± 0.02, ASD 8.37 ± 2.19; UNet 2ch-dice 0.85 ± 0.01, "
    "8.20 ± 1.81; UNet 1ch-diceCEconf 0.81 ± 0.01, 8.36 ± 0.78; attention UNet 1ch-CE 0.57 ± 0.49, "
    "2ch-dice 0.86 ± 0.00, ASD 7.03 ± 1.08. It names 2ch-dice and 1ch-CEconf the best of the ten."
)


def write_report(prepared: Prepared, results: dict[str, Any], folder: Path) -> Path:
    """Write report.html into the folder, from the figures and the tasks' arrays."""
    report = Report("Segmentation guided by confidence maps")
    _add_purpose(report, prepared, results)
    _add_data(report, prepared)
    _add_scores(report, prepared, results)
    _add_statistics(report, prepared, results)
    _add_predictions(report, prepared, results, folder)
    add_variability(report, prepared, results, folder)
    _add_ablation(report, prepared, results)
    _add_settings(report, results)
    return report.write(folder / "report.html")


def _plain(prepared: Prepared) -> list[Configuration]:
    return [run for run in prepared.config.runs() if not run.ablation]


def _add_purpose(report: Report, prepared: Prepared, results: dict[str, Any]) -> None:
    config = prepared.config
    report.text(
        "The experiment of Gonzalez Duque et al., 'Can ultrasound confidence maps predict "
        "sonographers' labeling variability?' (2023). A random-walk confidence map CM is computed "
        "from each frame before training. It goes in as a second channel (2ch), or into the loss "
        "(conf): each pixel's cross entropy is multiplied by CM, which is cross entropy against "
        "the confidence mask Y * CM. Names read network-channels-loss."
    )
    made = (
        "The data are made: their classes are known, and numbers say nothing about patients. "
        "Networks learn from one expert's labels and are judged by the truth."
        if config.data is None
        else "The data are those of your folder. Networks are judged by the labels they were "
        "given, the first labelling of each picture."
    )
    report.text(made)
    if any(run.loss.endswith("conf") for run in _plain(prepared)):
        report.text(
            "Mind what the loss does: its minimum is the same as that of cross entropy, only the "
            "gradient is smaller where confidence is low, and the map is 0 in the last row. There "
            "CEconf does not train at all, and what a network says there is left to chance: look "
            "at the bottom of its predictions before reading HD."
        )
    report.heading("What came out")
    report.text(" ".join([*_findings(prepared, results), variability_finding(results)]))


def _findings(prepared: Prepared, results: dict[str, Any]) -> list[str]:
    """What came out, in sentences that the figures write themselves."""
    found = []
    for network in prepared.config.networks:
        for metric in TESTED:
            tests = results["statistics"][network][metric]
            better, worse = _significant(tests, METRICS[metric] == "up")
            count = len(tests["comparisons"])
            if not count:
                continue
            text = f"{network}, {metric}: of {count} configurations with the map, "
            text += f"{_named(better)} better than the same loss without it" if better else "none"
            if not better:
                text += " is better than the same loss without it"
            text += f", {_named(worse)} worse" if worse else ", none worse"
            found.append(text + " (Wilcoxon with Holm, p < 0.05).")
    return found


def _named(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


def _significant(tests: dict[str, Any], up: bool) -> tuple[list[str], list[str]]:
    better: list[str] = []
    worse: list[str] = []
    for one in tests["comparisons"]:
        if one["p_holm"] is not None and one["p_holm"] < 0.05:
            good = (one["difference"] > 0) == up
            (better if good else worse).append(one["method"])
    return better, worse


def _add_data(report: Report, prepared: Prepared) -> None:
    cases, config = prepared.cases, prepared.config
    report.heading("Data")
    shape = " x ".join(map(str, config.shape))
    report.text(
        f"{len(cases.cases)} {'volumes' if cases.dims == 3 else 'pictures'} of {shape} from "
        f"{len(cases.patients)} patients; organs: {', '.join(cases.classes[1:])}. Distances are in "
        f"{cases.unit}."
    )
    rows = []
    for number, fold in enumerate(prepared.folds):
        row: dict[str, Any] = {"fold": number}
        for part in ("training", "validation", "test"):
            indices = getattr(fold, part)
            patients = {cases.cases[index].patient for index in indices}
            row[part] = f"{len(indices)} of {len(patients)} patients"
        rows.append(row)
    report.table(rows, "Folds: no patient is on two sides of one.")
    maps = prepared.maps[config.alpha, config.beta]
    grid = []
    step = max(1, len(cases.cases) // 4)
    for index in range(0, len(cases.cases), step)[:4]:
        case = cases.cases[index]
        image, label = pictures.middle(case.image), pictures.middle(case.label)
        confidence = pictures.middle(maps[index])
        grid += [
            (pictures.gray(image / 255), case.name),
            (pictures.tinted(image, label), "label to learn from"),
            (pictures.gray(confidence), "confidence map"),
            (pictures.masked(label, confidence), "confidence mask Y * CM"),
        ]
        if len(case.labellings) > 1:
            entropy = pictures.middle(label_entropy(case.labellings, len(cases.classes)))
            title = f"entropy of {len(case.labellings)} labellings"
            grid.append((pictures.heat(entropy, np.log(len(cases.classes))), title))
    report.pictures(grid, columns=5 if len(cases.cases[0].labellings) > 1 else 4)


def _add_scores(report: Report, prepared: Prepared, results: dict[str, Any]) -> None:
    report.heading("Configurations")
    report.text(
        "Each metric is taken per organ, averaged over the organs, a patient's pictures, and then "
        "the patients of all folds: mean ± standard deviation over the patients. ASD and HD are "
        "not defined for an organ that was not found: such organs leave the mean, and the last "
        "column says how many did. Read the distances together with that column. Islands: "
        "connected parts per organ; 1 is right."
    )
    names = [run.name for run in _plain(prepared)]
    rows = [_row(name, results["configurations"][name]) for name in names]
    report.table(rows, "The configurations; distances in " + results["unit"] + ".")
    values = {
        metric: {name: _of(results, name)["patients"][metric].values() for name in names}
        for metric in ("DSC", "ASD", "HD")
    }
    colours = {
        run.name: _GROUPS[run.channels, run.loss.endswith("conf")] for run in _plain(prepared)
    }
    known = {title: {name: list(v) for name, v in part.items()} for title, part in values.items()}
    report.picture(
        plots.boxes(known, colours),
        "Patients' means. Gray: baselines; blue: map as second channel; orange: in the loss; "
        "green: both.",
    )
    organs = prepared.cases.classes[1:]
    report.table(
        [
            {"configuration": name}
            | {
                f"{o} {m}": _of(results, name)["organs"][o][m]
                for o in organs
                for m in ("DSC", "HD")
            }
            for name in names
        ],
        "By organ.",
    )
    curves = {name: _mean_curve(_of(results, name)["validation"]) for name in names}
    report.picture(plots.learning(curves), "Learning: validation DSC, mean over the folds.")
    report.text(_PAPER)


def _of(results: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = results["configurations"][name]
    return found


def _mean_curve(folds: list[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    scores = np.array([[score for _, score in fold] for fold in folds])
    return [(epoch, float(s)) for (epoch, _), s in zip(folds[0], scores.mean(axis=0), strict=True)]


def _row(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {"configuration": name}
    for metric, direction in METRICS.items():
        value = figures["summary"][metric]
        row[f"{metric} {_ARROWS[direction]}"] = _spread(value["mean"], value["sd"], metric)
    row["not found"] = f"{figures['undefined_distances']} of {figures['of_organs']}"
    return row


def _spread(mean: float | None, sd: float | None, metric: str) -> str:
    if mean is None:
        return "-"
    digits = 2 if metric in ("ASD", "HD", "islands") else 3
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "")


def _add_statistics(report: Report, prepared: Prepared, results: dict[str, Any]) -> None:
    report.heading("Statistics")
    report.text(
        "Blocks are patients, who were tested once each. Friedman: do all configurations perform "
        "equally? Nemenyi: which pairs differ? And every configuration with the map against the "
        "one without that has the same loss, by Wilcoxon's signed ranks, corrected by Holm over "
        "the table. A large p does not show that two are equal: with few patients little can be "
        "shown."
    )
    for network, by_metric in results["statistics"].items():
        report.heading(network, 3)
        report.table(
            [
                {
                    "metric": metric,
                    "blocks": tests["blocks"],
                    "left out (undefined)": tests["dropped"],
                    "Friedman chi²": tests["chi2"],
                    "p": tests["p"],
                }
                for metric, tests in by_metric.items()
            ],
            "Friedman.",
        )
        rows = []
        for metric, tests in by_metric.items():
            for one in tests["comparisons"]:
                marked = one["p_holm"] is not None and one["p_holm"] < 0.05
                rows.append(
                    {
                        "configuration": one["method"],
                        "baseline": one["baseline"],
                        "metric": metric,
                        "mean difference": one["difference"],
                        "blocks": one["blocks"],
                        "p": one["p"],
                        "p (Holm)": one["p_holm"],
                        "p < 0.05": "*" if marked else "",
                    }
                )
        if rows:
            report.table(rows, "With the map against without it (difference: with minus without).")
        tests = by_metric["HD"]
        if any(rank is not None for rank in tests["ranks"]):
            report.table(
                [
                    {"configuration": name, "mean rank": rank}
                    | dict(zip(tests["methods"], line, strict=True))
                    for name, rank, line in zip(
                        tests["methods"], tests["ranks"], tests["nemenyi"], strict=True
                    )
                ],
                "HD: mean rank (1 is best) and Nemenyi's p of every pair.",
            )


def _add_predictions(
    report: Report, prepared: Prepared, results: dict[str, Any], folder: Path
) -> None:
    report.heading("Predictions")
    runs = [run for run in _plain(prepared) if run.network == prepared.config.networks[0]]
    first = runs[0]
    chosen = [run for run in runs if run.short in ("1ch-CE", "2ch-dice", "1ch-CEconf")] or runs[1:4]
    shown = [first, *(run for run in chosen if run is not first)]
    report.text(
        f"First fold: the tested pictures on which {first.name} does worst, in the middle, and "
        "best by DSC. Prediction in colour, outline of the "
        f"{'truth' if prepared.config.data is None else 'label'} in white."
    )
    found = {run.name: read(Task(run, 0), folder) for run in shown}
    means = [
        np.nanmean([np.nan if v is None else v for v in record["scores"]["DSC"]] + [0.0])
        for record in found[first.name][0]["records"]
    ]
    order = np.argsort(means)
    grid = []
    for place in dict.fromkeys([int(order[0]), int(order[len(order) // 2]), int(order[-1])]):
        case = prepared.cases.cases[prepared.folds[0].test[place]]
        image, truth = pictures.middle(case.image), pictures.middle(case.reference)
        grid.append((pictures.gray(image / 255), case.name))
        for name, (figures, arrays) in found.items():
            predicted = pictures.middle(arrays["predicted"][place])
            scores = [v for v in figures["records"][place]["scores"]["DSC"] if v is not None]
            text = f"{name}, DSC {np.mean(scores):.2f}" if scores else name
            grid.append((pictures.outlined(image, predicted, truth), text))
    report.pictures(grid, columns=1 + len(shown))


def _add_ablation(report: Report, prepared: Prepared, results: dict[str, Any]) -> None:
    if not results["ablation"]:
        return
    report.heading("Ablation of alpha and beta")
    report.text(
        "The supplement's table: the map's attenuation alpha and contrast beta. (It writes the "
        "pairs as 'alpha, beta = 100, 0.5'; the text has alpha 0.5 and beta 100, as here.)"
    )
    rows = []
    for entry in results["ablation"]:
        row = {"alpha": entry["alpha"], "beta": entry["beta"]}
        rows.append(row | _row(entry["configuration"], results["configurations"][entry["name"]]))
    report.table(rows, "Both uses of the map, by its parameters; distances as above.")
    case = prepared.cases.cases[prepared.folds[0].test[0]]
    grid = [(pictures.gray(pictures.middle(case.image) / 255), case.name)]
    for alpha, beta in prepared.config.pairs:
        values = prepared.maps[alpha, beta][prepared.folds[0].test[0]]
        grid.append((pictures.gray(pictures.middle(values)), f"alpha {alpha:g}, beta {beta:g}"))
    report.pictures(grid, columns=len(grid))


def _add_settings(report: Report, results: dict[str, Any]) -> None:
    report.heading("Settings")
    rows = [
        {"setting": key, "value": "null" if value is None else str(value)}
        for key, value in results["settings"].items()
    ]
    report.table(rows, "Of this run; docs/segmentation.md explains them.")
    seconds = sum(sum(one["seconds"]) for one in results["configurations"].values())
    report.text(f"Training and testing took {seconds:.0f} s of all processes together.")
