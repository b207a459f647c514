"""The random walk as a layer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .. import random_walk as _random_walk
from ..memory import parse_limit
from ..random_walk import check_choices, number, resolve
from .learnable import Learnable


class RandomWalk(Learnable):
    """Random-walk confidence maps with parameters that can be learned.

    Parameters
    ----------
    alpha, beta, gamma : float, optional
        As in `usconf.random_walk`; None takes the preset's value.
    preset : {"monai", "beyond_shadows", "duque2023"}
        As in `usconf.random_walk`.
    learnable : bool or iterable of {"alpha", "beta", "gamma"}, default False
        Which of them are `torch.nn.Parameter`; the others are plain floats. Parameters must stay
        nonnegative: clamp them after an optimiser step if the loss pulls them below 0.
    variant, mode, sink, nan, axes, solver, memory_limit, dtype
        As in `usconf.random_walk`.

    Raises
    ------
    TypeError, ValueError
        As `usconf.random_walk`; and if `learnable` names something else.

    Notes
    -----
    Karamalis et al., Medical Image Analysis 16 (2012) 1101-1112. The layer calls a custom operator:
    networks that are exported to other runtimes should take the map as an input.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> layer = usconf.nn.RandomWalk(learnable=["beta"])
    >>> map = layer(torch.rand(2, 1, 32, 24))
    >>> map.shape
    torch.Size([2, 1, 32, 24])
    >>> map.mean().backward()
    >>> layer.beta.grad.shape
    torch.Size([])
    """

    def __init__(
        self,
        alpha: float | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        *,
        preset: str = "monai",
        learnable: bool | Iterable[str] = False,
        variant: str | None = None,
        mode: str = "B",
        sink: str = "all",
        nan: str = "raise",
        axes: str | None = None,
        solver: str = "auto",
        memory_limit: int | str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> None:
        check_choices(variant=variant, mode=mode, sink=sink, nan=nan, solver=solver)
        parse_limit(memory_limit)
        given = {"alpha": alpha, "beta": beta, "gamma": gamma}
        numbers = dict(zip(given, map(number, given, resolve(preset, **given)), strict=True))
        settings = {
            "variant": variant,
            "mode": mode,
            "sink": sink,
            "nan": nan,
            "axes": axes,
            "solver": solver,
            "memory_limit": memory_limit,
            "dtype": dtype,
        }
        super().__init__(numbers, learnable, settings)

    def forward(
        self, image: Tensor, mask: Tensor | None = None, sink_mask: Tensor | None = None
    ) -> Tensor:
        """Maps of the image's shape; mask and sink_mask as in `usconf.random_walk`."""
        return _random_walk(
            image, mask=mask, sink_mask=sink_mask, **self.numbers(), **self.settings
        )
