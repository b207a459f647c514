"""The confidence network: any size, maps that fall, gradients, compilers."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

HEADS = ("monotone", "logits")


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def network(head="monotone", width=8, **more):
    """A network whose biases and last layer are not those of the start: nothing is 0 by chance."""
    from usconf.nn import ConfidenceUNet

    made = ConfidenceUNet(head, width, **more)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return made.eval()


def images(*shape, dtype=torch.float32):
    return (255 * torch.rand(shape)).to(dtype)


# what it gives


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 40), (40, 1), (33, 17), (64, 48), (130, 20)])
def test_any_size(head, size):
    logits = network(head)(images(2, 1, *size))
    assert logits.shape == (2, 1, *size) and logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_size_of_the_default():
    from usconf.nn import ConfidenceUNet

    weights = sum(parameter.numel() for parameter in ConfidenceUNet().parameters())
    largest = sum(parameter.numel() for parameter in ConfidenceUNet(width=42).parameters())
    assert weights < 0.5e6 and largest <= 0.9e6


def test_config_makes_it_again():
    from usconf.nn import ConfidenceUNet

    made = network("logits", 12, decay_total=0.5, smoothing=1)
    twin = ConfidenceUNet(**made.config)
    twin.load_state_dict(made.state_dict())
    image = images(1, 1, 30, 30)
    assert torch.equal(twin(image), made(image)) and twin.config == made.config


@pytest.mark.parametrize("rows", [1, 2, 100, 1024])
def test_monotone_head_falls(rows):
    """Never rises, and falls by decay_total from above the first row to the last at least."""
    made = network(decay_total=0.4)
    log_x = torch.nn.functional.logsigmoid(made(images(2, 1, rows, 24)).double())
    assert (log_x.diff(dim=-2) <= 1e-6).all()
    assert (log_x[:, :, -1] <= -0.4 * (1 - 1e-4)).all() and (log_x < 0).all()


def test_monotone_head_is_its_formula():
    """In float64 against the sum written out; float32 at 1024 rows stays close to it."""
    made = network(smoothing=0)
    rates = torch.randn(1, 1, 1024, 5, dtype=torch.float64) - 4
    rates[..., :100, 1], rates[..., :, 2], rates[..., 3] = 40, -700, -700
    rates[..., 500:, 3] = 20
    losses = torch.nn.functional.softplus(rates) * (128 / 1024) + 0.3 / 1024
    log_x = -torch.stack([losses[:, :, : row + 1].sum(-2) for row in range(1024)], dim=-2)
    expected = log_x - torch.log(-torch.expm1(log_x))
    torch.testing.assert_close(made._falling(rates, None), expected)
    single = made._falling(rates.float(), None)
    assert single.isfinite().all()
    torch.testing.assert_close(single.double(), expected, rtol=1e-5, atol=1e-4)


def test_same_attenuation_at_another_height():
    made = network()
    coarse, fine = (made._falling(torch.full((1, 1, rows, 3), -3.0), None) for rows in (100, 400))
    torch.testing.assert_close(coarse[:, :, -1], fine[:, :, -1])


def test_smoothing_spreads_a_streak():
    rates = torch.full((1, 1, 50, 21), -9.0)
    rates[:, :, 10:40, 10] = 3.0
    streak = [network(smoothing=half)._falling(rates, None).sigmoid()[0, 0, -1] for half in (0, 2)]
    assert (streak[0] < 0.01).sum() == 1
    dark = streak[1] < 0.1
    assert dark.sum() == 9 and dark[6:15].all()
    torch.testing.assert_close(streak[1], streak[1].flip(0))


# what it does not see


def test_scale_and_offset_do_not_matter():
    made = network()
    image = images(2, 1, 40, 30)
    expected = made(image)
    for other in (image / 255, 1e-20 * image, 1e30 * image, 3 * image + 77):
        torch.testing.assert_close(made(other), expected, rtol=1e-3, atol=1e-3)


def test_frames_do_not_see_each_other():
    made = network()
    batch = images(5, 1, 40, 30) * torch.tensor([1, 0.1, 9, 0, 1])[:, None, None, None]
    together = made(batch)
    alone = torch.cat([made(frame[None]) for frame in batch])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_threads_do_not_matter():
    made, image = network(width=16), images(1, 1, 96, 96)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(made(image))
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


def test_strides_do_not_matter():
    made, image = network(), images(3, 1, 40, 30)
    expected = made(image)
    for other in (
        image.mT.contiguous().mT,
        image.to(memory_format=torch.channels_last),
        torch.stack([image, image], -1)[..., 0],
        image[:1].expand(3, -1, -1, -1) * 0 + image,
    ):
        torch.testing.assert_close(made(other), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_masked_pixels_do_not_matter(head):
    made, image = network(head), images(2, 1, 40, 30)
    mask = torch.rand(1, 1, 40, 30) < 0.7
    other = torch.where(mask, image, torch.tensor(9e9))
    assert torch.equal(made(image, mask), made(other, mask))
    torch.testing.assert_close(made(image, torch.ones_like(mask)), made(image))
    assert made(image, torch.zeros_like(mask)).isfinite().all()


def test_masked_pixels_cost_nothing():
    made, image = network(decay_total=1e-6, smoothing=0), images(1, 1, 40, 30)
    mask = torch.ones(40, 30, dtype=torch.bool)
    mask[:, 5] = False
    assert (made(image, mask).sigmoid()[..., 5] > 0.999).all()


# gradients


@pytest.mark.parametrize("head", HEADS)
def test_gradcheck(head):
    made = network(head, 2, smoothing=1).double()
    image = torch.rand(1, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(made, (image,))
    mask = torch.rand(5, 4) < 0.8
    assert torch.autograd.gradcheck(lambda pixels: made(pixels, mask), (image,))


def extremes():
    spot = torch.zeros(1, 1, 20, 18)
    spot[..., 7, 7] = 1
    return {
        "black": torch.zeros(1, 1, 20, 18),
        "constant": torch.full((1, 1, 20, 18), 1e30),
        "spot": spot,
        "largest": (2 * spot - 1) * torch.finfo(torch.float32).max,
        "smallest": spot * 1e-42,
        "one pixel": torch.ones(1, 1, 1, 1),
    }


@pytest.mark.parametrize("name", extremes())
@pytest.mark.parametrize("head", HEADS)
def test_gradients_are_finite(head, name):
    made = network(head)
    image = extremes()[name].requires_grad_()
    logits = made(image)
    assert logits.isfinite().all()
    logits.sum().backward()
    assert image.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_gradients_of_extreme_rates_are_finite():
    made = network()
    rates = torch.tensor([-1e4, -90.0, -5.0, 0.0, 30.0, 1e4]).repeat(1, 1, 1024, 2)
    for scale in (1, 1e-3):
        rates = (rates * scale).requires_grad_()
        logits = made._falling(rates, None)
        assert logits.isfinite().all()
        (grad,) = torch.autograd.grad(logits.sum(), rates)
        assert grad.isfinite().all()


def test_autocast_keeps_the_head():
    """bfloat16 holds no sum over hundreds of rows: layers take it, the head does not."""
    made = network()
    image = images(1, 1, 512, 24)
    expected = made(image)
    with torch.autocast("cpu", torch.bfloat16):
        logits = made(image)
        logits.sum().backward()
    assert logits.dtype == torch.float32 and logits.isfinite().all()
    assert (logits.diff(dim=-2) <= 1e-6).all()
    torch.testing.assert_close(logits.sigmoid(), expected.sigmoid(), rtol=0, atol=0.02)
    assert all(parameter.grad.isfinite().all() for parameter in made.parameters())


def test_bfloat16_network():
    made, image = network(), images(1, 1, 256, 24)
    expected = made(image).sigmoid()
    logits = made.bfloat16()(image.bfloat16())
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.sigmoid(), expected, rtol=0, atol=0.05)


def test_it_learns():
    """A shadow below a bright line, from the loss's own labels."""
    from usconf.nn import ConfidenceUNet, PGMLoss

    image = images(4, 1, 32, 32)
    labels = torch.ones(4, 1, 32, 32, dtype=torch.uint8)
    for frame in range(4):
        first = 3 + 6 * frame
        image[frame, :, 10:12, first : first + 8] = 900
        image[frame, :, 12:, first : first + 8] *= 0.1
        labels[frame, :, 12:, first : first + 8] = 2
    made, loss = ConfidenceUNet(width=8), PGMLoss(gamma=1.0, decay_total=0.3)
    optimizer = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss(made(image), labels).backward()
        optimizer.step()
    x = made(image).sigmoid()
    assert x[labels == 1].mean() > 0.6 and x[labels == 2].mean() < 0.25


