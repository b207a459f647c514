"""Learned confidence maps: the public function and its one door."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from . import arrays, seeds
from .random_walk import check_choices
from .weights.storage import check_grid, read

if TYPE_CHECKING:
    from torch import Tensor

    from .nn import ConfidenceUNet

CHOICES: dict[str, tuple[Any, ...]] = {"nan": ("raise", "mask")}

# Pixels that go through the network at once, 16 times as many on a GPU: enough for every thread,
# and little memory (about 100 bytes of features for each).
_AT_ONCE = 2**19


def learned(
    image: Any,
    *,
    weights: str | os.PathLike[str] = "default",
    size: str | tuple[int, int] | None = "weights",
    mask: Any = None,
    nan: str = "raise",
    axes: str | None = None,
    dtype: Any = None,
) -> Any:
    """Confidence map by a network that was trained from strokes through a physical prior.

    Parameters
    ----------
    image : numpy.ndarray, torch.Tensor or cupy.ndarray
        Frames (H, W), (1, H, W) or (B, 1, H, W), rows = depth, columns = scanlines, transducer at
        row 0; other layouts through `axes`. uint8, uint16, int16, float16, float32, float64
        (torch: bfloat16 too). Any strides; never written to. Each frame is scaled by itself.
    weights : "default" or path-like, optional
        "default": those that usconf comes with, trained on synthetic images; see the model card
        in the documentation. A path: a file of ``usconf train``.
    size : "weights", None or (rows, columns), optional
        The grid that the network works on. "weights" (default): of each axis that is longer than
        in training, the length there. None: the image's own. A pair: that one. The image is
        resampled to the grid (bilinear, antialiased), the map back (bilinear).
    mask : array, optional
        Nonzero = valid pixel, (H, W) or the image's shape. The map is 0 outside; such pixels count
        in no scaling, look neither dark nor bright and cost no confidence to those below.
    nan : {"raise", "mask"}
        What to do with NaN and infinite valid pixels: refuse them, or leave them out like `mask`.
    axes : str, optional
        A letter for each axis: h depth, w scanlines, t time, b batch, c channel (of length 1);
        e.g. "thw" for a clip, whose frames are mapped one by one.
    dtype : float32 or float64, optional
        The map's, and that of all arithmetic. Default: float64 for float64 pixels, else float32.

    Returns
    -------
    same kind of array
        The map, in [0, 1], of the image's library, device and shape. Torch gradients flow to the
        image, not to the weights.

    Raises
    ------
    TypeError
        If an argument is of another type; complex images, unsupported dtypes.
    ValueError
        If a shape is ambiguous, a word or size is none, the weights are damaged, of another kind
        or version, or NaN or Inf met with nan="raise".
    FileNotFoundError
        If the weights are not there.
    ImportError
        If torch or safetensors is not installed; names the extra that brings them.

    Warns
    -----
    UserWarning
        If the picture is a fan, or its first row is black (no mask): the first row is then not the
        transducer. `usconf.confidence` with ``geometry=`` sees to both.

    Notes
    -----
    After Ronchetti et al., 'Beyond Shadows': a small U-Net (`usconf.nn.ConfidenceUNet`), trained
    with the negative log-likelihood of their annotation model (`usconf.nn.PGMLoss`). What the map
    means is what the strokes meant that it learned from. On the CPU it takes as many threads as
    torch may (``torch.set_num_threads``), for NumPy arrays too.

    Examples
    --------
    >>> import numpy as np, torch, usconf.nn
    >>> untrained = usconf.nn.ConfidenceUNet(width=8)
    >>> usconf.weights.save("untrained.safetensors", untrained, {"grid": [128, 128]})
    >>> clip = np.random.default_rng(0).integers(1, 256, (3, 200, 90), dtype=np.uint8)
    >>> map = usconf.learned(clip, weights="untrained.safetensors", axes="thw")
    >>> map.shape, map.dtype.name, bool((np.diff(map, axis=1) <= 1e-6).all())
    ((3, 200, 90), 'float32', True)
    """
    check_choices(CHOICES, nan=nan)
    given = None if size is None or _is_word(size) else check_grid("size", size)
    arrays.check_pixels(image)
    layout = arrays.layout(tuple(image.shape), axes)
    frames = layout.frames(image)
    mask = None if mask is None else layout.companion(mask, image, "mask")
    dtype = arrays.result_dtype(frames, dtype)
    network, metadata = read(weights, device=_device(frames), dtype=dtype)
    own = tuple(frames.shape[1:])
    trained = metadata.get("grid") or own
    if size is None:
        grid = own
    else:
        grid = given or (min(own[0], trained[0]), min(own[1], trained[1]))
    valid = seeds.admitted(frames, mask, nan)
    working = "float64" if "float64" in (dtype, arrays.dtype_name(frames)) else "float32"
    pixels = arrays.cast(frames, working)
    if valid is not None:
        # Before any arithmetic: NaN times 0 is NaN.
        pixels = arrays.namespace(pixels).where(valid, pixels, 0)
    maps = _mapped(network, _tensor(pixels), None if valid is None else _tensor(valid), grid)
    found = arrays.cast(_like(maps, image), dtype)
    if valid is not None:
        found = arrays.namespace(found).where(valid, found, 0)
    return layout.restore(found)


def set_num_threads(threads: int) -> None:
    """What torch may take on the CPU from now on: `usconf.set_num_threads` does not reach it."""
    import torch

    torch.set_num_threads(threads)


def _mapped(
    network: ConfidenceUNet, frames: Tensor, valid: Tensor | None, grid: tuple[int, int]
) -> Tensor:
    """Maps (frames, H, W), some frames at a time; with gradients only where the frames want any."""
    import torch

    count = max(1, _AT_ONCE * (16 if frames.is_cuda else 1) // (grid[0] * grid[1]))
    found = []
    with torch.set_grad_enabled(torch.is_grad_enabled() and frames.requires_grad):
        for first in range(0, len(frames), count):
            part = slice(first, first + count)
            inside = valid if valid is None or len(valid) == 1 else valid[part]
            inside = None if inside is None else inside[:, None]
            found.append(_maps(network, frames[part, None], inside, grid)[:, 0])
    return torch.cat(found) if found else frames


def _maps(
    network: ConfidenceUNet, frames: Tensor, valid: Tensor | None, grid: tuple[int, int]
) -> Tensor:
    size = tuple(frames.shape[-2:])
    if size == grid:
        return network(frames, valid).sigmoid()
    if valid is None:
        maps = network(_resampled(frames, grid), None).sigmoid()
    else:
        # Pixels that are not valid hold 0 and weigh nothing in the mean of those that are.
        weight = _resampled(valid.to(frames.dtype), grid)
        known = weight > 0.5
        frames = _resampled(frames, grid) / weight.where(known, 1)
        maps = network(frames.where(known, 0), known).sigmoid()
    return _resampled(maps, size).clamp(0, 1)  # means of values in [0, 1], but for their rounding


def _resampled(frames: Tensor, size: tuple[int, ...]) -> Tensor:
    """Bilinear; antialiased on an axis that gets shorter."""
    from torch.nn.functional import interpolate

    return interpolate(frames, size=tuple(size), mode="bilinear", antialias=True)


def _is_word(size: Any) -> bool:
    if isinstance(size, str) and size != "weights":
        raise ValueError(
            f'size must be "weights", None or (rows, columns), got {size!r}; None works at the '
            "image's own resolution"
        )
    return isinstance(size, str)


def _device(image: Any) -> Any:
    """Where torch works on the image."""
    if arrays.kind(image) == "numpy":
        return "cpu"
    return image.device if arrays.kind(image) == "torch" else f"cuda:{image.device.id}"


def _tensor(array: Any) -> Tensor:
    """The array as a tensor, of the same memory where it may be."""
    import torch

    if arrays.kind(array) == "numpy" and not array.flags.writeable:
        array = array.copy()  # torch warns of read-only memory
    if arrays.kind(array) != "torch":
        array = arrays.namespace(array).ascontiguousarray(array)  # torch knows no steps backwards
    return torch.as_tensor(array)


def _like(maps: Tensor, image: Any) -> Any:
    """The maps in the library of the image."""
    if arrays.kind(image) == "torch":
        return maps
    return maps.numpy() if arrays.kind(image) == "numpy" else arrays.namespace(image).asarray(maps)
