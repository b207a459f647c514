"""Where `usconf stream` takes its frames from: a clip, a folder, raw bytes, phantoms."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .. import io
from ..arrays import SCALARS
from .jobs import find

_DEMO_SIZE, _DEMO_FRAMES = 256, 16
_DEMO_FAN = (240, 320)


class Raw(NamedTuple):
    """What --raw says: shape and dtype of frames that follow each other without headers."""

    shape: tuple[int, int]
    dtype: np.dtype


class Source(NamedTuple):
    """Frames, and what is known of them before the first.

    `clip` has all frames where they are at hand: a geometry is fitted to them together.
    """

    frames: Iterator[np.ndarray]
    clip: np.ndarray | None = None
    spacing_mm: tuple[float, float] | None = None
    rate: Fraction | None = None


def raw(text: str) -> Raw:
    """Read ``HxW`` or ``HxW:dtype``; ValueError if it is neither."""
    size, _, dtype = text.partition(":")
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", size)
    if not found or (dtype or "uint8") not in SCALARS:
        raise ValueError(
            f"must be HxW or HxW:dtype with a dtype of {', '.join(SCALARS)}, got {text!r}; "
            "e.g. 480x640 or 480x640:uint16"
        )
    shape = (int(found[1]), int(found[2]))
    return Raw(shape, np.dtype(dtype or "uint8").newbyteorder("<"))


def raw_frames(file: BinaryIO, layout: Raw) -> Iterator[np.ndarray]:
    """Frames from a stream of bytes; ValueError if it ends inside of one.

    Each is an array of its own: the one before may still be waiting for its map.
    """
    for index in itertools.count(1):
        frame = np.empty(layout.shape, layout.dtype)
        view = frame.data.cast("B")
        filled = 0
        while filled < len(view) and (count := file.readinto(view[filled:])):  # type: ignore
            filled += count
        if filled == 0:
            return
        if filled < len(view):
            raise ValueError(
                f"stdin must hold whole frames of {len(view)} bytes, it ended {filled} bytes into "
                f"frame {index}; see --raw"
            )
        yield frame.astype(layout.dtype.newbyteorder("="), copy=False)


def clip(path: Path) -> Source:
    """All frames of a file."""
    picture = io.read(path)
    rate = picture.meta.get("rate")
    return Source(iter(picture.frames), picture.frames, picture.spacing_mm, rate)


def folder(path: Path) -> Source:
    """The frames of every readable file below a folder, read one file ahead; frame2 before 10."""
    files = sorted((file for file, _ in find([path], path, set())), key=_counting)
    if not files:
        raise ValueError(f"{path} must hold readable pictures, got none")
    return Source(frame for file in files for frame in io.read(file).frames)


def demo(fan: bool) -> Source:
    """Phantoms made now, moving to and fro without end: a body, or with `fan` a convex probe."""
    from ..phantom import demo_fan, generate

    if fan:
        # Speckle alone changes: four pictures are enough to look alive.
        frames = np.stack([demo_fan(*_DEMO_FAN, seed=seed)[0] for seed in range(4)])
    else:
        size = (_DEMO_SIZE, _DEMO_SIZE)
        frames = generate(size, seed=0, frames=_DEMO_FRAMES).image
    return Source(itertools.cycle([*frames, *frames[-2:0:-1]]), frames)


def first_of(frames: Iterable[Any]) -> tuple[Any, Iterator[Any]]:
    """The first frame, and all of them; ValueError if there is none."""
    iterator = iter(frames)
    try:
        first = next(iterator)
    except StopIteration:
        raise ValueError("SOURCE must hold at least one frame, got none") from None
    return first, itertools.chain([first], iterator)


def _counting(path: Path) -> list[tuple[int, str]]:
    """Sort key by which numbers count as numbers."""
    words = re.split(r"(\d+)", str(path))
    return [(int(word), "") if word.isdigit() else (-1, word) for word in words]
