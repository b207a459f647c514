"""Which files to map, where their maps go, and which of them are done already."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..io.files import READABLE, WRITABLE, readable_suffix

JOURNAL = "usconf-map.jsonl"


class Job(NamedTuple):
    """One input, the place of its map, and how the names of what goes beside it begin."""

    source: Path
    target: Path
    stem: Path

    def beside(self, ending: str) -> Path:
        """Return the place of another output, such as the overlay."""
        return self.stem.with_name(self.stem.name + ending)


class Journal:
    """What an output folder holds and how it was made: one JSON line per finished input.

    A map is made again when its input, the parameters or the version of usconf changed.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._path = folder / JOURNAL
        self._settings = settings
        self._entries: dict[str, dict[str, Any]] = {}
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            text = ""
        self._cut_short = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                entry = json.loads(line)
                self._entries[entry["outputs"][0]] = entry
            except (ValueError, LookupError, TypeError):
                # A line cut short by a crash: its map is simply made again.
                continue

    def outputs(self) -> set[Path]:
        """Return every file that earlier runs wrote into the folder."""
        folder = self._path.parent
        return {(folder / name).resolve() for e in self._entries.values() for name in e["outputs"]}

    def done(self, job: Job) -> bool:
        """Tell whether the job's outputs are complete and made from this very input."""
        entry = self._entries.get(self._name(job.target))
        if entry is None or {**self._state(job), "outputs": entry["outputs"]} != entry:
            return False
        return all((self._path.parent / name).is_file() for name in entry["outputs"])

    def add(self, job: Job, outputs: Sequence[Path]) -> None:
        """Note that the job's outputs are complete."""
        entry = {**self._state(job), "outputs": [self._name(path) for path in outputs]}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write("\n" * self._cut_short + json.dumps(entry) + "\n")
        self._cut_short = False

    def _name(self, path: Path) -> str:
        return path.relative_to(self._path.parent).as_posix()

    def _state(self, job: Job) -> dict[str, Any]:
        status = job.source.stat()
        return {
            "input": str(job.source.resolve()),
            "bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "settings": self._settings,
        }


def find(inputs: Sequence[Path], output: Path, made: set[Path]) -> Iterator[tuple[Path, Path]]:
    """Yield (file, path below its folder argument); folders are walked by suffix.

    Hidden files, the output folder inside an input folder and files that an earlier run made are
    passed over, so that a second run never maps maps.
    """
    for top in inputs:
        if not top.is_dir():
            yield top, Path(top.name)
            continue
        for folder, folders, names in os.walk(top):
            here = Path(folder)
            folders[:] = sorted(
                name
                for name in folders
                if not name.startswith(".") and (here / name).resolve() != output.resolve()
            )
            for name in sorted(names):
                path = here / name
                hidden = name.startswith(".") or name == "DICOMDIR"
                if hidden or path.resolve() in made or readable_suffix(path) is None:
                    continue
                yield path, path.relative_to(top)


def plan(files: Sequence[tuple[Path, Path]], output: Path, kind: str) -> list[Job]:
    """Give every file its output names; two inputs never share one.

    ``a.png`` becomes ``a_map.png``, but ``a_png_map...`` when ``a.jpg`` lies beside it.
    """
    jobs = []
    taken: dict[Path, Path] = {}
    for source, below in files:
        suffix = readable_suffix(source) or source.suffix
        has_suffix = bool(suffix) and source.name.lower().endswith(suffix)
        stem = source.name[: len(source.name) - len(suffix)] if has_suffix else source.name
        if _has_twin(source, stem):
            stem += "_" + suffix.strip(".").replace(".", "_")
        target = output / below.parent / f"{stem}_map{_target_suffix(suffix, kind)}"
        if taken.setdefault(target, source) != source:
            raise ValueError(
                f"INPUT must not hold two files for one map, got {taken[target]} and {source} "
                f"for {target}; map them into separate folders"
            )
        jobs.append(Job(source, target, target.with_name(stem)))
    return jobs


def _target_suffix(suffix: str, kind: str) -> str:
    if kind != "same":
        return "." + kind
    # Unknown suffixes fail when they are read; until then any name will do.
    return READABLE[suffix][1] if suffix in READABLE else ".npy"


def _has_twin(source: Path, stem: str) -> bool:
    names = {stem + suffix for suffix in READABLE} - {source.name}
    return any((source.parent / name).is_file() for name in names)


def is_file_name(output: Path) -> bool:
    """Tell whether -o names one output file rather than a folder."""
    return not output.is_dir() and any(output.name.lower().endswith(end) for end in WRITABLE)
