"""What the layers share: numbers of which some are learned, and the settings of their calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


class Learnable(nn.Module):
    """A layer with numbers by name, of which some are `torch.nn.Parameter`.

    Parameters
    ----------
    numbers : mapping of str to float
        All of them with their first values, checked.
    learnable : bool or iterable of str
        Which of them are learned; True for all.
    settings : dict
        What else the layer's function is called with.

    Raises
    ------
    ValueError
        If `learnable` names something else.

    Examples
    --------
    >>> from usconf.nn.learnable import Learnable
    >>> Learnable({"alpha": 2.0, "beta": 90.0}, ["beta"], {"axes": None, "sink": "mid"})
    Learnable(alpha=2, beta=90, sink='mid', learnable=['beta'])
    """

    # Settings that are shown even when they are None, because None is not their default.
    always_shown: tuple[str, ...] = ()

    def __init__(
        self,
        numbers: Mapping[str, float],
        learnable: bool | Iterable[str],
        settings: dict[str, Any],
    ) -> None:
        super().__init__()
        self.names = tuple(numbers)
        self.learnable = _chosen(self.names, learnable)
        for name, value in numbers.items():
            learned = nn.Parameter(torch.tensor(value)) if name in self.learnable else value
            setattr(self, name, learned)
        self.settings = settings

    def numbers(self) -> dict[str, Any]:
        """The numbers by name as they are now: parameters or floats."""
        return {name: getattr(self, name) for name in self.names}

    def extra_repr(self) -> str:
        """Numbers, settings that are not None, and which numbers are learned."""
        shown = {name: f"{torch.as_tensor(v).item():g}" for name, v in self.numbers().items()}
        shown |= {
            name: repr(value)
            for name, value in self.settings.items()
            if value is not None or name in self.always_shown
        }
        shown["learnable"] = repr(list(self.learnable))
        return ", ".join(f"{name}={value}" for name, value in shown.items())


def _chosen(names: tuple[str, ...], learnable: bool | Iterable[str]) -> tuple[str, ...]:
    if isinstance(learnable, bool):
        return names if learnable else ()
    chosen = (learnable,) if isinstance(learnable, str) else tuple(learnable)
    if unknown := [name for name in chosen if name not in names]:
        raise ValueError(
            f"learnable must name {', '.join(names[:-1])} or {names[-1]}, got {unknown}; "
            "True takes them all"
        )
    return tuple(name for name in names if name in chosen)
