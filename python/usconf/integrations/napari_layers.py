"""The three layers of the viewer: image, labels on it, confidence beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap

from .napari_folder import BAD, GOOD, NONE

COLOURS = {GOOD: "#2ca02c", BAD: "#d62728"}

# Between image and map, as a part of the image's width.
_GAP = 0.04


class Layers:
    """Shows frames in a viewer and hands back what was drawn."""

    def __init__(self, viewer: Any, keys: dict[str, Any]) -> None:
        self._viewer = viewer
        self._keys = keys
        self._image: Image | None = None
        self._labels: Labels | None = None
        self._map: Image | None = None
        self._shape: tuple[int, ...] = ()
        for key, function in keys.items():
            viewer.bind_key(key, function, overwrite=True)

    @property
    def label(self) -> np.ndarray:
        """What is drawn now, (H, W)."""
        assert self._labels is not None
        return np.asarray(self._labels.data)

    def show(self, image: np.ndarray, label: np.ndarray, spacing_mm: Any, editable: bool) -> None:
        """Show a frame with its label; the map beside it stays black until it is known."""
        height, width = image.shape
        # Pixels of the width 1, as high as they are in the body.
        scale = (1.0, 1.0) if spacing_mm is None else (spacing_mm[0] / spacing_mm[1], 1.0)
        finite = image[np.isfinite(image)] if image.dtype.kind == "f" else image
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        self._image = self._put(self._image, Image, image, name="image", colormap="gray")
        self._image.contrast_limits = (low, max(high, low + 1e-6))
        blank = np.zeros(image.shape, np.float32)
        self._map = self._put(self._map, Image, blank, name="confidence", colormap="viridis")
        self._map.contrast_limits = (0.0, 1.0)
        self._labels = self._put(self._labels, Labels, label.copy(), name="labels", opacity=0.6)
        self._labels.editable = editable
        for layer in (self._image, self._labels, self._map):
            layer.scale = scale
        self._map.translate = (0.0, width * (1 + _GAP))
        if self._shape != (height, width, *scale):
            self._shape = (height, width, *scale)
            self._viewer.reset_view()
        # Strokes go to the active layer only.
        self._viewer.layers.selection.active = self._labels

    def show_map(self, map: np.ndarray | None) -> None:
        """Show the map of the frame; None leaves it black."""
        if map is not None and self._map is not None and map.shape == self._map.data.shape:
            self._map.data = map

    def draw(self, value: int) -> None:
        """Choose what strokes draw: GOOD, BAD, or NONE to erase."""
        if self._labels is None:
            return
        self._viewer.layers.selection.active = self._labels
        if not self._labels.editable:
            return
        if value != NONE:
            self._labels.selected_label = value
        self._labels.mode = "erase" if value == NONE else "paint"

    def on_stroke(self, function: Any) -> None:
        """Call the function whenever something was drawn, erased or undone."""
        self._stroke = function

    def _put(self, layer: Any, kind: Any, data: np.ndarray, **options: Any) -> Any:
        """The layer with other data; a new one at first, or when the user deleted it."""
        if layer is not None and layer in self._viewer.layers:
            layer.data = data
            return layer
        layer = self._viewer.add_layer(kind(data, **options))
        if kind is Labels:
            self._prepare(layer)
        return layer

    def _prepare(self, labels: Labels) -> None:
        nothing = (0.0, 0.0, 0.0, 0.0)
        colours: dict[Any, Any] = {None: nothing, NONE: nothing, **COLOURS}
        labels.colormap = DirectLabelColormap(color_dict=colours)
        labels.selected_label = GOOD
        labels.mode = "paint"
        for key, function in self._keys.items():  # before napari's own keys of label layers
            labels.bind_key(key, function, overwrite=True)
        for event in (labels.events.paint, labels.events.labels_update, labels.events.set_data):
            event.connect(lambda event: self._stroke())
        labels.events.selected_label.connect(self._only_good_and_bad)

    def _only_good_and_bad(self, event: Any) -> None:
        if self._labels is not None and not NONE <= self._labels.selected_label <= BAD:
            self._labels.selected_label = BAD
