"""DAG maps and despeckling on an NVIDIA GPU: validates against the CPU, then times.

Needs torch with CUDA; `--output FILE` says where the JSON goes. `--validate` stops after the
validation on small frames: short enough for compute-sanitizer.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import usconf
from bench_random_walk_gpu import on_gpu, timed
from bench_scan_conversion_gpu import on_device
from commands import gpu_command
from table import duration, timing
from usconf.phantom import demo_frame
from usconf.sweep import Parameters, Sweep

DEFAULTS = Parameters(0.1, 1.0, 8.0, 1.0)
SETTINGS = ("mask", "reference", "needle", "artifact")
# Each case runs other kernels or other paths through them.
CASES: dict[str, dict[str, Any]] = {
    "float32": {},
    "float64": {"dtype": "float64"},
    "power 2": {"power": 2.0},
    "steep": {"xi": 1e-30, "alpha": 20.0},
    "wide beam": {"half_width": 40, "var": 200.0},
    "mask": {"mask": True},
    "structural": {"reference": True},
    "needle and artifact": {"needle": True, "artifact": True},
    "published": {"variant": "hung2021"},
}
TOLERANCES = dict.fromkeys(CASES, 2e-6) | {"float64": 1e-12}
SMOOTHINGS: dict[str, dict[str, Any]] = {
    "srad": {},
    "srad, 50 iterations": {"iterations": 50, "tolerance": 0.0},
    "srad, mask": {"mask": True},
    "median": {"method": "median"},
    "median 11, mask": {"method": "median", "size": 11, "mask": True},
}


def planes(image: np.ndarray) -> dict[str, np.ndarray]:
    """What the settings of a case stand for, for frames of the image's shape."""
    rng = np.random.default_rng(1)
    mask = rng.random(image.shape) > 0.1
    mask[: image.shape[0] // 3, : image.shape[1] // 4] = False
    needle = np.zeros(image.shape, np.float32)
    needle[image.shape[0] // 2 :][:3] = 1
    artifact = (rng.random(image.shape) > 0.98).astype(np.float32)
    return {
        "mask": mask,
        "reference": np.ascontiguousarray(image[:, ::-1]),
        "needle": needle,
        "artifact": artifact,
    }


def error_of(image: np.ndarray, call: Callable[..., Any], case: dict[str, Any]) -> float:
    """Largest difference from the CPU's float64 result, of what comes out between 0 and 1."""
    given = case | {name: planes(image)[name] for name in SETTINGS if case.get(name)}
    truth = call(image, **given | {"dtype": "float64"})
    ours = call(
        on_gpu(image),
        **{k: on_gpu(v) if isinstance(v, np.ndarray) else v for k, v in given.items()},
    )
    scale = max(1.0, float(np.abs(truth).max()))
    return float(np.abs(ours.double().cpu().numpy() - truth).max()) / scale


def gradients_of(image: torch.Tensor, **given: Any) -> list[torch.Tensor]:
    """By the image and by xi, alpha, var and power, for a fixed upstream gradient."""
    leaf = image.double().requires_grad_()
    numbers = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for name, value in zip(Parameters._fields, DEFAULTS, strict=True)
    }
    map_ = usconf.dag(leaf, **numbers, despeckle=None, **given)
    upstream = torch.linspace(-1, 1, leaf.numel(), dtype=torch.float64, device=leaf.device)
    map_.backward(upstream.reshape(leaf.shape))
    return [leaf.grad.cpu(), torch.stack([number.grad for number in numbers.values()])]


def validate(small: bool) -> dict[str, float]:
    """Errors by case; AssertionError where one is too large."""
    errors: dict[str, float] = {}

    def put(name: str, found: float, tolerance: float) -> None:
        errors[name] = max(found, errors.get(name, 0.0))
        if not found <= tolerance:
            raise AssertionError(f"{name} errs by {found:.1e}, more than {tolerance:.0e}")

    # The last one is wider than a block: its sweeps go by strips.
    for shape in [(40, 57)] if small else [(512, 476), (97, 33), (64, 1200)]:
        image = demo_frame(*shape)
        for name, case in CASES.items():

            def call(picture: Any, **given: Any) -> Any:
                return usconf.dag(picture, despeckle=None, **given)

            put(name, error_of(image, call, case), TOLERANCES[name])
        for name, case in SMOOTHINGS.items():
            put(name, error_of(image, usconf.despeckle, case), 4e-6)
        for variant in (None, "hung2021"):
            both = [
                gradients_of(x, variant=variant) for x in (on_gpu(image), torch.from_numpy(image))
            ]
            for name, one, other in zip(("d_image", "d_parameters"), *both, strict=True):
                put(name, float((one - other).abs().max() / other.abs().max()), 1e-9)
    return errors


def eager(image: torch.Tensor) -> Callable[[], Any]:
    """The recurrence of one frame in eager torch: all weights at once, then a loop over rows."""
    height, width = image.shape
    f = image.float() / image.max()
    offsets = torch.arange(-10, 11, device=image.device)
    columns = (torch.arange(width, device=image.device)[:, None] + offsets) % (2 * width)
    columns = torch.where(columns < width, columns, 2 * width - 1 - columns)
    beam = torch.exp(-(offsets**2) / 16.0)
    depth = torch.exp(-(torch.arange(height - 1, device=image.device) + 2.0) / height)

    def call() -> torch.Tensor:
        difference = (f[:-1][:, columns] - f[1:, :, None]).abs() + 1e-4
        rel = difference / difference.mean(1, keepdim=True)
        rate = -np.log(0.1) / depth.sum() * depth
        weights = beam / beam.sum() * torch.exp(-rel * rate[:, None, None])
        rows = [torch.ones(width, device=f.device)]
        for w in weights:
            rows.append((w * rows[-1][columns]).sum(1))
        return torch.stack(rows)

    return call


def measure(seconds: float) -> dict[str, Any]:
    """By number and size of frames: the map, its backward, power 2, whole calls; then a peer."""
    found: dict[str, Any] = {}
    for count, side in ((1, 256), (1, 512), (1, 1024), (132, 512), (256, 256)):
        frame = on_gpu(demo_frame(side, side)).float()
        clip = torch.stack([frame.roll(k, 1) for k in range(count)])
        sweep = Sweep(clip, DEFAULTS)
        steep = Sweep(clip, DEFAULTS._replace(power=2.0))
        maps = sweep.solve()
        upstream = torch.ones_like(maps)
        row: dict[str, Any] = {"rows": side}
        row["map"] = on_device(sweep.solve, 5)
        row["power 2"] = on_device(steep.solve, 5)
        row["backward"] = on_device(backward_of(sweep, maps, upstream), 5)
        row["call"] = timed(lambda clip=clip: usconf.dag(clip, axes="thw", despeckle=None), seconds)
        row["median"] = timed(
            lambda clip=clip: usconf.despeckle(clip, "median", axes="thw"), seconds
        )
        row["srad"] = timed(lambda clip=clip: usconf.despeckle(clip, axes="thw"), seconds)
        row["fifty"] = timed(
            lambda clip=clip: usconf.despeckle(clip, iterations=50, tolerance=0.0, axes="thw"),
            seconds,
        )
        if count == 1 and side == 512:
            row["eager"] = timed(eager(frame), seconds)
        found[f"{count} x {side} x {side}"] = row
    return {"cases": found}


def backward_of(sweep: Sweep, maps: torch.Tensor, upstream: torch.Tensor) -> Callable[[], Any]:
    """The backward alone, all of its results."""
    return lambda: sweep.backward(maps, upstream, True, True)


def in_markdown(found: dict[str, Any]) -> str:
    lines = [
        f"| {found['machine']['gpu']} | map on the device | a row | power 2 | backward "
        "| whole call | median | srad | srad, 50 iterations | eager torch |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|---|---|")
    for name, row in found["cases"].items():
        each = duration(row["map"]["median"] / row["rows"])
        rest = [
            timing(row[key]) if key in row else ""
            for key in ("power 2", "backward", "call", "median", "srad", "fifty", "eager")
        ]
        lines.append(f"| {' | '.join([name, timing(row['map']), each, *rest])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(
        gpu_command(__doc__, validate, measure, in_markdown, seconds=0.3, output="dag_gpu.json")
    )
