"""The DICOM object a map is stored in: derived, secondary-capture-like, 16 bits."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .picture import Picture, levels, require

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MULTI_FRAME_WORD_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7.3"
_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

# What makes the map appear under the same patient and study as its source.
_INHERITED = (
    "SpecificCharacterSet",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyDescription",
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "StudyID",
    "PatientOrientation",
    "Laterality",
    "FrameTime",
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
# Type 2 attributes: must be there, may be empty.
_EMPTY = ("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "PatientName",
          "PatientID", "PatientBirthDate", "PatientSex", "StudyID")  # fmt: skip


def write(path: Path, array: np.ndarray, like: Picture | None) -> None:
    """Write a map as 16-bit pixels whose rescale slope 1/65535 gives the confidence back.

    Image Type is DERIVED, SECONDARY; series and SOP instance UIDs are new; patient and study come
    from a DICOM input. Multi-frame objects follow Multi-frame Grayscale Word Secondary Capture
    except for the slope, which that class wants to be 1.
    """
    pydicom = require("pydicom", "pydicom")
    source = like.meta["dataset"] if like is not None and like.kind == "dicom" else None
    frames = levels(array, 16).reshape((-1, *array.shape[-2:]))
    dataset = pydicom.Dataset()
    for name in _EMPTY:
        setattr(dataset, name, "")
    if source is not None:
        for name in _INHERITED:
            if name in source:
                dataset[name] = source[name]
    _identity(pydicom, dataset, source, single=len(frames) == 1)
    _pixels(dataset, frames, scaled=array.dtype.kind == "f")
    if len(frames) > 1:
        dataset.NumberOfFrames = len(frames)
        if "FrameTime" in dataset:
            dataset.FrameIncrementPointer = pydicom.tag.Tag("FrameTime")
    elif "FrameTime" in dataset:
        del dataset.FrameTime
    if like is not None and like.spacing_mm is not None:
        # 10 significant digits: DS holds 16 characters at most.
        dataset.PixelSpacing = [f"{mm:.10g}" for mm in like.spacing_mm]
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = _EXPLICIT_VR_LITTLE_ENDIAN
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)


def _identity(pydicom: Any, dataset: Any, source: Any, single: bool) -> None:
    now = datetime.now()
    uid = pydicom.uid.generate_uid
    dataset.SOPClassUID = _SECONDARY_CAPTURE if single else _MULTI_FRAME_WORD_SECONDARY_CAPTURE
    dataset.SOPInstanceUID = uid(prefix=None)
    dataset.SeriesInstanceUID = uid(prefix=None)
    if "StudyInstanceUID" not in dataset:
        dataset.StudyInstanceUID = uid(prefix=None)
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.Modality = "US"
    dataset.ConversionType = "WSD"
    dataset.SeriesNumber = None
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = "Confidence map (usconf)"
    dataset.DerivationDescription = "Confidence map of the referenced image, 0 to 1, by usconf"
    dataset.ContentDate = now.strftime("%Y%m%d")
    dataset.ContentTime = now.strftime("%H%M%S")
    # Text of the screen leaves its outline in a map, so nobody may take the map for free of it.
    dataset.BurnedInAnnotation = "YES"
    if source is not None:
        dataset.BurnedInAnnotation = source.get("BurnedInAnnotation") or "YES"
        if "SOPInstanceUID" in source and "SOPClassUID" in source:
            reference = pydicom.Dataset()
            reference.ReferencedSOPClassUID = source.SOPClassUID
            reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
            dataset.SourceImageSequence = [reference]


def _pixels(dataset: Any, frames: np.ndarray, scaled: bool) -> None:
    bits = 8 * frames.dtype.itemsize
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = frames.shape[1:]
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    if scaled:
        # DS holds 16 characters: 11 significant digits. 65535 * slope is 1 within 5e-11, so the
        # reader's float32 has 0 and 1 exactly.
        dataset.RescaleSlope = f"{1 / 65535:.10e}"
        dataset.RescaleIntercept = "0"
        dataset.RescaleType = "US"
    data = frames.astype("<u2" if bits == 16 else "u1").tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