# compilers


@pytest.mark.parametrize("head", HEADS)
def test_compiles_whole(head):
    made = network(head)
    compiled = torch.compile(made, fullgraph=True, dynamic=True, backend="aot_eager")
    for size in ((40, 30), (33, 17), (64, 64)):
        image = images(2, 1, *size)
        torch.testing.assert_close(compiled(image), made(image), rtol=1e-4, atol=1e-4)
    mask = torch.rand(64, 64) < 0.5
    torch.testing.assert_close(compiled(image, mask), made(image, mask), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_compiles_to_machine_code():
    made, image = network(), images(1, 1, 40, 30)
    compiled = torch.compile(made, fullgraph=True)
    torch.testing.assert_close(compiled(image), made(image), rtol=1e-4, atol=1e-4)


# refuses


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"head": "sigmoid"}, ValueError, r"^head must .*got 'sigmoid'"),
        ({"width": 7}, ValueError, r"^width must be even, got 7"),
        ({"width": 0}, ValueError, r"^width must be at least 2, got 0"),
        ({"width": 8.0}, TypeError, r"^width must be an integer, got 8.0"),
        ({"decay_total": 0}, ValueError, r"^decay_total must be above 0"),
        ({"decay_total": float("nan")}, ValueError, r"^decay_total must be finite"),
        ({"smoothing": -1}, ValueError, r"^smoothing must be at least 0, got -1"),
    ],
)
def test_refuses(given, error, message):
    from usconf.nn import ConfidenceUNet

    with pytest.raises(error, match=message):
        ConfidenceUNet(**given)


# on a GPU


@pytest.mark.cuda
@pytest.mark.parametrize("head", HEADS)
def test_devices_agree(head):
    made, image = network(head), images(2, 1, 100, 70)
    expected = made(image)
    found = made.cuda()(image.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu().sigmoid(), expected.sigmoid(), rtol=0, atol=2e-3)


@pytest.mark.cuda
def test_cuda_graph():
    made, image = network().cuda(), images(2, 1, 64, 64).cuda()
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                expected = made(image)
        torch.cuda.current_stream().wait_stream(stream)
        graph, still = torch.cuda.CUDAGraph(), torch.zeros_like(image)
        with torch.cuda.graph(graph):
            found = made(still)
        still.copy_(image)
        graph.replay()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
