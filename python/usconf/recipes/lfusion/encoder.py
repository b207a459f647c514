"""The frozen encoder: any callable, an architecture by name, or a small one trained here."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .unets import block, resized

# Modules of torchvision's architectures that end their features, in the order they are looked for.
_LAST = ("layer4", "features")


class FrozenEncoder:
    """An encoder that is only read, with what it returns checked at every call.

    Parameters
    ----------
    call : callable
        Images ``(B, channels, H, W)`` -> features ``(B, F, h, w)``. A module is set to evaluation
        and its parameters are frozen.
    name : str
        What errors call it.
    channels : int, optional
        Input channels, gray is repeated. Default: 1.
    size : int, optional
        Rows and columns that images are resized to for it. Default: as they come.
    mean, std : float, optional
        Taken off images in [0, 1], and what they are divided by then. Defaults: 0 and 1.

    Raises
    ------
    TypeError
        If `call` is not callable.

    Examples
    --------
    >>> import torch
    >>> from usconf.recipes.lfusion.encoder import FrozenEncoder
    >>> encoder = FrozenEncoder(torch.nn.Conv2d(1, 5, 4, stride=4), "patches")
    >>> encoder(torch.rand(2, 1, 32, 32)).shape, encoder.features
    (torch.Size([2, 5, 8, 8]), 5)
    """

    def __init__(
        self,
        call: Callable[[Tensor], Tensor],
        name: str,
        *,
        channels: int = 1,
        size: int | None = None,
        mean: float = 0.0,
        std: float = 1.0,
    ) -> None:
        if not callable(call):
            raise TypeError(
                f"encoder must be callable, got {type(call).__name__} for {name}; give a function "
                "of images or a torch module"
            )
        if isinstance(call, nn.Module):
            call.eval().requires_grad_(False)
        self.call = call
        self.name = name
        self.channels, self.size, self.mean, self.std = channels, size, mean, std
        self.features: int | None = None
        self._grids: dict[tuple[int, ...], tuple[int, ...]] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of pictures, or of every frame of clips.

        Parameters
        ----------
        images : torch.Tensor
            ``(B, 1, H, W)`` or ``(B, 1, T, H, W)``, in [0, 1].

        Returns
        -------
        torch.Tensor
            ``(B, F, h, w)`` or ``(B, F, T, h, w)`` float32, without gradient. There is no encoder
            of clips: the paper takes the 2-D one frame by frame.

        Raises
        ------
        TypeError
            If the encoder returns no float tensor.
        ValueError
            If its result is not 4-D, holds another number of images, channels or pixels than
            before, or values that are not finite.
        """
        if images.dim() == 5:
            batch, _, length = images.shape[:3]
            frames = self(images.transpose(1, 2).flatten(0, 1))
            return frames.unflatten(0, (batch, length)).transpose(1, 2).contiguous()
        x = images
        if self.size is not None:
            x = resized(x, (self.size, self.size))
        x = ((x - self.mean) / self.std).expand(-1, self.channels, -1, -1)
        return self._checked(self.call(x), x).float()

    def _checked(self, found: Any, images: Tensor) -> Tensor:
        if not isinstance(found, Tensor) or not found.is_floating_point():
            kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
            raise TypeError(
                f"the encoder {self.name} must return a float tensor (B, F, h, w), got {kind}; "
                "wrap it in a function that picks the tensor"
            )
        shape = tuple(found.shape)
        if len(shape) != 4:
            raise ValueError(
                f"the encoder {self.name} must return a 4-D tensor (B, F, h, w), got {shape}; "
                "reshape tokens (B, h w, F) to a grid and leave class tokens out"
            )
        if shape[0] != images.shape[0] or 0 in shape:
            raise ValueError(
                f"the encoder {self.name} must return features of all {images.shape[0]} images, "
                f"got {shape}; return (B, F, h, w)"
            )
        self.features = self.features or shape[1]
        if shape[1] != self.features:
            raise ValueError(
                f"the encoder {self.name} must return {self.features} channels as before, got "
                f"{shape[1]} in {shape}; the heads are made for one number"
            )
        grid = self._grids.setdefault(tuple(images.shape[2:]), shape[2:])
        if shape[2:] != grid:
            raise ValueError(
                f"the encoder {self.name} must return maps of {grid[0]} x {grid[1]} pixels as "
                f"before, got {shape[2]} x {shape[3]}; images of one size need one grid"
            )
        if not torch.isfinite(found).all():
            raise ValueError(
                f"the encoder {self.name} must return finite features, got NaN or infinity; check "
                "its weights and input"
            )
        return found


