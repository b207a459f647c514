"""N(theta, (H + tau I)^-1): its Cholesky factor, draws, variances, and the likeliest tau."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy import optimize
from torch import Generator, Tensor


class Posterior(NamedTuple):
    """One normal distribution of P parameters, float64."""

    theta: Tensor  # (P,)
    precision: float  # tau
    root: Tensor  # (P, P), lower, root root^T = H + tau I

    def draw(self, n: int, generator: Generator | None) -> Tensor:
        """(n, P) samples."""
        shape = (self.theta.numel(), n)
        given = {"device": self.theta.device, "dtype": self.theta.dtype}
        noise = torch.randn(shape, generator=generator, **given)  # type: ignore[call-overload]
        return self.theta + torch.linalg.solve_triangular(self.root.mT, noise, upper=True).mT

    def block_roots(self, blocks: int) -> list[Tensor]:
        """Upper triangles R with R^T R the diagonal blocks of the covariance."""
        identity = torch.eye(len(self.root), dtype=self.root.dtype, device=self.root.device)
        inverse = torch.linalg.solve_triangular(self.root, identity, upper=False)
        return [torch.linalg.qr(part, mode="r")[1] for part in inverse.chunk(blocks, 1)]

    def log_evidence(self) -> float:
        """The part of the log marginal likelihood that depends on tau.

        -tau/2 |theta|^2 + P/2 ln tau - 1/2 ln |H + tau I|; the likelihood at theta is apart.
        """
        ratios = 2 * self.root.diagonal().log() - math.log(self.precision)
        return -0.5 * float(self.precision * self.theta.square().sum() + ratios.sum())


def factorise(hessian: Tensor, precision: float) -> Tensor:
    """The lower Cholesky factor of H + tau I.

    Raises
    ------
    ValueError
        When that is singular up to the rounding of float64.
    """
    total = hessian + precision * torch.eye(
        len(hessian), dtype=hessian.dtype, device=hessian.device
    )
    root, failed = torch.linalg.cholesky_ex(total)
    # What rounding leaves of a pivot that is 0.
    rounding = len(total) * torch.finfo(total.dtype).eps * float(total.diagonal().max())
    least = float(root.diagonal().square().min())
    if int(failed) or not least > rounding:
        raise ValueError(
            "precision must make the Hessian positive definite, got "
            f"{precision:g}, with which it is singular in float64; give a larger precision "
            "(softmax always needs one above 0: it does not see a common shift)"
        )
    return root


def best_precision(curvature: Tensor, theta: Tensor) -> float:
    """The tau with the largest marginal likelihood, by the eigenvalues h_i of H.

    There gamma(tau) = tau |theta|^2 (MacKay 1992), gamma = sum_i h_i / (h_i + tau) the number of
    parameters that the data determine. In ln tau the logarithm of gamma / (tau |theta|^2) falls
    with a slope between -2 and -1, so that one value brackets the only root.
    """
    length = float(theta.square().sum())
    curvature = curvature.clamp(min=0)

    def excess(log_tau: float) -> float:
        gamma = float((curvature / (curvature + math.exp(log_tau))).sum())
        if not gamma > 0:
            raise ValueError(
                "precision must be given as a number, for the labels say nothing of the weights "
                f"(largest curvature {float(curvature.max()):.3g}); is the head certain everywhere?"
            )
        return math.log(gamma) - math.log(length) - log_tau

    if not length > 0:
        raise ValueError(
            "precision must be given as a number, for the marginal likelihood of weights that are "
            "all 0 has no maximum; is the head trained?"
        )
    start = math.log(curvature.numel() / length)
    least = excess(start)  # gamma <= P: not positive
    # The slope is known up to rounding.
    low, high = start + least - 1e-9, start + least / 2 + 1e-9
    return math.exp(optimize.brentq(excess, low, high, xtol=1e-12))
