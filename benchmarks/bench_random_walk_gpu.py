"""The random walk on an NVIDIA GPU: validates against the CPU, then times.

Needs torch with CUDA, and CuPy for the peer; `--output FILE` says where the JSON goes.
`--validate` stops after the validation on small frames: short enough for compute-sanitizer.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import usconf
from commands import gpu_command
from measure import spread
from table import duration, timing
from usconf.phantom import demo_frame

# Each case runs other kernels or other paths through them.
CASES: dict[str, dict[str, Any]] = {
    "float32": {},
    "float64": {"dtype": torch.float64},
    "sink mid": {"sink": "mid"},
    "sink min": {"sink": "min"},
    "older weighting": {"variant": "monai_1_3"},
    "mask": {"mask": True},
}


def on_gpu(value: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(value).cuda()


def error_of(image: np.ndarray, parameters: dict[str, Any]) -> float:
    """Largest difference from the CPU's float64 map."""
    given = dict(parameters)
    if "mask" in given:
        mask = np.ones(image.shape, np.uint8)
        mask[: image.shape[0] // 3, : image.shape[1] // 4] = 0
        given["mask"] = on_gpu(mask)
    ours = usconf.random_walk(on_gpu(image), **given).double().cpu().numpy()
    if "mask" in given:
        given["mask"] = mask
    truth = usconf.random_walk(image, **given | {"dtype": "float64"})
    return float(np.abs(ours - truth).max())


def gradients_of(image: torch.Tensor) -> list[torch.Tensor]:
    """dLoss/dimage and dLoss/dbeta for a fixed upstream gradient."""
    leaf = image.double().requires_grad_()
    beta = torch.tensor(90.0, dtype=torch.float64, requires_grad=True)
    upstream = torch.linspace(-1, 1, leaf.numel(), dtype=torch.float64, device=leaf.device)
    usconf.random_walk(leaf, beta=beta).backward(upstream.reshape(leaf.shape))
    return [leaf.grad.cpu(), beta.grad]


def validate(small: bool) -> dict[str, float]:
    """Errors by case; AssertionError where one is larger than what the CPU promises."""
    errors: dict[str, float] = {}
    for shape in [(40, 33), (67, 90) if small else (256, 256)]:
        image = demo_frame(*shape)
        for name, parameters in CASES.items():
            found = error_of(image, parameters)
            errors[name] = max(found, errors.get(name, 0.0))
        ours, theirs = gradients_of(on_gpu(image)), gradients_of(torch.from_numpy(image))
        for name, one, other in zip(("d_image", "d_beta"), ours, theirs, strict=True):
            relative = float((one - other).abs().max() / other.abs().max())
            errors[name] = max(relative, errors.get(name, 0.0))
    tolerances = dict.fromkeys(CASES, 1e-6) | {"float64": 1e-8, "d_image": 1e-5, "d_beta": 1e-5}
    for name, tolerance in tolerances.items():
        if not errors[name] <= tolerance:
            raise AssertionError(f"{name} errs by {errors[name]:.1e}, more than {tolerance:.0e}")
    return errors


def timed(call: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Wall time of a call until the GPU is done, after two calls to warm up."""
    for _ in range(2):
        call()
    torch.cuda.synchronize()
    found: list[float] = []
    begin = time.perf_counter()
    while len(found) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - start)
    return spread(found)


def peer(image: np.ndarray) -> Callable[[], Any] | None:
    """Whole call with cupyx's sparse direct solver on our matrix."""
    if importlib.util.find_spec("cupy") is None:
        return None
    cupy = importlib.import_module("cupy")
    spsolve = importlib.import_module("cupyx.scipy.sparse.linalg").spsolve
    given = cupy.asarray(image)

    def call() -> Any:
        matrix, rhs, unknown, seeds = usconf.random_walk_system(given)
        seeds.ravel()[unknown] = spsolve(matrix, rhs)
        return seeds

    return call


def measure(seconds: float) -> dict[str, Any]:
    """Seconds by what was done."""
    found: dict[str, dict[str, float]] = {}
    for side in (256, 512, 1024):
        image = demo_frame(side, side)
        given = on_gpu(image)
        found[f"{side} x {side}"] = timed(lambda given=given: usconf.random_walk(given), seconds)
        leaf = given.float().requires_grad_()
        upstream = torch.ones_like(leaf)

        def both(leaf: torch.Tensor = leaf, upstream: torch.Tensor = upstream) -> None:
            torch.autograd.grad(usconf.random_walk(leaf), leaf, upstream)

        found[f"{side} x {side}, forward and backward"] = timed(both, seconds)
        found[f"{side} x {side}, CPU"] = timed(
            lambda image=image: usconf.random_walk(image), seconds / 2
        )
        if side == 512 and (solve := peer(image)):
            found[f"{side} x {side}, cupyx spsolve"] = timed(solve, seconds)
    frame = on_gpu(demo_frame(256, 256))
    clip = torch.stack([frame.roll(k, 1) for k in range(256)])
    found["256 frames of 256 x 256"] = timed(
        lambda: usconf.random_walk(clip, axes="thw"), 2 * seconds
    )
    return {"seconds": found}


def in_markdown(found: dict[str, Any]) -> str:
    lines = [f"| {found['machine']['gpu']} | time |\n|---|---|"]
    lines += [f"| {name} | {timing(value)} |" for name, value in found["seconds"].items()]
    each = found["seconds"]["256 frames of 256 x 256"]["median"] / 256
    lines.append(f"| a frame of those | {duration(each)} = {1 / each:.0f} frames/s |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(gpu_command(__doc__, validate, measure, in_markdown, seconds=2.0, output="gpu.json"))
