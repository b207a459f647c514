"""Pictures or volumes with labels, ready to train on: what every source of data becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True, eq=False)
class Case:
    """A picture ``(H, W)`` or a volume ``(D, H, W)`` of frames, uint8, transducer at row 0.

    Attributes
    ----------
    name, patient : str
        What reports call it, and whose it is.
    image, label : numpy.ndarray
        uint8; the label that networks learn from, in class indices.
    reference : numpy.ndarray
        uint8; what predictions are judged by: the truth where it is known, else the label.
    labellings : numpy.ndarray
        uint8, (labellings, ...): all that experts drew; at least the label.
    spacing : tuple of float
        Size of a pixel along each axis, in the unit of `Cases.unit`.
    split : str or None
        training, validation or test where the data say so.
    original : numpy.ndarray or None
        uint8 ``(T, h, w)``: the frames as they were before they were brought to the shape, for the
        maps; None where that is `image`.
    seen : numpy.ndarray or None
        float32 in [0, 1]: what share of the power at each place is echo of tissue. Known for made
        data only.
    """

    name: str
    patient: str
    image: np.ndarray
    label: np.ndarray
    reference: np.ndarray
    labellings: np.ndarray
    spacing: tuple[float, ...]
    split: str | None
    original: np.ndarray | None = None
    seen: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Cases:
    """All of them, of one shape; `classes` names index 0 (background) and the organs after it."""

    cases: Sequence[Case]
    classes: tuple[str, ...]
    unit: str

    def without_originals(self) -> Cases:
        """The same, lighter: for when the maps are made."""
        return replace(self, cases=[replace(case, original=None) for case in self.cases])

    @property
    def dims(self) -> int:
        """2 or 3."""
        return self.cases[0].image.ndim

    @property
    def patients(self) -> list[str]:
        """Each once, in the order of the cases."""
        return list(dict.fromkeys(case.patient for case in self.cases))
