"""The random walk as torch operators: gradients, compilation, memory."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import usconf
from reference import random_walk as oracle

pytestmark = [
    pytest.mark.torch,
    # raised inside torch's own modules when it compiles or when opcheck compares gradients
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*non-leaf Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex"),
]
torch = pytest.importorskip("torch")

# Away from the presets, so that every parameter matters on tiny pictures.
PARAMETERS = (1.3, 12.0, 0.15)
CASES = {
    "default": {},
    "RF": {"mode": "RF"},
    "mid": {"sink": "mid"},
    "min": {"sink": "min"},
    "older": {"variant": "monai_1_3"},
    "iterative": {"solver": "iterative"},
    "mask": {"mask": True},
    "RF mask": {"mode": "RF", "mask": True},
    "sinks": {"sink": "mask", "sink_mask": True},
    "nan": {"nan": "mask"},
}


@pytest.fixture
def operator():
    importlib.import_module("usconf.ops")  # registers
    return torch.ops.usconf.random_walk


def pictures(rng, *shape, dtype=torch.float64):
    """Distinct values: no ties in the extremes, where the derivative jumps."""
    values = rng.permutation(np.prod(shape)) + 0.5 * rng.random(np.prod(shape))
    return torch.from_numpy((values / values.max()).reshape(shape)).to(dtype)


def numbers(dtype=torch.float64, grad=True):
    return [torch.tensor(value, dtype=dtype, requires_grad=grad) for value in PARAMETERS]


def options(case, rng, shape):
    found = dict(CASES[case])
    if "mask" in found:
        valid = rng.random(shape) < 0.85
        valid[..., 2:, :] |= valid[..., :-2, :]
        found["mask"] = torch.from_numpy(valid)
    if "sink_mask" in found:
        found["sink_mask"] = torch.zeros(shape, dtype=torch.bool)
        found["sink_mask"][..., -3:-1, 1:3] = True
    return found


class Spy:
    """The core, with a note of every solve (kept a factor?) and adjoint (had one?)."""

    def __init__(self, core):
        self._core = core
        self.solves, self.adjoints = [], []

    def __getattr__(self, name):
        return getattr(self._core, name)

    def random_walk(self, *arguments):
        self.solves.append(bool(arguments[-1]))
        return self._core.random_walk(*arguments)

    def random_walk_backward(self, *arguments):
        self.adjoints.append(bool(arguments[-4]))
        return self._core.random_walk_backward(*arguments)


@pytest.fixture
def spy(monkeypatch):
    from usconf import walk

    watching = Spy(walk._core)
    monkeypatch.setattr(walk, "_core", watching)
    return watching


# Equals the paper


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_numpy(rng, operator, case):
    image = pictures(rng, 2, 1, 9, 8)
    given = options(case, rng, (2, 1, 9, 8))
    ours = operator(image, *numbers(grad=False), **given)
    alpha, beta, gamma = PARAMETERS
    masks = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    expected = usconf.random_walk(image.numpy(), alpha=alpha, beta=beta, gamma=gamma, **masks)
    np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-10)


# Gradient


@pytest.mark.parametrize("case", ["default", "RF", "mid", "older", "mask", "RF mask", "sinks"])
def test_gradient_equals_oracle(rng, operator, case):
    image = pictures(rng, 12, 9).requires_grad_()
    given = options(case, rng, (12, 9))
    alpha, beta, gamma = numbers()
    upstream = torch.from_numpy(rng.standard_normal((12, 9)))
    operator(image, alpha, beta, gamma, **given).backward(upstream)
    masks = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    named = dict(zip(("alpha", "beta", "gamma"), PARAMETERS, strict=True))
    expected = oracle.gradient(image.detach().numpy(), upstream.numpy(), **named, **masks)
    scale = np.abs(expected.image).max()
    np.testing.assert_allclose(image.grad.numpy(), expected.image, rtol=0, atol=1e-9 * scale)
    for found, wanted in zip((alpha, beta, gamma), expected[1:], strict=True):
        assert found.grad.item() == pytest.approx(wanted, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("case", ["default", "RF", "mid", "older", "mask", "RF mask", "sinks"])
def test_gradcheck(rng, operator, case):
    image = pictures(rng, 2, 6, 5).requires_grad_()
    given = options(case, rng, (6, 5))
    assert torch.autograd.gradcheck(
        lambda *tensors: operator(*tensors, **given), (image, *numbers()), atol=1e-6
    )


def test_float32_gradient_is_close(rng, operator):
    """Relative to the largest derivative; the map itself is refined in float64."""
    image = pictures(rng, 24, 20)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        leaf = image.clone().to(dtype).requires_grad_()
        operator(leaf, *numbers(), dtype=dtype).square().sum().backward()
        assert leaf.grad.dtype == dtype
        gradients.append(leaf.grad.double())
    exact, rough = gradients
    assert (exact - rough).abs().max() <= 1e-4 * exact.abs().max()


@pytest.mark.filterwarnings("ignore:.*fit_support")
def test_finite_differences_on_a_real_frame(frames, operator):
    image = torch.from_numpy(frames("linear/muscle_S1")[60:140, 200:264].astype(np.float64))
    generator = torch.Generator().manual_seed(3)
    # Full-range noise below one gray level parts the ties of an 8-bit picture.
    image = (image + 0.5 * torch.rand(image.shape, generator=generator, dtype=torch.float64)) / 255
    upstream = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    leaf = image.clone().requires_grad_()
    tensors = numbers()

    def loss(pixels, *parameters):
        return (upstream * operator(pixels, *parameters)).sum()

    loss(leaf, *tensors).backward()
    step = 1e-7
    plain = [tensor.detach() for tensor in tensors]
    slope = loss(image + step * direction, *plain) - loss(image - step * direction, *plain)
    along = (leaf.grad * direction).sum()
    assert slope.item() / (2 * step) == pytest.approx(along.item(), rel=1e-4)
    for index, tensor in enumerate(tensors):
        width = 1e-5 * tensor.item()
        ends = []
        for sign in (1, -1):
            moved = list(plain)
            moved[index] = plain[index] + sign * width
            ends.append(loss(image, *moved))
        slope = (ends[0] - ends[1]).item() / (2 * width)
        assert slope == pytest.approx(tensor.grad.item(), rel=1e-5)


def test_only_what_is_asked_for_gets_a_gradient(rng, operator):
    image, (alpha, beta, gamma) = pictures(rng, 7, 6), numbers(grad=False)
    beta.requires_grad_()
    operator(image, alpha, beta, gamma).sum().backward()
    assert image.grad is None and alpha.grad is None and gamma.grad is None
    assert beta.grad.shape == () and beta.grad != 0
    bytes_in = (255 * image).to(torch.uint8)
    usconf.random_walk(bytes_in, beta=beta).sum().backward()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_have_the_dtype_of_their_tensor(rng, operator, dtype):
    image = pictures(rng, 8, 7).to(dtype).requires_grad_()
    parameters = numbers(torch.float32)
    ours = operator(image, *parameters)
    ours.sum().backward()
    assert ours.dtype == torch.float32 and image.grad.dtype == dtype
    assert all(tensor.grad.dtype == torch.float32 for tensor in parameters)


def test_gradients_reach_through_axes(rng):
    clip = pictures(rng, 7, 6, 3).requires_grad_()
    usconf.random_walk(clip, axes="hwt").square().sum().backward()
    again = clip.detach().permute(2, 0, 1)[:, None].clone().requires_grad_()
    usconf.random_walk(again).square().sum().backward()
    torch.testing.assert_close(clip.grad, again.grad[:, 0].permute(1, 2, 0), rtol=0, atol=0)


def test_parameters_sum_over_frames(rng, operator):
    image = pictures(rng, 3, 7, 6)
    together = numbers()
    operator(image, *together).sum().backward()
    single = numbers()
    for frame in image:
        operator(frame, *single).sum().backward()
    for one, other in zip(together, single, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_no_second_derivatives(rng, operator):
    image = pictures(rng, 6, 5).requires_grad_()
    loss = operator(image, *numbers(grad=False)).sum()
    (slope,) = torch.autograd.grad(loss, image, create_graph=True)
    with pytest.raises(RuntimeError, match="once only"):
        slope.sum().backward()


# What is kept


def test_without_gradient_nothing_is_kept(rng, operator, spy):
    image = pictures(rng, 8, 7)
    operator(image, *numbers(grad=False))
    leaf = image.clone().requires_grad_()
    with torch.no_grad():
        operator(leaf, *numbers())
    assert spy.solves == [False, False]
    operator(leaf, *numbers()).sum().backward()
    assert spy.solves == [False, False, True] and spy.adjoints == [True]


def test_refactored_equals_kept(rng, operator, spy):
    image = pictures(rng, 2, 30, 26)
    gradients = []
    for limit in (None, "tight"):
        leaf, parameters = image.clone().requires_grad_(), numbers()
        if (
            limit
        ):  # room for the solve, which keeps one factor at a time, not for those of both frames
            from usconf.walk import Walk

            walk = Walk(image, *PARAMETERS, dtype="float64")
            limit = walk.memory("direct") + walk.factor_bytes() // 2 - 1
        operator(leaf, *parameters, memory_limit=limit).square().sum().backward()
        gradients.append([leaf.grad, *(tensor.grad for tensor in parameters)])
    assert spy.solves == spy.adjoints == [True, False]
    for kept, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, kept, rtol=1e-9, atol=1e-12)


def test_large_frames_store_a_share_of_their_tiles(rng, operator):
    """A float gradient takes the factor as it is, a double one refines it: both must agree."""
    image = torch.from_numpy(rng.random((60, 40000)))
    gradients = []
    for dtype in (torch.float32, torch.float64):
        leaf = image.to(dtype).requires_grad_()
        operator(leaf, *numbers(), solver="direct", dtype=dtype).square().sum().backward()
        gradients.append(leaf.grad.double())
    rough, exact = gradients
    assert (exact - rough).abs().max() <= 1e-4 * exact.abs().max()


def test_offloaded_tensors_are_eliminated_again(rng, operator, spy):
    """Hooks copy the one byte a tracer sees, not the factors behind it."""
    image, gradients = pictures(rng, 9, 8), []
    copying = torch.autograd.graph.saved_tensors_hooks(torch.clone, lambda tensor: tensor)
    for hooks in (None, copying):
        leaf = image.clone().requires_grad_()
        if hooks:
            with hooks:
                loss = operator(leaf, *numbers()).square().sum()
        else:
            loss = operator(leaf, *numbers()).square().sum()
        loss.backward()
        gradients.append(leaf.grad)
    assert spy.adjoints == [True, False]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-9, atol=1e-12)


# Torch citizen


@pytest.mark.parametrize("case", CASES)
def test_opcheck(rng, operator, case):
    shape = (2, 7, 6)
    tensors = (pictures(rng, *shape).requires_grad_(), *numbers())
    torch.library.opcheck(operator.default, tensors, options(case, rng, shape))


def test_opcheck_of_the_inner_operators(rng, operator):
    image = pictures(rng, 2, 7, 6)
    inner = torch.ops.usconf
    for sink in ("all", "mid", "min"):
        arguments = (image, None, None, "B", sink, "raise")
        torch.library.opcheck(inner.random_walk_seeds.default, arguments)
    settings = (None, "all", True, "auto", None, torch.float64)
    solving = (image.clone().requires_grad_(), None, *numbers(), *settings, True)
    # The second output is the head of the factors: opaque bytes.
    torch.library.opcheck(inner.random_walk_factored.default, solving)
    arguments = (image, None, *numbers(grad=False), *settings)
    map, factor = inner.random_walk_factored(*arguments, True)
    for wanted in (True, False):
        adjoint = (*arguments, map, factor, torch.ones_like(map), wanted)
        torch.library.opcheck(inner.random_walk_backward.default, adjoint)


@pytest.mark.parametrize("case", ["default", "RF", "min", "mask"])
def test_compiles_whole_and_dynamic(rng, operator, case, spy):
    given = options(case, rng, (9, 8))
    alpha, _, gamma = numbers(grad=False)

    def loss(image, beta):
        return operator(image, alpha, beta, gamma, **given).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    for frames in (2, 4, 5):
        found = []
        for run in (loss, compiled):
            image = pictures(np.random.default_rng(frames), frames, 9, 8).requires_grad_()
            beta = numbers()[1]
            run(image, beta).backward()
            found += [image.grad, beta.grad]
        torch.testing.assert_close(found[2:], found[:2])
    assert all(spy.solves) and all(spy.adjoints)
    with torch.no_grad():
        assert compiled(image, beta) == pytest.approx(loss(image, beta).item())


def test_the_public_call_compiles_too(rng):
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda clip, beta: usconf.random_walk(clip, beta=beta, axes="thw"), fullgraph=True
    )
    clip = pictures(rng, 3, 9, 8)
    beta = torch.tensor(50.0, requires_grad=True)
    ours = compiled(clip, beta)
    torch.testing.assert_close(ours, usconf.random_walk(clip, beta=beta, axes="thw"))
    ours.sum().backward()
    assert beta.grad != 0


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (1, 5), (5, 1), (3, 2, 2), (0, 4, 4), (0, 1, 1, 1)], ids=str
)
def test_smallest_frames(rng, operator, shape):
    image = (pictures(rng, *shape) if 0 not in shape else torch.empty(shape)).requires_grad_()
    parameters = numbers()
    ours = operator(image, *parameters)
    assert ours.shape == shape
    ours.sum().backward()
    assert image.grad.shape == shape and torch.isfinite(image.grad).all()
    assert all(torch.isfinite(tensor.grad) for tensor in parameters)


def test_strides(rng, operator):
    wide = pictures(rng, 12, 14)
    upstream = torch.from_numpy(rng.standard_normal((12, 14)))
    for cut in (
        lambda tensor: tensor[::2, ::2],
        lambda tensor: tensor.T,
        lambda tensor: tensor[:, :1].expand(12, 6),
        lambda tensor: tensor.flip(0),
    ):
        leaf = wide.clone().requires_grad_()
        ours = operator(cut(leaf), *numbers(grad=False))
        ours.backward(cut(upstream))  # the gradient arrives strided too
        plain = cut(wide).contiguous().clone().requires_grad_()
        operator(plain, *numbers(grad=False)).backward(cut(upstream).contiguous())
        through = wide.clone().requires_grad_()
        cut(through).backward(plain.grad)
        torch.testing.assert_close(leaf.grad, through.grad)


def test_leading_axes_are_frames(rng, operator):
    image = pictures(rng, 2, 3, 1, 7, 6)
    ours = operator(image, *numbers(grad=False))
    assert ours.shape == image.shape
    each = torch.stack([operator(f, *numbers(grad=False)) for f in image.reshape(6, 7, 6)])
    torch.testing.assert_close(ours.reshape(6, 7, 6), each)


# Refuses


def test_refuses(rng, operator):
    image, fine = pictures(rng, 7, 6), numbers(grad=False)
    with pytest.raises(ValueError, match=r"^image must be \(\.\.\., H, W\).*got shape \(6,\)"):
        operator(image[0], *fine)
    with pytest.raises(ValueError, match=r"^mask must .*\(7, 6\).*got \(6, 7\)"):
        operator(image, *fine, mask=image.T)
    with pytest.raises(ValueError, match=r"^sink_mask must .*got None"):
        operator(image, *fine, sink="mask")
    with pytest.raises(ValueError, match=r"^mode must .*got 'M'"):
        operator(image, *fine, mode="M")
    with pytest.raises(ValueError, match=r"^beta must .*got -1"):
        operator(image, fine[0], -torch.ones(()), fine[2])
    with pytest.raises(ValueError, match=r"^beta must .*0-d tensor, got shape \(2,\)"):
        usconf.random_walk(image, beta=torch.ones(2))
    image[3, 4] = torch.nan
    for mode in ("B", "RF"):
        with pytest.raises(ValueError, match=r"^image must be finite, got 1 .*row 3, column 4"):
            operator(image, *fine, mode=mode)
    with pytest.raises(ValueError, match=r"^image must be finite"):
        torch.compile(operator, fullgraph=True)(image, *fine)


def test_too_large_is_a_memory_error(operator):
    large = torch.zeros((), dtype=torch.uint8).expand(20_000, 20_000)
    with pytest.raises(MemoryError, match=r"memory_limit = 1 GB"):
        operator(large, *numbers(grad=False), memory_limit=10**9)
