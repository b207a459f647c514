"""Folders of frames with strokes: what is read, how groups are split, what is refused by name."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import usconf
from usconf import io
from usconf.phantom import demo_fan
from usconf.training import folder
from usconf.training.config import FolderData

pytest.importorskip("PIL")


def write_manifest(root, rows):
    with open(root / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def frames(tmp_path, rng):
    """Eight frames of four patients; the label follows the pixels."""
    root = tmp_path / "frames"
    rows = []
    for number in range(8):
        image = rng.integers(30, 256, (24, 20), dtype=np.uint8)
        label = np.where(image > 200, 1, np.where(image < 60, 2, 0)).astype(np.uint8)
        for name, pixels in (("images", image), ("labels", label)):
            (root / name).mkdir(parents=True, exist_ok=True)
            io.write(root / name / f"{number}.png", pixels)
        rows.append({"image": f"images/{number}.png", "label": f"labels/{number}.png",
                     "group": f"patient {number // 2}"})  # fmt: skip
    write_manifest(root, rows)
    return root, rows


def load(root, **settings):
    return folder.load(FolderData(root=str(root), **{"shape": (24, 20), **settings}))


def test_reads_frames_as_they_are(frames):
    root, _ = frames
    splits = load(root, validation=0.25)
    assert (len(splits.training), len(splits.validation), len(splits.clips)) == (6, 2, 0)
    planes = splits.validation.gather([0, 1])
    assert (planes["mask"] == 1).all()
    image, label = planes["image"], planes["label"]
    np.testing.assert_array_equal(label, np.where(image > 200, 1, np.where(image < 60, 2, 0)))


def test_groups_stay_together_and_do_not_move_when_others_come(frames):
    root, rows = frames
    path = root / "manifest.csv"
    entries = folder.split(folder.read_manifest(path), 0.5, 0, path)
    homes = {entry.group: entry.split for entry in entries}
    assert [homes[entry.group] for entry in entries] == [entry.split for entry in entries]
    assert sorted(homes.values()) == ["training"] * 2 + ["validation"] * 2
    order = [g for share in (0.01, 0.3, 0.6) for g in _validation(path, share)]
    assert len(set(order)) == 3 and "training" in homes.values()
    assert _validation(path, 0.3, seed=1) or _validation(path, 0.3, seed=2)
    del rows


def _validation(path, share, seed=0):
    entries = folder.split(folder.read_manifest(path), share, seed, path)
    return sorted({entry.group for entry in entries if entry.split == "validation"})


def test_split_given_by_hand(frames):
    root, rows = frames
    names = ["training"] * 4 + ["validation"] * 2 + ["test"] * 2
    write_manifest(root, [{**row, "split": s} for row, s in zip(rows, names, strict=True)])
    splits = load(root)
    assert (len(splits.training), len(splits.validation)) == (4, 2)


def test_black_margins_are_cropped_unless_drawn_on(frames):
    root, rows = frames
    image = io.read(root / "images/0.png").frames[0]
    wide, drawn = np.zeros((34, 40), np.uint8), np.zeros((34, 40), np.uint8)
    wide[6:30, 10:30] = image
    drawn[6, 10] = 1
    io.write(root / "images/0.png", wide)
    io.write(root / "labels/0.png", drawn)
    entry = folder.read_manifest(root / "manifest.csv")[0]
    np.testing.assert_array_equal(folder.read_frame(entry, (24, 20))[0], image)
    drawn[33, 39] = 2
    io.write(root / "labels/0.png", drawn)
    kept = folder.read_frame(entry, (28, 30))
    np.testing.assert_array_equal(kept[0][:24, :20], image)
    assert kept[1][-1, -1] == 2
    del rows


def test_fans_are_unrolled_with_their_labels(frames):
    root, rows = frames
    image, fan = demo_fan(200, 256)
    beams, mask = usconf.to_beam(image, fan)
    strokes = np.zeros(beams.shape, np.uint8)
    strokes[20:60, 30:60], strokes[100:, 80:] = 1, 2
    label = usconf.to_scan(strokes, fan, image.shape, interpolation="nearest").image
    io.write(root / "images/0.png", image)
    io.write(root / "labels/0.png", label)
    fan.save(root / "fan.json")
    write_manifest(root, [{**row, "geometry": "fan.json" * (n == 0)} for n, row in enumerate(rows)])
    entry = folder.read_manifest(root / "manifest.csv")[0]
    found = folder.read_frame(entry, beams.shape)
    np.testing.assert_array_equal(found[0], beams)
    assert (found[1] != strokes).mean() < 0.02 and set(np.unique(found[1])) == {0, 1, 2}
    np.testing.assert_array_equal(found[2], mask)


def test_shrinks_smoothly_and_copies_labels(frames):
    root, _ = frames
    entry = folder.read_manifest(root / "manifest.csv")[0]
    image, label, mask = folder.read_frame(entry, (12, 10))
    whole = io.read(root / "images/0.png").frames[0].astype(float)
    assert image.std() < 0.7 * whole.std() and abs(image.mean() - whole.mean()) < 8
    assert set(np.unique(label)) <= {0, 1, 2} and mask.all()


def test_deep_pictures_are_scaled_to_their_range(frames, rng):
    root, rows = frames
    values = rng.normal(size=(24, 20))
    np.save(root / "images/0.npy", values)
    write_manifest(root, [{**rows[0], "image": "images/0.npy"}, *rows[1:]])
    entry = folder.read_manifest(root / "manifest.csv")[0]
    image = folder.read_frame(entry, (24, 20))[0]
    assert (image.min(), image.max()) == (0, 255)
    values[3, 4] = np.nan
    np.save(root / "images/0.npy", values)
    with pytest.raises(ValueError, match=r"0\.npy must hold finite pixels"):
        folder.read_frame(entry, (24, 20))


def test_palette_labels_count_by_index(frames):
    from PIL import Image

    root, _ = frames
    path = root / "labels/0.png"
    label = io.read(path).frames[0]
    coloured = Image.fromarray(label)
    coloured = coloured.convert("P")
    coloured.putdata(label.ravel().tolist())
    coloured.putpalette([0, 0, 0, 0, 255, 0, 255, 0, 0])
    coloured.save(path)
    entry = folder.read_manifest(root / "manifest.csv")[0]
    np.testing.assert_array_equal(folder.read_frame(entry, (24, 20))[1], label)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": "labels/small.png"}, r"small\.png must be of the size of .*0\.png, 24 x 20, "
                                        r"got 5 x 6"),
        ({"label": "labels/three.png"}, r"three\.png must hold 0 .* got 3 at row 2, column 1"),
        ({"label": "labels/absent.png"}, r"absent\.png"),
        ({"image": "broken.png"}, r"broken\.png cannot be read"),
        ({"image": "clip.npy"}, r"clip\.npy must hold one frame, got 3"),
        ({"image": "images/1.png"}, r"manifest\.csv must list every picture once, got .*1\.png"),
        ({"group": ""}, r"manifest\.csv, line 2: group must not be empty"),
        ({"split": "train"}, r"manifest\.csv, line 2: split must be one of training, .*'train'"),
        ({"split": "test"}, r"manifest\.csv: split must be given on every line or on none"),
        ({"geometry": "fan.json"}, r"fan\.json"),
    ],
)  # fmt: skip
def test_refuses_naming_the_file(frames, change, message):
    root, rows = frames
    io.write(root / "labels/small.png", np.zeros((5, 6), np.uint8))
    wrong = np.zeros((24, 20), np.uint8)
    wrong[2, 1] = 3
    io.write(root / "labels/three.png", wrong)
    (root / "broken.png").write_bytes(b"\x89PNG nonsense")
    (root / "fan.json").write_text("{}")
    np.save(root / "clip.npy", np.zeros((3, 24, 20), np.uint8))
    extra = dict.fromkeys(change, "")
    write_manifest(root, [{**extra, **rows[0], **change}, *({**extra, **row} for row in rows[1:])])
    with pytest.raises((ValueError, OSError), match=message):
        load(root)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have the columns image, label, group"),
        ("image,label\na,b", "must have the columns image, label, group"),
        ("image,label,group,splits\na,b,c,d", "each once and spelled so, got .*splits"),
        ("image,label,group\n", "must list at least one picture"),
        ("image,label,group\na,b,c,d", "line 2 must have as many values"),
        ("image,label,group\n\xff\xfe", "CSV file in UTF-8"),
    ],
)
def test_refuses_manifests(frames, text, message):
    root, _ = frames
    (root / "manifest.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"manifest\.csv.*" + message):
        load(root)


def test_refuses_empty_splits(frames):
    root, rows = frames
    with pytest.raises(ValueError, match=r"manifest\.csv: the validation split must not be empty"):
        load(root, validation=0.0)
    write_manifest(root, [{**row, "split": "validation"} for row in rows])
    with pytest.raises(ValueError, match=r"manifest\.csv: the training split must not be empty"):
        load(root)
    write_manifest(root, [{**row, "split": "training" if n < 3 else "validation"}
                          for n, row in enumerate(rows)])  # fmt: skip
    with pytest.raises(ValueError, match="a group must lie in one split, got 'patient 1'"):
        load(root)
    write_manifest(root, rows)
    for number in range(8):
        io.write(root / f"labels/{number}.png", np.zeros((24, 20), np.uint8))
    with pytest.raises(ValueError, match=r"training split must hold some stroke"):
        load(root)


def test_other_peoples_columns_may_stay(frames):
    root, rows = frames
    write_manifest(root, [{**row, "notes": "x"} for row in rows])
    assert len(load(root).training) == 6
