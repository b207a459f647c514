"""Scan conversion as torch operators: exact adjoints, derivatives, compilation."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import usconf
from reference import scan_conversion as oracle
from test_scan_conversion import BOTH, CASES, EITHER, expected, plan_of, shapes
from usconf import scan_conversion

pytestmark = [
    pytest.mark.torch,
    # raised inside torch's own modules when it compiles or when opcheck compares gradients
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*non-leaf Tensor:UserWarning"),
]
torch = pytest.importorskip("torch")

# Small pictures for numerical derivatives, with masked samples and clamped borders.
SMALL = {
    "sector": oracle.Plan(0, (3.2, -2, 2.5, 8, -0.7, 0.5, 1, 1, 0, 0), 6, 5, 7, 6),
    "quad": oracle.Plan(1, (1, 0.5, 4, 0, 5.5, 5, -1, 6, 1, 1), 5, 6, 7, 6),
}


@pytest.fixture(autouse=True)
def operators():
    importlib.import_module("usconf.ops")  # registers
    return torch.ops.usconf


def call(name, plan, nearest=False):
    """tensor -> result of an operator of ours (without the mask)"""
    beam, scan = (plan.samples, plan.lines), (plan.height, plan.width)
    target = beam if name in ("to_beam", "to_scan_transpose") else scan
    operator = getattr(torch.ops.usconf, name)

    def apply(source):
        made = operator(source, plan.kind, list(plan.values), *target, nearest)
        return made[0] if isinstance(made, tuple) else made

    return apply


def source_shape(name, plan):
    beam, scan = (plan.samples, plan.lines), (plan.height, plan.width)
    return scan if name in ("to_beam", "to_scan_transpose") else beam


NAMES = ["to_beam", "to_beam_transpose", "to_scan", "to_scan_transpose"]
ALL = pytest.mark.parametrize("name", NAMES)


def uniform(rng, *shape, dtype=torch.float64):
    return torch.from_numpy(rng.random(shape)).to(dtype)


# Transposes


@EITHER
@BOTH
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_transpose_equals_oracle(rng, direction, case, dtype, interpolation):
    plan = plan_of(*CASES[case])
    source, target = shapes(direction, case)
    d_target = rng.standard_normal((2, *target)).astype(dtype)
    apply = call(f"{direction}_transpose", plan, interpolation == "nearest")
    ours = apply(torch.from_numpy(d_target)).numpy()
    matrix = expected(direction, case, interpolation).matrix
    flat = d_target.reshape(2, -1).astype(np.float64)
    exact = (matrix.T @ flat.T).T.reshape(2, *source)
    # sums of many terms, whose weights are rounded like numbers near 1
    scale = ((matrix != 0).T @ np.abs(flat).T).T.reshape(2, *source) + 1e-3
    slack = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-13}[dtype]
    assert ours.dtype == dtype and (np.abs(ours - exact) / scale).max() <= slack


@EITHER
@BOTH
@pytest.mark.parametrize(("dtype", "slack"), [("float32", 1e-6), ("float64", 1e-13)])
@pytest.mark.parametrize("case", CASES)
def test_adjointness(rng, direction, case, interpolation, dtype, slack):
    """<Sx, y> = <x, S'y>, with the gradient as S'."""
    plan, (source, target) = plan_of(*CASES[case]), shapes(direction, case)
    x = uniform(rng, *source, dtype=getattr(torch, dtype)).requires_grad_()
    y = uniform(rng, *target, dtype=x.dtype)
    image = call(direction, plan, interpolation == "nearest")(x)
    (back,) = torch.autograd.grad(image, x, y)
    one = (image.detach().double() * y.double()).sum().item()
    other = (x.detach().double() * back.double()).sum().item()
    assert one > 1 and one == pytest.approx(other, rel=slack)


@EITHER
def test_any_number_of_threads_to_the_last_bit(rng, direction):
    geometry = usconf.Sector((255.5, -90), 110, 590, -0.62, 0.58)
    plan = plan_of(geometry, (512, 512), (512, 256))
    apply = call(f"{direction}_transpose", plan)
    gradient = uniform(rng, 2, *source_shape(f"{direction}_transpose", plan), dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            found.append(apply(gradient))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], later) for later in found[1:])
    assert torch.equal(apply(gradient[1]), found[0][1])


# Derivatives


@ALL
@BOTH
@pytest.mark.parametrize("geometry", SMALL)
def test_gradcheck_twice(rng, name, geometry, interpolation):
    plan = SMALL[geometry]
    source = uniform(rng, 2, *source_shape(name, plan)).requires_grad_()
    apply = call(name, plan, interpolation == "nearest")
    assert torch.autograd.gradcheck(apply, source)
    assert torch.autograd.gradgradcheck(apply, source)


def test_derivatives_of_the_public_functions(rng):
    geometry, scan, beam = CASES["oblong pixels"]
    clip = uniform(rng, *scan, 2).requires_grad_()
    beams, mask = usconf.to_beam(clip, geometry, beam, axes="hwt")
    assert not mask.requires_grad and beams.shape == (*beam, 2)
    back, mask = usconf.to_scan(beams.square(), geometry, scan, axes="hwt")
    back.sum().backward()
    there, rolled = (getattr(oracle, name)(plan_of(*CASES["oblong pixels"])) for name in NAMES[::2])
    frames = clip.detach().numpy().transpose(2, 0, 1)
    d_beams = 2 * there(frames).reshape(2, -1) * np.asarray(rolled.matrix.sum(0)).ravel()
    exact = (there.matrix.T @ d_beams.T).reshape(*scan, 2)
    np.testing.assert_allclose(clip.grad.numpy(), exact, rtol=0, atol=1e-10)


@EITHER
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_have_the_dtype_of_their_tensor(rng, direction, dtype):
    plan = SMALL["sector"]
    source = uniform(rng, 3, *source_shape(direction, plan), dtype=dtype).requires_grad_()
    image = call(direction, plan)(source)
    image.sum().backward()
    assert image.dtype == source.grad.dtype == dtype and source.grad.abs().sum() > 0


def test_integers_have_no_gradient(rng):
    image = torch.ones(7, 6, dtype=torch.uint8)
    assert not call("to_beam", SMALL["sector"])(image).requires_grad
    with pytest.raises(TypeError, match=r"^gradient must be floating point, got uint8"):
        call("to_scan_transpose", SMALL["sector"])(image)


# Torch citizen


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(rng, operators, name, dtype):
    plan = SMALL["sector"]
    source = uniform(rng, 2, 3, *source_shape(name, plan), dtype=dtype).requires_grad_()
    beam, scan = (plan.samples, plan.lines), (plan.height, plan.width)
    target = beam if name in ("to_beam", "to_scan_transpose") else scan
    arguments = (source, plan.kind, list(plan.values), *target, True)
    torch.library.opcheck(getattr(operators, name).default, arguments)


def test_opcheck_of_integers(operators):
    image = torch.ones(2, 7, 6, dtype=torch.uint8)
    values = list(SMALL["quad"].values)
    torch.library.opcheck(operators.to_beam.default, (image, 1, values, 5, 6))
    torch.library.opcheck(operators.to_scan.default, (image, 1, values, 9, 8))


def test_compiles_whole_and_dynamic(operators):
    def loss(image, samples):
        beams, mask = operators.to_beam(image, 0, values, samples, 5)
        rolled, _ = operators.to_scan(beams.square(), 0, values, *image.shape[-2:], True)
        return rolled.sum() + mask.sum()

    values = list(SMALL["sector"].values)
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    for frames, height, width, samples in ((2, 7, 6, 6), (3, 9, 8, 7), (5, 8, 11, 4)):
        found = []
        for run in (loss, compiled):
            image = uniform(np.random.default_rng(1), frames, height, width).requires_grad_()
            value = run(image, samples)
            value.backward()
            found += [value.detach(), image.grad]
        torch.testing.assert_close(found[2:], found[:2])
        assert found[1].abs().sum() > 0


@pytest.mark.parametrize("case", ["convex", "no face", "crooked"])
def test_the_public_calls_compile_too(rng, case):
    geometry, scan, beam = CASES[case]

    def both(clip):
        beams = usconf.to_beam(clip, geometry, beam, axes="thw").image
        return usconf.to_scan(beams, geometry, scan, axes="thw", interpolation="nearest")

    torch._dynamo.reset()
    compiled = torch.compile(both, fullgraph=True)
    clip = uniform(rng, 3, *scan).requires_grad_()
    ours, mask = compiled(clip)
    exact, wanted = both(clip)
    torch.testing.assert_close(ours, exact)
    assert torch.equal(mask, wanted)
    ours.sum().backward()
    assert clip.grad.abs().sum() > 0


def test_compiled_calls_see_another_geometry(rng):
    torch._dynamo.reset()
    compiled = torch.compile(lambda image, fan: usconf.to_beam(image, fan).image, fullgraph=True)
    for r_min, width in ((30, 121), (31, 121), (31, 90), (32.5, 90), (None, 90), (30, 121)):
        fan = usconf.Sector((60, -20), r_min, 110, -0.5, 0.5)
        image = uniform(rng, 100, width)
        torch.testing.assert_close(compiled(image, fan), usconf.to_beam(image, fan).image)


@ALL
def test_strides(rng, name):
    plan = SMALL["quad"]
    apply, (rows, columns) = call(name, plan), source_shape(name, plan)
    wide = uniform(rng, 2 * rows, 2 * columns)
    for view in (
        wide[::2, ::2],
        wide[:rows, :columns].flip(0),
        wide.T.contiguous().T[:rows, :columns],
        wide[:rows, :1].expand(rows, columns),
    ):
        torch.testing.assert_close(apply(view), apply(view.contiguous()), rtol=0, atol=0)
    leaf = wide[:rows, :columns].clone().requires_grad_()
    apply(leaf).sum().backward()  # of strides 0
    dense = leaf.detach().clone().requires_grad_()
    apply(dense).backward(torch.ones_like(apply(dense)))
    assert torch.equal(leaf.grad, dense.grad)


@ALL
@pytest.mark.parametrize("leading", [(), (1,), (0,), (2, 3), (2, 0, 3)], ids=str)
def test_leading_axes_are_frames(rng, name, leading):
    plan = SMALL["sector"]
    source = uniform(rng, *leading, *source_shape(name, plan))
    ours = call(name, plan)(source)
    assert ours.shape[:-2] == leading
    flat = source.reshape(-1, *source.shape[-2:])
    for frame, image in zip(flat, ours.reshape(len(flat), *ours.shape[-2:]), strict=True):
        assert torch.equal(call(name, plan)(frame), image)


@ALL
@pytest.mark.parametrize("kind", [0, 1])
def test_one_by_one(name, kind):
    """One sample lies at the start of the first line."""
    values = (0, -1, 1, 2, 0, 0.5, 1, 1, 0, 0), (0, 0, 2, 0, 2, 2, 0, 2, 1, 1)
    plan = oracle.Plan(kind, values[kind], 1, 1, 1, 1)
    source = torch.full((1, 1), 3.0, requires_grad=True)
    ours = call(name, plan)(source)
    ours.backward(torch.full((1, 1), 2.0))
    assert ours.item() == 3 and source.grad.item() == 2


def test_tensors_take_the_threads_of_torch(monkeypatch):
    taken, core = [], scan_conversion._core

    class Spy:
        def __getattr__(self, name):
            return getattr(core, name)

        def scan_conversion(self, *arguments):
            taken.append(arguments[-3])
            return core.scan_conversion(*arguments)

    monkeypatch.setattr(scan_conversion, "_core", Spy())
    geometry, image = usconf.Linear(0, 5, 0, 6), np.ones((7, 6))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        usconf.to_beam(torch.from_numpy(image), geometry)
        usconf.to_beam(image, geometry)
    finally:
        torch.set_num_threads(before)
    assert taken == [1, usconf.get_num_threads()]


# Real devices


@pytest.mark.cuda
@ALL
@BOTH
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_cuda_equals_cpu(rng, name, case, dtype, interpolation):
    plan = plan_of(*CASES[case])
    apply = call(name, plan, interpolation == "nearest")
    source = uniform(rng, 3, *source_shape(name, plan), dtype=getattr(torch, dtype))
    ours = apply(source.cuda())
    assert ours.is_cuda and ours.dtype == source.dtype
    slack = {"float16": 2e-3, "float32": 1e-5, "float64": 1e-11}[dtype]
    torch.testing.assert_close(ours.cpu(), apply(source), rtol=slack, atol=slack)


@pytest.mark.cuda
@EITHER
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_cuda_integers_and_masks(rng, direction, dtype):
    geometry, *_ = CASES["cropped sides"]
    source, target = shapes(direction, "cropped sides")
    image = torch.from_numpy(rng.integers(0, 256, (2, 1, *source), np.uint8))
    image = image.to(getattr(torch, dtype))
    operator = getattr(usconf, direction)
    ours, mask = operator(image.cuda(), geometry, target)
    exact, wanted = operator(image, geometry, target)
    assert mask.is_cuda and torch.equal(mask.cpu(), wanted)
    assert (ours.cpu().int() - exact.int()).abs().max() <= 1  # halves may tip


# Refuses


def test_refuses(rng, operators):
    plan = SMALL["sector"]
    image, values = uniform(rng, 7, 6), list(plan.values)
    with pytest.raises(ValueError, match=r"^image must have two last axes.*got shape \(6,\)"):
        operators.to_beam(image[0], 0, values, 5, 5)
    with pytest.raises(ValueError, match=r"^gradient must have two last axes.*got shape \(0, 6\)"):
        operators.to_scan_transpose(image[:0], 0, values, 5, 5)
    with pytest.raises(ValueError, match=r"^geometry must be ten numbers.*got 9 of kind 0"):
        operators.to_beam(image, 0, values[1:], 5, 5)
    with pytest.raises(ValueError, match=r"^geometry must be ten numbers.*got 10 of kind 2"):
        operators.to_scan(image, 2, values, 5, 5)
    with pytest.raises(ValueError, match=r"^shape must be two sizes.*got \(5, 0\)"):
        operators.to_beam(image, 0, values, 5, 0)
    with pytest.raises(TypeError, match=r"^image must be of dtype.*got int64"):
        operators.to_beam(image.long(), 0, values, 5, 5)
    with pytest.raises(TypeError, match=r"^image must .*CPU or a CUDA device.*got meta"):
        usconf.to_beam(image.to("meta"), usconf.Linear(0, 5, 0, 6))
    with pytest.raises(TypeError, match=r"^beam must .*dense"):
        usconf.to_scan(image.to_sparse(), usconf.Linear(0, 5, 0, 6), (9, 9))
