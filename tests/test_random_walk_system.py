"""The sparse system handed out to people who bring their own solver."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from reference import random_walk as oracle
from scipy import sparse
from scipy.sparse.linalg import spsolve

CASES = {
    "default": {},
    "mid": {"sink": "mid"},
    "min": {"sink": "min"},
    "RF": {"mode": "RF"},
    "older": {"variant": "monai_1_3"},
    "weak": {"alpha": 0.7, "beta": 25.0, "gamma": 0.2},
    "sector": {"mask": True},
    "sinks": {"sink": "mask"},
}


@pytest.fixture
def image(rng):
    noise = rng.random((25, 23))
    return (255 * (noise[:-2, :-2] + noise[1:-1, 1:-1] + noise[2:, 2:]) / 3).astype(np.uint8)


def arguments(case, shape):
    parameters = dict(CASES[case])
    if "mask" in parameters:
        y, x = np.mgrid[: shape[0], : shape[1]]
        parameters["mask"] = np.hypot(y + 6, x - shape[1] // 2) < 1.15 * shape[0]
    if parameters.get("sink") == "mask":
        parameters["sink_mask"] = np.zeros(shape, bool)
        parameters["sink_mask"][12:15, 3:9] = True
    return parameters


@pytest.mark.parametrize("case", CASES)
def test_equals_oracle(image, case):
    parameters = arguments(case, image.shape)
    ours = usconf.random_walk_system(image, **parameters)
    theirs = oracle.system(image, **parameters)
    np.testing.assert_array_equal(ours.unknown, theirs.unknown)
    np.testing.assert_array_equal(ours.seeds, theirs.seeds)
    np.testing.assert_allclose(ours.rhs, theirs.rhs, rtol=1e-11, atol=1e-14)
    assert sparse.issparse(ours.matrix) and ours.matrix.format == "csr"
    assert ours.matrix.dtype == ours.rhs.dtype == np.float64
    assert ours.matrix.nnz == theirs.matrix.nnz
    assert np.abs((ours.matrix - theirs.matrix).toarray()).max() <= 1e-11


@pytest.mark.parametrize("case", CASES)
def test_its_solution_is_the_map(image, case):
    parameters = arguments(case, image.shape)
    matrix, rhs, unknown, seeds = usconf.random_walk_system(image, **parameters)
    assert seeds.shape == image.shape and rhs.shape == unknown.shape
    solved = np.array(seeds, dtype=np.float64)
    solved.flat[unknown] = spsolve(matrix.tocsc(), rhs)
    ours = usconf.random_walk(image, dtype="float64", **parameters)
    np.testing.assert_allclose(ours, solved, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", CASES)
def test_is_a_symmetric_m_matrix(image, case):
    matrix, rhs, *_ = usconf.random_walk_system(image, **arguments(case, image.shape))
    dense = matrix.toarray()
    np.testing.assert_array_equal(dense, dense.T)
    off = dense - np.diag(np.diag(dense))
    assert (off <= 0).all() and (np.diag(dense) > 0).all() and (rhs >= 0).all()
    assert (dense.sum(axis=1) >= rhs - 1e-12).all()
    assert np.linalg.eigvalsh(dense).min() > 0


def test_no_unknowns(rng):
    matrix, rhs, unknown, seeds = usconf.random_walk_system(rng.random((2, 5)))
    assert matrix.shape == (0, 0) and rhs.shape == unknown.shape == (0,)
    np.testing.assert_array_equal(seeds, [[1] * 5, [0] * 5])


def test_one_frame_only(rng):
    single = rng.random((1, 6, 5))
    matrix, *_ = usconf.random_walk_system(single)
    assert matrix.shape == (20, 20)
    with pytest.raises(ValueError, match=r"^image must .*one frame.*got.*\(3, 1, 6, 5\)"):
        usconf.random_walk_system(rng.random((3, 1, 6, 5)))


def test_refuses_what_the_map_refuses(image):
    with pytest.raises(ValueError, match=r"^beta must .*got -1"):
        usconf.random_walk_system(image, beta=-1)
    with pytest.raises(TypeError, match="solver"):
        usconf.random_walk_system(image, solver="direct")
