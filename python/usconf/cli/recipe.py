"""``usconf recipe``: a paper's whole experiment, from data to a report."""

from __future__ import annotations

from typing import Any

from ..recipes.lfusion import command as lfusion
from ..recipes.segment import command as segment


def add_parser(commands: Any) -> None:
    """Add the subcommand and one below it per recipe; they import what they need when run."""
    parser = commands.add_parser(
        "recipe",
        help="run a paper's experiment on made data or on yours, with a report",
        description="Run a whole experiment: data, training, figures, statistics, and a report of "
        "one HTML file. Without --data the data are made.",
    )
    recipes = parser.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    for command in (segment, lfusion):
        command.add_parser(recipes)
