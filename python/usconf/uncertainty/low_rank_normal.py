"""Normal distribution over all logits of an image whose covariance is low rank plus diagonal."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from . import checks


class Noise(NamedTuple):
    """Standard normal numbers e (B, m, R) and z (m, B, C, *S); the first `pairs` count twice."""

    common: Tensor
    own: Tensor
    pairs: int


class LowRankNormal(NamedTuple):
    """N(mean, P P^T + D) over the C*prod(S) logits of every image of a batch.

    Attributes
    ----------
    mean : torch.Tensor
        (B, C, *S).
    diagonal : torch.Tensor
        (B, C, *S), D: variances, not deviations.
    factor : torch.Tensor
        (B, R, C, *S), the R columns of P as pictures.
    mask : torch.Tensor or None
        (B, *S) bool. Outside it there is no distribution: samples are the mean, and `log_prob` and
        `kl` leave those logits out.

    Notes
    -----
    Monteiro et al., "Stochastic Segmentation Networks" (2020), section 2. Inverse and determinant
    come from the R x R matrix I + P^T D^-1 P (Woodbury), through a QR decomposition in float64:
    O(N R^2) time, O(N R) memory.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import LowRankNormal
    >>> mean = torch.zeros(1, 2, 8, 8)
    >>> normal = LowRankNormal(mean, torch.ones_like(mean), torch.ones(1, 3, 2, 8, 8))
    >>> normal.sample(20).shape
    torch.Size([20, 1, 2, 8, 8])
    >>> normal.log_prob(mean).shape
    torch.Size([1])
    """

    mean: Tensor
    diagonal: Tensor
    factor: Tensor
    mask: Tensor | None = None

    def sample(self, n: int, generator: Generator | None = None, antithetic: bool = True) -> Tensor:
        """Logits mean + P e + sqrt(D) z, differentiable by mean, D and P.

        Parameters
        ----------
        n : int
            Number of draws.
        generator : torch.Generator, optional
            Source of the noise, on the device of the tensors.
        antithetic : bool, default True
            Draws come in pairs mean + d, mean - d (draw i and i + n // 2; of an odd n the last
            draw is alone): the mean of the pairs is exact.

        Returns
        -------
        torch.Tensor
            (n, B, C, *S).
        """
        return self.mean + self.deviations(self.noise(n, generator, antithetic))

    def noise(self, n: int, generator: Generator | None = None, antithetic: bool = True) -> Noise:
        """The standard normal numbers of `sample`, for several distributions of one shape."""
        checks.whole("n", n, 1)
        pairs = n // 2 if antithetic else 0
        batch, rank = self.factor.shape[:2]
        given: dict[str, Any] = {"generator": generator, "device": self.mean.device}
        return Noise(
            torch.randn((batch, n - pairs, rank), dtype=self.mean.dtype, **given),
            torch.randn((n - pairs, *self.mean.shape), dtype=self.mean.dtype, **given),
            pairs,
        )

    def deviations(self, noise: Noise) -> Tensor:
        """P e + sqrt(D) z, (n, B, C, *S): samples without their mean; 0 outside the mask."""
        common = (noise.common @ self.factor.flatten(2)).transpose(0, 1)
        apart = common.reshape(noise.own.shape) + self.diagonal.sqrt() * noise.own
        if self.mask is not None:
            apart = apart * self.mask[:, None]
        return torch.cat((apart[: noise.pairs], -apart[: noise.pairs], apart[noise.pairs :]))

    def log_prob(self, value: Tensor) -> Tensor:
        """ln N(value) per image: (..., B) for a value (..., B, C, *S)."""
        if value.shape[-self.mean.ndim :] != self.mean.shape:
            raise ValueError(
                f"value must be (..., {', '.join(map(str, self.mean.shape))}) as the mean, "
                f"got {tuple(value.shape)}"
            )
        parts = woodbury(self)
        start = value.ndim - self.mean.ndim + 1
        energy = parts.squared_length((value.double() - self.mean.double()).flatten(start))
        count = parts.inside.sum(1)
        result = -0.5 * (energy + parts.log_determinant() + count * math.log(2 * math.pi))
        return result.to(self.mean.dtype)


class Woodbury(NamedTuple):
    """Flat float64 parts of P P^T + D: with A = D^(-1/2) P, the QR decomposition of [A; I].

    [A; I] = [Q; q] U, so that U^T U = I + P^T D^-1 P (Woodbury's matrix) without ever squaring A:
    where a uniform region makes the columns of P large and alike, Cholesky's decomposition of the
    product fails in float64, and this does not. Outside the mask A is 0 and D is 1.
    """

    diagonal: Tensor  # (B, N), D
    scale: Tensor  # (B, N), D^(-1/2); 0 outside
    basis: Tensor  # (B, N, R), Q
    foot: Tensor  # (B, R, R), q
    log_capacitance: Tensor  # (B,), ln |I + P^T D^-1 P|
    inside: Tensor  # (B, N), 0 or 1

    def log_determinant(self) -> Tensor:
        """(B,): ln |P P^T + D|."""
        return self.diagonal.log().sum(1) + self.log_capacitance

    def squared_length(self, vectors: Tensor) -> Tensor:
        """(..., B): v^T (P P^T + D)^-1 v of (..., B, N), as a sum of squares.

        It is what is left of [D^(-1/2) v; 0] beside the columns of [Q; q].
        """
        scaled = vectors * self.scale
        seen = torch.einsum("bnr,...bn->...br", self.basis, scaled)
        left = scaled - torch.einsum("bnr,...br->...bn", self.basis, seen)
        below = torch.einsum("bsr,...br->...bs", self.foot, seen)
        return left.square().sum(-1) + below.square().sum(-1)


def woodbury(normal: LowRankNormal) -> Woodbury:
    """What the inverse and the determinant of a covariance are made of."""
    factor = normal.factor.double().flatten(2)
    diagonal = normal.diagonal.double().flatten(1)
    if normal.mask is None:
        inside = torch.ones_like(diagonal)
    else:
        channels = normal.mean.shape[1]
        kept = normal.mask[:, None].expand(-1, channels, *normal.mask.shape[1:]).flatten(1)
        diagonal = torch.where(kept, diagonal, 1.0)
        inside = kept.double()
        factor = torch.where(kept[:, None], factor, 0.0)
    if not bool((diagonal > 0).all()):
        raise ValueError(
            f"diagonal must be above 0 for a density, got {float(diagonal.min())}; "
            "with D = 0 the covariance has only rank R: add a small constant"
        )
    scale = inside * diagonal.rsqrt()
    scaled = (factor * scale[:, None]).mT
    if not bool(torch.isfinite(scaled).all()):
        raise ValueError(
            "factor and diagonal must be finite, got NaN or infinity; leave large uniform regions "
            "out of the training with mask=, or lower the learning rate"
        )
    rank = scaled.shape[2]
    identity = torch.eye(rank, dtype=scaled.dtype, device=scaled.device)
    basis, upper = torch.linalg.qr(torch.cat((scaled, identity.expand(len(scaled), -1, -1)), 1))
    capacitance = 2 * upper.diagonal(dim1=1, dim2=2).abs().log().sum(1)
    return Woodbury(diagonal, scale, basis[:, :-rank], basis[:, -rank:], capacitance, inside)


def kl(p: LowRankNormal, q: LowRankNormal) -> Tensor:
    """KL(p || q) per image, by Woodbury.

    Parameters
    ----------
    p, q : LowRankNormal
        Of one shape (ranks may differ) and with the same mask.

    Returns
    -------
    torch.Tensor
        (B,), in nats, summed over the logits; differentiable. At least 0 up to rounding.

    Raises
    ------
    ValueError
        When shapes or masks differ, or a diagonal is not above 0.

    Notes
    -----
    Computed in float64 from sums of squares and of r - 1 - ln r, r = D_p / D_q, which do not
    cancel: equal distributions give 0 up to rounding, however large N and P are.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import LowRankNormal, kl
    >>> mean = torch.zeros(1, 1, 4, 4)
    >>> p = LowRankNormal(mean, torch.ones_like(mean), torch.zeros(1, 2, 1, 4, 4))
    >>> kl(p._replace(mean=mean + 1), p)
    tensor([8.])
    """
    if p.mean.shape != q.mean.shape:
        raise ValueError(
            f"p and q must have one shape, got {tuple(p.mean.shape)} and {tuple(q.mean.shape)}"
        )
    if (p.mask is None) != (q.mask is None) or (
        p.mask is not None and q.mask is not None and not torch.equal(p.mask, q.mask)
    ):
        raise ValueError("p and q must have the same mask, got two; give both heads the same one")
    of_p, of_q = woodbury(p), woodbury(q)
    apart = (p.mean.double() - q.mean.double()).flatten(1)
    result = 0.5 * (trace_term(of_p, of_q, p.factor) + of_q.squared_length(apart))
    return result.to(p.mean.dtype)


def trace_term(p: Woodbury, q: Woodbury, factor: Tensor) -> Tensor:
    """tr(S_q^-1 S_p) - N + ln |S_q| - ln |S_p|, (B,), with p's P as (B, R, C, *S).

    tr(S_q^-1 D_p) = sum_i r_i (1 - |Q_i|^2), and tr(S_q^-1 P P^T) is the sum of the squared lengths
    of P's columns: no differences of large numbers.
    """
    excess = (p.diagonal - q.diagonal) * q.scale.square()
    own = excess - torch.log1p(excess) - (1 + excess) * q.basis.square().sum(2)
    columns = factor.double().flatten(2).transpose(0, 1)
    spread = q.squared_length(columns).sum(0)
    return own.sum(1) + spread + q.log_capacitance - p.log_capacitance
