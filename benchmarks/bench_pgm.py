"""The annotation model's loss, forward and backward: validates, then times.

    python benchmarks/bench_pgm.py [--threads 2] [--seconds 1] [--output FILE]

Against the same energy in torch's own operators, hand-written, and torch.compile of that; in
turns, on one thread and on more. Beside it the bytes that value and gradient must move.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import usconf
import usconf.ops
from commands import cpu_command
from measure import fresh, interleaved, spread
from table import timing
from torch import Tensor
from torch.nn.functional import softplus
from usconf import _core
from usconf.pgm import energy, evaluate

SHAPES = ((8, 1, 256, 256), (1, 1, 512, 512))
GAMMA, S, SIGMA = 75.0, 3 / 2560, 0.25
# float32 logits in, gradient out, uint8 labels in.
BYTES = 9
Call = Callable[[], Any]
Found = dict[str, Any]


def plain(z: Tensor, labels: Tensor) -> Tensor:
    """The energy's mean as one would write it."""
    log_x, log_rest, x = -softplus(-z), -softplus(z), torch.sigmoid(z)
    none = -0.1 * (log_x + log_rest)
    unary = torch.where(labels == 1, -4 * log_x, torch.where(labels == 2, -4 * log_rest, none))
    rise = torch.relu(log_x[..., 1:, :] - log_x[..., :-1, :] + S)
    step = (x[..., 1:] - x[..., :-1]).square()
    return (unary.sum() + GAMMA * rise.sum() + SIGMA * step.sum()) / z.numel()


def ours(z: Tensor, labels: Tensor) -> Tensor:
    return usconf.ops.pgm_loss(z, labels, from_logits=True)


