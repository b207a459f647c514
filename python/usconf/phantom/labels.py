"""Strokes and blobs of Good and Bad, as a person would draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import uniform_filter

if TYPE_CHECKING:
    from .phantoms import Phantom

NONE, GOOD, BAD = 0, 1, 2
# One-way transmission above which a place may be called Good: a round trip of -8 dB.
GOOD_LEVEL = 0.4
_TRIES = 80


def strokes(phantom: Phantom, seed: int, coverage: float = 0.04) -> np.ndarray:
    """Draw sparse labels into a phantom: 1 Good, 2 Bad, 0 none.

    Parameters
    ----------
    phantom : Phantom
        A frame or a clip of `generate`; each frame of a clip gets strokes of its own.
    seed : int
        Another seed draws other strokes.
    coverage : float, optional
        Share of the pixels to label, in (0, 0.5]; default 0.04, the few percent that people draw.
        Less is labelled where Good and Bad places together are smaller.

    Returns
    -------
    numpy.ndarray
        uint8 of the shape of ``phantom.image``. Good: visible tissue or fluid with a transmission
        above 0.4, without artifact. Bad: an artifact that hides what would be there; never tissue
        that still shows.

    Raises
    ------
    ValueError
        If `coverage` is not in (0, 0.5].

    Examples
    --------
    >>> from usconf.phantom import generate, strokes
    >>> phantom = generate((64, 64), seed=3, category="bone")
    >>> sorted(set(strokes(phantom, seed=1).ravel().tolist()))
    [0, 1, 2]
    """
    if not 0 < coverage <= 0.5:
        raise ValueError(f"coverage must be in (0, 0.5], got {coverage!r}; 0.04 is usual")
    good, bad = phantom.good, phantom.bad
    if good.ndim == 2:
        return _draw(np.random.default_rng([seed, 77]), good, bad, coverage)
    frames = [
        _draw(np.random.default_rng([seed, 77, index]), *pair, coverage)
        for index, pair in enumerate(zip(good, bad, strict=True))
    ]
    return np.stack(frames)


def _draw(
    random: np.random.Generator, good: np.ndarray, bad: np.ndarray, coverage: float
) -> np.ndarray:
    labels = np.zeros(good.shape, np.uint8)
    wanted = max(1, round(coverage * good.size))
    places = {GOOD: _inner(good), BAD: _inner(bad)}
    shares = {value: np.count_nonzero(place) for value, place in places.items()}
    if not any(shares.values()):
        return labels
    # As much of one as of the other, as far as each is there.
    part = random.uniform(0.35, 0.65)
    quota = {GOOD: part * wanted, BAD: (1 - part) * wanted}
    spare = {value: max(0.0, quota[value] - 0.5 * shares[value]) for value in quota}
    quota = {
        GOOD: quota[GOOD] - spare[GOOD] + spare[BAD],
        BAD: quota[BAD] - spare[BAD] + spare[GOOD],
    }
    quota = {value: min(quota[value], 0.5 * shares[value]) for value in quota}
    for value, place in places.items():
        _fill(random, labels, place, value, round(quota[value]))
    return labels


def _inner(place: np.ndarray) -> np.ndarray:
    """Places surrounded by their like: nobody draws along an edge to the pixel."""
    size = max(1, min(place.shape) // 40)
    if size < 2:
        return place
    return place & (uniform_filter(place.astype(np.float32), 2 * size + 1, mode="nearest") > 0.85)


def _fill(
    random: np.random.Generator, labels: np.ndarray, place: np.ndarray, value: int, quota: int
) -> None:
    """Strokes within `place` until `quota` pixels carry the value."""
    free = np.flatnonzero(place)
    if not len(free) or quota < 1:
        return
    done = 0
    for _ in range(_TRIES):
        start = divmod(int(free[random.integers(len(free))]), place.shape[1])
        drawn = _stroke(random, place.shape, start)
        at = drawn[place.ravel()[drawn] & (labels.ravel()[drawn] == NONE)]
        at = at[: quota - done]
        labels.ravel()[at] = value
        done += len(at)
        if done >= quota:
            return


def _stroke(
    random: np.random.Generator, shape: tuple[int, int], start: tuple[int, int]
) -> np.ndarray:
    """Pixels (flat, along the way) of a bent stroke of a round brush, or of a blob."""
    size = min(shape)
    brush = max(0.7, size * random.uniform(0.008, 0.03))
    length = size * random.uniform(0.08, 0.4)
    if random.random() < 0.25:
        brush, length = 2.0 * brush, 0.02 * size
    count = max(2, int(length / max(0.5 * brush, 0.5)))
    direction = random.uniform(0, 2 * np.pi)
    if random.random() < 0.5:
        # Hands go across more than along.
        direction = random.choice((0, np.pi)) + random.normal(0, 0.35)
    turn = np.cumsum(random.normal(0, 0.12, count)) + direction
    advance = length / count
    row = start[0] + np.cumsum(np.sin(turn)) * advance
    column = start[1] + np.cumsum(np.cos(turn)) * advance
    reach = int(np.ceil(brush))
    offset = np.arange(-reach, reach + 1)
    disc = np.argwhere(offset[:, None] ** 2 + offset**2 <= brush**2) - reach
    rows = (np.rint(row).astype(int)[:, None] + disc[:, 0]).ravel()
    columns = (np.rint(column).astype(int)[:, None] + disc[:, 1]).ravel()
    inside = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    flat = rows[inside] * shape[1] + columns[inside]
    _, first = np.unique(flat, return_index=True)
    return flat[np.sort(first)]
