"""The reverse sweep: against the oracle, differences, ties; what gets a gradient."""

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


@pytest.mark.parametrize("shape", [(12, 9), (7, 4), (20, 31)], ids=str)
@pytest.mark.parametrize("case", [case for case in CASES if case != "nan"])
def test_gradient_equals_oracle(rng, operator, case, shape):
    image = pictures(rng, *shape).requires_grad_()
    given = options(case, rng, shape)
    tensors = numbers(case)
    upstream = torch.from_numpy(rng.standard_normal(shape))
    operator(image, *tensors, **given).backward(upstream)
    named = {name: tensor.item() for name, tensor in zip(NAMES, tensors, strict=True)}
    expected = oracle.gradient(
        image.detach().numpy(), upstream.numpy(), **named, **arrays_of(given)
    )
    scale = np.abs(expected.image).max()
    np.testing.assert_allclose(image.grad.numpy(), expected.image, rtol=0, atol=1e-9 * scale)
    for found, wanted in zip(tensors, expected[1:], strict=True):
        assert found.grad.item() == pytest.approx(wanted, rel=1e-8, abs=1e-11)


@pytest.mark.parametrize("case", CASES)
def test_gradcheck(rng, operator, case):
    image = pictures(rng, 2, 6, 5).requires_grad_()
    given = options(case, rng, (6, 5))
    assert torch.autograd.gradcheck(
        lambda *tensors: operator(*tensors, **given), (image, *numbers(case)), atol=1e-6
    )


def test_ties_share_as_amax_does(rng, operator):
    """8-bit pictures hold their extremes many times; those of the needle's D too."""
    image = torch.from_numpy(rng.integers(0, 4, (10, 9)) / 3.0)
    given = options("soft", rng, (10, 9))
    upstream = torch.from_numpy(rng.standard_normal((10, 9)))
    leaf = image.clone().requires_grad_()
    operator(leaf, *numbers(grad=False), **given).backward(upstream)
    named = dict(zip(NAMES, PARAMETERS, strict=True))
    expected = oracle.gradient(image.numpy(), upstream.numpy(), **named, **arrays_of(given)).image
    np.testing.assert_allclose(
        leaf.grad.numpy(), expected, rtol=0, atol=1e-9 * np.abs(expected).max()
    )


def test_no_decay_has_a_gradient(rng, operator):
    """xi = 1: x = 0, and still d / d xi is finite."""
    image = pictures(rng, 9, 8)
    tensors = numbers()
    tensors[0] = torch.ones((), dtype=torch.float64, requires_grad=True)
    operator(image, *tensors).sum().backward()
    named = dict(zip(NAMES, (1.0, *PARAMETERS[1:]), strict=True))
    expected = oracle.gradient(image.numpy(), np.ones((9, 8)), **named)
    assert tensors[0].grad.item() == pytest.approx(expected.xi, rel=1e-8)
    assert tensors[1].grad.item() == pytest.approx(0.0, abs=1e-12)


def test_steep_powers_stay_finite(rng, operator):
    """rel^power overflows: such edges are closed, and flat."""
    image = torch.zeros((12, 40), dtype=torch.float64)
    image[5, 7] = 1.0
    leaf = image.requires_grad_()
    tensors = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.1, 1, 8, 300.0)]
    ours = operator(leaf, *tensors)
    assert torch.isfinite(ours).all() and (ours >= 0).all() and (ours <= 1).all()
    ours.sum().backward()
    assert all(torch.isfinite(tensor.grad).all() for tensor in (leaf, *tensors))


def test_float32_gradient_is_close(rng, operator):
    """Relative to the largest derivative."""
    image = pictures(rng, 24, 30)
    gradients = []
    for dtype in (torch.float64, torch.float32):
        leaf = image.clone().to(dtype).requires_grad_()
        operator(leaf, *numbers(), dtype=dtype).square().sum().backward()
        assert leaf.grad.dtype == dtype
        gradients.append(leaf.grad.double())
    exact, rough = gradients
    assert (exact - rough).abs().max() <= 1e-4 * exact.abs().max()


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
    step = 1e-8
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
    image, (xi, *others) = pictures(rng, 7, 6), numbers(grad=False)
    xi.requires_grad_()
    operator(image, xi, *others).sum().backward()
    assert image.grad is None and all(tensor.grad is None for tensor in others)
    assert xi.grad.shape == () and xi.grad != 0
    leaf = image.clone().requires_grad_()
    operator(leaf, xi.detach(), *others).sum().backward()
    assert leaf.grad.abs().max() > 0
    bytes_in = (255 * image).to(torch.uint8)
    usconf.dag(bytes_in, xi=xi).sum().backward()  # despeckled: the parameters learn


def test_despeckling_has_none(rng):
    image = pictures(rng, 20, 24).requires_grad_()
    ours = usconf.dag(image)
    with pytest.raises(RuntimeError, match=r"^despeckling has no gradient.*despeckle=None"):
        ours.sum().backward()


def test_references_and_planes_get_none(rng):
    image = pictures(rng, 20, 24).requires_grad_()
    planes = {
        name: pictures(rng, 20, 24).requires_grad_()
        for name in ("reference_map", "needle", "artifact")
    }
    usconf.dag(image, despeckle=None, **planes).sum().backward()
    assert all(plane.grad is None for plane in planes.values())
    normal = pictures(rng, 20, 24).requires_grad_()
    usconf.dag(image, despeckle=None, reference=normal).sum().backward()
    assert normal.grad is None and image.grad is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_gradients_have_the_dtype_of_their_tensor(rng, operator, dtype):
    image = pictures(rng, 8, 7).to(dtype).requires_grad_()
    parameters = numbers(dtype=torch.float32)
    ours = operator(image, *parameters)
    ours.sum().backward()
    assert ours.dtype == torch.float32 and image.grad.dtype == dtype
    assert all(tensor.grad.dtype == torch.float32 for tensor in parameters)


def test_gradients_reach_through_axes(rng):
    clip = pictures(rng, 7, 6, 3).requires_grad_()
    usconf.dag(clip, axes="hwt", despeckle=None).square().sum().backward()
    again = clip.detach().permute(2, 0, 1)[:, None].clone().requires_grad_()
    usconf.dag(again, despeckle=None).square().sum().backward()
    torch.testing.assert_close(clip.grad, again.grad[:, 0].permute(1, 2, 0), rtol=0, atol=0)


def test_gradients_reach_through_a_geometry(rng):
    fan = usconf.Sector(apex=(24, -30), r_min=35, r_max=90, theta_min=-0.3, theta_max=0.3)
    image = pictures(rng, 64, 48).requires_grad_()
    found = usconf.confidence(image, method="dag", geometry=fan, despeckle=None)
    found.square().sum().backward()
    assert (image.grad != 0).float().mean() > 0.3


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


def test_bit_equal_for_any_threads(rng, operator):
    image = pictures(rng, 150, 131, dtype=torch.float32)
    before = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf, tensors = image.clone().requires_grad_(), numbers()
            operator(leaf, *tensors).square().sum().backward()
            found.append([leaf.grad, *(tensor.grad for tensor in tensors)])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for one, same in zip(other, found[0], strict=True):
            assert torch.equal(one, same)
