"""Frames of the host mapped on a GPU: there and back through page-locked memory, with torch."""

from __future__ import annotations

import re
from typing import Any

from .. import arrays


def check_device(device: Any) -> str | None:
    """The device's name; ValueError if it is none."""
    if device is None:
        return None
    name = str(device)
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(
            f'device must be None, "cpu", "cuda" or "cuda:N", got {name!r}; '
            "None maps frames where they lie"
        )
    return name


class Carrier:
    """Takes frames of one shape and dtype to a device, and maps back to where the frames lie."""

    def __init__(self, device: str, frame: Any) -> None:
        if arrays.kind(frame) == "cupy":
            raise TypeError(
                f"device must be left out for CuPy arrays, got {device!r}; they are mapped where "
                "they lie"
            )
        torch = _torch(device)
        if device.startswith("cuda"):
            index, count = int(device.partition(":")[2] or 0), torch.cuda.device_count()
            if index >= count:
                raise ValueError(
                    f"device must be one that torch reaches, got {device!r} of {count} CUDA "
                    'device(s); "cpu" always is one'
                )
        self._torch = torch
        self._device = torch.device(device)
        self._staging: Any = None
        if arrays.kind(frame) == "numpy":
            dtype = getattr(torch, arrays.dtype_name(frame))
            self._staging = self._on_host(tuple(frame.shape), dtype)

    def there(self, frame: Any) -> Any:
        """The frame as a tensor on the device."""
        if self._staging is None:
            return frame.to(self._device)
        # Free to be written: the map before came back, so its frame was copied long ago.
        self._staging.numpy()[...] = frame
        return self._staging.to(self._device, non_blocking=True)

    def back(self, map: Any, frame: Any) -> Any:
        """The map in the library and on the device of the frame; complete when this returns."""
        if arrays.kind(frame) == "torch":
            return map.to(frame.device)
        if not map.is_cuda:
            return map.numpy()
        found = self._on_host(tuple(map.shape), map.dtype)
        found.copy_(map, non_blocking=True)
        self._torch.cuda.current_stream(map.device).synchronize()
        return found.numpy()

    def _on_host(self, shape: tuple[int, ...], dtype: Any) -> Any:
        locked = self._device.type == "cuda"
        return self._torch.empty(shape, dtype=dtype, pin_memory=locked)


def _torch(device: str) -> Any:
    try:
        import torch
    except ImportError as problem:
        raise ImportError(
            f'frames are taken to the device {device!r} by torch; run: pip install "usconf[torch]"'
        ) from problem
    return torch