def scene(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Logits that fall with depth under noise, and 5 % of strokes."""
    rng = np.random.default_rng(0)
    depth = np.linspace(3, -3, shape[-2])[:, None]
    z = (depth + rng.standard_normal(shape)).astype(np.float32)
    labels = np.zeros(shape, np.uint8)
    for frame in labels.reshape(-1, *shape[-2:]):
        for _ in range(8):
            row, column = rng.integers(0, shape[-2] - 8), rng.integers(0, shape[-1] * 3 // 4)
            frame[row : row + 8, column : column + shape[-1] // 8] = rng.integers(1, 3)
    return torch.from_numpy(z), torch.from_numpy(labels)


def gradient(loss: Callable[[Tensor, Tensor], Tensor], z: Tensor, labels: Tensor) -> Tensor:
    leaf = z.detach().requires_grad_()
    loss(leaf, labels).backward()
    assert leaf.grad is not None
    return leaf.grad


def validate(shape: tuple[int, ...]) -> dict[str, float]:
    """Errors in float32 against the plain version in float64, of the largest value."""
    z, labels = scene(shape)
    truth, d_truth = plain(z.double(), labels), gradient(plain, z.double(), labels)
    scale = d_truth.abs().max()
    errors = {
        "loss": float((ours(z, labels) - truth).abs() / truth),
        "gradient": float((gradient(ours, z, labels) - d_truth).abs().max() / scale),
        "plain gradient": float((gradient(plain, z, labels) - d_truth).abs().max() / scale),
    }
    if not max(errors["loss"], errors["gradient"]) < 1e-6:
        raise AssertionError(f"{shape}: errs by {errors}")
    return errors


def core_call(shape: tuple[int, ...]) -> Call:
    """Value and gradient without torch."""
    z, labels = scene(shape)
    law = energy(GAMMA, S, SIGMA, None, False, True)
    frames = z.reshape(-1, *shape[-2:]).numpy(), labels.reshape(-1, *shape[-2:]).numpy()
    gradient, sums = np.empty_like(frames[0]), np.empty(5)
    return lambda: evaluate(*frames, None, law, True, sums=sums, gradient=gradient)


def timed(calls: dict[str, Call], seconds: float) -> Found:
    for warm_up in calls.values():
        for _ in range(3):
            warm_up()
    found = interleaved(calls, seconds, 10)
    return {name: spread(values) | {"least": min(values)} for name, values in found.items()}


def calls_of(shape: tuple[int, ...], peers: bool) -> dict[str, Call]:
    z, labels = scene(shape)
    leaf = z.requires_grad_()

    def step(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        leaf.grad = None
        loss(leaf, labels).backward()

    calls: dict[str, Call] = {"usconf": lambda: step(ours)}
    if peers:
        torch._dynamo.reset()
        compiled = torch.compile(plain, fullgraph=True)
        calls["torch.compile"] = lambda: step(compiled)
        calls["eager"] = lambda: step(plain)
    calls["usconf, core alone"] = core_call(shape)
    return calls


def by_shape(threads: int, seconds: float, peers: bool = True) -> Found:
    torch.set_num_threads(threads)
    usconf.set_num_threads(threads)
    found = {}
    for shape in SHAPES:
        times = timed(calls_of(shape, peers), seconds)
        for name in ("torch.compile", "eager"):
            if name in times:
                times[name]["ratio"] = times[name]["median"] / times["usconf"]["median"]
                times[name]["ratio of the least"] = times[name]["least"] / times["usconf"]["least"]
        found[name_of(shape)] = times
    return found


def name_of(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[-2]} x {shape[-1]}"


def byte_floor(seconds: float) -> dict[str, float]:
    """Seconds a byte: one thread reads an array far away from it and writes another."""
    source = np.ones(2**24, np.float32)
    target = np.zeros_like(source)
    found = interleaved({"": lambda: np.add(source, np.float32(1), out=target)}, seconds, 1)[""]
    return spread([value / (12 * source.size) for value in found])


def measure(counts: list[int], seconds: float) -> Found:
    return {
        "errors": {name_of(shape): validate(shape) for shape in SHAPES},
        # Each in a process of its own: torch's compiled code keeps the number of threads it met.
        "by_threads": {str(n): fresh(SCRIPT, "threads", str(n), str(seconds)) for n in counts},
        "byte_floor": byte_floor(seconds),
        "by_isa": {
            isa: fresh(SCRIPT, "isa", "1", str(seconds / 2), USCONF_ISA=isa)
            for isa in _core.isa_list()
        },
    }


SCRIPT = Path(__file__).name


def in_markdown(found: Found) -> str:
    by_threads = found["by_threads"]
    names = [name_of(shape) for shape in SHAPES]
    columns = [(name, threads) for name in names for threads in by_threads]
    heads = [f"{name}, {threads} thread(s)" for name, threads in columns]
    lines = ["| forward + backward | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for row in by_threads["1"][names[0]]:
        cells = []
        for name, threads in columns:
            times = by_threads[threads][name][row]
            ratio = f", {times['ratio']:.1f}x" if "ratio" in times else ""
            cells.append(timing(times) + ratio)
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    lines.append("")
    for isa, shapes in found["by_isa"].items():
        shown = "; ".join(f"{name} {timing(times['usconf'])}" for name, times in shapes.items())
        lines.append(f"- USCONF_ISA={isa}, 1 thread: {shown}")
    for shape in SHAPES:
        moved = BYTES * int(np.prod(shape))
        floor = moved * found["byte_floor"]["median"]
        core = by_threads["1"][name_of(shape)]["usconf, core alone"]["median"]
        lines.append(
            f"- {name_of(shape)}: {moved / 1e6:.2f} MB ({BYTES} a pixel) take {floor * 1e3:.2f} ms "
            f"on one thread; the core {core / floor:.1f} times that"
        )
    errors = "; ".join(
        f"{name}: " + ", ".join(f"{what} {error:.0e}" for what, error in values.items())
        for name, values in found["errors"].items()
    )
    where = found["machine"]
    lines += ["", f"Relative errors against float64: {errors}."]
    lines.append(
        f"Medians (quartiles). {where['processor']}, {where['cores']} cores, {where['isa']}, load "
        f"{where['load']:.1f}, torch {torch.__version__}; {where['date']}, commit "
        f"{where['commit'] or 'unknown'}."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] in (["threads"], ["isa"]):
        what, threads, seconds = sys.argv[1:4]
        print(json.dumps(by_shape(int(threads), float(seconds), peers=what == "threads")))
    else:
        sys.exit(cpu_command(__doc__, measure, in_markdown))
