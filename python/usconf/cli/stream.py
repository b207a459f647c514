"""``usconf stream``: maps of a live source, and how long each took."""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

import usconf

from .. import io
from ..atomic import whole
from ..learned import set_num_threads
from ..stream import Feed, Stream, paced
from ..training.interrupt import Stop
from . import stream_source
from .progress import Progress, Warned

# Of a .dcm map the header of its image is part, and a .png holds one frame.
SUFFIXES = (".npy", ".tif", ".tiff", ".mha", ".nii", ".nii.gz", ".mp4")

_DEMO_LENGTH = 100
# Times a second that the live line changes and a wish to stop is seen.
_GLANCES = 10
_INTERRUPTED = 130  # 128 + SIGINT, what shells report for an interrupted program


def add_parser(commands: Any) -> None:
    """Add the subcommand and its options."""
    parser = commands.add_parser(
        "stream",
        help="map a live source, frame by frame, and measure it",
        description="Map the frames of SOURCE as they come and say how long each took. A live "
        "source (- or one paced by --fps) does not wait: what it sends during a map is dropped, "
        "all but the newest frame, and counted.",
        epilog="Exit status: 0 all well, 1 it failed on the way, 2 wrong usage, 130 interrupted; "
        "the report comes in any case.",
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="a clip, a folder of frames in order, or - for raw frames on stdin",
    )
    parser.add_argument("--demo", action="store_true", help="moving phantoms; needs no SOURCE")
    parser.add_argument(
        "--raw",
        type=_raw,
        metavar="HxW[:dtype]",
        help="what SOURCE - sends, rows x columns, little-endian, no headers; dtype: uint8",
    )
    parser.add_argument(
        "--fps",
        type=float,
        metavar="N",
        help="play a recording as a live source; maps that take longer than 1/N s are counted",
    )
    parser.add_argument(
        "--frames", type=int, metavar="N", help=f"end after N; default: all, --demo {_DEMO_LENGTH}"
    )
    parser.add_argument(
        "--every-frame", action="store_true", help="drop none: the source waits for the maps"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        help=f"file of all maps ({', '.join(SUFFIXES)}), or - for raw float32 maps on stdout",
    )
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="the report as JSON")
    parser.add_argument(
        "--geometry",
        metavar="auto|FILE",
        help="where the beams run: fitted once (to a clip, or the first frame), or a file that "
        "usconf map wrote; default: the columns are the beams",
    )
    parser.add_argument("--mask", type=Path, metavar="FILE", help="nonzero pixels are valid")
    parser.add_argument("--device", help="cpu (default), cuda or cuda:N")
    parser.add_argument("--threads", type=int, metavar="N", help="default: all cores")
    parser.add_argument(
        "--method", default="random_walk", help="random_walk (default), dag, learned"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter of the method, e.g. beta=80; may be given again",
    )
    parser.set_defaults(run=_run, usage_error=parser.error)


def _raw(text: str) -> stream_source.Raw:
    try:
        return stream_source.raw(text)
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    try:
        stream = _stream(arguments)
    except (ValueError, TypeError, OSError, ImportError) as problem:
        arguments.usage_error(str(problem))
    return _Session(arguments, stream).run()


def _check(arguments: argparse.Namespace) -> None:
    error = arguments.usage_error
    source, output = arguments.source, arguments.output
    if (source is None) != arguments.demo:
        error("give one SOURCE, or --demo")
    if (source == "-") != (arguments.raw is not None):
        error("--raw HxW[:dtype] is needed for SOURCE -, and says nothing of others")
    if arguments.fps is not None and not 0 < arguments.fps < math.inf:
        error(f"--fps must be positive, got {arguments.fps:g}")
    if arguments.frames is not None and arguments.frames < 1:
        error(f"--frames must be at least 1, got {arguments.frames}")
    if output not in (None, "-") and not output.lower().endswith(SUFFIXES):
        error(f"-o must be - or end in one of {', '.join(SUFFIXES)}, got {output}")


