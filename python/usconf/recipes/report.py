"""A page of text, tables and pictures in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import whole

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.7em; } h2 { font-size: 1.3em; margin-top: 2em; border-bottom: 1px solid #ccc; }
h3 { font-size: 1.1em; }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; font-size: 0.87em; }
caption { text-align: left; padding: 0.4em 0; color: #444; }
th, td { padding: 0.25em 0.7em; text-align: right; border-bottom: 1px solid #e2e2e2; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #888; }
div.wide { overflow-x: auto; }
figure { margin: 0.5em 0; } figcaption { color: #444; font-size: 0.87em; }
img { max-width: 100%; image-rendering: pixelated; display: block; }
div.grid { display: grid; gap: 0.8em; margin: 0.5em 0 1.5em; } div.grid img { width: 100%; }
"""
# Pictures of a grid are at least this wide on the page, single ones grow to it by whole steps.
_SHOWN = 320


class Report:
    """Collect text, tables and pictures, then write them as one HTML page.

    The page holds its pictures (PNG, base64) and its style: it can be mailed, and read without a
    network.

    Parameters
    ----------
    title : str
        Heading of the page.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.recipes.report import Report
    >>> report = Report("Two networks")
    >>> report.heading("Scores")
    >>> report.text("Mean of three folds.")
    >>> report.table([{"network": "UNet", "DSC": 0.8412}], caption="Muscles", digits=2)
    >>> "<td>0.84</td>" in report.html()
    True
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self._parts: list[str] = []

    def heading(self, text: str, level: int = 2) -> None:
        """Start a section (level 2) or one inside it (3)."""
        if level not in (2, 3):
            raise ValueError(f"level must be 2 or 3, got {level!r}; 1 is the report's title")
        self._parts.append(f"<h{level}>{html.escape(text)}</h{level}>")

    def text(self, text: str) -> None:
        """Add plain text; an empty line starts a new paragraph."""
        for paragraph in text.split("\n\n"):
            if paragraph.strip():
                self._parts.append(f"<p>{html.escape(paragraph.strip())}</p>")

    def table(self, rows: Sequence[Mapping[str, Any]], caption: str = "", digits: int = 3) -> None:
        """Add a table.

        Parameters
        ----------
        rows : sequence of mappings
            Column name -> value. Columns stand in the order in which they first appear; a value
            that is missing, None or NaN is shown as a dash.
        caption : str, optional
            What the table shows; default none.
        digits : int, optional
            Decimals of floats; default 3. Text and integers stand as they are.

        Raises
        ------
        ValueError
            If there are no rows.
        """
        if not rows:
            raise ValueError("rows must hold at least one row, got none; leave the table out")
        columns = list(dict.fromkeys(name for row in rows for name in row))
        head = "".join(f"<th>{html.escape(str(name))}</th>" for name in columns)
        body = "".join(
            "<tr>"
            + "".join(f"<td>{html.escape(_cell(row.get(name), digits))}</td>" for name in columns)
            + "</tr>\n"
            for row in rows
        )
        title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
        self._parts.append(
            f'<div class="wide"><table>{title}<thead><tr>{head}</tr></thead>\n'
            f"<tbody>{body}</tbody></table></div>"
        )

    def picture(self, picture: Any, caption: str = "") -> None:
        """Add one picture.

        Parameters
        ----------
        picture : numpy.ndarray or matplotlib figure
            ``(H, W)`` gray or ``(H, W, 3)`` colour: uint8, bool, or floats in [0, 1] (others are
            clipped, NaN is black). A figure is drawn as it is; closing it is the caller's.
        caption : str, optional
            Text below; default none.

        Raises
        ------
        ValueError
            For an array of another shape.
        TypeError
            For anything else.
        """
        data, width = _png(picture)
        # Small arrays grow by a whole number, so that pixels stay square.
        shown = width * max(1, _SHOWN // width)
        self._parts.append(_figure(data, caption, f' style="width:{shown}px"'))

    def pictures(self, pictures: Sequence[tuple[Any, str]], columns: int = 4) -> None:
        """Add pictures in a grid.

        Parameters
        ----------
        pictures : sequence of (picture, caption)
            As in `picture`, row by row.
        columns : int, optional
            Pictures per row, at least 1; default 4.

        Raises
        ------
        ValueError
            If `columns` is below 1, or as `picture`.
        """
        if columns < 1:
            raise ValueError(f"columns must be at least 1, got {columns!r}; 4 is the default")
        figures = "".join(_figure(_png(picture)[0], caption) for picture, caption in pictures)
        style = f"grid-template-columns: repeat({columns}, minmax(0, 1fr))"
        self._parts.append(f'<div class="grid" style="{style}">{figures}</div>')

    def html(self) -> str:
        """The page."""
        title = html.escape(self.title)
        body = "\n".join(self._parts)
        return (
            f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n{body}\n</body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the page, whole or not at all.

        Parameters
        ----------
        path : path-like
            The file; its folder is made.

        Returns
        -------
        pathlib.Path
            The file.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as part:
            part.write_text(self.html(), encoding="utf-8")
        return path


def _cell(value: Any, digits: int) -> str:
    if value is None:
        return "-"
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return "-"
        small = 0 < abs(value) < 10.0**-digits
        return f"{value:.1e}" if small else f"{value:.{digits}f}"
    return str(value)


def _figure(data: bytes, caption: str, style: str = "") -> str:
    source = base64.b64encode(data).decode("ascii")
    text = html.escape(caption)
    below = f"<figcaption>{text}</figcaption>" if caption else ""
    image = f'<img alt="{text}" src="data:image/png;base64,{source}"{style}>'
    return f"<figure>{image}{below}</figure>"


def _png(picture: Any) -> tuple[bytes, int]:
    """The PNG file's bytes and the width in pixels."""
    buffer = io.BytesIO()
    if hasattr(picture, "savefig"):
        picture.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
        return buffer.getvalue(), int.from_bytes(buffer.getvalue()[16:20], "big")
    if not isinstance(picture, np.ndarray):
        raise TypeError(
            f"picture must be a NumPy array or a matplotlib figure, got {type(picture).__name__}; "
            "call numpy.asarray on it"
        )
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] != 3):
        raise ValueError(
            f"picture must have the shape (H, W) or (H, W, 3), got {picture.shape}; take one image"
        )
    try:
        from PIL import Image
    except ImportError as problem:
        raise ImportError(
            'pictures in reports need Pillow; run: pip install "usconf[io]"'
        ) from problem
    if picture.dtype != np.uint8:
        finite = np.nan_to_num(picture.astype(np.float64), nan=0.0)
        picture = np.rint(255 * np.clip(finite, 0, 1)).astype(np.uint8)
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG")
    return buffer.getvalue(), picture.shape[1]
