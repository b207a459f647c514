"""MP4, AVI, MPEG and raw H.264 through PyAV; the luma plane, never a colour conversion."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .picture import Picture, gray, levels, require

# H.264 quality of written maps. Measured on maps of 811 x 950: largest error 0.013 (mean 0.0014,
# the rounding to 8 bits alone gives 0.0023 at most); x264's own default of 23 is for films.
_CRF = "4"
_FALLBACK_RATE = Fraction(25)


def read(path: Path) -> Picture:
    """Read the luma of every whole frame as stored (limited range stays 16..235).

    Warns with the numbers when the stream ends early or frames are damaged; damaged frames are
    left out, because a decoder conceals what it lacks with pixels of other frames.
    """
    av = require("av", "PyAV (av)")
    frames: list[np.ndarray] = []
    damaged, failure = 0, None
    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("it holds no video stream")
        stream = container.streams.video[0]
        # Not "AUTO": with frame threads the mark of a damaged last frame is lost now and then.
        stream.thread_type = "SLICE"
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    damaged += 1
                else:
                    frames.append(_luma(frame))
        except (av.error.FFmpegError, EOFError) as error:
            failure = error
        expected = stream.frames
        meta = {"rate": stream.average_rate or _FALLBACK_RATE, "codec": stream.codec.name}
    if not frames:
        raise ValueError(f"no frame of it could be decoded ({failure or 'empty stream'})")
    if failure is not None or damaged or expected > len(frames):
        total = f" of {expected}" if expected else ""
        reason = f"; the decoder stopped: {failure}" if failure is not None else ""
        warnings.warn(
            f"{path}: truncated or damaged video, {len(frames)}{total} frames read, {damaged} "
            f"damaged ones left out{reason}",
            stacklevel=2,
        )
    if len({frame.shape for frame in frames}) > 1:
        raise ValueError("its frames change size on the way; cut it at the change")
    return Picture(np.stack(frames), "video", meta=meta)


def _luma(frame: Any) -> np.ndarray:
    pixels = frame.format
    if pixels.is_rgb or pixels.has_palette:
        return gray(frame.to_ndarray(format="rgb24"))
    if not pixels.is_planar and len(pixels.components) > 1 and "p0" not in pixels.name:
        # Packed YUV (yuyv422 and the like): unpacking to planes leaves the luma untouched.
        frame = frame.reformat(format="yuv422p")
        pixels = frame.format
    plane = frame.planes[0]
    bits = pixels.components[0].bits
    dtype = np.dtype("u1" if bits <= 8 else ">u2" if pixels.is_big_endian else "<u2")
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    luma = np.ascontiguousarray(rows[:, : frame.width * dtype.itemsize]).view(dtype)
    return luma[: frame.height].astype(dtype.newbyteorder("="))


def write(path: Path, array: np.ndarray, like: Picture | None) -> None:
    """Write H.264 in MP4: gray maps as luma 16 + 219 c, RGB as usual; the input's frame rate.

    Odd sizes are stored as 4:4:4, because 4:2:0 would need one row or column more.
    """
    av = require("av", "PyAV (av)")
    colour = array.dtype == np.uint8 and array.ndim >= 3 and array.shape[-1] == 3
    frames = array.reshape((-1, *array.shape[-(3 if colour else 2) :]))
    if array.dtype == np.uint16:
        raise ValueError("maps must be float or uint8 for .mp4, got uint16; divide by 65535")
    height, width = frames.shape[1:3]
    rate = _FALLBACK_RATE
    if like is not None:
        rate = like.meta.get("rate", _FALLBACK_RATE)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": _CRF})
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"
        for pixels in frames:
            frame = _coloured(av, pixels) if colour else _gray(av, pixels, stream.pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _coloured(av: Any, pixels: np.ndarray) -> Any:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def _gray(av: Any, pixels: np.ndarray, pix_fmt: str) -> Any:
    luma = np.rint(16 + levels(pixels, 8) * (219 / 255)).astype(np.uint8)
    chroma_rows = luma.shape[0] * 2 if pix_fmt == "yuv444p" else luma.shape[0] // 2
    planes = np.concatenate([luma, np.full((chroma_rows, luma.shape[1]), 128, np.uint8)])
    if pix_fmt == "yuv444p":
        planes = planes.reshape(3, *luma.shape)
    return av.VideoFrame.from_ndarray(planes, format=pix_fmt)
