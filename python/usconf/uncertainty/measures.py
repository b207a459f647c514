"""Maps of uncertainty from draws of logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from ..ops.uncertainty import uncertainty
from . import checks
from .low_rank_normal import LowRankNormal, Noise


class Measures(NamedTuple):
    """Uncertainty per pixel, (B, *S) each; entropies in nats.

    Attributes
    ----------
    TU : torch.Tensor
        Total uncertainty H(mean_t p_t), from 0 to ln max(C, 2).
    EE : torch.Tensor
        Expected entropy mean_t H(p_t): aleatoric, at most TU.
    MI : torch.Tensor
        Mutual information TU - EE: epistemic, at least 0.
    PV : torch.Tensor
        Pixel variance var_t p_t, the mean over the classes, from 0 to 0.25.
    """

    TU: Tensor
    EE: Tensor
    MI: Tensor
    PV: Tensor


def measures(
    draws: Tensor | Sequence[LowRankNormal],
    *,
    mask: Tensor | None = None,
    samples: int = 20,
    generator: Generator | None = None,
) -> Measures:
    """Total, expected, mutual uncertainty and pixel variance of posterior draws.

    Parameters
    ----------
    draws : torch.Tensor or sequence of LowRankNormal
        (n, B, C, *S) logits, one per draw of the weights; C = 1 is one logit per pixel (sigmoid),
        more is softmax. Or one distribution of logits per draw of the weights: p_t is then the
        mean probability over `samples` of its samples, and PV is that of its mean. All draws see
        the same noise: noise of their own would add its error, of 1 / `samples`, to MI.
    mask : torch.Tensor, optional
        (*S), (B, *S) or (B, 1, *S); the maps are 0 outside.
    samples, generator : int, default 20 (the paper's), and torch.Generator, optional
        How many samples of every `LowRankNormal`, and their noise. Logits need neither.

    Returns
    -------
    Measures
        Maps TU, EE, MI, PV of (B, *S): float32, or float64 for float64 logits.

    Raises
    ------
    TypeError, ValueError
        When the draws or the mask have another shape or type.

    Notes
    -----
    Mueller et al., "L-FUSION", section 2; Zepf et al. (2024), section 3. The variance divides by n.
    For two classes PV is that of either, so that softmax over (0, z) and sigmoid(z) agree. The sums
    run over differences from the first draw: identical draws give MI = PV = 0 to the last bit.
    NaN logits give NaN.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import measures
    >>> draws = torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1, 1).expand(2, 1, 1, 4, 4)
    >>> maps = measures(draws)
    >>> maps.TU[0, 0, 0], maps.MI[0, 0, 0]
    (tensor(0.6931), tensor(0.1109))
    """
    if isinstance(draws, Tensor):
        checks.draws_like(draws, "draws")
        maps = maps_from_logits(draws)
    else:
        maps = _of_distributions(draws, samples, generator)
    inside = checks.mask_like(mask, maps.TU.shape[0], maps.TU.shape[1:], maps.TU.device)
    if inside is None:
        return maps
    return Measures(*(torch.where(inside, one, 0.0) for one in maps))


def maps_from_logits(draws: Tensor) -> Measures:
    """The maps of (n, B, C, *S) logits, n >= 1."""
    if not (torch.is_grad_enabled() and draws.requires_grad):
        return Measures(*uncertainty(draws).unbind())
    # Draw by draw, so that few planes are alive.
    return _accumulate((p, p) for p in map(probabilities, draws))


def probabilities(logits: Tensor) -> Tensor:
    """(B, max(C, 2), *S) from (B, C, *S), at least float32; one logit gives (p, 1 - p).

    1 - p is sigmoid(-z): the difference would lose small probabilities.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if logits.shape[1] == 1:
        return torch.cat((logits, -logits), 1).sigmoid_()
    return logits.softmax(1)


def _of_distributions(
    draws: Sequence[LowRankNormal], samples: int, generator: Generator | None
) -> Measures:
    """The maps of distributions, one per draw of the weights."""
    if not draws or not all(isinstance(one, LowRankNormal) for one in draws):
        raise TypeError(
            "draws must be a tensor (n, B, C, *S) or LowRankNormals, one per draw of the weights, "
            f"got {draws!r:.60}"
        )
    first = draws[0]
    if any(one.factor.shape != first.factor.shape for one in draws):
        raise ValueError("draws must be LowRankNormals of one shape and rank, got several")
    noise = first.noise(checks.whole("samples", samples, 1), generator)
    alike = all(one.factor is first.factor and one.diagonal is first.diagonal for one in draws)
    if alike and not (torch.is_grad_enabled() and _wants_gradient(draws)):
        means = torch.stack([one.mean for one in draws])
        return Measures(*uncertainty(means, first.deviations(noise)).unbind())
    return _accumulate(_sampled(draws, noise))


def _wants_gradient(draws: Sequence[LowRankNormal]) -> bool:
    return any(part.requires_grad for one in draws for part in (one.mean, one.diagonal, one.factor))


def _sampled(draws: Sequence[LowRankNormal], noise: Noise) -> Iterator[tuple[Tensor, Tensor]]:
    """Mean probability over the noise and probability of the mean, of every distribution."""
    first = draws[0]
    apart = first.deviations(noise)
    for one in draws:
        if one.factor is not first.factor or one.diagonal is not first.diagonal:
            apart = one.deviations(noise)
        total = torch.zeros_like(probabilities(one.mean))
        for sample in apart:
            total += probabilities(one.mean + sample)
        yield total / len(apart), probabilities(one.mean)


def entropy(p: Tensor) -> Tensor:
    """-sum_c p ln p of (B, K, *S) probabilities; torch.special.entr takes twice as long."""
    return -(p * p.clamp(min=torch.finfo(p.dtype).tiny).log()).sum(1)


class Moments:
    """Mean and variance of planes that come one by one.

    Sums of differences from the first: equal planes give exactly the first, and exactly 0.
    """

    def __init__(self, first: Tensor) -> None:
        self.count = 1
        self._first = first
        self._sum, self._squares = torch.zeros_like(first), torch.zeros_like(first)

    def add(self, plane: Tensor) -> None:
        """One more."""
        apart = plane - self._first
        self._sum += apart
        self._squares += apart.square()
        self.count += 1

    def mean(self) -> Tensor:
        """The mean."""
        return self._first + self._sum / self.count

    def variance(self) -> Tensor:
        """The variance, divided by the number of planes."""
        return (self._squares / self.count - (self._sum / self.count).square()).clamp(min=0)


def moments_of(planes: Iterable[Tensor]) -> Moments:
    """Of at least one plane."""
    rest = iter(planes)
    moments = Moments(next(rest))
    for plane in rest:
        moments.add(plane)
    return moments


def _accumulate(draws: Iterable[tuple[Tensor, Tensor]]) -> Measures:
    """The maps from pairs (p_t, q_t) of (B, K, *S): entropies of p, variance of q."""
    pairs = iter(draws)
    p, q = next(pairs)
    # Of two classes one will do.
    kept = slice(0, 1 if q.shape[1] == 2 else None)
    of_p, of_q, of_entropy = Moments(p), Moments(q[:, kept]), Moments(entropy(p))
    for p, q in pairs:
        of_p.add(p)
        of_q.add(q[:, kept])
        of_entropy.add(entropy(p))
    total, expected = entropy(of_p.mean().clamp(0, 1)), of_entropy.mean()
    # Concavity makes the difference positive; rounding may not.
    mutual = (total - expected).clamp(min=0)
    return Measures(total, expected, mutual, of_q.variance().mean(1))
