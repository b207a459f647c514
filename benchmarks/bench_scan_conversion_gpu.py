"""Scan conversion on an NVIDIA GPU: validates against the CPU, then times.

Needs torch with CUDA; `--output FILE` says where the JSON goes. `--validate` stops after the
validation on small frames: short enough for compute-sanitizer.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import usconf
from bench_random_walk_gpu import on_gpu, timed
from commands import gpu_command
from measure import spread
from table import duration, timing
from torch.nn.functional import grid_sample
from usconf.ops import to_beam, to_scan

BEAM, SCAN = (512, 256), (512, 512)
GEOMETRIES = {
    "sector": usconf.Sector((255.5, -61), 80, 560, -0.6, 0.6),
    "cropped": usconf.Sector((251.2, -60.3), None, 560, -0.7, 0.5),
    "phased": usconf.Sector((255.5, 3), 0, 500, -0.7, 0.7),
    "linear": usconf.Linear(40.5, 470, 3, 505),
    "trapezoid": usconf.Trapezoid((150, 4), (360, 4), (500, 500), (12, 500)),
}
# Largest difference from the CPU's float64 result for pixels from 0 to 1. Integers: of 0 to 200.
TOLERANCES = {"float64": 1e-8, "float32": 1e-6, "float16": 1e-3, "uint8": 0.501}
FRAMES = (1, 16, 256)


def frames_of(shape: tuple[int, int], count: int, kind: str) -> torch.Tensor:
    """Random frames on the GPU, the same in every run."""
    values = np.random.default_rng(1).random((count, *shape))
    return on_gpu((200 * values if kind == "uint8" else values).astype(kind))


def largest(found: torch.Tensor, wanted: Any) -> float:
    return float(np.abs(found.double().cpu().numpy() - np.asarray(wanted, np.float64)).max())


def errors_of(geometry: Any, beam: tuple[int, int], scan: tuple[int, int], kind: str) -> float:
    """Of both directions, of both masks (wrong pixels count 1 each) and, for floats, of both
    gradients (relative to the largest).
    """
    worst = 0.0
    for convert, source, size in ((to_beam, scan, beam), (to_scan, beam, scan)):
        image = frames_of(source, 3, kind)
        ours = convert(image, geometry, size)
        truth = convert(image.cpu().double(), geometry, size)
        worst = max(worst, largest(ours.image, truth.image), largest(ours.mask, truth.mask))
        if kind == "uint8":
            continue
        upstream = frames_of(size, 3, kind)
        both = []
        for x, g in ((image, upstream), (image.cpu().double(), upstream.cpu().double())):
            leaf = x.clone().requires_grad_()
            both.append(torch.autograd.grad(convert(leaf, geometry, size).image, leaf, g)[0])
        worst = max(worst, largest(*both) / float(both[1].abs().max()))
    return worst


def adjoint_error(geometry: Any, kind: str) -> float:
    """|<S x, y> - <x, S' y>| of both directions, relative to the norms."""
    worst = 0.0
    for convert, source, size in ((to_beam, SCAN, BEAM), (to_scan, BEAM, SCAN)):
        x, y = frames_of(source, 1, kind).requires_grad_(), frames_of(size, 1, kind)
        forward = convert(x, geometry, size).image
        (backward,) = torch.autograd.grad(forward, x, y)
        forward, backward = forward.detach().double(), backward.double()
        gap = (forward * y).sum() - (x.detach() * backward).sum()
        worst = max(worst, float(gap.abs() / (forward.norm() * y.double().norm())))
    return worst


def validate(small: bool) -> dict[str, float]:
    """Errors by case; AssertionError where one is too large."""
    errors: dict[str, float] = {}
    scale = 0.15 if small else 1.0
    beam, scan = (tuple(int(n * scale) for n in shape) for shape in (BEAM, SCAN))
    for name, geometry in GEOMETRIES.items():
        given = shrunk(geometry, scale)
        for kind, tolerance in TOLERANCES.items():
            found = errors[f"{name}, {kind}"] = errors_of(given, beam, scan, kind)
            if not found <= tolerance:
                raise AssertionError(f"{name}, {kind} errs by {found:.1e}, more than {tolerance}")
    if small:
        return errors
    for kind, tolerance in (("float32", 1e-6), ("float64", 1e-13)):
        found = errors[f"adjoint, {kind}"] = adjoint_error(GEOMETRIES["phased"], kind)
        if not found <= tolerance:
            raise AssertionError(f"adjoint, {kind} errs by {found:.1e}, more than {tolerance:.0e}")
    return errors


def shrunk(geometry: Any, scale: float) -> Any:
    """The same geometry on a picture of fewer pixels."""
    lengths = {
        field.name: getattr(geometry, field.name)
        for field in dataclasses.fields(geometry)
        if field.name not in ("theta_min", "theta_max", "spacing")
    }
    changed = {
        name: None if value is None else (scale * np.asarray(value)).tolist()
        for name, value in lengths.items()
    }
    return dataclasses.replace(geometry, **changed)


