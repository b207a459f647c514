"""Laplace approximation of a last 1x1 convolution: exact Gauss-Newton, any number of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from . import checks, gauss_newton, posterior
from .encoding import Encoder, Loader, checked, encoded, evaluating
from .held_out import GRID, best_on
from .likelihood import convolution, log_likelihood

MARGINAL = "marginal_likelihood"


class Weights(NamedTuple):
    """Draws of a 1x1 convolution's parameters: (n, C, K, 1, 1[, 1]) and (n, C), or no bias."""

    weight: Tensor
    bias: Tensor | None


class LaplaceHead(nn.Module):
    """Last 1x1 convolution whose weights have a normal posterior around what training found.

    Parameters
    ----------
    in_channels : int
        Channels K of the features.
    classes : int
        1: one logit per pixel, Bernoulli. 2 or more: softmax.
    dims : int, default 2
        Spatial axes: 2 for (B, K, H, W), 3 for (B, K, D, H, W).

    Attributes
    ----------
    conv : torch.nn.Conv2d or torch.nn.Conv3d
        The layer. Neither `fit` nor sampling ever writes to it.
    hessian : torch.Tensor
        (P, P) float64, P = C (K + 1): class after class, each with its bias last.
    precision : float
        tau, of the prior N(0, I / tau) on weights and biases; may be set after `fit`.
    log_likelihood : float
        Of the labels that `fit` saw, at the trained weights.
    fitted : bool
        Whether `fit` has run (or a fitted state was loaded).

    Raises
    ------
    TypeError, ValueError
        When a number is out of its range, or features do not fit.

    Notes
    -----
    Mueller et al., "L-FUSION", section 2; Daxberger et al., "Laplace Redux" (2021), section 3:
    theta ~ N(theta_MAP, (H + tau I)^-1), H = sum_px (diag p - p p^T) (x) phi phi^T with phi the
    features and a constant 1. That is the full generalised Gauss-Newton matrix, of which nothing
    is left out. Train with the weight decay that tau stands for, or let `fit` choose tau.
    The state dict holds the fit; casts (``half()``) leave the Hessian in float64.

    Examples
    --------
    >>> import torch
    >>> from usconf.uncertainty import LaplaceHead
    >>> _ = torch.manual_seed(0)
    >>> head = LaplaceHead(8, classes=1)
    >>> features, labels = torch.randn(4, 8, 16, 16), torch.randint(0, 2, (4, 16, 16))
    >>> head.fit([(features, labels)]).fitted
    True
    >>> head.sample(features, 20).shape, head.variance(features).shape
    (torch.Size([20, 4, 1, 16, 16]), torch.Size([4, 1, 16, 16]))
    """

    hessian: Tensor
    _fit: Tensor

    def __init__(self, in_channels: int, classes: int, dims: int = 2) -> None:
        super().__init__()
        checks.whole("in_channels", in_channels, 1)
        checks.whole("classes", classes, 1)
        self._hold(convolution(checks.dimensions(dims))(in_channels, classes, 1))

    @classmethod
    def of(cls, conv: nn.Conv2d | nn.Conv3d) -> LaplaceHead:
        """A head that holds `conv` itself: a 1x1 convolution of one group and stride 1."""
        if not isinstance(conv, (nn.Conv2d, nn.Conv3d)):
            raise TypeError(
                f"conv must be a Conv2d or Conv3d, got {type(conv).__name__}; "
                "deep_laplace is for other layers"
            )
        ones, zeros = (1,) * len(conv.kernel_size), (0,) * len(conv.kernel_size)
        if conv.kernel_size != ones or conv.groups != 1 or conv.stride != ones:
            raise ValueError(
                f"conv must be 1x1 with stride 1 and one group, got {conv}; "
                "deep_laplace is for other layers"
            )
        if conv.padding not in (zeros, "valid", "same"):
            raise ValueError(f"conv must have no padding, got {conv.padding!r}")
        head = cls.__new__(cls)
        nn.Module.__init__(head)
        head._hold(conv)
        return head

    def _hold(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        self.conv = conv
        self.in_channels, self.classes = conv.in_channels, conv.out_channels
        self.dims = len(conv.kernel_size)
        numbers = self.classes * (self.in_channels + (conv.bias is not None))
        where = conv.weight.device
        self.register_buffer(
            "hessian", torch.zeros(numbers, numbers, dtype=torch.float64, device=where)
        )
        # precision (NaN: not fitted) and log-likelihood.
        self.register_buffer("_fit", torch.full((2,), math.nan, dtype=torch.float64, device=where))
        self._kept: tuple[tuple[Tensor, int, float], tuple[Tensor, list[Tensor]]] | None = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LaplaceHead:
        """Moves with the weights, but does not follow them to another type."""
        kept = self.hessian, self._fit
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.hessian, self._fit = (one.to(self.conv.weight.device) for one in kept)
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B, C, *S) of the trained weights."""
        checks.features_like(features, self.in_channels, self.dims)
        logits: Tensor = self.conv(features)
        return logits

    @property
    def fitted(self) -> bool:
        """Whether there is a posterior."""
        return not bool(self._fit.isnan().any())

    @property
    def precision(self) -> float:
        """The prior's precision tau."""
        return float(self._fit[0])

    @precision.setter
    def precision(self, value: float) -> None:
        self._fitted()
        self._fit[0] = _precision(value)

    @property
    def log_likelihood(self) -> float:
        """ln p(labels) at the trained weights, of the data of `fit`."""
        return float(self._fit[1])

    @torch.no_grad()
    def fit(
        self,
        loader: Loader,
        features: Encoder | None = None,
        *,
        precision: float | str = MARGINAL,
        held_out: Loader | None = None,
        grid: Sequence[float] = GRID,
    ) -> LaplaceHead:
        """Finds the posterior from the training set, in one pass.

        Parameters
        ----------
        loader : iterable
            Yields (images, labels) or (images, labels, mask): images (B, K, *S) are the features
            themselves or what `features` makes them from; labels are class indices (B, *S) or
            (B, 1, *S); pixels outside a mask do not count, and their labels may be anything.
        features : callable, optional
            The frozen encoder: images to (B, K, *S). A module runs in eval mode and has its mode
            back afterwards.
        precision : float or {"marginal_likelihood", "held_out"}, default "marginal_likelihood"
            tau: a number, the one that makes the training labels most likely, or the one of `grid`
            under which the labels of `held_out` are.
        held_out : iterable, optional
            As `loader`, for precision="held_out".
        grid : sequence of float
            What "held_out" chooses from; 1e-4 to 1e4 in 17 steps by default.

        Returns
        -------
        LaplaceHead
            Itself. After an error it is as it was before.

        Raises
        ------
        TypeError, ValueError
            For an empty loader, a class index out of range, features of another size or number of
            channels, features that are not finite, and a Hessian that is singular with this
            precision.

        Notes
        -----
        Memory is that of one batch, H and 64 MiB: it does not grow with the number of images, and
        linearly with their pixels. Sums are float64.
        """
        if not isinstance(precision, str):
            precision = _precision(precision)
        elif precision not in (MARGINAL, "held_out"):
            raise ValueError(
                f'precision must be a number, "{MARGINAL}" or "held_out", got {precision!r}'
            )
        if (precision == "held_out") != (held_out is not None):
            raise ValueError('held_out must be given with precision="held_out", and only then')
        with evaluating(features):
            hessian, likelihood = self._curvature(loader, features)
            if held_out is not None:
                values = [_precision(value) for value in grid]
                precision = best_on(self._batches(held_out, features), self, hessian, values)
        if precision == MARGINAL:
            precision = posterior.best_precision(torch.linalg.eigvalsh(hessian), self._theta())
        assert isinstance(precision, float)
        posterior.factorise(hessian, precision)
        self.hessian.copy_(hessian)
        self._fit.copy_(torch.tensor([precision, likelihood], dtype=torch.float64))
        return self

    def log_marginal_likelihood(self, precision: float | None = None) -> float:
        """ln p(labels) under the Laplace approximation, by tau (its own by default)."""
        self._fitted()
        tau = self.precision if precision is None else _precision(precision)
        if tau == 0:
            raise ValueError("precision must be above 0 for a marginal likelihood, got 0")
        root = posterior.factorise(self.hessian, tau)
        return self.log_likelihood + posterior.Posterior(self._theta(), tau, root).log_evidence()

    def draw(self, n: int, generator: Generator | None = None) -> Weights:
        """n draws of the parameters from the posterior; the layer keeps its own."""
        checks.whole("n", n, 1)
        root, _ = self._roots()
        theta = posterior.Posterior(self._theta(), self.precision, root).draw(n, generator)
        weight = self.conv.weight
        theta = theta.to(weight.dtype).view(n, self.classes, -1)
        shaped = theta[..., : self.in_channels].reshape(n, *weight.shape)
        return Weights(shaped, None if self.conv.bias is None else theta[..., -1])

    @torch.no_grad()
    def sample(self, features: Tensor, n: int, generator: Generator | None = None) -> Tensor:
        """Logits of n draws of the weights, in one convolution.

        Parameters
        ----------
        features : torch.Tensor
            (B, K, *S).
        n : int
            Number of draws; all images of the batch see the same ones.
        generator : torch.Generator, optional
            Source of the noise, on the head's device.

        Returns
        -------
        torch.Tensor
            (n, B, C, *S), without a gradient.
        """
        checks.features_like(features, self.in_channels, self.dims)
        weight, bias = self.draw(n, generator)
        run = F.conv2d if self.dims == 2 else F.conv3d
        logits = run(features, weight.flatten(0, 1), None if bias is None else bias.flatten())
        return logits.unflatten(1, (n, self.classes)).transpose(0, 1)

    @torch.no_grad()
    def variance(self, features: Tensor) -> Tensor:
        """Posterior variance of every logit: phi^T S_cc phi, (B, C, *S), in the features' type."""
        checks.features_like(features, self.in_channels, self.dims)
        bias = self.conv.bias is not None
        # |R phi|^2 with R^T R the class's block of the covariance.
        _, roots = self._roots()
        flat = features.flatten(2)
        result = flat.new_empty((flat.shape[0], self.classes, flat.shape[2]))
        for image, maps in zip(flat, result, strict=True):
            for phi, part in gauss_newton.chunks(image, 3 * roots[0].shape[1]):
                phi = gauss_newton.with_bias(phi, bias)
                for c, triangle in enumerate(roots):
                    maps[c, part] = (triangle @ phi).square_().sum(0)
        return result.view(features.shape[0], self.classes, *features.shape[2:])

    def _batches(
        self, loader: Loader, encoder: Encoder | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Features (B, K, *S), labels (B, *S), mask (B, *S) or None."""
        weight = self.conv.weight
        for features, target, mask in encoded(loader, encoder, weight.device):
            sizes = self.in_channels, self.classes, self.dims
            labels, inside = checked(features, target, mask, *sizes)
            yield features.to(weight.device, weight.dtype), labels, inside

    def _curvature(self, loader: Loader, encoder: Encoder | None) -> tuple[Tensor, float]:
        """H and the log-likelihood over a loader."""
        bias = self.conv.bias is not None
        inputs = self.in_channels + bias
        hessian = self.hessian.new_zeros(self.classes, inputs, self.classes, inputs)
        likelihood = 0.0
        for features, labels, inside in self._batches(loader, encoder):
            for index, image in enumerate(features):
                logits = self.conv(image[None])
                log_p = log_likelihood(logits, labels[index : index + 1])[0]
                valid = None if inside is None else inside[index]
                if valid is not None:
                    log_p = torch.where(valid, log_p, 0.0)
                likelihood += float(log_p.sum(dtype=torch.float64))
                flat = None if valid is None else valid.flatten()
                gauss_newton.add_image(hessian, image.flatten(1), logits[0].flatten(1), flat, bias)
        if not bool(torch.isfinite(hessian).all()) or not math.isfinite(likelihood):
            raise ValueError(
                "features must be finite, got NaN or infinity in the Hessian; leave such pixels "
                "out with a mask"
            )
        return hessian.flatten(2).flatten(0, 1), likelihood

    def _theta(self) -> Tensor:
        """(P,) float64: class after class, each with its bias last."""
        theta = self.conv.weight.detach().double().flatten(1)
        if self.conv.bias is not None:
            theta = torch.cat((theta, self.conv.bias.detach().double()[:, None]), 1)
        return theta.flatten()

    def _roots(self) -> tuple[Tensor, list[Tensor]]:
        """Cholesky factor and the roots of the covariance's blocks, until H or tau change."""
        self._fitted()
        now = (self.hessian, self.hessian._version, self.precision)
        kept = self._kept
        if kept is None or kept[0][0] is not now[0] or kept[0][1:] != now[1:]:
            root = posterior.factorise(self.hessian, self.precision)
            held = posterior.Posterior(self._theta(), self.precision, root)
            kept = self._kept = (now, (root, held.block_roots(self.classes)))
        return kept[1]

    def _fitted(self) -> None:
        if not self.fitted:
            raise RuntimeError("the head must be fitted first: head.fit(loader, encoder)")

    def extra_repr(self) -> str:
        """All settings."""
        return f"classes={self.classes}, dims={self.dims}, fitted={self.fitted}"


def _precision(value: object) -> float:
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"precision must be a finite number of at least 0, got {value!r}")
    return number
