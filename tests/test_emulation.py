"""The CUDA emulator itself: right kernels run in every thread order, planted bugs are caught."""

from __future__ import annotations

import subprocess

import pytest
from emulation import build
from emulation.calls import ORDERS

pytestmark = pytest.mark.emulated

# How the program is compiled: the fibers' own switch, the portable one, checked accesses.
BUILDS = {
    "plain": [],
    "ucontext": ["-DUSCONF_EMULATE_UCONTEXT"],
    "sanitized": build.SANITIZE,
}
THREADS = 96


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """`planted(name, order, kind)` runs one kernel and returns the finished process."""
    source = build.HERE / "planted.cu"
    folder = tmp_path_factory.mktemp("planted")
    programs = {
        kind: build.build_program(source, folder, kind, *options)
        for kind, options in BUILDS.items()
    }

    def run(name, order="forward", kind="plain"):
        command = [str(programs[kind]), name, str(ORDERS[order])]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def numbers(done):
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


@pytest.mark.parametrize("kind", BUILDS)
@pytest.mark.parametrize("order", ORDERS)
def test_a_right_kernel_gives_the_closed_form(planted, order, kind):
    out = numbers(planted("right", order, kind))
    total = THREADS * (THREADS - 1) // 2
    for thread in range(THREADS):
        lane, warp = thread % 32, thread // 32
        lanes = sum(range(32 * warp, 32 * warp + 32))
        # A shuffle past the end of the warp gives a lane its own value.
        above, below = thread + (lane < 31), thread - (lane > 0)
        expected = total + lanes + above + below + 32 * warp
        assert out[thread] == out[THREADS + 2 + thread] == expected
    assert out[THREADS] == 2 * THREADS
    assert out[THREADS + 1] == THREADS - 1


@pytest.mark.parametrize("name", ["missing_barrier", "missing_warp_barrier"])
def test_a_missing_barrier_makes_the_thread_orders_disagree(planted, name):
    outcomes = {tuple(numbers(planted(name, order))) for order in ORDERS}
    assert len(outcomes) > 1


@pytest.mark.parametrize("name", ["out_of_bounds", "dynamic_out_of_bounds"])
def test_a_shared_access_out_of_bounds_is_reported(planted, name):
    done = planted(name, kind="sanitized")
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr
    assert "planted.cu" in done.stderr


def test_accesses_within_bounds_are_not(planted):
    assert numbers(planted("in_bounds", kind="sanitized"))[:THREADS] == [1] * THREADS


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("divergent_branch", "divergent barrier"),
        ("divergent_exit", "divergent __syncthreads"),
        ("deadlock", "deadlock"),
        ("partial_mask", "partial mask"),
        ("too_large", "1 to 1024 threads"),
        ("wild_free", "never allocated"),
    ],
)
def test_what_must_not_happen_aborts_with_a_message(planted, name, message, order):
    done = planted(name, order)
    assert done.returncode < 0, done.stdout
    assert message in done.stderr


def test_shared_memory_starts_as_nan(planted):
    assert numbers(planted("uninitialised"))[:THREADS] == [0] * THREADS
