"""Choice of the prior's precision by labels that were held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import gauss_newton
from .likelihood import log_likelihood
from .posterior import factorise

if TYPE_CHECKING:
    from .laplace import LaplaceHead

GRID = tuple(10 ** (step / 2) for step in range(-8, 9))


def best_on(
    batches: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    head: LaplaceHead,
    hessian: Tensor,
    grid: Sequence[float],
) -> float:
    """The precision of `grid` under which the labels are most likely.

    The predictive probability is that of logits z / sqrt(1 + pi v / 8) with v their variance
    (MacKay 1992; per class for softmax, as laplace-torch's "probit").
    """
    if not grid:
        raise ValueError("grid must hold at least one precision, got none")
    # One eigendecomposition serves every tau.
    curvature, basis = torch.linalg.eigh(hessian)
    for value in grid:
        factorise(hessian, value)
    inverse = 1 / (curvature.clamp(min=0) + curvature.new_tensor(grid)[:, None])  # (T, P)
    likelihood = torch.zeros(len(grid), dtype=torch.float64)
    bias = head.conv.bias is not None
    classes, inputs = head.classes, head.in_channels + bias
    basis = basis.view(classes, inputs, -1)
    numbers = classes * inputs
    for features, labels, inside in batches:
        logits = head.conv(features).flatten(2)
        for index, image in enumerate(features.flatten(2)):
            for phi, part in gauss_newton.chunks(image, 2 * numbers + len(grid) * classes):
                phi = gauss_newton.with_bias(phi, bias)
                # (T, C, n): sum_i (v_ic . phi)^2 / (h_i + tau) for all tau at once.
                variance = torch.stack(
                    [inverse @ (basis[c].T @ phi).square_() for c in range(classes)], 1
                )
                z = logits[index, :, part].double() / (1 + torch.pi / 8 * variance).sqrt()
                truth = labels[index].flatten()[part].expand(len(grid), -1)
                log_p = log_likelihood(z, truth)
                if inside is not None:
                    log_p = torch.where(inside[index].flatten()[part], log_p, 0.0)
                likelihood += log_p.sum(1).cpu()
    return grid[int(likelihood.argmax())]
