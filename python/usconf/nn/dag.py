"""The DAG as a layer."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .. import dag as _dag
from ..dag import check_combination, check_half_width, check_words, parameter, resolve
from .learnable import Learnable


class DAG(Learnable):
    """DAG confidence maps with parameters that can be learned.

    Parameters
    ----------
    xi, alpha, var, power : float, optional
        As in `usconf.dag`; None takes the preset's value.
    preset : {None, "beyond_shadows"}
        As in `usconf.dag`.
    learnable : bool or iterable of {"xi", "alpha", "var", "power"}, default False
        Which of them are `torch.nn.Parameter`; the others are plain floats. They must stay in
        range (0 < xi <= 1, var > 0, the others nonnegative): clamp them after an optimiser step if
        the loss pulls them out.
    half_width, despeckle, roi, variant, nan, axes, dtype
        As in `usconf.dag`. With a despeckling no gradient flows to the image, only to the
        parameters: a backward pass that wants it is refused.

    Raises
    ------
    TypeError, ValueError, ImportError
        As `usconf.dag`; and if `learnable` names something else.

    Notes
    -----
    Hung, Chen, Galeotti, ISBI 2021 (arXiv 2011.11956). The layer calls a custom operator: networks
    that are exported to other runtimes should take the map as an input.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> layer = usconf.nn.DAG(learnable=["xi"], despeckle=None)
    >>> map = layer(torch.rand(2, 1, 32, 24))
    >>> map.shape
    torch.Size([2, 1, 32, 24])
    >>> map.mean().backward()
    >>> layer.xi.grad.shape
    torch.Size([])
    """

    always_shown = ("despeckle",)

    def __init__(
        self,
        xi: float | None = None,
        alpha: float | None = None,
        var: float | None = None,
        power: float | None = None,
        *,
        preset: str | None = None,
        learnable: bool | Iterable[str] = False,
        half_width: int = 10,
        despeckle: str | None = "srad",
        roi: tuple[int, int, int, int] | None = None,
        variant: str | None = None,
        nan: str = "raise",
        axes: str | None = None,
        dtype: torch.dtype | str | None = None,
    ) -> None:
        check_words(variant, despeckle, nan)
        check_half_width(half_width, variant)
        check_combination(variant, despeckle, roi, nan == "mask", 0)
        given = {"xi": xi, "alpha": alpha, "var": var, "power": power}
        numbers = dict(zip(given, map(parameter, given, resolve(preset, **given)), strict=True))
        settings = {
            "half_width": half_width,
            "despeckle": despeckle,
            "roi": roi,
            "variant": variant,
            "nan": nan,
            "axes": axes,
            "dtype": dtype,
        }
        super().__init__(numbers, learnable, settings)

    def forward(
        self,
        image: Tensor,
        mask: Tensor | None = None,
        *,
        reference: Tensor | None = None,
        reference_map: Tensor | None = None,
        needle: Tensor | None = None,
        artifact: Tensor | None = None,
    ) -> Tensor:
        """Maps of the image's shape; the other tensors as in `usconf.dag`."""
        return _dag(
            image, mask=mask, reference=reference, reference_map=reference_map, needle=needle,
            artifact=artifact, **self.numbers(), **self.settings,
        )  # fmt: skip
