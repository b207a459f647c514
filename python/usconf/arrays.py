"""NumPy, CuPy, torch: the only file that tells them apart, and the grammar of shapes and dtypes.

An array is recognised without importing anything: a library that was not imported yet cannot have
made it. Results are made by the library, on the device and in the shape of the argument.
"""

from __future__ import annotations

import sys
from math import prod
from typing import Any, NamedTuple

import numpy as np

from . import _core

# dtype name -> the core's scalar number (csrc/kernels.h)
SCALARS = {"uint8": 0, "uint16": 1, "int16": 2, "float16": 3, "float32": 4, "float64": 5}
LETTERS = "tbchw"
_IN_ORDER = tuple(range(8))


# numpy takes microseconds to spell a dtype
_SPELLED = {np.dtype(name): name for name in SCALARS}


def kind(array: Any, name: str = "image") -> str:
    """'numpy', 'cupy' or 'torch'; TypeError for anything else."""
    torch = sys.modules.get("torch")
    if type(array) is np.ndarray:
        return "numpy"
    if torch is not None and isinstance(array, torch.Tensor):
        return "torch"
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(
            f"{name} must be a plain array, got a masked one; "
            f"pass its .data and, where masks are taken, mask=~np.ma.getmaskarray({name})"
        )
    if isinstance(array, np.ndarray):
        return "numpy"
    cupy = sys.modules.get("cupy")
    if cupy is not None and isinstance(array, cupy.ndarray):
        return "cupy"
    raise TypeError(
        f"{name} must be a NumPy array, a torch tensor or a CuPy array, "
        f"got {type(array).__name__}; convert it with numpy.asarray"
    )


def namespace(array: Any) -> Any:
    """The module whose functions work on the array: numpy, torch or cupy."""
    return sys.modules[kind(array)]


def dtype_name(array: Any) -> str:
    """'float32' and so on, whatever the library."""
    name = _SPELLED.get(array.dtype)
    if name is not None:
        return name
    if kind(array) == "torch":
        return str(array.dtype).removeprefix("torch.")
    return array.dtype.name


def cast(array: Any, name: str) -> Any:
    """The array in another dtype (itself when it has that dtype already)."""
    if kind(array) == "torch":
        return array.to(getattr(namespace(array), name))
    return array.astype(name, copy=False)


def check_pixels(array: Any, name: str = "image") -> None:
    """TypeError unless the array holds pixels of a dtype the core reads, on a device it reaches."""
    kind(array, name)
    dtype = dtype_name(array)
    if dtype.startswith("complex"):
        raise TypeError(
            f"{name} must be real, got {dtype}; take its magnitude or, for radio-frequency lines, "
            'the real part and mode="RF"'
        )
    if dtype not in SCALARS and not (dtype == "bfloat16" and kind(array) == "torch"):
        raise TypeError(
            f"{name} must be of dtype {', '.join(SCALARS)}, got {dtype}; "
            "convert it, e.g. to float32"
        )
    if kind(array) == "torch":
        if array.device.type not in ("cpu", "cuda"):
            raise TypeError(
                f"{name} must be on the CPU or a CUDA device, got {array.device}; use {name}.cpu()"
            )
        if str(array.layout) != "torch.strided":
            raise TypeError(
                f"{name} must be a dense tensor, got {array.layout}; use {name}.to_dense()"
            )


def is_floating(array: Any) -> bool:
    """Whether pixels may be NaN or infinite."""
    return "float" in dtype_name(array)


def unit(array: Any) -> Any:
    """Integers over the largest their dtype holds, as float64; other pixels as they are."""
    if is_floating(array):
        return array
    return (
        cast(array, "float64") / {"uint8": 255, "uint16": 65535, "int16": 32767}[dtype_name(array)]
    )


def result_dtype(array: Any, dtype: Any) -> str:
    """The map's dtype: what was asked for, else float64 for float64 pixels and float32 for all."""
    if dtype is None:
        return "float64" if dtype_name(array) == "float64" else "float32"
    name = str(dtype).removeprefix("torch.")
    if name not in ("float32", "float64"):
        try:
            name = np.dtype(dtype).name
        except TypeError:
            name = repr(dtype)
    if name not in ("float32", "float64"):
        raise ValueError(
            f"dtype must be float32 or float64, got {name}; leave it out for the usual one"
        )
    return name