def on_device(call: Callable[[], Any], repeats: int = 20) -> dict[str, float]:
    """Seconds of one call on the device alone: a graph of many, so that no host time counts."""
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    found = []
    for _ in range(25):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        found.append(begin.elapsed_time(end) / 1e3 / repeats)
    return spread(found[5:])


def peer(source: torch.Tensor, direction: str) -> Callable[[], Any]:
    """torch's grid_sample with a grid made beforehand; the same positions, no border handling."""
    fan = GEOMETRIES["sector"]
    radii = torch.linspace(fan.r_min, fan.r_max, BEAM[0], device="cuda", dtype=torch.float64)
    angles = torch.linspace(fan.theta_min, fan.theta_max, BEAM[1], device="cuda").double()
    if direction == "to_beam":
        x = fan.apex[0] + radii[:, None] * angles.sin()
        z = fan.apex[1] + radii[:, None] * angles.cos()
        grid = torch.stack((2 * x / (SCAN[1] - 1) - 1, 2 * z / (SCAN[0] - 1) - 1), -1)
    else:
        z, x = torch.meshgrid(
            torch.arange(SCAN[0], device="cuda") - fan.apex[1],
            torch.arange(SCAN[1], device="cuda") - fan.apex[0],
            indexing="ij",
        )
        across = (torch.atan2(x, z) - fan.theta_min) / (fan.theta_max - fan.theta_min)
        down = (torch.hypot(x, z) - fan.r_min) / (fan.r_max - fan.r_min)
        grid = torch.stack((2 * across - 1, 2 * down - 1), -1)
    grid = grid.to(source.dtype)[None].expand(len(source), -1, -1, -1)
    image = source[:, None]
    return lambda: grid_sample(image, grid, "bilinear", "zeros", True)


def floor_bytes(source: torch.Tensor, convert: Any, size: tuple[int, int]) -> int:
    """What any implementation must move: input pixels that the fan shows, outputs, the mask."""
    leaf = torch.ones((1, *source.shape[1:]), device="cuda", requires_grad=True)
    target = convert(leaf, GEOMETRIES["sector"], size).image
    (touched,) = torch.autograd.grad(target.sum(), leaf)
    pixels = len(source) * (int((touched != 0).sum()) + target.numel())
    return pixels * source.element_size() + target.numel()


def bandwidth() -> float:
    """Bytes per second of a copy much larger than the caches, reads and writes counted."""
    block = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(block)
    return 2 * block.numel() / on_device(lambda: other.copy_(block), 3)["median"]


def measure(seconds: float) -> dict[str, Any]:
    """By direction, type and number of frames: device time, floor, peer, whole call."""
    fan = GEOMETRIES["sector"]
    found: dict[str, Any] = {}
    for convert, source, size in ((to_beam, SCAN, BEAM), (to_scan, BEAM, SCAN)):
        direction = convert.__name__
        for kind in ("float32", "float16", "uint8"):
            for count in FRAMES:
                image = frames_of(source, count, kind)
                row: dict[str, Any] = {"floor_bytes": floor_bytes(image, convert, size)}

                def call(convert: Any = convert, image: Any = image, size: Any = size) -> Any:
                    return convert(image, fan, size)

                row["device"] = on_device(call)
                row["call"] = timed(call, seconds / 4)
                if kind != "uint8":
                    upstream = torch.ones((count, *size), dtype=image.dtype, device="cuda")
                    op = getattr(torch.ops.usconf, f"{direction}_transpose")
                    row["transpose"] = on_device(transposed(op, upstream, fan, size, source))
                if kind == "float32":  # a grid of halves would miss by whole pixels
                    row["grid_sample"] = on_device(peer(image, direction))
                found[f"{direction}, {count} x {kind}"] = row
    return {"bandwidth": bandwidth(), "cases": found}


def transposed(
    op: Any, upstream: torch.Tensor, fan: Any, size: tuple[int, int], source: tuple[int, int]
) -> Callable[[], Any]:
    """The backward alone."""
    grid = fan.beam_grid(SCAN, BEAM)
    kind, values = fan.parameters(grid)
    return lambda: op(upstream, kind, list(values), *source)


def in_markdown(found: dict[str, Any]) -> str:
    copied = found["bandwidth"]
    lines = [
        f"| {found['machine']['gpu']}, copies at {copied / 1e12:.2f} TB/s "
        "| on the device | of the floor | transposed | grid_sample | whole call |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for name, row in found["cases"].items():
        share = row["floor_bytes"] / copied / row["device"]["median"]
        rest = [
            duration(row[key]["median"]) if key in row else ""
            for key in ("transpose", "grid_sample")
        ]
        cells = [name, timing(row["device"]), f"{share:.0%}", *rest, timing(row["call"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(
        gpu_command(
            __doc__, validate, measure, in_markdown, seconds=1.0, output="scan_conversion_gpu.json"
        )
    )
