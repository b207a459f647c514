"""``usconf map``: maps of pictures, clips and folders of them."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import usconf

from .. import io, plot
from ..learned import set_num_threads
from .jobs import Job, Journal, find, is_file_name, plan
from .progress import Progress, Warned

FORMATS = ("same", "png", "tif", "npy", "mha", "nii.gz", "dcm", "mp4")

_GEOMETRY = "_geometry.json"

# Frames of a clip given to the core at once: enough for every thread, little memory.
_CHUNK = 32

# Arguments of the same name in `usconf.confidence`, passed on only when given, so that every
# default and every check has one home.
_PARAMETERS = (
    "preset",
    "alpha",
    "beta",
    "gamma",
    "variant",
    "mode",
    "sink",
    "nan",
    "solver",
    "memory_limit",
    "xi",
    "var",
    "power",
    "half_width",
    "despeckle",
    "weights",
    "size",
)


def add_parser(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "map",
        help="write confidence maps of pictures, clips, folders",
        description="Write the confidence map of every INPUT. Files that were mapped before with "
        "the same settings are skipped; colour is turned into luma.",
        epilog="Exit status: 0 all well, 1 some input failed, 2 wrong usage, 130 interrupted.",
    )
    parser.add_argument("inputs", nargs="*", type=Path, metavar="INPUT", help="files and folders")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path(),
        metavar="OUT",
        help="folder, or file name for one input (always written); default: here",
    )
    parser.add_argument(
        "--demo", action="store_true", help="make a picture, its map and overlay; needs no INPUT"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="same",
        help="kind of the maps; default: the input's (JPEG: png, videos: mp4)",
    )
    parser.add_argument(
        "--bits",
        type=int,
        choices=(8, 16),
        default=16,
        help="levels of PNG maps: round(c (2^BITS - 1)); default 16",
    )
    parser.add_argument(
        "--overlay",
        action="store_true",
        help="write the tinted picture too (PNG, or MP4 for clips)",
    )
    parser.add_argument("--colormap", choices=plot.COLORMAPS, help="of the overlay; default dusk")
    parser.add_argument("--overwrite", action="store_true", help="map again what is done already")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    parser.add_argument(
        "--geometry",
        metavar="auto|FILE",
        help="where the beams run: fitted to each picture and written beside its map, or a file "
        "written so, corrected by hand; default: the columns are the beams",
    )
    method = parser.add_argument_group("method (defaults: see usconf.confidence)")
    method.add_argument(
        "--method", default="random_walk", help="random_walk (default), dag, learned"
    )
    method.add_argument("--preset", help="monai, beyond_shadows, duque2023; dag: beyond_shadows")
    for name in ("alpha", "beta", "gamma"):
        method.add_argument(f"--{name}", type=float, metavar="X", help="default: the preset's")
    for name in ("xi", "var", "power"):
        method.add_argument(f"--{name}", type=float, metavar="X", help="of method dag")
    method.add_argument("--half-width", type=int, metavar="N", help="of method dag; default 10")
    method.add_argument("--despeckle", help="of method dag: srad (default), median, none, hung2021")
    method.add_argument("--weights", metavar="FILE", help="of method learned; default: usconf's")
    method.add_argument(
        "--size",
        type=_size,
        metavar="ROWSxCOLUMNS",
        help="of method learned: the network's grid, or own for the image's; default: the weights'",
    )
    method.add_argument("--variant", help="published deviation, e.g. monai_1_3")
    method.add_argument("--mode", choices=("B", "RF"), help="B-mode (default) or RF data")
    method.add_argument("--sink", choices=("all", "mid", "min"), help="default: all")
    method.add_argument("--sink-mask", type=Path, metavar="FILE", help="nonzero pixels are sinks")
    method.add_argument("--mask", type=Path, metavar="FILE", help="nonzero pixels are valid")
    method.add_argument("--nan", choices=("raise", "mask"), help="what to do with NaN")
    method.add_argument("--solver", choices=("auto", "direct", "iterative"))
    method.add_argument("--memory-limit", metavar="SIZE", help="for one call, e.g. 2GB")
    parser.set_defaults(run=_run, usage_error=parser.error)  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    error = arguments.usage_error
    parameters = _parameters(arguments)
    if arguments.demo:
        if arguments.inputs:
            error("--demo takes no INPUT")
        if arguments.geometry not in (None, "auto"):
            error(f"--demo takes --geometry auto only, got {arguments.geometry}")
        return _demo(arguments, parameters)
    if not arguments.inputs:
        error("give at least one INPUT, or --demo")
    if arguments.colormap and not arguments.overlay:
        error("--colormap needs --overlay")
    output = arguments.output
    one_file = is_file_name(output)
    if one_file and (len(arguments.inputs) != 1 or arguments.inputs[0].is_dir()):
        error(f"-o must be a folder for several inputs, got the file name {output}")
    if one_file and arguments.format != "same":
        error(f"--format must be left out when -o names a file, got {arguments.format}")
    if one_file:
        source = arguments.inputs[0]
        stem = output.with_name(output.name.split(".")[0])
        jobs = [Job(source, output, stem)]
        return _Run(arguments, parameters, None).all(jobs)
    if output.exists() and not output.is_dir():
        error(f"-o must be a folder or end in a kind of picture, got the file {output}")
    journal = Journal(output, _settings(arguments, parameters))
    files = list(find(arguments.inputs, output, journal.outputs()))
    if not files:
        error("INPUT must hold readable pictures, got none; see the kinds in the documentation")
    try:
        jobs = plan(files, output, arguments.format)
    except ValueError as problem:
        error(str(problem))
    return _Run(arguments, parameters, journal).all(jobs)


def _parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what goes to `usconf.confidence`, tried on a tiny picture: 2 for wrong usage."""
    parameters: dict[str, Any] = {"method": arguments.method}
    for name in _PARAMETERS:
        if getattr(arguments, name) is not None:
            parameters[name] = getattr(arguments, name)
    if parameters.get("despeckle") == "none":
        parameters["despeckle"] = None
    if parameters.get("size") == "own":
        parameters["size"] = None
    try:
        if arguments.threads is not None:
            usconf.set_num_threads(arguments.threads)
            if arguments.method == "learned":
                set_num_threads(arguments.threads)
        usconf.confidence(np.arange(1, 257, dtype=np.float32).reshape(16, 16), **parameters)
        if arguments.geometry not in (None, "auto"):
            arguments.geometry = _geometry(arguments.geometry)
        if arguments.sink_mask is not None:
            if arguments.sink is not None:
                raise ValueError("--sink-mask takes the place of --sink; give one of them")
            parameters.update(sink="mask", sink_mask=_mask(arguments.sink_mask))
        if arguments.mask is not None:
            parameters["mask"] = _mask(arguments.mask)
    except (ValueError, TypeError, OSError, ImportError) as problem:
        _usage(arguments, str(problem))
    return parameters


