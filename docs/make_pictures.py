"""Makes the pictures of README and docs from the phantom: `python docs/make_pictures.py`.

Needs `pip install ".[io]"` and draws with NumPy and Pillow alone, so that a picture changes only
when a map does.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import usconf
from PIL import Image, ImageDraw, ImageFont
from usconf.phantom import demo_frame
from usconf.plot import overlay

IMAGES = Path(__file__).resolve().parent / "images"
GAP, CAPTION = 8, 26


def rgb(picture: np.ndarray) -> np.ndarray:
    """Gray uint8 or map in [0, 1] as (H, W, 3) uint8; RGB unchanged."""
    if picture.ndim == 3:
        return picture
    if picture.dtype != np.uint8:
        picture = np.rint(255 * picture).astype(np.uint8)
    return np.repeat(picture[..., None], 3, axis=-1)


def beside(panels: dict[str, np.ndarray], path: Path) -> None:
    """Write panels of equal size side by side, each below its caption."""
    height, width = next(iter(panels.values())).shape[:2]
    canvas = Image.new("RGB", (len(panels) * (width + GAP) - GAP, height + CAPTION), "white")
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(15)
    for index, (caption, picture) in enumerate(panels.items()):
        left = index * (width + GAP)
        draw.text((left + 2, 4), caption, fill="black", font=font)
        canvas.paste(Image.fromarray(rgb(picture)), (left, CAPTION))
    # 256 colours look the same here and keep the repository small.
    canvas.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(path, f"{path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Write every picture that a page shows."""
    IMAGES.mkdir(exist_ok=True)
    frame = demo_frame()
    confidence = usconf.confidence(frame)
    beside(
        {
            "image": frame,
            "confidence (white = 1, black = 0)": confidence,
            "overlay: tinted where not to be trusted": overlay(frame, confidence),
        },
        IMAGES / "demo.png",
    )
    presets = {
        f'preset="{name}"': usconf.random_walk(frame, preset=name)
        for name in ("monai", "beyond_shadows", "duque2023")
    }
    beside({name: overlay(frame, map) for name, map in presets.items()}, IMAGES / "presets.png")
    framed, valid = np.zeros((2, *frame.shape), np.uint8)
    valid[40:-30, 60:-25] = 1
    framed[valid > 0] = frame[20:-50, 40:-45].ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its black first row: what this picture is about
        unmasked = usconf.random_walk(framed)
    beside(
        {
            "screen capture with margins": framed,
            "without mask: meaningless": unmasked,
            "with mask=": usconf.random_walk(framed, mask=valid),
        },
        IMAGES / "mask.png",
    )
    sinks = {
        f'sink="{sink}"': usconf.random_walk(frame, sink=sink) for sink in ("all", "min", "mid")
    }
    beside(sinks, IMAGES / "sinks.png")


if __name__ == "__main__":
    main()
