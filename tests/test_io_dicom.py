"""DICOM: luma, spacing and regions read with care, maps written as derived objects."""

from __future__ import annotations

import warnings
from io import BytesIO

import numpy as np
import pytest
from usconf.io import UnreadableError, gray, read, write


@pytest.fixture
def clip(rng):
    return rng.integers(0, 256, (3, 20, 14), dtype=np.uint8)


@pytest.fixture
def maps(rng):
    return rng.random((3, 20, 14), dtype=np.float32)


def dicom_file(path, pixels, photometric="MONOCHROME2", frames=1, **attributes):
    pydicom = pytest.importorskip("pydicom")
    dataset = pydicom.Dataset()
    dataset.SOPClassUID = pydicom.uid.UltrasoundMultiFrameImageStorage
    dataset.SOPInstanceUID = pydicom.uid.generate_uid()
    dataset.StudyInstanceUID = pydicom.uid.generate_uid()
    dataset.PatientName, dataset.PatientID = "Phantom^A", "P1"
    colour = pixels.shape[-1] == 3
    dataset.Rows, dataset.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    if frames > 1:
        dataset.NumberOfFrames, dataset.FrameTime = frames, 40
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def region(x0, y0, x1, y1, delta_cm=0.02):
    pydicom = pytest.importorskip("pydicom")
    item = pydicom.Dataset()
    item.RegionSpatialFormat = item.RegionDataType = 1
    item.RegionLocationMinX0, item.RegionLocationMinY0 = x0, y0
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = x1, y1
    item.PhysicalUnitsXDirection = item.PhysicalUnitsYDirection = 3
    item.PhysicalDeltaX, item.PhysicalDeltaY = delta_cm, 2 * delta_cm
    return item


def test_dicom_photometric_interpretations(tmp_path, rng, clip):
    path = tmp_path / "a.dcm"
    dicom_file(path, clip[0])
    assert np.array_equal(read(path).frames[0], clip[0])
    dicom_file(path, clip[0], "MONOCHROME1")
    assert np.array_equal(read(path).frames[0], 255 - clip[0])
    colour = rng.integers(0, 256, (20, 14, 3), dtype=np.uint8)
    dicom_file(path, colour, "RGB")
    assert np.array_equal(read(path).frames[0], gray(colour))
    dicom_file(path, colour, "YBR_FULL")
    assert np.array_equal(read(path).frames[0], colour[..., 0])
    wide = clip[0].astype(np.uint16) * 200
    dicom_file(path, wide, RescaleSlope=0.5, RescaleIntercept=-3)
    assert np.array_equal(read(path).frames[0], wide * 0.5 - 3)