def _size(text: str) -> str | tuple[int, int]:
    if text == "own":
        return text
    rows, _, columns = text.partition("x")
    try:
        return int(rows), int(columns)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be ROWSxCOLUMNS or own, got {text!r}; e.g. 128x128"
        ) from None


def _geometry(name: str) -> Any:
    try:
        return usconf.geometry.load(name)
    except OSError as problem:
        raise ValueError(
            f"--geometry must be auto or a geometry's file, got {name!r} ({problem.strerror}); "
            "--geometry auto writes one beside the map"
        ) from None


def _usage(arguments: argparse.Namespace, text: str) -> NoReturn:
    arguments.usage_error(text)
    raise AssertionError  # argparse has exited


def _mask(path: Path) -> np.ndarray:
    frames = io.read(path).frames
    return (frames[0] if len(frames) == 1 else frames) != 0


def _settings(arguments: argparse.Namespace, parameters: dict[str, Any]) -> dict[str, Any]:
    settings = {
        key: value for key, value in parameters.items() if not isinstance(value, np.ndarray)
    }
    for name in ("mask", "sink_mask", "weights"):
        path = getattr(arguments, name)
        if path is not None and path != "default":
            settings[name] = [str(Path(path).resolve()), Path(path).stat().st_mtime_ns]
    if arguments.geometry is not None:
        given = arguments.geometry
        settings["geometry"] = given if isinstance(given, str) else given.to_dict()
    settings.update(version=usconf.__version__, bits=arguments.bits,
                    overlay=arguments.overlay, colormap=arguments.colormap)  # fmt: skip
    return settings


