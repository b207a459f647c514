"""What is measured of the random walk. `run.py` calls this and prints the table.

As a program it is the fresh process that some figures need:
`python benchmarks/bench_random_walk.py {memory,first,isa,gemm} ARGUMENT...`
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import usconf
from baselines import METHODS, OURS, Prototype, available
from measure import fresh, interleaved, peak, spread
from usconf import _core
from usconf.phantom import demo_frame

# Floating-point operations of the elimination by nested dissection, counted by the solver's plan
# for square frames; 2 per multiply-add.
FLOPS = {256: 0.32e9, 512: 2.52e9, 1024: 19.8e9, 2048: 157e9}


def picture(side: int) -> np.ndarray:
    """A (side, side) uint8 frame of the phantom; above 1024 mirrored, which is quicker to make."""
    if side <= 1024:
        return demo_frame(side, side)
    quarter = demo_frame(side // 2, side // 2)
    half = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    return np.concatenate([half, half[::-1]], axis=0)


def validate(image: np.ndarray, maps: dict[str, np.ndarray]) -> dict[str, float]:
    """Largest error of each map against an exact peer's, else against our float64 one."""
    exact = [name for name in maps if METHODS[name].exact and name not in OURS]
    truth = maps[exact[0] if exact else "usconf, float64"]
    errors = {name: float(np.abs(map - truth).max()) for name, map in maps.items()}
    if not errors["usconf"] <= 1e-6:
        raise AssertionError(f"the map of {image.shape} errs by {errors['usconf']:.1e}")
    return errors | {"against": exact[0] if exact else "usconf, float64"}


def whole_calls(
    image: np.ndarray, names: list[str], threads: int, seconds: float, rounds: int
) -> tuple[dict[str, Any], dict[str, float]]:
    """Seconds of each method from the frame to the map, and their errors."""
    side = image.shape[0]
    calls = available({name: METHODS[name] for name in names if METHODS[name].largest >= side})
    usconf.set_num_threads(threads)
    maps = {name: call(image) for name, call in calls.items()}
    errors = validate(image, maps)
    del maps
    bound = {name: lambda call=call: call(image) for name, call in calls.items()}
    found = interleaved(bound, seconds, rounds)
    return {name: spread(values) for name, values in found.items()}, errors


def threads_of(image: np.ndarray, counts: list[int], seconds: float) -> dict[str, Any]:
    """Seconds of a call by number of threads."""

    def call(count: int) -> None:
        usconf.set_num_threads(count)
        usconf.random_walk(image)

    bound = {str(count): lambda count=count: call(count) for count in counts}
    for warm_up in bound.values():
        warm_up()
    return {name: spread(values) for name, values in interleaved(bound, seconds).items()}


def batch(frames: int, side: int, threads: int, seconds: float) -> dict[str, Any]:
    """Frames a second in one call and one by one on one thread; equal to the last bit?"""
    first = demo_frame(side, side)
    clip = np.stack([np.roll(first, 3 * k, axis=1) for k in range(frames)])

    def one_call(count: int) -> np.ndarray:
        usconf.set_num_threads(count)
        return usconf.random_walk(clip, axes="thw")

    def one_by_one() -> np.ndarray:
        usconf.set_num_threads(1)
        return np.stack([usconf.random_walk(frame) for frame in clip])

    maps = [one_call(1), one_call(threads), one_call(threads), one_by_one()]
    equal = all(np.array_equal(maps[0], other) for other in maps[1:])
    calls = {
        "one by one, 1 thread": one_by_one,
        "one call, 1 thread": lambda: one_call(1),
        f"one call, {threads} threads": lambda: one_call(threads),
    }
    found = interleaved(calls, seconds)
    rates = {name: spread([frames / value for value in values]) for name, values in found.items()}
    return {"frames": frames, "side": side, "bit_equal": equal, "frames_per_second": rates}


def gradient(image: np.ndarray, threads: int, seconds: float) -> dict[str, Any]:
    """Seconds of forward and backward by torch, with the factor kept and eliminated again."""
    import torch
    from usconf.walk import Walk

    torch.set_num_threads(threads)
    walk = Walk(image[None], 2.0, 90.0, 0.05)
    # One byte less than it takes to keep the factor.
    too_little = walk.memory("direct") + walk.factor_bytes() - 1
    leaf = torch.from_numpy(image.astype(np.float32)).requires_grad_()
    beta = torch.tensor(90.0, requires_grad=True)
    upstream = torch.from_numpy(np.random.default_rng(1).standard_normal(image.shape)).float()
    state: dict[str, torch.Tensor] = {}

    def plain() -> None:
        with torch.no_grad():
            usconf.random_walk(leaf)

    def forward(limit: int | None) -> None:
        state["map"] = usconf.random_walk(leaf, beta=beta, memory_limit=limit)

    def backward() -> None:
        torch.autograd.grad(state["map"], (leaf, beta), upstream)

    # In this order each backward finds its own forward's map.
    steps = {
        "forward": plain,
        "forward, factor kept": lambda: forward(None),
        "backward, factor kept": backward,
        "forward, nothing kept": lambda: forward(too_little),
        "backward, eliminated again": backward,
    }
    found: dict[str, list[float]] = {name: [] for name in steps}
    begin = time.perf_counter()
    for turn in range(1000):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            found[name].append(time.perf_counter() - start)
        if turn >= 3 and time.perf_counter() - begin > seconds:
            break
    return {name: spread(values[1:]) for name, values in found.items()}  # the first one warms up


