"""``usconf label``: draw Good and Bad strokes on a folder of pictures, in napari."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import usconf

from ..confidence import METHODS


def add_parser(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "label",
        help="label pictures Good and Bad by hand, for usconf train",
        description="Open the pictures of FOLDER in napari, with their confidence map beside "
        "them, and save what you draw as FOLDER/labels/NAME.png and FOLDER/manifest.csv. Labels "
        "that are there are continued.",
        epilog="Keys: G good, B bad, E erase, S save, N next, P previous, U next without labels, "
        ". and , frames of a clip. Exit status: 0 all well, 1 the folder cannot be opened, "
        "2 wrong usage.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="pictures, clips, DICOM")
    parser.add_argument(
        "--method", choices=METHODS, default="random_walk", help="of the map; default random_walk"
    )
    parser.add_argument(
        "--geometry",
        metavar="auto|FILE",
        help="where the beams run, saved with the labels; default: the columns are the beams",
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="of method learned; default: those of usconf"
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.weights is not None and arguments.method != "learned":
        arguments.usage_error(f"--weights needs --method learned, got {arguments.method}")
    # Here, so that the other commands start as fast as before.
    from ..integrations.napari_folder import Folder
    from ..integrations.napari_map import Settings

    try:
        geometry = arguments.geometry
        if geometry not in (None, "auto"):
            geometry = usconf.geometry.load(geometry)
        # Before the window: napari takes seconds to come up.
        Folder(arguments.folder)
    except (ValueError, TypeError, OSError) as problem:
        return _failed(str(problem))
    try:
        import napari

        from ..integrations.napari_widget import LabelWidget
    except ImportError as problem:
        return _failed(
            f'usconf label needs napari and Qt ({problem}); run: pip install "usconf[napari]"'
        )
    parameters = {} if arguments.weights is None else {"weights": arguments.weights}
    viewer = napari.Viewer(title=f"usconf label {arguments.folder}")
    widget = LabelWidget(viewer, settings=Settings(arguments.method, geometry, parameters))
    viewer.window.add_dock_widget(widget, name="Label Good and Bad", area="right")
    # After the dock has taken its room, so that picture and map fill what is left.
    widget.open_folder(arguments.folder)
    napari.run()
    return 0


def _failed(reason: str) -> int:
    print(f"usconf: error: {reason}", file=sys.stderr)
    return 1
