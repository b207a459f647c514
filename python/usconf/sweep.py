"""One stack of frames as the core's DAG takes it: the sweep down the rows, and its reverse.

Everything is checked before (see `dag`); this is where arrays become addresses.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

from . import _core, arrays

VARIANTS = {None: 0, "hung2021": 1}


class Parameters(NamedTuple):
    """The four that have gradients."""

    xi: float
    alpha: float
    var: float
    power: float


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A stack of frames with its parameters.

    image: (frames, H, W); valid: (1 or frames, H, W) booleans or None; reference: (1 or frames, H)
    float64 or None; needle, artifact: (1 or frames, H, W) or None.
    """

    image: Any
    parameters: Parameters
    half_width: int = 10
    variant: str | None = None
    dtype: str = "float32"
    valid: Any = None
    reference: Any = None
    needle: Any = None
    artifact: Any = None

    def solve(self) -> Any:
        """(frames, H, W) maps"""
        given = self._ready()
        maps = arrays.empty(given.image, tuple(given.image.shape), self.dtype)
        if maps.shape[0] > 0:
            _core.dag(*given._arguments(maps))
        return maps

    def backward(
        self, maps: Any, d_maps: Any, wants_image: bool, wants_parameters: bool
    ) -> tuple[Any, Any]:
        """(d_image in the map's dtype, 4 float64: xi, alpha, var, power over all frames)

        None for what is not wanted.
        """
        given = self._ready()
        maps, d_maps = arrays.ready(maps), arrays.ready(d_maps)
        d_image = d_parameters = None
        if wants_image:
            d_image = arrays.empty(given.image, tuple(given.image.shape), self.dtype)
        if wants_parameters:
            d_parameters = arrays.empty(given.image, (4,), "float64")
            d_parameters[:] = 0
        if given.image.shape[0] == 0:
            return d_image, d_parameters
        _core.dag_backward(*given._arguments(maps, d_maps, d_image, d_parameters))
        return d_image, d_parameters

    def _ready(self) -> Sweep:
        """With arrays as the core reads them; needle and artifact share one frame count."""
        needle, artifact = self.needle, self.artifact
        if needle is not None and artifact is not None and needle.shape[0] != artifact.shape[0]:
            shape = (max(needle.shape[0], artifact.shape[0]), *needle.shape[1:])
            xp = arrays.namespace(self.image)
            needle, artifact = (xp.broadcast_to(plane, shape) for plane in (needle, artifact))
        return dataclasses.replace(
            self,
            image=arrays.ready(self.image),
            valid=None if self.valid is None else arrays.ready(self.valid),
            reference=_ready(self.reference, "float64"),
            needle=_ready(needle, "float32"),
            artifact=_ready(artifact, "float32"),
        )

    def _arguments(self, *results: Any) -> tuple[Any, ...]:
        frames = self.image.shape[0]
        soft = self.needle if self.needle is not None else self.artifact
        return (
            arrays.pointer(self.image),
            arrays.SCALARS[arrays.dtype_name(self.image)],
            *self.image.shape,
            *_plane(self.valid, frames),
            *self.parameters,
            self.half_width,
            VARIANTS[self.variant],
            self.variant is None,  # min-max normalised; hung2021 takes pixels as they are
            *_plane(self.reference, frames),
            arrays.pointer(self.needle),
            arrays.pointer(self.artifact),
            soft is not None and soft.shape[0] != frames,
            self.dtype == "float64",
            arrays.threads(self.image),
            *arrays.place(self.image),
            *(arrays.pointer(result) for result in results),
        )


def _ready(plane: Any, dtype: str) -> Any:
    return None if plane is None else arrays.ready(arrays.cast(plane, dtype))


def _plane(plane: Any, frames: int) -> tuple[int, bool]:
    """Its address, and whether all frames share it."""
    return arrays.pointer(plane), plane is not None and plane.shape[0] != frames
