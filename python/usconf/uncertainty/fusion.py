"""One map from two paths of draws."""

from __future__ import annotations

import torch
from torch import Tensor

from . import checks
from .measures import Measures, entropy, measures, moments_of, probabilities

MEANS = ("logits", "probability")


def fuse(
    laplace_draws: Tensor,
    dropout_draws: Tensor,
    *,
    mean: str = "logits",
    auxiliary: str | Tensor = "MI",
    mask: Tensor | None = None,
) -> Tensor:
    """The fused uncertainty of two heads (inter-path) or of two sets of draws (intra-path).

    Parameters
    ----------
    laplace_draws, dropout_draws : torch.Tensor
        (n, B, C, *S) logits eta_L and eta_D, n >= 2, paired by their order. Intra-path: two
        independent sets of one head. One logit (C = 1) or softmax.
    mean : {"logits", "probability"}, default "logits"
        Whose entropy H is. "logits": of p = sigmoid(mean_t(eta_L - eta_D)). "probability": every
        head's mean probability is taken first, and p = sigmoid(logit(p_L) - logit(p_D)). Softmax
        and logarithms in place of them for C >= 2.
    auxiliary : {"TU", "EE", "MI", "PV"} or torch.Tensor, default "MI"
        The measure U~ whose variance over an image's pixels weights its map: a name, taken of
        `laplace_draws`, or a map (B, *S), e.g. ``measures(dropout_draws).PV``.
    mask : torch.Tensor, optional
        (*S), (B, *S) or (B, 1, *S): the pixels of that variance; the result is 0 outside.

    Returns
    -------
    torch.Tensor
        (B, *S), at least 0, without a unit.

    Raises
    ------
    TypeError, ValueError
        When the two sets do not fit each other or an option is not known.

    Notes
    -----
    Mueller et al., "L-FUSION", section 2: U = sqrt(Var(eta_L - eta_D)) H(eta_L - eta_D) Var(U~).
    The paper does not say what the entropy of a difference of logits is, nor what the deviation of
    several classes is. Here the variance divides by n, and logits of several classes are centred
    over the classes first (softmax does not see a common shift, in which a Laplace posterior is as
    wide as its prior) and their deviations added: two classes (0, z) agree with one logit z.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import fuse
    >>> _ = torch.manual_seed(0)
    >>> laplace, dropout = torch.randn(2, 20, 1, 1, 16, 16)
    >>> fuse(laplace, dropout).shape
    torch.Size([1, 16, 16])
    """
    checks.draws_like(laplace_draws, "laplace_draws", 2)
    checks.draws_like(dropout_draws, "dropout_draws", 2)
    if laplace_draws.shape != dropout_draws.shape:
        raise ValueError(
            "dropout_draws must have the shape of laplace_draws, for draws are paired, got "
            f"{tuple(dropout_draws.shape)} and {tuple(laplace_draws.shape)}; take the same n"
        )
    if mean not in MEANS:
        raise ValueError(f"mean must be one of {MEANS}, got {mean!r}")
    batch, size = laplace_draws.shape[1], laplace_draws.shape[3:]
    inside = checks.mask_like(mask, batch, size, laplace_draws.device)
    weight = _spread(_auxiliary(auxiliary, laplace_draws), inside)
    deviation, centre = _difference(laplace_draws, dropout_draws)
    if mean == "probability":
        centre = _log_ratio(laplace_draws, dropout_draws)
    fused = deviation * entropy(probabilities(centre)) * weight.view(batch, *[1] * len(size))
    return fused if inside is None else torch.where(inside, fused, 0.0)


def _difference(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation (B, *S) and mean (B, C, *S) of eta_L - eta_D over the pairs."""
    moments = moments_of(map(_apart, one, other))
    return moments.variance().sqrt().sum(1), moments.mean()


def _apart(one: Tensor, other: Tensor) -> Tensor:
    apart = one.to(torch.promote_types(one.dtype, torch.float32)) - other
    return apart - apart.mean(1, keepdim=True) if apart.shape[1] > 1 else apart


def _log_ratio(one: Tensor, other: Tensor) -> Tensor:
    """(B, C, *S) logits of the ratio of the two heads' mean probabilities."""
    first, second = (moments_of(map(probabilities, draws)).mean() for draws in (one, other))
    # A class that both heads exclude must not become inf - inf.
    least = torch.finfo(first.dtype).tiny
    ratio = first.clamp(min=least).log() - second.clamp(min=least).log()
    return ratio[:, :1] - ratio[:, 1:] if one.shape[2] == 1 else ratio


def _auxiliary(auxiliary: str | Tensor, draws: Tensor) -> Tensor:
    expected = (draws.shape[1], *draws.shape[3:])
    if isinstance(auxiliary, str):
        if auxiliary not in Measures._fields:
            raise ValueError(
                f"auxiliary must be one of {Measures._fields} or a map {expected}, "
                f"got {auxiliary!r}"
            )
        chosen: Tensor = getattr(measures(draws), auxiliary)
        return chosen
    if not isinstance(auxiliary, Tensor) or tuple(auxiliary.shape) != expected:
        raise ValueError(
            f"auxiliary must be one of {Measures._fields} or a map {expected}, "
            f"got {tuple(auxiliary.shape) if isinstance(auxiliary, Tensor) else auxiliary!r}"
        )
    return auxiliary


def _spread(maps: Tensor, inside: Tensor | None) -> Tensor:
    """(B,): the variance of a map over the pixels of its image."""
    flat = maps.flatten(1)
    if inside is None:
        return flat.var(1, correction=0)
    weight = inside.flatten(1).to(flat.dtype)
    count = weight.sum(1).clamp(min=1)
    flat = torch.where(inside.flatten(1), flat, 0.0)
    centred = (flat - (flat.sum(1) / count)[:, None]) * weight
    return centred.square().sum(1) / count
