"""Pictures whose first row is no transducer face: a fan, or black margins. They draw a warning."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numpy as np

from . import arrays

# Black margins of real pictures hold noise up to 9 of 255.
BLACK = 0.05
# Samples per axis that tell the range and the outline.
SAMPLES = 64
# The upper part of a fan widens to both sides by this share of the picture or more, over so many
# samples, and at least one of its sides is straight: it leans so much and is off so little
# (samples). Ten of twelve real fans, shadows at a side among them, and none of 24 linear frames.
WIDENS, ROWS, LEAN, OFF = 0.12, 8, 0.25, 0.7


def warn_of_margins(image: Any) -> None:
    """UserWarning when the first row, the source of step 7, cannot be the transducer."""
    if 0 in image.shape:
        return
    sample, low, high, black = _sampled(image)
    first_row = arrays.on_host(image[:, 0]).max(axis=1)
    if _opens_like_fan(sample[0] > black[0]):
        warnings.warn(
            "image looks like the fan of a convex or phased probe, whose beams are no columns: the "
            'map would be meaningless; call usconf.confidence(image, geometry="auto") or pass a '
            "usconf.Sector (usconf map: --geometry auto)",
            UserWarning,
            stacklevel=_callers_level(),
        )
    elif bool(((high > low) & (first_row <= black)).any()):
        warnings.warn(
            "image has a black first row, where the transducer should be: the map would be "
            'meaningless; call usconf.confidence(image, geometry="auto"), which crops to the '
            "beam's support (fit_support; usconf map: --geometry auto), or pass mask=",
            UserWarning,
            stacklevel=_callers_level(),
        )


def _callers_level() -> int:
    """The stacklevel, seen from the function that calls this one, of the first line outside usconf.

    Public functions reach a warning through one another, so their number is not fixed.
    """
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        level, frame = level + 1, frame.f_back
    return level


def looks_like_fan(image: Any) -> bool:
    """Whether the first frame of (frames, H, W) plainly is a fan; False for what is not plain."""
    sample, _, _, black = _sampled(image[:1])
    return _opens_like_fan(sample[0] > black[0])


def _sampled(image: Any) -> tuple[np.ndarray, ...]:
    """A coarse copy of the frames, and of each frame the minimum, the maximum and what is black."""
    height, width = image.shape[1:]
    sample = arrays.on_host(image[:, :: -(-height // SAMPLES), :: -(-width // SAMPLES)])
    low = sample.min(axis=(1, 2)).astype(np.float64)
    high = sample.max(axis=(1, 2)).astype(np.float64)
    # Weighed so that no difference is taken: it may overflow, which the core refuses.
    return sample, low, high, (1 - BLACK) * low + BLACK * high


def _opens_like_fan(echo: np.ndarray) -> bool:
    """Whether a coarse picture (rows, columns) of echo widens along straight sides."""
    runs = echo[:, :-1] & echo[:, 1:]  # single samples are noise and letters
    rows = np.flatnonzero(runs.any(axis=1))
    if len(rows) < ROWS:
        return False
    straight = False
    for side in (runs, runs[:, ::-1]):
        edge = side.argmax(axis=1)[rows]
        edge = edge[: int(edge.argmin()) + 1]  # down to where it is outermost
        if len(edge) < ROWS or edge[0] - edge[-1] < WIDENS * echo.shape[1]:
            return False
        slope, start = np.polyfit(rows[: len(edge)], edge, 1)
        off = np.median(np.abs(edge - (slope * rows[: len(edge)] + start)))
        straight |= bool(-slope >= LEAN and off <= OFF)
    return straight
