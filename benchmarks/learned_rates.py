"""Frames a second of the network on the CPU: threads, batches, eager and compiled.

`learned_rates.py WEIGHTS THREADS` prints one JSON line: seconds a frame of each.
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import usconf
from measure import fresh, interleaved, machine, spread
from usconf.phantom import demo_frame

SIDE = 256
BATCHES = (1, 16)
SECONDS = 2.0
# Of the confidence: fused kernels round differently.
TOLERANCE = 1e-4
# What a figure is called -> the call, and how many frames it maps.
Calls = dict[str, tuple[Callable[[], Any], int]]


def set_torch_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def described(weights: str) -> dict[str, str]:
    """What a weights file says of itself, with its size and sum."""
    from usconf import weights as files

    path = files.default_path() if weights == "default" else Path(weights)
    content = path.read_bytes()
    said = {key: json.dumps(value) for key, value in sorted(files.metadata(weights).items())}
    digest = hashlib.sha256(content).hexdigest()
    return {"size": f"{len(content) / 1e6:.2f} MB", "sha256": digest} | said


def network(weights: str, device: str) -> Any:
    from usconf import weights as files

    return copy.deepcopy(files.load(weights, device=device))


def frames(batch: int, device: str) -> Any:
    """(batch, 1, 256, 256) float32 phantoms, as they come: 0 to 255."""
    import torch

    clip = np.stack([demo_frame(SIDE, SIDE, seed=seed % 8) for seed in range(batch)])
    return torch.from_numpy(clip.astype(np.float32))[:, None].to(device)


def per_frame(calls: Calls, seconds: float = SECONDS) -> dict[str, float]:
    """Median seconds a frame of each."""
    for call, _ in calls.values():
        call()
        call()
    found = interleaved({name: call for name, (call, _) in calls.items()}, seconds)
    return {name: spread(times)["median"] / calls[name][1] for name, times in found.items()}


def on_cpu(weights: str, threads: int) -> dict[str, float]:
    """Whole calls of `usconf.learned` and the network alone."""
    import torch

    set_torch_threads(threads)
    usconf.set_num_threads(threads)
    model = network(weights, "cpu")
    frame = demo_frame(SIDE, SIDE)
    where = f"CPU, {threads} thread(s)"
    calls: Calls = {
        f"{where}, usconf.learned, uint8 frame": (
            lambda: usconf.learned(frame, weights=weights, size=None),
            1,
        ),
        f"{where}, usconf.learned, on the weights' grid": (
            lambda: usconf.learned(frame, weights=weights),
            1,
        ),
    }
    with torch.inference_mode():
        for batch in BATCHES:
            image = frames(batch, "cpu")
            compiled = torch.compile(model, dynamic=False)
            error = (compiled(image).sigmoid() - model(image).sigmoid()).abs().max().item()
            if not error <= TOLERANCE:
                raise AssertionError(f"batch {batch}: the compiled network errs by {error:.1e}")
            kinds = {"eager": model, "torch.compile": compiled}
            for kind, run in kinds.items():
                calls[f"{where}, network {kind}, batch {batch}"] = (
                    partial(run, image),
                    batch,
                )
        return per_frame(calls)


def measured(weights: str, threads: int) -> dict[str, Any]:
    """Seconds a frame, each number of threads in a process of its own."""
    seconds: dict[str, float] = {}
    for count in sorted({1, threads}):
        seconds |= fresh("learned_rates.py", weights, str(count))
    return {"machine": machine(), "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(on_cpu(sys.argv[1], int(sys.argv[2]))))
