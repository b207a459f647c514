"""Training: from a config to weights, a log and previews in a folder."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from .. import weights as weight_files
from ..nn import ConfidenceUNet
from ..pgm import PARTS
from . import checkpoint as checkpoints
from . import folder as own_frames
from . import phantom_cache, previews, schedule
from .augmentation import Batch, changed
from .config import Config, PhantomData, differences
from .dataset import Order, Splits
from .distributed import Group, device_of, group
from .interrupt import Stop
from .judge import judge, look, loss_of, valid_pixels
from .log import Log

CHECKPOINT, BEST, LAST = "checkpoint.pt", "best.safetensors", "last.safetensors"


class Progress(Protocol):
    """Whom a run tells how far it is, such as `usconf.cli.progress.Progress`."""

    def note(self, text: str) -> None:
        """Show for a moment."""

    def advance(self) -> None:
        """Count one more step."""

    def say(self, text: str) -> None:
        """Print a line that stays."""


class _Silent:
    def note(self, text: str) -> None:
        pass

    def advance(self) -> None:
        pass

    def say(self, text: str) -> None:
        pass


class Result(NamedTuple):
    """What a run came to.

    Attributes
    ----------
    step : int
        Steps done.
    loss : float or None
        Lowest validation loss.
    weights : pathlib.Path
        The weights that had it, for ``usconf.learned(image, weights=path)``.
    """

    step: int
    loss: float | None
    weights: Path


def train(
    config: Config,
    run: str | os.PathLike[str],
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> Result:
    """Train a network; under torchrun together with the other processes.

    Parameters
    ----------
    config : Config
        All settings; `usconf.training.config.read` reads a YAML file.
    run : path-like
        Folder for checkpoint.pt, best and last weights (.safetensors), training.csv,
        validation.csv and previews.
    resume : bool, optional
        Go on from the folder's checkpoint, if there is one. The loss curve goes on as if the run
        had never stopped, to the last bit on a CPU with the same number of threads.
    progress : Progress, optional
        Told how far the run is; default: nobody.

    Returns
    -------
    Result
        Steps done, the lowest validation loss and the weights that have it.

    Raises
    ------
    ValueError
        If the data, the checkpoint or the config is not what it must be; names the file.
    FileExistsError
        If the folder holds a checkpoint and `resume` is False.
    KeyboardInterrupt
        After Ctrl-C or SIGTERM, when the checkpoint is written.
    RuntimeError
        If the loss is no longer finite.

    Notes
    -----
    Ronchetti et al., 'Beyond Shadows', eq. 2-6, as the mean over valid pixels of the whole batch.
    Which frames a step sees and how they are changed are functions of (train.seed, step). Several
    processes share each batch: every one sums the loss of its part, divided by the number of valid
    pixels of all, and gradients are added.
    """
    run = Path(run)
    before, threads = torch.get_num_threads(), config.train.threads
    device = device_of(config.train.device)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with group(device.type) as processes:
            speaker = progress if progress is not None and processes.first else _Silent()
            state = _state(run, config, resume, device)
            splits = _splits(config, run, processes, speaker)
            return _Run(config, run, state, splits, device, processes, speaker).all()
    finally:
        torch.set_num_threads(before)


def _state(
    run: Path, config: Config, resume: bool, device: torch.device
) -> checkpoints.Checkpoint | None:
    path = run / CHECKPOINT
    if not path.exists():
        return None
    if not resume:
        raise FileExistsError(
            f"{run} must hold no other run, got one with {CHECKPOINT}; go on with --resume, or "
            "give another folder"
        )
    state = checkpoints.load(path, device)
    other = differences(state.config, config)
    if other:
        raise ValueError(
            f"{path} must be of the same config to be resumed, but differs in {', '.join(other)}; "
            "give the run's own config, or train anew in another folder"
        )
    return state


def _splits(config: Config, run: Path, processes: Group, progress: Progress) -> Splits:
    data = config.data
    if not isinstance(data, PhantomData):
        return own_frames.load(data, progress.note)
    cache = Path(data.cache) if data.cache else run / "phantoms"
    workers = config.train.threads or len(os.sched_getaffinity(0))
    if not processes.first:
        # The first process makes them.
        processes.wait()
        return phantom_cache.load(data, cache)
    splits = phantom_cache.load(data, cache, workers, progress.note)
    processes.wait()
    return splits


def _network(config: Config, state: checkpoints.Checkpoint | None) -> ConfidenceUNet:
    if state is not None:
        return ConfidenceUNet(**state.network)
    if config.model.weights is not None:
        network = copy.deepcopy(weight_files.load(config.model.weights))
        return network.requires_grad_(True)
    torch.manual_seed(config.train.seed)
    return ConfidenceUNet(
        config.model.head, config.model.width, decay_total=config.loss.decay_total
    )


class _Run:
    """A network, its optimiser and where they are on their way."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        state: checkpoints.Checkpoint | None,
        splits: Splits,
        device: torch.device,
        processes: Group,
        progress: Progress,
    ) -> None:
        self._config, self._folder, self._splits = config, folder, splits
        self._device, self._processes, self._progress = device, processes, progress
        self._step, self._best = (state.step, state.best) if state else (0, None)
        train = config.train
        if train.batch < processes.size:
            raise ValueError(
                f"train.batch must be at least the number of processes, {processes.size}, got "
                f"{train.batch}; they share each batch"
            )
        self._network = _network(config, state).to(device)
        self._average = copy.deepcopy(self._network) if train.ema else None
        self._parameters = list(self._network.parameters())
        # Biases and scales of norms are few and not to be pulled to 0.
        kinds: list[dict[str, Any]] = [
            {"params": [p for p in self._parameters if p.ndim > 1]},
            {"params": [p for p in self._parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(
            kinds, lr=train.learning_rate, weight_decay=train.weight_decay
        )
        if state is not None:
            self._network.load_state_dict(state.weights)
            self._optimizer.load_state_dict(state.optimizer)
            if self._average is not None and state.average is not None:
                self._average.load_state_dict(state.average)
        self._loss = loss_of(config.loss, config.loss.gamma_start)
        self._order = Order(len(splits.training), train.batch, train.seed)
        # This process's places in every batch.
        self._places = np.array_split(np.arange(train.batch), processes.size)[processes.rank]

    def all(self) -> Result:
        """Take all steps that are left."""
        train = self._config.train
        self._say_start()
        with self._log() as log, Stop() as stop:
            for step in range(self._step, train.steps):
                start = time.perf_counter()
                row, stopping = self._one(step, stop.wanted)
                self._step = step + 1
                log.add("training", row)
                self._note(row, time.perf_counter() - start)
                at_end = self._step == train.steps
                if self._step % train.validate_every == 0 or at_end:
                    self._validate(log)
                if self._step % train.checkpoint_every == 0 or at_end or stopping:
                    self._save()
                if stopping and not at_end:
                    raise KeyboardInterrupt
        return Result(self._step, self._best, self._folder / BEST)

    def _one(self, step: int, stop: bool) -> tuple[dict[str, Any], bool]:
        """One step of all processes together: its row of the log, and whether any wants to stop."""
        config = self._config
        gamma = schedule.gamma(config.loss, step, config.train.steps)
        rate = schedule.learning_rate(config.train, step)
        self._loss.gamma = gamma
        for part in self._optimizer.param_groups:
            part["lr"] = rate
        batch = self._batch(step)
        shared = torch.tensor([valid_pixels(batch), float(stop)], dtype=torch.float64)
        count, stops = self._processes.total(shared.to(self._device)).tolist()
        count = max(count, 1.0)
        self._network.train()
        self._optimizer.zero_grad(set_to_none=True)
        with self._precision():
            logits = self._network(batch.image, batch.mask)
        logits = logits.float()
        whole, parts = self._loss.with_parts(logits, batch.label, batch.mask)
        loss = whole / count
        loss.backward()
        self._processes.total_gradients(self._parameters)
        norm = nn.utils.clip_grad_norm_(self._parameters, config.train.clip)
        figures = torch.stack([loss.detach().double(), *(parts[name] / count for name in PARTS)])
        values = self._processes.total(figures).tolist()
        if not np.isfinite([*values, float(norm)]).all():
            raise RuntimeError(
                f"the loss must stay finite, got {values[0]} with gradient norm {float(norm)} at "
                f"step {step + 1}; lower train.learning_rate or train.clip"
            )
        self._optimizer.step()
        self._follow(step)
        row = {
            "step": step + 1,
            **dict(zip(("loss", *PARTS), values, strict=True)),
            "gamma": gamma,
            "learning_rate": rate,
            "gradient_norm": float(norm),
        }
        return row, bool(stops)

    def _batch(self, step: int) -> Batch:
        indices = self._order.of(step)[self._places]
        planes = self._splits.training.gather(indices)
        config = self._config
        return changed(
            planes, self._device, config.augmentation, config.train.seed, step, self._places
        )

    def _precision(self) -> Any:
        if self._config.train.precision == "bfloat16":
            return torch.autocast(self._device.type, dtype=torch.bfloat16)
        return nullcontext()

    def _follow(self, step: int) -> None:
        """Move the averaged weights; quickly at first, when the network changes most."""
        if self._average is None:
            return
        keep = min(self._config.train.ema, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, new in zip(self._average.parameters(), self._parameters, strict=True):
                mean.lerp_(new, 1 - keep)

    @property
    def _judged(self) -> nn.Module:
        return self._network if self._average is None else self._average

    def _validate(self, log: Log | _NoLog) -> None:
        if not self._processes.first:
            return
        self._progress.note("validation")
        config = self._config
        network = self._judged.eval()
        batch = max(config.train.batch, 16)
        figures = judge(network, config.loss, self._splits, batch, self._device)
        log.add("validation", {"step": self._step, **figures})
        self._progress.say(f"step {self._step}: validation " + _told(figures))
        if config.train.previews:
            frames = look(network, self._splits.validation, config.train.previews, self._device)
            previews.write(self._folder / "previews" / f"step-{self._step:06d}.png", frames)
        loss = figures["loss"]
        if loss is not None and (self._best is None or loss < self._best):
            self._best = loss
            self._save_weights(BEST, figures)
        self._save_weights(LAST, figures)

    def _save_weights(self, name: str, figures: dict[str, float | None]) -> None:
        config = self._config
        training = config.to_dict()
        training["data"].pop("cache", None)  # a place on this machine, which files do not tell
        metadata = {
            "grid": list(config.model.grid or self._splits.training.shape),
            "seed": config.train.seed,
            "step": self._step,
            "metrics": {key: value for key, value in figures.items() if value is not None},
            "training": training,
        }
        weight_files.save(self._folder / name, self._judged, metadata)

    def _save(self) -> None:
        if not self._processes.first:
            return
        average = self._average.state_dict() if self._average is not None else None
        checkpoints.save(
            self._folder / CHECKPOINT,
            checkpoints.Checkpoint(
                self._step,
                self._config,
                self._network.config,
                self._network.state_dict(),
                self._optimizer.state_dict(),
                average,
                self._best,
            ),
        )

    def _say_start(self) -> None:
        count = sum(parameter.numel() for parameter in self._parameters)
        rows, columns = self._splits.training.shape
        frames = f"{len(self._splits.training)} + {len(self._splits.validation)} frames"
        text = f"{frames} of {rows} x {columns}, {count} weights, {self._device}"
        if self._processes.size > 1:
            text += f", {self._processes.size} processes"
        if self._step:
            text += f", going on from step {self._step}"
        self._progress.say(text)
        for _ in range(self._step):
            self._progress.advance()

    def _note(self, row: dict[str, Any], seconds: float) -> None:
        self._progress.advance()
        rate = self._config.train.batch / seconds
        self._progress.note(f"loss {row['loss']:.4f}, {rate:.0f} frames/s")

    @contextmanager
    def _log(self) -> Iterator[Log | _NoLog]:
        if not self._processes.first:
            yield _NoLog()
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        log = Log(self._folder, self._config.train.log, self._step)
        try:
            yield log
        finally:
            log.close()


class _NoLog:
    """The log of processes that write none."""

    def add(self, split: str, values: dict[str, Any]) -> None:
        pass


def _told(figures: dict[str, float | None]) -> str:
    names = ("loss", "accuracy", "auroc", "artifact_auroc", "spearman", "violations")
    known = [(name, figures.get(name)) for name in names]
    return ", ".join(f"{name} {value:.4f}" for name, value in known if value is not None)
