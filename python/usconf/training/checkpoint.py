"""One file from which a run goes on as if it had never stopped."""

from __future__ import annotations

import os
import pickle
import platform
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

import usconf

from ..atomic import whole
from .config import Config, from_dict

FORMAT, VERSION = "usconf training checkpoint", 1

# How images enter the network, for those who read the file without usconf.
NORMALISATION = (
    "per frame: min-max to [0, 1], (x - mean) / (std + 0.05), and a channel of depth 0..1"
)


@dataclass
class Checkpoint:
    """State of a run after `step` steps.

    Attributes
    ----------
    step : int
        Steps done.
    config : Config
        Of the run.
    network : dict
        Arguments that make the network again.
    weights, optimizer : dict
        As `state_dict` gives them.
    average : dict or None
        Averaged weights, where train.ema asks for them.
    best : float or None
        Lowest validation loss so far.
    """

    step: int
    config: Config
    network: dict[str, Any]
    weights: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any] | None
    best: float | None


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write the file, all or nothing: tensors, numbers, words, lists and mappings only."""
    values = {item.name: getattr(checkpoint, item.name) for item in fields(Checkpoint)}
    values["config"] = checkpoint.config.to_dict()
    values.update(
        format=FORMAT,
        version=VERSION,
        normalisation=NORMALISATION,
        versions={
            "usconf": str(usconf.__version__),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )
    with whole(path) as part:
        torch.save(values, part)


def load(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint; code in it, if there was any, does not run.

    Parameters
    ----------
    path : path-like
        The file.
    device : torch.device, optional
        Where its tensors go; default: the CPU.

    Returns
    -------
    Checkpoint
        What was saved.

    Raises
    ------
    ValueError
        If the file is damaged, no checkpoint, or of another version; names the file.
    OSError
        If it cannot be read.
    """
    path = Path(path)
    with open(path, "rb") as file:
        try:
            values = torch.load(file, map_location=device, weights_only=True)
        # What a damaged byte leads the archive's reader and the unpickler to.
        except (
            RuntimeError, pickle.UnpicklingError, EOFError, zipfile.BadZipFile,
            ValueError, LookupError, TypeError, AttributeError, OSError,
        ) as error:  # fmt: skip
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"{path} must be a checkpoint of usconf train, but cannot be read ({first}); "
                "delete it and start again, or use a copy"
            ) from None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(
            f"{path} must be a checkpoint of usconf train, got another kind of file; "
            "weights (.safetensors) go into model.weights of a config"
        )
    if values.get("version") != VERSION:
        raise ValueError(
            f"{path} must be a checkpoint of version {VERSION}, got {values.get('version')!r}; "
            f"it was written by usconf {values.get('versions', {}).get('usconf')}"
        )
    missing = [item.name for item in fields(Checkpoint) if item.name not in values]
    if missing:
        raise ValueError(f"{path} must hold {', '.join(missing)}, but does not; it is damaged")
    config = from_dict(values["config"], str(path))
    state = {item.name: values[item.name] for item in fields(Checkpoint)}
    return Checkpoint(**{**state, "config": config})
