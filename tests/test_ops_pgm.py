"""The annotation model's loss as torch operators: gradients, compilation, dtypes, refusals."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import usconf
from reference import pgm as oracle

torch = pytest.importorskip("torch")

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*non-leaf Tensor:UserWarning"),
]

LAW = {"gamma": 7.0, "s": 0.01, "sigma": 0.3}
CASES = ["plain", "mask", "own masks", "weights", "constants"]


@pytest.fixture
def operators():
    importlib.import_module("usconf.ops")  # registers
    return torch.ops.usconf


def scene(rng, *shape, logits=True, dtype=torch.float64):
    z = torch.from_numpy(2 * rng.standard_normal(shape))
    value = (z if logits else z.sigmoid()).to(dtype)
    return value.requires_grad_(), torch.from_numpy(rng.integers(0, 3, shape).astype(np.uint8))


def settings(rng, case, shape):
    if case == "mask":
        return {"mask": torch.from_numpy(rng.random(shape[-2:]) > 0.3)}
    if case == "own masks":
        return {"mask": torch.from_numpy(rng.random(shape) > 0.3)}
    if case == "weights":
        return {"label_weights": (0.5, 3.0, 2.0)}
    return {"constants": True} if case == "constants" else {}


def theirs(given):
    """The oracle's names."""
    named = {"mask": "mask", "label_weights": "weights", "constants": "constants"}
    return {
        named[key]: value.numpy() if isinstance(value, torch.Tensor) else value
        for key, value in given.items()
    }


def plain(value, labels, reduction="mean", from_logits=True, mask=None, constants=False,
          label_weights=(1, 1, 1), gamma=75.0, s=3 / 2560, sigma=0.25):  # fmt: skip
    """The energy in torch's own operators."""
    valid = torch.ones_like(labels, dtype=torch.bool) if mask is None else mask.expand(labels.shape)
    if from_logits:
        log_x, log_rest = (
            -torch.nn.functional.softplus(-value),
            -torch.nn.functional.softplus(value),
        )
        x = value.sigmoid()
    else:
        x, log_x, log_rest = value, value.log(), torch.log1p(-value)
    none = constants * oracle.LN_BETA - 0.1 * (log_x + log_rest)
    good, bad = -constants * oracle.LN_5 - 4 * log_x, -constants * oracle.LN_5 - 4 * log_rest
    unary = torch.where(
        labels == 1, label_weights[1] * good,
        torch.where(labels == 2, label_weights[2] * bad, label_weights[0] * none),
    )  # fmt: skip
    rise = torch.relu(log_x[..., 1:, :] - log_x[..., :-1, :] + s)
    step = (x[..., 1:] - x[..., :-1]).square()
    total = (unary * valid).sum()
    total = total + gamma * (rise * (valid[..., 1:, :] & valid[..., :-1, :])).sum()
    total = total + sigma * (step * (valid[..., 1:] & valid[..., :-1])).sum()
    return total / valid.sum() if reduction == "mean" else total


