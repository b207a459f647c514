"""The command line: folders, resuming, failures, exit statuses."""

from __future__ import annotations

import contextlib
import os
import sys

import numpy as np
import pytest
import usconf
from usconf import io
from usconf.cli import main
from usconf.cli.jobs import JOURNAL
from usconf.phantom import demo_fan

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def picture(rng):
    return rng.integers(1, 256, (24, 20), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path, picture):
    """Two frames and a clip in a folder with a subfolder."""
    top = tmp_path / "in"
    (top / "sub").mkdir(parents=True)
    np.save(top / "a.npy", picture)
    np.save(top / "sub" / "b.npy", picture[::-1])
    io.write(top / "sub" / "clip.mha", np.stack([picture, picture[:, ::-1], picture]))
    (top / "notes.txt").write_text("no picture")
    (top / ".hidden.npy").write_bytes(b"")
    return top


def names(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def status(*arguments):
    """Exit status of the command, whether it returns or leaves through argparse."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return leaving.code


# what it writes


def test_folder_in_the_inputs_kinds(folder, tmp_path, picture, capsys):
    out = tmp_path / "out"
    assert status("map", folder, "-o", out) == 0
    assert names(out) == ["a_map.npy", "sub/b_map.npy", "sub/clip_map.mha", JOURNAL]
    assert np.array_equal(np.load(out / "a_map.npy"), usconf.confidence(picture))
    clip = io.read(out / "sub" / "clip_map.mha").frames
    np.testing.assert_array_equal(clip[1], usconf.confidence(picture[:, ::-1].copy()))
    captured = capsys.readouterr()
    assert "3 written (5 frames), 0 skipped, 0 failed" in captured.out and captured.err == ""


def test_parameters_reach_the_method(tmp_path, picture):
    np.save(tmp_path / "a.npy", picture)
    options = ["--preset", "duque2023", "--gamma", "0.1", "--sink", "mid", "--solver", "direct"]
    assert status("map", tmp_path / "a.npy", "-o", tmp_path / "m.npy", *options) == 0
    expected = usconf.confidence(picture, preset="duque2023", gamma=0.1, sink="mid")
    assert np.array_equal(np.load(tmp_path / "m.npy"), expected)


def test_another_method_and_its_parameters(tmp_path, picture, capsys):
    np.save(tmp_path / "a.npy", picture)
    out = tmp_path / "m.npy"
    options = ("--method", "dag", "--xi", "0.2", "--half-width", "3", "--despeckle", "none")
    assert status("map", tmp_path / "a.npy", *options, "-o", out) == 0
    expected = usconf.dag(picture, xi=0.2, half_width=3, despeckle=None)
    np.testing.assert_array_equal(np.load(out), expected)
    assert status("map", tmp_path / "a.npy", "--method", "dag", "--beta", "3", "-o", out) == 2
    assert "'beta'" in capsys.readouterr().err


def test_masks_from_files(tmp_path, picture):
    valid = np.ones(picture.shape, np.uint8)
    valid[:, :3] = 0
    sinks = np.zeros(picture.shape, np.uint8)
    sinks[-1, 5:9] = 1
    for name, array in (("a", picture), ("valid", valid), ("sinks", sinks)):
        np.save(tmp_path / f"{name}.npy", array)
    options = ["--mask", tmp_path / "valid.npy", "--sink-mask", tmp_path / "sinks.npy"]
    assert status("map", tmp_path / "a.npy", "-o", tmp_path / "m.npy", *options) == 0
    expected = usconf.confidence(picture, mask=valid, sink="mask", sink_mask=sinks)
    assert np.array_equal(np.load(tmp_path / "m.npy"), expected)


def test_colour_is_turned_into_luma(tmp_path, rng):
    image = pytest.importorskip("PIL.Image")
    colour = rng.integers(1, 256, (24, 20, 3), dtype=np.uint8)
    image.fromarray(colour).save(tmp_path / "a.png")
    assert status("map", tmp_path / "a.png", "-o", tmp_path / "m.npy") == 0
    assert np.array_equal(np.load(tmp_path / "m.npy"), usconf.confidence(io.gray(colour)))


def test_format_and_bits(tmp_path, picture):
    pytest.importorskip("PIL")
    np.save(tmp_path / "a.npy", picture)
    assert status("map", tmp_path / "a.npy", "-o", tmp_path, "--format", "png", "--bits", 8) == 0
    levels = io.read(tmp_path / "a_map.png").frames[0]
    assert np.array_equal(levels, np.rint(usconf.confidence(picture).astype(float) * 255))


def test_overlay_of_a_frame_and_of_a_clip(folder, tmp_path):
    pytest.importorskip("PIL")
    pytest.importorskip("av")
    out = tmp_path / "out"
    options = ["--overlay", "--colormap", "ember"]
    assert status("map", folder, "-o", out, *options) == 0
    assert {"a_overlay.png", "sub/b_overlay.png", "sub/clip_overlay.mp4"} <= set(names(out))
    assert len(io.read(out / "sub" / "clip_overlay.mp4").frames) == 3


def test_two_kinds_of_one_name_do_not_share_a_map(tmp_path, picture):
    np.save(tmp_path / "a.npy", picture)
    io.write(tmp_path / "a.mha", picture[::-1])
    out = tmp_path / "out"
    assert status("map", tmp_path, "-o", out, "--format", "npy") == 0
    assert {"a_npy_map.npy", "a_mha_map.npy"} <= set(names(out))
    np.save(tmp_path / "b.npy", picture)
    (tmp_path / "sub").mkdir()
    np.save(tmp_path / "sub" / "b.npy", picture)
    pair = (tmp_path / "b.npy", tmp_path / "sub" / "b.npy")
    assert status("map", *pair, "-o", out) == 2


def test_demo(tmp_path, capsys, monkeypatch):
    pytest.importorskip("PIL")
    monkeypatch.chdir(tmp_path)
    assert status("map", "--demo") == 0
    assert names(tmp_path) == ["demo.png", "demo_map.png", "demo_overlay.png"]
    found = io.read("demo_map.png").frames
    assert found.dtype == np.uint16 and found[0, 0].min() == 65535 and found[0, -1].max() == 0
    printed = capsys.readouterr().out
    assert "demo_overlay.png" in printed and " ms" in printed


def test_demo_of_a_fan(tmp_path):
    assert status("map", "--demo", "--geometry", "auto", "-o", tmp_path) == 0
    fitted = usconf.geometry.load(tmp_path / "demo_geometry.json")
    assert fitted.kind == "sector"
    assert names(tmp_path) == [
        "demo.png", "demo_geometry.json", "demo_map.png", "demo_overlay.png"
    ]  # fmt: skip
    assert status("map", "--demo", "--geometry", "fan.json", "-o", tmp_path) == 2


def test_fitted_geometry_is_written_corrected_and_used_again(tmp_path, capsys):
    image, _ = demo_fan(160, 200)
    np.save(tmp_path / "scan.npy", image)
    out, file = tmp_path / "out", tmp_path / "out" / "scan_geometry.json"
    run = ("map", tmp_path / "scan.npy", "--overlay", "-o", out)
    assert status(*run, "--geometry", "auto") == 0
    assert names(out) == [
        "scan_geometry.json", "scan_map.npy", "scan_overlay.png", JOURNAL
    ]  # fmt: skip
    fitted = usconf.geometry.load(file)
    assert fitted == usconf.fit_fan(image).geometry
    np.testing.assert_array_equal(
        np.load(out / "scan_map.npy"), usconf.confidence(image, geometry=fitted)
    )
    tinted = io.read(out / "scan_overlay.png").frames[0]
    assert tinted[0].max() == 0  # outside the fan the picture stays as it is
    assert status(*run, "--geometry", "auto") == 0 and "1 skipped" in capsys.readouterr().out

    corrected = usconf.Sector(
        fitted.apex, fitted.r_min, fitted.r_max - 20, fitted.theta_min, fitted.theta_max
    )
    corrected.save(file)
    assert status(*run, "--geometry", file) == 0 and "1 written" in capsys.readouterr().out
    np.testing.assert_array_equal(
        np.load(out / "scan_map.npy"), usconf.confidence(image, geometry=corrected)
    )
    assert status(*run, "--geometry", "auto", "--beta", "80") == 1
    assert "--geometry FILE uses it" in capsys.readouterr().err
    assert usconf.geometry.load(file) == corrected  # a person's file is not written over
    assert status(*run, "--geometry", "auto", "--overwrite") == 0
    assert "residual 0." in capsys.readouterr().err
    assert usconf.geometry.load(file) == fitted
    file.write_text("{")
    assert status(*run, "--geometry", file) == 2
    assert "must be a JSON file" in capsys.readouterr().err
    assert status(*run, "--geometry", "Auto") == 2
    assert "must be auto or a geometry's file" in capsys.readouterr().err


def test_geometry_of_a_clip_and_of_no_fan(tmp_path, rng, capsys):
    image, _ = demo_fan(120, 150)
    io.write(tmp_path / "clip.mha", np.stack([image, image // 2, np.minimum(image, 150)]))
    np.save(tmp_path / "plain.npy", rng.integers(20, 255, (60, 50), dtype=np.uint8))
    np.save(tmp_path / "flat.npy", np.full((60, 50), 9, np.uint8))
    out = tmp_path / "out"
    assert status("map", tmp_path, "--geometry", "auto", "-o", out) == 1
    assert "flat.npy: image must show" in capsys.readouterr().err
    assert usconf.geometry.load(out / "clip_geometry.json").kind == "sector"
    assert usconf.geometry.load(out / "plain_geometry.json").kind == "linear"
    assert io.read(out / "clip_map.mha").frames.shape == (3, 120, 150)


def test_config_and_version(capsys):
    assert status("config") == 0
    assert usconf.__version__ in capsys.readouterr().out
    assert status("--version") == 0
    assert capsys.readouterr().out == f"usconf {usconf.__version__}\n"


# going on after a stop


def test_done_files_are_skipped_and_counted(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert status("map", folder, "-o", out) == 0
    before = (out / "a_map.npy").stat().st_mtime_ns
    assert status("map", folder, "-o", out) == 0
    assert "0 written (0 frames), 3 skipped" in capsys.readouterr().out
    assert (out / "a_map.npy").stat().st_mtime_ns == before
    assert status("map", folder, "-o", out, "--overwrite") == 0
    assert "3 written" in capsys.readouterr().out


def test_other_parameters_or_inputs_are_mapped_again(folder, tmp_path, picture, capsys):
    out = tmp_path / "out"
    assert status("map", folder, "-o", out) == 0
    assert status("map", folder, "-o", out, "--beta", 50) == 0
    assert np.array_equal(np.load(out / "a_map.npy"), usconf.confidence(picture, beta=50))
    np.save(folder / "a.npy", picture[:, :10])
    (out / "sub" / "b_map.npy").unlink()
    capsys.readouterr()
    assert status("map", folder, "-o", out, "--beta", 50) == 0
    assert "2 written (2 frames), 1 skipped" in capsys.readouterr().out


def test_maps_are_not_mapped_when_they_lie_beside_the_pictures(folder, capsys):
    assert status("map", folder, "-o", folder) == 0
    assert status("map", folder, "-o", folder) == 0
    assert "0 written (0 frames), 3 skipped" in capsys.readouterr().out
    inside = folder / "maps"
    assert status("map", folder / "a.npy", "-o", inside) == 0
    assert status("map", folder, "-o", inside, "--format", "npy") == 0
    assert not (inside / "maps").exists()


def test_ctrl_c_leaves_no_half_file_and_the_next_run_goes_on(folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"

    def interrupted(path, array, like):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("usconf.io.metaimage.write", interrupted)
        assert status("map", folder, "-o", out) == 130
    assert "interrupted" in capsys.readouterr().err
    assert names(out) == ["a_map.npy", "sub/b_map.npy", JOURNAL]
    # A line of the journal that a crash cut short only means that its map is made again.
    with open(out / JOURNAL, "a", encoding="utf-8") as journal:
        journal.write('{"outputs": ["a_m')
    assert status("map", folder, "-o", out) == 0
    assert "1 written (3 frames), 2 skipped" in capsys.readouterr().out
    assert status("map", folder, "-o", out) == 0
    assert "0 written" in capsys.readouterr().out


# what goes wrong


def test_one_corrupt_file_does_not_stop_the_rest(folder, tmp_path, capsys):
    (folder / "aa.npy").write_bytes(b"nothing of the kind")
    missing = tmp_path / "missing.npy"
    out = tmp_path / "out"
    assert status("map", missing, folder, "-o", out) == 1
    captured = capsys.readouterr()
    assert "3 written (5 frames), 0 skipped, 2 failed" in captured.out
    errors = [line for line in captured.err.splitlines() if line.startswith("usconf: error:")]
    assert len(errors) == 2 and str(missing) in errors[0] and "aa.npy" in errors[1]
    assert status("map", missing, folder, "-o", out) == 1
    assert "3 skipped, 2 failed" in capsys.readouterr().out


def test_a_frame_the_method_refuses_is_reported(tmp_path, picture, capsys):
    pixels = picture.astype(np.float32)
    pixels[3, 4] = np.nan
    np.save(tmp_path / "a.npy", pixels)
    assert status("map", tmp_path / "a.npy", "-o", tmp_path / "out") == 1
    assert f"usconf: error: {tmp_path / 'a.npy'}" in capsys.readouterr().err
    assert status("map", tmp_path / "a.npy", "-o", tmp_path / "out", "--nan", "mask") == 0


def test_a_clip_does_not_fit_into_png(folder, tmp_path, capsys):
    pytest.importorskip("PIL")
    assert status("map", folder, "-o", tmp_path / "out", "--format", "png") == 1
    assert "one frame for .png, got 3" in capsys.readouterr().err


def test_black_first_rows_are_warned_of_once(tmp_path, picture, capsys):
    picture[0] = 0
    for name in "abc":
        np.save(tmp_path / f"{name}.npy", picture)
    assert status("map", tmp_path, "-o", tmp_path / "out") == 0
    errors = capsys.readouterr().err
    assert errors.count("a.npy") == 1 and "b.npy" not in errors
    assert "fit_support" in errors and "2 more of the files" in errors


def test_truncated_video_is_mapped_with_a_warning(data_dir, tmp_path, capsys):
    pytest.importorskip("av")
    data = (data_dir / "clips" / "lung_a.mpeg").read_bytes()
    (tmp_path / "lung.mpeg").write_bytes(data[:60000])
    assert status("map", tmp_path / "lung.mpeg", "-o", tmp_path / "out") == 0
    assert "truncated or damaged video" in capsys.readouterr().err
    assert names(tmp_path / "out") == ["lung_map.mp4", JOURNAL]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ([], "COMMAND"),
        (["map"], "give at least one INPUT"),
        (["map", "--demo", "a.png"], "--demo takes no INPUT"),
        (["map", "a.png", "--beta", "-1"], "beta must be"),
        (["map", "a.png", "--method", "guess"], "method must be"),
        (["map", "a.png", "--preset", "guess"], "preset must be"),
        (["map", "a.png", "--alpha", "x"], "invalid float"),
        (["map", "a.png", "--colormap", "ember"], "--colormap needs --overlay"),
        (["map", "a.png", "b.png", "-o", "c.png"], "-o must be a folder"),
        (["map", "a.png", "-o", "c.png", "--format", "npy"], "--format must be left out"),
        (["map", "a.png", "--mask", "none.png"], "none.png"),
        (["map", "a.png", "--threads", "0"], "threads must be"),
        (["map", "."], "INPUT must hold readable pictures"),
    ],
)
def test_wrong_usage_is_status_2(tmp_path, monkeypatch, capsys, arguments, match):
    monkeypatch.chdir(tmp_path)
    assert status(*arguments) == 2
    assert match in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("tqdm", [True, False])
def test_progress_on_a_terminal_only(folder, tmp_path, capsys, monkeypatch, tqdm):
    if tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with contextlib.suppress(FileNotFoundError):
        (folder / "aa.npy").write_bytes(b"x")
    assert status("map", folder, "-o", tmp_path / "out") == 1
    errors = capsys.readouterr().err
    assert ("4/4" in errors or "3/4" in errors) and "aa.npy cannot be read" in errors
