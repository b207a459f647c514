"""The window part of `usconf label`: buttons and keys around `napari_folder.Folder`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QEvent, Qt
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QListWidget,
    QMessageBox,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from ..confidence import METHODS
from .napari_folder import BAD, GOOD, NONE, Folder, Shown
from .napari_geometry import GeometryChoice
from .napari_layers import COLOURS, Layers
from .napari_live import LiveMap
from .napari_map import Mapped, Settings

if TYPE_CHECKING:
    import napari.viewer

_LABELLED = "\N{BLACK CIRCLE} "


class LabelWidget(QWidget):
    """Good and Bad strokes on a folder of pictures, saved as `usconf train` reads them.

    Parameters
    ----------
    napari_viewer : napari.viewer.Viewer
        Where the layers are shown; napari passes it by this name.
    folder : path-like, optional
        Opened at once. Default: the button asks.
    settings : Settings, optional
        Method and geometry of the live map to begin with.

    Raises
    ------
    ValueError, OSError
        If the folder cannot be opened.
    """

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        folder: Any = None,
        settings: Settings | None = None,
    ) -> None:
        super().__init__()
        settings = settings or Settings()
        self._folder: Folder | None = None
        self._shown: Shown | None = None
        self._mapped: Mapped | None = None
        self._parameters = {settings.method: settings.parameters}
        # The label is wrong or the picture unreadable; the user gave up what is unsaved.
        self._broken = self._leaving = False
        self._geometry_changed = False
        self._ancestors: list[Any] = []
        self._live = LiveMap(self)
        self._live.done.connect(self._show_map)
        self._build(settings)
        self._layers = Layers(napari_viewer, self._keys())
        self._layers.on_stroke(self._stroked)
        if folder is not None:
            self.open_folder(folder)

    def _build(self, settings: Settings) -> None:
        self._open_button = _button("Open folder ...", "", self._ask_folder)
        self._list = QListWidget()
        self._list.setToolTip(f"{_LABELLED.strip()} has labels")
        self._list.currentRowChanged.connect(self._row_chosen)
        self._frame = QSpinBox()
        self._frame.valueChanged.connect(self._frame_chosen)
        self._group = QLineEdit()
        self._group.setToolTip("patient or recording: never on both sides of a split")
        self._group.textEdited.connect(lambda text: self._update_state())
        self._method = QComboBox()
        self._method.addItems(METHODS)
        self._method.setCurrentText(settings.method)
        self._method.currentTextChanged.connect(lambda text: self._request_map())
        self._geometry = GeometryChoice(settings.geometry)
        self._geometry.activated.connect(lambda index: self._geometry_chosen())
        self._save_button = _button("Save", "S", lambda: self.save())
        self._counts, self._state, self._note = QLabel(), QLabel(), QLabel()
        for label in (self._state, self._note):
            label.setWordWrap(True)
        self._group.returnPressed.connect(self._group.clearFocus)
        for widget in (self._list, self._method, self._geometry):
            # With the focus they would take the keys from the canvas.
            widget.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        form = QFormLayout()
        form.addRow("Frame", self._frame)
        form.addRow("Group", self._group)
        form.addRow("Map", self._method)
        form.addRow("Geometry", self._geometry)
        layout = QVBoxLayout(self)
        layout.addWidget(self._open_button)
        layout.addWidget(self._state)
        layout.addWidget(self._list, 1)
        layout.addLayout(
            _row(
                _button("Previous", "P", lambda: self.step(-1)),
                _button("Next", "N", lambda: self.step(1)),
                _button("Unlabelled", "U", self.go_to_unlabelled),
            )
        )
        layout.addLayout(form)
        layout.addLayout(
            _row(
                _button("Good", "G", lambda: self._layers.draw(GOOD), COLOURS[GOOD]),
                _button("Bad", "B", lambda: self._layers.draw(BAD), COLOURS[BAD]),
                _button("Erase", "E", lambda: self._layers.draw(NONE)),
                self._save_button,
            )
        )
        layout.addWidget(self._counts)
        layout.addWidget(self._note)

    def _keys(self) -> dict[str, Any]:
        """Keys -> what they do; napari passes the layer or the viewer."""
        return {
            "g": lambda source: self._layers.draw(GOOD),
            "b": lambda source: self._layers.draw(BAD),
            "e": lambda source: self._layers.draw(NONE),
            "n": lambda source: self.step(1),
            "p": lambda source: self.step(-1),
            "u": lambda source: self.go_to_unlabelled(),
            "s": lambda source: self.save(),
            ".": lambda source: self._frame.stepUp(),
            ",": lambda source: self._frame.stepDown(),
        }

    # folder and navigation

    def open_folder(self, path: Any) -> None:
        """Open a folder and show its first picture without labels, or the first of all."""
        folder = Folder(path)
        if not self.may_leave():
            return
        self._folder, self._shown = folder, None
        self._list.blockSignals(True)
        self._list.clear()
        for index, picture in enumerate(folder.pictures):
            self._list.addItem(_LABELLED * folder.labelled(index) + picture.as_posix())
        self._list.blockSignals(False)
        first = 0 if not folder.labelled(0) else folder.next_unlabelled(0)
        self._go(first or 0)

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Folder of pictures")
        if path:
            try:
                self.open_folder(path)
            except (ValueError, OSError) as problem:
                self._say(str(problem))

    def step(self, by: int) -> bool:
        """Go that many pictures on; False at the ends and where the user stays."""
        if self._folder is None or self._shown is None:
            return False
        index = self._shown.index + by
        return 0 <= index < len(self._folder) and self.go(index)

    def go_to_unlabelled(self) -> bool:
        """Go to the next picture without labels."""
        if self._folder is None or self._shown is None:
            return False
        index = self._folder.next_unlabelled(self._shown.index)
        return index is not None and self.go(index)

    def go(self, index: int, frame: int = 0) -> bool:
        """Show another picture or frame unless the user wants to stay at unsaved strokes."""
        if self._folder is None or not self.may_leave():
            return False
        self._go(index, frame)
        return True

    def _go(self, index: int, frame: int = 0) -> None:
        assert self._folder is not None
        self._broken, note = False, ""
        try:
            shown = self._folder.open(index, frame)
        except (ValueError, TypeError, OSError, ImportError, MemoryError) as problem:
            self._broken, note = True, str(problem)
            shown = self._unlabelled(index, frame)
        self._shown, self._mapped = shown, None
        self._geometry_changed = self._leaving = False
        with _Quiet(self._list, self._frame):
            self._list.setCurrentRow(index)
            self._frame.setRange(0, shown.frames - 1)
            self._frame.setValue(frame)
        self._frame.setEnabled(shown.frames > 1)
        self._group.setText(shown.group)
        self._geometry.offer(shown.geometry)
        self._layers.show(shown.image, shown.label, shown.spacing_mm, not self._broken)
        self._say(note)
        self._update_state()
        if self._broken and not shown.image.any():
            self._live.forget()
        else:
            self._request_map()

    def _unlabelled(self, index: int, frame: int) -> Shown:
        """A picture whose label is wrong, to look at only; a black one if it is unreadable too."""
        assert self._folder is not None
        try:
            image, spacing, frames = self._folder.image(index, frame)
        except (ValueError, TypeError, OSError, ImportError, MemoryError):
            image, spacing, frames = np.zeros((64, 64), np.uint8), None, 1
        label, nowhere = np.zeros(image.shape, np.uint8), self._folder.path
        return Shown(index, frame, image, label, nowhere, "", "", None, spacing, frames, False)

    def _row_chosen(self, index: int) -> None:
        if self._shown is not None and index >= 0 and not self.go(index):
            with _Quiet(self._list):
                self._list.setCurrentRow(self._shown.index)

    def _frame_chosen(self, frame: int) -> None:
        if self._shown is not None and not self.go(self._shown.index, frame):
            with _Quiet(self._frame):
                self._frame.setValue(self._shown.frame)

    # strokes, saving

    @property
    def modified(self) -> bool:
        """Whether something is shown that is not on disk."""
        shown = self._shown
        if shown is None or self._broken or self._leaving:
            return False
        label = self._layers.label
        if not np.array_equal(label, shown.label) or (label.any() and not shown.listed):
            return True
        return shown.listed and (
            self._geometry_changed or self._group.text().strip() != shown.group
        )

    def save(self) -> bool:
        """Write label and manifest; False if that failed, with the reason on the window."""
        if self._folder is None or self._shown is None or self._broken:
            return False
        try:
            self._shown = self._folder.save(
                self._shown,
                self._layers.label,
                group=self._group.text(),
                geometry=self._geometry.found(
                    self._shown.image, self._mapped.geometry if self._mapped else None
                ),
            )
        except (ValueError, TypeError, OSError, RuntimeError) as problem:
            self._say(f"not saved: {problem}")
            return False
        self._geometry_changed = False
        self._geometry.offer(self._shown.geometry)
        index = self._shown.index
        mark = _LABELLED * self._folder.labelled(index)
        self._list.item(index).setText(mark + self._folder.pictures[index].as_posix())
        self._update_state()
        return True

    def may_leave(self) -> bool:
        """Ask about unsaved strokes; True once they are saved or given up."""
        if not self.modified:
            return True
        answer = self.ask()
        if answer == "save":
            return self.save()
        self._leaving = answer == "discard"
        return self._leaving

    def ask(self) -> str:
        """The question about unsaved strokes: "save", "discard" or "cancel"."""
        assert self._shown is not None and self._folder is not None
        buttons = QMessageBox.StandardButton
        answer = QMessageBox.question(
            self,
            "Unsaved labels",
            f"Save the labels of {self._folder.pictures[self._shown.index]}?",
            buttons.Save | buttons.Discard | buttons.Cancel,
            buttons.Save,
        )
        return {buttons.Save: "save", buttons.Discard: "discard"}.get(answer, "cancel")

    def _stroked(self) -> None:
        self._leaving = False
        self._update_state()

    def _update_state(self) -> None:
        if self._folder is None or self._shown is None:
            return
        label = self._layers.label
        size = max(label.size, 1)
        good, bad = (100 * np.count_nonzero(label == value) / size for value in (GOOD, BAD))
        self._counts.setText(f"Good {good:.1f} %, Bad {bad:.1f} % of the pixels")
        done = sum(self._folder.labelled(index) for index in range(len(self._folder)))
        self._state.setText(
            f"{self._folder.path}\n{self._shown.index + 1} of {len(self._folder)}, {done} labelled"
        )
        self._save_button.setEnabled(not self._broken)
        self._save_button.setText("Save *" if self.modified else "Save")

    def _say(self, text: str) -> None:
        self._note.setText(text)

    # the live map

    def _geometry_chosen(self) -> None:
        try:
            self._geometry.take()
        except (ValueError, TypeError, OSError) as problem:
            self._say(str(problem))
            return
        self._geometry_changed = True
        self._request_map()
        self._update_state()

    def _request_map(self) -> None:
        if self._shown is None:
            return
        method = self._method.currentText()
        settings = Settings(method, self._geometry.value(), self._parameters.get(method, {}))
        self._mapped = None
        self._live.request(self._shown.image, settings)

    def _show_map(self, mapped: Mapped) -> None:
        self._mapped = mapped
        self._layers.show_map(mapped.map)
        if self._broken:
            return
        note = mapped.note
        if note and self._geometry.value() is None and mapped.map is not None:
            # The warning speaks to programmers.
            note += "\nHere: choose another geometry, such as fitted to the picture."
        self._say(note)

    # closing

    def showEvent(self, event: Any) -> None:
        """Watch the windows around, to ask before they close."""
        super().showEvent(event)
        above = self.parentWidget()
        while above is not None:
            if above not in self._ancestors:
                above.installEventFilter(self)
                self._ancestors.append(above)
            above = above.parentWidget()

    def eventFilter(self, watched: Any, event: Any) -> bool:
        """Keep a window open whose labels the user does not want to leave."""
        if event.type() == QEvent.Type.Close and not self.may_leave():
            event.ignore()
            return True
        return False

    def event(self, event: Any) -> bool:
        """Ask also when napari takes the widget out of its dock, which cannot be refused."""
        if event.type() == QEvent.Type.ParentChange and self.parentWidget() is None:
            self.may_leave()
        return bool(super().event(event))

    def closeEvent(self, event: Any) -> None:
        """Ask about unsaved strokes, then end the thread of the map."""
        if not self.may_leave():
            event.ignore()
            return
        self._live.close()
        super().closeEvent(event)


class _Quiet:
    """Widgets whose signals are held back while the program, not the user, sets them."""

    def __init__(self, *widgets: QWidget) -> None:
        self._widgets = widgets

    def __enter__(self) -> None:
        for widget in self._widgets:
            widget.blockSignals(True)

    def __exit__(self, *error: object) -> None:
        for widget in self._widgets:
            widget.blockSignals(False)


def _button(text: str, key: str, function: Any, colour: str = "") -> QPushButton:
    button = QPushButton(text)
    button.clicked.connect(lambda checked: function())
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    if key:
        button.setToolTip(f"key {key}")
    if colour:
        button.setStyleSheet(f"background-color: {colour}; color: white")
    return button


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    return row
