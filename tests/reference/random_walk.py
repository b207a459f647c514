"""Random-walk confidence maps in float64, written for reading: what the fast core is held against.

Karamalis, Wein, Klein, Navab: "Ultrasound confidence maps using random walks", Medical Image
Analysis 16 (2012) 1101-1112, in the form of the authors' MATLAB code and of MONAI >= 1.4.
NumPy and SciPy only; nothing of the package under test.

Steps: `prepare` (normalise, attenuate) -> `edges` -> `weigh` -> `seed` -> `system` -> `solve`,
and `gradient` by one adjoint solve with the same matrix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import fft, sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

EPS = np.finfo(np.float64).eps

# variant -> (edges that carry gamma, floor of the weights)
VARIANTS = {None: ("slanted", 1e-5), "monai_1_3": ("vertical", 1e-6)}


class Prepared(NamedTuple):
    """(H, W) `intensity` in [0, 1] (RF: its envelope), (H, 1) `attenuation`, their product."""

    intensity: np.ndarray
    attenuation: np.ndarray
    weighted: np.ndarray
    valid: np.ndarray


class Edges(NamedTuple):
    """Flat pixel indices of the two ends of each edge; True where the edge is vertical."""

    first: np.ndarray
    second: np.ndarray
    vertical: np.ndarray


class Weights(NamedTuple):
    """`weight` = `decay` + floor per edge, with the intermediate differences of steps 3 to 5."""

    weight: np.ndarray
    decay: np.ndarray
    raw: np.ndarray
    penalised: np.ndarray
    scaled: np.ndarray


class System(NamedTuple):
    """`matrix` x = `rhs` for the pixels `unknown`; `seeds` holds the values known beforehand."""

    matrix: sparse.csr_matrix
    rhs: np.ndarray
    unknown: np.ndarray
    seeds: np.ndarray


class Gradient(NamedTuple):
    """Derivatives of a scalar loss."""

    image: np.ndarray
    alpha: float
    beta: float
    gamma: float


def quadrature(signal):
    """Imaginary part of the analytic signal along axis 0; minus its own transpose as a matrix."""
    rows = signal.shape[0]
    turn = -1j * np.sign(fft.fftfreq(rows))
    if rows % 2 == 0:
        turn[rows // 2] = 0
    return fft.ifft(fft.fft(signal, axis=0) * turn[:, None], axis=0).real


def depth(rows):
    """(H, 1) depth from 0 to 1; a single row is at depth 0."""
    return np.arange(rows, dtype=np.float64)[:, None] / max(rows - 1, 1)


def prepare(image, alpha=2.0, mode="B", mask=None):
    """Steps 1 and 2: intensities, attenuation and their product, invalid pixels set to 0."""
    image = np.asarray(image, dtype=np.float64)
    valid = np.ones(image.shape, bool) if mask is None else np.asarray(mask) != 0
    intensity = np.zeros(image.shape)
    if valid.any():
        low, high = image[valid].min(), image[valid].max()
        intensity[valid] = (image[valid] - low) / ((high - low) + EPS)
    if mode == "RF":
        intensity = np.where(valid, np.hypot(intensity, quadrature(intensity)), 0.0)
    attenuation = 1.0 - np.exp(-alpha * depth(image.shape[0]))
    return Prepared(intensity, attenuation, intensity * attenuation, valid)


def edges(valid):
    """Step 3: the 8-neighbour edges between valid pixels, each once."""
    rows, columns = valid.shape
    index = np.arange(rows * columns).reshape(rows, columns)
    above, below, left, right = slice(None, -1), slice(1, None), slice(None, -1), slice(1, None)
    both = slice(None)
    ends = [
        (index[above], index[below]),
        (index[both, left], index[both, right]),
        (index[above, left], index[below, right]),
        (index[above, right], index[below, left]),
    ]
    vertical = np.repeat([True, False, False, False], [a.size for a, _ in ends])
    first = np.concatenate([a.ravel() for a, _ in ends])
    second = np.concatenate([b.ravel() for _, b in ends])
    inside = valid.ravel()[first] & valid.ravel()[second]
    return Edges(first[inside], second[inside], vertical[inside])


def weigh(weighted, links, beta=90.0, gamma=0.05, variant=None):
    """Steps 3 to 5: from differences of attenuated intensities to edge weights."""
    place, floor = VARIANTS[variant]
    flat = weighted.ravel()
    raw = np.abs(flat[links.first] - flat[links.second])
    carries = links.vertical if place == "vertical" else ~links.vertical
    penalised = raw / (raw.max(initial=0.0) + EPS) + np.where(carries, gamma, 0.0)
    scaled = penalised / (penalised.max(initial=0.0) + EPS)
    decay = np.exp(-beta * scaled)
    return Weights(decay + floor, decay, raw, penalised, scaled)


def seed(intensity, valid, sink="all", sink_mask=None):
    """Step 7: +1 at sources, -1 at sinks, 0 elsewhere.

    The first valid pixel of a column is its source, the last one stands for the last row.
    """
    rows, columns = valid.shape
    across = np.flatnonzero(valid.any(axis=0))
    top = valid.argmax(axis=0)[across]
    bottom = rows - 1 - valid[::-1].argmax(axis=0)[across]
    kind = np.zeros(valid.shape, np.int8)
    if sink == "all":
        kind[bottom, across] = -1
    elif sink == "mid":
        chosen = across == columns // 2
        kind[bottom[chosen], across[chosen]] = -1
    elif sink == "min":
        margin = int(0.1 * columns)
        inner = (across >= margin) & (across < columns - margin)
        values = intensity[bottom[inner], across[inner]]
        lowest = values == values.min(initial=np.inf)
        kind[bottom[inner][lowest], across[inner][lowest]] = -1
    elif sink == "mask":
        kind[(np.asarray(sink_mask) != 0) & valid] = -1
    else:
        raise ValueError(f"no such sink: {sink!r}")
    kind[top, across] = 1
    return kind


def reachable(valid, links, kind):
    """Valid pixels that are no seeds and whose 8-connected piece holds a source."""
    size = valid.size
    graph = sparse.coo_matrix(
        (np.ones(links.first.size), (links.first, links.second)), shape=(size, size)
    )
    _, piece = csgraph.connected_components(graph, directed=False)
    lit = np.isin(piece, piece[kind.ravel() == 1])
    return np.flatnonzero(valid.ravel() & (kind.ravel() == 0) & lit)


def assemble(image, alpha, beta, gamma, mode, sink, sink_mask, mask, variant):
    """All that `system`, `solve` and `gradient` share."""
    prepared = prepare(image, alpha, mode, mask)
    links = edges(prepared.valid)
    weights = weigh(prepared.weighted, links, beta, gamma, variant)
    kind = seed(prepared.intensity, prepared.valid, sink, sink_mask)
    size = kind.size
    ends = (np.r_[links.first, links.second], np.r_[links.second, links.first])
    coupling = sparse.csr_matrix((np.r_[weights.weight, weights.weight], ends), shape=(size, size))
    unknown = reachable(prepared.valid, links, kind)
    laplacian = (sparse.diags(np.asarray(coupling.sum(axis=1)).ravel()) - coupling).tocsr()
    known = (kind == 1).astype(np.float64)
    solved = System(
        laplacian[unknown][:, unknown].tocsr(),
        coupling[unknown] @ known.ravel(),
        unknown,
        known,
    )
    return prepared, links, weights, solved


def factorise(matrix):
    """Sparse LU of a symmetric M-matrix: no pivoting wanted, fill reduced on A + A^T."""
    return splu(
        matrix.tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )


def potentials(links, weights, solved, factor):
    """Flat map: one solve and one refinement whose residual is a sum of edge flows."""
    values = solved.seeds.ravel().copy()
    values[solved.unknown] = factor.solve(solved.rhs)
    flow = weights.weight * (values[links.second] - values[links.first])
    residual = np.bincount(links.first, flow, values.size)
    residual -= np.bincount(links.second, flow, values.size)
    values[solved.unknown] += factor.solve(residual[solved.unknown])
    return values


def system(
    image, *, alpha=2.0, beta=90.0, gamma=0.05, mode="B", sink="all", sink_mask=None, mask=None,
    variant=None,
):  # fmt: skip
    """The linear system of one (H, W) frame."""
    return assemble(image, alpha, beta, gamma, mode, sink, sink_mask, mask, variant)[3]


def solve(
    image, *, alpha=2.0, beta=90.0, gamma=0.05, mode="B", sink="all", sink_mask=None, mask=None,
    variant=None,
):  # fmt: skip
    """The float64 confidence map of one (H, W) frame."""
    _, links, weights, solved = assemble(
        image, alpha, beta, gamma, mode, sink, sink_mask, mask, variant
    )
    if solved.unknown.size == 0:
        return solved.seeds
    return potentials(links, weights, solved, factorise(solved.matrix)).reshape(solved.seeds.shape)


def share(values, extreme):
    """What torch.amax and torch.amin pass back: equal shares to all that attain the extreme."""
    attained = values == extreme
    return attained / attained.sum()


def gradient(
    image, grad_out, *, alpha=2.0, beta=90.0, gamma=0.05, mode="B", sink="all", sink_mask=None,
    mask=None, variant=None,
):  # fmt: skip
    """Derivatives of sum(grad_out * map) with respect to image, alpha, beta and gamma."""
    image = np.asarray(image, dtype=np.float64)
    prepared, links, weights, solved = assemble(
        image, alpha, beta, gamma, mode, sink, sink_mask, mask, variant
    )
    if solved.unknown.size == 0:
        return Gradient(np.zeros(image.shape), 0.0, 0.0, 0.0)
    factor = factorise(solved.matrix)
    values = potentials(links, weights, solved, factor)
    adjoint = np.zeros(values.size)
    upstream = np.asarray(grad_out, dtype=np.float64).ravel()[solved.unknown]
    adjoint[solved.unknown] = factor.solve(upstream)
    adjoint[solved.unknown] += factor.solve(upstream - solved.matrix @ adjoint[solved.unknown])
    d_weight = -(adjoint[links.first] - adjoint[links.second])
    d_weight *= values[links.first] - values[links.second]

    d_raw, d_beta, d_gamma = gradient_of_weights(d_weight, links, weights, beta, variant)
    flat = prepared.weighted.ravel()
    d_raw = d_raw * np.sign(flat[links.first] - flat[links.second])
    d_weighted = np.bincount(links.first, d_raw, flat.size)
    d_weighted -= np.bincount(links.second, d_raw, flat.size)
    d_weighted = d_weighted.reshape(image.shape)
    t = depth(image.shape[0])
    d_alpha = float((d_weighted * prepared.intensity * t * np.exp(-alpha * t)).sum())
    d_image = gradient_of_intensity(d_weighted * prepared.attenuation, image, prepared.valid, mode)
    return Gradient(d_image, d_alpha, d_beta, d_gamma)


def gradient_of_weights(d_weight, links, weights, beta, variant):
    """Back through steps 3 to 5: to the raw differences, beta and gamma."""
    d_beta = float(-(d_weight * weights.scaled * weights.decay).sum())
    d_scaled = -beta * weights.decay * d_weight
    highest = weights.penalised.max()
    d_penalised = d_scaled / (highest + EPS)
    d_highest = -(d_scaled * weights.penalised).sum() / (highest + EPS) ** 2
    d_penalised = d_penalised + d_highest * share(weights.penalised, highest)
    carries = links.vertical if VARIANTS[variant][0] == "vertical" else ~links.vertical
    d_gamma = float(d_penalised[carries].sum())
    highest = weights.raw.max()
    d_raw = d_penalised / (highest + EPS)
    d_highest = -(d_penalised * weights.raw).sum() / (highest + EPS) ** 2
    return d_raw + d_highest * share(weights.raw, highest), d_beta, d_gamma


def gradient_of_intensity(d_intensity, image, valid, mode):
    """Back through step 1: envelope (RF) and min-max normalisation over the valid pixels."""
    low, high = image[valid].min(), image[valid].max()
    width = (high - low) + EPS
    if mode == "RF":
        real = np.where(valid, (np.where(valid, image, low) - low) / width, 0.0)
        imaginary = quadrature(real)
        modulus = np.hypot(real, imaginary)
        slope = np.divide(d_intensity, modulus, out=np.zeros(image.shape), where=modulus > 0)
        slope = np.where(valid, slope, 0.0)
        d_intensity = slope * real - quadrature(slope * imaginary)
    inside, source = image[valid], d_intensity[valid]
    d_width = -(source * (inside - low)).sum() / width**2
    d_low = -source.sum() / width - d_width
    d_image = np.zeros(image.shape)
    d_image[valid] = source / width + d_width * share(inside, high) + d_low * share(inside, low)
    return d_image


def homogeneous(shape):
    """Closed form where no difference survives (constant image, or alpha = 0), sinks `all`.

    All weights of one kind are equal, so the potential falls by the same step in every row.
    """
    rows, columns = shape
    return np.repeat(1.0 - depth(rows), columns, axis=1)


def chain(image, *, alpha=2.0, beta=90.0, gamma=0.05, variant=None):
    """Closed form for one scanline, (H, 1): conductors in series between source and sink."""
    prepared = prepare(image, alpha)
    weights = weigh(prepared.weighted, edges(prepared.valid), beta, gamma, variant)
    resistance = np.r_[0.0, np.cumsum(1.0 / weights.weight)]
    return (1.0 - resistance / resistance[-1])[:, None]
