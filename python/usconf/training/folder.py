"""A folder of one's own frames with strokes: manifest.csv, pictures, label PNGs, geometries."""

from __future__ import annotations

import csv
import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from .. import geometry as geometries
from .. import io
from ..io.picture import require
from ..margins import BLACK
from ..scan_conversion import to_beam
from .config import FolderData
from .dataset import BAD, Dataset, Splits

MANIFEST = "manifest.csv"
PLANES = ("image", "label", "mask")
_NEEDED = ("image", "label", "group")
_OPTIONAL = ("split", "geometry")
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Entry:
    """One line of a manifest, with its paths made whole."""

    image: Path
    label: Path
    group: str
    split: str
    geometry: Path | None


def load(settings: FolderData, note: Callable[[str], None] = lambda text: None) -> Splits:
    """Read every frame of the training and the validation split, at the working grid.

    Parameters
    ----------
    settings : FolderData
        Where the folder is, the grid, and the share of frames to validate with.
    note : callable, optional
        Told what is being read.

    Returns
    -------
    Splits
        Planes image, label, mask; no clips.

    Raises
    ------
    ValueError
        If the manifest, a picture, a label or a geometry is not what it must be, or a split is
        empty; names the file.
    OSError
        If a file is missing or cannot be read.
    """
    root = Path(settings.root)
    manifest = root / MANIFEST
    entries = split(read_manifest(manifest), settings.validation, settings.seed, manifest)
    loaded = {}
    for name in SPLITS[:2]:
        chosen = [entry for entry in entries if entry.split == name]
        if not chosen:
            raise ValueError(
                f"{manifest}: the {name} split must not be empty; write {name} into the column "
                "split of some groups, or leave the column out and raise data.validation"
            )
        frames = np.empty((len(chosen), len(PLANES), *settings.shape), np.uint8)
        for number, entry in enumerate(chosen):
            note(f"{entry.image.name}, {name} {number + 1}/{len(chosen)}")
            frames[number] = read_frame(entry, settings.shape)
        if not frames[:, 1].any():
            raise ValueError(
                f"{manifest}: the {name} split must hold some stroke of Good (1) or Bad (2), got "
                "none in all its labels; draw some with: usconf label FOLDER"
            )
        loaded[name] = Dataset(PLANES, [frames])
    clips = np.empty((0, 0, *settings.shape), np.uint8)
    return Splits(loaded["training"], loaded["validation"], clips)


def read_manifest(path: Path) -> list[Entry]:
    """The lines of a manifest; ValueError names the file and the line that is wrong."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            _check_columns(path, names)
            entries = [_entry(path, reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} must be a CSV file in UTF-8, got: {error}") from None
    if not entries:
        raise ValueError(f"{path} must list at least one picture, got none")
    twice = [image for image, times in Counter(e.image for e in entries).items() if times > 1]
    if twice:
        raise ValueError(f"{path} must list every picture once, got {twice[0]} several times")
    return entries


def _check_columns(path: Path, names: list[str]) -> None:
    """Other columns (notes, ...) are people's own, but not those that look like a slip."""
    missing = [name for name in _NEEDED if name not in names]
    others = [name for name in names if name not in (*_NEEDED, *_OPTIONAL)]
    slips = [name for name in others if difflib.get_close_matches(name.lower(), _OPTIONAL)]
    if missing or slips or len(set(names)) < len(names):
        raise ValueError(
            f"{path} must have the columns {', '.join(_NEEDED)} and may have "
            f"{', '.join(_OPTIONAL)}, each once and spelled so, got {', '.join(names) or 'none'}"
        )


def _entry(path: Path, line: int, values: dict[str, str | None]) -> Entry:
    row = {key: (value or "").strip() for key, value in values.items() if key is not None}
    if None in values:
        raise ValueError(f"{path}, line {line} must have as many values as the first line")
    for key in _NEEDED:
        if not row.get(key):
            raise ValueError(
                f"{path}, line {line}: {key} must not be empty; group is the patient or the clip, "
                "whose frames stay in one split"
            )
    if row.get("split") and row["split"] not in SPLITS:
        raise ValueError(
            f"{path}, line {line}: split must be one of {', '.join(SPLITS)}, got {row['split']!r}"
        )
    shape = row.get("geometry")
    return Entry(
        path.parent / row["image"],
        path.parent / row["label"],
        row["group"],
        row.get("split", ""),
        path.parent / shape if shape else None,
    )


