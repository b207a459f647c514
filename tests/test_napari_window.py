"""The window of `usconf label`, on a viewer without canvas: no OpenGL needed."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import usconf
from napari_pictures import fill, picture
from usconf.integrations.napari_folder import BAD, GOOD, Folder, read_label
from usconf.integrations.napari_map import Settings, compute

Image = pytest.importorskip("PIL.Image")
MANIFEST = Path(usconf.__path__[-1]) / "integrations" / "napari.yaml"


def in_napari(test):
    """Marks a test that needs napari; what napari and Qt deprecate is theirs to mend."""
    for category in ("DeprecationWarning", "FutureWarning", "PendingDeprecationWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{category}")(test)
    return pytest.mark.napari(test)


@pytest.fixture
def pictures(tmp_path):
    return fill(tmp_path)


@pytest.fixture
def window(pictures, monkeypatch):
    """The widget on a viewer without canvas: no OpenGL needed."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    pytest.importorskip("napari")
    from napari.components import ViewerModel
    from qtpy.QtWidgets import QApplication
    from usconf.integrations.napari_widget import LabelWidget

    application = QApplication.instance() or QApplication([])
    viewer = ViewerModel()
    widget = LabelWidget(viewer, pictures)
    answers = []
    monkeypatch.setattr(widget, "ask", lambda: answers.pop(0))

    def wait():
        for _ in range(1000):
            application.processEvents()
            if not widget._live.busy:
                return
            threading.Event().wait(0.01)
        raise AssertionError("no map")

    def draw(value=GOOD, at=(3, 3)):
        viewer.layers["labels"].paint(at, value)

    yield SimpleNamespace(
        widget=widget, viewer=viewer, answers=answers, wait=wait, draw=draw, folder=pictures
    )
    widget._leaving = True
    widget.close()
    assert not answers


@in_napari
def test_window_shows_image_labels_and_map(window):
    window.wait()
    layers = window.viewer.layers
    assert [layer.name for layer in layers] == ["image", "confidence", "labels"]
    np.testing.assert_array_equal(layers["image"].data, picture(1))
    np.testing.assert_array_equal(layers["confidence"].data, usconf.confidence(picture(1)))
    assert layers["confidence"].translate[1] > 32  # beside the image
    colours = layers["labels"].colormap.map(np.array([0, GOOD, BAD]))
    assert colours[0][3] == 0 and colours[1][1] > 0.5 and colours[2][0] > 0.5


@in_napari
def test_window_draws_saves_and_goes_on(window):
    window.draw(GOOD)
    assert window.widget.modified and window.widget._save_button.text() == "Save *"
    assert window.widget.save() and not window.widget.modified
    assert read_label(window.folder / "labels" / "ann_1.png", (40, 32)).any()
    assert window.widget._list.item(0).text().startswith("\N{BLACK CIRCLE}")
    assert window.widget.step(1) and window.widget._shown.index == 1
    assert not window.viewer.layers["labels"].data.any()
    assert window.widget.step(-1) and window.viewer.layers["labels"].data.any()
    assert not window.widget.step(-1)
    assert window.widget.go_to_unlabelled() and window.widget._shown.index == 1


@in_napari
def test_window_protects_unsaved_strokes(window):
    window.draw(BAD)
    window.answers.append("cancel")
    window.widget._list.setCurrentRow(2)
    assert window.widget._shown.index == 0 and window.widget._list.currentRow() == 0
    assert window.viewer.layers["labels"].data.any()
    window.answers.append("save")
    assert window.widget.step(1)
    assert BAD in read_label(window.folder / "labels" / "ann_1.png", (40, 32))
    window.draw(GOOD)
    window.answers.append("discard")
    assert window.widget.step(1)
    assert not (window.folder / "labels" / "clip.npy").exists()


@in_napari
def test_window_does_not_close_over_unsaved_strokes(window):
    from qtpy.QtWidgets import QMainWindow

    main = QMainWindow()
    main.setCentralWidget(window.widget)
    main.show()
    window.draw(BAD)
    window.answers.append("cancel")
    assert not main.close()
    window.answers.append("discard")
    assert main.close()
    window.draw(GOOD, (20, 20))  # a window that stays open protects again
    assert window.widget.modified
    window.widget._leaving = True
    main.takeCentralWidget()


