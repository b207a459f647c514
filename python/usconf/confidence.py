"""One call for all methods."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# method -> module of the same name that holds the function of the same name
METHODS = ("random_walk", "dag", "learned")


def confidence(
    image: Any,
    method: str = "random_walk",
    *,
    geometry: Any = None,
    return_geometry: bool = False,
    **parameters: Any,
) -> Any:
    """Confidence map of ultrasound frames: for every pixel, how far it can be trusted.

    Parameters
    ----------
    image : numpy.ndarray, torch.Tensor or cupy.ndarray
        Frames (H, W), (1, H, W), (B, 1, H, W), or any layout spelled out by ``axes=``; rows are
        depth. Without a geometry the columns are the beams and the transducer is at row 0.
    method : {"random_walk", "dag", "learned"}
        "random_walk": Karamalis et al., Medical Image Analysis 2012; see `usconf.random_walk`.
        "dag": Hung et al., ISBI 2021; see `usconf.dag`.
        "learned": a network after Ronchetti et al., 'Beyond Shadows'; see `usconf.learned`.
    geometry : None, "auto", Sector, Linear or Trapezoid, optional
        Where the beams run. With one, the image is unrolled to one column per beam, mapped, and
        the map rolled back: right for convex and phased probes, steered frames, frames with
        margins. "auto": one is fitted to the picture or clip, a fan where it shows one, else a
        linear probe's frame (`usconf.geometry.fit`). None (default): the image is beams already;
        a picture that plainly is a fan draws a warning.
    return_geometry : bool, optional
        Return the geometry too, to look at (``geometry.plot(image)``), correct, save and pass
        again. Default: False.
    **parameters
        Passed on to the method. With a geometry, whatever has pixels (`mask`, `sink_mask`,
        `reference`, `reference_map`, `needle`, `artifact`) is of the image, not of the beams;
        ``sink="mid"`` is then the middle beam.

    Returns
    -------
    same kind of array
        Shape, library and device of `image`; values in [0, 1], 1 = trusted; 0 outside the
        geometry. With `return_geometry` a pair (map, geometry); geometry is None where none was
        given. Torch gradients flow through the geometry.

    Raises
    ------
    ValueError
        If there is no such method, the method refuses its arguments, the geometry misses the
        image, or mode is "RF" or `roi` given with a geometry (such lines are beams already;
        rectangles of the image are none of the beams).
    TypeError
        If the method has no such parameter, or the geometry is none.

    Warns
    -----
    UserWarning
        If the picture is a fan, or begins with a black margin, and there is no geometry.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> image = np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8)
    >>> map = usconf.confidence(image)
    >>> map.shape, float(map[0, 0]), float(map[-1, 0])
    ((64, 48), 1.0, 0.0)
    >>> fan = usconf.Sector(apex=(24, -30), r_min=35, r_max=90, theta_min=-0.3, theta_max=0.3)
    >>> map = usconf.confidence(image, geometry=fan)
    >>> float(map[20, 24]) > 0, float(map[20, 0])
    (True, 0.0)
    """
    if method not in METHODS:
        available = ", ".join(repr(name) for name in METHODS)
        raise ValueError(f"method must be one of {available}, got {method!r}; those are available")
    function = getattr(import_module(f".{method}", __package__), method)
    if geometry is None:
        found = function(image, **parameters)
    else:
        from .geometry.beams import chosen, map_through

        geometry = chosen(geometry, image, parameters.get("axes"))
        found = map_through(function, image, geometry, parameters)
    return (found, geometry) if return_geometry else found