def _stream(arguments: argparse.Namespace) -> Stream:
    """The stream, its method tried on a tiny picture."""
    parameters = dict(_parameter(text) for text in arguments.set)
    if arguments.threads is not None:
        usconf.set_num_threads(arguments.threads)
        if arguments.method == "learned":
            set_num_threads(arguments.threads)
    tiny = np.arange(1, 257, dtype=np.float32).reshape(16, 16)
    usconf.confidence(tiny, arguments.method, **parameters)
    geometry = arguments.geometry
    if geometry not in (None, "auto"):
        geometry = usconf.geometry.load(geometry)
    return Stream(
        arguments.method,
        geometry=geometry,
        mask=None if arguments.mask is None else io.read(arguments.mask).frames[0],
        device=arguments.device,
        period_ms=None if arguments.fps is None else 1000 / arguments.fps,
        **parameters,
    )


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ValueError(f"--set must be NAME=VALUE, got {text!r}; e.g. beta=80")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value  # a word, such as preset=duque2023


class _Session:
    """One run: the source, the maps, the report."""

    def __init__(self, arguments: argparse.Namespace, stream: Stream) -> None:
        self._arguments = arguments
        self._stream = stream
        self._received = self._dropped = self._mapped = 0
        self._seconds = 0.0
        self._interrupted = False
        self._problem: str | None = None
        self._shape: tuple[int, ...] | None = None

    def run(self) -> int:
        """Map until the source ends, or something else does; return the exit status."""
        try:
            self._all()
        except KeyboardInterrupt:
            self._interrupted = True
        except BrokenPipeError:
            self._problem = f"the reader of stdout went away after {self._mapped} maps"
        except (OSError, ValueError, TypeError, MemoryError, ImportError, RuntimeError) as problem:
            self._problem = str(problem) or type(problem).__name__
        self._say()
        if self._problem is not None:
            return 1
        return _INTERRUPTED if self._interrupted else 0

    def _all(self) -> None:
        arguments, stream = self._arguments, self._stream
        source = self._source()
        known = 0 if source.clip is None else len(source.clip)
        with Progress(arguments.frames or known, "map") as progress:
            warned = Warned(progress)
            with warned.about(Path(arguments.source or "--demo")):
                if stream.geometry == "auto" and source.clip is not None:
                    stream.fit(source.clip)
                first, frames = stream_source.first_of(source.frames)
                self._shape = first.shape
                # Before the source runs: plans and weights take longer than a map, once.
                stream.warm_up(first)
                frames = itertools.islice(frames, arguments.frames)
                with _writer(arguments.output, source, arguments.fps) as writer, Stop() as stop:
                    self._loop(frames, writer, progress, stop)

    def _source(self) -> stream_source.Source:
        arguments = self._arguments
        if arguments.demo:
            arguments.frames = arguments.frames or _DEMO_LENGTH
            return stream_source.demo(fan=arguments.geometry == "auto")
        if arguments.source == "-":
            # Unbuffered: the lock of a buffer that a thread reads from would block the exit.
            file = open(0, "rb", buffering=0, closefd=False)
            return stream_source.Source(stream_source.raw_frames(file, arguments.raw))
        path = Path(arguments.source)
        return stream_source.folder(path) if path.is_dir() else stream_source.clip(path)

    def _loop(self, frames: Iterator[Any], writer: Any, progress: Progress, stop: Stop) -> None:
        arguments, stream = self._arguments, self._stream
        live = arguments.source == "-"
        if arguments.fps is not None and not live:
            frames, live = paced(frames, arguments.fps), True
        start = glance = time.perf_counter()
        feed = Feed(frames, every_frame=arguments.every_frame or not live)
        try:
            for frame in _until(stop, feed):
                writer.add(stream(frame))
                self._mapped += 1
                progress.advance()
                if time.perf_counter() - glance > 1 / _GLANCES:
                    glance = time.perf_counter()
                    latency = stream.latency()
                    times = f"p50 {latency.p50_ms:.1f}, p99 {latency.p99_ms:.1f} ms"
                    progress.note(f"{times}, {feed.dropped} dropped")
        finally:
            feed.close()
            self._interrupted = stop.wanted
            self._received, self._dropped = feed.received, feed.dropped
            self._seconds = time.perf_counter() - start

    def _say(self) -> None:
        """Report, also where it ended badly."""
        latency = self._stream.latency()
        # Maps on stdout are for a program: words would look like pixels to it.
        out = sys.stderr if self._arguments.output == "-" else sys.stdout
        print(f"latency: {latency}", file=out)
        print(f"{self._received} frames in, {self._mapped} maps out, {self._dropped} dropped in "
              f"{self._seconds:.1f} s" + ", interrupted" * self._interrupted, file=out)  # fmt: skip
        if self._arguments.report is not None:
            try:
                self._write_report()
            except OSError as problem:
                self._problem = self._problem or str(problem)
        if self._problem is not None:
            print(f"usconf: error: {self._problem}", file=sys.stderr)

    def _write_report(self) -> None:
        arguments, geometry = self._arguments, self._stream.geometry
        latency = {
            key: None if isinstance(value, float) and math.isnan(value) else value
            for key, value in asdict(self._stream.latency()).items()
        }
        report = {
            "version": usconf.__version__,
            "source": "--demo" if arguments.demo else arguments.source,
            "method": arguments.method,
            "parameters": arguments.set,
            "geometry": geometry.to_dict() if hasattr(geometry, "to_dict") else None,
            "device": arguments.device or "cpu",
            "shape": self._shape,
            "fps": arguments.fps,
            "every_frame": arguments.every_frame,
            "frames_in": self._received,
            "maps_out": self._mapped,
            "dropped": self._dropped,
            "seconds": self._seconds,
            "latency": latency,
            "interrupted": self._interrupted,
            "error": self._problem,
        }
        with whole(arguments.report) as part:
            part.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def _until(stop: Stop, feed: Feed) -> Iterator[Any]:
    """Frames until the source ends or someone wishes to stop, also while none come."""
    while not stop.wanted:
        try:
            frame = feed.take(1 / _GLANCES)
        except TimeoutError:
            continue
        if frame is None:
            return
        yield frame


