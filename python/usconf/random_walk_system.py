"""The sparse linear system of the random walk, for people with their own solver."""

from __future__ import annotations

from importlib import import_module
from typing import Any, NamedTuple

from . import arrays, seeds
from .random_walk import Preset, check_choices, enter, inspect, number, resolve
from .walk import Walk


class System(NamedTuple):
    """``matrix @ x = rhs`` for the pixels `unknown` of a frame; `seeds` holds the known values."""

    matrix: Any
    rhs: Any
    unknown: Any
    seeds: Any


def random_walk_system(
    image: Any,
    *,
    alpha: Any = None,
    beta: Any = None,
    gamma: Any = None,
    preset: str = "monai",
    variant: str | None = None,
    mode: str = "B",
    sink: str = "all",
    sink_mask: Any = None,
    mask: Any = None,
    nan: str = "raise",
    axes: str | None = None,
    dtype: Any = None,
) -> System:
    """The linear system whose solution is the random-walk map of one frame.

    Parameters
    ----------
    image : numpy.ndarray or cupy.ndarray
        One frame (H, W), (1, H, W) or (1, 1, H, W), or another layout through `axes`.
    alpha, beta, gamma, preset, variant, mode, sink, sink_mask, mask, nan, axes
        As in `usconf.random_walk`, with the same defaults.
    dtype : float32 or float64, optional
        Of the matrix, the right-hand side and the seeds; default float64. Beware: a matrix
        rounded to float32 has a map that errs by 1e-3, its row sums cancel.

    Returns
    -------
    System
        matrix : CSR, (U, U), scipy.sparse or cupyx.scipy.sparse, symmetric positive definite;
        rhs : (U,), the weights to source pixels;
        unknown : (U,) int64, row-major indices into the (H, W) frame;
        seeds : (H, W), 1 at sources, 0 elsewhere.
        ``map = seeds.copy(); map.flat[unknown] = x`` is the map.

    Raises
    ------
    TypeError
        As `usconf.random_walk`, and for torch tensors.
    ValueError
        As `usconf.random_walk`, and for more than one frame.

    Notes
    -----
    Karamalis et al., Medical Image Analysis 16 (2012) 1101-1112: L_UU x = -B^T m of the random
    walker, with weights exp(-beta d) + 1e-5. Valid pixels that no path connects with a source
    are 0 and no unknowns.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> from scipy.sparse.linalg import spsolve
    >>> image = np.random.default_rng(0).integers(0, 256, (32, 24), dtype=np.uint8)
    >>> matrix, rhs, unknown, seeds = usconf.random_walk_system(image)
    >>> seeds.flat[unknown] = spsolve(matrix, rhs)
    >>> bool(abs(seeds - usconf.random_walk(image)).max() < 1e-6)
    True
    """
    check_choices(variant=variant, mode=mode, sink=sink, nan=nan)
    if arrays.kind(image) == "torch":
        raise TypeError(
            "image must be a NumPy or CuPy array, got a torch tensor; pass image.numpy() or "
            "cupy.from_dlpack(image)"
        )
    parameters = resolve(preset, alpha=alpha, beta=beta, gamma=gamma)
    alpha, beta, gamma = (number(*named) for named in zip(Preset._fields, parameters, strict=True))
    door = enter(image, mask, sink, sink_mask, axes, "float64" if dtype is None else dtype)
    if door.image.shape[0] != 1:
        raise ValueError(
            f"image must be one frame, got {door.image.shape[0]} in shape {tuple(image.shape)}; "
            "loop over the frames"
        )
    walk = Walk(door.image, alpha, beta, gamma, variant, sink, dtype=door.dtype)
    walk = inspect(walk, door.mask, door.sink_mask, mode, nan)
    labels = walk.labels
    if labels is None:
        labels = seeds.first_and_last(door.image)
    return _assemble(walk.edges()[0], labels[0], door.dtype)


def _assemble(edges: Any, labels: Any, dtype: str) -> System:
    """edges (4, H, W): right, below, below-right, below-left; labels (H, W)."""
    xp = arrays.namespace(edges)
    height, width = labels.shape
    weights = _stencil(xp, edges)
    unknown = xp.flatnonzero(_lit(labels) & (labels == seeds.FREE))
    rank = xp.full(height * width, -1, "int64")
    rank[unknown] = xp.arange(unknown.size)
    steps = xp.asarray([dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)])
    # A weight of 0 marks the edges that leave the image, whose far end is clipped to any pixel.
    weights = weights.reshape(height * width, 9)[unknown]
    ends = xp.clip(unknown[:, None] + steps, 0, height * width - 1)
    source = (labels == seeds.SOURCE).reshape(-1)
    rhs = xp.where(source[ends], weights, 0.0).sum(axis=1)
    entries = -weights
    entries[:, 4] = weights.sum(axis=1)
    inside = (rank[ends] >= 0) & (entries != 0)
    starts = xp.concatenate([xp.zeros(1, "int64"), xp.cumsum(inside.sum(axis=1))])
    package = "scipy.sparse" if arrays.kind(edges) == "numpy" else "cupyx.scipy.sparse"
    matrix = import_module(package).csr_matrix(
        (entries[inside].astype(dtype), rank[ends][inside], starts),
        shape=(unknown.size, unknown.size),
    )
    known = source.reshape(height, width).astype(dtype)
    return System(matrix, rhs.astype(dtype), unknown, known)


def _stencil(xp: Any, edges: Any) -> Any:
    """(H, W, 9) weights from each pixel to its neighbours in row-major order, 0 to itself."""
    right, below, below_right, below_left = xp.pad(edges, ((0, 0), (1, 1), (1, 1)))
    here = (slice(1, -1), slice(1, -1))
    up, left = (slice(0, -2), slice(1, -1)), (slice(1, -1), slice(0, -2))
    up_left, up_right = (slice(0, -2), slice(0, -2)), (slice(0, -2), slice(2, None))
    around = [below_right[up_left], below[up], below_left[up_right], right[left]]
    around += [xp.zeros_like(right[here])]
    around += [right[here], below_left[here], below[here], below_right[here]]
    return xp.stack(around, axis=-1)


def _lit(labels: Any) -> Any:
    """Valid pixels whose 8-connected piece holds a source."""
    xp = arrays.namespace(labels)
    valid = labels != seeds.OUTSIDE
    package = "scipy.ndimage" if arrays.kind(labels) == "numpy" else "cupyx.scipy.ndimage"
    piece, _ = import_module(package).label(valid, structure=xp.ones((3, 3)))
    return valid & xp.isin(piece, piece[labels == seeds.SOURCE])
