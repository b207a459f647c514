"""MetaImage (.mha, .mhd) and the sequence files of PLUS (.igs.mha), in NumPy alone.

Header fields are kept as text in their order, so per-frame ``Seq_FrameNNNN_*`` transforms, their
status and the time stamps come back exactly as they were.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .picture import Picture, gray, supported

# Element types and their sizes on disk after MetaIO's MET_ValueTypeSize; MET_LONG is 4 bytes there.
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG": "i4",
    "MET_ULONG": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_WRITTEN = {"uint8": "MET_UCHAR", "uint16": "MET_USHORT", "int16": "MET_SHORT",
            "float32": "MET_FLOAT", "float64": "MET_DOUBLE"}  # fmt: skip

# Fields that describe the pixels of the input and would be wrong beside those of a map.
_REWRITTEN = {"ElementType", "ElementNumberOfChannels", "CompressedDataSize", "ElementMin",
              "ElementMax", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "HeaderSize",
              "ElementDataFile", "UltrasoundImageType"}  # fmt: skip

# A header is text of a few hundred kB at most (PLUS writes about 1 kB a frame); a file without
# its last field would otherwise be read to the end as one.
_MAX_HEADER_LINES = 4_000_000


def read(path: Path) -> Picture:
    """Read frames with the transducer on top, whatever ``UltrasoundImageOrientation`` says.

    The first axis of the file is taken as the columns, the second as the rows, further ones count
    frames. PLUS orientations whose first letter is F or N (depth first) are transposed, those
    with depth running towards the probe (N) are turned upside down; left and right stay as stored.
    """
    fields, offset = _header(path)
    header = dict(fields)
    dims = tuple(int(word) for word in _field(header, "DimSize").split())
    if len(dims) < 2 or min(dims) < 1:
        raise ValueError(f"DimSize is {dims}, not two or more positive lengths")
    channels = int(header.get("ElementNumberOfChannels", 1))
    stored = _elements(path, header, offset, int(np.prod(dims, dtype=np.int64)) * channels)
    shape = tuple(reversed(dims))
    if channels in (3, 4):
        stored = gray(stored.reshape((*shape, channels)))
    elif channels != 1:
        raise ValueError(f"it has {channels} channels, neither gray (1) nor colour (3, 4)")
    frames = stored.reshape((-1, *shape[-2:]))
    orientation = header.get("UltrasoundImageOrientation", "MFA")
    meta = {"fields": fields, "dims": dims, "orientation": orientation}
    single = all(length == 1 for length in dims[2:])
    frames = supported(_turned(frames, orientation))
    return Picture(frames, "metaimage", _spacing(header, orientation), single, meta)


def write(path: Path, array: np.ndarray, like: Picture | None) -> None:
    """Write one .mha file; header fields of a MetaImage input are kept, in their order."""
    if array.dtype.name not in _WRITTEN:
        array = array.astype(np.float32)
    if like is not None and like.kind == "metaimage":
        fields, dims = like.meta["fields"], like.meta["dims"]
        frames = array.reshape((-1, *array.shape[-2:]))
        stored = _turned_back(frames, like.meta["orientation"])
    else:
        fields, dims, stored = _new_fields(array, like), array.shape[::-1], array
    compressed = dict(fields).get("CompressedData", "True").strip().lower() in ("true", "1")
    pixels = np.ascontiguousarray(stored).astype(stored.dtype.newbyteorder("<")).tobytes()
    data = zlib.compress(pixels, 6) if compressed else pixels
    kept = [(key, value) for key, value in fields if key not in _REWRITTEN]
    lines = [f"{key} = {value}" for key, value in kept if key != "DimSize"]
    # ObjectType and NDims must precede DimSize; whatever follows NDims is free to move.
    place = 1 + next(i for i, line in enumerate(lines) if line.startswith("NDims"))
    inserted = ["DimSize = " + " ".join(str(length) for length in dims),
                f"ElementType = {_WRITTEN[array.dtype.name]}",
                "BinaryDataByteOrderMSB = False"]  # fmt: skip
    if compressed:
        inserted.append(f"CompressedDataSize = {len(data)}")
    lines[place:place] = inserted
    lines.append("ElementDataFile = LOCAL")
    with open(path, "wb") as file:
        file.write(("\n".join(lines) + "\n").encode("latin-1"))
        file.write(data)


def _header(path: Path) -> tuple[tuple[tuple[str, str], ...], int]:
    fields = []
    with open(path, "rb") as file:
        for _ in range(_MAX_HEADER_LINES):
            line = file.readline(1 << 16)
            key, equals, value = line.decode("latin-1").partition("=")
            if not equals:
                if line and not line.strip():
                    continue
                raise ValueError("its header ends before ElementDataFile")
            fields.append((key.strip(), value.strip()))
            if fields[-1][0] == "ElementDataFile":
                return tuple(fields), file.tell()
    raise ValueError("its header has no ElementDataFile")


def _field(header: dict[str, str], name: str) -> str:
    if name not in header:
        raise ValueError(f"its header has no {name}")
    return header[name]


def _elements(path: Path, header: dict[str, str], offset: int, count: int) -> np.ndarray:
    if header.get("BinaryData", "True").lower() not in ("true", "1"):
        raise ValueError("BinaryData = False (numbers as text) is not supported; save it as binary")
    name = _field(header, "ElementType")
    if name not in _TYPES:
        raise ValueError(f"ElementType = {name} is not supported, only {', '.join(_TYPES)}")
    msb = header.get("BinaryDataByteOrderMSB", header.get("ElementByteOrderMSB", "False"))
    dtype = np.dtype(_TYPES[name]).newbyteorder(">" if msb.lower() in ("true", "1") else "<")
    size = count * dtype.itemsize
    data = _bytes(path, header, offset, size)
    if len(data) < size:
        raise ValueError(f"it is cut off: {len(data)} of {size} bytes of pixels are there")
    return np.frombuffer(data, dtype, count)


def _bytes(path: Path, header: dict[str, str], offset: int, size: int) -> bytes:
    source, name = path, header["ElementDataFile"]
    if name.upper() != "LOCAL":
        if name.upper().startswith("LIST") or "%" in name:
            raise ValueError(f"ElementDataFile = {name} (one file a slice) is not supported")
        # The name only: a header must not reach for files outside its own folder.
        source, offset = path.parent / Path(name.replace("\\", "/")).name, 0
    compressed = header.get("CompressedData", "False").lower() in ("true", "1")
    skip = int(header.get("HeaderSize", 0))
    with open(source, "rb") as file:
        if skip == -1:
            file.seek(-size, 2)
        else:
            file.seek(offset + skip)
        if not compressed:
            return file.read(size)
        # max_length guards against a small file that unpacks to much more than DimSize says.
        return zlib.decompressobj().decompress(file.read(), size)


def _turned(frames: np.ndarray, orientation: str) -> np.ndarray:
    if orientation[:1].upper() in ("F", "N"):
        frames = frames.swapaxes(-1, -2)
    return frames[..., ::-1, :] if "N" in orientation.upper()[:2] else frames


def _turned_back(frames: np.ndarray, orientation: str) -> np.ndarray:
    frames = frames[..., ::-1, :] if "N" in orientation.upper()[:2] else frames
    return frames.swapaxes(-1, -2) if orientation[:1].upper() in ("F", "N") else frames


def _spacing(header: dict[str, str], orientation: str) -> tuple[float, float] | None:
    text = header.get("ElementSpacing") or header.get("ElementSize")
    if text is None:
        return None
    x, y = (float(word) for word in text.split()[:2])
    # PLUS writes 1 1 1 when the scale sits in its ImageToProbe calibration instead.
    plus = any(key.startswith("Seq_Frame") for key in header)
    if not (x > 0 and y > 0) or (plus and x == y == 1.0):
        return None
    return (x, y) if orientation[:1].upper() in ("F", "N") else (y, x)


def _new_fields(array: np.ndarray, like: Picture | None) -> list[tuple[str, Any]]:
    count = array.ndim
    spacing = (like.spacing_mm if like is not None else None) or (1.0, 1.0)
    numbers = [repr(float(spacing[1])), repr(float(spacing[0])), *["1"] * (count - 2)]
    identity = " ".join("1" if i % (count + 1) == 0 else "0" for i in range(count * count))
    zeros = " ".join(["0"] * count)
    return [
        ("ObjectType", "Image"),
        ("NDims", str(count)),
        ("BinaryData", "True"),
        ("CompressedData", "True"),
        ("TransformMatrix", identity),
        ("Offset", zeros),
        ("CenterOfRotation", zeros),
        ("ElementSpacing", " ".join(numbers)),
    ]
