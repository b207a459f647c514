"""The CUDA kernels of the DAG maps, behind the emulation header, against the NumPy oracle."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from emulation import sanitized
from emulation.calls import ORDERS, SCALARS, address
from reference import dag as oracle

pytestmark = [pytest.mark.emulated, pytest.mark.usefixtures("no_leaks")]

DEFAULTS = {"xi": 0.1, "alpha": 1.0, "var": 8.0, "power": 1.0, "half_width": 10}
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}
# Relative to the largest derivative of its kind.
GRADIENT_TOLERANCE = {"float32": 2e-5, "float64": 1e-10}
PARAMETERS = ("xi", "alpha", "var", "power")


def shared(array):
    """Whether one plane serves all frames."""
    return array is not None and len(array) == 1


@dataclass
class Case:
    """Frames (T, H, W) and everything else that `confidence` takes; planes are (T or 1, H, W)."""

    image: np.ndarray
    parameters: dict = field(default_factory=dict)
    variant: str | None = None
    scaled: bool = False
    mask: np.ndarray | None = None
    reference: np.ndarray | None = None
    needle: np.ndarray | None = None
    artifact: np.ndarray | None = None

    def __post_init__(self):
        self.image = np.ascontiguousarray(self.image)
        self.parameters = {**DEFAULTS, **self.parameters}
        if self.mask is not None:
            self.mask = np.ascontiguousarray(self.mask, np.uint8)
        if self.reference is not None:
            self.reference = np.ascontiguousarray(self.reference, np.float64)
        for name in ("needle", "artifact"):
            plane = getattr(self, name)
            setattr(self, name, None if plane is None else np.ascontiguousarray(plane, np.float32))

    def arguments(self, kind, device=0):
        p = self.parameters
        as_given = self.scaled or self.variant is not None
        model = self.artifact if self.needle is None else self.needle
        return (
            address(self.image), SCALARS.index(self.image.dtype.name), *self.image.shape,
            address(self.mask), shared(self.mask), p["xi"], p["alpha"], p["var"], p["power"],
            p["half_width"], int(self.variant is not None), not as_given, address(self.reference),
            shared(self.reference), address(self.needle), address(self.artifact), shared(model),
            kind == "float64", 1, device, 0,
        )  # fmt: skip

    def map(self, core, kind):
        found = np.full(self.image.shape, np.nan, kind)
        core.dag(*self.arguments(kind), address(found))
        return found

    def gradient(self, core, kind, map_, upstream):
        d_image, d_parameters = np.full(map_.shape, np.nan, kind), np.full(4, np.nan)
        core.dag_backward(
            *self.arguments(kind), *map(address, (map_, upstream, d_image, d_parameters))
        )
        return d_image, d_parameters

    def expected(self, function, *planes):
        """`function` of the oracle for every frame."""
        found = []
        for t, frame in enumerate(self.image):
            extra = {
                name: plane[0 if len(plane) == 1 else t]
                for name in ("mask", "reference", "needle", "artifact")
                if (plane := getattr(self, name)) is not None
            }
            extra |= {"variant": self.variant, "scaled": self.scaled, **self.parameters}
            found.append(function(frame, *(plane[t] for plane in planes), **extra))
        return found


def frames(rng, *shape, kind="float32"):
    """Speckle that decays, with a bright line in it."""
    image = rng.rayleigh(1.0, shape) * np.exp(-np.arange(shape[-2]) / shape[-2])[:, None]
    image[..., shape[-2] // 2, shape[-1] // 3 :] += 4
    return (30 * image).astype(kind)


def holes(rng, *shape):
    mask = rng.random(shape) > 0.15
    mask[..., : shape[-2] // 4, : shape[-1] // 3] = False
    mask[..., shape[-1] // 2] = False
    return mask


def soft(rng, *shape):
    """A needle: a band of high values; an artifact: blobs that reach the last row."""
    needle = 0.5 * rng.random(shape)
    needle[..., shape[-2] // 3 : shape[-2] // 3 + 3, 2:-3] = 0.95
    artifact = np.where(rng.random(shape) > 0.9, rng.random(shape), 0.0)
    artifact[..., -4:, 1:5] = 1.0
    return needle, artifact


def cases(rng):
    image = frames(rng, 2, 23, 37)
    needle, artifact = soft(rng, 2, 23, 37)
    reference = np.linspace(1, 0.5, 23)[None] * np.ones((2, 1))
    reference[1, 9] = 0.0
    published = {"variant": "hung2021", "scaled": True}
    return {
        "plain": Case(image),
        "beyond shadows": Case(image, {"xi": 0.4, "alpha": 0.01}),
        "steep": Case(image, {"xi": 1e-30, "alpha": 20.0}),
        "no decay": Case(image, {"xi": 1.0}),
        "wide beam": Case(image, {"half_width": 15, "var": 100.0}),
        "even and odd R": Case(image, {"half_width": 7}),
        "R 0": Case(image, {"half_width": 0}),
        "very wide beam": Case(image[:1, :9], {"half_width": 70, "var": 300.0}),
        "as given": Case(image / 130, scaled=True),
        "narrow": Case(frames(rng, 2, 15, 5)),
        "one column": Case(frames(rng, 1, 12, 1)),
        "one row": Case(frames(rng, 2, 1, 9)),
        "constant": Case(np.full((1, 9, 30), 7.5, np.float32)),
        "power 2": Case(image, {"power": 2.0}),
        "power 0.7": Case(image, {"power": 0.7}),
        "mask": Case(image, mask=holes(rng, 2, 23, 37)),
        "one mask": Case(image, mask=holes(rng, 1, 23, 37)),
        "thin mask, narrow beam": Case(
            image, {"var": 0.05}, mask=holes(rng, 1, 23, 37) & (rng.random((1, 23, 37)) > 0.5)
        ),
        "nothing valid": Case(image, mask=np.zeros((1, 23, 37))),
        "structural": Case(image, reference=reference),
        "one reference": Case(image, reference=reference[:1]),
        "needle": Case(image, needle=needle),
        "artifact": Case(image, artifact=artifact[:1]),
        "everything": Case(
            image, {"power": 1.3}, mask=holes(rng, 2, 23, 37), reference=reference[:1],
            needle=needle, artifact=artifact,
        ),
        "published": Case(image / 255, **published),
        "published, W 21": Case(frames(rng, 1, 14, 21) / 255, {"var": 100.0}, **published),
        "published, all": Case(
            image / 255, {"xi": 0.4, "power": 2.0}, reference=reference, needle=needle,
            artifact=artifact, **published,
        ),
    }  # fmt: skip


CASE_NAMES = list(cases(np.random.default_rng(0)))


@pytest.mark.parametrize("name", CASE_NAMES)
@pytest.mark.parametrize("kind", list(TOLERANCE))
def test_map_equals_the_oracle(emulated, rng, name, kind):
    case = cases(rng)[name]
    found = case.map(emulated, kind)
    wanted = np.array(case.expected(oracle.confidence))
    scale = max(1.0, abs(wanted).max())  # published maps grow with every row
    assert abs(found - wanted).max() <= TOLERANCE[kind] * scale
    if case.variant is None and case.reference is None:
        assert found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("name", CASE_NAMES)
@pytest.mark.parametrize("kind", list(TOLERANCE))
def test_gradient_equals_the_oracle(emulated, rng, name, kind):
    case = cases(rng)[name]
    upstream = rng.standard_normal(case.image.shape).astype(kind)
    d_image, d_parameters = case.gradient(emulated, kind, case.map(emulated, kind), upstream)
    wanted = case.expected(oracle.gradient, upstream)
    images = np.array([g.image for g in wanted])
    parameters = np.array([sum(getattr(g, p) for g in wanted) for p in PARAMETERS])
    allowed = GRADIENT_TOLERANCE[kind]
    assert abs(d_image - images).max() <= allowed * max(abs(images).max(), 1e-3)
    scale = np.maximum(abs(parameters), 1e-2 * max(abs(parameters).max(), 1.0))
    assert (abs(d_parameters - parameters) <= 5 * allowed * scale).all()


@pytest.mark.parametrize("order", ["reverse", "random"])
@pytest.mark.parametrize("name", ["plain", "everything", "published"])
def test_results_do_not_depend_on_the_order_of_threads(emulated, rng, name, order):
    case = cases(rng)[name]
    for kind in TOLERANCE:
        upstream = rng.standard_normal(case.image.shape).astype(kind)
        found = []
        for which in ("forward", order):
            emulated.set_thread_order(ORDERS[which])
            map_ = case.map(emulated, kind)
            found.append((map_, *case.gradient(emulated, kind, map_, upstream)))
        for one, other in zip(*found, strict=True):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("kind", list(TOLERANCE))
def test_wide_images_are_cut_into_strips(emulated, rng, kind):
    """The bits do not depend on where the cuts are: pixels far from the sides do not see them."""
    image = frames(rng, 1, 9, 1100)
    needle, artifact = soft(rng, 1, 9, 1100)
    for case in (Case(image), Case(image, {"half_width": 63}), Case(
        image, mask=holes(rng, 1, 9, 1100), needle=needle, artifact=artifact
    )):  # fmt: skip
        launches = emulated.launches()
        found = case.map(emulated, kind)
        assert emulated.launches() - launches > 4
        assert abs(found - case.expected(oracle.confidence)).max() <= TOLERANCE[kind]
    upstream = rng.standard_normal(image.shape).astype(kind)
    d_image, _ = case.gradient(emulated, kind, found, upstream)
    wanted = case.expected(oracle.gradient, upstream)[0].image
    assert abs(d_image - wanted).max() <= GRADIENT_TOLERANCE[kind] * abs(wanted).max()


@pytest.mark.parametrize("parameters", [{}, {"xi": 0.4, "alpha": 0.0}, {"xi": 0.99}])
def test_floats_do_not_drift_over_many_rows(emulated, rng, parameters):
    """Also on a homogeneous image, where the same rounding is made in every row."""
    images = np.concatenate([np.zeros((1, 700, 24)), frames(rng, 1, 700, 24)]).astype(np.float32)
    case = Case(images, parameters)
    found = case.map(emulated, "float32")
    assert abs(found - case.expected(oracle.confidence)).max() <= TOLERANCE["float32"]


@pytest.mark.parametrize("scalar", SCALARS)
def test_every_scalar(emulated, rng, scalar):
    image = np.clip(frames(rng, 2, 13, 25), 0, 255).astype(np.uint8).astype(scalar)
    case = Case(image)
    exact = np.array(case.expected(oracle.confidence))
    for kind, allowed in TOLERANCE.items():
        assert abs(case.map(emulated, kind) - exact).max() <= allowed


def test_differences_of_large_numbers_are_exact(emulated, rng):
    image = frames(rng, 1, 15, 25)
    for shift, scale in ((1e6, 1.0), (0.0, 1e33), (0.0, 1e-33), (-3e4, 1e-3)):
        case = Case((image * scale + shift).astype(np.float32))
        wanted = case.expected(oracle.confidence)
        assert abs(case.map(emulated, "float32") - wanted).max() <= TOLERANCE["float32"]


def test_frames_of_a_batch_do_not_see_each_other(emulated, rng):
    image = frames(rng, 3, 11, 26)
    mask = holes(rng, 3, 11, 26)
    together = Case(image, mask=mask).map(emulated, "float32")
    for t in range(3):
        alone = Case(image[t : t + 1], mask=mask[t : t + 1]).map(emulated, "float32")
        assert np.array_equal(alone[0], together[t])


def test_outputs_that_are_not_wanted(emulated, rng):
    case = Case(frames(rng, 1, 11, 26))
    map_ = case.map(emulated, "float32")
    upstream = np.ones_like(map_)
    d_image, d_parameters = case.gradient(emulated, "float32", map_, upstream)
    for image, parameters in ((d_image, None), (None, d_parameters)):
        found = None if image is None else np.full_like(image, np.nan)
        numbers = None if parameters is None else np.full(4, np.nan)
        emulated.dag_backward(
            *case.arguments("float32"), *map(address, (map_, upstream, found, numbers))
        )
        assert image is None or np.array_equal(found, image)
        assert parameters is None or np.array_equal(numbers, parameters)


@pytest.mark.parametrize("wrong", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 3), (11, 7), (22, 36)])
@pytest.mark.parametrize("published", [False, True])
def test_what_is_no_number_is_seen_in_the_map(emulated, rng, wrong, place, published):
    """To look for it on the host would make every call wait."""
    image = frames(rng, 3, 23, 37) / 255
    given = {"variant": "hung2021", "scaled": True} if published else {}
    whole = Case(image, **given).map(emulated, "float32")
    image[(1, *place)] = wrong
    found = Case(image, **given).map(emulated, "float32")
    assert np.isnan(found[1, 1:]).all()
    np.testing.assert_array_equal(found[::2], whole[::2])


def test_no_frames_and_little_memory(emulated, rng):
    nothing = Case(np.zeros((0, 9, 30), np.float32))
    map_ = nothing.map(emulated, "float32")
    assert map_.shape == (0, 9, 30)
    _, d_parameters = nothing.gradient(emulated, "float32", map_, map_)
    assert not d_parameters.any()
    emulated.set_memory_limit(1000)
    with pytest.raises(MemoryError, match="out of device memory"):
        Case(frames(rng, 1, 9, 30)).map(emulated, "float32")


@pytest.mark.slow
@sanitized.skip_inside
def test_nothing_is_read_or_written_out_of_bounds():
    """The tests of this file once more on a build with AddressSanitizer."""
    sanitized.run_again(__file__, "oracle or strips")
