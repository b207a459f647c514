"""Uncertainty of segmentations in float64, as the definitions read: loops and full matrices.

Logits are (n, B, C, *S); one channel is one Bernoulli logit. N is the number of logits of an image.
"""

from __future__ import annotations

import numpy as np
from scipy import special


def probabilities(logits):
    """(..., K, *S) with the classes on `axis` = 2 of (n, B, C, *S); one logit gives (1 - p, p)."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[2] == 1:
        return np.concatenate((special.expit(-logits), special.expit(logits)), 2)
    return special.softmax(logits, 2)


def measures(logits):
    """TU, EE, MI, PV of (n, B, C, *S)."""
    p = probabilities(logits)
    total = special.entr(p.mean(0)).sum(1)
    expected = special.entr(p).sum(2).mean(0)
    return {"TU": total, "EE": expected, "MI": total - expected, "PV": p.var(0).mean(1)}


def noisy_measures(logits, noise):
    """The same of draws whose probability is the mean over (S, B, C, *S) noise added to each."""
    p = np.stack([probabilities(noise + one).mean(0) for one in logits])
    total = special.entr(p.mean(0)).sum(1)
    expected = special.entr(p).sum(2).mean(0)
    of_means = measures(logits)["PV"]
    return {"TU": total, "EE": expected, "MI": total - expected, "PV": of_means}


def fuse(one, other, mean, auxiliary):
    """Fused map (B, *S); `auxiliary` (B, *S)."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if one.shape[2] == 1:  # as softmax of (-z/2, z/2)
        one, other = (np.concatenate((-z / 2, z / 2), 2) for z in (one, other))
    apart = one - other
    apart = apart - apart.mean(2, keepdims=True)
    deviation = np.sqrt(apart.var(0)).sum(1)
    centre = apart.mean(0)
    if mean == "probability":
        centre = np.log(probabilities(one).mean(0)) - np.log(probabilities(other).mean(0))
    entropy = special.entr(special.softmax(centre, 1)).sum(1)
    weight = np.array([image.var() for image in auxiliary])
    return deviation * entropy * weight.reshape(-1, *[1] * (entropy.ndim - 1))


# normal distributions with (N, N) covariance


def covariance(diagonal, factor):
    """(N, N) of (C, *S) and (R, C, *S)."""
    flat = np.asarray(factor, np.float64).reshape(len(factor), -1)
    return flat.T @ flat + np.diag(np.asarray(diagonal, np.float64).ravel())


def log_density(value, mean, cov):
    apart = np.ravel(value) - np.ravel(mean)
    energy = apart @ np.linalg.solve(cov, apart)
    return -0.5 * (energy + np.linalg.slogdet(2 * np.pi * cov)[1])


def kl(mean_p, cov_p, mean_q, cov_q):
    apart = np.ravel(mean_p) - np.ravel(mean_q)
    trace = np.trace(np.linalg.solve(cov_q, cov_p))
    energy = apart @ np.linalg.solve(cov_q, apart)
    logs = np.linalg.slogdet(cov_q)[1] - np.linalg.slogdet(cov_p)[1]
    return 0.5 * (trace + energy - apart.size + logs)


def expected_pairwise(divergence, draws):
    """Mean of divergence(i, j) over ordered pairs."""
    n = range(len(draws))
    return np.mean([divergence(draws[i], draws[j]) for i in n for j in n if i != j])


def label_divergence(one, other):
    """KL between the label maps of two (C, *S) logits."""
    p, q = (probabilities(np.asarray(z)[None, None])[0, 0] for z in (one, other))
    return special.rel_entr(p, q).sum()


def stochastic_loss(draws, labels, mask):
    """-mean_b ln mean_s prod_px p(label) of (n, B, C, *S) and (B, *S)."""
    p = probabilities(draws)
    losses = []
    for b in range(p.shape[1]):
        of_label = np.take_along_axis(p[:, b], labels[None, b, None], 1)[:, 0]
        log_p = np.where(mask[b], np.log(of_label), 0).reshape(len(p), -1).sum(1)
        losses.append(np.log(len(p)) - special.logsumexp(log_p))
    return np.mean(losses)


# Laplace approximation of a 1x1 convolution


def jacobian(phi, classes):
    """d logits / d theta of one pixel, (C, C K): class after class."""
    return np.kron(np.eye(classes), phi)


def gauss_newton(weight, bias, features, mask):
    """(P, P) of weight (C, K), bias (C,) or None, features (B, K, *S), mask (B, *S)."""
    phi, _ = pixels(features, bias)
    classes = len(weight)
    theta = weight if bias is None else np.column_stack((weight, bias))
    result = np.zeros((theta.size, theta.size))
    for row, valid in zip(phi, np.ravel(mask), strict=True):
        if not valid:
            continue
        logits = theta @ row
        if classes == 1:
            spread = special.expit(logits) * special.expit(-logits)
            lam = spread[:, None]
        else:
            p = special.softmax(logits)
            lam = np.diag(p) - np.outer(p, p)
        j = jacobian(row, classes)
        result += j.T @ lam @ j
    return result


def pixels(features, bias):
    """Rows phi of all pixels, and the shape to bring them back."""
    features = np.asarray(features, np.float64)
    phi = np.moveaxis(features, 1, -1).reshape(-1, features.shape[1])
    if bias is not None:
        phi = np.column_stack((phi, np.ones(len(phi))))
    return phi, (features.shape[0], *features.shape[2:])


def logit_variance(hessian, precision, features, bias, classes):
    """(B, C, *S): diagonal of J (H + tau I)^-1 J^T per pixel."""
    cov = np.linalg.inv(hessian + precision * np.eye(len(hessian)))
    phi, shape = pixels(features, bias)
    values = [np.diag(jacobian(row, classes) @ cov @ jacobian(row, classes).T) for row in phi]
    return np.moveaxis(np.reshape(values, (*shape, classes)), -1, 1)


def log_evidence(log_likelihood, theta, hessian, precision):
    """ln p(labels) of the Laplace approximation with prior N(0, I / precision)."""
    size = len(hessian)
    prior = 0.5 * size * np.log(precision / (2 * np.pi)) - 0.5 * precision * (theta**2).sum()
    volume = 0.5 * size * np.log(2 * np.pi)
    return (
        log_likelihood
        + prior
        + volume
        - 0.5 * np.linalg.slogdet(hessian + precision * np.eye(size))[1]
    )


# scores, ellipses


def largest_patch(image, size):
    """Of (H, W)."""
    rows, columns = (n - size + 1 for n in image.shape)
    return max(image[r : r + size, c : c + size].sum() for r in range(rows) for c in range(columns))


def area_under_curve(inside, outside):
    pairs = [(o > i) + (o == i) / 2 for o in outside for i in inside]
    return np.mean(pairs)


def ellipse_perimeter(major, minor):
    """By the complete elliptic integral."""
    return 4 * major * special.ellipe(1 - (minor / major) ** 2)
