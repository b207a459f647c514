"""PNG, JPEG, TIFF and BMP through Pillow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .picture import Picture, gray, levels, require, supported

# Screen captures carry 72 or 96 dpi that says nothing about the scanner, so physical spacing
# travels in a field of our own (PNG text, TIFF description) and the resolution tags are written
# for other programs only.
_SPACING_KEY = "usconf_spacing_mm"
_TIFF_DESCRIPTION = 270


def read(path: Path) -> Picture:
    """Read every page as gray; colour by luma, JPEG by its own luma plane, alpha ignored.

    Pillow decodes 16-bit colour PNG to 8 bits; gray keeps its 16.
    """
    image_module = require("PIL.Image", "Pillow")
    with image_module.open(path) as image:
        meta: dict[str, Any] = {"format": image.format}
        if image.info.get("dpi"):
            meta["dpi"] = tuple(float(value) for value in image.info["dpi"])
        spacing = _spacing(image)
        if image.format == "JPEG":
            image.draft("L", image.size)
        # MPO holds other views (depth maps, thumbnails) of one picture, not a clip.
        count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        pages = []
        for index in range(count):
            if count > 1:
                image.seek(index)
            pages.append(_page(image))
    if len({(page.shape, page.dtype) for page in pages}) > 1:
        raise ValueError("its pages differ in size or type; save them as separate files")
    frames = supported(np.stack(pages))
    return Picture(frames, "raster", spacing, single=count == 1, meta=meta)


def _page(image: Any) -> np.ndarray:
    mode = image.mode
    if mode == "1":
        return np.asarray(image.convert("L"))
    if mode in ("L", "F", "I") or mode.startswith("I;16"):
        return np.array(image)
    if mode in ("LA", "La"):
        return np.array(image)[..., 0]
    if mode in ("RGB", "RGBA", "RGBX"):
        return gray(np.asarray(image))
    return gray(np.asarray(image.convert("RGB")))


def _spacing(image: Any) -> tuple[float, float] | None:
    text = image.info.get(_SPACING_KEY)
    if text is None and image.format == "TIFF":
        description = str(image.tag_v2.get(_TIFF_DESCRIPTION, ""))
        key, _, text = description.partition("=")
        if key != _SPACING_KEY:
            return None
    if text is None:
        return None
    row, column = (float(word) for word in text.split())
    return row, column


def write(path: Path, array: np.ndarray, like: Picture | None, bits: int) -> None:
    """Write gray or RGB: PNG as 8 or 16-bit levels, TIFF as float32 pages."""
    image_module = require("PIL.Image", "Pillow")
    spacing = like.spacing_mm if like is not None else None
    options: dict[str, Any] = {}
    if spacing is not None:
        # 25.4 mm an inch; Pillow takes x before y.
        options["dpi"] = (25.4 / spacing[1], 25.4 / spacing[0])
    elif like is not None and "dpi" in like.meta:
        options["dpi"] = like.meta["dpi"]
    if path.suffix.lower() == ".png":
        _write_png(image_module, path, array, bits, spacing, options)
        return
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    colour = array.dtype == np.uint8 and array.shape[-1] == 3 and array.ndim >= 3
    pages = array.reshape((-1, *array.shape[-(3 if colour else 2) :]))
    if spacing is not None:
        options["description"] = f"{_SPACING_KEY}={spacing[0]!r} {spacing[1]!r}"
    images = [image_module.fromarray(np.ascontiguousarray(page)) for page in pages]
    images[0].save(
        path,
        format="TIFF",
        save_all=True,
        append_images=images[1:],
        compression="tiff_adobe_deflate",
        **options,
    )


def _write_png(
    image_module: Any,
    path: Path,
    array: np.ndarray,
    bits: int,
    spacing: tuple[float, float] | None,
    options: dict[str, Any],
) -> None:
    colour = array.dtype == np.uint8 and array.ndim >= 3 and array.shape[-1] == 3
    frame_ndim = 3 if colour else 2
    if array.ndim > frame_ndim:
        if array.shape[0] != 1:
            raise ValueError(
                f"maps must be one frame for .png, got {array.shape[0]}; write .tif, .npy, .mha, "
                ".nii.gz, .dcm or .mp4 for clips"
            )
        array = array[0]
    if spacing is not None:
        text = require("PIL.PngImagePlugin", "Pillow").PngInfo()
        text.add_text(_SPACING_KEY, f"{spacing[0]!r} {spacing[1]!r}")
        options["pnginfo"] = text
    image = image_module.fromarray(np.ascontiguousarray(levels(array, bits)))
    image.save(path, format="PNG", **options)
