"""Drawings of the report: box plots, curves over depth, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def boxes(
    values: Mapping[str, Mapping[str, Sequence[float | None]]], colours: Mapping[str, str]
) -> Any:
    """Box plots of the patients, side by side.

    Parameters
    ----------
    values : mapping
        Title of an axis -> method -> one number per patient; None is left out.
    colours : mapping
        Method -> colour of its box.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure = _figure(4.2 * len(values), 4.6)
    for place, (title, methods) in enumerate(values.items(), 1):
        axis = figure.add_subplot(1, len(values), place)
        names = list(methods)
        known = [[value for value in methods[name] if value is not None] for name in names]
        drawn = axis.boxplot(known, patch_artist=True, widths=0.6)
        for patch, name in zip(drawn["boxes"], names, strict=True):
            patch.set_facecolor(colours[name])
        for line in drawn["medians"]:
            line.set_color("black")
        axis.set_title(title)
        axis.set_xticks(range(1, len(names) + 1), names, rotation=75, ha="right", fontsize=8)
        axis.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    return figure


def depth_curves(profiles: Mapping[str, Sequence[float]], spacing: float, unit: str) -> Any:
    """Mean of each map by depth, each scaled to its largest value."""
    figure = _figure(6.5, 4.2)
    axis = figure.add_subplot()
    for name, values in profiles.items():
        rows = np.array(values, dtype=np.float64)
        depth = (np.arange(len(rows)) + 0.5) * spacing
        axis.plot(depth, rows / np.nanmax(rows), label=name, lw=1.8)
    axis.set_xlabel(f"depth ({unit})")
    axis.set_ylabel("mean near borders / its maximum")
    axis.set_ylim(0, 1.05)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    return figure


def learning(curves: Mapping[str, Sequence[tuple[int, float]]]) -> Any:
    """Validation DSC by epoch, mean over the folds."""
    figure = _figure(7.5, 4.2)
    axis = figure.add_subplot()
    for name, points in curves.items():
        axis.plot(*zip(*points, strict=True), label=name, lw=1.4)
    axis.set_xlabel("epoch")
    axis.set_ylabel("validation DSC")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncol=2)
    figure.tight_layout()
    return figure


def _figure(width: float, height: float) -> Any:
    """Without pyplot: nothing is shown, and nothing must be closed."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as problem:
        raise ImportError(
            'the report needs matplotlib; run: pip install "usconf[recipes]"'
        ) from problem
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure
