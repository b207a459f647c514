"""What a run has finished, in its folder: weights and numbers that a later run goes on from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import usconf

from ...atomic import whole

SETTINGS = "settings.json"
STAGES = "stages"


class Stages:
    """The finished stages of one run.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run; made where it is missing.
    settings : dict
        What makes its figures; kept beside the stages.
    free : frozenset of str
        Keys that may differ when a run goes on.
    resume : bool
        Whether to go on from what the folder has; else stages of an earlier run are removed.

    Raises
    ------
    ValueError
        If a run with other settings is to go on.
    """

    def __init__(
        self, folder: Path, settings: dict[str, Any], free: frozenset[str], resume: bool
    ) -> None:
        self.folder = folder / STAGES
        path = folder / SETTINGS
        # Through JSON, where tuples are lists.
        told = {key: value for key, value in settings.items() if key not in free}
        told = json.loads(json.dumps({**told, "usconf": usconf.__version__}))
        if resume and path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            keys = sorted(before.keys() | told.keys())
            other = [key for key in keys if before.get(key) != told.get(key)]
            if other:
                raise ValueError(
                    f"{folder} must have been made with the same settings to resume, got another "
                    f"{', '.join(other)}; leave --resume out, or name another folder"
                )
        else:
            for kind in ("pt", "json"):
                for done in self.folder.glob(f"*.{kind}"):
                    done.unlink()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, told)

    def trained(
        self, name: str, network: nn.Module, train: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """Train a network, or load what it was trained to; numbers about the training."""
        path = self.folder / f"{name}.pt"
        if path.exists():
            found = torch.load(path, map_location="cpu", weights_only=True)
            network.load_state_dict(found["network"])
            network.eval()
            known: dict[str, Any] = found["numbers"]
            return known
        numbers = train()
        with whole(path) as part:
            torch.save({"network": network.state_dict(), "numbers": numbers}, part)
        return numbers

    def numbers(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Make numbers, or read those that were made."""
        path = self.folder / f"{name}.json"
        if path.exists():
            known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return known
        made = make()
        write_json(path, made)
        return made


def write_json(path: Path, value: Any) -> None:
    """One JSON file, whole or not at all."""
    with whole(path) as part:
        part.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
