"""The annotation model's loss on an NVIDIA GPU: validates against the CPU, then times.

Needs torch with CUDA; `--output FILE` says where the JSON goes. `--validate` stops after the
validation on small frames: short enough for compute-sanitizer.

Bytes are what value and gradient must move; a batch that fits into the GPU's cache may seem faster
than a copy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import torch
import usconf.ops
from bench_pgm import BYTES, GAMMA, SIGMA, S, name_of, ours, plain, scene
from bench_random_walk_gpu import timed
from bench_scan_conversion_gpu import bandwidth, on_device
from commands import gpu_command
from table import duration, timing
from torch import Tensor
from torch.nn.functional import logsigmoid
from usconf.pgm import slope

SHAPES = (*((frames, 1, 256, 256) for frames in (1, 8, 64, 256)), (1, 1, 512, 512))
# Of the copy's bandwidth, by batches that fill the chip.
GOAL = 0.7
# Each case runs another kernel or another path through it; a mask is of one plane or of all frames.
CASES: dict[str, dict[str, Any]] = {
    "mean": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "constants, weights": {"constants": True, "label_weights": (0.5, 2.0, 1.5)},
    "mask of one plane": {"decay_total": 0.3, "mask": 1},
    "mask of all frames": {"reduction": "sum", "mask": 3},
    "mask, none": {"reduction": "none", "mask": 3},
}
# Of the largest value. The halves are computed as float32, and their gradient is rounded last.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}
ROUNDING = {torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
# Odd ones, of one row, of one column, of several strips of the kernel.
SIZES = ((3, 67, 95), (3, 1, 70), (3, 41, 1), (3, 1, 1), (3, 256, 256))
Call = Callable[[], Any]
Found = dict[str, Any]


def relative(found: Tensor, truth: Tensor, scale: Tensor) -> float:
    """Largest difference, in units of the truth's largest value; NaN where one is."""
    return float((found.cpu().double() - truth).abs().max() / scale.abs().max().clamp(min=1e-30))


def evaluated(confidence: Tensor, labels: Tensor, given: Found) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, parts, and the gradient for an upstream one that is not 1."""
    leaf = confidence.detach().requires_grad_()
    loss = usconf.ops.pgm_loss(leaf, labels, **given)
    upstream = torch.linspace(0.5, 1.5, loss.numel(), device=loss.device, dtype=loss.dtype)
    (gradient,) = torch.autograd.grad(loss, leaf, upstream.reshape(loss.shape))
    parts = usconf.ops.pgm_parts(confidence, labels, **given)
    return loss.detach(), torch.stack(list(parts.values())), gradient


def off_kinks(confidence: Tensor, logits: bool, s: float) -> Tensor:
    """Pixels whose gradient is that of one branch: the hinge's jumps where its argument is 0."""
    log_x = logsigmoid(confidence) if logits else confidence.log()
    near = (log_x[:, 1:] - log_x[:, :-1] + s).abs() < 1e-5
    kinks = torch.zeros_like(confidence, dtype=torch.bool)
    kinks[:, 1:] |= near
    kinks[:, :-1] |= near
    return ~kinks


def errors_of(size: tuple[int, ...], dtype: torch.dtype, logits: bool, case: Found) -> list[float]:
    """Of the loss, its parts and its gradient against the CPU's in float64."""
    random = torch.Generator().manual_seed(1)
    z = 2 * torch.randn(size, generator=random)
    labels = torch.randint(3, size, dtype=torch.uint8, generator=random)
    # Larger ones may become 1 in bfloat16, and each type clamps a 1 its own way.
    confidence = (z if logits else z.sigmoid().clamp(0.01, 0.98)).to(dtype)
    given = case | {"from_logits": logits}
    if planes := case.get("mask"):
        mask = torch.rand(planes, *size[1:], generator=random) > 0.2
        given["mask"] = mask[0] if planes == 1 else mask
    exact = confidence.double()
    truth = evaluated(exact, labels, given)
    there = {name: v.cuda() if isinstance(v, Tensor) else v for name, v in given.items()}
    loss, parts, gradient = evaluated(confidence.cuda(), labels.cuda(), there)
    counted = off_kinks(exact, logits, slope(None, case.get("decay_total"), size[1]))
    return [
        relative(loss, truth[0], truth[0]),
        relative(parts, truth[1], truth[1]),
        relative(gradient.cpu().double() * counted, truth[2] * counted, truth[2]),
    ]


