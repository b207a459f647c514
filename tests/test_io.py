"""Pictures: every kind read and written back, damaged files refused with their name."""

from __future__ import annotations

import shutil
from fractions import Fraction

import numpy as np
import pytest
from usconf import io
from usconf.io import Picture, UnreadableError, gray, read, write


@pytest.fixture
def clip(rng):
    return rng.integers(0, 256, (3, 20, 14), dtype=np.uint8)


@pytest.fixture
def maps(rng):
    return rng.random((3, 20, 14), dtype=np.float32)


def test_public_names():
    assert sorted(io.__all__) == ["Picture", "UnreadableError", "gray", "read", "write"]


# gray


def test_gray_keeps_gray_and_follows_rec_601():
    ramp = np.arange(256, dtype=np.uint8)
    assert np.array_equal(gray(np.stack([ramp] * 3, -1)), ramp)
    wide = np.arange(65536, dtype=np.uint16)
    assert np.array_equal(gray(np.stack([wide] * 4, -1)), wide)
    colours = np.eye(3) * 1000.0
    np.testing.assert_allclose(gray(colours), [299, 587, 114])
    assert gray((colours).astype(np.int16)).tolist() == [299, 587, 114]


def test_gray_refuses():
    with pytest.raises(ValueError, match=r"image must be \(\.\.\., 3\)"):
        gray(np.zeros((4, 5)))
    with pytest.raises(TypeError, match="real numbers"):
        gray(np.zeros((4, 3), complex))


# raster


@pytest.mark.parametrize("bits", [8, 16])
def test_png_keeps_levels_and_spacing(tmp_path, maps, bits):
    pytest.importorskip("PIL")
    like = Picture(np.zeros((1, 20, 14), np.uint8), "dicom", (0.11, 0.2), single=True)
    write(tmp_path / "a.png", maps[:1], like=like, bits=bits)
    back = read(tmp_path / "a.png")
    top = 2**bits - 1
    assert back.frames.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert np.array_equal(back.frames[0], np.rint(maps[0].astype(float) * top))
    assert back.spacing_mm == (0.11, 0.2) and back.single and back.kind == "raster"


def test_png_of_a_clip_is_refused(tmp_path, maps):
    pytest.importorskip("PIL")
    with pytest.raises(ValueError, match=r"one frame for \.png, got 3"):
        write(tmp_path / "a.png", maps)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_png_mode_becomes_gray(tmp_path, mode):
    image = pytest.importorskip("PIL.Image")
    pixels = np.array([[0, 255], [255, 0]], np.uint8)
    if mode == "I;16":
        picture = image.fromarray(pixels.astype(np.uint16) * 257)
    elif mode == "P":
        # Palette indices in reverse order of brightness: indices are no gray values.
        picture = image.fromarray(np.array([[1, 0], [0, 1]], np.uint8))
        picture.putpalette([255, 255, 255, 0, 0, 0])
    else:
        picture = image.fromarray(pixels).convert(mode)
    picture.save(tmp_path / "a.png")
    expected = pixels.astype(np.uint16) * 257 if mode == "I;16" else pixels
    assert np.array_equal(read(tmp_path / "a.png").frames[0], expected)


def test_png_resolution_of_screens_is_no_spacing(tmp_path, clip):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(clip[0]).save(tmp_path / "a.png", dpi=(96, 96))
    picture = read(tmp_path / "a.png")
    assert picture.spacing_mm is None
    write(tmp_path / "b.png", clip[0], like=picture)
    assert read(tmp_path / "b.png").meta["dpi"] == pytest.approx((96, 96), abs=0.1)


