"""One configuration on one fold: train, test, measure variability, and keep it all on disk."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...atomic import whole
from ..device import chosen_device
from .cases import Cases
from .config import Config
from .configurations import Configuration
from .folds import Fold
from .metrics import score, undefined
from .training import Planes, Trained, predict, train
from .variability import dropout_entropy


@dataclass(frozen=True, eq=False)
class Prepared:
    """What all tasks share: cases, folds, and the maps of every pair of alpha and beta."""

    config: Config
    cases: Cases
    folds: list[Fold]
    maps: dict[tuple[float, float], np.ndarray]


@dataclass(frozen=True)
class Task:
    """A configuration and the fold that it is trained and tested on."""

    run: Configuration
    fold: int

    def files(self, folder: Path) -> tuple[Path, Path, Path]:
        """Figures (written last: where it is, the task is done), arrays, weights."""
        home = folder / "folds" / f"fold{self.fold}"
        return tuple(home / f"{self.run.name}{end}" for end in (".json", ".npz", ".pt"))  # type: ignore[return-value]


def perform(
    prepared: Prepared,
    task: Task,
    folder: Path,
    note: Callable[[str], None] = lambda text: None,
) -> None:
    """Train and test, then write the task's three files.

    The arrays are ``predicted`` (N, *S) uint8, and ``entropy`` (N, *S) float32 of Monte Carlo
    dropout where the configuration asks for it.
    """
    config, run = prepared.config, task.run
    torch.set_num_threads(config.threads)
    begin = time.perf_counter()
    fold = prepared.folds[task.fold]
    classes = len(prepared.cases.classes)
    planes = Planes.of(prepared.cases, prepared.maps[run.alpha, run.beta])
    seed = config.seed * 1000 + task.fold
    trained = train(
        planes,
        fold,
        classes,
        run,
        config,
        seed,
        lambda epoch, loss: note(f"{run.name}, epoch {epoch}, loss {loss:.3f}"),
    )
    predicted = predict(trained.network, planes, fold.test, run.channels, config.batch)
    arrays = {"predicted": predicted}
    if run.short in config.variability and not run.ablation:
        note(f"{run.name}, dropout passes")
        arrays["entropy"] = _entropies(trained.network, planes, fold.test, run, config, seed)
    note(f"{run.name}, metrics")
    records = [
        _record(prepared, index, found, classes)
        for index, found in zip(fold.test, predicted, strict=True)
    ]
    _write(task.files(folder), trained, arrays, records, time.perf_counter() - begin)


def finished(task: Task, folder: Path) -> bool:
    """Whether all files of the task are there."""
    return all(path.is_file() for path in task.files(folder))


def read(task: Task, folder: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Figures and arrays of a finished task."""
    figures, arrays, _ = task.files(folder)
    with np.load(arrays) as file:
        return json.loads(figures.read_text(encoding="utf-8")), dict(file)


def _record(prepared: Prepared, index: int, found: np.ndarray, classes: int) -> dict[str, Any]:
    case = prepared.cases.cases[index]
    scores = score(
        found, case.reference, classes, case.spacing, prepared.config.hausdorff_percentile
    )
    return {
        "case": case.name,
        "index": index,
        "patient": case.patient,
        "scores": {name: [_json(value) for value in values] for name, values in scores.items()},
        "undefined": undefined(found, case.reference, classes),
    }


def _entropies(
    network: Any, planes: Planes, indices: list[int], run: Configuration, config: Config, seed: int
) -> np.ndarray:
    device = chosen_device(config.device)
    batches = [indices[at : at + config.batch] for at in range(0, len(indices), config.batch)]
    return np.concatenate(
        [
            dropout_entropy(network, planes.input(some, run.channels, device), config.passes, seed)
            for some in batches
        ]
    )


def _json(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _write(
    paths: tuple[Path, Path, Path],
    trained: Trained,
    arrays: dict[str, np.ndarray],
    records: list[dict[str, Any]],
    seconds: float,
) -> None:
    figures, arrays_path, weights = paths
    figures.parent.mkdir(parents=True, exist_ok=True)
    with whole(weights) as part:
        torch.save(trained.network.state_dict(), part)
    with whole(arrays_path) as part, open(part, "wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    told = {
        "losses": trained.losses,
        "validation": trained.validation,
        "best_epoch": trained.best_epoch,
        "weights": sum(weight.numel() for weight in trained.network.parameters()),
        "seconds": seconds,
        "records": records,
    }
    with whole(figures) as part:
        part.write_text(json.dumps(told), encoding="utf-8")
