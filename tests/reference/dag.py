"""DAG confidence maps in float64, written for reading: what the fast core is held against.

Hung, Chen, Galeotti: "Ultrasound confidence maps of intensity and structure based on directed
acyclic graphs and artifact models", ISBI 2021 (arXiv 2011.11956).
NumPy only; nothing of the package under test.

Every array over edges is (H-1, W, 2R+1): row r, child column c, parent slot k. The edge [r, c, k]
leads from the parent (r, m(c+k-R)) to the child (r+1, c); m mirrors columns symmetrically.
Steps: `normalise` -> `edges` (who is compared with whom) -> `relative` -> `weigh` -> `sweep`;
`gradient` is the reverse sweep.

Where the paper leaves something open
* masks: an edge exists where both its ends are valid. A row mean (one per row and slot) is over
  existing edges, 1 without any. g is renormalised over the existing edges of a child. A valid pixel
  with no valid pixel above it, anywhere in its column, is a source; its incoming edges, if there
  are any, still count in the row means. Any other valid pixel without existing edges is 0.
* structural: sources are clamped as well (C = min(1, ref)); C / ref is 0 where ref is 0. The clamp
  passes gradient where C < ref strictly.
* needle, artifact: their planes are indexed by [r, c] of the edge arrays, as published; so the
  artifact's last row matters for the output's factor only. "max over the whole D" is over the
  existing edges of one frame. The order of the output is (C / ref) (1 - artifact).
* W < 2R+1: m mirrors repeatedly. hung2021: whatever lies outside is flipped vertically.
* one row: all valid pixels are sources, no parameter matters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

EPS = np.finfo(np.float64).eps
FLOOR = 1e-4


class Edges(NamedTuple):
    """Flat pixel indices (H-1, W, K): `parent`; `one` and `other`, whose values are compared."""

    parent: np.ndarray
    one: np.ndarray
    other: np.ndarray
    exists: np.ndarray


class Relative(NamedTuple):
    """`difference` D; `mean` (H-1, 1, K); `value` of rel; where rel is `top` or a `constant`."""

    difference: np.ndarray
    mean: np.ndarray
    value: np.ndarray
    top: np.ndarray
    constant: np.ndarray


class Weights(NamedTuple):
    """Edge weights `w` = `beam` exp(-`exponent`); `slope` = d log beam / d var."""

    w: np.ndarray
    beam: np.ndarray
    slope: np.ndarray
    exponent: np.ndarray
    x: float
    depth: np.ndarray


class Gradient(NamedTuple):
    """Derivatives of a scalar loss."""

    image: np.ndarray
    xi: float
    alpha: float
    var: float
    power: float


def mirror(index, size):
    """Symmetric mirror into 0..size-1: -1 -> 0, size -> size - 1, repeatedly."""
    index = np.mod(index, 2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def normalise(image, valid):
    """Min-max over the valid pixels to [0, 1]; 0 elsewhere."""
    f = np.zeros(image.shape)
    if valid.any():
        low, high = image[valid].min(), image[valid].max()
        f[valid] = (image[valid] - low) / ((high - low) + EPS)
    return f


def edges(valid, half_width, variant):
    """Who is whose parent, and the two pixels whose values an edge compares."""
    height, width = valid.shape
    rows = np.arange(height - 1)[:, None, None]
    columns = np.arange(width)[None, :, None]
    shift = np.arange(2 * half_width + 1)[None, None, :] - half_width
    flat = np.arange(height * width).reshape(height, width)
    parent = flat[rows, mirror(columns + shift, width)]
    child = flat[rows + 1, columns]
    exists = valid.ravel()[parent] & valid.ravel()[child]
    if variant is None:
        return Edges(parent, parent, np.broadcast_to(child, parent.shape), exists)
    across = columns - shift
    outside = (across < 0) | (across >= width)
    other = flat[np.where(outside, height - 1 - rows, rows + 1), mirror(across, width)]
    one = np.broadcast_to(flat[rows, columns], parent.shape)
    return Edges(parent, one, other, exists)


def relative(f, links, needle=None, artifact=None):
    """D, its row means, and the relative gradient with the needle's and the artifact's rules."""
    difference = np.abs(f.ravel()[links.one] - f.ravel()[links.other]) + FLOOR
    count = links.exists.sum(axis=1, keepdims=True)
    total = np.where(links.exists, difference, 0.0).sum(axis=1, keepdims=True)
    mean = np.where(count > 0, total / np.maximum(count, 1), 1.0)
    value = difference / mean
    top = np.zeros(difference.shape, bool)
    constant = np.zeros(difference.shape, bool)
    if needle is not None:
        inside = np.pad((np.asarray(needle) > 0.9).astype(int), ((1, 1), (0, 0)))
        edge = (inside[2:] - inside[:-2]) > 0.1
        top |= edge[:-1, :, None]
        highest = difference[links.exists].max(initial=0.0)
        value = np.where(top, highest / mean, value)
    if artifact is not None:
        constant |= (np.asarray(artifact) > 0.05)[:-1, :, None]
        value = np.where(constant, 1.0, value)
        top &= ~constant
    return Relative(difference, mean, value, top, constant)


def beam_weights(exists, var, half_width, variant):
    """g per edge (renormalised over existing ones, or as published), and d log g / d var."""
    k = np.arange(2 * half_width + 1) - half_width
    bell = np.exp(-(k**2) / (2.0 * var))
    slope = k**2 / (2.0 * var**2)
    if variant is not None:
        part = np.ones(k.size)
        part[[0, -1]] -= 0.5
        if half_width == 0:
            part[:] = 1.0  # the integral of a single sample is 0
        total = (part * bell).sum()
        mean_slope = (part * bell * slope).sum() / total
        shape = exists.shape
        return np.broadcast_to(bell / total, shape), np.broadcast_to(slope - mean_slope, shape)
    total = np.where(exists, bell, 0.0).sum(axis=2, keepdims=True)
    safe = np.where(total > 0, total, 1.0)
    mean_slope = np.where(exists, bell * slope, 0.0).sum(axis=2, keepdims=True) / safe
    return np.where(exists, bell, 0.0) / safe, slope - mean_slope


def weigh(rel, links, height, xi, alpha, var, power, half_width, variant):
    """The weight of every edge."""
    row = np.arange(height - 1)
    depth = np.exp(-alpha * (row + 2) / height)
    x = -np.log(xi) / depth.sum() if height > 1 else 0.0
    beam, slope = beam_weights(links.exists, var, half_width, variant)
    with np.errstate(over="ignore"):
        exponent = rel.value**power * (x * depth)[:, None, None]
    return Weights(beam * np.exp(-exponent), beam, slope, exponent, x, depth)


def sources(valid):
    """The first valid pixel of every column."""
    return valid & (np.cumsum(valid, axis=0) == 1)


def sweep(w, links, valid, reference=None):
    """Row by row downwards: (clamped C, C before the clamp)."""
    height, width = valid.shape
    starts = sources(valid)
    free = np.zeros((height, width))
    clamped = np.zeros((height, width))
    for r in range(height):
        if r > 0:
            above = clamped.ravel()[links.parent[r - 1]]
            free[r] = np.where(valid[r], (w[r - 1] * above).sum(axis=1), 0.0)
        free[r, starts[r]] = 1.0
        clamped[r] = free[r] if reference is None else np.minimum(free[r], reference[r])
    return clamped, free


def output_scale(shape, reference=None, artifact=None):
    """What C is multiplied with: (1 - artifact) / ref, 0 where ref is 0."""
    scale = np.ones(shape)
    if reference is not None:
        reference = np.asarray(reference, np.float64)
        safe = np.where(reference > 0, reference, 1.0)
        scale *= np.where(reference > 0, 1.0 / safe, 0.0)[:, None]
    if artifact is not None:
        scale *= 1.0 - np.asarray(artifact, np.float64)
    return scale


def assemble(image, xi, alpha, var, power, half_width, variant, scaled, mask, needle, artifact):
    """All that `confidence` and `gradient` share."""
    image = np.asarray(image, np.float64)
    valid = np.ones(image.shape, bool) if mask is None else np.asarray(mask) != 0
    image = np.where(valid, image, 0.0)
    f = normalise(image, valid) if variant is None and not scaled else image
    links = edges(valid, half_width, variant)
    rel = relative(f, links, needle, artifact)
    weights = weigh(rel, links, image.shape[0], xi, alpha, var, power, half_width, variant)
    return image, valid, f, links, rel, weights


def confidence(
    image, *, xi=0.1, alpha=1.0, var=8.0, power=1.0, half_width=10, variant=None, scaled=False,
    mask=None, reference=None, needle=None, artifact=None,
):  # fmt: skip
    """The float64 map of one (H, W) frame.

    reference: (H,) of `reference_rows`. scaled: the image is f already (the core's normalise =
    False); hung2021 always takes it as given.
    """
    _, valid, _, links, _, weights = assemble(
        image, xi, alpha, var, power, half_width, variant, scaled, mask, needle, artifact
    )
    clamped, _ = sweep(weights.w, links, valid, reference)
    return clamped * output_scale(valid.shape, reference, artifact)


def reference_rows(reference_map):
    """(H,) largest confidence of each row of a reference image's map."""
    return np.asarray(reference_map, np.float64).max(axis=1)