def validate(small: bool) -> dict[str, float]:
    """Errors by type; AssertionError where one is too large."""
    errors: dict[str, float] = {}
    # A half takes float32's kernels.
    dtypes = (torch.float64, torch.float32) if small else tuple(TOLERANCES)
    sizes = SIZES[:-1] if small else SIZES
    for dtype, size, logits, name in product(dtypes, sizes, (True, False), CASES):
        most = TOLERANCES[dtype]
        allowed = {"loss": most, "parts": most, "gradient": most + ROUNDING.get(dtype, 0.0)}
        found = errors_of(size, dtype, logits, CASES[name])
        for what, error in zip(allowed, found, strict=True):
            where = f"{str(dtype).removeprefix('torch.')}, {what}"
            errors[where] = max(error, errors.get(where, 0.0))
            if not error <= allowed[what]:
                raise AssertionError(
                    f"{where}, {name}, logits {logits}, {size}: errs by {error:.1e}, "
                    f"more than {allowed[what]:.0e}"
                )
    return errors


def forward_and_backward(
    loss: Callable[[Tensor, Tensor], Tensor], leaf: Tensor, labels: Tensor
) -> Tensor:
    return torch.autograd.grad(loss(leaf, labels), leaf)[0]


def one_pass(z: Tensor, labels: Tensor) -> Call:
    """The kernel that finds value and gradient, without what autograd does with them."""
    frames = [plane.detach().reshape(-1, *plane.shape[-2:]) for plane in (z, labels)]
    law = (GAMMA, S, SIGMA, [1.0, 1.0, 1.0], False, True)
    return lambda: torch.ops.usconf.pgm_loss(*frames, None, *law, True, True)


def captured(call: Call) -> Found | None:
    """Its time on the device, where a CUDA graph takes it."""
    try:
        return on_device(call)
    except RuntimeError as problem:
        print(f"no CUDA graph: {str(problem).splitlines()[0]}")
        torch.cuda.synchronize()
        return None


def measure_shape(shape: tuple[int, ...], peers: dict[str, Any], seconds: float) -> Found:
    z, labels = (plane.cuda() for plane in scene(shape))
    leaf = z.requires_grad_()
    row: Found = {"bytes": BYTES * math.prod(shape), "pass": on_device(one_pass(leaf, labels))}
    for name, loss in {"usconf": ours, "eager": plain, **peers}.items():
        call = partial(forward_and_backward, loss, leaf, labels)
        try:
            row[name] = {"call": timed(call, seconds), "device": captured(call)}
        except RuntimeError as problem:
            if name not in peers:
                raise
            # torch.compile wants a compiler and Python's headers of the machine.
            row[name] = {"missing": str(problem).splitlines()[0]}
    return row


def measure(seconds: float) -> Found:
    """By shape: bytes, the pass, then forward and backward beside the peers."""
    peers = {"torch.compile": torch.compile(plain, fullgraph=True, dynamic=False)}
    cases = {name_of(shape): measure_shape(shape, peers, seconds) for shape in SHAPES}
    return {"bandwidth": bandwidth(), "cases": cases}


def cells_of(row: Found, copied: float) -> list[str]:
    """A row of the table behind its name."""

    def share(times: Found | None) -> str:
        return f"{row['bytes'] / copied / times['median']:.0%}" if times else ""

    both = row["usconf"]["device"]
    cells = [
        f"{row['bytes'] / 1e6:.2f} MB",
        timing(row["pass"]),
        share(row["pass"]),
        timing(both) if both else "",
        share(both),
        timing(row["usconf"]["call"]),
    ]
    for peer in ("eager", "torch.compile"):
        of_device = row[peer].get("device")
        cells.append(duration(of_device["median"]) if of_device else "")
        cells.append(timing(row[peer]["call"]) if "call" in row[peer] else "not run")
    return cells


def in_markdown(found: Found) -> str:
    copied = found["bandwidth"]
    heads = [
        f"{found['machine']['gpu']}, copies at {copied / 1e12:.2f} TB/s",
        "must move",
        "one pass on the device",
        f"of the copy's bandwidth (goal when large: {GOAL:.0%})",
        "forward + backward on the device",
        "of the copy's",
        "whole call",
        "eager, on the device",
        "eager, whole call",
        "torch.compile, on the device",
        "torch.compile, whole call",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---|" * (len(heads) - 1)]
    for name, row in found["cases"].items():
        lines.append(f"| {' | '.join([name, *cells_of(row, copied)])} |")
    missing = {row["torch.compile"].get("missing") for row in found["cases"].values()} - {None}
    return "\n".join([*lines, *(f"\ntorch.compile did not run: {why}" for why in sorted(missing))])


if __name__ == "__main__":
    sys.exit(
        gpu_command(
            __doc__, validate, measure, in_markdown, seconds=0.3, output="build/pgm-gpu.json"
        )
    )
