"""Makes the pictures of README and docs from phantoms: `python docs/make_pictures.py`.

Needs `pip install ".[io,learned]"` and draws with NumPy and Pillow alone, so that a picture changes
only when a map does.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import usconf
from PIL import Image, ImageDraw, ImageFont
from usconf import phantom
from usconf.phantom import demo_fan, demo_frame
from usconf.plot import overlay

IMAGES = Path(__file__).resolve().parent / "images"
GAP, CAPTION = 8, 26
# Border, beams and probe face as geometry.plot draws them.
BORDER, BEAMS, FACE = "#E69F00", "#56B4E9", "#F0E442"


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


def outlined(picture: np.ndarray, geometry: usconf.geometry.Geometry) -> np.ndarray:
    """The picture with border, probe face and seven beams drawn in, (H, W, 3)."""
    x, z = geometry.to_pixels().positions(geometry.beam_grid(picture.shape, (161, 161)))
    lines = [(x[:, column], z[:, column], BEAMS, 3) for column in range(20, 160, 20)]
    lines += [(x[at], z[at], BORDER, 6) for at in (np.s_[:, 0], np.s_[:, -1], np.s_[-1])]
    lines.append((x[0], z[0], FACE, 6))
    # Drawn four times as large and shrunk: Pillow's own lines are jagged.
    height, width = picture.shape
    layer = Image.new("RGBA", (4 * width, 4 * height))
    draw = ImageDraw.Draw(layer)
    for across, down, colour, breadth in lines:
        points = np.rint(4 * np.stack([across, down], axis=1) + 2)
        draw.line(list(map(tuple, points.tolist())), fill=colour, width=breadth, joint="curve")
    layer = layer.resize((width, height), Image.Resampling.BOX)
    canvas = Image.fromarray(rgb(picture)).convert("RGBA")
    return np.asarray(Image.alpha_composite(canvas, layer).convert("RGB"))


def screenshot(picture: np.ndarray, writing: str) -> np.ndarray:
    """The picture as screens show it: with writing, a depth ruler and a focus mark."""
    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    draw.text((6, 4), writing, fill=190, font=ImageFont.load_default(12))
    width, height = canvas.size
    for row in range(12, height - 4, 22):
        draw.line((width - 16, row, width - 10, row), fill=170)
    draw.polygon(((width - 24, 150), (width - 18, 154), (width - 24, 158)), fill=220)
    return np.asarray(canvas)


def fan_pictures() -> None:
    """Pictures of docs/geometry.md; the first one is README's too."""
    image, _ = demo_fan(288, 384)
    confidence, fan = usconf.confidence(image, geometry="auto", return_geometry=True)
    support = usconf.fit_fan(image).support
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it looks like a fan: what this picture is about
        columns = usconf.confidence(image)
    beside(
        {
            "image of a convex probe": image,
            "without geometry: wrong": columns,
            'geometry="auto"': confidence,
            "overlay": overlay(image, confidence, support=support),
        },
        IMAGES / "fan.png",
    )
    # Not the default grid but the picture's shape: panels of one size.
    beams = usconf.to_beam(image, fan, image.shape).image
    map = usconf.confidence(beams)
    beside(
        {
            "image, and where its beams run": outlined(image, fan),
            "to_beam: one column per beam": beams,
            "map of the beams": map,
            "to_scan: the map rolled back": usconf.to_scan(map, fan, image.shape).image,
        },
        IMAGES / "beams.png",
    )
    screen = screenshot(image, "C5-2\nAbd 12 cm\nGn 54\nMI 0.9")
    framed = np.zeros_like(image)
    framed[24:272, 100:348] = demo_frame(248, 248)
    framed = screenshot(framed, "L12-5\nMSK 4 cm\nGn 61\nMI 0.8")
    beside(
        {
            "screenshot, convex probe": screen,
            "fit_fan": outlined(screen, usconf.fit_fan(screen).geometry),
            "screenshot, linear probe": framed,
            "fit_support": outlined(framed, usconf.fit_support(framed).geometry),
        },
        IMAGES / "fit.png",
    )


def reverberation(picture: np.ndarray, top: int, columns: slice) -> np.ndarray:
    """The picture with a strong reflector and five echoes of it: 2.5 mm apart, 6 dB weaker each."""
    picture = picture.copy()
    rows = np.arange(len(picture))[:, None]
    for echo in range(6):
        line = (255 - 25 * echo) * np.exp(-(((rows - top - 24 * echo) / 2.5) ** 2))
        picture[:, columns] = np.maximum(picture[:, columns], line)
    return picture


