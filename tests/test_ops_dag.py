"""The DAG as torch operators: equality, compilation, strides, refusals."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import usconf
from reference import dag as oracle

torch = pytest.importorskip("torch")
from dag_tensors import CASES, NAMES, PARAMETERS, arrays_of, numbers, options, pictures  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*non-leaf Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:image (has|looks)"),
]


@pytest.fixture
def operator():
    importlib.import_module("usconf.ops")  # registers
    return torch.ops.usconf.dag


# Equals the paper


@pytest.mark.parametrize("case", CASES)
def test_forward_equals_oracle(rng, operator, case):
    image = pictures(rng, 2, 1, 9, 8)
    given = options(case, rng, image.shape)
    tensors = numbers(case, grad=False)
    ours = operator(image, *tensors, **given)
    named = {name: tensor.item() for name, tensor in zip(NAMES, tensors, strict=True)}
    for frame, found in zip(image[:, 0], ours[:, 0], strict=True):
        expected = oracle.confidence(frame.numpy(), **named, **arrays_of(given))
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_the_public_calls_are_the_same(rng, operator):
    image, normal = pictures(rng, 3, 24, 20), pictures(rng, 24, 20)
    xi, alpha, var, power = PARAMETERS
    named = dict(zip(NAMES, PARAMETERS, strict=True))
    plane = torch.from_numpy(rng.random((3, 24, 20)))
    mask = plane > 0.1
    planes = {"needle": plane, "artifact": 0.5 * plane[0], "mask": mask, "reference": normal}
    for despeckle in ("srad", "median", None):
        given = {"despeckle": despeckle, **planes}
        expected = usconf.dag(
            image.numpy(), axes="thw", **named,
            **{k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in given.items()},
        )  # fmt: skip
        for ours in (
            usconf.dag(image, axes="thw", **named, **given),
            usconf.ops.dag(image, xi, alpha, var, power, **given),
        ):
            np.testing.assert_array_equal(ours.numpy(), expected)


def test_references_and_masks_for_one_or_each(rng):
    image, normal = pictures(rng, 3, 24, 20), pictures(rng, 3, 24, 20)
    mask = torch.from_numpy(rng.random((3, 24, 20)) > 0.1)
    for reference in (normal, normal[0]):
        for valid in (mask, mask[0], None):
            given = {"reference": reference, "mask": valid}
            ours = usconf.dag(image, axes="thw", **given)
            bare = {k: v if v is None else v.numpy() for k, v in given.items()}
            expected = usconf.dag(image.numpy(), axes="thw", **bare)
            np.testing.assert_array_equal(ours.numpy(), expected)
            for k in range(3):
                own = {k_: v[k] if v is not None and v.ndim == 3 else v for k_, v in given.items()}
                assert torch.equal(usconf.dag(image[k], **own), ours[k])
    many = image.reshape(3, 1, 1, 24, 20)
    given = {"reference": normal.reshape(many.shape), "mask": mask.reshape(many.shape)}
    expected = usconf.dag(image, axes="thw", reference=normal, mask=mask)
    assert torch.equal(usconf.ops.dag(many, **given), expected.reshape(many.shape))
    given["reference_map"] = usconf.dag(given.pop("reference"), axes="btchw", mask=given["mask"])
    assert torch.equal(usconf.ops.dag(many, **given), expected.reshape(many.shape))
    normal[0, 5, 6] = torch.inf
    with pytest.raises(ValueError, match=r"^reference must be finite, got 1 .*row 5, column 6"):
        usconf.dag(image, axes="thw", reference=normal)


# Torch citizen


@pytest.mark.parametrize("case", CASES)
def test_opcheck(rng, operator, case):
    shape = (2, 7, 6)
    tensors = (pictures(rng, *shape).requires_grad_(), *numbers(case))
    torch.library.opcheck(operator.default, tensors, options(case, rng, shape))


def test_opcheck_of_the_inner_operators(rng, operator):
    image = pictures(rng, 2, 17, 16)
    inner = torch.ops.usconf
    mask = torch.from_numpy(rng.random((1, 17, 16)) < 0.9)
    for given, nan in ((mask, "raise"), (mask, "mask"), (None, "mask")):
        torch.library.opcheck(inner.dag_valid.default, (image, given, nan))
    for despeckle in ("srad", "median"):
        arguments = (image, mask, despeckle, None, torch.float32)
        torch.library.opcheck(inner.dag_smoothed.default, arguments)
    leaf = image.clone().requires_grad_()
    sweeping = (leaf, None, *numbers(), None, None, None, 3, None, torch.float64)
    torch.library.opcheck(inner.dag_swept.default, (*sweeping, True))
    arguments = (image, mask, *numbers(grad=False), *sweeping[6:])
    map = inner.dag_swept(*arguments, True)
    for wanted in ((True, True), (True, False), (False, True)):
        adjoint = (*arguments, map, torch.ones_like(map), *wanted)
        torch.library.opcheck(inner.dag_backward.default, adjoint)


@pytest.mark.parametrize("case", ["default", "hung2021", "mask", "all"])
def test_compiles_whole_and_dynamic(rng, operator, case):
    given = options(case, rng, (9, 8))
    _, *others = numbers(grad=False)

    def loss(image, xi):
        return operator(image, xi, *others, **given).square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    for frames in (2, 4, 5):
        found = []
        for run in (loss, compiled):
            image = pictures(np.random.default_rng(frames), frames, 9, 8).requires_grad_()
            xi = numbers()[0]
            run(image, xi).backward()
            found += [image.grad, xi.grad]
        torch.testing.assert_close(found[2:], found[:2])


@pytest.mark.parametrize("despeckle", ["srad", None])
def test_the_public_call_compiles_too(rng, despeckle):
    torch._dynamo.reset()
    normal = pictures(rng, 9, 8)

    def call(clip, xi):
        return usconf.dag(clip, xi=xi, axes="thw", reference=normal, despeckle=despeckle)

    compiled = torch.compile(call, fullgraph=True)
    clip = pictures(rng, 3, 9, 8)
    xi = torch.tensor(0.3, requires_grad=True)
    ours = compiled(clip, xi)
    torch.testing.assert_close(ours, call(clip, xi))
    ours.sum().backward()
    assert xi.grad != 0


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
    for name in ("mask", "needle", "artifact"):
        with pytest.raises(ValueError, match=rf"^{name} must .*\(7, 6\).*got \(6, 7\)"):
            operator(image, *fine, **{name: image.T})
    with pytest.raises(ValueError, match=r"^mask must be on the image's device cpu, got meta"):
        operator(image, *fine, mask=torch.ones((7, 6), device="meta"))
    with pytest.raises(ValueError, match=r"^reference must have shape .*got \(6, 7\)"):
        usconf.ops.dag(image, reference=image.T)
    with pytest.raises(ValueError, match=r"^variant must .*got 'older'"):
        operator(image, *fine, variant="older")
    with pytest.raises(ValueError, match=r"^mask must be left out"):
        operator(image, *fine, variant="hung2021", mask=image)
    with pytest.raises(ValueError, match=r"^xi must .*got 2"):
        operator(image, 2 * torch.ones(()), *fine[1:])
    with pytest.raises(ValueError, match=r"^var must .*0-d tensor, got shape \(2,\)"):
        usconf.dag(image, var=torch.ones(2))
    with pytest.raises(ValueError, match=r"^artifact must hold probabilities"):
        operator(image, *fine, artifact=9 * image)
    with pytest.raises(ValueError, match=r"^half_width must be at least 0, got -1"):
        operator(image, *fine, half_width=-1)
    with pytest.raises(ValueError, match=r"^reference must hold rows for one frame or 1, got 3"):
        operator(image, *fine, reference=torch.ones((3, 7)))
    image[3, 4] = torch.nan
    for despeckle in ("srad", None):
        with pytest.raises(ValueError, match=r"^image must be finite, got 1 .*row 3, column 4"):
            operator(image, *fine, despeckle=despeckle)
    with pytest.raises(ValueError, match=r"^image must be finite"):
        torch.compile(operator, fullgraph=True)(image, *fine)


# Devices


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_cuda_equals_cpu(rng, operator, case, dtype):
    slack = {"float32": 2e-6, "float64": 1e-11}[dtype]
    image = pictures(rng, 3, 41, 37)
    given = options(case, rng, (41, 37))
    upstream = torch.from_numpy(rng.standard_normal(image.shape)).to(getattr(torch, dtype))
    found = []
    for device in ("cpu", "cuda"):
        leaf = image.to(device).requires_grad_()
        tensors = numbers(case)
        planes = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        ours = operator(leaf, *tensors, dtype=getattr(torch, dtype), **planes)
        assert ours.device.type == device
        ours.backward(upstream.to(device))
        found.append([ours.cpu(), leaf.grad.cpu(), *(tensor.grad for tensor in tensors)])
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=slack)
    for cuda, cpu in zip(found[1][1:], found[0][1:], strict=True):
        scale = cpu.abs().max().item()
        torch.testing.assert_close(cuda, cpu, rtol=0, atol=30 * slack * scale)


@pytest.mark.cuda
@pytest.mark.parametrize("despeckle", ["srad", "median"])
def test_cuda_despeckles_alike(rng, despeckle):
    image = torch.from_numpy(rng.integers(1, 256, (2, 1, 90, 77), np.uint8))
    mask = torch.from_numpy(rng.random((90, 77)) < 0.8)
    for given in ({}, {"mask": mask}):
        fixed = {"iterations": 20, "tolerance": 0} if despeckle == "srad" else {}
        cpu = usconf.despeckle(image, despeckle, **given, **fixed)
        cuda = usconf.despeckle(image.cuda(), despeckle, **given, **fixed)
        assert cuda.is_cuda
        torch.testing.assert_close(cuda.cpu(), cpu, rtol=0, atol=255 * 2e-5)
        ours = usconf.dag(image.cuda(), despeckle=despeckle, reference=image[0, 0], **given)
        wanted = usconf.dag(image, despeckle=despeckle, reference=image[0, 0], **given)
        assert ours.is_cuda
        torch.testing.assert_close(ours.cpu(), wanted, rtol=0, atol=2e-3)