class Layout(NamedTuple):
    """How an array's axes map to (frames, depth, scanlines)."""

    shape: tuple[int, ...]
    order: tuple[int, ...]  # the array's axes, frames first, then depth, scanlines

    @property
    def stack(self) -> tuple[int, int, int]:
        """(frames, height, width)"""
        shape = self.shape
        *leading, height, width = self.order
        if len(leading) == 1:
            return shape[leading[0]], shape[height], shape[width]
        # A list: torch.compile traces no generators here.
        return prod([shape[axis] for axis in leading]), shape[height], shape[width]

    def frames(self, array: Any) -> Any:
        """The array as (frames, height, width); a view where strides allow."""
        return _permute(array, self.order).reshape(self.stack)

    def restore(self, maps: Any) -> Any:
        """(frames, height, width) back in the array's own shape."""
        if _in_order(self.order):
            return maps.reshape(self.shape)
        back = sorted(range(len(self.order)), key=self.order.__getitem__)
        return _permute(maps.reshape([self.shape[axis] for axis in self.order]), tuple(back))

    def resized(self, height: int, width: int) -> Layout:
        """The same axes with frames of another size."""
        shape = list(self.shape)
        shape[self.order[-2]], shape[self.order[-1]] = height, width
        return Layout(tuple(shape), self.order)

    def companion(self, mask: Any, image: Any, name: str) -> Any:
        """A mask of (H, W) or the image's shape as (1 or frames, H, W) booleans like the image."""
        return self.plane(mask, image, name) != 0

    def plane(self, values: Any, image: Any, name: str) -> Any:
        """Values of (H, W) or the image's shape as (1 or frames, H, W), of the image's library."""
        like = _like(values, image, name)
        shape = tuple(like.shape)
        _, height, width = self.stack
        if shape == self.shape:
            return self.frames(like)
        if len(self.shape) > 2 and shape == (height, width):
            return like.reshape((1, height, width))
        either = "" if self.shape == (height, width) else f" or the image's {self.shape}"
        raise ValueError(
            f"{name} must have shape {(height, width)}{either}, got {shape}; "
            "give one plane for all frames or one for each"
        )


def _in_order(order: tuple[int, ...]) -> bool:
    return order == _IN_ORDER[: len(order)]


def _permute(array: Any, order: tuple[int, ...]) -> Any:
    if _in_order(order):
        return array
    return array.permute(order) if kind(array) == "torch" else array.transpose(order)


def _like(mask: Any, image: Any, name: str) -> Any:
    """The mask in the library and on the device of the image."""
    wanted = kind(image)
    if isinstance(mask, (list, tuple)):
        mask = np.asarray(mask)
    given = kind(mask, name)
    if given == "cupy" and wanted != "cupy":
        mask, given = mask.get(), "numpy"
    if wanted == "torch":
        torch = namespace(image)
        if given == "numpy" and not mask.flags.writeable:
            mask = mask.copy()  # torch warns of read-only memory
        return torch.as_tensor(mask, device=image.device)
    if given == "torch":
        mask = mask.detach().cpu().numpy()
    return mask if wanted == "numpy" else namespace(image).asarray(mask)


def layout(shape: tuple[int, ...], axes: str | None = None, name: str = "image") -> Layout:
    """Read a shape: (H, W), (1, H, W), (B, 1, H, W), or whatever `axes` spells out."""
    found = _guessed(shape, name) if axes is None else _spelled(shape, axes, name)
    _, height, width = found.stack
    if height == 0 or width == 0:
        raise ValueError(f"{name} must have at least one row and one column, got shape {shape}")
    return found


def _guessed(shape: tuple[int, ...], name: str) -> Layout:
    count = len(shape)
    if count == 2 or (count == 3 and shape[0] == 1) or (count == 4 and shape[1] == 1):
        return Layout(shape, _IN_ORDER[:count])
    if count < 2:
        advice = "a frame has two axes, depth and scanlines"
    elif count == 3:
        advice = 'for a clip of frames write axes="thw"; for a colour picture, '
        advice += f"usconf.io.gray({name}) first"
    elif count == 4:
        advice = 'for clips of frames write axes="bthw"; for colour pictures, '
        advice += f"usconf.io.gray({name}) first"
    else:
        advice = 'name every axis, e.g. axes="btchw" (c: a channel axis of length 1)'
    raise ValueError(f"{name} must be (H, W), (1, H, W) or (B, 1, H, W), got {shape}; {advice}")


