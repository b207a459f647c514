"""``usconf export``: a trained network as a file for other runtimes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_parser(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "export",
        help="write a trained network for torch.export or ONNX",
        description="Write a network as a file that runs without usconf, and compare the two. It "
        "takes images (B, 1, H, W) as float32 of any scale and gives their maps in [0, 1].",
        epilog="Exit status: 0 all well, 1 failed, 2 wrong usage.",
    )
    parser.add_argument(
        "source",
        metavar="CHECKPOINT|WEIGHTS",
        help="checkpoint.pt or .safetensors of usconf train, or the word default",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="net.pt2 or net.onnx"
    )
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        metavar=("ROWS", "COLUMNS"),
        help="of the images; default: the grid that the network was trained at",
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> int:
    try:
        from ..training.export import SUFFIXES, export
    except ImportError as problem:
        return _failed(f'{problem}; run: pip install "usconf[export]"')
    if arguments.output.suffix not in SUFFIXES:
        arguments.usage_error(f"-o must end in {' or '.join(SUFFIXES)}, got {arguments.output}")
    size = None if arguments.size is None else tuple(arguments.size)
    try:
        written = export(arguments.source, arguments.output, size=size)
    except (OSError, ValueError, TypeError, MemoryError, ImportError, RuntimeError) as problem:
        return _failed(str(problem) or type(problem).__name__)
    rows, columns = written.size
    print(f"{written.path}: {rows} x {columns}, maps differ by {written.difference:.1g} at most")
    return 0


def _failed(text: str) -> int:
    print(f"usconf: error: {text}", file=sys.stderr)
    return 1
