"""The newest GPU figures of every operator as one Markdown table, written into README.md.

    benchmarks/on_gpu.sh time && python benchmarks/gpu_table.py

Needs torch, but no GPU. Its rows are some of those that the benchmarks print themselves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_dag_gpu
import bench_pgm_gpu
import bench_random_walk_gpu
import bench_scan_conversion_gpu
import bench_uncertainty_gpu
import map_tables
from table import put_into

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- gpu benchmarks: written by benchmarks/gpu_table.py -->"
END = "<!-- end of gpu benchmarks -->"
Found = dict[str, Any]

# Name in the files -> who makes its whole table, and which rows of that are for README. A row that
# a run lacks (a peer that was not installed) is left out.
TABLES: dict[str, tuple[Callable[[Found], str], tuple[str, ...]]] = {
    "random-walk": (
        bench_random_walk_gpu.in_markdown,
        (
            "256 x 256",
            "512 x 512",
            "512 x 512, forward and backward",
            "512 x 512, cupyx spsolve",
            "1024 x 1024",
            "256 frames of 256 x 256",
            "a frame of those",
        ),
    ),
    "dag": (bench_dag_gpu.in_markdown, ("1 x 512 x 512", "256 x 256 x 256")),
    "scan-conversion": (
        bench_scan_conversion_gpu.in_markdown,
        ("to_beam, 1 x float32", "to_beam, 256 x float32", "to_scan, 256 x float32"),
    ),
    "pgm": (
        bench_pgm_gpu.in_markdown,
        ("8 x 256 x 256", "256 x 256 x 256", "1 x 512 x 512"),
    ),
    "uncertainty": (
        bench_uncertainty_gpu.in_markdown,
        (
            "1 x 256 x 256, 1 class(es)",
            "64 x 256 x 256, 3 class(es)",
            "measures of 20 x 20 samples",
            *bench_uncertainty_gpu.PAPER,
        ),
    ),
    "learned": (
        map_tables.rates,
        (
            "float32, batch 1, CUDA graph",
            "bfloat16, batch 256, CUDA graph",
            "usconf.learned, uint8 tensor",
        ),
    ),
}


def newest(folder: Path) -> dict[str, Found]:
    """Operator -> what its latest file holds; their names begin with the date."""
    paths = {name: sorted(folder.glob(f"*-{name}-gpu.json")) for name in TABLES}
    return {
        name: json.loads(files[-1].read_text(encoding="utf-8"))
        for name, files in paths.items()
        if files
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows_of(text: str) -> dict[str, str]:
    """First cell of every row of the tables in a text -> its other cells, each with its column's
    head.
    """
    rows: dict[str, str] = {}
    lines = text.splitlines()
    heads: list[str] = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if not line.startswith("|") or line.startswith("|---"):
            continue
        if after.startswith("|---"):
            heads = cells(line)[1:]
            continue
        name, *values = cells(line)
        said = zip(heads, values, strict=True)
        rows[name] = "; ".join(f"{head} {value}" for head, value in said if value)
    return rows


def chosen(name: str, found: Found) -> list[str]:
    """An operator's lines of README's table."""
    whole, wanted = TABLES[name]
    rows = rows_of(whole(found))
    if not (kept := [row for row in wanted if row in rows]):
        raise ValueError(f"{name}'s file must hold one of the rows {wanted}, got {list(rows)}")
    return [f"| {name.replace('-', ' ')} | {row} | {rows[row]} |" for row in kept]


def in_markdown(newest: dict[str, Found]) -> str:
    """All operators' rows, and where they come from."""
    lines = ["| | | |", "|---|---|---|"]
    origins: dict[str, list[str]] = {}
    for name, found in newest.items():
        lines += chosen(name, found)
        where = found["machine"]
        version = where["versions"].get("torch", "of an unknown version")
        said = (
            f"{where['gpu']}, torch {version}; {where['date'][:10]}, commit "
            f"{where['commit'] or 'unknown'}"
        )
        origins.setdefault(said, []).append(name.replace("-", " "))
    for said, names in origins.items():
        whose = "" if len(origins) == 1 else f" of {', '.join(names)}"
        lines += ["", f"Medians (quartiles){whose}, validated before they were timed; {said}."]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = ROOT / "benchmarks" / "results"
    parser.add_argument(
        "--results", type=Path, default=folder, metavar="FOLDER", help="default benchmarks/results"
    )
    given = parser.parse_args()
    found = newest(given.results)
    if not found:
        print(f"no *-gpu.json in {given.results}: run benchmarks/on_gpu.sh on a machine with a GPU")
        return 1
    text = in_markdown(found)
    put_into(ROOT / "README.md", text, BEGIN, END)
    print(text)
    if lacking := [name for name in TABLES if name not in found]:
        print(f"\nwithout a file: {', '.join(lacking)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
