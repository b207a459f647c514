"""The weights file: safetensors in float16, with all that makes the network again."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..atomic import whole

if TYPE_CHECKING:
    import torch

    from ..nn import ConfidenceUNet

FORMAT = "usconf confidence network"
VERSION = 1

_RETRAIN = "usconf train writes such files"


class Weights(NamedTuple):
    """A network ready to use, and what its file says of it."""

    network: ConfidenceUNet
    metadata: dict[str, Any]


def default_path() -> Path:
    """The file that ``weights="default"`` stands for.

    Returns
    -------
    pathlib.Path
        Inside the installed package.

    Examples
    --------
    >>> import usconf
    >>> usconf.weights.default_path().name
    'default.safetensors'
    """
    return Path(__file__).with_name("default.safetensors")


def save(
    path: str | os.PathLike[str], network: Any, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write the weights of a network, as float16, in one file that is there whole or not at all.

    Parameters
    ----------
    path : path-like
        The file, by convention ``*.safetensors``; folders are made, a former file is replaced.
    network : usconf.nn.ConfidenceUNet
        Its config is written too.
    metadata : mapping, optional
        What else to keep, as JSON: ``grid``, the (rows, columns) that `usconf.learned` is to work
        at; seed, metrics and the like. Not ``format``, ``version``, ``config``: those are written
        anyway.

    Raises
    ------
    ValueError
        If a weight is not finite as float16, or the metadata no JSON, takes a name that is taken,
        or holds a grid that is none.
    ImportError
        If torch or safetensors is not installed.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> network = usconf.nn.ConfidenceUNet(width=8)
    >>> usconf.weights.save("tiny.safetensors", network, {"grid": [64, 64], "seed": 1})
    >>> usconf.weights.metadata("tiny.safetensors")["grid"]
    [64, 64]
    """
    torch, safetensors = _torch(), _safetensors()
    more = dict(metadata or {})
    own = {"format": FORMAT, "version": VERSION, "config": dict(network.config)}
    if taken := sorted(own.keys() & more.keys()):
        raise ValueError(f"metadata must not hold {', '.join(taken)}, got them; leave them out")
    if more.get("grid") is not None:
        more["grid"] = list(check_grid("grid", more["grid"]))
    tensors = {}
    for name, tensor in network.state_dict().items():
        half = tensor.detach().to("cpu", torch.float16).contiguous()
        if not bool(half.isfinite().all()):
            raise ValueError(
                f"network must have finite weights within float16, got others in {name}; train "
                "with a lower learning rate"
            )
        tensors[name] = half
    try:
        text = json.dumps({**own, **more}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as problem:
        raise ValueError(f"metadata must be JSON, got something else ({problem})") from None
    # One entry: the order of several differs from file to file.
    content = safetensors.save(tensors, {"usconf": text})
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        part.write_bytes(content)


def load(
    weights: str | os.PathLike[str] = "default",
    *,
    device: Any = "cpu",
    dtype: torch.dtype | str = "float32",
) -> ConfidenceUNet:
    """The network of a weights file, ready to use.

    Parameters
    ----------
    weights : "default" or path-like
        A file of `save`; "default": the one that usconf comes with.
    device : torch.device or str, optional
        Where its tensors go. Default: "cpu".
    dtype : torch.dtype or str, optional
        What they are widened to. Default: float32.

    Returns
    -------
    usconf.nn.ConfidenceUNet
        In evaluation mode, its weights without gradients. The same file, device and dtype give
        the same object until the file changes: copy it (``copy.deepcopy``) before changing it.

    Raises
    ------
    FileNotFoundError
        If there is no such file; names it.
    ValueError
        If it is damaged, of another kind or of another version; names it.
    ImportError
        If torch or safetensors is not installed.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> usconf.weights.save("tiny.safetensors", usconf.nn.ConfidenceUNet("logits", 8))
    >>> usconf.weights.load("tiny.safetensors").head
    'logits'
    """
    return read(weights, device=device, dtype=dtype).network


def metadata(weights: str | os.PathLike[str] = "default") -> dict[str, Any]:
    """What a weights file says of itself.

    Parameters
    ----------
    weights : "default" or path-like
        A file of `save`; "default": the one that usconf comes with.

    Returns
    -------
    dict
        format, version, config (the network's arguments) and what `save` was given: grid, seed,
        metrics and the like.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        As `load`.

    Examples
    --------
    >>> import torch, usconf.nn
    >>> usconf.weights.save("tiny.safetensors", usconf.nn.ConfidenceUNet(width=8), {"seed": 1})
    >>> found = usconf.weights.metadata("tiny.safetensors")
    >>> found["seed"], found["config"]["width"]
    (1, 8)
    """
    return json.loads(json.dumps(read(weights).metadata))


def read(
    weights: str | os.PathLike[str], *, device: Any = "cpu", dtype: torch.dtype | str = "float32"
) -> Weights:
    """`load` and the metadata at once; both are shared by all callers and stay as they are."""
    torch = _torch()
    _safetensors()
    path = _path(weights)
    wanted = getattr(torch, str(dtype).removeprefix("torch."))
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(_missing(weights, path)) from None
    return _read(path, status.st_mtime_ns, status.st_size, torch.device(device), wanted)


@lru_cache(maxsize=8)
def _read(path: Path, modified: int, size: int, device: Any, dtype: Any) -> Weights:
    import torch

    found, tensors = _content(path)
    if found.get("format") != FORMAT:
        raise ValueError(
            f"{path} must hold weights of usconf's network, got another kind of file; {_RETRAIN}"
        )
    if found.get("version") != VERSION:
        raise ValueError(
            f"{path} must be of version {VERSION}, got {found.get('version')!r}; "
            "the usconf that wrote it reads it"
        )
    # Tensors born in inference mode would take part in no gradient ever after.
    with torch.inference_mode(False):
        try:
            network = _filled(found["config"], tensors, device, dtype)
            if found.get("grid") is not None:
                check_grid("grid", found["grid"])
        except (LookupError, TypeError, ValueError, RuntimeError) as problem:
            raise ValueError(_damaged(path, problem)) from None
    return Weights(network, found)


def _filled(
    config: dict[str, Any], tensors: dict[str, Any], device: Any, dtype: Any
) -> ConfidenceUNet:
    import torch

    from ..nn import ConfidenceUNet

    # Nothing is drawn from the caller's random numbers, whatever device is the default one.
    with torch.device("meta"):
        network: Any = ConfidenceUNet(**config)
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError("weights that are not finite")
    copies = {name: tensor.to(device, dtype, copy=True) for name, tensor in tensors.items()}
    network.load_state_dict(copies, assign=True)
    return network.to(memory_format=torch.channels_last).eval().requires_grad_(False)


def _content(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the file says of itself, its tensors); ValueError that names it if it cannot be."""
    content = path.read_bytes()
    try:
        tensors = _safetensors().load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = header.get("__metadata__", {}).get("usconf")
        found = {} if text is None else json.loads(text)
    except Exception as problem:  # whatever a damaged byte leads the reader to, Rust's errors too
        raise ValueError(_damaged(path, problem)) from None
    return (found if isinstance(found, dict) else {}), tensors


def check_grid(name: str, value: Any) -> tuple[int, int]:
    """(rows, columns) as integers; ValueError if it is no such pair."""
    try:
        rows, columns = value
        if rows != int(rows) or columns != int(columns) or min(rows, columns) < 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be (rows, columns), two integers of at least 1, got {value!r}; "
            "e.g. (128, 128)"
        ) from None
    return int(rows), int(columns)


def _path(weights: Any) -> Path:
    if weights == "default":
        return default_path()
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            f'weights must be "default" or the path of a file, got {type(weights).__name__}; '
            "usconf.weights.save writes one"
        )
    return Path(weights).absolute()


def _missing(weights: Any, path: Path) -> str:
    if weights == "default":
        return f"{path} must hold the default weights, but is missing; install usconf again"
    return f'weights must be "default" or the path of a file, got {weights}; {_RETRAIN}'


def _damaged(path: Path, problem: Any) -> str:
    first = str(problem).strip().splitlines()[0] if str(problem).strip() else repr(problem)
    return f"{path} must be a weights file of usconf, but cannot be used ({first}); {_RETRAIN}"


def _torch() -> Any:
    return _library("torch")


def _safetensors() -> Any:
    return _library("safetensors.torch")


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name not in ("torch", "safetensors", name):
            raise
        raise ImportError(
            f'{problem.name} must be installed for method "learned", but is not; '
            'pip install "usconf[learned]"'
        ) from None
