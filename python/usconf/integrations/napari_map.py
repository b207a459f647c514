"""The confidence map that is shown beside the picture, as the window asks for it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import usconf

from ..geometry import Geometry


@dataclass(frozen=True)
class Settings:
    """How the map is computed.

    Attributes
    ----------
    method : str
        As `usconf.confidence`.
    geometry : None, "auto" or Geometry
        As `usconf.confidence`; "auto" fits one to the frame.
    parameters : dict
        Passed on to the method, for instance the weights' file of "learned".
    """

    method: str = "random_walk"
    geometry: Any = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Mapped:
    """A map (H, W) in [0, 1] or None, the geometry it went through, and what to tell the user."""

    map: np.ndarray | None
    geometry: Geometry | None
    note: str


def compute(image: np.ndarray, settings: Settings) -> Mapped:
    """Map one frame; what goes wrong is told in the note and raises nothing.

    Parameters
    ----------
    image : numpy.ndarray
        Gray frame (H, W).
    settings : Settings
        Method and geometry.

    Returns
    -------
    Mapped
        The map is None where there is none, with the reason in the note.

    Examples
    --------
    >>> from usconf.integrations.napari_map import Settings, compute
    >>> from usconf.phantom import demo_frame
    >>> mapped = compute(demo_frame(64, 48), Settings())
    >>> mapped.map.shape, mapped.note
    ((64, 48), '')
    """
    found, geometry = None, None
    # Beware: Python's warning filters belong to the process, not to the thread.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found, geometry = usconf.confidence(
                image,
                settings.method,
                geometry=settings.geometry,
                return_geometry=True,
                nan="mask",
                **settings.parameters,
            )
        # Whatever a picture or a weights' file leads to: strokes can still be drawn and saved.
        except Exception as error:
            return Mapped(None, None, f"no map: {error}")
    notes = dict.fromkeys(str(warning.message) for warning in caught)
    return Mapped(np.asarray(found), geometry, "; ".join(notes))
