"""The oracle is itself held against what others published, differences, and closed forms."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
from reference import random_walk as oracle


def smooth_noise(rng, shape):
    """Noise with neighbours alike, so that weights range from the floor to 1."""
    noise = rng.random((shape[0] + 2, shape[1] + 2))
    return sum(noise[y : y + shape[0], x : x + shape[1]] for y in range(3) for x in range(3))


def fan(shape):
    """A mask as scan conversion leaves it: narrow on top, an arc below, a hole, an island."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    radius = np.hypot(y + 0.4 * shape[0], x - (shape[1] - 1) / 2)
    valid = (np.abs(x - (shape[1] - 1) / 2) < 0.25 * shape[1] + 0.3 * y) & (radius < 1.3 * shape[0])
    valid[shape[0] // 2 : shape[0] // 2 + 2, shape[1] // 3 : shape[1] // 2] = False
    valid[-1, :2] = True
    return valid


CASES = {
    "all": {},
    "mid": {"sink": "mid"},
    "min": {"sink": "min"},
    "mask": {"sink": "mask"},
    "RF": {"mode": "RF"},
    "monai_1_3": {"variant": "monai_1_3"},
    "fan": {"mask": fan},
    "fan RF": {"mask": fan, "mode": "RF"},
    "weak": {"alpha": 0.5, "beta": 20.0, "gamma": 0.2},
}


def arguments(case, shape):
    parameters = dict(CASES[case])
    if "mask" in parameters:
        parameters["mask"] = parameters["mask"](shape)
    if parameters.get("sink") == "mask":
        parameters["sink_mask"] = np.zeros(shape)
        parameters["sink_mask"][-2:, 1 : shape[1] // 2] = 3
    return parameters


def test_official_map(data_dir, frames):
    image = frames("golden/femur_input")
    official = np.load(data_dir / "golden" / "femur_result.npy")
    ours = oracle.solve(image, alpha=2.0, beta=90.0, gamma=0.06)
    assert np.abs(ours - official).max() <= 1e-7


def monai_map(image, sink="all", sink_mask=None, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's remarks on MONAI's use of it
        transforms = importlib.import_module("monai.transforms")
        transform = transforms.UltrasoundConfidenceMapTransform(
            sink_mode=sink, use_cg=False, **parameters
        )
        mask = None if sink_mask is None else sink_mask[None]
        return np.asarray(transform(image[None].astype(np.float64), mask)).reshape(image.shape)


@pytest.mark.monai
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", ["all", "mid", "min", "mask", "RF", "weak"])
def test_monai(frames, case):
    image = frames("linear/muscle_S1")[200:264, 100:148]
    parameters = arguments(case, image.shape)
    theirs = monai_map(image, **parameters)
    assert np.abs(oracle.solve(image, **parameters) - theirs).max() <= 1e-9


@pytest.mark.parametrize("case", CASES)
def test_gradient_is_the_limit_of_differences(rng, case):
    image = smooth_noise(rng, (9, 8))
    parameters = {"alpha": 1.3, "beta": 12.0, "gamma": 0.11} | arguments(case, image.shape)
    upstream = rng.standard_normal(image.shape)
    given = oracle.gradient(image, upstream, **parameters)

    def loss(picture, **changed):
        return (upstream * oracle.solve(picture, **(parameters | changed))).sum()

    step = 1e-6
    for name in ("alpha", "beta", "gamma"):
        value = parameters[name]
        slope = loss(image, **{name: value + step}) - loss(image, **{name: value - step})
        assert getattr(given, name) == pytest.approx(slope / (2 * step), rel=1e-6, abs=1e-8)
    slopes = np.empty(image.shape)
    for place in np.ndindex(image.shape):
        bump = np.zeros(image.shape)
        bump[place] = step
        slopes[place] = (loss(image + bump) - loss(image - bump)) / (2 * step)
    np.testing.assert_allclose(given.image, slopes, rtol=1e-5, atol=1e-7)
    assert np.abs(given.image).max() > 1e-3


@pytest.mark.torch
def test_gradient_at_ties_is_that_of_amax(rng):
    """Mirror images have every extreme at least twice; autograd through a dense solve decides."""
    torch = importlib.import_module("torch")
    half = smooth_noise(rng, (6, 4))
    image = np.concatenate([half, half[:, ::-1]], axis=1)
    upstream = rng.standard_normal(image.shape)
    given = oracle.gradient(image, upstream, alpha=1.3, beta=12.0, gamma=0.11)

    pixels = torch.tensor(image, requires_grad=True)
    alpha, beta, gamma = (
        torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1.3, 12.0, 0.11)
    )
    links = oracle.edges(np.ones(image.shape, bool))
    first, second, vertical = (torch.as_tensor(part) for part in links)
    low, high = pixels.amin(), pixels.amax()
    depth = torch.as_tensor(oracle.depth(image.shape[0]))
    flat = ((pixels - low) / (high - low) * (1 - torch.exp(-alpha * depth))).ravel()
    apart = (flat[first] - flat[second]).abs()
    apart = apart / apart.amax() + torch.where(vertical, 0.0, gamma)
    weight = torch.exp(-beta * apart / apart.amax()) + 1e-5
    size = image.size
    laplacian = torch.zeros(size, size, dtype=torch.float64)
    laplacian = laplacian.index_put((first, second), -weight).index_put((second, first), -weight)
    laplacian = laplacian - torch.diag(laplacian.sum(1))
    inner = torch.arange(image.shape[1], size - image.shape[1])
    rhs = -laplacian[inner][:, : image.shape[1]].sum(1)
    values = torch.linalg.solve(laplacian[inner][:, inner], rhs)
    (torch.as_tensor(upstream).ravel()[inner] * values).sum().backward()

    np.testing.assert_allclose(given.image, pixels.grad.numpy(), rtol=1e-8, atol=1e-12)
    for name, tensor in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        assert getattr(given, name) == pytest.approx(tensor.grad.item(), rel=1e-6)


@pytest.mark.parametrize("shape", [(2, 2), (2, 7), (9, 1), (12, 13)])
def test_constant_image_falls_linearly(shape):
    for value in (0, 7, -3.5):
        ours = oracle.solve(np.full(shape, value))
        np.testing.assert_allclose(ours, oracle.homogeneous(shape), atol=1e-12)


def test_without_attenuation_every_image_is_constant(rng):
    ours = oracle.solve(rng.random((12, 9)), alpha=0.0)
    np.testing.assert_allclose(ours, oracle.homogeneous((12, 9)), atol=1e-12)


@pytest.mark.parametrize("variant", oracle.VARIANTS)
def test_single_scanline_is_a_chain(rng, variant):
    image = rng.random((15, 1))
    ours = oracle.solve(image, variant=variant)
    np.testing.assert_allclose(ours, oracle.chain(image, variant=variant), atol=1e-12)


def test_source_wins_and_no_sink_is_one(rng):
    image = rng.random((6, 5))
    assert (oracle.solve(image[:1]) == 1).all()
    np.testing.assert_allclose(
        oracle.solve(image, sink="mask", sink_mask=np.zeros(image.shape)), 1.0, atol=1e-12
    )
    on_source = np.zeros(image.shape)
    on_source[0] = 1
    np.testing.assert_allclose(
        oracle.solve(image, sink="mask", sink_mask=on_source), 1.0, atol=1e-12
    )


def test_pieces_of_a_mask(rng):
    """Two towers, one of them without a sink, and below an overhang a pixel nothing reaches."""
    image = rng.random((9, 9))
    valid = np.zeros(image.shape, bool)
    valid[0:9, 0:3] = True
    valid[0:6, 5:8] = True
    valid[2:5, 6] = False
    sink = np.zeros(image.shape)
    sink[8, 0:3] = 1
    valid[8, 6] = True
    ours = oracle.solve(image, mask=valid, sink="mask", sink_mask=sink)
    assert (ours[~valid] == 0).all()
    np.testing.assert_allclose(ours[0:6, 5:8][valid[0:6, 5:8]], 1.0, atol=1e-12)
    assert ours[8, 6] == 0
    assert (ours[8, 0:3] == 0).all() and (0 < ours[1:8, 0:3]).all() and (ours[1:8, 0:3] < 1).all()
    alone = oracle.solve(image, mask=np.ones(image.shape))
    np.testing.assert_array_equal(alone, oracle.solve(image))
