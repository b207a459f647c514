"""Scores of maps: on phantoms that training never saw, on real bone frames, on real clips."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import real_frames
from map_methods import AT_A_THIRD, Call
from usconf import phantom
from usconf.phantom import Phantom
from usconf.training.metrics import (
    annotated_accuracy,
    auroc,
    auroc_by_row,
    frame_change,
    horizontal_roughness,
    monotonicity_violations,
    spearman,
)

Say = Callable[[str], None]
Scores = dict[str, dict[str, float]]

# Of phantom.HELD_OUT: the figures that are published come from its beginning; whoever tunes the
# training by --quick looks at others, so that the published ones stay unseen.
PUBLISHED, TUNING = 0, 500_000
# A mask counts from this share of the image on: the rank of twenty pixels says nothing of a map.
LEAST = 0.01
# Of each phantom for the AUROC over all of them at once.
POOLED_PIXELS = 400


def phantom_scores(frame: Phantom, map: np.ndarray) -> dict[str, float]:
    """Of one phantom; NaN where less than 1 % of it are such pixels.

    "bright but bad": bad pixels as bright as tissue against all others, where darkness fails;
    "fluid": dark fluid that the beam passes, wrongly taken for bad, against good tissue of the same
    row: 0.5 is right, 1 wrong; "strokes": the labels that a person would draw.
    """
    bad, bright, dark = frame.artifact, frame.bright_but_bad, frame.dark_but_good
    return {
        "auroc": auroc(map, bad) if _enough(bad, ~bad) else math.nan,
        "auroc by row": auroc_by_row(map, bad) if _enough(bad, ~bad) else math.nan,
        "bright but bad": auroc(map, bad, bright | ~bad) if _enough(bright, ~bad) else math.nan,
        "fluid": auroc_by_row(map, dark, frame.good) if _enough(dark) else math.nan,
        "spearman": spearman(map, frame.transmission),
        "violations": monotonicity_violations(map),
        "roughness": horizontal_roughness(map),
        "strokes": auroc(map, frame.labels == 2, frame.labels > 0),
        "accuracy": annotated_accuracy(map, frame.labels),
        "mean where bad": _mean(map, bad),
        "mean where bright but bad": _mean(map, bright),
        "mean where dark but good": _mean(map, dark),
        "mean where good": _mean(map, ~bad),
    }


def on_phantoms(
    methods: dict[str, Call], count: int, shape: tuple[int, int], start: int, say: Say
) -> dict[str, Any]:
    """Means over phantoms: of all, and by category."""
    rows: dict[str, dict[str, list[dict[str, float]]]] = {name: {} for name in methods}
    seen: dict[str, int] = defaultdict(int)
    pool: dict[str, list[np.ndarray]] = {name: [] for name in [*methods, "bad"]}
    for seed in phantom.HELD_OUT[start : start + count]:
        frame = phantom.generate(shape, seed=seed)
        seen[frame.category] += 1
        pixels = np.random.default_rng(seed).integers(0, frame.image.size, POOLED_PIXELS)
        pool["bad"].append(frame.artifact.flat[pixels])
        for name, call in methods.items():
            map = np.asarray(call(frame.image))
            rows[name].setdefault(frame.category, []).append(phantom_scores(frame, map))
            pool[name].append(map.flat[pixels])
        if sum(seen.values()) % 50 == 0:
            say(f"{sum(seen.values())} of {count} phantoms of {shape[0]} x {shape[1]}")
    return {
        "shape": list(shape),
        "seeds": [phantom.HELD_OUT[start], phantom.HELD_OUT[start + count - 1]],
        "count": dict(sorted(seen.items())),
        "all": {
            name: averaged(chain(*found.values()))
            | {"pooled": auroc(np.stack(pool[name]), np.stack(pool["bad"]))}
            for name, found in rows.items()
        },
        "by category": {
            category: {name: averaged(rows[name][category]) for name in methods}
            for category in sorted(seen)
        },
    }


def on_bones(methods: dict[str, Call], data: Path) -> dict[str, Any]:
    """Means over the six frames, and each."""
    frames: dict[str, Scores] = {name: {} for name in methods}
    for bone in real_frames.bones(data):
        for name, call in methods.items():
            mapped = real_frames.at_a_third(call) if name in AT_A_THIRD else call
            frames[name][bone.name] = real_frames.bone_scores(bone, mapped(bone.image))
    return {
        name: averaged(found.values()) | {"frames": {k: v["auroc"] for k, v in found.items()}}
        for name, found in frames.items()
    }


def on_cavities(methods: dict[str, Call], data: Path) -> dict[str, float]:
    """Row-wise AUROC of low confidence inside vessels of nerve pictures: 0.5 is right, 1 wrong."""
    frames = list(real_frames.cavities(data))
    return {
        name: float(np.mean([auroc_by_row(call(image), vessel) for image, vessel in frames]))
        for name, call in methods.items()
    }


def on_clips(methods: dict[str, Call], data: Path) -> dict[str, Any]:
    """Change from frame to frame on real clips, at 256 x 256."""
    found: dict[str, Any] = {}
    for clip, frames in real_frames.clips(data).items():
        found[clip] = {"frames": len(frames), "methods": {}}
        for name, call in methods.items():
            maps = np.stack([call(frame) for frame in frames])
            found[clip]["methods"][name] = {
                "change": frame_change(maps),
                "relative": frame_change(maps, relative=True),
            }
    return found


def averaged(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """Mean of each score over the rows that have one; NaN where none has."""
    rows = list(rows)
    found = {}
    for name in rows[0] if rows else ():
        values = [row[name] for row in rows if not np.isnan(row[name])]
        found[name] = float(np.mean(values)) if values else float("nan")
    return found


def _enough(*masks: np.ndarray) -> bool:
    return all(mask.mean() >= LEAST for mask in masks)


def _mean(map: np.ndarray, where: np.ndarray) -> float:
    return float(map[where].mean()) if where.any() else float("nan")
