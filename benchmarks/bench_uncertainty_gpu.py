"""The uncertainty measures on an NVIDIA GPU, and L-FUSION's pipeline: validates, then times.

Needs torch with CUDA; `--output FILE` says where the JSON goes. `--validate` stops after the
validation on small maps: short enough for compute-sanitizer. The pipeline and its parts are those
of bench_uncertainty.py.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import torch
import usconf.ops
from bench_random_walk_gpu import timed
from bench_scan_conversion_gpu import bandwidth, on_device
from bench_uncertainty import DRAWS, SIDE, rates
from commands import gpu_command
from table import duration, timing
from torch import Tensor
from usconf.uncertainty import measures

CLASSES, IMAGES = (1, 3), (1, 16, 64)
# In nats; the halves are computed as float32.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-6, torch.bfloat16: 2e-6}
PAPER = {"whole pipeline, fused map": 40, "without fusion, measures of both heads": 45}
Found = dict[str, Any]


def eager(draws: Tensor) -> Tensor:
    """The definitions in torch's own operators, all draws at once."""
    p = draws.softmax(2) if draws.shape[2] > 1 else draws.sigmoid()
    both = p if draws.shape[2] > 1 else torch.cat((p, 1 - p), 2)
    total = torch.special.entr(both.mean(0)).sum(1)
    expected = torch.special.entr(both).sum(2).mean(0)
    return torch.stack((total, expected, total - expected, p.var(0, correction=0).mean(1)))


def difference(found: Any, truth: Any) -> float:
    pairs = zip(found, truth, strict=True)
    return max(float((one.cpu().double() - other).abs().max()) for one, other in pairs)


def errors_of(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, float]:
    """Of the maps of (n, B, C, H, W) draws against the CPU's in float64."""
    torch.manual_seed(0)
    draws = (3 * torch.randn(shape)).to(dtype)
    noise = torch.randn(7, *shape[1:]).to(dtype)
    mask = torch.rand(shape[1], *shape[3:]) > 0.2
    exact, there = draws.double(), draws.cuda()
    truth = measures(exact)
    alike = measures(there[:1].expand(shape))
    if alike.MI.any() or alike.PV.any():
        raise AssertionError(f"{shape}: equal draws must have no MI and PV")
    return {
        "draws": difference(measures(there), truth),
        "mask": difference(measures(there, mask=mask.cuda()), measures(exact, mask=mask)),
        "noise": difference(
            usconf.ops.uncertainty(there, noise.cuda()),
            usconf.ops.uncertainty(exact, noise.double()),
        ),
        "eager": difference(eager(exact), truth),
    }


def validate(small: bool) -> dict[str, float]:
    """Errors by type; AssertionError where one is too large."""
    errors: dict[str, float] = {}
    sizes = [(17, 31), (1, 1)] if small else [(17, 31), (1, 1), (96, 100)]
    # A half takes float32's kernels.
    for dtype in (torch.float64, torch.float32) if small else TOLERANCES:
        for classes in (1, 2, 3):
            for size in sizes:
                shape = (5 if small else DRAWS, 2, classes, *size)
                for name, error in errors_of(shape, dtype).items():
                    where = f"{str(dtype).removeprefix('torch.')}, {name}"
                    errors[where] = max(error, errors.get(where, 0.0))
                    if not error <= TOLERANCES[dtype]:
                        raise AssertionError(f"{where}, {shape}: errs by {error:.1e}")
    return errors


def measure(seconds: float) -> Found:
    """20 draws by classes and images: the operator, the whole call, a peer; then the pipeline."""
    cases: Found = {}
    for classes in CLASSES:
        for images in IMAGES:
            draws = 3 * torch.randn(DRAWS, images, classes, SIDE, SIDE, device="cuda")
            row: Found = {"bytes": 4 * (draws.numel() + 4 * images * SIDE**2)}
            row["device"] = on_device(partial(usconf.ops.uncertainty, draws))
            row["eager"] = on_device(partial(eager, draws), 5)
            row["call"] = timed(partial(measures, draws), seconds)
            row["eager call"] = timed(partial(eager, draws), seconds)
            cases[f"{images} x {SIDE} x {SIDE}, {classes} class(es)"] = row
    return {
        "bandwidth": bandwidth(),
        "cases": cases,
        "pipeline": rates("cuda", torch.get_num_threads(), seconds),
    }


def in_markdown(found: Found) -> str:
    """The operator's table, then the pipeline's."""
    copied = found["bandwidth"]
    lines = [
        f"| {found['machine']['gpu']}, copies at {copied / 1e12:.2f} TB/s; {DRAWS} draws "
        "| on the device | of the copy's bandwidth | eager, on the device | whole call "
        "| eager, whole call |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in found["cases"].items():
        share = f"{row['bytes'] / copied / row['device']['median']:.0%}"
        peer = duration(row["eager"]["median"])
        cells = [timing(row["device"]), share, peer, timing(row["call"]), timing(row["eager call"])]
        lines.append(f"| {' | '.join([name, *cells])} |")
    lines += [
        "",
        f"| pipeline, one frame of {SIDE} x {SIDE}, n = {DRAWS} | time | frames/s | the paper's |",
        "|---|---|---|---|",
    ]
    for name, times in found["pipeline"].items():
        rate = f"{1 / times['median']:.0f}" if name.startswith(("whole", "without")) else ""
        lines.append(f"| {name} | {timing(times)} | {rate} | {PAPER.get(name, '')} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(
        gpu_command(
            __doc__, validate, measure, in_markdown,
            seconds=0.2, output="build/uncertainty-gpu.json",
        )
    )  # fmt: skip
