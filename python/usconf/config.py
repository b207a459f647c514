"""What this installation is made of, and its few process-wide settings."""

from __future__ import annotations

import operator
from importlib import metadata

from . import _core

# What is shown -> distributions that provide it, the first one installed counts
_LIBRARIES = {
    "numpy": ("numpy",),
    "scipy": ("scipy",),
    "torch": ("torch",),
    "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy"),
    "pillow": ("pillow",),
    "pydicom": ("pydicom",),
    "nibabel": ("nibabel",),
    "av": ("av",),
    "tqdm": ("tqdm",),
    "matplotlib": ("matplotlib",),
    "safetensors": ("safetensors",),
    "onnx": ("onnx",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "napari": ("napari",),
    "monai": ("monai",),
}


def show_config() -> None:
    """Print version, instruction set, threads, CUDA and the optional libraries found.

    Nothing heavy is imported for it.

    Examples
    --------
    >>> import usconf
    >>> usconf.show_config()  # doctest: +ELLIPSIS
    usconf ...
    """
    print(f"usconf {_core.version}")
    print(f"instruction set: {_core.isa()} (usable: {', '.join(_core.isa_list())})")
    print(f"threads: {_core.threads()} (default {_core.default_threads()})")
    print(f"CUDA: {_cuda()}")
    for name, distributions in _LIBRARIES.items():
        print(f"{name}: {_version(distributions) or 'not installed'}")


def _cuda() -> str:
    found = _core.cuda()
    if not found["built"]:
        return "not built"
    parts = [f"built for {found['architectures']} with runtime {_release(found['runtime'])}"]
    if found["driver"] == 0:
        parts.append("no driver")
    elif found["driver"] // 1000 < found["runtime"] // 1000:  # minor versions are compatible
        parts.append(f"driver too old: it supports CUDA {_release(found['driver'])}")
    else:
        parts.append(f"driver for CUDA {_release(found['driver'])}")
    parts.append(f"devices: {', '.join(found['devices']) or 'none'}")
    if found["message"]:
        parts.append(found["message"])
    return "; ".join(parts)


def _release(number: int) -> str:
    """CUDA's own numbering: 12090 -> 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _version(distributions: tuple[str, ...]) -> str | None:
    for distribution in distributions:
        try:
            return metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return None


def set_num_threads(threads: int) -> None:
    """Set how many threads a call on NumPy arrays may take.

    Calls on torch tensors take ``torch.get_num_threads()``. Maps are the same to the last bit for
    any number of threads.

    Parameters
    ----------
    threads : int
        At least 1. The default is the number of cores this process may use. Once a tensor was
        passed and torch has several threads, calls run on those, and get no more than there are.

    Raises
    ------
    TypeError, ValueError
        If `threads` is no integer, or below 1.

    Examples
    --------
    >>> import usconf
    >>> usconf.set_num_threads(1)
    >>> usconf.get_num_threads()
    1
    """
    try:
        count = operator.index(threads)
    except TypeError:
        raise TypeError(f"threads must be an integer, got {type(threads).__name__}") from None
    if isinstance(threads, bool) or count < 1:
        raise ValueError(f"threads must be at least 1, got {threads}; 1 means no further threads")
    _core.set_threads(count)


def get_num_threads() -> int:
    """Threads a call on NumPy arrays may take; see `set_num_threads`.

    Returns
    -------
    int
        At least 1.

    Examples
    --------
    >>> import usconf
    >>> usconf.get_num_threads() >= 1
    True
    """
    return _core.threads()


def clear_cache() -> None:
    """Free the elimination plans and workspaces kept from earlier calls.

    The next call plans again; results never change.

    Examples
    --------
    >>> import usconf
    >>> usconf.clear_cache()
    """
    _core.clear_cache()