def dag_pictures() -> None:
    """Pictures of docs/dag.md."""
    frame = demo_frame()
    beside(
        {
            "bone and its shadow": frame,
            "random walk": usconf.confidence(frame),
            'method="dag"': usconf.confidence(frame, method="dag"),
        },
        IMAGES / "dag.png",
    )
    fan, _ = demo_fan(288, 384)
    beside(
        {
            "image of a convex probe": fan,
            "random walk": usconf.confidence(fan, geometry="auto"),
            'method="dag"': usconf.confidence(fan, method="dag", geometry="auto"),
        },
        IMAGES / "dag_fan.png",
    )
    gas = np.s_[150:210]
    image = reverberation(frame, 80, gas)
    beside(
        {
            "gas, and its reverberation": image,
            "random walk": usconf.confidence(image),
            'method="dag"': usconf.dag(image),
            'method="dag", despeckle=None': usconf.dag(image, despeckle=None),
        },
        IMAGES / "dag_reverberation.png",
    )
    needle, artifact = np.zeros((2, *image.shape))
    needle[78:83, gas], artifact[84:212, gas] = 1, 0.8
    normal = demo_frame(seed=1)
    beside(
        {
            "gas, and its reverberation": image,
            "reference: other speckle, no gas": normal,
            "reference=, despeckle=None": usconf.dag(image, reference=normal, despeckle=None),
            "needle=, artifact=": usconf.dag(image, needle=needle, artifact=artifact),
        },
        IMAGES / "dag_models.png",
    )


# Phantoms of docs/learned.md: seeds that training refuses, chosen for what the images show.
LEARNED = {"partial": 2, "gas": 1, "no_contact": 1, "vessel": 3}


def learned_pictures() -> None:
    """The picture of docs/learned.md; needs torch and the default weights."""
    columns: dict[str, list[np.ndarray]] = {}
    for category, offset in LEARNED.items():
        seed = phantom.HELD_OUT[offset]
        found = phantom.generate((224, 224), seed=seed, category=category)
        panels = {
            "phantom": found.image,
            "transmission": found.transmission,
            'method="learned"': usconf.confidence(found.image, method="learned"),
            "random walk": usconf.confidence(found.image),
            'method="dag"': usconf.confidence(found.image, method="dag"),
        }
        for caption, panel in panels.items():
            columns.setdefault(caption, []).append(rgb(panel))
            columns[caption].append(np.full((GAP, 224, 3), 255, np.uint8))
    beside({name: np.vstack(parts[:-1]) for name, parts in columns.items()}, IMAGES / "learned.png")


# Phantoms of docs/phantoms.md, and the colours of what is wrong or dark but good in them.
PHANTOMS = {"bone": 21, "lung": 3, "b_lines": 5, "no_contact": 3, "vessel": 5, "gel": 3}
ARTIFACTS = {
    "shadow": (0, 60, 190),
    "reverberation": (190, 40, 0),
    "clutter": (0, 150, 60),
    "no_contact": (190, 170, 0),
    "dark_but_good": (0, 190, 190),
}


def phantom_pictures() -> None:
    """The picture of docs/phantoms.md: image, transmission, artifacts, strokes."""
    columns = {}
    for category, seed in PHANTOMS.items():
        made = phantom.generate((144, 144), seed=phantom.HELD_OUT[seed], category=category)
        artifacts, strokes = rgb(made.image).copy(), rgb(made.image).copy()
        for name, colour in ARTIFACTS.items():
            where = getattr(made, name)
            artifacts[where] = rgb(made.image)[where] // 2 + np.array(colour, np.uint8) // 2
        strokes[made.labels == 1], strokes[made.labels == 2] = (255, 70, 60), (70, 130, 255)
        gap = np.full((GAP, 144, 3), 255, np.uint8)
        panels = [rgb(made.image), gap, rgb(made.transmission), gap, artifacts, gap, strokes]
        columns[category] = np.vstack(panels)
    beside(columns, IMAGES / "phantoms.png")


def main() -> None:
    """Write every picture that a page shows."""
    IMAGES.mkdir(exist_ok=True)
    phantom_pictures()
    fan_pictures()
    dag_pictures()
    learned_pictures()
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
