"""``usconf recipe segment``."""

from __future__ import annotations

import argparse
from typing import Any

from ..options import EPILOG, add_options, run_recipe


def add_parser(commands: Any) -> None:
    """Add the recipe and its options."""
    parser = commands.add_parser(
        "segment",
        help="confidence maps as input channel and in the loss of segmentation networks",
        description="Train the ten configurations of Gonzalez Duque et al. patient-wise, with "
        "eight metrics, statistics and variability maps. FOLDER gets report.html and results.json.",
        epilog=EPILOG,
    )
    add_options(parser, "segment-report")
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> int:
    from .config import MADE_KEYS, QUICK, Config
    from .experiment import run

    return run_recipe(arguments, Config, run, QUICK, MADE_KEYS)
