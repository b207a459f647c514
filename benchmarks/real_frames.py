"""The real pictures that maps are judged on, and how.

They lie in the folder that USCONF_DATA names, else in ../shared/data beside the checkout; neither
they nor pictures made from them belong into the repository.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import usconf
from PIL import Image
from usconf.geometry import Geometry, from_fan_json
from usconf.training.metrics import auroc, auroc_by_row

ROOT = Path(__file__).resolve().parents[1]
Call = Callable[[np.ndarray], np.ndarray]

# Penumbra and the thickness of the bone's echo: nothing is scored down to here below its top.
BELOW = 40
DARKEST = 0.45
# Beam grid of clips and of the page of pictures.
GRID = (256, 256)
CLIP_FRAMES = 24
# Whole screens with writing on them.
SCREENS = ("muscle_steered", "muscle_telemed")


def folder() -> Path | None:
    """Where the real pictures are, or None."""
    named = os.environ.get("USCONF_DATA")
    if named and not Path(named).is_dir():
        raise SystemExit(f"USCONF_DATA must name a folder, got {named!r}")
    found = Path(named) if named else ROOT.parent / "shared" / "data"
    return found if found.is_dir() else None


def gray(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.array(picture.convert("L"))


def shrunk(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Averaged over the area of each new pixel, uint8."""
    return np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.BOX))


def grown(map: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear, float32."""
    picture = Image.fromarray(np.asarray(map, np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))


def at_a_third(call: Call) -> Call:
    """A map of the picture shrunk to a third, brought back: the scale of the published figures."""

    def mapped(image: np.ndarray) -> np.ndarray:
        height, width = image.shape
        return grown(call(shrunk(image, (height // 3, -(-width // 3)))), image.shape)

    return mapped


class Bone(NamedTuple):
    """A frame and everything below the bone's outline from registered CT."""

    name: str
    image: np.ndarray
    shadow: np.ndarray


def bones(data: Path) -> list[Bone]:
    return [
        Bone(path.stem, gray(path), gray(data / "masks" / f"{path.stem}_shadow.png") > 0)
        for path in sorted((data / "linear").glob("bone_ct_*.png"))
    ]


def bone_scores(bone: Bone, map: np.ndarray) -> dict[str, float]:
    """How well low confidence tells the shadow from what is beside it.

    The whole frame, uncropped, all columns, rows from 40 px below the first masked one down: so
    scored the row alone has 0.56 and plain darkness 0.91. "darkest": only the darkest 45 % of those
    pixels, where darkness cannot help itself. "by row": each row alone, where depth cannot help.
    """
    rows = np.s_[np.flatnonzero(bone.shadow.any(axis=1))[0] + BELOW :]
    image, shadow, map = bone.image[rows], bone.shadow[rows], map[rows]
    return {
        "auroc": auroc(map, shadow),
        "darkest": auroc(map, shadow, image <= np.quantile(image, DARKEST)),
        "by row": auroc_by_row(map, shadow),
    }


def cavities(data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames with a hand-drawn vessel, dark but good, and its mask."""
    for path in sorted((data / "masks").glob("usgra_*_label.png")):
        vessel = gray(path) == 2
        if vessel.any():
            yield gray(data / "linear" / path.name.replace("_label", "")), vessel


def beams(image: np.ndarray, geometry: Geometry | None) -> np.ndarray:
    """One frame or clip as uint8 beam images on the common grid."""
    if geometry is not None:
        axes = "thw" if image.ndim == 3 else None
        image = usconf.to_beam(image, geometry, axes=axes).image
    if image.ndim == 2:
        return shrunk(image, GRID)
    return np.stack([shrunk(frame, GRID) for frame in image])


def clips(data: Path) -> dict[str, np.ndarray]:
    """Name -> (T, 256, 256) uint8 beam images of successive frames."""
    import usconf.io

    fans, found = data / "convex", {}
    for name, fan in (("bone_seq_163343", ""), ("liver_seq", "liver_f069")):
        paths = sorted((data / "clips" / name).glob("*.png"))[:CLIP_FRAMES]
        if paths:
            geometry = from_fan_json(fans / f"{fan}.fan.json", fit_check=True) if fan else None
            found[name] = beams(np.stack([gray(path) for path in paths]), geometry)
    for name, fan in (("lung_a.mpeg", "lung_a_f140"), ("lung_lin_a.mp4", "")):
        path = data / "clips" / name
        if path.exists():
            clip = usconf.io.read(path).frames[:CLIP_FRAMES]
            where: Geometry = (
                from_fan_json(fans / f"{fan}.fan.json")
                if fan
                else usconf.fit_support(clip[0]).geometry
            )
            found[path.stem] = beams(clip, where)
    return found


def singles(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and beam image of all single frames whose geometry is known or simple."""
    for path in sorted((data / "convex").glob("*.png")):
        fan = path.with_suffix(".fan.json")
        if fan.exists():
            geometry = from_fan_json(fan, fit_check=path.stem.startswith("liver"))
            yield path.stem, beams(gray(path), geometry)
    for path in sorted((data / "linear").glob("*.png")):
        if path.stem not in SCREENS:
            image = gray(path)
            # The gel above the skin belongs to the bone frames: they are beams as they are.
            whole = path.stem.startswith("bone")
            yield path.stem, beams(image, None if whole else usconf.fit_support(image).geometry)
