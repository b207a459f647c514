"""Frames of a source that does not wait: read in a thread, the newest one handed out."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any


class Feed:
    """Reads a live source in a thread of its own and hands out the newest frame.

    While a map is being computed the source goes on. A robot wants the newest frame then, not the
    next one: those overtaken are dropped, and counted.

    Parameters
    ----------
    frames : iterable
        The source, e.g. a generator around a camera or a frame grabber. Each frame an array of
        its own: one that the source goes on writing into would change while it is mapped.
    every_frame : bool, optional
        Drop none: the source is read one frame ahead and waits. For files. Default: False.

    Attributes
    ----------
    received : int
        Frames that came from the source.
    dropped : int
        Those never handed out. After the end, received = handed out + dropped.

    Raises
    ------
    TypeError
        If the source is no iterable.

    Notes
    -----
    Iterating ends where the source ends, after its last frame; what the source raises is raised
    there. The thread is a daemon: a source that blocks for ever does not keep the program alive.

    Examples
    --------
    >>> import numpy as np, time
    >>> from usconf.stream import Feed, paced
    >>> clip = np.zeros((20, 32, 24), np.uint8)
    >>> with Feed(paced(clip, fps=1000)) as feed:
    ...     for frame in feed:
    ...         time.sleep(0.005)  # slower than the source
    >>> feed.received, feed.dropped > 0
    (20, True)
    """

    def __init__(self, frames: Iterable[Any], *, every_frame: bool = False) -> None:
        self._frames = iter(frames)
        self._every_frame = every_frame
        self._changed = threading.Condition()
        self._waiting: Any = None
        self._problem: Exception | None = None
        self._ended = self._closed = False
        self.received = self.dropped = 0
        threading.Thread(target=self._read, name="usconf-feed", daemon=True).start()

    def __enter__(self) -> Feed:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Any]:
        while (frame := self.take()) is not None:
            yield frame

    def take(self, timeout_s: float | None = None) -> Any:
        """Wait for a frame that was not handed out yet.

        Parameters
        ----------
        timeout_s : float, optional
            Longest wait in seconds. Default: as long as it takes.

        Returns
        -------
        array or None
            The newest frame; None after the last one, and once the feed is closed.

        Raises
        ------
        TimeoutError
            If none came in time.
        Exception
            What the source raised, once, after the frames before it.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._waiting is not None or self._ended or self._closed, timeout_s
            ):
                raise TimeoutError(
                    f"frames must come within {timeout_s:g} s, got none; "
                    "see to the source, or wait longer"
                )
            frame, self._waiting = self._waiting, None
            if frame is None and self._problem is not None:
                problem, self._problem = self._problem, None
                raise problem
            self._changed.notify_all()
            return frame

    def close(self) -> None:
        """Hand out no further frame and read none, but for the one being read."""
        with self._changed:
            self._closed = True
            self.dropped += self._waiting is not None
            self._waiting = None
            self._changed.notify_all()

    def _read(self) -> None:
        try:
            for frame in self._frames:
                if not self._put(frame):
                    break
        except Exception as problem:  # the loop's, not this thread's, to deal with
            self._problem = problem
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, frame: Any) -> bool:
        with self._changed:
            if self._every_frame:
                self._changed.wait_for(lambda: self._waiting is None or self._closed)
            if self._closed:
                return False
            self.received += 1
            self.dropped += self._waiting is not None
            self._waiting = frame
            self._changed.notify_all()
            return True


def paced(frames: Iterable[Any], fps: float) -> Iterator[Any]:
    """Give frames at a fixed rate, as a camera would: a recording played as a live source.

    Parameters
    ----------
    frames : iterable
        The recording.
    fps : float
        Frames a second. One that is late is given at once; the following ones keep to the rate.

    Yields
    ------
    array
        The frames, unchanged.

    Raises
    ------
    ValueError
        If `fps` is not positive.

    Examples
    --------
    >>> from usconf.stream import paced
    >>> list(paced("abc", fps=1000))
    ['a', 'b', 'c']
    """
    if not fps > 0:
        raise ValueError(f"fps must be positive, got {fps!r}; it is frames a second")
    start = time.perf_counter()
    for index, frame in enumerate(frames):
        early = start + index / fps - time.perf_counter()
        if early > 0:
            time.sleep(early)
        yield frame
