"""Small colour pictures of cases: labels over the image, maps, and what disagrees."""

from __future__ import annotations

import numpy as np

# Okabe and Ito's colours, told apart by colour-blind eyes; organs beyond these begin anew.
_COLOURS = np.array(
    [(213, 94, 0), (86, 180, 233), (240, 228, 66), (0, 158, 115), (204, 121, 167), (0, 114, 178)],
    np.float32,
)
# Black to white by way of red: matplotlib's "hot", by eye.
_HEAT = ((0.0, (0, 0, 0)), (0.4, (200, 0, 0)), (0.75, (255, 190, 0)), (1.0, (255, 255, 255)))


def middle(values: np.ndarray) -> np.ndarray:
    """The picture, or a volume's middle frame."""
    return values[len(values) // 2] if values.ndim == 3 else values


def tinted(image: np.ndarray, label: np.ndarray, share: float = 0.45) -> np.ndarray:
    """Gray image with its organs in colour, ``(H, W, 3)`` uint8."""
    picture = np.repeat(image.astype(np.float32)[..., None], 3, axis=-1)
    for index in range(1, int(label.max()) + 1):
        inside = label == index
        colour = _COLOURS[(index - 1) % len(_COLOURS)]
        picture[inside] = (1 - share) * picture[inside] + share * colour
    return np.rint(picture).astype(np.uint8)


def outlined(image: np.ndarray, label: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """A prediction in colour, and the reference's outline in white."""
    picture = tinted(image, label)
    edge = np.zeros(reference.shape, bool)
    edge[:-1] |= reference[1:] != reference[:-1]
    edge[:, :-1] |= reference[:, 1:] != reference[:, :-1]
    picture[edge] = 255
    return picture


def masked(label: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """The confidence mask Y * CM: organs in colour, the darker the less confident."""
    flat = tinted(np.full(label.shape, 60, np.uint8), label, 1.0)
    return np.rint(flat * confidence[..., None]).astype(np.uint8)


def heat(values: np.ndarray, highest: float) -> np.ndarray:
    """Black at 0, white at `highest`, by way of red and yellow."""
    share = np.clip(values / max(highest, 1e-12), 0, 1)
    places = [place for place, _ in _HEAT]
    parts = [np.interp(share, places, [colour[index] for _, colour in _HEAT]) for index in range(3)]
    return np.rint(np.stack(parts, axis=-1)).astype(np.uint8)


def gray(values: np.ndarray) -> np.ndarray:
    """A map in [0, 1] as it is, ``(H, W)`` uint8."""
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
