"""MONAI's classes, or the word what to install; tensors from its arrays and back."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

try:
    from monai.data import MetaTensor
    from monai.transforms import MapTransform, Transform
    from monai.utils.enums import TransformBackends
except ImportError as error:
    raise ImportError(
        'usconf.integrations.monai needs MONAI; run: pip install "usconf[recipes]"'
    ) from error

__all__ = ["BACKENDS", "MapTransform", "MetaTensor", "Transform"]

# Of both libraries' arrays: MONAI asks every transform.
BACKENDS = [TransformBackends.TORCH, TransformBackends.NUMPY]


def plain(name: str, values: Any) -> Tensor:
    """The array as a plain tensor, of the same memory where it may be; it is only read.

    Tensors, for arrays too: in a worker of a DataLoader torch takes one thread, and so do maps.
    """
    if isinstance(values, np.ndarray):
        # torch knows no steps backwards, no foreign byte order, and warns of read-only memory.
        native = values.dtype.newbyteorder("=")
        tensor = torch.from_numpy(np.require(values, native, ["C", "A", "W"]))
    elif isinstance(values, Tensor):
        tensor = bare(values).detach()
    else:
        raise TypeError(
            f"{name} must be an array or tensor, got {type(values).__name__}; load it first, e.g. "
            "with LoadImaged"
        )
    if tensor.ndim < 2:
        raise ValueError(
            f"{name} must be channel-first, e.g. (1, H, W), got shape {tuple(tensor.shape)}; see "
            "EnsureChannelFirstd"
        )
    return tensor


def bare(value: Any) -> Any:
    """Without the meta data of a MetaTensor."""
    return value.as_tensor() if isinstance(value, MetaTensor) else value


def like(made: Tensor, img: Any) -> Any:
    """In the library of the image, with its meta data."""
    if isinstance(img, MetaTensor):
        return MetaTensor(made).copy_meta_from(img)
    return made.cpu().numpy() if isinstance(img, np.ndarray) else made


def outputs(output_keys: Any, keys: Sequence[Hashable]) -> tuple[Hashable, ...]:
    """A key, or None, for each of the keys."""
    if output_keys is None:
        return (None,) * len(keys)
    listed = isinstance(output_keys, Sequence) and not isinstance(output_keys, str)
    found = tuple(output_keys) if listed else (output_keys,)
    if len(found) != len(keys):
        raise ValueError(
            f"output_keys must name a key for each of the {len(keys)} keys, got {len(found)}; "
            "leave it out for the usual ones"
        )
    if len({*found, *keys}) != len(found) + len(keys):
        raise ValueError(
            f"output_keys must be new keys, each named once, got {found!r} for {tuple(keys)!r}; "
            "choose others"
        )
    return found


def trusted_map(key: Hashable, data: Mapping[Hashable, Any]) -> Tensor:
    """The checked map (1, *S) of a dictionary, float32 or float64."""
    if key not in data:
        raise KeyError(
            f"confidence_key must be in the data, got {key!r} and {sorted(map(str, data))}; "
            "ConfidenceMapd makes it with output_keys="
        )
    name = f"data[{key!r}]"
    found = plain(name, data[key])
    if found.shape[0] != 1:
        raise ValueError(
            f"{name} must be a map (1, *S), got shape {tuple(found.shape)}; take the map alone"
        )
    check_range(name, found, 1, "confidence from 0 to 1", "divide an 8-bit map by 255")
    return found if found.dtype == torch.float64 else found.float()


def check_range(name: str, values: Tensor, most: float, what: str, advice: str) -> None:
    """ValueError unless all values lie between 0 and the most; maps may be rounded up."""
    wrong = ~((values >= 0) & (values <= most + 1e-6))
    if bool(wrong.any()):
        raise ValueError(f"{name} must hold {what}, got {values[wrong][0].item():g}; {advice}")
