"""How everything here is timed and weighed, and what machine it ran on."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
LIBRARIES = ("numpy", "scipy", "torch", "cupy-cuda13x", "monai", "pyamg", "scikit-sparse")


def interleaved(
    calls: dict[str, Callable[[], Any]], seconds: float, rounds: int = 3
) -> dict[str, list[float]]:
    """Seconds of every run of each call.

    The calls take turns, so that a machine that slows down slows all of them; in every round each
    runs at least once and for about seconds / rounds. Warm them up before.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            while True:
                start = time.perf_counter()
                call()
                stop = time.perf_counter()
                found[name].append(stop - start)
                if stop - begin >= seconds / rounds:
                    break
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    if len(values) < 2:
        return {"median": values[0], "q1": values[0], "q3": values[0], "runs": len(values)}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q1": low, "q3": high, "runs": len(values)}


def peak() -> int:
    """Largest resident size of this process so far, in bytes.

    Linux: VmHWM. ru_maxrss of a child starts with what its parent held when it was spawned, which
    hides the growth of a small one.
    """
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fresh(script: str, *words: str, **environment: str) -> dict[str, Any]:
    """Run a script of this folder in a new process and return the JSON of its last line."""
    command = [sys.executable, str(HERE / script), *words]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def commit() -> str:
    """The checkout's commit, with a + for changes that are in no commit; "" outside of one."""
    words = ["git", "-C", str(HERE), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()


def machine() -> dict[str, Any]:
    """Processor, cores, versions, commit: what a figure means nothing without."""
    import usconf
    from usconf import _core

    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "usconf": usconf.__version__,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "isa": _core.isa(),
        "isas": _core.isa_list(),
        "versions": {name: version for name in LIBRARIES if (version := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
