"""What the benchmarks of single operators share as commands: options, JSON file, table."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import machine

Found = dict[str, Any]


def cpu_command(
    document: str,
    measure: Callable[[list[int], float], Found],
    in_markdown: Callable[[Found], str],
) -> int:
    """`measure(numbers of threads, seconds per figure)`, written if asked for, then shown."""
    parser = _parser(document, seconds=1.0)
    parser.add_argument("--threads", type=int, default=2, help="beside one; default 2")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write the JSON")
    given = parser.parse_args()
    found = {"machine": machine()} | measure(sorted({1, given.threads}), given.seconds)
    if given.output:
        write(found, given.output)
    print(in_markdown(found))
    return 0


def gpu_command(
    document: str,
    validate: Callable[[bool], dict[str, float]],
    measure: Callable[[float], Found],
    in_markdown: Callable[[Found], str],
    *,
    seconds: float,
    output: str,
) -> int:
    """`validate(small)`; then, unless only that was asked for, `measure(seconds per figure)`."""
    import torch

    parser = _parser(document, seconds)
    parser.add_argument("--validate", action="store_true", help="small cases, and no figures")
    parser.add_argument("--output", type=Path, default=Path(output), help=f"default {output}")
    given = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("needs a CUDA device; usconf.show_config() says what is there")
    errors = validate(given.validate)
    print("\n".join(f"{name}: error {value:.1e}" for name, value in errors.items()))
    if given.validate:
        return 0
    found: Found = {"machine": machine() | {"gpu": torch.cuda.get_device_name()}, "errors": errors}
    found |= measure(given.seconds)
    write(found, given.output)
    print(f"written to {given.output}\n\n{in_markdown(found)}")
    return 0


def write(found: Found, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _parser(document: str, seconds: float) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=document.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=seconds, help=f"per figure; default {seconds:g}"
    )
    return parser
