"""Pictures of maps: the B-mode image tinted where the map says not to trust it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

COLORMAPS = ("dusk", "ember", "viridis")

# Every 15th of the 256 entries of viridis (S. van der Walt, N. Smith, E. Firing, 2015, released as
# CC0); linear interpolation between them stays within 0.02 of the full table.
_VIRIDIS = (
    "440154 481769 472a7a 433d84 3d4e8a 355e8d 2e6d8e 297b8e 23898e 1f978b 21a585 2eb37c 46c06f "
    "65cb5e 89d548 b0dd2f d8e219 fde725"
)
# Hue in degrees at confidence 0 and 1; lightness runs from 0.40 to 0.85 and chroma stays at 0.16,
# so equal steps of confidence look about equal (all in OKLab).
_HUES = {"dusk": (-60.0, 80.0), "ember": (15.0, 85.0)}

# OKLab (B. Ottosson, "A perceptual color space for image processing", 2020; public domain).
_LINEAR_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LMS_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)

# Chosen by eye on frames of bone, nerve, lung and a phantom: a tint that takes over the lightness
# fully washes the speckle out, one that leaves it alone does not show in black shadows; hue may
# come in faster than lightness, because it hides nothing.
_LIGHTNESS_SHARE = 0.8
_CHROMA_SHARE = 1.5


def overlay(
    image: Any,
    confidence: Any,
    *,
    colormap: str = "dusk",
    alpha: float = 0.6,
    support: Any = None,
) -> Any:
    """Tint an image where confidence is low; where it is 1 the image stays gray.

    Parameters
    ----------
    image : array_like
        Gray image or clip, ``(..., H, W)``. uint8 is shown as it is, other types are scaled from
        their finite minimum and maximum to black and white.
    confidence : array_like
        Map of the same shape, in [0, 1].
    colormap : {"dusk", "ember", "viridis"}, optional
        "dusk" (default): violet at 0 through rose to amber; "ember": red to yellow.
    alpha : float, optional
        Strength of the tint at confidence 0, in [0, 1]; default 0.6.
    support : array_like, optional
        ``(H, W)`` or the image's shape, nonzero where there is echo, such as `usconf.fit_fan`'s
        ``.support``; the rest stays gray. Default: everywhere.

    Returns
    -------
    numpy.ndarray
        ``(..., H, W, 3)`` uint8 RGB.

    Raises
    ------
    ValueError
        If the shapes differ, the map leaves [0, 1], or an option is unknown or out of range.

    Notes
    -----
    The tint is mixed in OKLab with weight ``alpha (1 - confidence)``: hue fully, lightness less,
    so that speckle stays readable below it and black shadows are tinted nevertheless.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.plot import overlay
    >>> picture = np.full((2, 2), 128, np.uint8)
    >>> overlay(picture, np.array([[1.0, 1.0], [0.0, 0.0]])).shape
    (2, 2, 3)
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], got {alpha!r}")
    pixels, trust = _gray_levels(np.asarray(image)), np.asarray(confidence)
    if pixels.shape != trust.shape or pixels.ndim < 2:
        raise ValueError(
            f"confidence must have the shape of the image, {pixels.shape}, got {trust.shape}; "
            "turn colour into gray with usconf.io.gray"
        )
    if trust.size and not (trust.min() >= 0.0 and trust.max() <= 1.0):
        raise ValueError(
            f"confidence must lie in [0, 1], got {trust.min()} to {trust.max()}; pass the map as "
            "usconf.confidence returns it"
        )
    levels = np.rint(trust * np.float32(255)).astype(np.uint8)
    if support is not None:
        echo = np.asarray(support)
        if echo.shape not in (pixels.shape, pixels.shape[-2:]):
            raise ValueError(
                f"support must have shape {pixels.shape[-2:]} or the image's {pixels.shape}, got "
                f"{echo.shape}; fit_fan and fit_support return one"
            )
        levels = np.where(echo != 0, levels, np.uint8(255))
    return _tinted(colormap, float(alpha))[pixels, levels]


