"""The measurements of `run.py` as one Markdown table, and the table in README.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

BEGIN = "<!-- benchmarks: written by benchmarks/run.py --readme -->"
END = "<!-- end of benchmarks -->"


def duration(seconds: float) -> str:
    """0.0182 -> "18.2 ms"."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} us"
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def timing(found: dict[str, float]) -> str:
    """Median, with the quartiles where there were enough runs to speak of them."""
    median = duration(found["median"])
    if found["runs"] < 4:
        return median
    unit = median.split()[1]
    scale = {"us": 1e6, "ms": 1e3, "s": 1.0}[unit]
    low, high = (f"{found[key] * scale:.3g}" for key in ("q1", "q3"))
    return f"{median} ({low}-{high})"


def size_in_words(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"


def rows(found: dict[str, Any], names: list[str], flops: dict[int, float]) -> dict[str, list[str]]:
    """Label -> cell of each size; "" where nothing was measured."""
    table: dict[str, list[str]] = {}
    count = len(found["sizes"])

    def put(label: str, column: int, text: str) -> None:
        table.setdefault(label, [""] * count)[column] = text

    peak = found["gemm_flops"][str(found["threads"])]
    for column, (side, row) in enumerate(found["sizes"].items()):
        ours = row["seconds"]["usconf"]["median"]
        for name in (name for name in names if name in row["seconds"]):
            put(name, column, timing(row["seconds"][name]))
        for threads, value in row["by_threads"].items():
            if int(threads) != found["threads"]:
                put(f"usconf, {threads} thread", column, timing(value))
        for isa, value in row["by_isa"].items():
            if isa != found["machine"]["isa"]:
                put(f"usconf, USCONF_ISA={isa}", column, timing(value))
        if "prototype" in found:
            put("research prototype, its own clock", column, duration(found["prototype"][side]))
        if "MONAI spsolve" in row["seconds"]:
            ratio = row["seconds"]["MONAI spsolve"]["median"] / ours
            put("**MONAI spsolve / usconf**", column, f"**{ratio:.0f}x**")
        put("first call for a shape, extra", column, duration(max(0.0, row["planning"]["median"])))
        for name, size in row["memory"].items():
            if name in ("usconf", "usconf, iterative", "MONAI spsolve"):
                put(f"peak memory growth, {name}", column, size_in_words(size))
        against = row["errors"]["against"]
        text = f"{row['errors']['usconf']:.0e}" + (" *" if against.startswith("usconf") else "")
        put("largest error, usconf float32", column, text)
        if "MONAI use_cg" in row["errors"]:
            put("largest error, MONAI use_cg", column, f"{row['errors']['MONAI use_cg']:.0e}")
        if int(side) in flops:
            rate = flops[int(side)] / ours
            text = f"{rate / 1e9:.0f} ({rate / peak:.0%})"
            put("GFLOP/s (share of the matrix product's)", column, text)
        if gradient := row.get("gradient"):
            forward = gradient["forward"]["median"]
            for name in ("factor kept", "eliminated again"):
                ratio = gradient[f"backward, {name}"]["median"] / forward
                put(f"backward / forward, {name}", column, f"{ratio:.2f}")
    return table


def in_markdown(found: dict[str, Any], names: list[str], flops: dict[int, float]) -> str:
    """The table and what needs a sentence."""
    sides = list(found["sizes"])
    lines = [f"| | {' | '.join(f'{side} x {side}' for side in sides)} |"]
    lines += ["|---|" + "---|" * len(sides)]
    for label, cells in rows(found, names, flops).items():
        lines.append(f"| {label} | {' | '.join(cells)} |")
    batch, overhead = found["batch"], found["overhead"]["median"]
    rates = {name: value["median"] for name, value in batch["frames_per_second"].items()}
    speeds = "; ".join(f"{name}: {rate:.0f} frames/s" for name, rate in rates.items())
    equal = "equal" if batch["bit_equal"] else "NOT equal"
    first, *_, last = rates.values()
    lines += [
        "",
        f"{batch['frames']} frames of {batch['side']} x {batch['side']}: {speeds} "
        f"({last / first:.2f}x); maps {equal} to the last bit. "
        f"A call on 8 x 8 pixels takes {duration(overhead)}.",
    ]
    if mixed := found.get("beside_torch"):
        shown = {key: duration(value["median"]) for key, value in mixed.items() if key != "side"}
        lines += [
            f"In turns with torch's 768 x 768 product, {mixed['side']} x {mixed['side']} pixels: "
            f"map {shown['map alone']} alone, {shown['map in turns']} in turns; "
            f"product {shown['product alone']} alone, {shown['product in turns']} in turns.",
        ]
    machine = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    lines += [
        "",
        f"Medians (quartiles) of whole calls on {found['threads']} threads, uint8 frame in, "
        "float32 map out unless said; the methods took turns in one run. Errors against the exact "
        "peer in that run (* where none reaches: against our float64). "
        f"{machine['processor']}, {machine['cores']} cores, {machine['isa']}, "
        f"{found['gemm_flops'][str(found['threads'])] / 1e9:.0f} GFLOP/s in NumPy's float32 matrix "
        f"product; {machine['date']}, commit {machine['commit'] or 'unknown'}; "
        f"Python {machine['python']}, {versions}.",
    ]
    return "\n".join(lines)


def put_into(page: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Replace what stands between the markers of a page."""
    old = page.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if len(pattern.findall(old)) != 1:
        raise ValueError(f"{page} must hold the markers once: {begin} ... {end}")
    page.write_text(pattern.sub(lambda _: f"{begin}\n{text}\n{end}", old), encoding="utf-8")
