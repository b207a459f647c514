"""Frames and clips, and what is done to them: elastic deformation, affine motion, trimesters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage

# Standard deviation of the Gaussian that smooths a deformation, as a share of the head's smaller
# semi-axis: one part of the skull bulges and another one does not.
_SMOOTHNESS = 0.35


@dataclass(frozen=True, eq=False)
class Frames:
    """Pictures with what is known about them.

    Attributes
    ----------
    images : numpy.ndarray
        ``(N, H, W)`` uint8, or ``(N, T, H, W)`` for clips; row 0 nearest the transducer.
    masks : numpy.ndarray
        The same shape, uint8, 1 inside of the head.
    spacing_mm : numpy.ndarray
        ``(N, 2)`` float64: distance of neighbouring rows and of neighbouring columns.
    circumference_mm : numpy.ndarray
        ``(N,)`` float64: true head circumference; NaN where none is known.
    names : tuple of str
        What reports call them.

    Examples
    --------
    >>> from usconf.recipes.lfusion.made_data import made_frames
    >>> frames = made_frames(3, size=48, seed=1)
    >>> frames.images.shape, len(frames), len(frames.part([0, 2]))
    ((3, 48, 48), 3, 2)
    """

    images: np.ndarray
    masks: np.ndarray
    spacing_mm: np.ndarray
    circumference_mm: np.ndarray
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def part(self, chosen: Sequence[int]) -> Frames:
        """The frames at these places, in this order."""
        at = np.asarray(chosen, np.intp)
        return Frames(
            self.images[at],
            self.masks[at],
            self.spacing_mm[at],
            self.circumference_mm[at],
            tuple(self.names[place] for place in at),
        )


@dataclass(frozen=True, eq=False)
class Data:
    """What one experiment sees: three splits of ordinary heads, and deformed ones to be found.

    `ood` holds as many frames as were asked for; those of `test` are its opposite.
    """

    train: Frames
    validation: Frames
    test: Frames
    ood: Frames


def gestational_weeks(circumference_mm: Any) -> np.ndarray:
    """Gestational age of a head circumference.

    Parameters
    ----------
    circumference_mm : array_like
        Head circumference in mm.

    Returns
    -------
    numpy.ndarray
        Weeks, float64.

    Notes
    -----
    Hadlock et al., Radiology 152, 1984: 8.96 + 0.540 HC + 0.0003 HC**3, HC in cm.

    Examples
    --------
    >>> from usconf.recipes.lfusion.data import gestational_weeks
    >>> round(float(gestational_weeks(250)), 1)
    27.1
    """
    centimetres = np.asarray(circumference_mm, np.float64) / 10
    return 8.96 + 0.540 * centimetres + 0.0003 * centimetres**3


def trimester(circumference_mm: Any) -> np.ndarray:
    """1, 2 or 3 by head circumference: before 14 weeks, before 28 weeks, later; 0 for NaN.

    Examples
    --------
    >>> from usconf.recipes.lfusion.data import trimester
    >>> trimester([70, 180, 300]).tolist()
    [1, 2, 3]
    """
    weeks = gestational_weeks(circumference_mm)
    found = 1 + (weeks >= 14).astype(np.int64) + (weeks >= 28)
    return np.where(np.isfinite(weeks), found, 0)


def elastic_field(
    shape: tuple[int, int], random: np.random.Generator, amplitude: float, radius: float
) -> np.ndarray:
    """Smooth random displacements, ``(2, H, W)`` float64.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns.
    random : numpy.random.Generator
        Where the draw comes from.
    amplitude : float
        Largest displacement, in the unit wanted of the result.
    radius : float
        Smaller semi-axis of the head in pixels; what bulges is about a third of it wide.

    Returns
    -------
    numpy.ndarray
        Row and column displacements; the longest one is `amplitude` long.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.recipes.lfusion.data import elastic_field
    >>> field = elastic_field((40, 40), np.random.default_rng(0), 3.0, 20)
    >>> round(float(np.hypot(*field).max()), 6)
    3.0
    """
    noise = random.standard_normal((2, *shape))
    smooth = np.stack(
        [ndimage.gaussian_filter(part, _SMOOTHNESS * radius, mode="wrap") for part in noise]
    )
    return smooth * (amplitude / np.hypot(*smooth).max())


def deformed(frames: Frames, share: float, seed: int) -> Frames:
    """Frames whose heads are deformed elastically, pixels and masks alike.

    Parameters
    ----------
    frames : Frames
        Single pictures, not clips.
    share : float
        Largest displacement as a share of the head's smaller semi-axis.
    seed : int
        Of the displacements.

    Returns
    -------
    Frames
        The circumference is NaN: the outline is no ellipse any more.

    Notes
    -----
    The displacement fades out where the head is more than one semi-axis away. Pixels are moved by
    linear interpolation, which blurs speckle a little; `resampled` does the same to frames that
    keep their shape, so that the blur itself tells nothing.
    """
    images, masks = [], []
    for index, (image, mask) in enumerate(zip(frames.images, frames.masks, strict=True)):
        random = np.random.default_rng([seed, index])
        radius = _smaller_semi_axis(mask)
        field = elastic_field(mask.shape, random, share * radius, radius)
        away = ndimage.distance_transform_edt(mask == 0)
        field = field * np.clip(1 - away / max(radius, 1.0), 0, 1)
        images.append(_moved(image, field))
        masks.append(_moved_mask(mask, field))
    return replace(
        frames,
        images=np.stack(images),
        masks=np.stack(masks),
        circumference_mm=np.full(len(frames), np.nan),
        names=tuple(f"{name} deformed" for name in frames.names),
    )


def resampled(frames: Frames, seed: int) -> Frames:
    """The same frames, moved by less than a pixel: the control of `deformed`."""
    images, masks = [], []
    for index, (image, mask) in enumerate(zip(frames.images, frames.masks, strict=True)):
        shift = np.random.default_rng([seed, index]).uniform(-0.5, 0.5, (2, 1, 1))
        field = np.broadcast_to(shift, (2, *mask.shape))
        images.append(_moved(image, field))
        masks.append(_moved_mask(mask, field))
    return replace(frames, images=np.stack(images), masks=np.stack(masks))


def clips(frames: Frames, length: int, seed: int) -> Frames:
    """Clips of one moving frame each: continuous affine motion, as in a sweep.

    Parameters
    ----------
    frames : Frames
        Single pictures.
    length : int
        Frames of a clip, at least 2; the paper's are 16 long.
    seed : int
        Of the motions.

    Returns
    -------
    Frames
        `images` and `masks` are ``(N, length, H, W)``.

    Notes
    -----
    Rotation, zoom, shear and translation swing from one random pose to another one; a frame has no
    noise of its own, as in the paper's simulated sweeps of HC18.
    """
    if length < 2:
        raise ValueError(f"length must be at least 2, got {length}; a clip moves")
    images = np.empty((len(frames), length, *frames.images.shape[1:]), np.uint8)
    masks = np.empty_like(images)
    for index, (image, mask) in enumerate(zip(frames.images, frames.masks, strict=True)):
        random = np.random.default_rng([seed, index])
        for time, field in enumerate(_sweep(mask.shape, length, random)):
            images[index, time] = _moved(image, field)
            masks[index, time] = _moved_mask(mask, field)
    return replace(frames, images=images, masks=masks)


def _sweep(shape: tuple[int, int], length: int, random: np.random.Generator) -> Sequence[Any]:
    """Displacements (2, H, W) of every frame of one clip."""
    height, width = shape
    # Ends of a sweep that keeps most of the head in view: 8 degrees, 8 %, 6 % and 5 % of the side.
    limits = np.array([np.deg2rad(8), 0.08, 0.06, 0.05, 0.05])
    first, last = random.uniform(-1, 1, (2, 5)) * limits
    row, column = np.mgrid[:height, :width].astype(np.float64)
    row, column = row - (height - 1) / 2, column - (width - 1) / 2
    fields = []
    for part in (1 - np.cos(np.linspace(0, np.pi, length))) / 2:
        angle, zoom, shear, down, across = first + part * (last - first)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        matrix = (1 + zoom) * turn @ np.array([[1, shear], [0, 1]])
        fields.append(
            np.stack(
                [
                    (matrix[0, 0] - 1) * row + matrix[0, 1] * column + down * height,
                    matrix[1, 0] * row + (matrix[1, 1] - 1) * column + across * width,
                ]
            )
        )
    return fields


def _smaller_semi_axis(mask: np.ndarray) -> float:
    """Largest distance of a head's pixel from its outline, in pixels."""
    return float(ndimage.distance_transform_edt(np.pad(mask, 1)).max())


def _moved(image: np.ndarray, field: np.ndarray) -> np.ndarray:
    places = np.indices(image.shape) + field
    moved = ndimage.map_coordinates(image.astype(np.float32), places, order=1, mode="nearest")
    return np.rint(moved).astype(np.uint8)


def _moved_mask(mask: np.ndarray, field: np.ndarray) -> np.ndarray:
    places = np.indices(mask.shape) + field
    moved = ndimage.map_coordinates(mask.astype(np.float32), places, order=1, mode="nearest")
    return (moved > 0.5).astype(np.uint8)
