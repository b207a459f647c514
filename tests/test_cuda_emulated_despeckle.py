"""The CUDA kernels of despeckling, behind the emulation header, against the NumPy oracle."""

from __future__ import annotations

import numpy as np
import pytest
from emulation import sanitized
from emulation.calls import ORDERS, SCALARS
from reference import despeckle as oracle

pytestmark = [pytest.mark.emulated, pytest.mark.usefixtures("no_leaks")]

# Of the image's range.
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}


def frames(rng, *shape, kind="float32"):
    """Speckle on a step, with a black margin on the left."""
    image = 60 + 90 * (np.arange(shape[-1]) > shape[-1] // 2) * np.ones(shape)
    image *= rng.gamma(20, 1 / 20, shape)
    image[..., : shape[-1] // 5] = 0
    return np.clip(image, 0, 250).astype(kind)


def inputs(image, mask):
    return (
        image.ctypes.data, SCALARS.index(image.dtype.name), *image.shape,
        0 if mask is None else mask.ctypes.data, mask is not None and len(mask) == 1,
    )  # fmt: skip


def srad(core, image, kind, mask=None, roi=None, iterations=3000, tolerance=1e-7, step=0.1):
    result = np.full(image.shape, np.nan, kind)
    done = core.srad(
        *inputs(image, mask), (0, 0, 0, 0) if roi is None else roi, iterations, tolerance, step,
        kind == "float64", 1, 0, 0, result.ctypes.data,
    )  # fmt: skip
    return result, done


def median(core, image, kind, size, mask=None):
    result = np.full(image.shape, np.nan, kind)
    core.median(*inputs(image, mask), size, kind == "float64", 1, 0, 0, result.ctypes.data)
    return result


def of_frame(planes, t):
    return None if planes is None else planes[0 if len(planes) == 1 else t]


def masks(rng, *shape):
    mask = rng.random(shape) > 0.1
    mask[..., : shape[-2] // 2, -shape[-1] // 4 :] = False
    return mask.astype(np.uint8)


CASES = {
    "robust": {},
    "region": {"roi": (3, 17, 30, 44)},
    "black region": {"roi": (3, 17, 0, 5)},
    "mask": {"mask": (2, 41, 50)},
    "one mask, region": {"mask": (1, 41, 50), "roi": (3, 30, 20, 44)},
    "large step": {"step": 0.4},
}


@pytest.mark.parametrize("kind", list(TOLERANCE))
@pytest.mark.parametrize(
    ("name", "iterations"),
    [(name, n) for name in CASES for n in (1, 10)] + [("robust", 50), ("mask", 50)],
)
def test_srad_equals_the_oracle(emulated, rng, name, kind, iterations):
    image = frames(rng, 2, 41, 50)
    given = dict(CASES[name])
    if "mask" in given:
        given["mask"] = masks(rng, *given["mask"])
    found, done = srad(emulated, image, kind, iterations=iterations, tolerance=-1.0, **given)
    assert done == [iterations, iterations]
    mask = given.pop("mask", None)
    for t in range(2):
        wanted = oracle.srad(
            image[t], iterations=iterations, tolerance=-1.0, mask=of_frame(mask, t), **given
        )
        range_ = float(image[t].max() - image[t].min())
        assert abs(found[t] - wanted.image).max() <= TOLERANCE[kind] * range_


@pytest.mark.parametrize("kind", list(TOLERANCE))
def test_every_frame_stops_when_it_has_converged(emulated, rng, kind):
    """At the iterate that the criterion is met with, also between two questions of the host."""
    image = frames(rng, 3, 33, 40)
    image[1, ::4] = 250
    image[2] = 9.0
    found, done = srad(emulated, image, kind, tolerance=1e-5)
    wanted = [oracle.srad(frame, tolerance=1e-5) for frame in image]
    assert done == [w.iterations for w in wanted]
    assert len(set(done)) == 3
    for frame, w, source in zip(found, wanted, image, strict=True):
        assert abs(frame - w.image).max() <= TOLERANCE[kind] * max(np.ptp(source), 1)


@pytest.mark.parametrize("order", ["reverse", "random"])
def test_results_do_not_depend_on_the_order_of_threads(emulated, rng, order):
    image, mask = frames(rng, 2, 34, 45), masks(rng, 1, 34, 45)
    for kind in TOLERANCE:
        found = []
        for which in ("forward", order):
            emulated.set_thread_order(ORDERS[which])
            result, done = srad(emulated, image, kind, mask, iterations=4)
            found.append((result, np.array(done), median(emulated, image, kind, 7, mask)))
        for one, other in zip(*found, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("scalar", SCALARS)
def test_every_scalar(emulated, rng, scalar):
    image = frames(rng, 1, 20, 37).astype(np.uint8).astype(scalar)
    wanted = oracle.srad(image[0], iterations=3).image
    for kind, allowed in TOLERANCE.items():
        found, _ = srad(emulated, image, kind, iterations=3)
        assert abs(found[0] - wanted).max() <= allowed * 250
        assert np.array_equal(median(emulated, image, kind, 3)[0], oracle.median(image[0], 3))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 1, 9), (1, 9, 1), (2, 2, 2), (1, 8, 8), (0, 9, 9)]
)
def test_small_images(emulated, rng, shape):
    image = 10 * rng.random(shape)
    found, done = srad(emulated, image, "float64", iterations=2, tolerance=-1.0)
    assert done == [2] * len(image)
    medians = median(emulated, image, "float64", 5)
    for t, frame in enumerate(image):
        wanted = oracle.srad(frame, iterations=2, tolerance=-1.0).image
        assert abs(found[t] - wanted).max() <= 1e-11
        assert np.array_equal(medians[t], oracle.median(frame, 5))


def test_nothing_to_do(emulated, rng):
    """No iterations leave the image, no valid pixel leaves 0."""
    image = frames(rng, 2, 12, 20)
    found, done = srad(emulated, image, "float64", iterations=0)
    assert done == [0, 0] and abs(found - image).max() < 1e-10
    none = np.zeros((1, 12, 20), np.uint8)
    found, done = srad(emulated, image, "float64", none)
    assert done == [0, 0] and not found.any()
    assert not median(emulated, image, "float64", 7, none).any()


@pytest.mark.parametrize("size", [1, 3, 5, 7, 9, 15])
@pytest.mark.parametrize("kind", list(TOLERANCE))
def test_median_equals_the_oracle(emulated, rng, size, kind):
    image = (50 * rng.standard_normal((2, 19, 45))).astype(kind)
    image[:, ::3] = np.round(image[:, ::3])
    for mask in (None, masks(rng, 2, 19, 45), masks(rng, 1, 19, 45)):
        found = median(emulated, image, kind, size, mask)
        for t in range(2):
            wanted = oracle.median(image[t], size, of_frame(mask, t))
            assert np.array_equal(found[t], wanted)


@pytest.mark.slow
@sanitized.skip_inside
def test_nothing_is_read_or_written_out_of_bounds():
    """The tests of this file once more on a build with AddressSanitizer."""
    sanitized.run_again(__file__, "oracle or small")