def _writer(output: str | None, source: stream_source.Source, fps: float | None) -> Any:
    if output is None:
        return _Nowhere()
    if output == "-":
        return _Stdout()
    rate = source.rate if fps is None else Fraction(fps).limit_denominator(1001)
    return _File(Path(output), source.spacing_mm, rate)


class _Nowhere:
    """No maps wanted: only their times."""

    def __enter__(self) -> _Nowhere:
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def add(self, map: np.ndarray) -> None:
        """Forget a map."""


class _Stdout(_Nowhere):
    """Raw float32 maps, each in the stream before the next frame is taken."""

    def __init__(self) -> None:
        # Unbuffered: nothing is left to flush when the reader has gone.
        self._file = open(1, "wb", buffering=0, closefd=False)

    def add(self, map: np.ndarray) -> None:
        rest = memoryview(np.ascontiguousarray(map, "<f4").tobytes())
        while rest:
            rest = rest[self._file.write(rest) :]


class _File(_Nowhere):
    """Maps kept on the disk until the last one, then written as their kind wants it, all at once.

    Also after an interrupt or a failure: what was mapped is there.
    """

    def __init__(
        self, path: Path, spacing_mm: tuple[float, float] | None, rate: Fraction | None
    ) -> None:
        self._path = path
        self._spacing_mm = spacing_mm
        self._meta = {} if rate is None else {"rate": rate}
        self._kept = tempfile.TemporaryFile(dir=path.parent)
        self._last: np.ndarray | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._kept:
            if self._last is None:
                return
            self._kept.flush()
            kept: np.ndarray = np.memmap(self._kept, self._last.dtype, "r")
            maps = kept.reshape(-1, *self._last.shape)
            like = io.Picture(maps, "stream", self._spacing_mm, meta=self._meta)
            io.write(self._path, maps, like=like)

    def add(self, map: np.ndarray) -> None:
        self._last = map
        self._kept.write(np.ascontiguousarray(map).data)
