"""The command ``usconf``: one module per subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import usconf

from . import export, label, recipe, train
from . import map as map_command
from . import stream as stream_command

# 128 + SIGINT, what shells report for an interrupted program.
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; None means `sys.argv`.

    Returns
    -------
    int
        Exit status: 0 all well, 1 at least one input failed, 130 interrupted.

    Raises
    ------
    SystemExit
        With status 2 after a usage error, 0 after ``--help`` and ``--version``.

    Examples
    --------
    >>> from usconf.cli import main
    >>> main(["map", "--demo", "-o", "demo"])  # doctest: +SKIP
    0
    """
    parser = argparse.ArgumentParser(prog="usconf", description="Confidence maps for ultrasound.")
    parser.add_argument("--version", action="version", version=f"usconf {usconf.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (map_command, stream_command, label, train, export, recipe):
        command.add_parser(commands)
    config = commands.add_parser("config", help="print version, instruction set, threads, CUDA")
    config.set_defaults(run=_config)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("usconf: interrupted; run the same command again to go on", file=sys.stderr)
        return _INTERRUPTED


def _config(arguments: argparse.Namespace) -> int:
    del arguments
    usconf.show_config()
    return 0
