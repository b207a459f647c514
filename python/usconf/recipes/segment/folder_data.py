"""A folder of one's own pictures or volumes with labels: manifest.csv and the files it names."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ... import io
from ...io.picture import require
from ...margins import BLACK
from .cases import Case, Cases
from .resampling import resampled

MANIFEST = "manifest.csv"
_NEEDED = ("image", "label", "patient")
_OPTIONAL = ("split", "spacing_mm")
_SPLITS = ("training", "validation", "test")
# Class indices are kept in one byte, and more classes than this are no labels but a picture.
_MOST_CLASSES = 64


@dataclass(frozen=True)
class _Entry:
    """One line of the manifest, its paths made whole."""

    image: Path
    labels: tuple[Path, ...]
    patient: str
    split: str | None
    spacing: tuple[float, ...] | None


def load(
    root: Path,
    shape: tuple[int, ...],
    organs: Sequence[str] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Cases:
    """Read all that the manifest lists, and bring it to one shape.

    Parameters
    ----------
    root : pathlib.Path
        Folder with manifest.csv: columns image, label, patient, and split and spacing_mm if wanted.
        The column label names one file, or several labellings of the picture, ``;`` between them:
        the first is learned from. Paths start at the folder.
    shape : tuple of int
        ``(H, W)``, or ``(D, H, W)`` for volumes (NIfTI, MetaImage, clips), whose frames are
        resampled too. Images are smoothed as they shrink, labels take the nearest pixel.
    organs : sequence of str, optional
        Names of the label values 1, 2, ...; None (default) counts them in the labels.
    note : callable, optional
        Told which file is being read.

    Returns
    -------
    Cases
        Distances in mm where every line or file tells the size of its pixels, else in pixels of
        `shape`. Black margins without a label are cut off first: a map must start at the probe.

    Raises
    ------
    ValueError
        If the manifest or a file is not what it must be; names it.
    OSError
        If a file cannot be read.
    """
    manifest = root / MANIFEST
    entries = _entries(manifest)
    read = []
    for number, entry in enumerate(entries):
        note(f"{entry.image.name}, {number + 1}/{len(entries)}")
        read.append(_case(entry, shape))
    highest = max(int(case.labellings.max()) for case in read)
    if highest == 0:
        raise ValueError(f"{manifest} must name labels with some class above 0, got none")
    names = list(organs) if organs else [f"class {index}" for index in range(1, highest + 1)]
    if highest > len(names):
        worst = next(case.name for case in read if case.labellings.max() == highest)
        raise ValueError(
            f"labels must hold 0 to {len(names)} for the organs {', '.join(names)}, got {highest} "
            f"in the label of {worst}; name it in organs, or mend the label"
        )
    unit = "mm" if all(case.spacing for case in read) else "pixels"
    if unit == "pixels":
        read = [replace(case, spacing=(1.0,) * len(shape)) for case in read]
    return Cases(read, ("background", *names), unit)


def _entries(path: Path) -> list[_Entry]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            missing = [name for name in _NEEDED if name not in names]
            if missing:
                raise ValueError(
                    f"{path} must have the columns {', '.join(_NEEDED)} and may have "
                    f"{', '.join(_OPTIONAL)}, got {', '.join(names) or 'none'}; add {missing[0]}"
                )
            entries = [_entry(path, reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise ValueError(f"{path} must be a CSV file in UTF-8, got: {problem}; mend it") from None
    if not entries:
        raise ValueError(f"{path} must list at least one picture, got none; add a line for each")
    if len({entry.split is None for entry in entries}) > 1:
        raise ValueError(
            f"{path}: split must be given on every line or on none, got both; fill in "
            f"{', '.join(_SPLITS)}"
        )
    return entries


def _entry(path: Path, line: int, values: dict[str, str | None]) -> _Entry:
    where = f"{path}, line {line}"
    row = {key: (value or "").strip() for key, value in values.items() if isinstance(key, str)}
    for key in _NEEDED:
        if not row.get(key):
            raise ValueError(f"{where}: {key} must not be empty, got nothing; fill it in")
    split = row.get("split") or None
    if split is not None and split not in _SPLITS:
        raise ValueError(f"{where}: split must be one of {', '.join(_SPLITS)}, got {split!r}")
    labels = tuple(path.parent / part.strip() for part in row["label"].split(";") if part.strip())
    return _Entry(
        path.parent / row["image"],
        labels,
        row["patient"],
        split,
        _spacing(where, row.get("spacing_mm", "")),
    )


def _spacing(where: str, text: str) -> tuple[float, ...] | None:
    if not text:
        return None
    try:
        values = tuple(float(part) for part in text.split())
    except ValueError:
        values = ()
    if len(values) not in (2, 3) or not all(0 < value < 1000 for value in values):
        raise ValueError(
            f"{where}: spacing_mm must be 2 or 3 positive numbers, [frames] rows columns, got "
            f"{text!r}; for example 0.1 0.1"
        )
    return values


def _case(entry: _Entry, shape: tuple[int, ...]) -> Case:
    picture = io.read(entry.image)
    frames = _levels(picture.frames, entry.image)
    if len(shape) == 2 and len(frames) != 1:
        raise ValueError(
            f"{entry.image} must hold one frame for a shape of two numbers, got {len(frames)}; "
            "give shape a third number in front for 3-D"
        )
    labellings = [_label(path, entry.image, frames.shape) for path in entry.labels]
    window = _without_margins(frames, labellings)
    frames, labellings = frames[window], [label[window] for label in labellings]
    spacing = _spacing_of(entry, picture, len(shape))
    if spacing is not None:
        before = frames.shape[-len(shape) :]
        spacing = tuple(
            step * old / new for step, old, new in zip(spacing, before, shape, strict=True)
        )
    image = _bytes(resampled(frames, shape, smooth=True))
    labels = np.stack([_bytes(resampled(label, shape, smooth=False)) for label in labellings])
    return Case(
        entry.image.stem,
        entry.patient,
        image,
        labels[0],
        labels[0],
        labels,
        spacing or (),
        entry.split,
        original=frames,
    )


def _spacing_of(entry: _Entry, picture: io.Picture, dims: int) -> tuple[float, ...] | None:
    """What the manifest says, else the file; along frames only NIfTI tells."""
    if entry.spacing is not None:
        if len(entry.spacing) != dims:
            raise ValueError(
                f"spacing_mm of {entry.image} must hold {dims} numbers for the shape, got "
                f"{len(entry.spacing)}; write [frames] rows columns"
            )
        return entry.spacing
    if picture.spacing_mm is None or dims == 2:
        return picture.spacing_mm
    header = picture.meta.get("header") if picture.kind == "nifti" else None
    zooms: tuple[Any, ...] = header.get_zooms() if header is not None else ()
    return (float(zooms[2]), *picture.spacing_mm) if len(zooms) > 2 and zooms[2] > 0 else None


def _label(path: Path, image: Path, shape: tuple[int, ...]) -> np.ndarray:
    label = _indices(path)
    if label.shape != shape:
        raise ValueError(
            f"{path} must be of the size of {image}, {' x '.join(map(str, shape))}, got "
            f"{' x '.join(map(str, label.shape))}; labels are drawn on the picture itself"
        )
    wrong = (label < 0) | (label >= _MOST_CLASSES) | (label != np.rint(label))
    if wrong.any():
        raise ValueError(
            f"{path} must hold class indices 0, 1, 2, ... below {_MOST_CLASSES}, got "
            f"{label[wrong].flat[0]}; save labels as indices, not as colours"
        )
    return label.astype(np.uint8)


def _indices(path: Path) -> np.ndarray:
    """The label's numbers ``(T, H, W)``; of a PNG with a palette the indices, not its colours."""
    if path.suffix.lower() == ".png":
        with require("PIL.Image", "Pillow").open(path) as picture:
            if picture.mode == "P":
                return np.array(picture)[None]
    return io.read(path).frames


def _levels(frames: np.ndarray, path: Path) -> np.ndarray:
    """As uint8: what is uint8 stays, the rest is scaled from its range."""
    if frames.dtype == np.uint8:
        return frames
    values = frames.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} must hold finite pixels, got NaN or infinity; mend the file")
    low, high = values.min(), values.max()
    scaled = (values - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.rint(255 * scaled).astype(np.uint8)


def _without_margins(frames: np.ndarray, labels: list[np.ndarray]) -> Any:
    """What is left without border rows and columns that are black in all frames and unlabelled."""
    low, high = float(frames.min()), float(frames.max())
    used = np.any(frames > low + BLACK * (high - low), axis=0)
    for label in labels:
        used |= np.any(label > 0, axis=0)
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    if not len(rows):
        return np.s_[:, :, :]
    return np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values).astype(np.uint8)