def beside_torch(image: np.ndarray, threads: int, seconds: float) -> dict[str, Any]:
    """Maps and torch's own products alone and in turns: does one slow the other down?"""
    import torch

    torch.set_num_threads(threads)
    tensor, factor = torch.from_numpy(image), torch.rand(768, 768)

    def timed(calls: list[Any]) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in calls]
        begin = time.perf_counter()
        while len(found[0]) < 5 or time.perf_counter() - begin < seconds / 3:
            for values, call in zip(found, calls, strict=True):
                start = time.perf_counter()
                call()
                values.append(time.perf_counter() - start)
        return found

    def walk() -> None:
        usconf.random_walk(tensor)

    def product() -> None:
        torch.mm(factor, factor)

    timed([walk, product])
    (walk_alone,), (product_alone,), (walk_mixed, product_mixed) = (
        timed([walk]), timed([product]), timed([walk, product])
    )  # fmt: skip
    return {
        "map alone": spread(walk_alone),
        "map in turns": spread(walk_mixed),
        "product alone": spread(product_alone),
        "product in turns": spread(product_mixed),
    }


def overhead(seconds: float) -> dict[str, float]:
    """Seconds of a call on next to no pixels: Python's share."""
    image = np.arange(64, dtype=np.uint8).reshape(8, 8) + 1
    usconf.random_walk(image)
    return spread(interleaved({"": lambda: usconf.random_walk(image)}, seconds)[""])


def memory(path: Path, name: str, threads: int) -> dict[str, Any]:
    """Peak memory growth of a method on a saved frame, in a fresh process."""
    return fresh("bench_random_walk.py", "memory", name, str(path), str(threads))


def planning(path: Path, threads: int, processes: int) -> dict[str, float]:
    """How much longer the first call for a shape takes."""
    runs = [
        fresh("bench_random_walk.py", "first", str(path), str(threads)) for _ in range(processes)
    ]
    return spread([run["first"] - run["later"] for run in runs])


def forced_isas(path: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Seconds of a call with each build of the kernels."""
    words = ("isa", str(path), str(threads), str(seconds))
    return {isa: fresh("bench_random_walk.py", *words, USCONF_ISA=isa) for isa in _core.isa_list()}


def gemm_peak(threads: int) -> float:
    """Operations a second of NumPy's float32 matrix product, at its best."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return fresh("bench_random_walk.py", "gemm", **dict.fromkeys(names, str(threads)))["flops"]


def prototype(folder: Path, images: dict[int, np.ndarray], threads: int) -> dict[str, float]:
    """Seconds of the research prototype by its own clock, planning left out."""
    program = Prototype(folder)
    return {str(side): program.seconds(image, threads, 9) for side, image in images.items()}


def _memory(name: str, path: str, threads: str) -> dict[str, int]:
    image = np.load(path)
    usconf.set_num_threads(int(threads))
    call = METHODS[name].make()
    call(image[:24, :24].copy())  # libraries and threads are there before the measurement
    before = peak()
    call(image)
    return {"bytes": peak() - before}


def _first(path: str, threads: str) -> dict[str, float]:
    image = np.load(path)
    usconf.set_num_threads(int(threads))
    usconf.random_walk(image[:24, :24])
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        usconf.random_walk(image)
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "later": sorted(seconds[1:])[3]}


def _isa(path: str, threads: str, seconds: str) -> dict[str, float]:
    image = np.load(path)
    usconf.set_num_threads(int(threads))
    usconf.random_walk(image)
    return spread(interleaved({"": lambda: usconf.random_walk(image)}, float(seconds))[""])


def _gemm() -> dict[str, float]:
    side = 2048
    a = np.random.default_rng(0).random((side, side), np.float32)
    seconds = interleaved({"": lambda: a @ a}, 1.0)[""]
    return {"flops": 2 * side**3 / min(seconds)}


if __name__ == "__main__":
    work = {"memory": _memory, "first": _first, "isa": _isa, "gemm": _gemm}[sys.argv[1]]
    print(json.dumps(work(*sys.argv[2:])))