def split(entries: Sequence[Entry], share: float, seed: int, manifest: Path) -> list[Entry]:
    """Give every entry a split, the same to all frames of a group.

    Without the column split, groups go to validation in an order drawn from their names and the
    seed until `share` of the frames is there: groups added later move no others.
    """
    given = {entry.split for entry in entries}
    if given != {""}:
        if "" in given:
            raise ValueError(
                f"{manifest}: split must be given on every line or on none; fill in "
                f"{', '.join(SPLITS)}"
            )
        homes: dict[str, str] = {}
        for entry in entries:
            if homes.setdefault(entry.group, entry.split) != entry.split:
                raise ValueError(
                    f"{manifest}: a group must lie in one split, got {entry.group!r} in "
                    f"{homes[entry.group]} and {entry.split}; frames of one patient are alike"
                )
        return list(entries)
    sizes: dict[str, int] = {}
    for entry in entries:
        sizes[entry.group] = sizes.get(entry.group, 0) + 1
    drawn = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).hexdigest())
    validation: set[str] = set()
    frames = 0
    # One group at least stays to train on, whatever the share.
    for group in drawn[:-1]:
        if frames >= share * len(entries):
            break
        validation.add(group)
        frames += sizes[group]
    return [
        Entry(e.image, e.label, e.group, SPLITS[e.group in validation], e.geometry) for e in entries
    ]


def read_frame(entry: Entry, shape: tuple[int, int]) -> np.ndarray:
    """Image, label and mask planes (3, rows, columns) uint8 of one entry, in beam space."""
    image = _single(entry.image)
    label = _label(entry.label, entry.image, image.shape)
    if entry.geometry is not None:
        geometry = geometries.load(entry.geometry)
        try:
            beams, mask = to_beam(image, geometry)
            label = to_beam(label, geometry, mask.shape, interpolation="nearest").image
        except ValueError as error:
            raise ValueError(f"{entry.geometry}: {error}") from None
        image = beams
    else:
        image, label = _without_margins(image, label)
        mask = np.ones(image.shape, bool)
    pixels = _levels(image, mask, entry.image)
    return np.stack(
        [
            _resized(pixels, shape, mode="bilinear", antialias=True),  # as usconf.learned does
            _resized(label, shape, mode="nearest-exact"),
            _resized(mask.view(np.uint8), shape, mode="nearest-exact"),
        ]
    )


def _resized(plane: np.ndarray, shape: tuple[int, int], **how: Any) -> np.ndarray:
    """(H, W) uint8 on another grid."""
    values = torch.from_numpy(plane.astype(np.float32))[None, None]
    return interpolate(values, size=shape, **how)[0, 0].round().byte().numpy()


def _single(path: Path) -> np.ndarray:
    frames = io.read(path).frames
    if len(frames) != 1:
        raise ValueError(
            f"{path} must hold one frame, got {len(frames)}; save the frames as files of their own"
        )
    frame: np.ndarray = frames[0]
    return frame


def _label(path: Path, image: Path, shape: tuple[int, ...]) -> np.ndarray:
    label = _indices(path)
    if label.shape != shape:
        raise ValueError(
            f"{path} must be of the size of {image}, {shape[0]} x {shape[1]}, got "
            f"{label.shape[0]} x {label.shape[1]}"
        )
    wrong = (label < 0) | (label > BAD) | (label != np.rint(label))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"{path} must hold 0 (None), 1 (Good) and 2 (Bad) only, got {label[row, column]} at "
            f"row {row}, column {column}; save labels as gray PNG, without colours"
        )
    return label.astype(np.uint8)


def _indices(path: Path) -> np.ndarray:
    """The label's numbers; of a PNG with a palette the indices, not the colours they stand for."""
    frame = _single(path)
    if path.suffix.lower() != ".png":
        return frame
    with require("PIL.Image", "Pillow").open(path) as picture:
        return np.array(picture) if picture.mode == "P" else frame


def _without_margins(image: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut off rows and columns at the border that are black and bear no stroke."""
    low, high = float(image.min()), float(image.max())
    used = (image > low + BLACK * (high - low)) | (label > 0)
    rows, columns = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
    if not len(rows):
        return image, label
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return image[window], label[window]


def _levels(image: np.ndarray, mask: np.ndarray, path: Path) -> np.ndarray:
    """The picture as uint8: what is uint8 stays, the rest is scaled from its range."""
    if image.dtype == np.uint8:
        return image
    inside = image[mask] if mask.any() else image
    values = inside.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} must hold finite pixels, got NaN or infinity")
    low, high = values.min(), values.max()
    scaled = (image - low) / max(high - low, np.finfo(np.float64).tiny)
    return np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
