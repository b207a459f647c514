"""NIfTI and MetaImage: headers, transforms and spacing come back as they went in."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from usconf.io import Picture, UnreadableError, gray, read, write


@pytest.fixture
def clip(rng):
    return rng.integers(0, 256, (3, 20, 14), dtype=np.uint8)


@pytest.fixture
def maps(rng):
    return rng.random((3, 20, 14), dtype=np.float32)


# NIfTI


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("shape", [(14, 20), (14, 20, 3), (14, 20, 1, 3)])
def test_nifti_keeps_shape_affine_units(tmp_path, rng, suffix, shape):
    nibabel = pytest.importorskip("nibabel")
    data = rng.integers(0, 4000, shape, dtype=np.int16)
    affine = np.array([[0, 0.2, 0, 5], [0.1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(data, affine)
    image.header.set_zooms((0.1, 0.2, 1.0, 0.04)[: len(shape)])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"probe L12"
    nibabel.save(image, tmp_path / f"a{suffix}")
    picture = read(tmp_path / f"a{suffix}")
    assert picture.spacing_mm == pytest.approx((0.2, 0.1))
    assert picture.single == (len(shape) == 2) and picture.frames.dtype == np.int16
    assert np.array_equal(picture.frames[-1], data.reshape(14, 20, -1)[..., -1].T)
    maps = rng.random(picture.frames.shape, dtype=np.float32)
    write(tmp_path / f"b{suffix}", maps, like=picture)
    back = nibabel.load(tmp_path / f"b{suffix}")
    assert back.shape == shape and back.get_data_dtype() == np.float32
    np.testing.assert_array_equal(back.affine, nibabel.load(tmp_path / f"a{suffix}").affine)
    assert bytes(back.header["descrip"]).startswith(b"probe L12")
    np.testing.assert_array_equal(read(tmp_path / f"b{suffix}").frames, maps)


def test_nifti_from_another_kind_takes_the_spacing(tmp_path, clip, maps):
    pytest.importorskip("nibabel")
    write(tmp_path / "a.nii.gz", maps, like=Picture(clip, "npy", (0.1, 0.3)))
    back = read(tmp_path / "a.nii.gz")
    assert back.spacing_mm == pytest.approx((0.1, 0.3))
    np.testing.assert_array_equal(back.frames, maps)


# MetaImage

HEADER = """ObjectType = Image
NDims = 3
AnatomicalOrientation = RAI
BinaryData = True
BinaryDataByteOrderMSB = False
CenterOfRotation = 0 0 0
CompressedData = {compressed}
DimSize = {dims}
Kinds = domain domain list
ElementSpacing = 0.1 0.2 1
ElementType = MET_UCHAR
Offset = 0 0 0
UltrasoundImageOrientation = {orientation}
UltrasoundImageType = BRIGHTNESS
{frames}ElementDataFile = LOCAL
"""


def plus_file(path, stored, orientation="MFA", compressed=False):
    frames = "".join(
        f"Seq_Frame{i:04}_ProbeToTrackerTransform = 1 0 0 {i}.5 0 1 0 2 0 0 1 3 0 0 0 1\n"
        f"Seq_Frame{i:04}_ProbeToTrackerTransformStatus = {'OK' if i != 1 else 'INVALID'}\n"
        f"Seq_Frame{i:04}_Timestamp = 12.{i}\n"
        for i in range(len(stored))
    )
    dims = " ".join(str(length) for length in reversed(stored.shape)) + "          "
    data = zlib.compress(stored.tobytes()) if compressed else stored.tobytes()
    header = HEADER.format(compressed=compressed, dims=dims, orientation=orientation, frames=frames)
    path.write_bytes(header.encode() + data)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("orientation", "turn"),
    [("MFA", lambda f: f), ("UFA", lambda f: f), ("MNA", lambda f: f[:, ::-1]),
     ("FM", lambda f: f.swapaxes(1, 2)), ("NM", lambda f: f.swapaxes(1, 2)[:, ::-1])],
)  # fmt: skip
def test_metaimage_keeps_every_field(tmp_path, clip, rng, orientation, turn, compressed):
    plus_file(tmp_path / "a.igs.mha", clip, orientation, compressed)
    picture = read(tmp_path / "a.igs.mha")
    assert np.array_equal(picture.frames, turn(clip))
    assert picture.spacing_mm == ((0.1, 0.2) if orientation[0] in "FN" else (0.2, 0.1))
    maps = rng.random(picture.frames.shape, dtype=np.float32)
    write(tmp_path / "b.igs.mha", maps, like=picture)
    back = read(tmp_path / "b.igs.mha")
    assert np.array_equal(back.frames, maps) and back.spacing_mm == picture.spacing_mm
    before, after = dict(picture.meta["fields"]), dict(back.meta["fields"])
    changed = {"ElementType", "CompressedDataSize", "UltrasoundImageType"}
    for key in before.keys() - changed:
        assert after[key] == before[key].strip(), key
    assert after["ElementType"] == "MET_FLOAT"
    assert after["Seq_Frame0001_ProbeToTrackerTransformStatus"] == "INVALID"


def test_mhd_with_its_data_beside(tmp_path, clip):
    header = HEADER.format(compressed=False, dims="14 20 3", orientation="MFA", frames="")
    (tmp_path / "a.mhd").write_text(header.replace("= LOCAL", "= a.raw"))
    (tmp_path / "a.raw").write_bytes(clip.tobytes())
    assert np.array_equal(read(tmp_path / "a.mhd").frames, clip)


def test_mha_big_endian_colour(tmp_path, rng):
    colour = rng.integers(0, 60000, (4, 5, 3), dtype=np.uint16)
    head = (
        "ObjectType = Image\nNDims = 2\nBinaryDataByteOrderMSB = True\nDimSize = 5 4\n"
        "ElementNumberOfChannels = 3\nElementType = MET_USHORT\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "a.mha").write_bytes(head.encode() + colour.astype(">u2").tobytes())
    picture = read(tmp_path / "a.mha")
    assert np.array_equal(picture.frames[0], gray(colour)) and picture.single
    assert picture.spacing_mm is None


@pytest.mark.parametrize(
    ("change", "match"),
    [(lambda b: b[:-30], "cut off: 810 of 840 bytes"),
     (lambda b: b.replace(b"MET_UCHAR", b"MET_OTHER"), "MET_OTHER is not supported"),
     (lambda b: b.replace(b"BinaryData = True", b"BinaryData = False"), "BinaryData = False"),
     (lambda b: b.replace(b"DimSize = 14", b"DimSize = -1"), "DimSize"),
     (lambda b: b.replace(b"LOCAL", b"LIST"), "LIST"),
     (lambda b: b[:200], "header"),
     (lambda b: b"\0" * 1000, "header")],
)  # fmt: skip
def test_damaged_metaimage_is_refused(tmp_path, clip, change, match):
    plus_file(tmp_path / "a.mha", clip)
    (tmp_path / "a.mha").write_bytes(change((tmp_path / "a.mha").read_bytes()))
    with pytest.raises(UnreadableError, match=match):
        read(tmp_path / "a.mha")


@pytest.mark.parametrize("shape", [(20, 14), (3, 20, 14)])
def test_new_mha_takes_the_spacing(tmp_path, rng, shape):
    maps = rng.random(shape)
    like = Picture(np.zeros((1, *shape)[-3:]), "npy", (0.1, 0.3), single=len(shape) == 2)
    write(tmp_path / "a.mha", maps, like=like)
    back = read(tmp_path / "a.mha")
    assert np.array_equal(back.frames.reshape(shape), maps) and back.frames.dtype == np.float64
    assert back.spacing_mm == (0.1, 0.3) and back.single == like.single


def test_real_plus_sequences(data_dir, tmp_path):
    for path in sorted((data_dir / "tracked").glob("*.mha")):
        picture = read(path)
        if "Brightness" in path.name:
            # 96 scanlines of 3640 samples, stored depth first (FM).
            assert picture.frames.shape == (5, 3640, 96)
        else:
            assert picture.frames.shape[1:] == (616, 820)
        write(tmp_path / path.name, picture.frames, like=picture)
        back = read(tmp_path / path.name)
        assert np.array_equal(back.frames, picture.frames)
        before = [f for f in picture.meta["fields"] if f[0].startswith("Seq_")]
        assert before and before == [f for f in back.meta["fields"] if f[0].startswith("Seq_")]