def test_jpeg_gives_its_luma_plane(tmp_path, rng):
    image = pytest.importorskip("PIL.Image")
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64)
    colour = np.stack([smooth, 255 - smooth, smooth // 2], -1).astype(np.uint8)
    image.fromarray(colour).save(tmp_path / "a.jpg", quality=95)
    found = read(tmp_path / "a.jpg").frames[0].astype(int)
    assert np.abs(found - gray(colour)).max() <= 4


def test_tiff_keeps_pages_float32_and_spacing(tmp_path, clip, maps):
    image = pytest.importorskip("PIL.Image")
    pages = [image.fromarray(frame.astype(np.uint16) * 200) for frame in clip]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    picture = read(tmp_path / "a.tif")
    assert np.array_equal(picture.frames, clip.astype(np.uint16) * 200) and not picture.single
    write(tmp_path / "b.tif", maps, like=Picture(clip, "npy", (0.1, 0.3)))
    back = read(tmp_path / "b.tif")
    assert np.array_equal(back.frames, maps) and back.spacing_mm == (0.1, 0.3)


def test_tiff_with_pages_of_two_sizes_is_refused(tmp_path, clip):
    image = pytest.importorskip("PIL.Image")
    small = image.fromarray(clip[0][:5])
    image.fromarray(clip[0]).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with pytest.raises(UnreadableError, match=r"a\.tif cannot be read: its pages differ"):
        read(tmp_path / "a.tif")


def test_colour_overlays(tmp_path, rng):
    image = pytest.importorskip("PIL.Image")
    colour = rng.integers(0, 256, (2, 20, 14, 3), dtype=np.uint8)
    write(tmp_path / "a.png", colour[0])
    assert np.array_equal(np.asarray(image.open(tmp_path / "a.png")), colour[0])
    write(tmp_path / "a.tif", colour)
    assert np.array_equal(read(tmp_path / "a.tif").frames, gray(colour))
    with pytest.raises(ValueError, match=r"maps must be gray for \.npy"):
        write(tmp_path / "a.npy", colour)


# npy


@pytest.mark.parametrize("shape", [(20, 14), (3, 20, 14), (1, 20, 14), (3, 1, 20, 14)])
def test_npy_keeps_its_shape(tmp_path, rng, shape):
    array = rng.random(shape, dtype=np.float32)
    np.save(tmp_path / "a.npy", array)
    picture = read(tmp_path / "a.npy")
    assert picture.frames.shape[1:] == (20, 14) and picture.single == (len(shape) == 2)
    write(tmp_path / "b.npy", picture.frames, like=picture)
    assert np.array_equal(np.load(tmp_path / "b.npy"), array)


@pytest.mark.parametrize(
    ("stored", "taken"),
    [("bool", "uint8"), ("int8", "int16"), (">u2", "uint16"), ("int32", "float64"),
     ("uint64", "float64"), ("float16", "float16")],
)  # fmt: skip
def test_number_types_are_widened_not_cut(tmp_path, stored, taken):
    array = np.array([[0, 1], [1, 0]]).astype(stored)
    np.save(tmp_path / "a.npy", array)
    frames = read(tmp_path / "a.npy").frames
    assert frames.dtype == taken and np.array_equal(frames[0], array)


@pytest.mark.parametrize("shape", [(5,), (20, 14, 3), (2, 2, 2, 2)])
def test_npy_of_another_shape_is_refused(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape))
    with pytest.raises(UnreadableError, match="is not"):
        read(tmp_path / "a.npy")


def test_npy_never_unpickles(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(UnreadableError, match=r"a\.npy cannot be read"):
        read(tmp_path / "a.npy")


# video


def smooth_clip(count, height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([(np.sin(y / 7 + t / 3) * np.cos(x / 9) + 1) / 2 for t in range(count)])


@pytest.mark.parametrize("size", [(48, 64), (33, 47)])
def test_mp4_keeps_frames_size_rate(tmp_path, size):
    pytest.importorskip("av")
    maps = smooth_clip(6, *size).astype(np.float32)
    like = Picture(np.zeros(maps.shape, np.uint8), "video", meta={"rate": Fraction(30000, 1001)})
    write(tmp_path / "a.mp4", maps, like=like)
    back = read(tmp_path / "a.mp4")
    assert back.frames.shape == maps.shape and back.meta["rate"] == Fraction(30000, 1001)
    assert np.abs((back.frames - 16.0) / 219 - maps).max() < 0.02
    colour = (np.stack([maps] * 3, -1) * 255).astype(np.uint8)
    write(tmp_path / "b.mp4", colour, like=like)
    assert read(tmp_path / "b.mp4").frames.shape == maps.shape


def test_truncated_video_gives_the_frames_it_has(tmp_path, rng):
    av = pytest.importorskip("av")
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        # Noise, so that the frames outweigh the container's own header.
        for pixels in rng.integers(0, 256, (40, 48, 64, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    assert len(read(path).frames) == 40
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"a\.avi: truncated or damaged video, \d+ of 40 frames"):
        picture = read(path)
    assert 5 < len(picture.frames) < 40


def test_mp4_without_its_index_is_refused(tmp_path):
    pytest.importorskip("av")
    write(tmp_path / "a.mp4", smooth_clip(20, 48, 64))
    data = (tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableError, match=r"a\.mp4 cannot be read"):
        read(tmp_path / "a.mp4")


@pytest.mark.parametrize(
    ("name", "shape"),
    [("lung_lin_a.mp4", (495, 234, 234)), ("lung_a.mpeg", (280, 370, 370)),
     ("liver_sweep.h264", (140, 593, 739))],
)  # fmt: skip
def test_real_videos(data_dir, name, shape):
    pytest.importorskip("av")
    picture = read(data_dir / "clips" / name)
    assert picture.frames.shape == shape and picture.frames.dtype == np.uint8


@pytest.mark.parametrize("name", ["lung_a.mpeg", "liver_sweep.h264"])
def test_truncated_real_video(data_dir, tmp_path, name):
    pytest.importorskip("av")
    data = (data_dir / "clips" / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.warns(UserWarning, match="frames read, 1 damaged"):
        picture = read(tmp_path / name)
    assert len(picture.frames) > 50


# all kinds


@pytest.mark.parametrize(
    "name", ["a.png", "a.jpg", "a.tif", "a.dcm", "a.nii", "a.nii.gz", "a.mha", "a.mp4", "a.npy"]
)
@pytest.mark.parametrize("content", [b"", b"nothing of the kind " * 40])
def test_rubbish_is_refused_by_name(tmp_path, name, content):
    for module in ("PIL", "pydicom", "nibabel", "av"):
        pytest.importorskip(module)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableError, match=f"{name} cannot be read"):
        read(tmp_path / name)


def test_unknown_and_missing_files(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UnreadableError, match="must end in one of"):
        read(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "b.png")


def test_write_refuses(tmp_path, clip, maps):
    with pytest.raises(ValueError, match="path must end in one of"):
        write(tmp_path / "a.jpg", maps)
    with pytest.raises(ValueError, match="bits must be 8 or 16"):
        write(tmp_path / "a.npy", maps, bits=12)
    with pytest.raises(ValueError, match="shape of like"):
        write(tmp_path / "a.npy", maps[:, 1:], like=Picture(clip, "npy"))
    with pytest.raises(TypeError, match="maps must be float"):
        write(tmp_path / "a.npy", maps.astype(np.int32))
    with pytest.raises(ValueError, match="not empty"):
        write(tmp_path / "a.npy", maps[:0])
    pytest.importorskip("PIL")
    for bad in (np.nan, -0.1, 1.5):
        with pytest.raises(ValueError, match=r"maps must lie in \[0, 1\]"):
            write(tmp_path / "a.png", np.full((3, 3), bad))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file(tmp_path, maps, monkeypatch):
    write(tmp_path / "a.npy", maps)

    def interrupted(path, array, like):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("usconf.io.npy.write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.npy", maps * 0)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert np.array_equal(np.load(tmp_path / "a.npy"), maps)


def test_missing_library_says_how_to_install(tmp_path, monkeypatch):
    shutil.copy(__file__, tmp_path / "a.dcm")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ImportError, match=r'pip install "usconf\[io\]"'):
        read(tmp_path / "a.dcm")
