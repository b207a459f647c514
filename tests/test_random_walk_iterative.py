"""The iterative solver gives the same maps and gradients as the float64 oracle."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from reference import random_walk as oracle

TOLERANCE = {"float32": 1e-6, "float64": 1e-9}
SHAPES = [(2, 2), (3, 1), (3, 2), (3, 3), (2, 40), (90, 1), (5, 7), (17, 90), (90, 17), (65, 33)]
SINKS = ["all", "mid", "min", "mask"]


def speckle(rng, shape):
    """Log-compressed Rayleigh speckle: sharp edges on all scales of weights."""
    wave = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    return np.clip(60 + 20 * np.log10(np.abs(wave)), 0, 80)


def fan(shape):
    """Valid pixels of a sector, with a hole and an island inside it that touches no seed."""
    depth, across = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(depth + shape[0] / 4, across - shape[1] / 2)
    angle = np.arctan2(across - shape[1] / 2, depth + shape[0] / 4)
    valid = (radius > 0.35 * shape[0]) & (radius < 1.15 * shape[0]) & (np.abs(angle) < 0.6)
    middle = (slice(shape[0] // 2, shape[0] // 2 + 12), slice(shape[1] // 2, shape[1] // 2 + 12))
    valid[middle] = False
    valid[middle][4:8, 4:8] = True
    return valid


def check(image, dtype, **parameters):
    got = usconf.random_walk(
        image.astype(np.float64), solver="iterative", dtype=dtype, **parameters
    )
    want = oracle.solve(image, **parameters)
    assert got.dtype == dtype
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(rng, shape, dtype):
    check(rng.random(shape), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sink", SINKS)
def test_any_sink(rng, sink, dtype):
    parameters = {}
    if sink == "mask":
        parameters["sink_mask"] = np.zeros((70, 83), bool)
        parameters["sink_mask"][40:45, 10:30] = True
    check(speckle(rng, (70, 83)), dtype, sink=sink, **parameters)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sink", ["all", "mid"])
def test_mask_with_hole_and_island(rng, sink, dtype):
    image = speckle(rng, (96, 80))
    check(image, dtype, sink=sink, mask=fan(image.shape))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("density", [0.5, 0.6, 0.8])
def test_scattered_mask(rng, density, dtype):
    # Pieces lie so close together that a coarse pixel's neighbours belong to different ones; those
    # without seeds once drifted away to -1.2.
    image = rng.random((110, 140))
    check(image, dtype, mask=rng.random(image.shape) < density)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "parameters",
    [
        {"beta": 0.0},
        {"beta": 400.0},
        {"beta": 400.0, "sink": "mid"},
        {"alpha": 0.5, "sink": "mid"},
        {"gamma": 0.0},
    ],
    ids=str,
)
def test_extreme_parameters(rng, parameters, dtype):
    check(speckle(rng, (64, 72)), dtype, **parameters)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_weak_columns_are_solved_or_refused(rng, dtype):
    # This variant weakens the vertical edges, the very ones the smoother relies on: it may give up,
    # but must never return a wrong map.
    try:
        check(speckle(rng, (64, 72)), dtype, variant="monai_1_3")
    except RuntimeError as error:
        assert 'pass solver="direct"' in str(error)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("cell", [1, 4])
@pytest.mark.parametrize("sink", ["all", "mid"])
def test_checkerboard(cell, sink, dtype):
    image = (np.indices((64, 80)) // cell).sum(axis=0) % 2 * 255.0
    check(image, dtype, sink=sink)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rows_and_columns_apart(dtype):
    stripes = (np.arange(64) + 1) % 2 * 255.0  # the first row bright: a black one draws a warning
    check(np.tile(stripes, (64, 1)), dtype)
    check(np.tile(stripes[:, None], (1, 64)), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_real_frame(frames, dtype):
    check(frames("linear/bone_1_1")[40:232, 100:292], dtype)


def test_same_bits_for_any_number_of_threads(rng):
    image = speckle(rng, (130, 300)).astype(np.float32)
    before = usconf.get_num_threads()
    maps = []
    try:
        for threads in (1, 2, 3):
            usconf.set_num_threads(threads)
            maps.append(usconf.random_walk(image, solver="iterative"))
    finally:
        usconf.set_num_threads(before)
    np.testing.assert_array_equal(maps[0], maps[1])
    np.testing.assert_array_equal(maps[0], maps[2])


@pytest.mark.torch
@pytest.mark.parametrize("masked", [False, True])
def test_gradient(rng, masked):
    torch = pytest.importorskip("torch")
    image = speckle(rng, (60, 64))
    upstream = rng.standard_normal(image.shape)
    parameters = {"mask": fan(image.shape)} if masked else {}
    tensor = torch.from_numpy(image.copy()).requires_grad_()
    masks = {name: torch.from_numpy(mask) for name, mask in parameters.items()}
    usconf.random_walk(tensor, solver="iterative", **masks).backward(torch.from_numpy(upstream))
    want = oracle.gradient(image, upstream, **parameters).image
    scale = np.abs(want).max()
    np.testing.assert_allclose(tensor.grad.numpy(), want, rtol=0, atol=1e-6 * scale)
