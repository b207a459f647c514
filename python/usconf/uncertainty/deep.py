"""Laplace approximation of heads of several layers, through laplace-torch and curvlinops."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import torch
from torch import Generator, Tensor, nn

from . import checks
from .encoding import Encoder, Loader, encoded, evaluating
from .posterior import best_precision

STRUCTURES = ("kron", "full")
KRONECKER_LAYERS = (nn.Linear, nn.Conv2d)


class DeepLaplace:
    """What `deep_laplace` returns: a posterior over a copy of a head.

    Attributes
    ----------
    laplace : laplace.ParametricLaplace
        laplace-torch's object, for all else that it can do. Its model is a copy of the head.
    precision : float
        tau of the prior.
    """

    def __init__(self, laplace: Any, head: nn.Module) -> None:
        self.laplace = laplace
        self._head = head
        self._names = [name for name, one in head.named_parameters() if one.requires_grad]

    @property
    def precision(self) -> float:
        """The prior's precision tau."""
        return float(torch.as_tensor(self.laplace.prior_precision).flatten()[0])

    @torch.no_grad()
    def sample(self, features: Tensor, n: int, generator: Generator | None = None) -> Tensor:
        """Logits (n, B, C, *S) of n draws of the weights: n passes of the head."""
        checks.whole("n", n, 1)
        held = dict(self._head.named_parameters())
        sizes = [held[name].numel() for name in self._names]
        draws = []
        for theta in self.laplace.sample(n, generator):
            drawn = {
                name: part.view_as(held[name])
                for name, part in zip(self._names, theta.split(sizes), strict=True)
            }
            draws.append(torch.func.functional_call(self._head, drawn, (features,)))
        return torch.stack(draws)


def deep_laplace(
    head: nn.Module,
    loader: Loader,
    features: Encoder | None = None,
    *,
    structure: str = "kron",
    stochastic: bool = False,
    precision: float | str = "marginal_likelihood",
) -> DeepLaplace:
    """Posterior of the weights of a head of several layers.

    `LaplaceHead` is exact and faster where only the last 1x1 convolution is to be uncertain.

    Parameters
    ----------
    head : torch.nn.Module
        Features (B, K, *S) to logits (B, C, *S). It is copied, in eval mode, and stays as it is.
    loader : iterable
        (images, labels) batches that can be gone through several times, such as a DataLoader;
        labels are class indices (B, *S) or (B, 1, *S). Masks are refused: laplace-torch has none.
    features : callable, optional
        The frozen encoder, as in `LaplaceHead.fit`; without it images are features.
    structure : {"kron", "full"}, default "kron"
        "kron": Kronecker factors of Linear and Conv2d layers; other layers' parameters (batch
        normalisation) stay at what training found. "full": P x P numbers, for small heads, any
        layer, 3-D too.
    stochastic : bool, default False
        Monte-Carlo Fisher (labels drawn from the prediction) in place of the exact expectation.
    precision : float or "marginal_likelihood", default "marginal_likelihood"
        tau of the prior.

    Returns
    -------
    DeepLaplace
        With ``sample(features, n)``.

    Raises
    ------
    ImportError
        Without laplace-torch: ``pip install "usconf[laplace]"``.
    TypeError, ValueError
        As `LaplaceHead.fit`, or when the head has no layer that the structure can do.

    Notes
    -----
    Daxberger et al., "Laplace Redux" (2021). Every pixel is an observation; the curvature is the
    sum over all. One logit (C = 1) is treated as softmax of (0, z), which is the same.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import deep_laplace
    >>> head = torch.nn.Sequential(
    ...     torch.nn.Conv2d(4, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1)
    ... )
    >>> features, labels = torch.randn(2, 4, 8, 8), torch.randint(0, 2, (2, 8, 8))
    >>> posterior = deep_laplace(head, [(features, labels)])  # doctest: +SKIP
    >>> posterior.sample(features, 20).shape  # doctest: +SKIP
    torch.Size([20, 2, 1, 8, 8])
    """
    library = _library()
    if structure not in STRUCTURES:
        raise ValueError(f"structure must be one of {STRUCTURES}, got {structure!r}")
    marginal = precision == "marginal_likelihood"
    if not marginal and (isinstance(precision, (str, bool)) or not 0 < float(precision) < math.inf):
        raise ValueError(f'precision must be above 0 or "marginal_likelihood", got {precision!r}')
    held = _uncertain(copy.deepcopy(head).eval(), structure)
    fitted = library.Laplace(
        _PerPixel(held),
        "classification",
        subset_of_weights="all",
        hessian_structure=structure,
        prior_precision=1.0 if marginal else float(precision),
        backend_kwargs={"stochastic": stochastic},
    )
    with evaluating(features):
        fitted.fit(_Pixels(loader, features, held))
    if marginal:
        # Its own search is 100 steps of Adam, which need not arrive.
        fitted.prior_precision = best_precision(_eigenvalues(fitted.H), fitted.mean)
    return DeepLaplace(fitted, held)


def _library() -> ModuleType:
    try:
        import laplace
    except ImportError as error:
        raise ImportError(
            "deep_laplace needs laplace-torch; install it with: pip install 'usconf[laplace]'"
        ) from error
    module: ModuleType = laplace
    return module


def _uncertain(head: nn.Module, structure: str) -> nn.Module:
    """The head with gradients for exactly the parameters that get a posterior."""
    names = 0
    for module in head.modules():
        for parameter in module.parameters(recurse=False):
            able = structure == "full" or isinstance(module, KRONECKER_LAYERS)
            parameter.requires_grad_(able)
            names += able
    if not names:
        raise ValueError(
            f"head must hold {'parameters' if structure == 'full' else 'Linear or Conv2d layers'} "
            f"for structure={structure!r}, got {type(head).__name__} without; "
            'Conv3d layers need structure="full"'
        )
    return head


class _PerPixel(nn.Module):
    """Logits as rows of pixels, (B*N, max(C, 2))."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, features: Tensor) -> Tensor:
        logits = self.head(features)
        logits = logits.movedim(1, -1).flatten(0, -2)
        if logits.shape[1] == 1:
            return torch.cat((torch.zeros_like(logits), logits), 1)
        return logits


class _Pixels:
    """Features and flat labels; laplace-torch asks a loader for its number of observations."""

    def __init__(self, loader: Loader, encoder: Encoder | None, head: nn.Module) -> None:
        parameter = next(head.parameters())
        self._given = (loader, encoder, head, parameter.device, parameter.dtype)
        self.dataset = range(sum(labels.numel() for _, labels in self))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        loader, encoder, head, device, dtype = self._given
        for features, target, mask in encoded(loader, encoder, device):
            if mask is not None:
                raise ValueError(
                    "loader must yield (images, labels) for deep_laplace, got a mask as well; "
                    "crop the images, or take LaplaceHead"
                )
            features = features.to(device, dtype)
            with torch.no_grad():
                logits = head(features[:1])
            count, classes, size = features.shape[0], logits.shape[1], logits.shape[2:]
            yield features, checks.labels_like(target, count, classes, size, None).flatten()


def _eigenvalues(hessian: Any) -> Tensor:
    """Of laplace-torch's matrix or its Kronecker factors, as one vector."""
    if isinstance(hessian, Tensor):
        return torch.linalg.eigvalsh(hessian.double())
    blocks = []
    for factors in hessian.eigenvalues:
        product = factors[0].double()
        for other in factors[1:]:
            product = torch.outer(product, other.double()).flatten()
        blocks.append(product)
    return torch.cat(blocks)
