"""Maps computed off the window's thread: the last request counts."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from qtpy.QtCore import QObject, Signal

from .napari_map import Mapped, Settings, compute


class LiveMap(QObject):
    """Computes maps in a thread of its own; `done` brings the `Mapped` of the latest request.

    Requests that were overtaken before they began are never computed, later ones never shown.
    """

    done = Signal(object)
    _finished = Signal(int, object)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="usconf-map")
        self._request = 0
        self._future: Future[Mapped] | None = None
        # Emitted in the other thread: Qt delivers it in this one.
        self._finished.connect(self._deliver)

    @property
    def busy(self) -> bool:
        """Whether the latest request is still to be answered."""
        return self._future is not None

    def request(self, image: np.ndarray, settings: Settings) -> None:
        """Ask for a map; what was asked before is forgotten."""
        self.forget()
        number = self._request
        future = self._thread.submit(compute, image, settings)
        self._future = future
        future.add_done_callback(
            lambda f: None if f.cancelled() else self._finished.emit(number, f.result())
        )

    def forget(self) -> None:
        """Drop the latest request."""
        self._request += 1
        if self._future is not None:
            self._future.cancel()
            self._future = None

    def _deliver(self, number: int, mapped: Mapped) -> None:
        if number == self._request:
            self._future = None
            self.done.emit(mapped)

    def close(self) -> None:
        """Wait for the map in work, if any: its thread must not outlive the window."""
        self.forget()
        self._thread.shutdown(wait=True, cancel_futures=True)
