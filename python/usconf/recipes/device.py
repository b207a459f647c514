"""The device that a recipe runs on."""

from __future__ import annotations

import torch


def chosen_device(name: str) -> torch.device:
    """``auto`` is CUDA where it is, else the CPU; ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise ValueError(
            f"device must be auto, cpu or cuda, got {name!r} ({problem}); take auto"
        ) from None
    return device
