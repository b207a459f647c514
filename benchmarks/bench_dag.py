"""DAG maps and despeckling: validates, then times.

    python benchmarks/bench_dag.py [--threads 2] [--seconds 1] [--output FILE]

The recurrence alone by the core, against the published recurrence written plainly in NumPy; its
derivative; one iteration of the diffusion against the bytes it must move; the 7 x 7 median; whole
calls from the frame to the map.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import usconf
from commands import cpu_command
from measure import fresh, interleaved, spread
from table import timing
from usconf import _core
from usconf.phantom import demo_frame

SIDES = (512, 1024)
POWERS = (1.0, 1.5)
FRAME = (512, 476)  # of the figures
ITERATIONS = 40
XI, ALPHA, VAR, HALF_WIDTH = 0.1, 1.0, 8.0, 10
Call = Callable[[], Any]


def published(f: np.ndarray, power: float = 1.0) -> np.ndarray:
    """The published recurrence, its index slips included, all edges of the image in one array."""
    height = len(f)
    reach, row = HALF_WIDTH, np.arange(height - 1)
    beam = np.exp(-((np.arange(2 * reach + 1) - reach) ** 2) / (2 * VAR))
    beam /= beam.sum() - (beam[0] + beam[-1]) / 2
    depth = np.exp(-ALPHA * (row + 2) / height)
    x = -np.log(XI) / depth.sum()
    below, flipped = f[1:], f[:0:-1, ::-1]
    padded = np.hstack([flipped[:, -reach:], below, flipped[:, :reach]])
    slots = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1)[..., ::-1]
    gradient = np.abs(f[:-1, :, None] - slots) + 1e-4
    relative = gradient / gradient.mean(axis=1, keepdims=True)
    weight = beam * np.exp(-(relative**power) * (x * depth)[:, None, None])
    found = np.ones(f.shape)
    for r in row:
        wide = np.pad(found[r], reach, mode="symmetric")
        parents = np.lib.stride_tricks.sliding_window_view(wide, 2 * reach + 1)
        found[r + 1] = (weight[r] * parents).sum(axis=1)
    return found


class Core:
    """The core's functions on one frame, without the checks of the public ones."""

    def __init__(self, image: np.ndarray, double: bool = False) -> None:
        self.image, self.double = np.ascontiguousarray(image), double
        kind = np.float64 if double else np.float32
        self.map, self.d_image = np.empty(image.shape, kind), np.empty(image.shape, kind)
        self.d_map = np.random.default_rng(1).standard_normal(image.shape).astype(kind)
        self.d_parameters = np.empty(4)
        scalar = {"uint8": 0, "float32": 4, "float64": 5}[image.dtype.name]
        self.start = (self.image.ctypes.data, scalar, 1, *image.shape, 0, False)

    def _problem(self, power: float) -> tuple[Any, ...]:
        law = (XI, ALPHA, VAR, power, HALF_WIDTH, 0, True, 0, False, 0, 0, False)
        return (*self.start, *law, self.double, usconf.get_num_threads(), -1, 0)

    def dag(self, power: float) -> np.ndarray:
        _core.dag(*self._problem(power), self.map.ctypes.data)
        return self.map

    def backward(self, power: float, parameters: bool) -> None:
        where = [a.ctypes.data for a in (self.map, self.d_map, self.d_image, self.d_parameters)]
        _core.dag_backward(*self._problem(power), *where[:3], where[3] if parameters else 0)

    def srad(self, iterations: int) -> np.ndarray:
        how = ((0, 0, 0, 0), iterations, 0.0, 0.1, self.double, usconf.get_num_threads(), -1, 0)
        _core.srad(*self.start, *how, self.map.ctypes.data)
        return self.map

    def median(self) -> np.ndarray:
        how = (7, self.double, usconf.get_num_threads(), -1, 0)
        _core.median(*self.start, *how, self.map.ctypes.data)
        return self.map


def validate(side: int) -> dict[str, float]:
    """Largest errors: against the published recurrence, and of float32 against float64."""
    image = demo_frame(side, side)
    f = image / 255.0
    truth = published(f)
    ours = usconf.dag(f, variant="hung2021", despeckle=None)
    errors = {"hung2021, float64": float(np.abs(ours - truth).max())}
    for power in POWERS:
        exact, found = Core(image, double=True).dag(power), Core(image).dag(power)
        errors[f"power {power:g}, float32"] = float(np.abs(found - exact).max())
    exact, found = Core(image, double=True).srad(ITERATIONS), Core(image).srad(ITERATIONS)
    errors[f"{ITERATIONS} iterations, of 255"] = float(np.abs(found - exact).max())
    for name, error in errors.items():
        limit = 1e-12 if name.endswith("float64") else 2e-6 if name.endswith("float32") else 5e-3
        if not error <= limit:
            raise AssertionError(f"{side} x {side}, {name}: errs by {error:.1e}")
    return errors


def timed(calls: dict[str, Call], seconds: float) -> dict[str, Any]:
    for warm_up in calls.values():
        warm_up()
    found = interleaved(calls, seconds, 5)
    return {name: spread(values) | {"least": min(values)} for name, values in found.items()}