# Gradient


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_gradient_equals_oracle_and_autograd(rng, case, logits):
    for shape in ((2, 1, 37, 41), (16, 64), (1, 9), (9, 1), (1, 1), (3, 18, 130)):
        for dtype, slack in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
            value, labels = scene(rng, *shape, logits=logits, dtype=dtype)
            given = settings(rng, case, shape)
            loss = usconf.pgm_loss(
                value, labels, reduction="sum", from_logits=logits, **LAW, **given
            )
            assert loss.shape == () and loss.dtype == dtype
            loss.backward()
            bare = value.detach().numpy()
            expected = oracle.gradient(bare, labels.numpy(), logits=logits, **LAW, **theirs(given))
            scale = np.abs(expected).max()
            np.testing.assert_allclose(value.grad, expected, rtol=0, atol=slack * scale)
            if dtype == torch.float64:
                twin = value.detach().requires_grad_()
                by_torch = plain(twin, labels, from_logits=logits, reduction="sum", **LAW, **given)
                by_torch.backward()
                torch.testing.assert_close(loss, by_torch, rtol=1e-10, atol=1e-10)
                torch.testing.assert_close(value.grad, twin.grad, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradcheck(rng, logits, reduction):
    value, labels = scene(rng, 2, 5, 4, logits=logits)
    mask = torch.from_numpy(rng.random((5, 4)) > 0.2)

    def call(value):
        return usconf.pgm_loss(
            value, labels, reduction=reduction, from_logits=logits, mask=mask, **LAW
        )

    log_x = value.detach().sigmoid().log() if logits else value.detach().log()
    rise = log_x[:, 1:] - log_x[:, :-1] + LAW["s"]
    assert rise.abs().min() > 1e-4  # no hinge is near its kink
    torch.autograd.gradcheck(call, value)


def test_the_kink_has_slope_0():
    """At the kink the hinge's derivative is 0, as torch.relu's; s is a power of 2: no rounding."""
    log_x = torch.tensor([[-0.5], [-0.75], [-1.0]], dtype=torch.float64)
    value = log_x.exp().requires_grad_()
    labels = torch.zeros((3, 1), dtype=torch.uint8)
    for shift, open_hinge in ((0.0, False), (1e-9, True)):
        value.grad = None
        usconf.pgm_loss(
            value, labels, s=0.25 + shift, reduction="sum", gamma=10.0, label_weights=(0, 0, 0)
        ).backward()
        assert bool(value.grad.abs().max() > 1) == open_hinge
    flat = torch.zeros((4, 3), requires_grad=True)
    usconf.pgm_loss(
        flat, torch.zeros((4, 3), dtype=torch.uint8), s=0.0, from_logits=True
    ).backward()
    assert flat.grad.abs().max() < 1e-6  # an open hinge's is 3


def test_map_gradient_takes_weights(rng):
    for shape in ((2, 19, 37), (1, 5), (5, 1)):
        for dtype, slack in ((torch.float64, 1e-12), (torch.float32, 2e-6)):
            value, labels = scene(rng, *shape, dtype=dtype)
            upstream = torch.from_numpy(rng.standard_normal(shape)).to(dtype)
            mask = torch.from_numpy(rng.random(shape) > 0.2)
            given = {"from_logits": True, "mask": mask, **LAW}
            usconf.pgm_loss(value, labels, reduction="none", **given).backward(upstream)
            expected = oracle.gradient(
                value.detach().numpy(), labels.numpy(), upstream=upstream.numpy(), logits=True,
                mask=mask.numpy(), **LAW,
            )  # fmt: skip
            scale = np.abs(expected).max()
            np.testing.assert_allclose(value.grad, expected, rtol=0, atol=slack * scale)


def test_extreme_logits(rng):
    for dtype in (torch.float32, torch.float64):
        value = torch.where(torch.from_numpy(rng.random((24, 18)) < 0.5), 80.0, -80.0).to(dtype)
        value.requires_grad_()
        labels = torch.from_numpy(rng.integers(0, 3, (24, 18)).astype(np.uint8))
        usconf.pgm_loss(value, labels, from_logits=True, reduction="sum").backward()
        expected = oracle.gradient(value.detach().numpy(), labels.numpy(), logits=True)
        np.testing.assert_allclose(value.grad, expected, rtol=0, atol=1e-4)


def test_descent_reaches_the_optimum():
    """sigma = 0: the energy is convex per scanline in ln x, and its minimum known exactly.

    Descent along ln x = -cumsum(rate^2) - s row, where all hinges stay closed: at gamma = 75 none
    pays that opens.
    """
    labels = np.zeros((16, 6), np.uint8)
    labels[2:5, 1:5], labels[10:13, :4], labels[14, 2:] = 1, 2, 1
    s = 0.02
    given = {"s": s, "sigma": 0.0, "reduction": "sum"}
    columns = [oracle.scanline_optimum(line, s=s) for line in labels.T]
    optimum = torch.from_numpy(np.stack(columns, 1)).exp()
    strokes = torch.from_numpy(labels)
    least = usconf.pgm_loss(optimum, strokes, **given).item()
    rate = torch.full((16, 6), 0.3, dtype=torch.float64, requires_grad=True)
    rows = torch.arange(16, dtype=torch.float64)[:, None]
    optimiser = torch.optim.LBFGS(
        [rate], max_iter=2000, history_size=50, tolerance_change=1e-14, tolerance_grad=1e-9,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def map_of_rates():
        return torch.exp(-rate.square().cumsum(0) - (s + 1e-12) * rows)

    def closure():
        optimiser.zero_grad()
        loss = usconf.pgm_loss(map_of_rates(), strokes, **given)
        loss.backward()
        return loss

    optimiser.step(closure)
    found = usconf.pgm_loss(map_of_rates().detach(), strokes, **given).item()
    assert abs(found - least) < 1e-5 * least
    assert (map_of_rates() - optimum).abs().max() < 2e-3


def test_threads_change_nothing(rng):
    value, labels = scene(rng, 3, 150, 260, dtype=torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            value.grad = None
            loss = usconf.pgm_loss(value, labels, from_logits=True)
            loss.backward()
            found.append((loss.item(), value.grad))
    finally:
        torch.set_num_threads(before)
    for loss, gradient in found[1:]:
        assert loss == found[0][0] and torch.equal(gradient, found[0][1])


# Torch citizen


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mean", [True, False])
def test_opcheck(rng, operators, case, mean):
    shape = (2, 7, 6)
    value, labels = scene(rng, *shape)
    given = settings(rng, case, shape)
    mask = given.get("mask")
    mask = None if mask is None else mask.reshape(-1, 7, 6)
    weights = given.get("label_weights", (1.0, 1.0, 1.0))
    arguments = (value, labels, mask, 7.0, 0.01, 0.3, weights, "constants" in given, True)
    torch.library.opcheck(operators.pgm_loss.default, (*arguments, mean, True))
    torch.library.opcheck(operators.pgm_map.default, (*arguments, False))
    bare = (value.detach(), *arguments[1:])
    torch.library.opcheck(operators.pgm_loss.default, (*bare, mean, False))
    torch.library.opcheck(operators.pgm_map.default, (*bare, True))
    torch.library.opcheck(
        operators.pgm_map_backward.default, (*bare, torch.ones(shape, dtype=torch.float64))
    )
    loss, sums, gradient = operators.pgm_loss(*bare, mean, True)
    torch.library.opcheck(
        operators.pgm_loss_backward.default,
        (bare[0], gradient, sums, torch.ones_like(loss), mean),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("masked", [True, False])
def test_compiles_whole_and_dynamic(rng, reduction, masked):
    mask = torch.from_numpy(rng.random((9, 8)) > 0.2) if masked else None

    def loss(value, labels, gamma):
        return usconf.pgm_loss(
            value, labels, gamma=gamma, from_logits=True, reduction=reduction, mask=mask
        ).sum()

    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    for frames, gamma in ((2, 75.0), (4, 20.0), (5, 7.5)):
        found = []
        for run in (loss, compiled):
            value, labels = scene(np.random.default_rng(frames), frames, 9, 8)
            result = run(value, labels, gamma)
            result.backward()
            found += [result.detach(), value.grad]
        torch.testing.assert_close(found[2:], found[:2])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_computed_as_float32(rng, dtype):
    value, labels = scene(rng, 2, 33, 40, dtype=dtype)
    loss = usconf.pgm_loss(value, labels, from_logits=True)
    loss.backward()
    twin = value.detach().float().requires_grad_()
    expected = usconf.pgm_loss(twin, labels, from_logits=True)
    expected.backward()
    assert loss.dtype == torch.float32 and value.grad.dtype == dtype
    assert torch.equal(loss, expected) and torch.equal(value.grad, twin.grad.to(dtype))


def test_autocast(rng):
    layer = torch.nn.Conv2d(1, 1, 3, padding=1)
    image = torch.randn(2, 1, 16, 12)
    labels = torch.from_numpy(rng.integers(0, 3, (2, 1, 16, 12)).astype(np.uint8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = layer(image)
        loss = usconf.pgm_loss(logits, labels, from_logits=True)
    assert logits.dtype == torch.bfloat16 and loss.dtype == torch.float32
    loss.backward()
    assert torch.isfinite(layer.weight.grad).all()


def test_scaled_and_repeated(rng):
    """What comes from above scales the gradient; a kept graph gives it again."""
    value, labels = scene(rng, 2, 9, 8)
    loss = usconf.pgm_loss(value, labels, from_logits=True)
    (first,) = torch.autograd.grad(loss, value, retain_graph=True)
    (again,) = torch.autograd.grad(3 * loss, value)
    torch.testing.assert_close(again, 3 * first)
    with torch.no_grad():
        assert not usconf.pgm_loss(value, labels, from_logits=True).requires_grad


@pytest.mark.parametrize("masked", [True, False])
def test_a_kept_graph_keeps_its_gradient(rng, masked):
    """Where nothing is left to multiply, a graph that ends gives its own tensor away."""
    value, labels = scene(rng, 2, 9, 8)
    mask = torch.from_numpy(rng.random((9, 8)) > 0.2) if masked else None
    loss = usconf.pgm_loss(value, labels, from_logits=True, mask=mask)
    (first,) = torch.autograd.grad(loss, value, retain_graph=True)
    expected = first.clone()
    first.zero_()
    loss.backward(retain_graph=True)
    value.grad.mul_(5)
    loss.backward()
    torch.testing.assert_close(value.grad, 6 * expected)


def test_strides(rng):
    value, labels = scene(rng, 12, 14)
    for cut in (lambda t: t[::2, ::2], lambda t: t.T, lambda t: t[:, :1].expand(12, 6)):
        value.grad = None
        usconf.pgm_loss(cut(value), cut(labels), from_logits=True).backward()
        leaf = cut(value).detach().contiguous().requires_grad_()
        usconf.pgm_loss(leaf, cut(labels).contiguous(), from_logits=True).backward()
        through = value.detach().requires_grad_()
        cut(through).backward(leaf.grad)
        torch.testing.assert_close(value.grad, through.grad)


def test_nothing_valid_and_no_frames():
    value = torch.zeros((2, 4, 5), requires_grad=True)
    labels = torch.zeros((2, 4, 5), dtype=torch.uint8)
    loss = usconf.pgm_loss(value, labels, from_logits=True, mask=torch.zeros((4, 5)))
    loss.backward()
    assert loss == 0 and value.grad.abs().max() == 0
    empty = torch.zeros((0, 4, 5), requires_grad=True)
    loss = usconf.pgm_loss(empty, labels[:0], from_logits=True)
    loss.backward()
    assert loss == 0 and empty.grad.shape == (0, 4, 5)


def test_parts_come_from_the_same_pass(rng):
    from usconf.ops import pgm_loss_with_parts

    value, labels = scene(rng, 2, 1, 19, 23)
    mask = torch.from_numpy(rng.random((19, 23)) > 0.3)
    for reduction in ("mean", "sum"):
        given = {"from_logits": True, "mask": mask, "reduction": reduction}
        loss, parts = pgm_loss_with_parts(value, labels, **given)
        assert not any(part.requires_grad for part in parts.values())
        torch.testing.assert_close(sum(parts.values()), loss.detach())
        apart = usconf.pgm_parts(value, labels, **given)
        arrays = given | {"mask": mask.numpy()}
        bare = usconf.pgm_parts(value.detach().numpy(), labels.numpy(), **arrays)
        for name, part in parts.items():
            assert apart[name] == part == pytest.approx(bare[name], rel=1e-15)
    maps = usconf.pgm_parts(value, labels, from_logits=True, reduction="none")
    whole = usconf.pgm_loss(value.detach(), labels, from_logits=True, reduction="none")
    torch.testing.assert_close(sum(maps.values()), whole)


# Refuses


def test_refuses(rng, operators):
    value, labels = scene(rng, 2, 7, 6)
    loss = usconf.pgm_loss(value, labels, from_logits=True)
    (gradient,) = torch.autograd.grad(loss, value, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiable once only"):
        gradient.sum().backward()
    loss = usconf.pgm_loss(value, labels, from_logits=True, reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), value, create_graph=True)
    with pytest.raises(RuntimeError, match=r"differentiable once only"):
        gradient.sum().backward()
    with pytest.raises(ValueError, match=r"^labels must have the confidence's shape"):
        usconf.pgm_loss(value, labels[0], from_logits=True)
    with pytest.raises(TypeError, match=r"^labels must be uint8, got int64"):
        usconf.pgm_loss(value, labels.long(), from_logits=True)
    with pytest.raises(ValueError, match=r"^mask must have shape \(7, 6\)"):
        usconf.pgm_loss(value, labels, from_logits=True, mask=torch.ones(6, 7))
    with pytest.raises(ValueError, match=r"^labels must be on the confidence's device"):
        usconf.pgm_loss(value, torch.empty_like(labels, device="meta"), from_logits=True)
    with pytest.raises(ValueError, match=r"^gamma must be finite and not negative, got -1"):
        usconf.pgm_loss(value, labels, gamma=-1.0, from_logits=True)
    with pytest.raises(ValueError, match=r'^reduction must be "mean" or "sum" with parts'):
        usconf.ops.pgm_loss_with_parts(value, labels, reduction="none")
    wrong = labels.clone()
    wrong[1, 3, 4] = 7
    with pytest.raises(ValueError, match=r"^labels must be 0.*got 7 at row 3, column 4 of frame 1"):
        usconf.pgm_loss(value, wrong, from_logits=True)
    with pytest.raises(ValueError, match=r"^confidence must be in \[0, 1\]"):
        usconf.pgm_loss(10 * value, labels)
    with pytest.raises(RuntimeError, match=r"wants_gradient must be True"):
        found = operators.pgm_loss(
            value, labels, None, 1.0, 0.0, 0.0, (1.0, 1.0, 1.0), False, True, True, False
        )
        found[0].backward()


def test_nan_stays_nan(rng):
    """A loss that is not finite is what gradient scalers look for."""
    value, labels = scene(rng, 7, 6)
    bad = value.detach().clone()
    bad[2, 3] = torch.nan
    assert usconf.pgm_loss(bad, labels, from_logits=True).isnan()


# Devices


@pytest.mark.cuda
@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_cuda_equals_cpu(rng, case, logits):
    for shape in ((3, 67, 95), (1, 1), (5, 1), (1, 70)):
        for dtype, slack in ((torch.float64, 1e-10), (torch.float32, 2e-6)):
            value, labels = scene(rng, *shape, logits=logits, dtype=dtype)
            given = settings(rng, case, shape)
            found = []
            for device in ("cpu", "cuda"):
                leaf = value.detach().to(device).requires_grad_()
                planes = {
                    k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in given.items()
                }
                loss = usconf.pgm_loss(leaf, labels.to(device), from_logits=logits, **LAW, **planes)
                loss.backward()
                assert loss.device.type == device
                found.append((loss.detach().cpu(), leaf.grad.cpu()))
            (cpu, d_cpu), (cuda, d_cuda) = found
            torch.testing.assert_close(cuda, cpu, rtol=slack, atol=slack)
            scale = d_cpu.abs().max().item()
            torch.testing.assert_close(d_cuda, d_cpu, rtol=0, atol=slack * scale)


@pytest.mark.cuda
def test_cuda_does_not_wait(rng):
    value, labels = scene(rng, 7, 6)
    labels[2, 3] = 9
    assert usconf.pgm_loss(value.detach().cuda(), labels.cuda(), from_logits=True).isnan()
