"""One call for all methods."""

from __future__ import annotations

from importlib import import_module
from typing import Any

# method -> module of the same name that holds the function of the same name
METHODS = ("random_walk",)


def confidence(image: Any, method: str = "random_walk", **parameters: Any) -> Any:
    """Confidence map of ultrasound frames: for every pixel, how far it can be trusted.

    Parameters
    ----------
    image : numpy.ndarray, torch.Tensor or cupy.ndarray
        Frames (H, W), (1, H, W), (B, 1, H, W), or any layout spelled out by ``axes=``; rows are
        depth, the transducer is at row 0.
    method : {"random_walk"}
        "random_walk": Karamalis et al., Medical Image Analysis 2012; see `usconf.random_walk`.
    **parameters
        Passed on to the method.

    Returns
    -------
    same kind of array
        Shape, library and device of `image`; values in [0, 1], 1 = trusted.

    Raises
    ------
    ValueError
        If there is no such method, or the method refuses its arguments.
    TypeError
        If the method has no such parameter.

    Examples
    --------
    >>> import numpy as np, usconf
    >>> image = np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8)
    >>> map = usconf.confidence(image)
    >>> map.shape, float(map[0, 0]), float(map[-1, 0])
    ((64, 48), 1.0, 0.0)
    """
    if method not in METHODS:
        available = ", ".join(repr(name) for name in METHODS)
        raise ValueError(f"method must be one of {available}, got {method!r}; those are available")
    return getattr(import_module(f".{method}", __package__), method)(image, **parameters)
