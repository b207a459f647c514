"""Scan conversion both ways, against OpenCV, torch and SciPy: validates, then times.

    python benchmarks/bench_scan_conversion.py [--threads 2] [--seconds 1] [--output FILE]

A 512 x 256 beam image and a 512 x 512 scan image of one fan. Every method has its plan before it is
timed: ours is kept by usconf, the peers get their float maps of positions.
"""

from __future__ import annotations

import functools
import importlib
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

SECTOR = usconf.Sector(
    apex=(255.5, -60.0), r_min=70.0, r_max=560.0, theta_min=-0.62, theta_max=0.62
)
BEAM, SCAN = (512, 256), (512, 512)
DIRECTIONS = ("to_scan", "to_beam")
# (name, dtype, frames)
WORK = (
    ("float32", "float32", 1),
    ("float32, 16 frames", "float32", 16),
    ("uint8", "uint8", 1),
    ("uint8, 16 frames", "uint8", 16),
)
Call = Callable[[], Any]


def positions(direction: str) -> tuple[np.ndarray, np.ndarray]:
    """Column and row in the source of every pixel of the target, float64."""
    sector, (samples, lines) = SECTOR, BEAM
    radii, angles = sector.r_max - sector.r_min, sector.theta_max - sector.theta_min
    if direction == "to_scan":
        z, x = np.mgrid[: SCAN[0], : SCAN[1]].astype(float)
        x, z = x - sector.apex[0], z - sector.apex[1]
        column = (np.arctan2(x, z) - sector.theta_min) / angles * (lines - 1)
        return column, (np.hypot(x, z) - sector.r_min) / radii * (samples - 1)
    sample, line = np.mgrid[:samples, :lines].astype(float)
    r = sector.r_min + sample / (samples - 1) * radii
    theta = sector.theta_min + line / (lines - 1) * angles
    return sector.apex[0] + r * np.sin(theta), sector.apex[1] + r * np.cos(theta)


def source(direction: str, dtype: str, frames: int) -> np.ndarray:
    """Smooth pictures, so that small errors of the positions stay small."""
    rows, columns = BEAM if direction == "to_scan" else SCAN
    frame, row, column = np.ogrid[:frames, :rows, :columns]
    wave = np.sin(row / 17 + frame) * np.cos(column / 11)
    return np.round(120 + 100 * wave).astype(dtype) if dtype == "uint8" else wave.astype(dtype)


def ours(direction: str, stack: np.ndarray) -> Call:
    if direction == "to_scan":
        return lambda: usconf.to_scan(stack, SECTOR, SCAN, axes="thw").image
    return lambda: usconf.to_beam(stack, SECTOR, BEAM, axes="thw").image


def core(direction: str, stack: np.ndarray) -> Call:
    """Without the checks, the mask and the fresh memory of the public function."""
    kind, values = SECTOR.parameters(SECTOR.beam_grid(SCAN, BEAM))
    target = np.empty((len(stack), *(SCAN if direction == "to_scan" else BEAM)), stack.dtype)
    scalar = {"uint8": 0, "float32": 4}[stack.dtype.name]
    arguments = (
        DIRECTIONS.index(direction) ^ 1, False, False, scalar, len(stack), kind, values,
        *BEAM, *SCAN, stack.ctypes.data, target.ctypes.data, 0,
    )  # fmt: skip

    def call() -> np.ndarray:
        _core.scan_conversion(*arguments, usconf.get_num_threads(), -1, 0)
        return target

    return call


def opencv(direction: str, stack: np.ndarray, kept: bool = False) -> Call:
    cv2 = importlib.import_module("cv2")
    x, y = (map.astype(np.float32) for map in positions(direction))
    target = [np.empty(x.shape, stack.dtype) if kept else None for _ in stack]

    def call() -> list[np.ndarray]:
        return [
            cv2.remap(frame, x, y, cv2.INTER_LINEAR, dst=to)
            for frame, to in zip(stack, target, strict=True)
        ]

    return call


def grid_sample(direction: str, stack: np.ndarray) -> Call:
    torch = importlib.import_module("torch")
    if stack.dtype != np.float32:
        raise ImportError("torch's grid_sample takes floating point only")
    sizes = stack.shape[:0:-1]  # columns, rows
    x, y = positions(direction)
    scaled = [x / (sizes[0] - 1) * 2 - 1, y / (sizes[1] - 1) * 2 - 1]
    grid = torch.from_numpy(np.stack(scaled, -1).astype(np.float32))
    grid = grid.expand(len(stack), *grid.shape)
    batch = torch.from_numpy(stack)[:, None]
    sample = torch.nn.functional.grid_sample
    return lambda: sample(batch, grid, align_corners=True)[:, 0].numpy()


def scipy(direction: str, stack: np.ndarray) -> Call:
    ndimage = importlib.import_module("scipy.ndimage")
    if len(stack) > 1:
        raise ImportError("one frame of it says enough")
    at = np.stack(positions(direction)[::-1])
    return lambda: [ndimage.map_coordinates(frame, at, order=1) for frame in stack]


OWN = "usconf's core, target kept"
METHODS: dict[str, Callable[[str, np.ndarray], Call]] = {
    "usconf": ours,
    "cv2.remap": opencv,
    OWN: core,
    "cv2.remap, target kept": functools.partial(opencv, kept=True),
    "torch grid_sample": grid_sample,
    "scipy map_coordinates": scipy,
}

