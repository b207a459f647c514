"""Pictures of the report: outlines on frames, maps in colour, what other draws hold, AUROCs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from ...uncertainty import fuse, measures
from .data import Frames
from .evaluation import INTER, mean_probability
from .networks import Pictures
from .segmentation import overlap
from .training import tensors

TRUTH, FOUND = (60, 220, 90), (255, 70, 60)
# Pictures grow by a whole number to at least this many pixels, so that outlines are thin.
_SIDE = 220


def outlined(
    image: np.ndarray, outlines: Sequence[tuple[np.ndarray, tuple[int, int, int]]]
) -> np.ndarray:
    """A gray picture with the borders of masks.

    Parameters
    ----------
    image : numpy.ndarray
        ``(H, W)`` uint8.
    outlines : sequence of (mask, colour)
        Later ones lie above.

    Returns
    -------
    numpy.ndarray
        ``(kH, kW, 3)`` uint8.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.recipes.lfusion.pictures import outlined
    >>> outlined(np.zeros((64, 64), np.uint8), [(np.eye(64) > 0, (255, 0, 0))]).shape
    (256, 256, 3)
    """
    times = max(1, -(-_SIDE // max(image.shape)))
    big = np.repeat(_grown(image, times)[..., None], 3, -1)
    for mask, colour in outlines:
        inside = _grown(mask != 0, times)
        big[inside & ~ndimage.binary_erosion(inside, iterations=2)] = colour
    return big


def coloured(values: np.ndarray, top: float) -> np.ndarray:
    """A map from 0 (black) to `top` (bright) as ``(H, W, 3)`` uint8."""
    from matplotlib import colormaps

    scaled = np.clip(values / top, 0, 1) if top > 0 else np.zeros_like(values)
    return (255 * colormaps["inferno"](scaled)[..., :3]).astype(np.uint8)


def map_rows(outcome: Any, chosen: Sequence[tuple[Frames, int]]) -> list[tuple[np.ndarray, str]]:
    """A row per frame: outlines, MI of the L and D heads and of the dropout U-Net, C-1, C-2.

    Parameters
    ----------
    outcome : Outcome
        Trained paths.
    chosen : sequence of (Frames, int)
        Which frames; of clips the middle one is shown.

    Returns
    -------
    list of (picture, caption)
        Six per frame. A column's brightness means the same in all rows.
    """
    rows = [_maps(outcome, frames, index) for frames, index in chosen]
    tops = {name: max(float(row[1][name].max()) for row in rows) for name in rows[0][1]}
    cells: list[tuple[np.ndarray, str]] = []
    for picture, maps, name in rows:
        cells.append((picture, f"{name}: truth green, L red"))
        cells += [
            (coloured(values, tops[title]), f"{title}, up to {tops[title]:.2g}")
            for title, values in maps.items()
        ]
    return cells


def counterfactuals(
    outcome: Any, frames: Frames, index: int, names: Sequence[str]
) -> list[tuple[np.ndarray, str]]:
    """What other segmentations the draws of each path hold for one picture.

    Parameters
    ----------
    outcome : Outcome
        Trained paths.
    frames, index
        The picture.
    names : sequence of str
        Paths.

    Returns
    -------
    list of (picture, caption)
        Four per path: the mean segmentation and, of the draws, the smallest head, the largest one
        and the one that overlaps least with the mean. Truth is green.
    """
    pictures = _pictures(outcome, frames, index)
    image, truth = frames.images[index], frames.masks[index]
    cells = []
    for name in names:
        draws = _drawn(outcome, name, pictures).logits
        mean = (mean_probability(draws)[0] > 0.5).cpu().numpy()
        masks = (draws[:, 0, 0] > 0).cpu().numpy()
        areas = masks.sum((1, 2))
        overlaps = [overlap(mask, mean) for mask in masks]
        picked = {
            "mean": mean,
            f"smallest, {_share(areas.min(), mean)}": masks[int(areas.argmin())],
            f"largest, {_share(areas.max(), mean)}": masks[int(areas.argmax())],
            f"least alike, DSC {min(overlaps):.2f}": masks[int(np.argmin(overlaps))],
        }
        cells += [
            (outlined(image, [(truth, TRUTH), (mask, FOUND)]), f"{name}: {title}")
            for title, mask in picked.items()
        ]
    return cells


def auroc_figure(rows: Sequence[Mapping[str, Any]], score: str) -> Any:
    """All AUROCs of one score with their intervals, a group per path; a matplotlib figure."""
    from matplotlib.figure import Figure

    shown = [row for row in rows if row["score"] in (score, "image")]
    shown = [row for row in shown if not row["measure"].endswith("probability")]
    figure = Figure(figsize=(8, 0.17 * len(shown) + 1))
    axes = figure.add_subplot()
    names = list(dict.fromkeys(row["path"] for row in shown))
    for place, row in enumerate(shown):
        colour = f"C{names.index(row['path']) % 10}"
        axes.plot([row["low"], row["high"]], [place, place], color=colour, lw=1.5)
        axes.plot(row["AUROC"], place, "o", color=colour, ms=4)
    axes.set_yticks(range(len(shown)), [f"{row['path']}: {row['measure']}" for row in shown])
    axes.tick_params(axis="y", labelsize=6)
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.axvline(0.5, color="0.6", lw=0.8)
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"AUROC, score: {score}")
    figure.tight_layout()
    return figure


def _maps(
    outcome: Any, frames: Frames, index: int
) -> tuple[np.ndarray, dict[str, np.ndarray], str]:
    pictures = _pictures(outcome, frames, index)
    drawn = {name: _drawn(outcome, name, pictures) for name in outcome.paths}
    inner = outcome.config.inner
    noise = _noise(outcome)
    found = {
        f"{name}: MI": measures(drawn[name].judged, samples=inner, generator=noise).MI
        for name in ("L", "D", "Dropout U-Net")
    }
    for name, (one, other) in INTER.items():
        maps = measures(drawn[one].judged, samples=inner, generator=noise)
        found[f"{name}: U(MI)"] = fuse(drawn[one].logits, drawn[other].logits, auxiliary=maps.MI)
    mask = (mean_probability(drawn["L"].logits)[0] > 0.5).cpu().numpy()
    truth, image = frames.masks[index], frames.images[index]
    shown = {name: _middle(values[0].cpu().numpy()) for name, values in found.items()}
    picture = outlined(_middle(image), [(_middle(truth), TRUTH), (_middle(mask), FOUND)])
    return picture, shown, frames.names[index]


def _pictures(outcome: Any, frames: Frames, index: int) -> Pictures:
    device = next(outcome.paths["L"].parameters()).device
    images, _ = tensors(frames, np.array([index]), device)
    return Pictures(images, outcome.encoder)


def _drawn(outcome: Any, name: str, pictures: Pictures) -> Any:
    return outcome.paths[name].draw(pictures, outcome.config.draws, _noise(outcome))


def _noise(outcome: Any) -> torch.Generator:
    device = next(outcome.paths["L"].parameters()).device
    return torch.Generator(device).manual_seed(outcome.config.seed)


def _middle(values: np.ndarray) -> np.ndarray:
    """The picture itself, or the middle frame of a clip."""
    return values if values.ndim == 2 else values[len(values) // 2]


def _grown(values: np.ndarray, times: int) -> np.ndarray:
    return values.repeat(times, 0).repeat(times, 1)


def _share(area: Any, mean: np.ndarray) -> str:
    whole = int(mean.sum())
    return f"{100 * int(area) / whole:.0f} % of the mean's area" if whole else f"{int(area)} pixels"