class _Run:
    """One pass over the jobs: what was written, skipped and failed."""

    def __init__(
        self, arguments: argparse.Namespace, parameters: dict[str, Any], journal: Journal | None
    ) -> None:
        self._arguments = arguments
        self._parameters = parameters
        self._journal = journal
        self._written = self._skipped = self._failed = self._frames = 0

    def all(self, jobs: list[Job]) -> int:
        """Map every job; return the exit status."""
        start = time.perf_counter()
        try:
            with Progress(len(jobs)) as progress:
                warned = Warned(progress)
                for job in jobs:
                    self._one(job, progress, warned)
                    progress.advance()
                warned.summary()
        finally:
            seconds = time.perf_counter() - start
            print(f"{self._written} written ({self._frames} frames), {self._skipped} skipped, "
                  f"{self._failed} failed in {seconds:.1f} s")  # fmt: skip
        return 1 if self._failed else 0

    def _one(self, job: Job, progress: Progress, warned: Warned) -> None:
        try:
            if self._journal and not self._arguments.overwrite and self._journal.done(job):
                self._skipped += 1
                return
            progress.note(job.source.name)
            with warned.about(job.source):
                outputs, frames = self._map(job, progress)
            if self._journal:
                self._journal.add(job, outputs)
            self._written += 1
            self._frames += frames
        except (OSError, ValueError, TypeError, MemoryError, ImportError, RuntimeError) as problem:
            self._failed += 1
            text = str(problem) or type(problem).__name__
            prefix = "" if str(job.source) in text else f"{job.source}: "
            progress.say(f"usconf: error: {prefix}{text}")

    def _map(self, job: Job, progress: Progress) -> tuple[list[Path], int]:
        picture = io.read(job.source)
        count = len(picture.frames)
        geometry = self._arguments.geometry
        support = None
        if geometry == "auto":
            fitted = _fit(picture)
            geometry, support = fitted.geometry, fitted.support
            self._keep_corrections(job.beside(_GEOMETRY), geometry)
            progress.say(f"{job.source}: {geometry}, residual {fitted.residual:.1f} px")
        elif geometry is not None:
            rows, columns = np.indices(picture.frames.shape[1:])
            support = geometry.contains(columns, rows)
        maps = np.empty(picture.frames.shape, np.float32)
        for first in range(0, count, _CHUNK):
            if count > _CHUNK:
                progress.note(f"{job.source.name} frame {first}/{count}")
            chunk = slice(first, first + _CHUNK)
            maps[chunk] = usconf.confidence(
                picture.frames[chunk],
                axes="thw",
                geometry=geometry,
                **self._parameters_of(chunk, count),
            )
        job.target.parent.mkdir(parents=True, exist_ok=True)
        outputs = [job.target]
        io.write(job.target, maps, like=picture, bits=self._arguments.bits)
        if self._arguments.geometry == "auto":
            outputs.append(job.beside(_GEOMETRY))
            geometry.save(outputs[-1])
        if self._arguments.overlay:
            outputs.append(job.beside("_overlay" + _overlay_suffix(picture)))
            colormap = self._arguments.colormap or plot.COLORMAPS[0]
            tinted = plot.overlay(picture.frames, maps, colormap=colormap, support=support)
            io.write(outputs[-1], tinted, like=picture)
        return outputs, count

    def _keep_corrections(self, path: Path, fitted: Any) -> None:
        """ValueError rather than write a fit over a file that a person has changed."""
        if self._arguments.overwrite or not path.exists():
            return
        if usconf.geometry.load(path) != fitted:
            raise ValueError(
                f"{path} must hold the fit or be absent, got another geometry; "
                "--geometry FILE uses it, --overwrite replaces it"
            )

    def _parameters_of(self, chunk: slice, count: int) -> dict[str, Any]:
        """Masks of a whole clip are cut like its frames."""
        return {
            key: value[chunk]
            if isinstance(value, np.ndarray) and value.ndim == 3 and len(value) == count
            else value
            for key, value in self._parameters.items()
        }


def _fit(picture: io.Picture) -> Any:
    """The fan or frame of a picture, in mm and within its region where DICOM gives them."""
    spacing = picture.spacing_mm
    tissue = [region for region in picture.meta.get("regions", ()) if region.spacing_mm]
    return usconf.geometry.fit(
        picture.frames,
        axes="thw",
        region=tissue[0][:4] if len(tissue) == 1 else None,
        spacing=None if spacing is None else (spacing[1], spacing[0]),
    )


def _overlay_suffix(picture: io.Picture) -> str:
    return ".png" if len(picture.frames) == 1 else ".mp4"


def _demo(arguments: argparse.Namespace, parameters: dict[str, Any]) -> int:
    from ..phantom import demo_fan, demo_frame

    folder = arguments.output
    suffix = "png" if arguments.format == "same" else arguments.format
    try:
        frame = demo_frame() if arguments.geometry is None else demo_fan()[0]
        support = None
        if arguments.geometry is not None:
            fitted = usconf.geometry.fit(frame)
            support = fitted.support
            parameters["geometry"] = fitted.geometry
        # The first call of a process plans the elimination; later ones are the rule.
        usconf.confidence(frame, **parameters)
        start = time.perf_counter()
        confidence = usconf.confidence(frame, **parameters)
        milliseconds = 1000 * (time.perf_counter() - start)
        colormap = arguments.colormap or plot.COLORMAPS[0]
        tinted = plot.overlay(frame, confidence, colormap=colormap, support=support)
        folder.mkdir(parents=True, exist_ok=True)
        for name, pixels in (("demo.png", frame), (f"demo_map.{suffix}", confidence),
                             ("demo_overlay.png", tinted)):  # fmt: skip
            io.write(folder / name, pixels, bits=arguments.bits)
            print(folder / name)
        if arguments.geometry is not None:
            fitted.geometry.save(folder / f"demo{_GEOMETRY}")
            print(folder / f"demo{_GEOMETRY}")
    except (OSError, ValueError, TypeError, MemoryError, ImportError, RuntimeError) as problem:
        print(f"usconf: error: {problem}", file=sys.stderr)
        return 1
    height, width = frame.shape
    print(f"map of {height} x {width} in {milliseconds:.1f} ms")
    return 0
