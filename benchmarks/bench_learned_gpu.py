"""The network on an NVIDIA GPU: validates against the CPU, then times, eager and as CUDA graph.

Needs torch with CUDA; `--output FILE` says where the JSON goes. `--validate` stops after the
validation. `bench_learned.py --readme` puts the newest file of benchmarks/results into the pages.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import usconf
from commands import gpu_command
from learned_rates import SIDE, Calls, frames, network, per_frame
from map_tables import rates
from usconf.phantom import demo_frame

BATCHES = (1, 16, 64, 256)
DTYPES = (torch.float32, torch.bfloat16)
# TF32 is off: what is left is another order of sums.
TOLERANCE = 2e-3


def validate(small: bool) -> dict[str, float]:
    """Largest difference of the map from the CPU's, in confidence."""
    errors = {}
    for shape in ((64, 48),) if small else ((64, 48), (SIDE, SIDE), (512, 476)):
        image = demo_frame(*shape)
        ours = usconf.learned(torch.from_numpy(image).cuda()).cpu().numpy()
        error = float(np.abs(ours - usconf.learned(image)).max())
        if not error <= TOLERANCE:
            raise AssertionError(f"{shape}: errs by {error:.1e}")
        errors[f"{shape[0]} x {shape[1]}"] = error
    return errors


def graphed(model: Any, image: Any) -> Callable[[], Any]:
    """The network on this very tensor as one CUDA graph."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # cuDNN chooses its kernels outside the capture
        for _ in range(3):
            model(image)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(image)
    return graph.replay


def finished(call: Callable[[], Any]) -> Callable[[], None]:
    """The call, waited for."""

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def measure(seconds: float) -> dict[str, Any]:
    """The network alone, frames on the device; a single frame's figure is its latency."""
    calls: Calls = {}
    torch.backends.cudnn.benchmark = True
    with torch.inference_mode():
        for dtype in DTYPES:
            model = network("default", "cuda").to(dtype, memory_format=torch.channels_last)
            for batch in BATCHES:
                image = frames(batch, "cuda").contiguous(memory_format=torch.channels_last)
                name = f"{str(dtype).removeprefix('torch.')}, batch {batch}"
                calls[f"{name}, eager"] = (finished(partial(model, image)), batch)
                calls[f"{name}, CUDA graph"] = (finished(graphed(model, image)), batch)
        whole = torch.from_numpy(demo_frame(SIDE, SIDE)).cuda()
        calls["usconf.learned, uint8 tensor"] = (finished(lambda: usconf.learned(whole)), 1)
        return {"seconds": per_frame(calls, seconds)}


if __name__ == "__main__":
    sys.exit(
        gpu_command(__doc__, validate, measure, rates, seconds=0.5, output="build/learned-gpu.json")
    )
