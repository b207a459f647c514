"""A progress bar on a terminal, silence elsewhere, and warnings said once."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


class Progress:
    """Counts files on stderr: tqdm's bar when installed, else one line that rewrites itself.

    Or whatever else `unit` names in the singular.
    """

    def __init__(self, total: int, unit: str = "file") -> None:
        self._total = total
        self._unit = unit
        self._done = 0
        self._shown = sys.stderr.isatty()
        self._bar: Any = None
        if self._shown:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit=unit, file=sys.stderr, leave=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown:
            self._clear()

    def note(self, text: str) -> None:
        """Show what is being worked on."""
        if self._bar is not None:
            self._bar.set_postfix_str(text)
        elif self._shown:
            self._clear()
            sys.stderr.write(f"{self._done}/{self._total} {self._unit}s  {text}"[:79])
            sys.stderr.flush()

    def advance(self) -> None:
        """Count one more."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()

    def say(self, text: str) -> None:
        """Print a line on stderr above the bar."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
            return
        if self._shown:
            self._clear()
        print(text, file=sys.stderr)

    def _clear(self) -> None:
        # Erase the line: ECMA-48 "EL".
        sys.stderr.write("\r\x1b[2K")


class Warned:
    """Prints each warning once and counts the files that would have repeated it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._files: dict[str, set[Path]] = {}
        self._path = Path()

    @contextmanager
    def about(self, path: Path) -> Iterator[None]:
        """Catch the warnings that work on this file draws."""
        self._path = path
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = self._show
            yield

    def summary(self) -> None:
        """Say how many further files drew a warning that was printed for the first only."""
        for message, files in self._files.items():
            if len(files) > 1:
                self._progress.say(
                    f"usconf: warning: {len(files) - 1} more of the files: {message}"
                )

    def _show(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        del category, filename, lineno, file, line
        text = str(message)
        if text not in self._files:
            prefix = "" if str(self._path) in text else f"{self._path}: "
            self._progress.say(f"usconf: warning: {prefix}{text}")
        self._files.setdefault(text, set()).add(self._path)
