"""A sheet of frames to look at: image, strokes, map, image tinted where not to trust it, truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .. import io, plot
from .dataset import BAD, GOOD
from .judge import Frames

# Strokes: green and red that colour-blind eyes tell apart by lightness.
_GOOD, _BAD = (120, 220, 90), (205, 45, 60)
_GAP = 4
_LEAST = 128


def sheet(frames: Frames) -> np.ndarray:
    """(rows, columns, 3) uint8: one line per frame.

    From the left: image; image with the strokes (Good green, Bad red); map; overlay; for phantoms
    the true transmission, red where there is an artifact.
    """
    lines = [_line(frames, number) for number in range(len(frames.map))]
    gap = np.full((_GAP, lines[0].shape[1], 3), 255, np.uint8)
    stack = [part for line in lines for part in (line, gap)][:-1]
    return np.concatenate(stack)


def write(path: Path, frames: Frames) -> None:
    """Write the sheet as PNG, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    io.write(path, sheet(frames))


def _line(frames: Frames, number: int) -> np.ndarray:
    planes = {name: plane[number] for name, plane in frames.planes.items()}
    image, label, trust = planes["image"], planes["label"], frames.map[number]
    strokes = _colour(image)
    strokes[label == GOOD], strokes[label == BAD] = _GOOD, _BAD
    panels = [
        _colour(image),
        strokes,
        _colour(np.rint(255 * trust)),
        plot.overlay(image, trust, support=planes.get("mask")),
    ]
    if "transmission" in planes:
        panels.append(_truth(planes["transmission"], planes["artifact"]))
    times = -(-_LEAST // image.shape[0])
    panels = [panel.repeat(times, axis=0).repeat(times, axis=1) for panel in panels]
    gap = np.full((panels[0].shape[0], _GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], axis=1)


def _truth(transmission: np.ndarray, artifact: np.ndarray) -> np.ndarray:
    picture = _colour(transmission)
    wrong = artifact > 0
    picture[wrong] = picture[wrong] // 2 + np.array([100, 10, 20], np.uint8)
    return picture


def _colour(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray.astype(np.uint8)[:, :, None], 3, axis=2)
