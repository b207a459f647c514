"""Draws of all paths over ordinary and unusual heads: measures, fusions, their scores, AUROCs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ...uncertainty import auroc, epkl, fuse, measures, ood_score
from ...uncertainty.measures import probabilities
from .data import Frames
from .encoder import FrozenEncoder
from .networks import Draws, Pictures
from .training import batches

MAPS = ("TU", "EE", "MI", "PV")
HOW = ("mean", "patch")
MEANS = ("logits", "probability")
# Inter-path fusion of the paper: the Laplace head, and which dropout path beside it.
INTER = {"C-1": ("L", "D"), "C-2": ("L", "Dropout U-Net")}
# What the first OOD table shows of the fusions; the second has the others.
AUXILIARY, MEAN = "MI", "logits"

Scores = dict[str, dict[str, dict[str, list[float]]]]


@torch.no_grad()
def score_split(
    paths: Mapping[str, nn.Module],
    encoder: FrozenEncoder,
    frames: Frames,
    config: Any,
    seed: int,
) -> tuple[Scores, dict[str, np.ndarray]]:
    """Scores of every picture or clip of a split, and what each path segments.

    Parameters
    ----------
    paths : mapping
        Name -> trained path.
    encoder : FrozenEncoder
        Its encoder.
    frames : Frames
        The split.
    config : usconf.recipes.lfusion.config.Config
        draws, inner, patch, batch.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        path or fusion -> measure -> "mean" | "patch" -> a score per picture. Fusions are called
        "intra NAME", "C-1" and "C-2", their measures "U(MI)" and "U(MI), probability", with the
        auxiliary measure of the first path in parentheses. EPKL is one number: both scores are it.
    dict
        path -> (N, *S) uint8: where the mean probability of its draws is above 1/2.
    """
    device = next(paths["L"].parameters()).device
    noise = torch.Generator(device).manual_seed(seed)
    scores: Scores = {}
    masks: dict[str, list[np.ndarray]] = {name: [] for name in paths}
    for pictures, _ in batches(frames, encoder, config.batch, device):
        drawn = {name: _drawn(path, pictures, config, noise) for name, path in paths.items()}
        maps = {
            name: measures(draws.judged, samples=config.inner, generator=noise)
            for name, draws in drawn.items()
        }
        for name, draws in drawn.items():
            for measure in MAPS:
                _add(scores, name, measure, getattr(maps[name], measure), config)
            _add_number(scores, name, "EPKL", epkl(draws.judged))
            masks[name].append((mean_probability(draws.logits) > 0.5).byte().cpu().numpy())
            again = _drawn(paths[name], pictures, config, noise)
            _add_fusions(scores, f"intra {name}", draws, again, maps[name], config)
        for name, (one, other) in INTER.items():
            _add_fusions(scores, name, drawn[one], drawn[other], maps[one], config)
    return scores, {name: np.concatenate(parts) for name, parts in masks.items()}


def mean_probability(draws: Tensor) -> Tensor:
    """(B, *S): probability of head, the mean over draws (n, B, 1, *S)."""
    return torch.stack([probabilities(draw)[:, 0] for draw in draws]).mean(0)


def aurocs(inside: Scores, outside: Scores, seed: int) -> list[dict[str, Any]]:
    """AUROC of every path, measure and score, with its 95 % interval.

    Parameters
    ----------
    inside, outside : dict
        Of `score_split`, for ordinary heads and for unusual ones.
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of dict
        Keys path, measure, score, AUROC, low, high: none is left out, none is picked.
    """
    rows = []
    for path, of_path in inside.items():
        for measure, of_measure in of_path.items():
            for how in HOW if measure != "EPKL" else HOW[:1]:
                found = auroc(of_measure[how], outside[path][measure][how], seed=seed)
                rows.append(
                    {
                        "path": path,
                        "measure": measure,
                        "score": how if measure != "EPKL" else "image",
                        "AUROC": found.value,
                        "low": found.low,
                        "high": found.high,
                    }
                )
    return rows


def _drawn(path: Any, pictures: Pictures, config: Any, noise: Generator) -> Draws:
    draws: Draws = path.draw(pictures, config.draws, noise)
    return draws


def _add_fusions(
    scores: Scores, name: str, one: Draws, other: Draws, maps: Any, config: Any
) -> None:
    for mean in MEANS:
        for auxiliary in MAPS:
            fused = fuse(one.logits, other.logits, mean=mean, auxiliary=getattr(maps, auxiliary))
            label = f"U({auxiliary})" + f", {mean}" * (mean != MEAN)
            _add(scores, name, label, fused, config)


def _add(scores: Scores, path: str, measure: str, maps: Tensor, config: Any) -> None:
    for how in HOW:
        found = ood_score(maps, how, size=config.patch)
        _place(scores, path, measure, how).extend(found.tolist())


def _add_number(scores: Scores, path: str, measure: str, found: Tensor) -> None:
    for how in HOW:
        _place(scores, path, measure, how).extend(found.tolist())


def _place(scores: Scores, path: str, measure: str, how: str) -> list[float]:
    return scores.setdefault(path, {}).setdefault(measure, {}).setdefault(how, [])
