"""A folder of pictures that a person labels Good and Bad: what to show, what to save, where.

Nothing here knows napari or Qt; the window is in `napari_widget`.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from .. import io
from ..geometry import Geometry
from ..geometry import load as load_geometry
from ..io.files import readable_suffix
from ..io.picture import require
from .napari_manifest import NAME, Manifest

NONE, GOOD, BAD = 0, 1, 2

_LABELS = "labels"
_GEOMETRIES = "geometries"
# Frames that were labelled, taken out of their clips: every row of the manifest is one picture.
_CLIP_FRAMES = "clip_frames"


class LabelError(ValueError):
    """A label file that does not fit its picture; the message names the file."""


@dataclass(frozen=True, eq=False)
class Shown:
    """One frame of the folder and what is known about it.

    Attributes
    ----------
    index, frame : int
        Which of the folder's pictures, which of its frames.
    image : numpy.ndarray
        Gray frame (H, W) in the file's own values.
    label : numpy.ndarray
        uint8 (H, W), as on disk: 0 None, 1 Good, 2 Bad.
    label_file : pathlib.Path
        Where the label lies, or will.
    key : str
        The frame's name in the manifest's column image.
    group : str
        Patient or recording: frames of one group never lie on both sides of a split.
    geometry : Geometry or None
        Where the beams run, as saved with the label.
    spacing_mm : tuple of float or None
        Distance of neighbouring rows and columns in mm.
    frames : int
        Number of frames in the file.
    listed : bool
        Whether the manifest has a row for the frame.
    """

    index: int
    frame: int
    image: np.ndarray
    label: np.ndarray
    label_file: Path
    key: str
    group: str
    geometry: Geometry | None
    spacing_mm: tuple[float, float] | None
    frames: int
    listed: bool


class Folder:
    """Pictures, labels and manifest of one folder.

    Parameters
    ----------
    path : path-like
        The folder; pictures in folders below it belong to it too. Labels that lie in it already
        are continued.

    Raises
    ------
    ValueError
        If the path is no folder, holds no readable picture, or its manifest is none.

    Notes
    -----
    What is written: ``labels/NAME.png`` (uint8 0 None, 1 Good, 2 Bad, of the picture's size),
    ``clip_frames/CLIP/0012.png`` (a labelled frame of a clip; ``.npy`` where a PNG would change
    its values), ``geometries/NAME.json`` and ``manifest.csv`` with a row per labelled picture;
    paths are relative to the folder. Every file appears under its name only when complete. A
    picture without strokes has neither label nor row.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile, usconf.io
    >>> from usconf.integrations.napari_folder import GOOD, Folder
    >>> path = pathlib.Path(tempfile.mkdtemp())
    >>> np.save(path / "frame.npy", np.zeros((4, 3), np.uint8))
    >>> folder = Folder(path)
    >>> shown = folder.open(0)
    >>> shown.label[0, :] = GOOD
    >>> saved = folder.save(shown, shown.label, group="patient 1", geometry=None)
    >>> (path / "manifest.csv").read_text().splitlines()[1]
    'frame.npy,labels/frame.png,patient 1'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ValueError(f"FOLDER must be a folder of pictures, got {self.path}; create it")
        self.manifest = Manifest(self.path / NAME)
        self.pictures = self._find()
        if not self.pictures:
            raise ValueError(
                f"FOLDER must hold readable pictures, got none in {self.path}; "
                "see usconf.io.read for the kinds"
            )
        self._stems = self._unique_stems()
        self._read: tuple[int, io.Picture] | None = None

    def _find(self) -> list[Path]:
        from ..cli.jobs import JOURNAL, Journal, find

        made = {(self.path / row["label"]).resolve() for row in self.manifest}
        for journal in self.path.rglob(JOURNAL):  # maps that `usconf map` wrote among them
            made |= Journal(journal.parent, {}).outputs()
        found = [below for _, below in find([self.path], self.path / _LABELS, made)]
        return [below for below in found if below.parts[0] != _CLIP_FRAMES]

    def _unique_stems(self) -> list[str]:
        """Names of labels: ``sub/a`` for sub/a.png, the whole name where a.jpg is there too."""
        stems = []
        for below in self.pictures:
            suffix = readable_suffix(below) or ""
            has_suffix = below.name.lower().endswith(suffix)
            stem = below.name[: len(below.name) - len(suffix)] if has_suffix else below.name
            stems.append(below.with_name(stem or below.name).as_posix())
        count = Counter(stems)
        names = [
            below.as_posix() if count[stem] > 1 else stem
            for below, stem in zip(self.pictures, stems, strict=True)
        ]
        for name, times in Counter(names).items():
            if times > 1:
                both = [str(p) for p, n in zip(self.pictures, names, strict=True) if n == name]
                raise ValueError(
                    f"pictures must have labels of different names, got {name}.png for "
                    f"{' and '.join(both)}; rename one of them"
                )
        return names

    def __len__(self) -> int:
        return len(self.pictures)

    def labelled(self, index: int) -> bool:
        """Tell whether the manifest has a row for the picture, or for a frame of the clip."""
        name = self.pictures[index].as_posix()
        clip = f"{_CLIP_FRAMES}/{name}/"
        return any(row["image"] == name or row["image"].startswith(clip) for row in self.manifest)

    def next_unlabelled(self, index: int) -> int | None:
        """Index of the first picture after this one, round to the start, that has no label."""
        order = [(index + step) % len(self) for step in range(1, len(self))]
        return next((other for other in order if not self.labelled(other)), None)

    def open(self, index: int, frame: int = 0) -> Shown:
        """Read a picture, or one frame of a clip, with its label.

        Parameters
        ----------
        index : int
            Which of `pictures`.
        frame : int, optional
            Which frame of a clip, from 0. Default: 0.

        Returns
        -------
        Shown
            The label is all None where nobody has drawn yet.

        Raises
        ------
        LabelError
            If the label has another size than the picture or other values than 0, 1 and 2, or
            cannot be read, or its name in the manifest leads out of the folder.
        UnreadableError, ImportError, OSError
            If the picture cannot be read.
        ValueError, TypeError
            If there is no such frame, or the geometry's file holds none.
        """
        image, spacing, count = self.image(index, frame)
        key = self._key(index, frame, count, image)
        row = self.manifest.row(key)
        listed = row is not None
        row = row or {"label": "", "group": self._group(index, count)}
        if row["label"]:
            path = self._inside(row["label"], "label")
        else:
            path = self.path / _LABELS / f"{self._name(index, frame, count)}.png"
        label = read_label(path, image.shape) if path.exists() else np.zeros(image.shape, np.uint8)
        geometry = row.get("geometry")
        return Shown(
            index=index,
            frame=frame,
            image=image,
            label=label,
            label_file=path,
            key=key,
            group=row["group"],
            geometry=load_geometry(self._inside(geometry, "geometry")) if geometry else None,
            spacing_mm=spacing,
            frames=count,
            listed=listed,
        )

    def image(
        self, index: int, frame: int = 0
    ) -> tuple[np.ndarray, tuple[float, float] | None, int]:
        """The frame (H, W) itself, its spacing in mm or None, the number of frames."""
        if self._read is None or self._read[0] != index:
            self._read = None  # two long clips need not fit into memory
            self._read = index, io.read(self.path / self.pictures[index])
        picture = self._read[1]
        count = len(picture.frames)
        if not 0 <= frame < count:
            raise ValueError(
                f"frame must be 0 to {count - 1} for {self.pictures[index]}, got {frame}; "
                "frames are counted from 0"
            )
        return picture.frames[frame], picture.spacing_mm, count

    def _name(self, index: int, frame: int, count: int) -> str:
        """Name of a frame's label and geometry, without suffix."""
        if count == 1:
            return self._stems[index]
        return f"{self.pictures[index].as_posix()}/{frame:04d}"

    def _key(self, index: int, frame: int, count: int, image: np.ndarray) -> str:
        if count == 1:
            return self.pictures[index].as_posix()
        suffix = ".png" if image.dtype in (np.uint8, np.uint16) else ".npy"
        return f"{_CLIP_FRAMES}/{self._name(index, frame, count)}{suffix}"

    def _inside(self, name: str, column: str) -> Path:
        """A manifest may come from others: nothing beside the folder is read or written."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise LabelError(
                f"{self.manifest.path}: {column} must be a path within the folder, got {name!r}; "
                "move the file there"
            )
        return self.path / path

    def _group(self, index: int, count: int) -> str:
        """Rather too large a group than one patient on both sides of a split."""
        below = self.pictures[index]
        if len(below.parts) > 1:
            return below.parent.as_posix()
        if count > 1:
            return self._stems[index]
        return self._stems[index].rstrip("0123456789").rstrip("_-. ") or self.path.resolve().name

    def save(
        self, shown: Shown, label: np.ndarray, *, group: str, geometry: Geometry | None
    ) -> Shown:
        """Write a frame's label, and its row in the manifest.

        Parameters
        ----------
        shown : Shown
            What `open` returned.
        label : numpy.ndarray
            Integers (H, W): 0 None, 1 Good, 2 Bad. All None: label and row are removed.
        group : str
            Patient or recording.
        geometry : Geometry or None
            Where the beams run, for training in beam space; None: the columns are the beams.

        Returns
        -------
        Shown
            The frame as `open` returns it from now on.

        Raises
        ------
        LabelError
            If the label has another shape than the image, or other values.
        ValueError
            If the group is empty.
        OSError
            If a file cannot be written; what was saved before stays.
        """
        label = checked(label, shown.image.shape, "label").copy()
        group = group.strip()
        if not group:
            raise ValueError("group must name a patient or recording, got nothing; fill it in")
        if not label.any():
            self._remove(shown)
            return replace(shown, label=label, group=group, geometry=geometry, listed=False)
        values = {"label": shown.label_file.relative_to(self.path).as_posix(), "group": group}
        split = self.manifest.split(shown.key, group)
        if split is not None:
            values["split"] = split
        row = self.manifest.row(shown.key) or {}
        if geometry is None:
            if row.get("geometry"):
                values["geometry"] = ""
        elif geometry != shown.geometry or not row.get("geometry"):
            # A file of its own: the one in the manifest may serve other pictures too.
            name = self._name(shown.index, shown.frame, shown.frames)
            values["geometry"] = f"{_GEOMETRIES}/{name}.json"
            target = self.path / values["geometry"]
            target.parent.mkdir(parents=True, exist_ok=True)
            geometry.save(target)
        if shown.frames > 1:
            _write(self.path / shown.key, shown.image)
        _write(shown.label_file, label)
        self.manifest.put(shown.key, **values)
        self.manifest.write()
        return replace(shown, label=label, group=group, geometry=geometry, listed=True)

    def _remove(self, shown: Shown) -> None:
        if self.manifest.row(shown.key) is not None:
            self.manifest.remove(shown.key)
            self.manifest.write()
        shown.label_file.unlink(missing_ok=True)
        if shown.frames > 1:
            (self.path / shown.key).unlink(missing_ok=True)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    io.write(path, pixels)


def read_label(path: str | os.PathLike[str], shape: tuple[int, ...]) -> np.ndarray:
    """Read a label file.

    Parameters
    ----------
    path : path-like
        Gray PNG of 8 bits; of a palette PNG the indices count, not the colours.
    shape : tuple of int
        (H, W) of its picture.

    Returns
    -------
    numpy.ndarray
        uint8 (H, W): 0 None, 1 Good, 2 Bad.

    Raises
    ------
    LabelError
        If it is no such picture, has another size or other values; the message names the file.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile, usconf.io
    >>> from usconf.integrations.napari_folder import read_label
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "frame.png"
    >>> usconf.io.write(path, np.full((4, 3), 2, np.uint8))
    >>> read_label(path, (4, 3)).max()
    np.uint8(2)
    """
    image_module = require("PIL.Image", "Pillow")
    try:
        with image_module.open(path) as picture:
            mode, pixels = picture.mode, np.array(picture)
    # Pillow raises whatever a damaged byte leads it to: no list would be complete.
    except Exception as error:
        raise LabelError(f"{os.fspath(path)} cannot be read as a label: {error}") from error
    if mode not in ("L", "P"):
        raise LabelError(
            f"{os.fspath(path)} must be a gray PNG of 8 bits, got the mode {mode}; "
            "save the values 0, 1 and 2, not colours"
        )
    return checked(pixels, shape, os.fspath(path))


def checked(label: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The label as uint8; LabelError that begins with `name` if size or values are wrong."""
    if label.shape != tuple(shape):
        raise LabelError(
            f"{name} must be {shape[0]} x {shape[1]} (rows x columns) as its picture, got "
            f"{' x '.join(map(str, label.shape))}; label that picture again or remove the file"
        )
    if label.dtype.kind not in "ui" or int(label.min()) < NONE or int(label.max()) > BAD:
        others = np.unique(label[(label < NONE) | (label > BAD)])[:3].tolist()
        raise LabelError(
            f"{name} must hold 0 None, 1 Good and 2 Bad only, got "
            f"{', '.join(map(str, others)) or label.dtype}; correct it or remove the file"
        )
    return label.astype(np.uint8, copy=False)
