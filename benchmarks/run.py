"""Validates, then times: one Markdown table and one JSON file.

    pip install ".[bench]" && python benchmarks/run.py

--quick takes seconds and small frames; --readme puts the table between the markers of README.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench_random_walk as bench
import numpy as np
import usconf
from baselines import METHODS, OURS, PEERS, available
from commands import write
from measure import machine
from table import in_markdown, put_into

ROOT = Path(__file__).resolve().parents[1]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny frames: does it all run?")
    parser.add_argument("--sizes", type=int, nargs="+", help="default: 256 512 1024 2048")
    parser.add_argument("--threads", type=int, default=2, help="of the main figures; default 2")
    parser.add_argument("--seconds", type=float, help="per method and size; default 3")
    parser.add_argument("--no-peers", action="store_true", help="usconf alone: a minute or two")
    parser.add_argument("--prototype", type=Path, metavar="FOLDER", help="with its main.cpp")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="default: in benchmarks/results"
    )
    parser.add_argument("--readme", action="store_true", help="write the table into README.md")
    given = parser.parse_args()
    given.sizes = given.sizes or ([96, 128] if given.quick else [256, 512, 1024, 2048])
    given.seconds = given.seconds or (0.2 if given.quick else 3.0)
    if given.quick and given.readme:
        parser.error("--readme must come without --quick: its figures mean nothing")
    return given


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(given: argparse.Namespace, space: Path) -> dict[str, Any]:
    """All measurements, as the JSON file holds them."""
    threads, seconds = given.threads, given.seconds
    methods = OURS if given.no_peers else OURS | PEERS
    names = list(available(methods))
    found: dict[str, Any] = {"machine": machine(), "threads": threads, "quick": given.quick}
    say("the machine's float32 matrix product")
    found["gemm_flops"] = {str(n): bench.gemm_peak(n) for n in sorted({1, threads})}
    images = {side: bench.picture(side) for side in given.sizes}
    paths = {side: space / f"{side}.npy" for side in given.sizes}
    found["sizes"] = {}
    for side, image in images.items():
        np.save(paths[side], image)
        row: dict[str, Any] = {}
        say(f"{side} x {side}: whole calls")
        # Large frames in one long turn: a first call may find its memory given to another method.
        turn = 3 * seconds if side >= 2048 else seconds
        rounds = 1 if side >= 2048 or given.quick else 3
        row["seconds"], row["errors"] = bench.whole_calls(image, names, threads, turn, rounds)
        say(f"{side} x {side}: threads, instruction sets, planning, memory")
        row["by_threads"] = bench.threads_of(image, sorted({1, threads}), seconds)
        row["by_isa"] = bench.forced_isas(paths[side], threads, seconds / 2)
        row["planning"] = bench.planning(paths[side], threads, 1 if given.quick else 3)
        row["memory"] = {
            name: bench.memory(paths[side], name, threads)["bytes"] for name in row["seconds"]
        }
        if "torch" in found["machine"]["versions"]:
            say(f"{side} x {side}: gradients")
            row["gradient"] = bench.gradient(image, threads, seconds)
        found["sizes"][str(side)] = row
    say("batch")
    found["batch"] = bench.batch(*((6, 64) if given.quick else (64, 256)), threads, seconds)
    found["overhead"] = bench.overhead(min(seconds, 1.0))
    if "torch" in found["machine"]["versions"]:
        side = min(given.sizes, key=lambda side: abs(side - 512))
        found["beside_torch"] = {"side": side} | bench.beside_torch(images[side], threads, seconds)
    if given.prototype:
        say("research prototype")
        found["prototype"] = bench.prototype(given.prototype, images, threads)
    return found


def main() -> int:
    given = options()
    before = usconf.get_num_threads()
    with tempfile.TemporaryDirectory() as space:
        found = run(given, Path(space))
    usconf.set_num_threads(before)
    name = f"benchmarks/results/{found['machine']['date'][:10]}-random-walk.json"
    output = given.output or ROOT / ("build/quick.json" if given.quick else name)
    write(found, output)
    text = in_markdown(found, list(METHODS), bench.FLOPS)
    if given.readme:
        put_into(ROOT / "README.md", text)
    say(f"written to {output}")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
