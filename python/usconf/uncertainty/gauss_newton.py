"""Generalised Gauss-Newton matrix of a last 1x1 convolution, exact, in one pass over pixels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

# Doubles in the copies that one chunk of pixels makes: 64 MiB.
CHUNK = 2**23


def chunks(features: Tensor, per_pixel: int) -> Iterator[tuple[Tensor, slice]]:
    """Parts (K, n) of the pixels of one image's features (K, N), `per_pixel` doubles each."""
    step = max(256, CHUNK // per_pixel)
    for start in range(0, features.shape[1], step):
        part = slice(start, min(start + step, features.shape[1]))
        yield features[:, part], part


def with_bias(features: Tensor, bias: bool) -> Tensor:
    """(K, n) in float64, with a row of ones for the bias."""
    features = features.double()
    return torch.cat((features, torch.ones_like(features[:1]))) if bias else features


def add_image(
    hessian: Tensor, features: Tensor, logits: Tensor, inside: Tensor | None, bias: bool
) -> None:
    """Adds sum_px (diag p - p p^T) (x) phi phi^T of one image to (C, K, C, K) `hessian`.

    features: (K, N), logits: (C, N), inside: (N,) bool. Bernoulli, C = 1: p (1 - p) phi phi^T.
    """
    if inside is not None and not bool(inside.all()):
        features, logits = features[:, inside], logits[:, inside]
    classes, inputs = hessian.shape[:2]
    for phi, part in chunks(features, 2 * inputs + 2 * classes):
        phi = with_bias(phi, bias)
        z = logits[:, part].double()
        if classes == 1:
            hessian[0, :, 0] += _gram(phi, (F.logsigmoid(z[0]) + F.logsigmoid(-z[0])).exp())
            continue
        log_p = z.log_softmax(0)
        # Rows of diag p - p p^T add up to 0: p_c (1 - p_c) is the sum of the products p_c p_d,
        # which does not cancel where p_c is 1, and C products of matrices fewer.
        for c in range(classes):
            for d in range(c):
                block = _gram(phi, (log_p[c] + log_p[d]).exp())
                hessian[c, :, c] += block
                hessian[d, :, d] += block
                hessian[c, :, d] -= block
                hessian[d, :, c] -= block


def _gram(phi: Tensor, weight: Tensor) -> Tensor:
    return (phi * weight) @ phi.T