class MadeEncoder(nn.Module):
    """A small encoder: four resolutions, brought together at half of the picture's.

    Examples
    --------
    >>> import torch
    >>> from usconf.recipes.lfusion.encoder import MadeEncoder
    >>> MadeEncoder()(torch.rand(2, 1, 32, 32)).shape
    torch.Size([2, 120, 16, 16])
    """

    STEM = 8
    WIDTHS = (16, 24, 32, 48)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, self.STEM, 3, padding=1)
        self.stages = nn.ModuleList(
            block(before, after, 2, 0.0)
            for before, after in zip([self.STEM, *self.WIDTHS[:-1]], self.WIDTHS, strict=True)
        )
        whole: Any = self  # torch's own annotations know no memory_format here
        whole.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, 120, H / 2, W / 2) of images (B, 1, H, W)."""
        x = F.relu(self.stem(images))
        found: list[Tensor] = []
        for stage in self.stages:
            x = stage(F.avg_pool2d(x, 2))
            found.append(resized(x, found[0].shape[2:] if found else x.shape[2:]))
        return torch.cat(found, 1)


def load_encoder(
    name: str,
    *,
    weights: str | None = None,
    layer: str | None = None,
    channels: int = 1,
) -> Callable[[Tensor], Tensor]:
    """Find an encoder by name; nothing is downloaded.

    Parameters
    ----------
    name : str
        "timm:NAME", "torchvision:NAME", "module:function" or "module:function()".
    weights : str, optional
        File of a state dict; default: random weights (from torch's generator), or what
        "module:function" brings along.
    layer : str, optional
        timm: index of the feature stage, default -1. torchvision: name of a module of the network;
        default: the one that ends its features.
    channels : int, optional
        Input channels; timm adapts the first convolution to them. Default: 1.

    Returns
    -------
    callable
        Images -> features; a torch module where there are weights.

    Raises
    ------
    ValueError
        If there is no such name, layer, or the weights do not fit.
    FileNotFoundError
        If the file of weights is missing.
    ImportError
        If the module cannot be imported.
    TypeError
        If what is found cannot be called.
    """
    kind, _, rest = name.partition(":")
    if not rest:
        raise ValueError(
            f'encoder must be "made", "timm:NAME", "torchvision:NAME" or "module:function", got '
            f"{name!r}; name one of them"
        )
    if kind == "timm":
        return _timm(rest, weights, -1 if layer is None else layer, channels)
    if kind == "torchvision":
        return _torchvision(rest, weights, layer, channels)
    found = _named(kind, rest, name)
    if layer is not None:
        raise ValueError(f"encoder_layer must be left out for {name!r}, got {layer!r}; see encoder")
    if weights is not None:
        if not isinstance(found, nn.Module):
            raise ValueError(
                f"encoder_weights must be left out for {name!r}, which is no torch module, got "
                f"{weights!r}; load them in the function"
            )
        load_weights(found, weights, name)
    return found


def _named(module_name: str, rest: str, name: str) -> Any:
    module = _imported(module_name, name)
    found: Any = module
    built = rest.endswith("()")
    for part in rest.removesuffix("()").split("."):
        if not hasattr(found, part):
            raise ValueError(
                f"encoder must name something of {module_name}, got {name!r}; there is no {part}"
            )
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"encoder must be callable, got {type(found).__name__} for {name!r}")
    if isinstance(found, type) and not built:
        raise TypeError(
            f"encoder must be called with images, got the class {name!r}; write {name}()"
        )
    return found() if built else found


def _imported(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    # A torchvision built for another torch fails with RuntimeError while it is imported.
    except (ImportError, RuntimeError) as problem:
        raise ImportError(
            f"encoder {name!r} needs the module {module}, got: {problem}; install it, or put its "
            "folder on PYTHONPATH"
        ) from problem


def _timm(name: str, weights: str | None, layer: int | str, channels: int) -> nn.Module:
    timm = _imported("timm", f"timm:{name}")
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "timm.list_models()"
        raise ValueError(f"encoder must be an architecture of timm, got {name!r}; see {near}")
    try:
        index = int(layer)
    except ValueError:
        raise ValueError(
            f"encoder_layer must be a number for timm, got {layer!r}; -1 is the last stage"
        ) from None
    network = timm.create_model(
        name, pretrained=False, in_chans=channels, features_only=True, out_indices=(index,)
    )
    if weights is not None:
        load_weights(network, weights, f"timm:{name}")
    return _First(network)


class _First(nn.Module):
    """timm's feature networks return a list."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.network(images)[0]
        return found


def _torchvision(name: str, weights: str | None, layer: str | None, channels: int) -> nn.Module:
    torchvision = _imported("torchvision", f"torchvision:{name}")
    if channels != 3:
        raise ValueError(
            f"encoder_channels must be 3 for torchvision, got {channels}; set encoder_channels=3"
        )
    names = torchvision.models.list_models()
    if name not in names:
        raise ValueError(f"encoder must be an architecture of torchvision, got {name!r}")
    network = torchvision.models.get_model(name, weights=None)
    modules = dict(network.named_modules())
    chosen = layer or next((known for known in _LAST if known in modules), None)
    if chosen not in modules:
        few = ", ".join(part for part, _ in network.named_children())
        raise ValueError(
            f"encoder_layer must be a module of {name}, got {layer!r}; it has {few} and theirs"
        )
    if weights is not None:
        load_weights(network, weights, f"torchvision:{name}")
    return _Tapped(network, modules[chosen])


class _Tapped(nn.Module):
    """What one layer of a network returns while the network runs."""

    def __init__(self, network: nn.Module, layer: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._found: list[Tensor] = []
        layer.register_forward_hook(lambda module, given, result: self._found.append(result))

    def forward(self, images: Tensor) -> Tensor:
        self._found.clear()
        self.network(images)
        return self._found.pop()


def load_weights(network: nn.Module, weights: str, name: str) -> None:
    """Fill a network from the file of a state dict, wholly or not at all."""
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(f"encoder_weights must be a file, got {path}; download it yourself")
    if path.suffix == ".safetensors":
        state = _imported("safetensors.torch", name).load_file(path)
    else:
        # weights_only: a file of weights must not run code.
        state = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state.get(key), dict) else state
    known = network.state_dict()
    fitting = {key: value for key, value in state.items() if key in known}
    if not fitting:
        raise ValueError(
            f"encoder_weights must be a state dict of {name}, got {path} without any of its keys; "
            f"one of them is {next(iter(known), 'none')}"
        )
    missing = sorted(known.keys() - fitting.keys())
    if missing:
        raise ValueError(
            f"encoder_weights must hold all weights of {name}, got {path} without "
            f"{len(missing)} of them; the first is {missing[0]}"
        )
    try:
        network.load_state_dict(fitting)
    except RuntimeError as problem:
        raise ValueError(f"encoder_weights must fit {name}, got {path}: {problem}") from None
