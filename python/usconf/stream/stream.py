"""Frame in, map out, for frames of one shape and dtype: what can be done once is done once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .. import arrays
from ..confidence import METHODS, confidence
from ..geometry import fit
from ..geometry.beams import chosen, map_through
from .carrier import Carrier, check_device
from .latency import Clock, Latency, event_on

# Planes that every map needs: brought to the frames' library and device once.
_PLANES = ("mask", "sink_mask")


class Stream:
    """Maps frame after frame of a live source, and knows how long each took.

    ``stream(frame)`` is ``usconf.confidence(frame, method, geometry=stream.geometry, ...)``, to
    the last bit.

    Parameters
    ----------
    method : {"random_walk", "dag", "learned"} or callable, optional
        As in `usconf.confidence`; default "random_walk". A function of your own is called as
        ``method(frame, **parameters)``; with a geometry it gets beams (1, H, W) and ``axes="thw"``.
    geometry : None, "auto", Sector, Linear or Trapezoid, optional
        As in `usconf.confidence`, but "auto" fits once: to what `fit` is given, else to the first
        frame. Default: None.
    mask : array, optional
        Nonzero = valid pixel, (H, W) or the frame's shape; taken to the frames' device once.
    device : None, "cpu", "cuda" or "cuda:N", optional
        Where maps are computed. Frames that lie elsewhere are taken there, and maps brought back,
        by torch. Default: where the frames lie. CuPy frames are always mapped where they lie.
    period_ms : float, optional
        Time from frame to frame. Maps that take longer are counted as missed. Default: none.
    keep : int, optional
        Latencies kept for percentiles, the newest ones. Default: 1000.
    **parameters
        Passed on to the method.

    Attributes
    ----------
    geometry : None, "auto", Sector, Linear or Trapezoid
        The geometry in use; "auto" until one is fitted.

    Raises
    ------
    TypeError
        If the geometry is none, or `keep` no integer. When called: if the frame is of another
        library or dtype than the first, or the method has no such parameter.
    ValueError
        If there is no such method or device, or `period_ms` or `keep` is not positive. When
        called: if the frame's shape or device is not that of the first; and whatever the method
        refuses.

    Notes
    -----
    Latency is the time from the call to the finished map. On a GPU the call returns when the work
    is launched; the latency is taken from events and includes waiting for maps that are still in
    work. Only `latency` waits for them, and a call when `keep` maps are. Copies that `device` asks
    for are part of the latency; then the map is finished when the call returns.

    One stream serves one thread.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> clip = np.random.default_rng(0).integers(1, 256, (5, 64, 48), dtype=np.uint8)
    >>> stream = usconf.Stream("random_walk", period_ms=1000 / 25, beta=80)
    >>> stream.warm_up(clip[0])
    >>> maps = [stream(frame) for frame in clip]
    >>> bool((maps[2] == usconf.confidence(clip[2], beta=80)).all())
    True
    >>> latency = stream.latency()
    >>> latency.count, latency.p50_ms <= latency.p99_ms <= latency.max_ms
    (5, True)
    """

    def __init__(
        self,
        method: str | Callable[..., Any] = "random_walk",
        *,
        geometry: Any = None,
        mask: Any = None,
        device: Any = None,
        period_ms: float | None = None,
        keep: int = 1000,
        **parameters: Any,
    ) -> None:
        if not callable(method) and method not in METHODS:
            available = ", ".join(repr(name) for name in METHODS)
            raise ValueError(
                f"method must be one of {available}, got {method!r}; or pass a function"
            )
        if period_ms is not None and not 0 < period_ms < float("inf"):
            raise ValueError(
                f"period_ms must be positive, got {period_ms!r}; it is 1000 / (frames a second)"
            )
        if geometry is not None and not _is_auto(geometry):
            geometry = chosen(geometry, None, None)
        self.geometry = geometry
        self._auto = _is_auto(geometry)
        self._method = method
        self._device = check_device(device)
        self._parameters = parameters
        if mask is not None:
            parameters["mask"] = mask
        self._clock = Clock(_positive("keep", keep), period_ms)
        self._first: tuple[Any, ...] | None = None
        self._carrier: Carrier | None = None

    def __call__(self, frame: Any) -> Any:
        """Map a frame.

        Parameters
        ----------
        frame : numpy.ndarray, torch.Tensor or cupy.ndarray
            As `usconf.confidence` takes it. Shape, dtype, library and device of the first frame
            are those of the stream.

        Returns
        -------
        same kind of array
            The map, of the frame's library, device and shape, in [0, 1].
        """
        self._check(frame)
        if self._carrier is None:
            call = self._clock.start(frame)
            found = self._map(frame)
            self._clock.stop(call, frame)
            return found
        # The map comes back to the host, or torch's own copy waits: the host's clock tells.
        call = self._clock.start(_HERE)
        found = self._carried(frame)
        self._clock.stop(call, _HERE)
        return found

    def fit(self, frames: Iterable[Any]) -> Any:
        """Fit the geometry to several frames, which show more of its borders than one does.

        Parameters
        ----------
        frames : iterable of arrays
            Frames as the stream gets them, e.g. a clip (T, H, W). Not counted as mapped.

        Returns
        -------
        Sector, Linear or Trapezoid
            The stream's geometry from now on; look at it with ``.plot(frame)``.

        Raises
        ------
        ValueError
            If the stream's geometry is not "auto", or the frames show none.

        Examples
        --------
        >>> import numpy as np, usconf
        >>> from usconf.phantom import demo_fan
        >>> clip = [demo_fan(120, 160, seed=seed)[0] for seed in range(3)]
        >>> stream = usconf.Stream("dag", geometry="auto")
        >>> stream.fit(clip).kind
        'sector'
        """
        if not self._auto:
            raise ValueError(
                f'geometry must be "auto" to be fitted, got {self.geometry}; '
                'make the stream with geometry="auto"'
            )
        axes = self._parameters.get("axes")
        stacks = []
        for frame in frames:
            arrays.check_pixels(frame, "frame")
            layout = arrays.layout(tuple(frame.shape), axes, "frame")
            stacks.append(layout.frames(arrays.on_host(frame)))
        if not stacks:
            raise ValueError("frames must hold at least one frame, got none; pass the first ones")
        self.geometry = fit(np.concatenate(stacks), axes="thw").geometry
        return self.geometry

    def warm_up(self, frame: Any, calls: int = 2) -> None:
        """Do at once what the first call would: fit, plan, load weights, fill caches.

        Parameters
        ----------
        frame : array
            One of those to come, or like them. With geometry "auto" and no `fit` yet, the
            geometry is fitted to it.
        calls : int, optional
            How often it is mapped; latencies are not recorded. Default: 2 (the second finds
            workspaces as the later ones will). Returns when the maps are finished.
        """
        _positive("calls", calls)
        self._check(frame)
        for _ in range(calls):
            if self._carrier is None:
                self._map(frame)
            else:
                self._carried(frame)
        event = event_on(frame)
        if event is not None:
            event.synchronize()

    def latency(self) -> Latency:
        """Latencies so far; on a GPU this waits for the maps still in work.

        Returns
        -------
        Latency
            count, mean_ms, p50_ms, p90_ms, p99_ms, max_ms and missed: maps so far, statistics of
            the newest `keep`, and maps so far that took longer than `period_ms`.
        """
        return self._clock.summary()

    def _check(self, frame: Any) -> None:
        if self._first is None:
            self._begin(frame)
        elif (arrays.kind(frame, "frame"), frame.shape, frame.dtype, _place(frame)) != self._first:
            self._refuse(frame)
        if self._auto and _is_auto(self.geometry):
            self.geometry = chosen("auto", frame, self._parameters.get("axes"))

    def _begin(self, frame: Any) -> None:
        arrays.check_pixels(frame, "frame")
        layout = arrays.layout(tuple(frame.shape), self._parameters.get("axes"), "frame")
        if self._device is not None and not _lies_on(frame, self._device):
            self._carrier = Carrier(self._device, frame)
        there = frame if self._carrier is None else self._carrier.there(frame)
        for name in _PLANES:
            if self._parameters.get(name) is not None:
                plane = layout.companion(self._parameters[name], there, name)
                shape = layout.stack[1:]
                self._parameters[name] = (
                    plane.reshape(shape) if plane.shape[0] == 1 else layout.restore(plane)
                )
        self._first = (arrays.kind(frame), frame.shape, frame.dtype, _place(frame))

    def _refuse(self, frame: Any) -> None:
        arrays.check_pixels(frame, "frame")
        advice = "make another usconf.Stream for it"
        kind, shape, dtype, place = self._first or ()
        if arrays.kind(frame) != kind:
            raise TypeError(
                f"frame must be an array of {kind} like the first of the stream, got one of "
                f"{arrays.kind(frame)}; {advice}"
            )
        if frame.dtype != dtype:
            raise TypeError(
                f"frame must be of dtype {dtype} like the first of the stream, got "
                f"{frame.dtype}; {advice}"
            )
        if frame.shape != shape:
            raise ValueError(
                f"frame must have the shape {tuple(shape)} of the stream's first, got "
                f"{tuple(frame.shape)}; {advice}"
            )
        raise ValueError(
            f"frame must lie on {place} like the first of the stream, got {_place(frame)}; {advice}"
        )

    def _carried(self, frame: Any) -> Any:
        carrier = self._carrier
        assert carrier is not None
        return carrier.back(self._map(carrier.there(frame)), frame)

    def _map(self, frame: Any) -> Any:
        method, geometry = self._method, self.geometry
        if isinstance(method, str):
            return confidence(frame, method, geometry=geometry, **self._parameters)
        if geometry is None:
            return method(frame, **self._parameters)
        return map_through(method, frame, geometry, self._parameters)


# Where the host's clock runs.
_HERE = np.empty(0)


def _is_auto(geometry: Any) -> bool:
    return isinstance(geometry, str) and geometry == "auto"


def _place(frame: Any) -> Any:
    """The device, comparable; NumPy has a word for it since 2.0 only."""
    return getattr(frame, "device", "cpu")


def _lies_on(frame: Any, device: str) -> bool:
    if arrays.kind(frame) == "numpy":
        return device == "cpu"
    if arrays.kind(frame) == "cupy":
        return False  # whatever was asked for: the carrier says that it carries none
    return str(frame.device) == (device if device != "cuda" else f"cuda:{frame.device.index}")


def _positive(name: str, value: Any) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {type(value).__name__}") from None
    if count < 1:
        raise ValueError(f"{name} must be at least 1, got {count}; leave it out for the usual one")
    return count