@in_napari
def test_window_walks_through_a_clip(window):
    assert window.widget.go(1)
    window.widget._frame.setValue(2)
    window.wait()
    np.testing.assert_array_equal(window.viewer.layers["image"].data, picture(5))
    window.draw(GOOD)
    window.answers.append("cancel")
    window.widget._frame.setValue(0)
    assert window.widget._frame.value() == 2
    assert window.widget.save()
    assert (window.folder / "labels" / "clip.npy" / "0002.png").is_file()


@in_napari
def test_window_keys(window):
    keys = {str(key).lower(): run for key, run in window.viewer.keymap.items()}
    labels = window.viewer.layers["labels"]
    assert {"g", "b", "e", "n", "p", "u", "s", ".", ","} <= keys.keys()
    assert {str(key).lower() for key in labels.keymap} >= {"g", "b", "e", "s"}
    keys["b"](window.viewer)
    assert labels.selected_label == BAD and labels.mode == "paint"
    keys["e"](window.viewer)
    assert labels.mode == "erase"
    labels.selected_label = 7
    assert labels.selected_label == BAD


@in_napari
def test_window_shows_but_does_not_touch_a_wrong_label(window):
    window.widget.go(1)
    path = window.folder / "labels" / "ann_1.png"
    path.parent.mkdir()
    Image.fromarray(np.full((3, 3), 9, np.uint8)).save(path)
    before = path.read_bytes()
    window.widget.go(0)
    window.wait()
    assert str(path) in window.widget._note.text()
    assert not window.viewer.layers["labels"].editable
    assert not window.widget.save() and path.read_bytes() == before
    assert window.widget.step(1) and window.viewer.layers["labels"].editable


@in_napari
def test_window_passes_over_an_unreadable_picture(window):
    (window.folder / "ann_1.png").write_bytes(b"no picture")
    window.widget.go(1)
    window.widget.go(0)
    window.wait()
    assert "ann_1.png cannot be read" in window.widget._note.text()
    assert window.widget.step(1)


@in_napari
def test_window_saves_the_chosen_geometry(window):
    widget = window.widget
    fan = usconf.Sector((15.5, -20.0), 22.0, 56.0, -0.4, 0.4)
    widget._geometry._file, widget._geometry._choice = fan, "file"
    widget.go(2)
    widget.go(0)
    window.wait()
    expected = usconf.confidence(picture(1), geometry=fan)
    np.testing.assert_array_equal(window.viewer.layers["confidence"].data, expected)
    window.draw(GOOD, (20, 15))
    assert widget.save()
    assert Folder(window.folder).open(0).geometry == fan
    widget._geometry.setCurrentIndex(0)
    widget._geometry.activated.emit(0)
    assert widget.modified and widget.save()
    assert Folder(window.folder).open(0).geometry is None


@in_napari
def test_only_the_latest_map_is_shown(window, monkeypatch):
    window.wait()
    from usconf.integrations import napari_live

    began, go_on = threading.Event(), threading.Event()
    computed = []

    def slow(image, settings):
        began.set()
        assert go_on.wait(10)
        computed.append(settings.method)
        return compute(image, settings)

    monkeypatch.setattr(napari_live, "compute", slow)
    window.widget._live.request(picture(1), Settings("random_walk"))
    assert began.wait(10)
    window.widget._live.request(picture(1), Settings("no such method"))
    window.widget._live.request(picture(1), Settings("dag"))  # the window is not blocked
    go_on.set()
    window.wait()
    assert computed == ["random_walk", "dag"]
    expected = usconf.confidence(picture(1), "dag")
    np.testing.assert_array_equal(window.viewer.layers["confidence"].data, expected)


@in_napari
def test_window_opens_anything_a_viewer_lost(window):
    window.viewer.layers.clear()
    assert window.widget.step(1)
    assert {layer.name for layer in window.viewer.layers} == {"image", "confidence", "labels"}


@in_napari
def test_manifest_of_the_plugin_is_valid():
    npe2 = pytest.importorskip("npe2")
    plugin = npe2.PluginManifest.from_file(MANIFEST)
    plugin.validate_imports()
    assert plugin.name == "usconf"
    command = plugin.contributions.commands[0]
    from usconf.integrations.napari_widget import LabelWidget

    assert command.python_name == f"{LabelWidget.__module__}:{LabelWidget.__qualname__}"
    assert plugin.contributions.widgets[0].command == command.id
