"""``usconf train``: weights from phantoms or from one's own frames with strokes."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from .progress import Progress


def add_parser(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "train",
        help="train a network for learned confidence maps",
        description="Train a network on phantoms or on a folder of frames with strokes (usconf "
        "label draws them). RUN gets checkpoint.pt, best.safetensors and last.safetensors, "
        "training.csv, validation.csv and previews. Ctrl-C keeps what was done.",
        epilog="Several processes: torchrun --nproc_per_node N -m usconf.cli train CONFIG -o RUN. "
        "Exit status: 0 all well, 1 failed, 2 wrong usage, 130 interrupted.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="YAML file")
    source.add_argument("--recipe", metavar="NAME", help="a config of the package, e.g. phantoms")
    source.add_argument(
        "--demo", action="store_true", help="a tiny network on few phantoms, in a minute"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="RUN", help="folder; default: the config's name"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from the folder's checkpoint, if it has one"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a setting of the config; may be given again",
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> int:
    try:
        from ..training import config as configs
        from ..training import train
    except ImportError as problem:
        return _failed(problem, 'run: pip install "usconf[train]"')
    try:
        path = arguments.config
        if path is None:
            path = configs.recipe("demo" if arguments.demo else arguments.recipe)
        folder = None if arguments.config else Path.cwd()
        config = configs.read(path, arguments.set, folder)
    except (ValueError, OSError, ImportError) as problem:
        print(f"usconf: error: {problem}", file=sys.stderr)
        return 2
    run = arguments.output or Path(path.stem if path.stem != "demo" else "usconf-demo")
    try:
        with Progress(config.train.steps, "step") as progress:
            result = train(config, run, resume=arguments.resume, progress=progress)
    except (OSError, ValueError, TypeError, MemoryError, ImportError, RuntimeError) as problem:
        return _failed(problem)
    if os.environ.get("RANK", "0") == "0":  # torchrun's other processes say nothing
        print(result.weights)
    return 0


def _failed(problem: BaseException, advice: str = "") -> int:
    text = str(problem) or type(problem).__name__
    print(f"usconf: error: {text}" + f"; {advice}" * bool(advice), file=sys.stderr)
    return 1
