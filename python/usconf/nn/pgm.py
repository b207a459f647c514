"""The annotation model's loss as a module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..ops.pgm import pgm_loss, pgm_loss_with_parts
from ..pgm import check_decay, check_reduction, energy, slope


class PGMLoss(nn.Module):
    """Loss that trains a confidence network from sparse Good and Bad strokes.

    Parameters
    ----------
    gamma : float, default 75 (the paper's)
        Weight of the vertical term. May be set between steps (``loss.gamma = 10.0``): annealing.
    s, decay_total, sigma, reduction, constants, label_weights
        As in `usconf.pgm_loss`.
    from_logits : bool, default True
        Whether `forward` takes logits (recommended) or probabilities.

    Raises
    ------
    TypeError, ValueError
        As `usconf.pgm_loss`.

    Notes
    -----
    Ronchetti et al., "Beyond Shadows", eq. 2-6. "mean" divides by the valid pixels of the tensor
    that was given: to train with several processes take reduction="sum" and divide by the count of
    all of them.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> criterion = usconf.nn.PGMLoss(decay_total=0.3, label_weights=(1, 8, 8))
    >>> logits = torch.zeros(4, 1, 32, 24, requires_grad=True)
    >>> labels = torch.randint(0, 3, (4, 1, 32, 24), dtype=torch.uint8)
    >>> criterion(logits, labels).backward()
    >>> logits.grad.shape
    torch.Size([4, 1, 32, 24])
    """

    def __init__(
        self,
        gamma: float = 75.0,
        s: float | None = None,
        decay_total: float | None = None,
        sigma: float = 0.25,
        reduction: str = "mean",
        constants: bool = False,
        from_logits: bool = True,
        label_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_reduction(reduction)
        check_decay(s, decay_total)
        law = energy(gamma, slope(s, decay_total, 1), sigma, label_weights, constants, from_logits)
        self.gamma = law.gamma
        self.s, self.decay_total, self.sigma = s, decay_total, law.sigma
        self.reduction = reduction
        self.constants = law.constants
        self.from_logits = law.from_logits
        self.label_weights = law.label_weights

    def forward(self, logits: Tensor, labels: Tensor, mask: Tensor | None = None) -> Tensor:
        """The loss of (..., H, W) logits under uint8 labels; mask: (H, W) or the same shape."""
        return pgm_loss(logits, labels, mask=mask, reduction=self.reduction, **self._given())

    def with_parts(
        self, logits: Tensor, labels: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its unary, vertical and horizontal parts from the same pass, for logs."""
        return pgm_loss_with_parts(
            logits, labels, mask=mask, reduction=self.reduction, **self._given()
        )

    def _given(self) -> dict[str, Any]:
        return {
            "gamma": self.gamma,
            "s": self.s,
            "decay_total": self.decay_total,
            "sigma": self.sigma,
            "constants": self.constants,
            "from_logits": self.from_logits,
            "label_weights": self.label_weights,
        }

    def extra_repr(self) -> str:
        """All settings."""
        given = {**self._given(), "reduction": self.reduction}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())
