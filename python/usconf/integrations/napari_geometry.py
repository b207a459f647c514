"""The list from which the user chooses where the beams run."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtWidgets import QComboBox, QFileDialog

from ..geometry import Geometry, fit, load

BEAMS, AUTO, FILE, SAVED = "beams", "auto", "file", "saved"
_TEXTS = {
    BEAMS: "columns are beams",
    AUTO: "fitted to the picture",
    FILE: "from a file ...",
    SAVED: "saved with the label",
}


class GeometryChoice(QComboBox):
    """Beams, fitted, from a file, or what was saved with the label.

    A choice holds for the pictures that follow, but what was saved with a label comes first.

    Parameters
    ----------
    given : None, "auto" or Geometry
        The choice to begin with.
    """

    def __init__(self, given: Any = None) -> None:
        super().__init__()
        self.setToolTip("saved with the labels, for training along the beams")
        self._saved: Geometry | None = None
        self._file: Geometry | None = None
        self._choice = BEAMS if given is None else AUTO
        if isinstance(given, Geometry):
            self._choice, self._file = FILE, given
        self.offer(None)

    def offer(self, saved: Geometry | None) -> None:
        """Begin a picture: what was saved with its label, or None."""
        self._saved = saved
        self.clear()
        for choice, text in _TEXTS.items():
            if choice != SAVED or saved is not None:
                self.addItem(text, choice)
        self._select(self._choice if saved is None else SAVED)

    def _select(self, choice: str) -> None:
        self.setCurrentIndex(self.findData(choice))

    def take(self) -> None:
        """Let the user's choice hold from now on; a file is asked for.

        Raises
        ------
        ValueError, TypeError, OSError
            If the file holds no geometry; the choice is then what it was.
        """
        choice = self.currentData()
        if choice == FILE:
            self._select(self._choice)
            path, _ = QFileDialog.getOpenFileName(self, "Geometry", "", "Geometry (*.json)")
            if not path:
                return
            self._file = load(path)
            self._select(FILE)
        if choice != SAVED:
            self._choice = choice

    def value(self) -> Any:
        """None, "auto" or a geometry, as `usconf.confidence` takes it."""
        choice = self.currentData()
        return {BEAMS: None, AUTO: "auto", FILE: self._file, SAVED: self._saved}[choice]

    def found(self, image: np.ndarray, fitted: Geometry | None) -> Geometry | None:
        """What to save: the chosen geometry, `fitted` (or a fit made now) for "auto"."""
        value = self.value()
        if value == "auto":
            value = fitted if fitted is not None else fit(image).geometry
        geometry: Geometry | None = value
        return geometry