def own_calls(threads: int, seconds: float) -> dict[str, Any]:
    """Seconds of the core's functions by side."""
    usconf.set_num_threads(threads)
    found = {}
    for side in SIDES:
        core = Core(demo_frame(side, side))
        calls: dict[str, Call] = {}
        for power in POWERS:
            calls[f"map, power {power:g}"] = lambda p=power, c=core: c.dag(p)
            calls[f"d_image, power {power:g}"] = lambda p=power, c=core: c.backward(p, False)
            calls[f"all derivatives, power {power:g}"] = lambda p=power, c=core: c.backward(p, True)
        calls["srad, 1 iteration"] = lambda c=core: c.srad(1)
        calls[f"srad, {ITERATIONS} more"] = lambda c=core: c.srad(ITERATIONS + 1)
        calls["median 7 x 7"] = core.median
        times = timed(calls, seconds)
        more = times.pop(f"srad, {ITERATIONS} more")
        one = times["srad, 1 iteration"]
        times["srad, each further iteration"] = {
            key: value if key == "runs" else (value - one[key]) / ITERATIONS
            for key, value in more.items()
        }
        found[str(side)] = times
    return found


def byte_floor(seconds: float) -> dict[str, float]:
    """Seconds to read one 512 x 512 float32 plane and write another, memory being far away.

    12 bytes a pixel: what is written is read first.
    """
    source = np.ones(2**24, np.float32)
    target = np.zeros_like(source)
    pixels = 512 * 512 / source.size
    found = interleaved({"": lambda: np.add(source, np.float32(1), out=target)}, seconds, 1)[""]
    return spread([value * pixels for value in found])


def whole_calls(threads: int, seconds: float) -> dict[str, Any]:
    """Seconds from the frame to the map."""
    usconf.set_num_threads(threads)
    image = demo_frame(*FRAME)
    calls = {
        "srad and median": lambda: usconf.confidence(image, method="dag"),
        "median": lambda: usconf.confidence(image, method="dag", despeckle="median"),
        "as it is": lambda: usconf.confidence(image, method="dag", despeckle=None),
    }
    return timed(calls, seconds)


def numpy_calls(seconds: float) -> dict[str, Any]:
    frames = {side: demo_frame(side, side) / 255.0 for side in SIDES}
    calls = {str(side): lambda f=f: published(f) for side, f in frames.items()}
    return timed(calls, seconds)


def forced_isas(threads: int, seconds: float) -> dict[str, Any]:
    """The same with each build of the kernels."""
    words = ("isa", str(threads), str(seconds))
    script = Path(__file__).name
    return {isa: fresh(script, *words, USCONF_ISA=isa) for isa in _core.isa_list()}


def in_markdown(found: dict[str, Any]) -> str:
    """A row for each function, a column for each side and number of threads."""
    by_threads = found["by_threads"]
    columns = [(side, threads) for side in map(str, SIDES) for threads in by_threads]
    heads = [f"{side} x {side}, {threads} thread(s)" for side, threads in columns]
    lines = ["| | " + " | ".join(heads) + " |", "|---|" + "---|" * len(heads)]
    for name in next(iter(by_threads.values()))[str(SIDES[0])]:
        cells = [timing(by_threads[threads][side][name]) for side, threads in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    cells = [timing(found["numpy"][side]) if threads == "1" else "" for side, threads in columns]
    lines.append("| published recurrence in NumPy | " + " | ".join(cells) + " |")
    lines.append("")
    for isa, sides in found["by_isa"].items():
        shown = "; ".join(f"{name} {timing(times)}" for name, times in sides[str(SIDES[0])].items())
        lines.append(f"- USCONF_ISA={isa}, 1 thread, {SIDES[0]} x {SIDES[0]}: {shown}")
    floor = found["byte_floor"]["median"]
    for threads, sides in by_threads.items():
        iteration = sides["512"]["srad, each further iteration"]["median"]
        ratio = iteration / floor
        lines.append(
            f"- An iteration of 512 x 512 on {threads} thread(s) takes {ratio:.1f} times as long "
            f"as moving 12 bytes a pixel on one ({floor * 1e3:.2f} ms)."
        )
    for threads, times in found["whole"].items():
        shown = "; ".join(f"{name} {timing(value)}" for name, value in times.items())
        size = f"{FRAME[0]} x {FRAME[1]}"
        lines.append(f'- `confidence(method="dag")` of {size}, {threads} thread(s): {shown}')
    errors = "; ".join(
        f"{side}: " + ", ".join(f"{name} {error:.0e}" for name, error in values.items())
        for side, values in found["errors"].items()
    )
    where = found["machine"]
    lines += ["", f"Largest errors: {errors}."]
    lines.append(
        f"Medians (quartiles). {where['processor']}, {where['cores']} cores, {where['isa']}, load "
        f"{where['load']:.1f}; {where['date']}, commit {where['commit'] or 'unknown'}."
    )
    return "\n".join(lines)


def measure(counts: list[int], seconds: float) -> dict[str, Any]:
    return {
        "errors": {str(side): validate(side) for side in SIDES},
        "by_threads": {str(count): own_calls(count, seconds) for count in counts},
        "numpy": numpy_calls(seconds),
        "byte_floor": byte_floor(seconds),
        "whole": {str(count): whole_calls(count, seconds) for count in counts},
        "by_isa": forced_isas(1, seconds / 2),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["isa"]:
        print(json.dumps(own_calls(int(sys.argv[2]), float(sys.argv[3]))))
    else:
        sys.exit(cpu_command(__doc__, measure, in_markdown))