def gradient(
    image, grad_out, *, xi=0.1, alpha=1.0, var=8.0, power=1.0, half_width=10, variant=None,
    scaled=False, mask=None, reference=None, needle=None, artifact=None,
):  # fmt: skip
    """Derivatives of sum(grad_out * map) with respect to image, xi, alpha, var and power."""
    image, valid, f, links, rel, weights = assemble(
        image, xi, alpha, var, power, half_width, variant, scaled, mask, needle, artifact
    )
    height = image.shape[0]
    clamped, free = sweep(weights.w, links, valid, reference)
    d_output = np.asarray(grad_out, np.float64) * output_scale(valid.shape, reference, artifact)
    d_weight = reverse_sweep(weights.w, links, valid, d_output, clamped, free, reference)

    d_var = float((d_weight * weights.w * weights.slope)[links.exists].sum())
    # An exponent that overflows has w = 0: such an edge is flat.
    exponent = np.where(weights.w > 0, weights.exponent, 0.0)
    d_exponent = -d_weight * weights.w
    d_power = float((d_exponent * exponent * np.log(rel.value)).sum())
    per_row = (d_exponent * exponent).sum(axis=(1, 2))  # by log(x depth)
    d_log_x = float(per_row.sum())
    d_xi = d_log_x / (xi * np.log(xi)) if xi < 1 else limit_at_one(d_exponent, rel, power, weights)
    reach = (np.arange(height - 1) + 2) / height
    mean_reach = (reach * weights.depth).sum() / weights.depth.sum() if height > 1 else 0.0
    d_alpha = float((per_row * (mean_reach - reach)).sum())
    d_rel = np.where(rel.constant, 0.0, d_exponent * exponent * power / rel.value)
    d_f = through_relative(d_rel, f, links, rel)
    plain = scaled or variant is not None
    d_image = np.where(valid, d_f, 0.0) if plain else through_normalise(d_f, image, valid)
    return Gradient(d_image, float(d_xi), d_alpha, d_var, d_power)


