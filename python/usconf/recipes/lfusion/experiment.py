"""The experiment as a whole: data, encoder, every path, scores, tables, report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..device import chosen_device
from ..settings import plain
from . import data as motions
from .config import FREE_KEYS, Config
from .data import Data, Frames
from .encoder import FrozenEncoder, MadeEncoder, load_encoder, load_weights
from .evaluation import aurocs, score_split
from .hc18 import hc18_data
from .made_data import made_data
from .networks import LaplacePath, make_paths
from .pages import write_report
from .pretraining import pretrain
from .segmentation import dice, judge_all, table
from .stages import Stages, write_json
from .training import fit_laplace, train

# File names of stages.
_FILES = {
    "SSN U-Net": "ssn-unet",
    "Dropout U-Net": "dropout-unet",
    "Laplace U-Net": "laplace-unet",
    "L": "laplace-head",
    "D": "dropout-head",
}


@dataclass(frozen=True, eq=False)
class Outcome:
    """Pictures or clips: what was trained, on what, and the figures."""

    kind: str
    config: Config
    data: Data
    encoder: FrozenEncoder
    paths: dict[str, nn.Module]
    training: dict[str, Any]
    figures: dict[str, Any]


def run(
    config: Config,
    folder: str | os.PathLike[str],
    resume: bool = False,
    encoder: Callable[[Tensor], Tensor] | None = None,
) -> Path:
    """Run the experiment.

    Parameters
    ----------
    config : Config
        All settings.
    folder : path-like
        Gets report.html, results.json (all figures), settings.json and stages/ with the weights
        and scores of every finished stage.
    resume : bool, optional
        Keep the stages that the folder has finished; False (default) does all of them anew.
    encoder : callable, optional
        Images ``(B, channels, H, W)`` -> features ``(B, F, h, w)``, in place of the one that
        `config.encoder` names. Frozen.

    Returns
    -------
    pathlib.Path
        The report.

    Raises
    ------
    ValueError, TypeError
        If data, settings or what the encoder returns do not fit, or `resume` finds a folder made
        with other settings.
    FileNotFoundError
        If a folder, picture, annotation, table or file of weights is missing.
    ImportError
        If Pillow, matplotlib or the encoder's module is missing.

    Examples
    --------
    >>> from usconf.recipes.lfusion.config import Config
    >>> from usconf.recipes.lfusion.experiment import run
    >>> run(Config(), "lfusion-report")  # doctest: +SKIP
    PosixPath('lfusion-report/report.html')
    """
    from ...cli.progress import Progress

    folder = Path(folder)
    _check(config)
    device = chosen_device(config.device)
    forked = [device] if device.type == "cuda" else []
    with _threads(config.threads), torch.random.fork_rng(forked):
        torch.manual_seed(config.seed)
        data = _data(config, config.side, config.seed)
        settings = plain(config)
        if encoder is not None:
            settings["encoder"] = getattr(encoder, "__qualname__", type(encoder).__qualname__)
        stages = Stages(folder, settings, FREE_KEYS, resume)
        with Progress(_count(config, encoder is None), "step") as progress:
            frozen = _encoder(config, encoder, stages, device, progress)
            outcomes = [_outcome("pictures", config, data, frozen, stages, device, progress, 0)]
            if config.clips:
                smaller = config.for_clips()
                clips = _clips(config)
                outcomes.append(
                    _outcome("clips", smaller, clips, frozen, stages, device, progress, 1)
                )
        results = {
            "settings": settings,
            **{
                outcome.kind: {
                    "training": outcome.training,
                    **{key: outcome.figures[key] for key in ("segmentation", "ood")},
                }
                for outcome in outcomes
            },
        }
        write_json(folder / "results.json", results)
        return write_report(outcomes, results, folder / "report.html")


def _outcome(
    kind: str,
    config: Config,
    data: Data,
    encoder: FrozenEncoder,
    stages: Stages,
    device: torch.device,
    progress: Any,
    number: int,
) -> Outcome:
    """Train all paths on pictures (2-D) or clips (3-D), then score both test splits."""
    dims = 2 if kind == "pictures" else 3
    # One frame tells how many channels there are, and whether the encoder is one.
    probe = torch.zeros((1, 1, config.side, config.side), device=device)
    encoder(probe)
    assert encoder.features is not None
    torch.manual_seed(config.seed + number)
    paths = {
        name: path.to(device) for name, path in make_paths(config, encoder.features, dims).items()
    }
    training = {}
    for place, (name, path) in enumerate(paths.items()):
        progress.note(f"{kind}: {name}")
        work = partial(
            _train, path, data, encoder, config, 1000 * (number + 1) + config.seed + place, progress
        )
        training[name] = stages.trained(f"{kind}-{_FILES[name]}", path, work)
        path.to(device)
    progress.note(f"{kind}: draws")
    scored = stages.numbers(
        f"{kind}-scores",
        lambda: _scored(paths, encoder, data, config, dims, progress),
    )
    figures = {
        "segmentation": scored["table"],
        "ood": aurocs(scored["scores"][0], scored["scores"][1], config.seed),
        "scores": scored["scores"],
    }
    return Outcome(kind, config, data, encoder, paths, training, figures)


def _train(
    path: Any, data: Data, encoder: FrozenEncoder, config: Config, seed: int, progress: Any
) -> dict[str, Any]:
    splits = (data.train, data.validation)

    def ticked(loss: Any, parameters: Any) -> dict[str, Any]:
        return train(path, loss, parameters, splits, encoder, config, seed, progress.advance)

    if not isinstance(path, LaplacePath):
        return ticked(path.loss, path.parameters())
    mean = ticked(path.loss, [*path.body.parameters(), *path.head.parameters()])
    spread = ticked(path.spread_loss, path.start_spread())
    fitted = fit_laplace(path, data.train, encoder, config.batch)
    return {**mean, "spread": spread, **fitted}


def _scored(
    paths: dict[str, nn.Module],
    encoder: FrozenEncoder,
    data: Data,
    config: Config,
    dims: int,
    progress: Any,
) -> dict[str, Any]:
    inside, masks = score_split(paths, encoder, data.test, config, config.seed)
    progress.advance()
    outside, _ = score_split(paths, encoder, data.ood, config, config.seed + 1)
    progress.advance()
    judged = {
        name: judge_all(mask, data.test) if dims == 2 else {"DSC [%]": dice(mask, data.test.masks)}
        for name, mask in masks.items()
    }
    rows = table(judged, data.test.circumference_mm)
    return {"scores": [inside, outside], "table": rows, "judged": judged}


def _encoder(
    config: Config,
    given: Callable[[Tensor], Tensor] | None,
    stages: Stages,
    device: torch.device,
    progress: Any,
) -> FrozenEncoder:
    name = config.encoder
    if given is not None:
        call, name = given, getattr(given, "__qualname__", type(given).__qualname__)
    elif name == "made":
        if config.encoder_channels != 1:
            raise ValueError(
                f'encoder_channels must be 1 for "made", got {config.encoder_channels}; it is gray'
            )
        progress.note("encoder")
        own = MadeEncoder().to(device)
        call = own
        if config.encoder_weights is not None:
            load_weights(own, config.encoder_weights, name)
        else:
            stages.trained("encoder", own, lambda: pretrain(own, config, device, progress.advance))
    else:
        call = load_encoder(
            name,
            weights=config.encoder_weights,
            layer=config.encoder_layer,
            channels=config.encoder_channels,
        )
    if isinstance(call, nn.Module):
        call.to(device)
    return FrozenEncoder(
        call,
        name,
        channels=config.encoder_channels,
        size=config.encoder_size,
        mean=config.encoder_mean,
        std=config.encoder_std,
    )


def _data(config: Config, size: int, seed: int) -> Data:
    if config.data is not None:
        shares = (config.validation_share, config.test_share)
        return hc18_data(Path(config.data), size, shares, config.elastic, seed)
    return made_data(
        train=config.train,
        validation=config.validation,
        test=config.test,
        ood=config.ood,
        size=size,
        seed=seed,
        elastic=config.elastic,
        deformation=config.deformation,
    )


def _clips(config: Config) -> Data:
    """Clips of as many frames of each split as are asked for, or as there are."""
    data = _data(config, config.clip_size, config.seed)
    counts = (config.clip_train, config.clip_validation, config.clip_test, config.clip_test)

    def moving(frames: Frames, count: int, number: int) -> Frames:
        chosen = frames.part(range(min(count, len(frames))))
        return motions.clips(chosen, config.clip_length, 4 * config.seed + number)

    splits = (data.train, data.validation, data.test, data.ood)
    made = [
        moving(frames, count, number)
        for number, (frames, count) in enumerate(zip(splits, counts, strict=True))
    ]
    return Data(*made)


def _check(config: Config) -> None:
    if config.data is not None and config.deformation == "anatomy":
        raise ValueError(
            'deformation must be "pixels" with data, got "anatomy"; only made skulls can be '
            "deformed before they are imaged"
        )
    least = min(config.side, config.clip_size) if config.clips else config.side
    if config.patch > least:
        raise ValueError(
            f"patch must be at most the pictures' side, {least}, got {config.patch}; take smaller "
            "patches"
        )


def _count(config: Config, named: bool) -> int:
    """Steps of the whole run, for the progress bar."""
    # Two of the five paths train twice.
    networks = 7 * config.steps + 2
    clips = 7 * config.clip_steps + 2 if config.clips else 0
    learns = named and config.encoder == "made" and config.encoder_weights is None
    own = config.encoder_steps if learns else 0
    return networks + clips + own


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        if count is not None:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)
