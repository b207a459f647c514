"""`usconf stream`: sources, pipes, reports, interrupts."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
import usconf
from usconf import io
from usconf.cli import stream as command
from usconf.cli.stream_source import raw
from usconf.phantom import demo_fan

SHAPE = (32, 24)
PROGRAM = """
import argparse, sys
from usconf.cli import stream
parser = argparse.ArgumentParser()
stream.add_parser(parser.add_subparsers())
arguments = parser.parse_args(["stream", *sys.argv[1:]])
sys.exit(arguments.run(arguments))
"""


@pytest.fixture
def clip(rng):
    return rng.integers(1, 256, (5, *SHAPE), dtype=np.uint8)


def status(*arguments):
    """Exit status of the subcommand, whether it returns or leaves through argparse."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    try:
        parsed = parser.parse_args(["stream", *map(str, arguments)])
        return parsed.run(parsed)
    except SystemExit as leaving:
        return leaving.code


def piped(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def maps_of(frames, **parameters):
    return np.stack([usconf.confidence(frame, **parameters) for frame in frames])


# sources


def test_a_clip(clip, tmp_path, capsys):
    np.save(tmp_path / "clip.npy", clip)
    out, report = tmp_path / "maps.npy", tmp_path / "report.json"
    options = ("--set", "beta=70", "--set", "preset=duque2023", "--report", report)
    assert status(tmp_path / "clip.npy", "-o", out, *options) == 0
    expected = maps_of(clip, beta=70, preset="duque2023")
    np.testing.assert_array_equal(np.load(out), expected)
    printed = capsys.readouterr().out
    assert "latency: mean" in printed and "5 frames in, 5 maps out, 0 dropped" in printed
    told = json.loads(report.read_text())
    assert told["frames_in"] == told["maps_out"] == told["latency"]["count"] == 5
    assert told["error"] is None and not told["interrupted"] and told["shape"] == list(SHAPE)
    assert told["latency"]["p50_ms"] <= told["latency"]["max_ms"]
    assert told["latency"]["missed"] is None


def test_a_folder_in_order(clip, tmp_path):
    for number, frame in zip((1, 2, 9, 10, 11), clip, strict=True):
        np.save(tmp_path / f"frame{number}.npy", frame)
    out = tmp_path / "maps.tif"
    pytest.importorskip("PIL")
    options = ("--method", "dag", "--set", "despeckle=None", "--frames", 4)
    assert status(tmp_path, *options, "-o", out) == 0
    expected = maps_of(clip[:4], method="dag", despeckle=None)
    np.testing.assert_array_equal(io.read(out).frames, expected)


def test_a_geometry_is_fitted_to_the_clip(tmp_path):
    clip = np.stack([demo_fan(120, 160, seed=seed)[0] for seed in range(3)])
    np.save(tmp_path / "clip.npy", clip)
    out, report = tmp_path / "maps.npy", tmp_path / "report.json"
    options = ("--method", "dag", "--geometry", "auto", "--report", report)
    assert status(tmp_path / "clip.npy", "-o", out, *options) == 0
    fitted = usconf.geometry.fit(clip, axes="thw").geometry
    np.testing.assert_array_equal(np.load(out), maps_of(clip, method="dag", geometry=fitted))
    assert json.loads(report.read_text())["geometry"] == fitted.to_dict()
    fitted.save(tmp_path / "fan.json")
    again = tmp_path / "again.npy"
    options = ("--method", "dag", "--geometry", tmp_path / "fan.json")
    assert status(tmp_path / "clip.npy", "-o", again, *options) == 0
    assert again.read_bytes() == out.read_bytes()


def test_a_mask(clip, tmp_path):
    mask = np.ones(SHAPE, np.uint8)
    mask[:, :4] = 0
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "clip.npy", clip)
    out = tmp_path / "maps.npy"
    assert status(tmp_path / "clip.npy", "-o", out, "--mask", tmp_path / "mask.npy") == 0
    np.testing.assert_array_equal(np.load(out), maps_of(clip, mask=mask))


def test_the_rate_of_a_paced_clip_is_kept(clip, tmp_path, capsys):
    av = pytest.importorskip("av")
    np.save(tmp_path / "clip.npy", clip)
    out = tmp_path / "maps.mp4"
    options = ("--fps", 50, "--every-frame", "--method", "dag")
    assert status(tmp_path / "clip.npy", *options, "-o", out) == 0
    printed = capsys.readouterr().out
    assert "5 frames in, 5 maps out" in printed and "over the period" in printed
    with av.open(str(out)) as video:
        assert video.streams.video[0].average_rate == 50


def test_a_live_clip_drops_by_count(clip, tmp_path, capsys):
    np.save(tmp_path / "clip.npy", np.tile(clip, (20, 1, 1)))
    report = tmp_path / "report.json"
    assert status(tmp_path / "clip.npy", "--fps", 20000, "--report", report) == 0
    told = json.loads(report.read_text())
    assert told["frames_in"] == 100 == told["maps_out"] + told["dropped"]
    assert told["dropped"] > 0 and told["latency"]["missed"] > 0


@pytest.mark.parametrize("geometry", [(), ("--geometry", "auto")], ids=["beams", "fan"])
def test_demo(geometry, tmp_path, capsys):
    out = tmp_path / "maps.npy"
    options = ("--method", "dag", *geometry, "--frames", 20)
    assert status("--demo", *options, "-o", out) == 0
    assert "20 frames in, 20 maps out, 0 dropped" in capsys.readouterr().out
    assert len(np.load(out)) == 20


