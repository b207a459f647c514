"""The report: tables of all figures, and the pictures to judge them by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..report import Report
from .evaluation import HOW, INTER, MAPS, MEAN, MEANS
from .pictures import TRUTH, auroc_figure, counterfactuals, map_rows, outlined

_OF_CLIPS = {
    "pictures": "Pictures (2-D)",
    "clips": "Clips (3-D: Conv3d heads, the encoder frame by frame)",
}
_COUNTERFACTUAL = ("L", "D", "SSN U-Net", "Dropout U-Net")


def write_report(outcomes: Sequence[Any], results: Mapping[str, Any], path: Path) -> Path:
    """Write the page of a finished run; its path is returned."""
    report = Report("L-FUSION: segmentation and uncertainty on a frozen encoder")
    _introduction(report, outcomes[0])
    for outcome in outcomes:
        report.heading(_OF_CLIPS[outcome.kind])
        _data(report, outcome)
        _segmentation(report, outcome)
        _unusual(report, outcome)
        _maps(report, outcome)
        if outcome.kind == "pictures":
            _counterfactuals(report, outcome)
        _training(report, outcome)
    report.heading("Settings")
    report.table([{"key": key, "value": str(value)} for key, value in results["settings"].items()])
    return report.write(path)


def _introduction(report: Report, outcome: Any) -> None:
    config = outcome.config
    where = "made fetal heads" if config.data is None else f"the folder {config.data}"
    report.text(
        f"Mueller et al., L-FUSION (2025), on {where}, encoder {outcome.encoder.name} (frozen, "
        f"{outcome.encoder.features} channels), n = {config.draws} draws.\n\n"
        "L: Laplace head on the encoder's features, with the covariance of a stochastic head. "
        "D: dropout head on the same features. SSN, Dropout and Laplace U-Net: the baselines. "
        "C-1 fuses L with D, C-2 fuses L with the Dropout U-Net; intra-path fusion takes two sets "
        "of draws of one path.\n\n"
        "TU total uncertainty, EE expected entropy (aleatoric), MI mutual information (epistemic), "
        "PV pixel variance, EPKL expected pairwise divergence of the draws. U(MI): the fused map, "
        "weighted by the variance of that measure of the first path."
    )
    if config.data is None:
        report.text(
            "Made data are easier than patients, and unusual heads are deformed by the same rule "
            "that this page then looks for. The figures show that the method runs and how its "
            "parts compare here; they say nothing about a clinic."
        )


def _data(report: Report, outcome: Any) -> None:
    report.heading("Data", 3)
    data = outcome.data
    counts = ", ".join(
        f"{len(getattr(data, split))} {word}"
        for split, word in (
            ("train", "to train on"),
            ("validation", "to validate by"),
            ("test", "ordinary to test"),
            ("ood", "unusual to test"),
        )
    )
    shape = " x ".join(str(size) for size in data.test.images.shape[1:])
    report.text(
        f"{counts}; {shape}. Unusual: an elastic deformation of the {outcome.config.deformation} "
        f"by up to {outcome.config.elastic:g} of the head's smaller semi-axis."
    )
    report.pictures(
        [
            (_shown(frames, index), f"{word} {index + 1}")
            for frames, word in ((data.test, "ordinary"), (data.ood, "unusual"))
            for index in range(min(5, len(frames)))
        ],
        columns=5,
    )


def _shown(frames: Any, index: int) -> np.ndarray:
    image, mask = frames.images[index], frames.masks[index]
    if image.ndim == 3:
        # First and last frame of the clip.
        ends = [outlined(image[time], [(mask[time], TRUTH)]) for time in (0, -1)]
        return np.concatenate(ends, 0)
    return outlined(image, [(mask, TRUTH)])


def _segmentation(report: Report, outcome: Any) -> None:
    report.heading("Segmentation of ordinary heads", 3)
    caption = "Mean ± standard deviation; percentiles of each column's own values."
    if outcome.kind == "pictures":
        caption += (
            " DSC Dice, HD Hausdorff distance, AD difference of head circumference. Missed: "
            "pictures without an ellipse; they count with DSC 0, HD the picture's diagonal, AD the "
            "whole circumference, unless something was found. First trimester: circumference of "
            "less than 14 weeks (Hadlock 1984)."
        )
    report.table(outcome.figures["segmentation"], caption, digits=1)


def _unusual(report: Report, outcome: Any) -> None:
    report.heading("Finding unusual heads", 3)
    rows = outcome.figures["ood"]
    names = list(outcome.paths)
    fused = [f"intra {name}" for name in names] + list(INTER)
    report.text(
        "AUROC with its 95 % bootstrap interval, of telling unusual from ordinary test heads; 0.5 "
        "is chance. Nothing is picked: choosing the best measure on the test split, as published "
        "tables do, promises too much. Scores: the mean of the map, or its largest sum over "
        f"{outcome.config.patch} x {outcome.config.patch} pixels."
    )
    singles = {how: auroc_table(rows, names, [*MAPS, "EPKL"], how) for how in HOW}
    for how in HOW:
        report.table(singles[how], f"Single measures, score: {how} (EPKL: one number per image)")
    for mean in MEANS:
        labels = [f"U({name})" + f", {mean}" * (mean != MEAN) for name in MAPS]
        for how in HOW:
            report.table(
                auroc_table(rows, fused, labels, how), f"Fusion (entropy by {mean}), score: {how}"
            )
    for how in HOW:
        report.picture(auroc_figure(rows, how), f"All of them, score: {how}")


def auroc_table(
    rows: Sequence[Mapping[str, Any]], paths: Sequence[str], labels: Sequence[str], how: str
) -> list[dict[str, str]]:
    """A row per path and a column per measure, each ``value [low, high]``."""
    known = {(row["path"], row["measure"], row["score"]): row for row in rows}
    found = []
    for path in paths:
        line = {"path": path}
        for label in labels:
            row = known.get((path, label, how)) or known[path, label, "image"]
            line[label] = f"{row['AUROC']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
        found.append(line)
    return found


def _maps(report: Report, outcome: Any) -> None:
    report.heading("Maps", 3)
    data = outcome.data
    last = min(2, len(data.test) - 1, len(data.ood) - 1)
    chosen = [(frames, index) for frames in (data.test, data.ood) for index in (last - 1, last)]
    middle = " Of each clip the middle frame." if outcome.kind == "clips" else ""
    report.text(
        "Two ordinary heads above two unusual ones, chosen by their place in the splits; a column "
        "has one scale in all rows." + middle
    )
    report.pictures(map_rows(outcome, chosen), columns=6)


def _counterfactuals(report: Report, outcome: Any) -> None:
    report.heading("Counterfactual samples", 3)
    report.text(
        "What other segmentations the draws hold, for the ordinary and the unusual picture with "
        "the largest mean total uncertainty of L. Truth green, the draw red. The loss of a "
        "stochastic head (SSN, and the covariance of L) asks that one of 20 samples is right: "
        "others may turn over whole pictures."
    )
    for frames, scores in zip(
        (outcome.data.test, outcome.data.ood), outcome.figures["scores"], strict=True
    ):
        index = int(np.argmax(scores["L"]["TU"]["mean"]))
        report.text(frames.names[index])
        report.pictures(counterfactuals(outcome, frames, index, _COUNTERFACTUAL), columns=4)


def _training(report: Report, outcome: Any) -> None:
    report.heading("Training", 3)
    rows = []
    for name, numbers in outcome.training.items():
        row = {"path": name, "steps": numbers["steps"], "best at": numbers["best_step"]}
        row["validation loss"] = numbers["validation_loss"]
        if "spread" in numbers:
            row["validation loss of the covariance's part"] = numbers["spread"]["validation_loss"]
            row["prior precision"] = numbers["precision"]
        rows.append(row)
    report.table(rows, "Loss per pixel, in nats.", digits=4)
