"""What every geometry can do, whatever its outline."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from . import checks
from .grid import BeamGrid

Point = checks.Pair


class Geometry(ABC):
    """What `Sector`, `Linear` and `Trapezoid` share; use it for ``isinstance``.

    Pixel centres sit at integers, x to the right, z down, and mm = pixel coordinate * spacing.
    """

    kind: ClassVar[str]
    spacing: Any

    @property
    def unit(self) -> str:
        """ "mm", or "px" where the spacing is unknown."""
        return "px" if self.spacing is None else "mm"

    @property
    def scale(self) -> Point:
        """Unit per pixel as (x, z); (1, 1) where lengths are pixels."""
        if self.spacing is None:
            return 1.0, 1.0
        return self.spacing if isinstance(self.spacing, tuple) else (self.spacing,) * 2

    def beam_grid(self, image_shape: Any, shape: Any = None) -> BeamGrid:
        """Lay a grid of beam samples over this geometry in a picture.

        Parameters
        ----------
        image_shape : tuple of int
            (height, width) of the scan image.
        shape : tuple of int, optional
            (n_samples, n_lines), each at least 2. Default: neighbours are at most one pixel apart,
            along the beams and across them where they are widest apart.

        Returns
        -------
        BeamGrid
            The shape and its spacings.

        Raises
        ------
        TypeError, ValueError
            If a size is no integer or too small, if the geometry misses the picture, or if the
            beams of a `Sector` would start inside it: see there.

        Notes
        -----
        One pixel is the coarsest spacing at which every pixel of the picture lies next to a sample
        along the beam and across. Measured on frames of liver and lung, the way there and back
        keeps 43 to 46 dB (peak signal to noise, bilinear), 33 dB on a picture with hard edges; half
        the spacing adds 6 dB and takes four times as many samples.
        """
        height, width = checks.sizes("image_shape", image_shape, 1, ("height", "width"))
        if shape is not None:
            shape = checks.sizes("shape", shape, 2, ("n_samples", "n_lines"))
        return _beam_grid(self, height, width, shape)

    def contains(self, x: Any, z: Any) -> np.ndarray:
        """Tell which points, in pixels, lie in the geometry or on its border.

        Parameters
        ----------
        x, z : array_like
            Pixel coordinates that broadcast together.

        Returns
        -------
        numpy.ndarray
            bool. The picture's borders play no part.
        """
        scale_x, scale_z = self.scale
        x, z = np.asarray(x, np.float64) * scale_x, np.asarray(z, np.float64) * scale_z
        return self._contains(x, z)

    def positions(self, grid: BeamGrid) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates x and z of all samples: two float64 arrays (n_samples, n_lines)."""
        x, z = self._positions(grid)
        scale_x, scale_z = self.scale
        return x / scale_x, z / scale_z

    @abstractmethod
    def parameters(self, grid: BeamGrid) -> tuple[int, tuple[float, ...]]:
        """What the core knows a geometry by: kind (0 sector, 1 quadrilateral), 10 numbers."""

    @abstractmethod
    def to_pixels(self) -> Geometry:
        """The same geometry with lengths in pixels (spacing None)."""

    @abstractmethod
    def to_mm(self, spacing: Any) -> Geometry:
        """The same geometry in mm; `spacing` is mm per pixel, one number or (x, z)."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers under the names of the arguments, with kind, unit and version."""
        from . import files

        return files.to_dict(self)

    @staticmethod
    def from_dict(values: Any) -> Geometry:
        """The geometry that `to_dict` gave; ValueError that says what is wrong otherwise."""
        from . import files

        return files.from_dict(values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `to_dict` as a JSON file that a person can correct; `usconf.geometry.load` reads.

        A file of that name is replaced at once: there is never half a file.
        """
        from . import files

        files.save(self, path)

    def plot(self, image: Any = None, ax: Any = None) -> Any:
        """Draw border, probe face, apex and some beams with matplotlib, over an image if given.

        Parameters
        ----------
        image : array_like, optional
            The scan image (H, W), or (H, W, 3) colours.
        ax : matplotlib.axes.Axes, optional
            Where to draw; default: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            In the geometry's unit; ``ax.figure.savefig(...)`` keeps it.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        ValueError
            If the image has another number of axes.
        """
        from .drawing import draw

        return draw(self, image, ax)

    @abstractmethod
    def _grid(self, height: int, width: int, shape: Any) -> BeamGrid: ...

    @abstractmethod
    def _contains(self, x: np.ndarray, z: np.ndarray) -> np.ndarray: ...

    @abstractmethod
    def _positions(self, grid: BeamGrid) -> tuple[np.ndarray, np.ndarray]: ...

    def _keep(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _missed(self, height: int, width: int) -> ValueError:
        unit = "pixels" if self.spacing is None else f"mm at {self.spacing} mm per pixel"
        return ValueError(
            f"geometry must meet the picture of {height} x {width} pixels, got {self}; "
            f"its lengths are {unit}, counted from the centre of the top left pixel"
        )


@lru_cache(maxsize=256)
def _beam_grid(geometry: Geometry, height: int, width: int, shape: Any) -> BeamGrid:
    return geometry._grid(height, width, shape)