def _spelled(shape: tuple[int, ...], axes: str, name: str) -> Layout:
    if not isinstance(axes, str):
        raise TypeError(f'axes must be a string such as "thw", got {type(axes).__name__}')
    distinct = len(set(axes)) == len(axes) and set(axes) <= set(LETTERS)
    if not distinct or not {"h", "w"} <= set(axes):
        raise ValueError(
            "axes must name h (depth) and w (scanlines), and may name t (time), b (batch), "
            f'c (channel), each once, got {axes!r}; e.g. axes="thw"'
        )
    if len(axes) != len(shape):
        raise ValueError(
            f"axes must name each of the {name}'s {len(shape)} axes, got {axes!r} for shape {shape}"
        )
    if "c" in axes and shape[axes.index("c")] != 1:
        raise ValueError(
            f"axes may call an axis c (channel) when its length is 1, got {axes!r} for shape "
            f"{shape}; turn colour into gray with usconf.io.gray({name})"
        )
    leading = [axis for axis, letter in enumerate(axes) if letter not in "hw"]
    return Layout(shape, (*leading, axes.index("h"), axes.index("w")))


def ready(array: Any) -> Any:
    """The array as the core reads it: contiguous, aligned, in native order; a copy only if not."""
    if kind(array) == "torch":
        if dtype_name(array) == "bfloat16":
            array = cast(array, "float32")
        return array.detach().contiguous()
    if kind(array) == "numpy":
        flags = array.flags
        if flags.c_contiguous and flags.aligned and array.dtype.isnative:
            return array
        return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
    return namespace(array).ascontiguousarray(array)


def handy(array: Any) -> Any:
    """A CPU tensor as NumPy array of the same memory, for small work that torch is slow at."""
    if kind(array) != "torch" or array.device.type != "cpu":
        return array
    if dtype_name(array) == "bfloat16":
        array = cast(array, "float32")
    return array.detach().numpy()


def restored(array: Any, like: Any) -> Any:
    """The inverse of `handy`."""
    if kind(array) == "numpy" and kind(like) == "torch":
        return namespace(like).from_numpy(array)
    return array


def on_host(array: Any) -> np.ndarray:
    """The values as a NumPy array, copied from a device where they lie on one."""
    if kind(array) == "torch":
        return handy(array.cpu())
    return array.get() if kind(array) == "cupy" else array


def empty(like: Any, shape: tuple[int, ...], dtype: str) -> Any:
    """An uninitialised array of the same library on the same device."""
    if kind(like) == "torch":
        torch = namespace(like)
        return torch.empty(shape, dtype=getattr(torch, dtype), device=like.device)
    return namespace(like).empty(shape, dtype)


def block(like: Any, size: int) -> Any:
    """`size` uninitialised bytes for a factor; recycled ones on the CPU: first touch is dear."""
    if kind(like) == "torch" and like.device.type == "cpu":
        return namespace(like).frombuffer(_core.Block(size), dtype=namespace(like).uint8)
    return empty(like, (size,), "uint8")


def pointer(array: Any) -> int:
    """The address of the first element; 0 for None."""
    if array is None:
        return 0
    if kind(array) == "torch":
        return array.data_ptr()
    if kind(array) == "numpy":
        return _core.address(array)
    return array.data.ptr


def place(array: Any) -> tuple[int, int]:
    """(device, stream) as the core takes them: device -1 is the CPU."""
    if kind(array) == "numpy":
        return -1, 0
    if kind(array) == "cupy":
        cupy = namespace(array)
        with array.device:
            return array.device.id, cupy.cuda.get_current_stream().ptr
    if array.device.type == "cpu":
        return -1, 0
    stream = namespace(array).cuda.current_stream(array.device)
    return array.device.index, stream.cuda_stream


def on_device(array: Any) -> bool:
    """Whether a look at the values would make the host wait for a GPU."""
    return kind(array) == "cupy" or (kind(array) == "torch" and array.device.type == "cuda")


def free_on_device(array: Any) -> int:
    """Bytes still free on the GPU that holds the array."""
    if kind(array) == "cupy":
        with array.device:
            return namespace(array).cuda.runtime.memGetInfo()[0]
    return namespace(array).cuda.mem_get_info(array.device)[0]


def threads(array: Any) -> int:
    """Threads a call may take: torch's setting for its tensors, else usconf's own."""
    torch = sys.modules.get("torch")
    # Asked for NumPy arrays too: torch tells its OpenMP runtime, whose threads the core may run on,
    # of its setting when a Python thread asks first. Absent: torch is not loaded, or not whole.
    ask = getattr(torch, "get_num_threads", _core.threads)
    of_torch = ask()
    return of_torch if kind(array) == "torch" else _core.threads()
