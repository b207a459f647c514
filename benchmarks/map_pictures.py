"""A page of real frames, each beside its map by every method: to be looked at, never published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import real_frames
from map_methods import Call
from PIL import Image, ImageDraw, ImageFont

GAP, CAPTION = 6, 20


def strip(title: str, image: np.ndarray, methods: dict[str, Call]) -> Image.Image:
    """The frame and its maps in one row; white = trusted."""
    panels = {title: image}
    for name, call in methods.items():
        panels[name] = np.rint(255 * np.clip(call(image), 0, 1)).astype(np.uint8)
    height, width = image.shape
    row = Image.new("L", (len(panels) * (width + GAP) - GAP, height + CAPTION), 255)
    draw, font = ImageDraw.Draw(row), ImageFont.load_default(12)
    for index, (caption, picture) in enumerate(panels.items()):
        left = index * (width + GAP)
        draw.text((left + 2, 3), caption[:40], fill=0, font=font)
        row.paste(Image.fromarray(picture), (left, CAPTION))
    return row


def write(
    methods: dict[str, Call], data: Path, folder: Path, say: Callable[[str], None], each: int = 6
) -> None:
    """Pages of some rows each."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [strip(name, image, methods) for name, image in real_frames.singles(data)]
    for first in range(0, len(rows), each):
        page = rows[first : first + each]
        sheet = Image.new("L", (page[0].width, sum(row.height + GAP for row in page)), 255)
        top = 0
        for row in page:
            sheet.paste(row, (0, top))
            top += row.height + GAP
        path = folder / f"maps_{first // each + 1}.png"
        sheet.save(path)
        say(f"written to {path}")