def show(
    image: Any,
    confidence: Any,
    *,
    colormap: str = "dusk",
    alpha: float = 0.6,
    support: Any = None,
    spacing_mm: tuple[float, float] | None = None,
) -> Any:
    """Draw image, map and overlay side by side with matplotlib.

    Parameters
    ----------
    image, confidence : array_like
        One frame ``(H, W)`` and its map.
    colormap, alpha, support
        As in `overlay`; the map itself is drawn in gray, white = trustworthy.
    spacing_mm : tuple of float, optional
        Row and column spacing; axes are then in mm with the right aspect.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig(...)`` or let a notebook show it.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    ValueError
        As `overlay`, or if the image is not one frame.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.plot import show
    >>> figure = show(np.eye(8), np.eye(8))  # doctest: +SKIP
    """
    tinted = overlay(image, confidence, colormap=colormap, alpha=alpha, support=support)
    if tinted.ndim != 3:
        raise ValueError(
            f"image must be one frame (H, W), got {np.asarray(image).shape}; pick a frame"
        )
    try:
        from matplotlib import pyplot
        from matplotlib.colors import ListedColormap
    except ImportError as error:
        raise ImportError('show needs matplotlib; run: pip install "usconf[plot]"') from error
    height, width = tinted.shape[:2]
    row, column = spacing_mm or (1.0, 1.0)
    extent = (0.0, width * column, height * row, 0.0)
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 4.6), sharey=True, layout="compressed")
    grays = {"cmap": "gray", "vmin": 0}
    panels: tuple[tuple[str, np.ndarray, dict[str, Any]], ...] = (
        ("image", _gray_levels(np.asarray(image)), {**grays, "vmax": 255}),
        ("confidence", np.asarray(confidence), {**grays, "vmax": 1}),
        ("overlay", tinted, {}),
    )
    for axis, (title, pixels, options) in zip(axes, panels, strict=True):
        axis.imshow(pixels, extent=extent, interpolation="nearest", **options)
        axis.set_title(title)
        axis.set_xlabel("lateral (mm)" if spacing_mm else "scanline")
    axes[0].set_ylabel("depth (mm)" if spacing_mm else "row")
    # The legend shows the tint on mid gray: that is what the eye meets in tissue.
    legend = ListedColormap(_tinted(colormap, float(alpha))[128] / 255.0)
    figure.colorbar(pyplot.cm.ScalarMappable(cmap=legend), ax=axes, label="confidence", pad=0.01)
    return figure


def _gray_levels(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "uifb":
        raise TypeError(f"image must hold real numbers, got {image.dtype}; pass its envelope")
    values = image.astype(np.float32)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    if high <= low:
        return np.zeros(image.shape, np.uint8)
    # Halves, because the difference of the largest float32 numbers overflows.
    scaled = (np.where(finite, values, low) / 2 - low / 2) / (high / 2 - low / 2)
    return np.rint(255 * scaled).astype(np.uint8)


@lru_cache(maxsize=16)
def _tinted(colormap: str, alpha: float) -> np.ndarray:
    """Table of uint8 RGB by gray level and confidence level: (256, 256, 3)."""
    tint = _oklab_table(colormap)[None, :, :]
    gray = np.repeat(np.linspace(0.0, 1.0, 256)[:, None], 3, axis=1)
    picture = _to_oklab(gray)[:, None, :]
    weight = alpha * (1.0 - np.linspace(0.0, 1.0, 256))[None, :, None]
    lightness = picture[..., :1] + _LIGHTNESS_SHARE * weight * (tint[..., :1] - picture[..., :1])
    chroma = np.minimum(1.0, _CHROMA_SHARE * weight) * tint[..., 1:]
    chroma = np.broadcast_to(chroma, (256, 256, 2))
    table = np.rint(255 * _from_oklab(np.concatenate([lightness, chroma], axis=-1)))
    table = table.astype(np.uint8)
    # Full confidence must leave the image alone to the last bit.
    table[:, 255] = np.arange(256, dtype=np.uint8)[:, None]
    table.flags.writeable = False
    return table


def _oklab_table(colormap: str) -> np.ndarray:
    position = np.linspace(0.0, 1.0, 256)
    if colormap in _HUES:
        start, end = np.deg2rad(_HUES[colormap])
        hue = start + (end - start) * position
        return np.stack([0.40 + 0.45 * position, 0.16 * np.cos(hue), 0.16 * np.sin(hue)], axis=-1)
    if colormap != "viridis":
        raise ValueError(f"colormap must be one of {', '.join(COLORMAPS)}, got {colormap!r}")
    anchors = np.array([list(bytes.fromhex(text)) for text in _VIRIDIS.split()]) / 255.0
    places = np.linspace(0.0, 1.0, len(anchors))
    colours = np.stack([np.interp(position, places, column) for column in anchors.T], axis=-1)
    return _to_oklab(colours)


def _to_oklab(srgb: np.ndarray) -> np.ndarray:
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _LINEAR_TO_LMS.T) @ _LMS_TO_LAB.T


def _from_oklab(lab: np.ndarray) -> np.ndarray:
    lms = (lab @ np.linalg.inv(_LMS_TO_LAB).T) ** 3
    linear = np.clip(lms @ np.linalg.inv(_LINEAR_TO_LMS).T, 0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