RATIOS = {
    "cv2 / usconf": ("cv2.remap", "usconf"),
    "torch / usconf": ("torch grid_sample", "usconf"),
    "cv2 / usconf, targets kept": ("cv2.remap, target kept", OWN),
}


def calls(direction: str, stack: np.ndarray) -> dict[str, Call]:
    """Those whose libraries are installed, and that take the type."""
    found = {}
    for name, make in METHODS.items():
        try:
            found[name] = make(direction, stack)
        except ImportError:
            continue
    return found


def exact(direction: str, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The bilinear mean in float64, and where it is valid with its whole footprint in the fan."""
    x, y = positions(direction)
    rows, columns = frame.shape
    row = np.clip(np.floor(y), 0, rows - 2).astype(int)
    column = np.clip(np.floor(x), 0, columns - 2).astype(int)
    right, down = x - column, y - row
    wide = frame.astype(float)
    above = wide[row, column] * (1 - right) + wide[row, column + 1] * right
    below = wide[row + 1, column] * (1 - right) + wide[row + 1, column + 1] * right
    whole = (x >= 1) & (x <= columns - 2) & (y >= 1) & (y <= rows - 2)
    if direction == "to_beam":
        whole[:4], whole[-4:], whole[:, :4], whole[:, -4:] = False, False, False, False
    return above * (1 - down) + below * down, whole


def validate(direction: str, dtype: str) -> dict[str, float]:
    """Largest error of each method where all of them must agree."""
    stack = source(direction, dtype, 1)
    truth, whole = exact(direction, stack[0])
    errors = {}
    for name, call in calls(direction, stack).items():
        errors[name] = float(np.abs(np.asarray(call())[0] - truth)[whole].max())
    limit = 0.5 + 1e-3 if dtype == "uint8" else 1e-6
    if not errors["usconf"] <= limit:
        raise AssertionError(f"{direction} of {dtype} errs by {errors['usconf']:.1e}")
    return errors


def set_threads(count: int) -> None:
    usconf.set_num_threads(count)
    for library, function in (("cv2", "setNumThreads"), ("torch", "set_num_threads")):
        try:
            getattr(importlib.import_module(library), function)(count)
        except ImportError:
            continue


def whole_calls(threads: int, seconds: float, only_ours: bool = False) -> dict[str, Any]:
    """Seconds of every method by work and direction; the methods take turns."""
    set_threads(threads)
    found: dict[str, Any] = {}
    for name, dtype, frames in WORK:
        for direction in DIRECTIONS:
            stack = source(direction, dtype, frames)
            bound = calls(direction, stack)
            if only_ours:
                bound = {name: bound[name] for name in ("usconf", OWN)}
            for warm_up in bound.values():
                warm_up()
            times = interleaved(bound, seconds, 5)
            found[f"{direction}, {name}"] = {key: spread(value) for key, value in times.items()}
    return found


def forced_isas(threads: int, seconds: float) -> dict[str, Any]:
    """The same with each build of the kernels, usconf alone."""
    words = ("isa", str(threads), str(seconds))
    script = Path(__file__).name
    return {isa: fresh(script, *words, USCONF_ISA=isa) for isa in _core.isa_list()}


def in_markdown(found: dict[str, Any]) -> str:
    """A row for each work, direction and number of threads."""
    lines = ["| | " + " | ".join([*METHODS, *RATIOS]) + " |"]
    lines.append("|---|" + "---|" * (len(METHODS) + len(RATIOS)))
    for threads, works in found["by_threads"].items():
        for work, times in works.items():
            cells = [timing(times[name]) if name in times else "" for name in METHODS]
            for peer, own in RATIOS.values():
                ratio = times[peer]["median"] / times[own]["median"] if peer in times else 0
                cells.append(f"**{ratio:.1f}x**" if ratio else "")
            lines.append(f"| {work}, {threads} thread(s) | " + " | ".join(cells) + " |")
    lines.append("")
    for isa, works in found["by_isa"].items():
        shown = "; ".join(f"{work} {timing(times[OWN])}" for work, times in works.items())
        lines.append(f"- USCONF_ISA={isa}, 1 thread, core alone: {shown}")
    errors = "; ".join(
        f"{work}: " + ", ".join(f"{name} {error:.0e}" for name, error in values.items())
        for work, values in found["errors"].items()
    )
    lines += ["", f"Largest errors against float64: {errors}."]
    where = found["machine"]
    lines.append(
        f"Medians (quartiles) of whole calls, plans and maps kept. {where['processor']}, "
        f"{where['cores']} cores, {where['isa']}, load {where['load']:.1f}; {where['date']}, "
        f"commit {where['commit'] or 'unknown'}."
    )
    return "\n".join(lines)


def measure(counts: list[int], seconds: float) -> dict[str, Any]:
    errors = {
        f"{direction}, {dtype}": validate(direction, dtype)
        for direction in DIRECTIONS
        for dtype in ("float32", "uint8")
    }
    by_threads = {str(count): whole_calls(count, seconds) for count in counts}
    return {"errors": errors, "by_threads": by_threads, "by_isa": forced_isas(1, seconds / 2)}


if __name__ == "__main__":
    if sys.argv[1:2] == ["isa"]:
        print(json.dumps(whole_calls(int(sys.argv[2]), float(sys.argv[3]), only_ours=True)))
    else:
        sys.exit(cpu_command(__doc__, measure, in_markdown))