def test_dicom_jpeg_2000_whose_decoder_returns_rgb(tmp_path, rng):
    pydicom = pytest.importorskip("pydicom")
    image = pytest.importorskip("PIL.Image")
    colour = rng.integers(0, 256, (20, 14, 3), dtype=np.uint8)
    stream = BytesIO()
    image.fromarray(colour).save(stream, "JPEG2000", mct=1, no_jp2=True)
    dataset = dicom_file(tmp_path / "a.dcm", colour, "YBR_RCT")
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEG2000Lossless
    dataset.PixelData = pydicom.encaps.encapsulate([stream.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    # Its first channel is red then, no luma.
    assert np.array_equal(read(tmp_path / "a.dcm").frames[0], gray(colour))


def test_dicom_palette_is_looked_up(tmp_path):
    pixels = np.array([[0, 1], [2, 3]], np.uint8)
    ramp = np.array([60000, 40000, 20000, 0], np.uint16)
    tables = {}
    for colour in ("Red", "Green", "Blue"):
        tables[f"{colour}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        tables[f"{colour}PaletteColorLookupTableData"] = ramp.tobytes()
    dicom_file(tmp_path / "a.dcm", pixels, "PALETTE COLOR", **tables)
    assert np.array_equal(read(tmp_path / "a.dcm").frames[0], ramp[pixels])


def test_dicom_without_suffix_is_found_by_its_content(tmp_path, clip):
    dicom_file(tmp_path / "IM_0001", clip[0])
    assert read(tmp_path / "IM_0001").kind == "dicom"


def test_dicom_spacing_and_regions(tmp_path, clip):
    path = tmp_path / "a.dcm"
    dicom_file(path, clip[0], SequenceOfUltrasoundRegions=[region(1, 2, 13, 19)])
    picture = read(path)
    assert picture.spacing_mm == pytest.approx((0.4, 0.2))
    assert picture.meta["regions"][0][:4] == (1, 2, 13, 19)
    # The far end counted one too far, as some makers do, is clipped in silence.
    dicom_file(path, clip[0], SequenceOfUltrasoundRegions=[region(0, 0, 14, 20)])
    assert read(path).meta["regions"][0][:4] == (0, 0, 13, 19)
    dicom_file(path, clip[0], PixelSpacing=[0.3, 0.25])
    assert read(path).spacing_mm == (0.3, 0.25)
    dicom_file(path, clip[0], PixelSpacing=[0, 0.25])
    assert read(path).spacing_mm is None


def test_dicom_region_beyond_the_matrix(tmp_path, clip):
    path = tmp_path / "a.dcm"
    regions = [region(4, 2, 600, 400), region(100, 100, 200, 200)]
    dicom_file(path, clip[0], SequenceOfUltrasoundRegions=regions, PixelSpacing=[0.3, 0.3])
    with pytest.warns(UserWarning, match="exceeds the 14 x 20 matrix") as caught:
        picture = read(path)
    assert len(caught) == 2 and "left out" in str(caught[1].message)
    assert [tuple(found[:4]) for found in picture.meta["regions"]] == [(4, 2, 13, 19)]
    assert picture.spacing_mm == (0.3, 0.3)


def test_dicom_output_is_a_derived_object(tmp_path, clip, maps):
    pydicom = pytest.importorskip("pydicom")
    source = dicom_file(
        tmp_path / "a.dcm", clip, frames=3,
        SequenceOfUltrasoundRegions=[region(0, 0, 13, 19)],
    )  # fmt: skip
    maps[0, 0, :2] = 0, 1
    picture = read(tmp_path / "a.dcm")
    assert np.array_equal(picture.frames, clip) and not picture.single
    write(tmp_path / "b.dcm", maps, like=picture)
    made = pydicom.dcmread(tmp_path / "b.dcm")
    assert list(made.ImageType) == ["DERIVED", "SECONDARY"]
    assert made.SOPInstanceUID not in (source.SOPInstanceUID, made.SeriesInstanceUID)
    assert made.StudyInstanceUID == source.StudyInstanceUID and made.PatientID == "P1"
    reference = made.SourceImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert made.BitsStored == 16 and made.NumberOfFrames == 3 and made.FrameTime == 40
    assert float(made.RescaleSlope) == pytest.approx(1 / 65535, rel=1e-9)
    back = read(tmp_path / "b.dcm")
    assert np.abs(back.frames - maps).max() <= 0.5001 / 65535
    assert back.frames[0, 0, :2].tolist() == [0, 1] and back.spacing_mm == picture.spacing_mm
    write(tmp_path / "c.dcm", maps, like=picture)
    assert pydicom.dcmread(tmp_path / "c.dcm").SOPInstanceUID != made.SOPInstanceUID


def test_dicom_output_from_another_kind(tmp_path, maps):
    pytest.importorskip("pydicom")
    write(tmp_path / "a.dcm", maps[0])
    back = read(tmp_path / "a.dcm")
    assert back.single and np.abs(back.frames[0] - maps[0]).max() <= 0.5001 / 65535


@pytest.mark.parametrize("name", ["examples_palette.dcm", "examples_ybr_color.dcm"])
def test_real_dicom_whose_regions_exceed_the_matrix(data_dir, name):
    pydicom = pytest.importorskip("pydicom")
    with pytest.warns(UserWarning, match="exceeds the .* matrix"):
        picture = read(data_dir / "dicom" / name)
    assert picture.spacing_mm is None
    height, width = picture.frames.shape[1:]
    for found in picture.meta["regions"]:
        assert 0 <= found.x0 <= found.x1 < width and 0 <= found.y0 <= found.y1 < height
    if name == "examples_ybr_color.dcm":
        assert picture.frames.shape == (30, 240, 320)
        raw = pydicom.pixels.pixel_array(data_dir / "dicom" / name, raw=True)
        assert np.array_equal(picture.frames, raw[..., 0])


def test_damaged_dicom_is_refused(tmp_path, clip):
    dicom_file(tmp_path / "a.dcm", clip[0])
    data = (tmp_path / "a.dcm").read_bytes()
    (tmp_path / "a.dcm").write_bytes(data[:-100])
    with pytest.raises(UnreadableError, match=r"a\.dcm cannot be read"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(tmp_path / "a.dcm")
