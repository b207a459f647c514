"""The uncertainty measures as an operator: equals the definitions, whatever computes them."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import usconf
from reference import uncertainty as oracle
from usconf import _core

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
]
torch = pytest.importorskip("torch")

import usconf.ops  # noqa: E402

NAMES = ("TU", "EE", "MI", "PV")
TOLERANCE = {torch.float64: 1e-13, torch.float32: 5e-7}


def draws_of(rng, *shape, dtype=torch.float64, scale=3.0):
    return torch.from_numpy(scale * rng.standard_normal(shape)).to(dtype)


def check(draws, maps, tolerance):
    expected = oracle.measures(draws.double().cpu().numpy())
    for name, found in zip(NAMES, maps.cpu().numpy(), strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (17, 31), (40, 33), (3, 4, 30)])
def test_equals_oracle(rng, dtype, classes, size):
    draws = draws_of(rng, 7, 3, classes, *size, dtype=dtype)
    maps = usconf.ops.uncertainty(draws)
    assert maps.shape == (4, 3, *size) and maps.dtype == dtype
    check(draws, maps, TOLERANCE[dtype])


@pytest.mark.parametrize("classes", [1, 3])
def test_small_entropies_keep_their_digits(classes):
    """As 1 - sigmoid(z) would not: these are of 5e-4 down to 4e-8."""
    size = torch.linspace(10, 20, 40).view(1, 1, 1, 1, 40)
    draws = torch.cat((size, *[torch.zeros_like(size)] * (classes - 1)), 2)
    found = usconf.ops.uncertainty(draws)[1, 0, 0]
    if classes == 1:
        expected = oracle.measures(draws.double().numpy())["EE"][0, 0]
        np.testing.assert_allclose(found.numpy(), expected, rtol=3e-6)
    assert (found[1:] <= found[:-1]).all()


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize("classes", [1, 3])
def test_bits_do_not_depend_on_threads(rng, threads, classes):
    draws = draws_of(rng, 9, 2, classes, 120, 111, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = usconf.ops.uncertainty(draws)
        torch.set_num_threads(threads)
        assert torch.equal(usconf.ops.uncertainty(draws), one)
    finally:
        torch.set_num_threads(before)


WORK = """
import sys, torch
from usconf.ops import uncertainty as maps
seeded = torch.Generator().manual_seed(3)
found = []
for classes in 1, 3:
    draws = 4 * torch.randn(6, 2, classes, 37, 41, generator=seeded)
    found.append([draws, maps(draws), maps(draws.double())])
torch.save(found, sys.argv[1])
"""


@pytest.mark.parametrize("isa", _core.isa_list())
def test_every_instruction_set(tmp_path, isa):
    path = tmp_path / "maps.pt"
    environment = {**os.environ, "USCONF_ISA": isa}
    command = [sys.executable, "-c", WORK, str(path)]
    subprocess.run(command, env=environment, check=True)
    for draws, single, double in torch.load(path):
        check(draws, single, TOLERANCE[torch.float32])
        check(draws, double, TOLERANCE[torch.float64])


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extremes(classes, dtype):
    values = torch.tensor([0.0, 90.0, -90.0, 1e4, -1e4, 3e38, -3e38], dtype=dtype)
    grid = torch.cartesian_prod(*[values] * (2 * classes)).T.reshape(2, 1, classes, 1, -1)
    maps = usconf.ops.uncertainty(grid)
    assert torch.isfinite(maps).all() and maps.min() >= 0
    assert maps[0].max() <= np.log(max(classes, 2)) + 1e-6 and maps[3].max() <= 0.25
    if classes == 1:
        endless = torch.tensor([np.inf, -np.inf], dtype=dtype).view(2, 1, 1, 1, 1)
        check(endless, usconf.ops.uncertainty(endless), 1e-6)
    lost = torch.full((3, 1, classes, 2, 2), np.nan, dtype=dtype)
    assert torch.isnan(usconf.ops.uncertainty(lost)).all()


def test_strides_halves_and_emptiness(rng):
    draws = draws_of(rng, 4, 2, 3, 10, 12, dtype=torch.float32)
    odd = draws.transpose(3, 4)[:, :, :, ::2]
    assert torch.equal(usconf.ops.uncertainty(odd), usconf.ops.uncertainty(odd.contiguous()))
    for half in (torch.float16, torch.bfloat16):
        found = usconf.ops.uncertainty(draws.to(half))
        assert torch.equal(found, usconf.ops.uncertainty(draws.to(half).float()))
    assert usconf.ops.uncertainty(draws[:, :0]).shape == (4, 0, 10, 12)


@pytest.mark.parametrize("classes", [1, 4])
def test_opcheck_and_compile(rng, classes):
    draws = draws_of(rng, 5, 2, classes, 8, 9)
    torch.library.opcheck(torch.ops.usconf.uncertainty.default, (draws.flatten(3), None))
    torch.library.opcheck(
        torch.ops.usconf.uncertainty.default, (draws.flatten(3), draws[:3].flatten(3))
    )
    torch._dynamo.reset()
    compiled = torch.compile(usconf.ops.uncertainty, fullgraph=True, dynamic=True)
    for height in (8, 5, 6):
        cut = draws[..., :height, :]
        assert torch.equal(compiled(cut), usconf.ops.uncertainty(cut))


def test_refuses(rng):
    draws = draws_of(rng, 3, 1, 2, 4, 4)
    with pytest.raises(TypeError, match=r"draws must be floating, got torch\.uint8"):
        usconf.ops.uncertainty(draws.to(torch.uint8))
    with pytest.raises(ValueError, match=r"draws must be \(n, B, C, \*S\)"):
        usconf.ops.uncertainty(draws[0, 0])
    with pytest.raises(ValueError, match="n and C at least 1"):
        usconf.ops.uncertainty(draws[:0])
    with pytest.raises(RuntimeError, match="has no gradient"):
        torch.ops.usconf.uncertainty(draws.flatten(3).requires_grad_(), None).sum().backward()


@pytest.mark.parametrize("classes", [1, 3])
def test_noise_is_shared_and_changes_nothing_when_zero(rng, classes):
    draws = draws_of(rng, 6, 2, classes, 9, 8)
    still = usconf.ops.uncertainty(draws, torch.zeros_like(draws[:4]))
    torch.testing.assert_close(still, usconf.ops.uncertainty(draws), rtol=0, atol=1e-13)
    noise = draws_of(rng, 4, 2, classes, 9, 8)
    maps = usconf.ops.uncertainty(draws, noise)
    expected = oracle.noisy_measures(draws.numpy(), noise.numpy())
    for name, found in zip(NAMES, maps.numpy(), strict=True):
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=1e-13, err_msg=name)
    same = usconf.ops.uncertainty(draws[:1].expand_as(draws).float(), noise.float())
    assert not same[2].any() and not same[3].any() and torch.equal(same[0], same[1])
    with pytest.raises(ValueError, match=r"noise must be \(S, B, C, \*S\)"):
        usconf.ops.uncertainty(draws, noise[:, :1])


@pytest.mark.cuda
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_on_the_device(rng, classes, dtype):
    draws = draws_of(rng, 20, 2, classes, 65, 67, dtype=dtype).cuda()
    check(draws, usconf.ops.uncertainty(draws), TOLERANCE[dtype])
