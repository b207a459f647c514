"""The annotation model of Ronchetti et al., 'Beyond Shadows', equations 2-6, in float64.

Everything is written as loops over whole planes of (..., H, W), straight from the formulas: x is
the confidence, y the label (0 None, 1 Good, 2 Bad), l = ln x. Logits z give x = sigmoid(z).
"""

from __future__ import annotations

import math

import numpy as np

LN_BETA = 2 * math.lgamma(1.1) - math.lgamma(2.2)
LN_5 = np.log(5.0)


def logs(value, logits):
    """ln x and ln(1 - x)."""
    value = np.asarray(value, np.float64)
    if logits:
        return -np.logaddexp(0, -value), -np.logaddexp(0, value)
    return np.log(value), np.log1p(-value)


def plane(mask, shape):
    return np.ones(shape, bool) if mask is None else np.broadcast_to(mask != 0, shape)


def terms(
    value, labels, *, gamma=75.0, s=3 / 2560, sigma=0.25, weights=(1, 1, 1), constants=False,
    logits=False, mask=None,
):  # fmt: skip
    """Maps (unary, vertical, horizontal) of (..., H, W); a pair stands at its lower, right end."""
    valid = plane(mask, np.shape(value))
    value = np.where(valid, value, 0.0 if logits else 0.5)
    log_x, log_rest = logs(value, logits)
    x = np.exp(log_x)
    unary = np.choose(
        labels,
        [
            constants * LN_BETA - 0.1 * (log_x + log_rest),
            -constants * LN_5 - 4 * log_x,
            -constants * LN_5 - 4 * log_rest,
        ],
    )
    unary = np.where(valid, np.choose(labels, weights) * unary, 0.0)
    vertical, horizontal = np.zeros(x.shape), np.zeros(x.shape)
    rise = np.maximum(0, log_x[..., 1:, :] - log_x[..., :-1, :] + s)
    vertical[..., 1:, :] = gamma * rise * (valid[..., 1:, :] & valid[..., :-1, :])
    step = (x[..., 1:] - x[..., :-1]) ** 2
    horizontal[..., 1:] = sigma * step * (valid[..., 1:] & valid[..., :-1])
    return unary, vertical, horizontal


def parts(value, labels, *, reduction="mean", **given):
    """(unary, vertical, horizontal), summed or divided by the number of valid pixels."""
    count = plane(given.get("mask"), np.shape(value)).sum()
    by = max(count, 1) if reduction == "mean" else 1
    return tuple(term.sum() / by for term in terms(value, labels, **given))


def gradient(
    value, labels, *, gamma=75.0, s=3 / 2560, sigma=0.25, weights=(1, 1, 1), constants=False,
    logits=False, mask=None, upstream=None,
):  # fmt: skip
    """Derivative of sum(upstream * map) by x, or by z for logits; 0 at the hinge's kink."""
    valid = plane(mask, np.shape(value))
    value = np.where(valid, value, 0.0 if logits else 0.5)
    u = np.ones(value.shape) if upstream is None else np.asarray(upstream, np.float64)
    log_x, log_rest = logs(value, logits)
    x, rest = np.exp(log_x), np.exp(log_rest)
    d_log, d_log_rest, d_x = (
        (rest, -x, x * rest) if logits else (1 / x, -1 / rest, np.ones(x.shape))
    )
    good, bad = (weights[1] * (labels == 1)), (weights[2] * (labels == 2))
    none = weights[0] * (labels == 0)
    d = u * ((-0.1 * none - 4 * good) * d_log + (-0.1 * none - 4 * bad) * d_log_rest)
    rise = log_x[..., 1:, :] - log_x[..., :-1, :] + s
    pull = gamma * u[..., 1:, :] * ((rise > 0) & valid[..., 1:, :] & valid[..., :-1, :])
    d[..., 1:, :] += pull * d_log[..., 1:, :]
    d[..., :-1, :] -= pull * d_log[..., :-1, :]
    pull = 2 * sigma * u[..., 1:] * (x[..., 1:] - x[..., :-1]) * (valid[..., 1:] & valid[..., :-1])
    d[..., 1:] += pull * d_x[..., 1:]
    d[..., :-1] -= pull * d_x[..., :-1]
    return np.where(valid, d, 0.0)


def scanline_optimum(labels, *, gamma=75.0, s=3 / 2560, weights=(1, 1, 1)):
    """The l = ln x of (H,) that minimises the energy of one scanline with sigma = 0.

    The energy is convex in l, and each pixel meets the past through one hinge only. So the least
    energy of the rows up to r, as a function of l_r, has the derivative

        f_r(l) = u_r(l) + clip(f_{r-1}(l + s), 0, gamma)

    with u_r the unary one: it increases, its root is the last row's optimum, and the rows above
    follow from below.
    """

    def unary(row, at):
        if at >= 0:
            return np.inf
        odds = np.exp(at) / -np.expm1(at)
        good = (-0.1, -4.0, 0.0)[labels[row]]
        bad = (-0.1, 0.0, -4.0)[labels[row]]
        return weights[labels[row]] * (good - bad * odds)

    def slope(row, at):
        total = 0.0
        for r in range(row + 1):
            total = unary(r, at + s * (row - r)) + min(max(total, 0.0), gamma)
        return total

    def root(row, level):
        low, high = -200.0, 0.0
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (low, middle) if slope(row, middle) >= level else (middle, high)
        return high

    rows = len(labels)
    found = np.empty(rows)
    found[-1] = root(rows - 1, 0.0)
    for row in range(rows - 2, -1, -1):
        least = found[row + 1] + s
        at = slope(row, least)
        found[row] = root(row, 0.0) if at < 0 else root(row, gamma) if at > gamma else least
    return found
