"""The options that recipes share on the command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from . import settings

EPILOG = "Exit status: 0 all well, 1 failed, 2 wrong usage, 130 interrupted."


def add_options(parser: argparse.ArgumentParser, output: str) -> None:
    """Add CONFIG, --data, -o, --set, --resume and --quick.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of the recipe.
    output : str
        Folder of the report when none is named.
    """
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG", help="YAML file of keys")
    parser.add_argument(
        "--data", type=Path, metavar="PATH", help="folder of your data; without it data are made"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FOLDER",
        default=Path(output),
        help=f"where report.html and results.json go; default: {output}",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting; may be given again",
    )
    parser.add_argument("--resume", action="store_true", help="keep what FOLDER has already")
    parser.add_argument("--quick", action="store_true", help="a small run, in seconds")


def run_recipe(
    arguments: argparse.Namespace,
    kind: type[Any],
    run: Callable[..., Path],
    quick: Mapping[str, Any],
    made: Collection[str] = (),
) -> int:
    """Read the settings, run the recipe, print where the report is.

    Parameters
    ----------
    arguments : argparse.Namespace
        With the options of `add_options`.
    kind : type
        Dataclass of the settings; ``data`` among them is the folder, or None.
    run : callable
        ``run(config, folder, resume=...)`` that returns the report's path.
    quick : mapping
        Settings of ``--quick``; the file and ``--set`` win over them.
    made : collection of str, optional
        Those among them that are of made data, and left out where data are named; default none.

    Returns
    -------
    int
        Exit status.
    """
    try:
        values = _from_file(arguments.config) if arguments.config is not None else {}
        if arguments.data is not None:
            values["data"] = str(arguments.data.expanduser().absolute())
        if arguments.quick:
            left_out = made if values.get("data") else ()
            values = {**{key: quick[key] for key in quick if key not in left_out}, **values}
        config = settings.from_dict(
            kind, settings.changed(values, arguments.set), str(arguments.config or "settings")
        )
    except (ValueError, OSError, ImportError) as problem:
        print(f"usconf: error: {problem}", file=sys.stderr)
        return 2
    try:
        path = run(config, arguments.output, resume=arguments.resume)
    except (OSError, ValueError, TypeError, MemoryError, ImportError, RuntimeError) as problem:
        print(f"usconf: error: {str(problem) or type(problem).__name__}", file=sys.stderr)
        return 1
    print(path)
    return 0


def _from_file(path: Path) -> dict[str, Any]:
    """Keys of the file; a relative path to data starts at the file's folder."""
    values = settings.read(path)
    if isinstance(values.get("data"), str):
        values["data"] = str((path.resolve().parent / Path(values["data"]).expanduser()).resolve())
    return values
