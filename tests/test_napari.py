"""Labelling by hand: the folder and its files, without Qt (test_napari_window has the window)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import usconf
from napari_pictures import fill, picture
from usconf import io
from usconf.integrations.napari_folder import BAD, GOOD, Folder, LabelError, read_label
from usconf.integrations.napari_manifest import Manifest
from usconf.integrations.napari_map import Settings, compute

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def pictures(tmp_path):
    return fill(tmp_path)


def strokes(shape):
    label = np.zeros(shape, np.uint8)
    label[2:5, 3:9], label[12:15, 4:8] = GOOD, BAD
    return label


def names(folder):
    return [path.as_posix() for path in folder.pictures]


def save(folder, index, frame=0, group=None, geometry=None):
    shown = folder.open(index, frame)
    label = strokes(shown.image.shape)
    return folder.save(shown, label, group=group or shown.group, geometry=geometry)


# the folder


def test_label_is_written_and_read_again(pictures):
    folder = Folder(pictures)
    assert names(folder) == ["ann_1.png", "clip.npy", "bob/7.png"]
    shown = folder.open(0)
    assert not shown.label.any() and not shown.listed and shown.frames == 1
    np.testing.assert_array_equal(shown.image, picture(1))
    save(folder, 0)
    with Image.open(pictures / "labels" / "ann_1.png") as file:
        assert file.mode == "L"
        np.testing.assert_array_equal(np.array(file), strokes((40, 32)))
    again = Folder(pictures)
    assert names(again) == names(folder)  # labels are no pictures
    assert again.labelled(0) and not again.labelled(1)
    np.testing.assert_array_equal(again.open(0).label, strokes((40, 32)))
    assert again.open(0).listed
    assert again.next_unlabelled(0) == 1


def test_manifest_lists_what_is_labelled(pictures):
    folder = Folder(pictures)
    save(folder, 2)
    save(folder, 0, group="ann")
    assert (pictures / "manifest.csv").read_text().splitlines() == [
        "image,label,group",
        "bob/7.png,labels/bob/7.png,bob",
        "ann_1.png,labels/ann_1.png,ann",
    ]
    assert not list(pictures.rglob(".*"))  # nothing half-written stays


def test_frames_of_a_clip_become_pictures(pictures):
    folder = Folder(pictures)
    assert folder.open(1).frames == 3
    save(folder, 1, frame=2)
    row = Manifest(pictures / "manifest.csv").row("clip_frames/clip.npy/0002.png")
    assert row["label"] == "labels/clip.npy/0002.png" and row["group"] == "clip"
    np.testing.assert_array_equal(io.read(pictures / row["image"]).frames[0], picture(5))
    again = Folder(pictures)
    assert names(again) == names(folder) and again.labelled(1)
    assert again.open(1, 2).label.any() and not again.open(1, 1).label.any()
    with pytest.raises(ValueError, match=r"frame must be 0 to 2 for clip\.npy, got 3"):
        again.open(1, 3)


def test_frames_that_a_png_would_change_stay_numbers(tmp_path):
    np.save(tmp_path / "clip.npy", np.random.default_rng(0).normal(size=(2, 9, 8)))
    folder = Folder(tmp_path)
    shown = folder.open(0, 1)
    folder.save(shown, np.full((9, 8), GOOD), group="a", geometry=None)
    stored = np.load(tmp_path / "clip_frames" / "clip.npy" / "0001.npy")
    np.testing.assert_array_equal(stored, shown.image)


def test_training_reads_what_was_saved(pictures):
    training = pytest.importorskip("usconf.training.folder", exc_type=ImportError)
    folder = Folder(pictures)
    fan = usconf.Sector((15.5, -20.0), 22.0, 56.0, -0.4, 0.4)
    save(folder, 0, geometry=fan)
    save(folder, 1, frame=1)
    save(folder, 2)
    entries = training.read_manifest(pictures / "manifest.csv")
    assert [entry.group for entry in entries] == ["ann", "clip", "bob"]
    for entry in entries:
        label = training.read_frame(entry, (16, 16))[1]
        assert {1, 2} <= set(np.unique(label)) <= {0, 1, 2}


def test_nothing_drawn_leaves_nothing(pictures):
    folder = Folder(pictures)
    for index, frame in ((0, 0), (1, 1)):
        saved = save(folder, index, frame)
        none = np.zeros_like(saved.label)
        assert not folder.save(saved, none, group="a", geometry=None).listed
    assert not len(Manifest(pictures / "manifest.csv"))
    assert not [path for path in (pictures / "labels").rglob("*") if path.is_file()]
    assert not [path for path in (pictures / "clip_frames").rglob("*") if path.is_file()]


def test_geometry_is_kept_with_the_label(pictures):
    fan = usconf.Sector((15.5, -20.0), 22.0, 56.0, -0.4, 0.4)
    folder = Folder(pictures)
    save(folder, 0, geometry=fan)
    row = Manifest(pictures / "manifest.csv").row("ann_1.png")
    assert usconf.geometry.load(pictures / row["geometry"]) == fan
    shown = Folder(pictures).open(0)
    assert shown.geometry == fan
    folder.save(shown, shown.label, group="ann", geometry=None)
    assert Folder(pictures).open(0).geometry is None


def test_one_geometry_of_many_pictures_is_not_overwritten(pictures):
    first = usconf.Sector((15.5, -20.0), 22.0, 56.0, -0.4, 0.4)
    first.save(pictures / "fan.json")
    (pictures / "manifest.csv").write_text(
        "image,label,group,geometry\nann_1.png,labels/ann_1.png,ann,fan.json\n"
    )
    folder = Folder(pictures)
    save(folder, 0, geometry=first)
    assert folder.manifest.row("ann_1.png")["geometry"] == "fan.json"
    save(folder, 0, geometry=usconf.Linear(0, 31, 0, 39))
    assert folder.manifest.row("ann_1.png")["geometry"] == "geometries/ann_1.json"
    assert usconf.geometry.load(pictures / "fan.json") == first


def test_foreign_rows_and_columns_stay(pictures):
    text = (
        "image,label,group,split,note\n"
        'elsewhere.png,x.png,eve,validation,"a, b"\n'
        "ann_1.png,masks/one.png,ann,training,\n"
    )
    (pictures / "manifest.csv").write_text("\ufeff" + text, encoding="utf-8")
    folder = Folder(pictures)
    save(folder, 0)
    assert read_label(pictures / "masks" / "one.png", (40, 32)).any()
    save(folder, 2, group="eve")
    lines = (pictures / "manifest.csv").read_text().splitlines()
    assert lines[:3] == text.splitlines()
    assert lines[3] == "bob/7.png,labels/bob/7.png,eve,validation,"  # one group, one split
    save(folder, 1)
    assert folder.manifest.row("clip_frames/clip.npy/0000.png")["split"] == "training"
    assert names(Folder(pictures)) == names(folder)  # masks/one.png is no picture


def test_labels_of_twins_do_not_collide(tmp_path):
    io.write(tmp_path / "a.png", picture(1))
    np.save(tmp_path / "a.npy", picture(2))
    folder = Folder(tmp_path)
    files = [folder.open(index).label_file.name for index in range(2)]
    assert files == ["a.npy.png", "a.png.png"]
    io.write(tmp_path / "a.png.tif", picture(3))
    with pytest.raises(ValueError, match=r"different names, got a\.png\.png"):
        Folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "group"), [("ann_12.png", "ann"), ("017.png", None), ("a 3-1.png", "a 3")]
)
def test_groups_are_guessed_rather_too_large(tmp_path, name, group):
    io.write(tmp_path / name, picture())
    assert Folder(tmp_path).open(0).group == (group or tmp_path.name)


def test_maps_of_the_command_line_are_no_pictures(pictures, capsys):
    from usconf.cli import main

    before = names(Folder(pictures))
    assert main(["map", str(pictures), "-o", str(pictures / "maps")]) == 0
    assert names(Folder(pictures)) == before


# what is refused


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros((7, 5), np.uint8), r"must be 40 x 32 .* got 7 x 5"),
        (np.full((40, 32), 255, np.uint8), r"0 None, 1 Good and 2 Bad only, got 255"),
        (np.zeros((40, 32, 3), np.uint8), r"gray PNG of 8 bits, got the mode RGB"),
        (np.zeros((40, 32), np.uint16), r"gray PNG of 8 bits, got the mode I;16"),
    ],
)
def test_wrong_label_is_refused_by_name(pictures, label, message):
    (pictures / "labels").mkdir()
    path = pictures / "labels" / "ann_1.png"
    Image.fromarray(label).save(path)
    with pytest.raises(LabelError, match=message) as caught:
        Folder(pictures).open(0)
    assert str(path) in str(caught.value)


def test_damaged_label_is_refused_by_name(pictures):
    save(Folder(pictures), 0)
    path = pictures / "labels" / "ann_1.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(LabelError, match=r"ann_1\.png cannot be read as a label"):
        Folder(pictures).open(0)


def test_palette_counts_not_its_colours(pictures):
    (pictures / "labels").mkdir()
    drawn = Image.new("P", (32, 40))
    drawn.putdata(strokes((40, 32)).ravel().tolist())
    drawn.putpalette([0, 0, 0, 0, 255, 0, 255, 0, 0])
    drawn.save(pictures / "labels" / "ann_1.png")
    np.testing.assert_array_equal(Folder(pictures).open(0).label, strokes((40, 32)))


@pytest.mark.parametrize(
    ("label", "group", "message"),
    [
        (np.ones((4, 4), np.uint8), "a", r"label must be 40 x 32 .* got 4 x 4"),
        (np.full((40, 32), 3), "a", r"label must hold .* got 3"),
        (np.full((40, 32), -1), "a", r"label must hold .* got -1"),
        (np.ones((40, 32)), "a", r"label must hold .* got float64"),
        (np.ones((40, 32), np.uint8), " ", r"group must name a patient"),
    ],
)
def test_nothing_wrong_is_saved(pictures, label, group, message):
    folder = Folder(pictures)
    with pytest.raises(ValueError, match=message):
        folder.save(folder.open(0), label, group=group, geometry=None)
    assert not (pictures / "labels").exists() and not (pictures / "manifest.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image;label;group\n", r"line 1 must name the columns image,label,group"),
        ("", r"line 1 must name the columns"),
        ("image,label,group\na,b\n", r"line 2 must have 3 values, got 2"),
        ("image,label,group\na,b,c\na,d,e\n", r"line 3 must name another image, got 'a'"),
    ],
)
def test_wrong_manifest_is_refused_by_name(pictures, text, message):
    (pictures / "manifest.csv").write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        Folder(pictures)
    assert str(pictures / "manifest.csv") in str(caught.value)


@pytest.mark.parametrize("name", ["../x.png", "/x.png"])
def test_manifest_leads_nowhere_else(pictures, name):
    (pictures / "manifest.csv").write_text(f"image,label,group\nann_1.png,{name},a\n")
    with pytest.raises(LabelError, match=r"manifest\.csv: label must be a path within the folder"):
        Folder(pictures).open(0)


def test_failed_write_keeps_what_was_saved(pictures, monkeypatch):
    folder = Folder(pictures)
    saved = save(folder, 0)
    before = (pictures / "labels" / "ann_1.png").read_bytes()
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        folder.save(saved, np.full((40, 32), BAD), group="a", geometry=None)
    assert (pictures / "labels" / "ann_1.png").read_bytes() == before
    assert not list(pictures.rglob(".*"))


def test_folder_must_hold_pictures(tmp_path):
    with pytest.raises(ValueError, match="must hold readable pictures, got none"):
        Folder(tmp_path)
    with pytest.raises(ValueError, match="must be a folder of pictures"):
        Folder(tmp_path / "missing")


# the map beside the picture


def test_map_is_that_of_confidence():
    image = picture()
    mapped = compute(image, Settings("dag"))
    np.testing.assert_array_equal(mapped.map, usconf.confidence(image, "dag"))
    assert mapped.geometry is None and mapped.note == ""


def test_map_tells_what_is_wrong():
    margin = picture()
    margin[:8] = 0
    mapped = compute(margin, Settings())
    assert mapped.map is not None and "black" in mapped.note
    mapped = compute(picture(), Settings("no such method"))
    assert mapped.map is None and mapped.note.startswith("no map: method must be one of")


def test_map_returns_the_fitted_geometry():
    from usconf.phantom import demo_fan

    mapped = compute(demo_fan()[0], Settings(geometry="auto"))
    assert isinstance(mapped.geometry, usconf.Sector)


# without napari


def test_nothing_but_the_window_needs_qt():
    code = (
        "import sys, usconf.cli, usconf.cli.label, usconf.integrations.napari_folder\n"
        "import usconf.integrations.napari_map\n"
        "print(*({'napari', 'qtpy', 'PyQt5', 'PyQt6', 'PySide6', 'torch'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def label_command(*words):
    import argparse

    from usconf.cli import label

    parser = argparse.ArgumentParser()
    label.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["label", *map(str, words)])
    return arguments.run(arguments)


def test_command_without_napari_says_what_to_install(pictures, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "napari", None)
    assert label_command(pictures) == 1
    assert 'pip install "usconf[napari]"' in capsys.readouterr().err


def test_command_refuses(pictures, tmp_path, capsys):
    assert label_command(pictures / "none") == 1
    assert "must be a folder of pictures" in capsys.readouterr().err
    assert label_command(pictures, "--geometry", tmp_path / "no.json") == 1
    assert "no.json" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        label_command(pictures, "--weights", "w.safetensors")
    assert caught.value.code == 2
