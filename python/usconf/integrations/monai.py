"""Confidence maps and masks as transforms of MONAI."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..confidence import confidence
from .map_cache import MapCache, settle
from .monai_bridge import (
    BACKENDS,
    MapTransform,
    Transform,
    bare,
    check_range,
    like,
    outputs,
    plain,
    trusted_map,
)
from .monai_drop_in import UltrasoundConfidenceMapTransform

__all__ = [
    "ConfidenceMap",
    "ConfidenceMapd",
    "ConfidenceMaskd",
    "UltrasoundConfidenceMapTransform",
]


class ConfidenceMap(Transform):
    """Make the confidence map of a channel-first image.

    Parameters
    ----------
    method : {"random_walk", "dag", "learned"}
        As in `usconf.confidence`.
    axes : str, optional
        A letter for each axis of the image, the channel first: c channel, h depth, w scanlines,
        t frames. Default: "chw". Volumes must say along which axis their frames lie, e.g. "cthw";
        every frame is mapped by itself. MONAI's readers of pictures put the scanlines first
        ("cwh"), and give clips of DICOM as "chtw".
    cache : path-like, optional
        Folder that keeps the maps, looked up by content; see `MapCache`. Default: none.
    **parameters
        Passed on to `usconf.confidence`: those of the method, and `geometry`.

    Raises
    ------
    TypeError, ValueError
        If there is no such method or parameter, or the cache is no folder; when called, as
        `usconf.confidence`, and if the image has several channels.

    Notes
    -----
    Gonzalez Duque et al., "Can ultrasound confidence maps predict sonographers' labeling
    variability?", map every 2-D frame by random walks with alpha=0.5, beta=100
    (``preset="duque2023"``). In a chain of transforms the map belongs before those that are
    random: they then move image and map alike, and a cache is hit.

    Examples
    --------
    >>> import torch
    >>> from usconf.integrations.monai import ConfidenceMap
    >>> sweep = torch.rand(1, 5, 48, 32)  # five frames
    >>> map = ConfidenceMap("random_walk", axes="cthw", preset="duque2023")(sweep)
    >>> map.shape, float(map[0, 3, 0, 0]), float(map[0, 3, -1, 0])
    (torch.Size([1, 5, 48, 32]), 1.0, 0.0)
    """

    backend = BACKENDS

    def __init__(
        self,
        method: str = "random_walk",
        *,
        axes: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        **parameters: Any,
    ) -> None:
        settle(method, parameters)
        if axes is not None and not isinstance(axes, str):
            raise TypeError(f'axes must be a string such as "cthw", got {type(axes).__name__}')
        if axes is not None and axes[:1] != "c":
            raise ValueError(
                f'axes must begin with c, the channel, got {axes!r}; e.g. "chw" or "cthw"'
            )
        self.method = method
        self.axes = axes
        self.cache = None if cache is None else MapCache(cache)
        self.parameters = parameters

    def __call__(self, img: Any, **planes: Any) -> Any:  # type: ignore[override]
        """Make the map.

        Parameters
        ----------
        img : numpy.ndarray, torch.Tensor or monai.data.MetaTensor
            (1, H, W), (1, D, H, W), or as `axes` says.
        **planes
            More parameters of the method, for this image only: `mask`, `sink_mask` and the like, of
            the image's shape or (H, W).

        Returns
        -------
        same kind of array
            The map, in [0, 1], of the image's shape, with a MetaTensor's meta data and applied
            operations; float64 for float64 images, else float32. Without gradient.
        """
        return like(self._map(img, planes), img)

    def _map(self, img: Any, planes: Mapping[str, Any]) -> Tensor:
        image = plain("img", img)
        axes = self._axes(tuple(image.shape))
        given = {name: bare(value) for name, value in planes.items()}
        parameters = {**self.parameters, **given, "axes": axes}
        if self.cache is not None:
            return self.cache.confidence(image, self.method, **parameters)
        return confidence(image, self.method, **parameters)

    def _axes(self, shape: tuple[int, ...]) -> str:
        if self.axes is None and len(shape) != 3:
            raise ValueError(
                f"axes must be given for an image that is not (1, H, W), got shape {shape}; write "
                'e.g. axes="cthw" for frames along the first axis after the channel'
            )
        if shape[0] != 1:
            raise ValueError(
                f"img must have one channel, got {shape[0]} of shape {shape}; take one of them, or "
                "the mean of a colour picture's"
            )
        return self.axes or "chw"


class ConfidenceMapd(MapTransform):
    """Make the confidence maps of images in a dictionary: as a further channel, under own keys.

    Parameters
    ----------
    keys : hashable or sequence of them
        Where the images lie.
    method, axes, cache, **parameters
        As in `ConfidenceMap`.
    append : bool, default True
        Whether the map becomes the image's second channel, in the image's dtype (float32 for
        integers).
    output_keys : hashable or sequence of them, optional
        Where the maps go by themselves, a key for each of `keys`. Default: nowhere with
        append=True; else "confidence", or with several keys "KEY_confidence".
    planes : mapping, optional
        Parameters of the method that each image has its own of: their names, and the keys where
        they lie, e.g. ``{"mask": "fan"}``. They serve all `keys`.
    allow_missing_keys : bool, default False
        Whether an image may be missing; its map is then missing too.

    Raises
    ------
    TypeError, ValueError
        As `ConfidenceMap`; and if the output keys do not match the keys.
    KeyError
        When called, if an image is missing that must not, or a plane.

    Examples
    --------
    >>> import torch
    >>> from usconf.integrations.monai import ConfidenceMapd
    >>> prepare = ConfidenceMapd("image", preset="duque2023", output_keys="confidence")
    >>> sample = prepare({"image": torch.rand(1, 48, 32)})
    >>> sample["image"].shape, sample["confidence"].shape
    (torch.Size([2, 48, 32]), torch.Size([1, 48, 32]))
    >>> bool((sample["image"][1:] == sample["confidence"]).all())
    True
    """

    backend = BACKENDS

    def __init__(
        self,
        keys: Any,
        method: str = "random_walk",
        *,
        append: bool = True,
        output_keys: Any = None,
        planes: Mapping[str, Hashable] | None = None,
        axes: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        allow_missing_keys: bool = False,
        **parameters: Any,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.append = bool(append)
        if output_keys is None and not append:
            single = len(self.keys) == 1
            output_keys = ["confidence" if single else f"{key}_confidence" for key in self.keys]
        self.output_keys = outputs(output_keys, self.keys)
        self.planes = dict(planes or {})
        settle(method, dict.fromkeys(self.planes))
        self.converter = ConfidenceMap(method, axes=axes, cache=cache, **parameters)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with the maps; its images are not written to."""
        found = dict(data)
        for key, output in self.key_iterator(found, self.output_keys):
            planes = {name: data[where] for name, where in self.planes.items()}
            img = found[key]
            made = self.converter._map(img, planes)
            if output is not None:
                found[output] = like(made, img)
            if self.append:
                image = plain("img", img)
                dtype = image.dtype if image.is_floating_point() else made.dtype
                found[key] = like(torch.cat([image.to(dtype), made.to(dtype)]), img)
        return found


