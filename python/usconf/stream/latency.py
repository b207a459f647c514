"""How long maps take: by the host's clock, on a GPU by events that never make the host wait."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .. import arrays


@dataclass(frozen=True)
class Latency:
    """Latencies of a stream, as `usconf.Stream.latency` returns them.

    Attributes
    ----------
    count : int
        Maps so far.
    mean_ms, p50_ms, p90_ms, p99_ms, max_ms : float
        Of the newest maps, as many as the stream keeps; NaN before the first. Percentiles are
        those of `numpy.percentile`, interpolated.
    missed : int or None
        Maps so far that took longer than the stream's period; None without a period.
    """

    count: int
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    missed: int | None

    def __str__(self) -> str:
        """One line for people."""
        if not self.count:
            return "no maps"
        text = (
            f"mean {self.mean_ms:.2f}, p50 {self.p50_ms:.2f}, p90 {self.p90_ms:.2f}, "
            f"p99 {self.p99_ms:.2f}, max {self.max_ms:.2f} ms"
        )
        return text if self.missed is None else f"{text}, {self.missed} over the period"


class Call(NamedTuple):
    """One map in work: the host's time when its frame came, and on a GPU its events."""

    called: float
    begin: Any
    behind: bool  # whether the map before was still being computed then
    end: Any = None


class Clock:
    """The newest latencies, at most `keep`, and how many missed the period.

    `event(array)` records an event on the GPU stream that works on the array; None on the host.
    """

    def __init__(
        self,
        keep: int,
        period_ms: float | None,
        now: Callable[[], float] = time.perf_counter,
        event: Callable[[Any], Any] | None = None,
    ) -> None:
        self._keep = keep
        self._period_ms = period_ms
        self._now = now
        self._event = event or event_on
        self._newest: deque[float] = deque(maxlen=keep)
        self._count = self._missed = 0
        self._running: deque[Call] = deque()
        self._last: tuple[float, Any] = (0.0, None)  # when the last settled map was done, its event

    def start(self, frame: Any) -> Call:
        """A frame has come."""
        while self._running and self._running[0].end.query():
            self._settle()
        return Call(self._now(), self._event(frame), bool(self._running))

    def stop(self, call: Call, frame: Any) -> None:
        """The frame's map is finished, or on a GPU its last kernel launched."""
        if call.begin is None:
            self._add(1000 * (self._now() - call.called))
            return
        self._running.append(call._replace(end=self._event(frame)))
        while len(self._running) > self._keep:  # bounded, though nobody reads the latencies
            self._settle()

    def summary(self) -> Latency:
        """All latencies so far; waits for the maps still in work."""
        while self._running:
            self._settle()
        missed = None if self._period_ms is None else self._missed
        if not self._newest:
            nothing = math.nan
            return Latency(0, nothing, nothing, nothing, nothing, nothing, missed)
        newest = np.fromiter(self._newest, np.float64)
        p50, p90, p99 = (float(value) for value in np.percentile(newest, (50, 90, 99)))
        return Latency(
            self._count, float(newest.mean()), p50, p90, p99, float(newest.max()), missed
        )

    def _settle(self) -> None:
        """Take the oldest map in work off the list.

        Its events tell GPU time only. Where it waited for the maps before it, what it took since
        its frame came is found from when the one before was done.
        """
        call = self._running.popleft()
        call.end.synchronize()
        since, event = self._last if call.behind else (call.called, call.begin)
        done = since + event.elapsed_time(call.end) / 1000
        self._last = (done, call.end)
        self._add(1000 * (done - call.called))

    def _add(self, milliseconds: float) -> None:
        self._newest.append(milliseconds)
        self._count += 1
        self._missed += self._period_ms is not None and milliseconds > self._period_ms


def event_on(array: Any) -> Any:
    """A recorded event with torch's methods on the stream that works on the array, or None."""
    xp = arrays.namespace(array)
    kind = arrays.kind(array)
    if kind == "numpy" or (kind == "torch" and array.device.type == "cpu"):
        return None
    if kind == "cupy":
        return _CupyEvent(xp, array.device)
    event = xp.cuda.Event(enable_timing=True)
    event.record(xp.cuda.current_stream(array.device))
    return event


class _CupyEvent:
    def __init__(self, cupy: Any, device: Any) -> None:
        self._cupy = cupy
        with device:
            self.event = cupy.cuda.Event()
            self.event.record()

    def query(self) -> bool:
        return self.event.done

    def synchronize(self) -> None:
        self.event.synchronize()

    def elapsed_time(self, later: _CupyEvent) -> float:
        return self._cupy.cuda.get_elapsed_time(self.event, later.event)