def limit_at_one(d_exponent, rel, power, weights):
    """d / d xi at xi = 1, where x = 0 and the logarithmic derivative is of no use."""
    if weights.depth.size == 0:
        return 0.0
    by_x = (d_exponent * rel.value**power * weights.depth[:, None, None]).sum()
    return -by_x / weights.depth.sum()


def reverse_sweep(w, links, valid, d_output, clamped, free, reference):
    """d loss / d w of every edge: lam runs upwards, folding the mirrored ends back."""
    height, width = valid.shape
    starts = sources(valid)
    d_weight = np.zeros(w.shape)
    lam = d_output.copy()
    for r in range(height - 2, -1, -1):
        passes = valid[r + 1] & ~starts[r + 1]
        if reference is not None:
            passes &= free[r + 1] < reference[r + 1]
        above = np.where(passes, lam[r + 1], 0.0)[:, None]
        d_weight[r] = above * clamped.ravel()[links.parent[r]]
        onto = links.parent[r] - r * width
        lam[r] += np.bincount(onto.ravel(), (w[r] * above).ravel(), width)
    return np.where(links.exists, d_weight, 0.0)


def share(values, extreme):
    """What torch.amax and torch.amin pass back: equal shares to all that attain the extreme."""
    attained = values == extreme
    return attained / attained.sum()


def through_relative(d_rel, f, links, rel):
    """Back through rel = D / mean (needle: max D / mean) and D to f."""
    count = np.maximum(links.exists.sum(axis=1, keepdims=True), 1)
    d_rel = np.where(links.exists, d_rel, 0.0)
    d_difference = np.where(rel.top, 0.0, d_rel / rel.mean)
    d_mean = -(d_rel * rel.value).sum(axis=1, keepdims=True) / rel.mean
    d_difference += np.where(links.exists, d_mean / count, 0.0)
    if rel.top.any():
        inside = rel.difference[links.exists]
        d_highest = (d_rel / rel.mean)[rel.top].sum()
        d_difference[links.exists] += d_highest * share(inside, inside.max())
    d_difference *= np.sign(f.ravel()[links.one] - f.ravel()[links.other])
    d_f = np.bincount(links.one.ravel(), d_difference.ravel(), f.size)
    d_f -= np.bincount(links.other.ravel(), d_difference.ravel(), f.size)
    return d_f.reshape(f.shape)


def through_normalise(d_f, image, valid):
    """Back through the min-max normalisation over the valid pixels."""
    d_image = np.zeros(image.shape)
    if not valid.any():
        return d_image
    inside, source = image[valid], d_f[valid]
    low, high = inside.min(), inside.max()
    width = (high - low) + EPS
    d_width = -(source * (inside - low)).sum() / width**2
    d_low = -source.sum() / width - d_width
    d_image[valid] = source / width + d_width * share(inside, high) + d_low * share(inside, low)
    return d_image
