"""manifest.csv: which picture has which label, and what belongs together."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from ..atomic import whole

NAME = "manifest.csv"
REQUIRED = ("image", "label", "group")


class Manifest:
    """Rows of a manifest; columns that others added (split, notes, ...) stay as they are.

    Parameters
    ----------
    path : path-like
        The file; without it the manifest is empty and has the columns image, label and group.

    Raises
    ------
    ValueError
        If the file is no manifest: a column is missing, a line has too few or too many values,
        an image occurs twice. The message names the file and the line.
    OSError
        If the file exists and cannot be read.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from usconf.integrations.napari_manifest import Manifest
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "manifest.csv"
    >>> manifest = Manifest(path)
    >>> manifest.put("a.png", label="labels/a.png", group="patient 1")
    >>> manifest.write()
    >>> path.read_text().splitlines()
    ['image,label,group', 'a.png,labels/a.png,patient 1']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._columns = list(REQUIRED)
        self._rows: dict[str, dict[str, str]] = {}
        try:
            # Spreadsheets put a byte order mark in front.
            text = self.path.read_text(encoding="utf-8-sig")
        except FileNotFoundError:
            return
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{self.path} must be UTF-8 text, got {error}; save it as CSV, UTF-8"
            ) from None
        self._parse(text)

    def _parse(self, text: str) -> None:
        lines = csv.reader(io.StringIO(text, newline=""))
        self._columns = [name.strip() for name in next(lines, [])]
        missing = [name for name in REQUIRED if name not in self._columns]
        if missing or len(set(self._columns)) < len(self._columns):
            raise ValueError(
                f"{self.path}: line 1 must name the columns {','.join(REQUIRED)} once each, got "
                f"{','.join(self._columns)!r}; separate them with commas"
            )
        for values in lines:
            if not any(values):
                continue
            where = f"{self.path}: line {lines.line_num}"
            if len(values) != len(self._columns):
                raise ValueError(
                    f"{where} must have {len(self._columns)} values, got {len(values)}; "
                    "quote values that hold commas"
                )
            row = dict(zip(self._columns, map(str.strip, values), strict=True))
            if row["image"] in self._rows:
                raise ValueError(
                    f"{where} must name another image, got {row['image']!r} a second time; "
                    "remove one of the two lines"
                )
            self._rows[row["image"]] = row

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[dict[str, str]]:
        return iter(self._rows.values())

    def row(self, image: str) -> dict[str, str] | None:
        """Return a copy of the image's row, None without one."""
        row = self._rows.get(image)
        return None if row is None else dict(row)

    def put(self, image: str, **values: str) -> None:
        """Set values of the image's row; a new row comes last, a new column too."""
        self._columns += [name for name in values if name not in self._columns]
        self._rows.setdefault(image, {"image": image}).update(values)

    def remove(self, image: str) -> None:
        """Drop the image's row if there is one."""
        self._rows.pop(image, None)

    def split(self, image: str, group: str) -> str | None:
        """The split that the image belongs to with this group; None where none are given.

        A group lies on one side: the image follows the others of it. An image of a group of its
        own keeps its split, a new one is for training.
        """
        if not any(row.get("split") for row in self):
            return None
        others = (row for row in self if row["group"] == group and row["image"] != image)
        own = self._rows.get(image, {}).get("split")
        return next((row["split"] for row in others if row["split"]), own or "training")

    def write(self) -> None:
        """Write the file at once: under its name there is never half of it."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self)
        with whole(self.path) as part:
            part.write_text(text.getvalue(), encoding="utf-8", newline="")
