"""``usconf recipe lfusion``."""

from __future__ import annotations

import argparse
from typing import Any

from ..options import EPILOG, add_options, run_recipe


def add_parser(commands: Any) -> None:
    """Add the recipe and its options."""
    parser = commands.add_parser(
        "lfusion",
        help="Laplace and dropout uncertainty on a frozen encoder, and what it finds unusual",
        description="Train L-FUSION's two heads on a frozen encoder and the U-Net baselines, and "
        "judge their segmentations and all measures of uncertainty on pictures and clips. Without "
        "--data fetal heads are made; PATH is a folder in the layout of HC18. FOLDER gets "
        "report.html and results.json.",
        epilog=EPILOG,
    )
    add_options(parser, "lfusion-report")
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> int:
    from .config import QUICK, Config
    from .experiment import run

    return run_recipe(arguments, Config, run, QUICK)
