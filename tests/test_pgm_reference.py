"""The oracle of the annotation model against densities, differences and a general optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from reference import pgm as oracle
from scipy import optimize, stats


def pictures(rng, *shape):
    return 1 / (1 + np.exp(-2 * rng.standard_normal(shape))), rng.integers(0, 3, shape)


def test_unary_terms_are_beta_densities(rng):
    """Equation 3: Beta(5, 1) for Good, Beta(1, 5) for Bad, Beta(1.1, 1.1) for None."""
    x, labels = pictures(rng, 7, 9)
    unary, _, _ = oracle.terms(x, labels, constants=True)
    for label, shape in enumerate([(1.1, 1.1), (5, 1), (1, 5)]):
        mine = labels == label
        np.testing.assert_allclose(unary[mine], -stats.beta.logpdf(x[mine], *shape), rtol=1e-12)


@pytest.mark.parametrize("logits", [True, False])
def test_gradient_is_the_difference(rng, logits):
    x, labels = pictures(rng, 2, 5, 4)
    value = np.log(x / (1 - x)) if logits else x
    given = {"gamma": 3.0, "s": 0.02, "weights": (1, 2, 3), "logits": logits}
    given["mask"] = rng.random((5, 4)) > 0.2
    upstream = rng.standard_normal(value.shape)
    ours = oracle.gradient(value, labels, upstream=upstream, **given)
    for at in np.ndindex(value.shape):
        ends = []
        for step in (1e-6, -1e-6):
            moved = value.copy()
            moved[at] += step
            ends.append((upstream * sum(oracle.terms(moved, labels, **given))).sum())
        assert abs((ends[0] - ends[1]) / 2e-6 - ours[at]) < 1e-5 * max(1, abs(ours[at]))


@pytest.mark.parametrize("gamma", [75.0, 2.0])
def test_scanline_optimum_is_where_an_optimiser_ends(rng, gamma):
    """As a convex programme: one slack a hinge."""
    rows, s = 6, 0.05
    for _ in range(4):
        labels = rng.integers(0, 3, rows)
        ours = oracle.scanline_optimum(labels, gamma=gamma, s=s)

        def energy(v, labels=labels):
            x = np.exp(np.minimum(v[:rows], -1e-9))[:, None]  # differences step over the bounds
            unary = oracle.terms(x, labels[:, None], gamma=0, sigma=0)[0]
            return unary.sum() + gamma * v[rows:].sum()

        slack = {"type": "ineq", "fun": lambda v: v[rows:] - (np.diff(v[:rows]) + s)}
        bounds = [(-30, -1e-6)] * rows + [(0, None)] * (rows - 1)
        start = np.r_[-0.5 - s * np.arange(rows), np.ones(rows - 1)]
        found = optimize.minimize(
            energy, start, constraints=[slack], bounds=bounds, method="SLSQP",
            options={"maxiter": 500, "ftol": 1e-12},
        )  # fmt: skip
        exact = energy(np.r_[ours, np.maximum(0, np.diff(ours) + s)])
        assert exact <= found.fun + 1e-9
        assert found.fun - exact < 1e-3 * max(1, abs(exact))
