"""The folder of the HC18 challenge: pictures, outlines or filled masks, and the table of sizes."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage, spatial

from ...io.picture import gray
from ...uncertainty.head_circumference import fit_ellipse
from .data import Data, Frames, deformed, resampled

# 010_HC.png, 010_2HC.png: the number before _ tells the fetus, frames of one stay together.
_PICTURE = re.compile(r"(?P<fetus>.+)_\d*HC\.png", re.IGNORECASE)
_ANNOTATION = "_Annotation.png"
# A mask that fills less of its convex hull is an outline (the challenge draws 3 to 5 pixels wide).
_FILLED = 0.7
# How far from its ellipse an outline's pixel may be, in semi-axes.
_STRAY = 0.15


@dataclass(frozen=True)
class _Entry:
    picture: Path
    annotation: Path
    fetus: str
    pixel_mm: float
    circumference_mm: float


def read_hc18(folder: Path, size: int) -> tuple[Frames, tuple[str, ...]]:
    """Read all annotated pictures of a folder in the layout of HC18.

    Parameters
    ----------
    folder : pathlib.Path
        With ``NNN_HC.png``, ``NNN_HC_Annotation.png`` and one CSV file that has the columns
        ``filename``, ``pixel size(mm)`` and ``head circumference (mm)``; or the folder above, with
        the pictures in ``training_set`` and the CSV file beside that. An annotation is the drawn
        outline of an ellipse, as in the challenge, or a filled mask. Pictures of one fetus have one
        number: ``NNN_2HC.png``.
    size : int
        Rows and columns that the pictures are resized to.

    Returns
    -------
    Frames
        In order of their names; `spacing_mm` is that of the resized pictures.
    tuple of str
        The fetus of every picture.

    Raises
    ------
    FileNotFoundError
        If the folder, its pictures, an annotation or the table is missing; names the thing.
    ValueError
        If the table lacks a column or a picture, or a mask is empty or of another size.

    Notes
    -----
    van den Heuvel et al., PLoS ONE 13(8), 2018; the pictures are at zenodo.org/records/1327317.
    """
    entries = _entries(_pictures_folder(folder))
    read = [_read(entry, size) for entry in entries]
    images, masks, spacing = (np.stack(part) for part in zip(*read, strict=True))
    frames = Frames(
        images,
        masks,
        spacing,
        np.array([entry.circumference_mm for entry in entries]),
        tuple(entry.picture.name for entry in entries),
    )
    return frames, tuple(entry.fetus for entry in entries)


def hc18_data(
    folder: Path, size: int, shares: tuple[float, float], elastic: float, seed: int
) -> Data:
    """Split a folder by fetus, and deform the heads of the test split.

    Parameters
    ----------
    folder : pathlib.Path
        As `read_hc18`.
    size : int
        Rows and columns.
    shares : tuple of float
        Shares of the fetuses that validation and test get; at least one each.
    elastic : float
        As `usconf.recipes.lfusion.data.deformed`.
    seed : int
        Of the split and of the deformations.

    Returns
    -------
    Data
        `ood` are the pictures of `test` with deformed heads; those of `test` are resampled once
        too, by less than a pixel.

    Raises
    ------
    FileNotFoundError, ValueError
        As `read_hc18`; ValueError too for fewer than three fetuses.
    """
    frames, fetuses = read_hc18(folder, size)
    names = sorted(set(fetuses))
    if len(names) < 3:
        raise ValueError(
            f"{folder} must hold pictures of at least 3 fetuses, got {len(names)}; they are split "
            "into training, validation and test"
        )
    order = [names[place] for place in np.random.default_rng([seed, 0]).permutation(len(names))]
    validation = max(1, round(shares[0] * len(names)))
    test = max(1, round(shares[1] * len(names)))
    validation = min(validation, len(names) - 2)
    test = min(test, len(names) - 1 - validation)
    groups = (order[validation + test :], order[:validation], order[validation : validation + test])
    parts = [
        frames.part([place for place, fetus in enumerate(fetuses) if fetus in set(group)])
        for group in groups
    ]
    ordinary = resampled(parts[2], seed)
    return Data(parts[0], parts[1], ordinary, deformed(parts[2], elastic, seed + 1))


def _pictures_folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"data must be a folder, got {folder}; HC18 unpacks to one")
    inside = folder / "training_set"
    chosen = inside if inside.is_dir() else folder
    if not any(_PICTURE.fullmatch(path.name) for path in chosen.iterdir()):
        raise FileNotFoundError(
            f"{chosen} must hold pictures named NNN_HC.png, got none; name the folder of HC18's "
            "training set"
        )
    return chosen


def _entries(folder: Path) -> list[_Entry]:
    pictures = sorted(path for path in folder.iterdir() if _PICTURE.fullmatch(path.name))
    table_path, table = _table(folder)
    entries = []
    for picture in pictures:
        annotation = picture.with_name(picture.stem + _ANNOTATION)
        if not annotation.is_file():
            raise FileNotFoundError(
                f"{picture} must have an annotation, got no {annotation.name}; add it, or move the "
                "picture elsewhere"
            )
        if picture.name not in table:
            raise ValueError(
                f"{table_path} must have a row for {picture.name}, got none; add its pixel size "
                "and head circumference"
            )
        match = _PICTURE.fullmatch(picture.name)
        assert match is not None
        entries.append(_Entry(picture, annotation, match["fetus"], *table[picture.name]))
    return entries


def _table(folder: Path) -> tuple[Path, dict[str, tuple[float, float]]]:
    """File name -> (pixel size, head circumference) of the one CSV that has these columns."""
    candidates = sorted(folder.glob("*.csv")) or sorted(folder.parent.glob("*.csv"))
    if not candidates:
        raise FileNotFoundError(
            f"{folder} must have a CSV file with pixel sizes and head circumferences, got none "
            "there nor in the folder above; HC18's is training_set_pixel_size_and_HC.csv"
        )
    for path in candidates:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        columns = rows[0].keys() if rows else ()
        found = [
            next((name for name in columns if name and word in name.lower()), None)
            for word in ("filename", "pixel", "circumference")
        ]
        if None not in found:
            return path, {
                row[found[0]].strip(): (
                    _positive(path, row, found[1]),
                    _positive(path, row, found[2]),
                )
                for row in rows
            }
    raise ValueError(
        f"{candidates[-1]} must have the columns filename, pixel size(mm) and head circumference "
        f"(mm), got {', '.join(map(str, columns)) or 'no rows'}; take HC18's names"
    )


def _positive(path: Path, row: dict[str, Any], column: Any) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = np.nan
    if not (np.isfinite(value) and value > 0):
        raise ValueError(
            f"{path}: {column} must be a positive number, got {row[column]!r} in the row of "
            f"{next(iter(row.values()))}; mend the table"
        )
    return value


def _read(entry: _Entry, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    image, drawn = _pixels(entry.picture), _pixels(entry.annotation)
    if image.shape != drawn.shape:
        raise ValueError(
            f"{entry.annotation} must be as large as its picture, {image.shape}, got "
            f"{drawn.shape}; annotate the picture itself"
        )
    mask = filled(drawn, str(entry.annotation))
    spacing = entry.pixel_mm * np.array(image.shape) / size
    return _resized(image, size, 255), _resized(255 * mask, size, 1), spacing


def filled(drawn: np.ndarray, name: str = "mask") -> np.ndarray:
    """A head's filled mask from one, or from the outline of an ellipse.

    Parameters
    ----------
    drawn : numpy.ndarray
        ``(H, W)``; what is above half of its largest value is drawn.
    name : str, optional
        What errors call it.

    Returns
    -------
    numpy.ndarray
        ``(H, W)`` uint8, 0 and 1. An outline, also one that the picture's border cuts, becomes the
        ellipse through the middle of its line.

    Raises
    ------
    ValueError
        If nothing is drawn, or too little for an ellipse.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.recipes.lfusion.hc18 import filled
    >>> y, x = np.mgrid[-20:21, -20:21]
    >>> outline = abs(np.hypot(y, 0.8 * x) - 12) < 1
    >>> whole = np.hypot(y, 0.8 * x) < 12
    >>> int((filled(outline) != whole).sum()) < 20
    True
    """
    mask = drawn > drawn.max() / 2 if drawn.max() > 0 else np.zeros(drawn.shape, bool)
    rows, columns = np.nonzero(mask)
    if len(rows) < 6 or np.ptp(rows) < 2 or np.ptp(columns) < 2:
        raise ValueError(f"{name} must show a head, got {len(rows)} drawn pixels; draw its outline")
    hull = spatial.ConvexHull(np.stack([rows, columns], 1).astype(np.float64))
    if len(rows) > _FILLED * hull.volume:
        return ndimage.binary_fill_holes(mask).astype(np.uint8)
    radius = _radius(mask.shape, rows, columns)
    # A line of some width, drawn by hand, lies around 1 for the most part.
    if radius is None or np.mean(np.abs(radius[mask] - 1) < _STRAY) < 0.9:
        raise ValueError(
            f"{name} must show the outline of an ellipse, got another curve; redraw it"
        )
    return (radius < 1).astype(np.uint8)


def _radius(shape: tuple[int, ...], rows: np.ndarray, columns: np.ndarray) -> np.ndarray | None:
    """Of every pixel, in semi-axes of the ellipse through these points; None without one."""
    try:
        ellipse = fit_ellipse(rows.astype(np.float64), columns.astype(np.float64))
    except ValueError:
        return None
    y, x = np.indices(shape)
    y, x = y - ellipse.center_mm[0], x - ellipse.center_mm[1]
    cos, sin = np.cos(ellipse.angle_rad), np.sin(ellipse.angle_rad)
    major, minor = ellipse.semi_axes_mm
    radius: np.ndarray = np.hypot((cos * x + sin * y) / major, (cos * y - sin * x) / minor)
    return radius


def _pixels(path: Path) -> np.ndarray:
    try:
        from PIL import Image
    except ImportError as problem:
        raise ImportError('reading HC18 needs Pillow; run: pip install "usconf[io]"') from problem
    try:
        with Image.open(path) as picture:
            if picture.mode in ("1", "L", "P"):
                return np.asarray(picture.convert("L"))
            return gray(np.asarray(picture.convert("RGB")))
    except OSError as problem:
        raise ValueError(f"{path} must be a picture, got: {problem}; replace it") from None


def _resized(image: np.ndarray, size: int, top: int) -> np.ndarray:
    from PIL import Image

    small = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    return small if top == 255 else (small > 127).astype(np.uint8)