class ConfidenceMaskd(MapTransform):
    """Turn labels into confidence masks: one-hot labels times the confidence map.

    Parameters
    ----------
    keys : hashable or sequence of them
        Where the labels lie: class indices (1, *S), or one-hot (C, *S).
    confidence_key : hashable, default "confidence"
        Where the map lies, (1, *S).
    num_classes : int, optional
        Number of classes, background included. Default: labels are one-hot already.
    output_keys : hashable or sequence of them, optional
        Where the masks go, a key for each of `keys`. Default: in the place of the labels.
    allow_missing_keys : bool, default False
        Whether labels may be missing.

    Raises
    ------
    TypeError, ValueError
        If num_classes is no integer above 1, or the output keys do not match the keys; when
        called, if a class index is out of range, shapes do not match, or confidence leaves [0, 1].
    KeyError
        When called, if labels or map are missing.

    Notes
    -----
    Gonzalez Duque et al., "Can ultrasound confidence maps predict sonographers' labeling
    variability?", section 2: the mask Y * CM. `torch.nn.functional.cross_entropy` and MONAI's
    DiceCELoss take it as soft labels; `usconf.nn.ConfidenceCrossEntropy` needs no mask, only the
    labels and the map.

    Examples
    --------
    >>> import torch
    >>> from usconf.integrations.monai import ConfidenceMaskd
    >>> sample = {"label": torch.tensor([[[0, 2]]]), "confidence": torch.tensor([[[0.75, 0.5]]])}
    >>> ConfidenceMaskd("label", num_classes=3)(sample)["label"][:, 0].tolist()
    [[0.75, 0.0], [0.0, 0.0], [0.0, 0.5]]
    """

    backend = BACKENDS

    def __init__(
        self,
        keys: Any,
        confidence_key: Hashable = "confidence",
        num_classes: int | None = None,
        *,
        output_keys: Any = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if num_classes is not None:
            if not isinstance(num_classes, int):
                raise TypeError(
                    f"num_classes must be an integer, got {type(num_classes).__name__}; the "
                    "background counts"
                )
            if num_classes < 2:
                raise ValueError(
                    f"num_classes must be at least 2, got {num_classes}; the background counts"
                )
        self.confidence_key = confidence_key
        self.num_classes = num_classes
        self.output_keys = outputs(output_keys, self.keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The dictionary with masks of float32 (float64 for such a map), labels' meta data kept."""
        found = dict(data)
        for key, output in self.key_iterator(found, self.output_keys):
            name = f"data[{key!r}]"
            trusted = trusted_map(self.confidence_key, data)
            shares = self._shares(name, plain(name, data[key]))
            if shares.shape[1:] != trusted.shape[1:]:
                raise ValueError(
                    f"{name} must have the map's size {tuple(trusted.shape[1:])}, got "
                    f"{tuple(shares.shape[1:])}; make the map of the image the labels belong to"
                )
            mask = shares.to(trusted) * trusted
            found[key if output is None else output] = like(mask, data[key])
        return found

    def _shares(self, name: str, label: Tensor) -> Tensor:
        """(C, *S)"""
        classes = self.num_classes
        if classes is None or label.shape[0] == classes:
            if label.shape[0] < 2:
                raise ValueError(
                    f"num_classes must be given for class indices, got None and {name} of shape "
                    f"{tuple(label.shape)}; the background counts"
                )
            check_range(name, label, 1, "shares of the classes from 0 to 1", "normalise them")
            return label
        if label.shape[0] != 1:
            raise ValueError(
                f"{name} must have 1 channel or {classes}, got {label.shape[0]} of shape "
                f"{tuple(label.shape)}; give class indices or one-hot labels"
            )
        what = f"class indices from 0 to {classes - 1}"
        check_range(name, label, classes - 1, what, f"num_classes is {classes}")
        index = label.long()
        if bool((index != label).any()):
            raise ValueError(
                f"{name} must hold whole class indices, got others; resample labels with "
                'mode="nearest"'
            )
        return torch.zeros((classes, *label.shape[1:]), device=label.device).scatter(0, index, 1)