def test_frames_that_change(clip, tmp_path, capsys):
    np.save(tmp_path / "a.npy", clip[0])
    np.save(tmp_path / "b.npy", clip[0, :20])
    out = tmp_path / "maps.mha"
    assert status(tmp_path, "-o", out) == 1
    captured = capsys.readouterr()
    assert "shape (32, 24) of the stream's first, got (20, 24)" in captured.err
    assert "1 maps out" in captured.out
    np.testing.assert_array_equal(io.read(out).frames, maps_of(clip[:1]))


# pipes


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float64"])
def test_raw_frames_in_and_maps_out(clip, dtype):
    frames = (clip.astype(dtype) * 3).astype(dtype)
    done = piped("-", "--raw", f"32x24:{dtype}", "--every-frame", "-o", "-")
    out, err = done.communicate(frames.astype(np.dtype(dtype).newbyteorder("<")).tobytes())
    assert done.returncode == 0, err
    found = np.frombuffer(out, "<f4").reshape(-1, *SHAPE)
    np.testing.assert_array_equal(found, maps_of(frames).astype(np.float32))
    assert b"5 frames in, 5 maps out, 0 dropped" in err


def test_a_last_frame_cut_short(clip):
    done = piped("-", "--raw", "32x24", "--every-frame", "-o", "-")
    out, err = done.communicate(clip.tobytes()[:-100])
    assert done.returncode == 1
    assert b"whole frames of 768 bytes, it ended 668 bytes into frame 5" in err
    assert np.array_equal(np.frombuffer(out, "<f4").reshape(-1, *SHAPE), maps_of(clip[:4]))


def test_nothing_on_stdin():
    done = piped("-", "--raw", "32x24")
    out, err = done.communicate(b"")
    assert done.returncode == 1 and b"at least one frame, got none" in err
    assert b"0 frames in" in out


def test_a_reader_that_goes_away(clip):
    done = piped("-", "--raw", "32x24", "--every-frame", "-o", "-", bufsize=0)
    frame_bytes = 4 * SHAPE[0] * SHAPE[1]
    done.stdin.write(clip[0].tobytes())
    read = 0
    while read < frame_bytes:
        read += len(done.stdout.read(frame_bytes - read))
    done.stdout.close()
    done.stdin.write(clip[1:].tobytes())
    done.stdin.close()
    err = done.stderr.read()
    assert done.wait(30) == 1 and b"the reader of stdout went away after 1 maps" in err
    done.stderr.close()


# interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_with_the_report(clip, tmp_path, number):
    out, report = tmp_path / "maps.npy", tmp_path / "report.json"
    options = ("--every-frame", "-o", out, "--report", report)
    done = piped("-", "--raw", "32x24", *options, bufsize=0)
    # More than a pipe holds (64 KiB): when all is written, the loop has begun.
    frames = np.tile(clip, (40, 1, 1))
    done.stdin.write(frames.tobytes())
    done.send_signal(number)  # stdin stays open: the source is silent
    told_to_people, err = done.communicate(timeout=60)
    assert done.returncode == 130, err
    assert b"interrupted" in told_to_people
    told = json.loads(report.read_text())
    assert told["interrupted"] and told["error"] is None
    assert told["maps_out"] == told["latency"]["count"] == told["frames_in"] - told["dropped"] > 0
    maps = np.load(out)
    assert len(maps) == told["maps_out"]
    np.testing.assert_array_equal(maps[:5], maps_of(clip))


# refuses


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one SOURCE, or --demo"),
        (["a.npy", "--demo"], "give one SOURCE, or --demo"),
        (["-"], "--raw HxW[:dtype] is needed for SOURCE -"),
        (["a.npy", "--raw", "3x4"], "and says nothing of others"),
        (["-", "--raw", "3x"], "must be HxW or HxW:dtype"),
        (["-", "--raw", "3x4:int64"], "got '3x4:int64'"),
        (["--demo", "--fps", "0"], "--fps must be positive, got 0"),
        (["--demo", "--frames", "0"], "--frames must be at least 1, got 0"),
        (["--demo", "-o", "maps.png"], "-o must be - or end in one of .npy"),
        (["--demo", "--method", "nope"], "method must be one of"),
        (["--demo", "--set", "beta"], "--set must be NAME=VALUE, got 'beta'"),
        (["--demo", "--set", "beta=-1"], "beta must be finite and not negative"),
        (["--demo", "--set", "xi=1"], "'xi'"),
        (["--demo", "--device", "tpu"], "device must be None"),
        (["--demo", "--geometry", "nope.json"], "nope.json"),
        (["--demo", "--threads", "0"], "threads must be at least 1"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    assert status(*arguments) == 2
    assert message in capsys.readouterr().err


def test_a_source_that_cannot_be_read(tmp_path, capsys):
    assert status(tmp_path / "nope.npy") == 1
    assert "nope.npy" in capsys.readouterr().err
    assert status(tmp_path) == 1
    assert "must hold readable pictures, got none" in capsys.readouterr().err


def test_raw_layouts():
    assert raw("480x640").shape == (480, 640) and raw("480x640").dtype == np.uint8
    assert raw("4x3:float16").dtype == np.float16
