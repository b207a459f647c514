"""Expected pairwise Kullback-Leibler divergence between draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .low_rank_normal import LowRankNormal, woodbury

# Numbers that are kept in float64 (256 MiB); of more, the columns of so many logits at a time.
MOST, CHUNK = 2**25, 2**14


def epkl(distributions: Sequence[LowRankNormal] | Tensor) -> Tensor:
    """Mean KL(i || j) over all ordered pairs i != j of draws, one number per image.

    Parameters
    ----------
    distributions : sequence of LowRankNormal, or torch.Tensor
        One distribution of logits per draw of the weights, of one shape and rank and with one mask.
        Or (n, B, C, *S) logits: then the divergence is that between the draws' label maps, whose
        pixels are independent (for heads that have no distribution of logits).

    Returns
    -------
    torch.Tensor
        (B,) in nats, summed over the image; at least 0.

    Raises
    ------
    TypeError, ValueError
        When there are fewer than two draws or they do not fit each other.

    Notes
    -----
    Zepf et al. (2024), section 3: pairs of Gaussians, in closed form. Determinants cancel between
    the pairs (i, j) and (j, i); what is left are products of R x N with N x R numbers for every
    pair, in float64: nothing is sampled and no network runs. Draws that share diagonal and factor
    (``distribution._replace(mean=mean)``, a posterior of the mean's layer) need only one.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import LowRankNormal, epkl
    >>> mean = torch.zeros(1, 1, 4, 4)
    >>> one = LowRankNormal(mean, torch.ones_like(mean), torch.zeros(1, 2, 1, 4, 4))
    >>> epkl([one, one._replace(mean=mean + 1)])
    tensor([8.])
    """
    if isinstance(distributions, Tensor):
        checks.draws_like(distributions, "distributions", 2)
        return _of_labels(distributions)
    draws = list(distributions)
    _check(draws)
    means = torch.stack([one.mean for one in draws]).double().flatten(2)
    means = means - means.mean(0)
    first = draws[0]
    if all(one.diagonal is first.diagonal and one.factor is first.factor for one in draws):
        total = woodbury(first).squared_length(means).sum(0) / (len(draws) - 1)
    else:
        total = _of_gaussians(draws, means)
    return total.clamp(min=0).to(first.mean.dtype)


def _check(draws: list[LowRankNormal]) -> None:
    if len(draws) < 2 or not all(isinstance(one, LowRankNormal) for one in draws):
        raise ValueError(
            "distributions must be at least two LowRankNormals, one per draw of the weights, "
            f"got {len(draws)}"
        )
    first = draws[0]
    for one in draws:
        if one.factor.shape != first.factor.shape or one.mean.shape != first.mean.shape:
            raise ValueError(
                "distributions must have one shape and rank, got factors "
                f"{tuple(first.factor.shape)} and {tuple(one.factor.shape)}"
            )
        same = one.mask is first.mask or (
            one.mask is not None and first.mask is not None and torch.equal(one.mask, first.mask)
        )
        if not same:
            raise ValueError("distributions must have one mask, got several")


def _of_gaussians(draws: list[LowRankNormal], means: Tensor) -> Tensor:
    """(B,) from n distributions, and their means (n, B, N) about the common mean."""
    n = len(draws)
    diagonals = sum(one.diagonal.double() for one in draws).flatten(1)  # type: ignore[union-attr]
    spreads = sum(one.factor.double().square().sum(1) for one in draws)
    spreads = spreads.flatten(1)  # type: ignore[union-attr]
    squares = means.square().sum(0)
    columns = torch.cat([one.factor.flatten(2) for one in draws], 1)  # (B, n R, N)
    if columns.numel() <= MOST:
        columns = columns.double()
    total = torch.zeros(means.shape[1], dtype=means.dtype, device=means.device)
    for mean, draw in zip(means, draws, strict=True):
        q = woodbury(draw)
        # sum_i of tr(D^-1 S_i) and of |D^(-1/2) (m_i - m_q)|^2; the means' cross term is 0.
        whole = diagonals + spreads + squares + n * mean.square()
        within = diagonals * q.basis.square().sum(2)
        total += ((whole - within) * q.scale.square() - n * q.inside).sum(1)
        # What Q takes from every column of the P_i and from every m_i - m_q.
        scaled = q.basis * q.scale[..., None]
        taken = _products(columns, scaled).square().sum((1, 2))
        apart = torch.einsum("nbi,bir->nbr", means - mean, scaled)
        total -= taken + apart.square().sum((0, 2))
    # The pairs i == j are among them with N + 0 - N: nothing.
    return total / (2 * n * (n - 1))


def _products(columns: Tensor, scaled: Tensor) -> Tensor:
    """(B, M, R) float64 of (B, M, N) in any type and (B, N, R): M x N doubles would be too many."""
    parts = zip(columns.split(CHUNK, 2), scaled.split(CHUNK, 1), strict=True)
    return torch.stack([left.double() @ right for left, right in parts]).sum(0)


def _of_labels(draws: Tensor) -> Tensor:
    """sum_px sum_c [mean_i p_i ln p_i - mean_i p_i mean_j ln p_j] n / (n - 1), (B,)."""
    logits = draws.to(torch.promote_types(draws.dtype, torch.float32))
    if logits.shape[2] == 1:
        logits = torch.cat((logits, -logits), 2)
        log_p = torch.nn.functional.logsigmoid(logits)
    else:
        log_p = logits.log_softmax(2)
    p = log_p.exp()
    # mean_i (p_i - mean p) (ln p_i - mean ln p): the covariance, which does not cancel.
    covariance = ((p - p.mean(0)) * (log_p - log_p.mean(0))).mean(0)
    n = draws.shape[0]
    result = covariance.flatten(1).sum(1, dtype=torch.float64) * (n / (n - 1))
    return result.clamp(min=0).to(logits.dtype)
