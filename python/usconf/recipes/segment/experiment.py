"""The experiment as a whole: data, maps, every fold and configuration, statistics, report."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import usconf

from ...atomic import whole
from ..settings import plain
from .cases import Cases
from .confidence_maps import maps_of
from .config import FREE_KEYS, Config
from .folder_data import MANIFEST, load
from .folds import divide
from .made_data import make
from .pages import write_report
from .results import collect
from .task import Prepared, Task, finished, perform

_NEEDED = ("monai", "einops", "scikit_posthocs", "matplotlib", "PIL")  # einops: UNETR


def run(config: Config, folder: str | os.PathLike[str], resume: bool = False) -> Path:
    """Run the experiment.

    Parameters
    ----------
    config : Config
        All settings.
    folder : path-like
        Gets report.html, results.json (all figures), settings.json, maps/ (unless `config.cache`
        names another folder) and folds/ with figures, predictions and weights of every task.
    resume : bool, optional
        Keep the tasks that the folder has finished; False (default) does all of them anew.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    ValueError
        If data or settings do not fit, or `resume` finds a folder made with other settings.
    ImportError
        If MONAI, scikit-posthocs or matplotlib is missing.

    Notes
    -----
    With ``workers`` above 1 tasks run in processes of their own. A script that calls this needs
    the usual ``if __name__ == "__main__":`` then.

    Examples
    --------
    >>> from usconf.recipes.segment.config import Config
    >>> from usconf.recipes.segment.experiment import run
    >>> run(Config(), "segment-report")  # doctest: +SKIP
    PosixPath('segment-report/report.html')
    """
    from ...cli.progress import Progress

    _check_installed()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _enter(config, folder, resume)
    tasks_of = config.runs()
    with Progress(1, "task") as progress:
        cases = _cases(config, progress)
        folds = divide(cases, config.folds, config.validation_patients, config.seed)
        cache = Path(config.cache) if config.cache else folder / "maps"
        pairs = sorted({(one.alpha, one.beta) for one in tasks_of})
        maps = {pair: maps_of(cases, *pair, cache, progress.note) for pair in pairs}
    prepared = Prepared(config, cases.without_originals(), folds, maps)
    tasks = [Task(one, fold) for fold in range(len(folds)) for one in tasks_of]
    left = [task for task in tasks if not (resume and finished(task, folder))]
    _perform_all(prepared, left, folder)
    results = collect(prepared, folder)
    with whole(folder / "results.json") as part:
        part.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return write_report(prepared, results, folder)


def _check_installed() -> None:
    """Before hours of training, not after."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f'this recipe needs {", ".join(missing)}; run: pip install "usconf[recipes]"'
        )


def _cases(config: Config, progress: Any) -> Cases:
    if config.data is not None:
        return load(Path(config.data), config.shape, config.organs, progress.note)
    return make(
        config.patients,
        config.pictures,
        config.shape,
        config.labellings,
        config.seed,
        progress.note,
    )


def _enter(config: Config, folder: Path, resume: bool) -> None:
    """Settle what the folder is: of these settings, with tasks to keep or without any."""
    path = folder / "settings.json"
    told: dict[str, Any] = {
        key: value for key, value in plain(config).items() if key not in FREE_KEYS
    }
    told["usconf"] = usconf.__version__
    if config.data is not None:
        manifest = Path(config.data) / MANIFEST
        if not manifest.is_file():
            raise ValueError(
                f"data must be a folder with {MANIFEST}, got {config.data}; docs/segmentation.md "
                "shows the layout"
            )
        told["manifest"] = hashlib.sha256(manifest.read_bytes()).hexdigest()
    told = json.loads(json.dumps(told))
    if resume and path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = sorted(
            key for key in before.keys() | told.keys() if before.get(key) != told.get(key)
        )
        if other:
            raise ValueError(
                f"{folder} must have been made with the same settings to resume, got another "
                f"{', '.join(other)}; leave --resume out, or name another folder"
            )
        return
    for done in (folder / "folds").glob("fold*/*.json"):
        done.unlink()
    with whole(path) as part:
        part.write_text(json.dumps(told, indent=1), encoding="utf-8")


def _perform_all(prepared: Prepared, tasks: list[Task], folder: Path) -> None:
    from ...cli.progress import Progress

    workers = min(prepared.config.workers, len(tasks))
    with Progress(len(tasks), "task") as progress:
        if workers < 2:
            for task in tasks:
                perform(prepared, task, folder, progress.note)
                progress.advance()
            return
        with _pool(prepared, folder, workers) as pool:
            for done in as_completed([pool.submit(_work, task) for task in tasks]):
                done.result()
                progress.advance()


@contextmanager
def _pool(prepared: Prepared, folder: Path, workers: int) -> Iterator[ProcessPoolExecutor]:
    # Not forked: torch's threads would not survive it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _begin, (prepared, folder))
    try:
        yield pool
    finally:
        # After an error or Ctrl-C the tasks at work end, the others never begin.
        pool.shutdown(cancel_futures=True)


_SHARED: list[tuple[Prepared, Path]] = []


def _begin(prepared: Prepared, folder: Path) -> None:
    # Ctrl-C reaches all processes: the workers end without a word, the parent tells.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _SHARED.append((prepared, folder))


def _work(task: Task) -> None:
    prepared, folder = _SHARED[-1]
    perform(prepared, task, folder)
