"""Confidence maps kept on disk under the hash of all that makes them: made once, read ever after.

For training without MONAI too; `usconf.integrations.monai` takes it through ``cache=``.
"""

from __future__ import annotations

import hashlib
import inspect
import io
import math
import os
import warnings
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from .. import _core, arrays
from ..atomic import whole
from ..confidence import METHODS, confidence
from ..geometry import Geometry
from ..geometry.files import to_dict
from ..weights import default_path

# Part of every name: another layout of the files gets other names.
_LAYOUT = "usconf map 1"
_MARK = hashlib.sha256().digest_size


class MapCache:
    """A folder of confidence maps that are looked up by content.

    Parameters
    ----------
    folder : path-like
        Where the maps lie; made when the first one is written. Any number of processes may share
        it, and any number of data sets and methods.

    Raises
    ------
    TypeError
        If it is no path.
    ValueError
        If it is there and is no folder.

    Notes
    -----
    A file's name is the method and the SHA-256 of the image (values, dtype, shape), all parameters
    with their defaults, the content of a weights file, and the version of usconf. Where one of them
    changes another file is written; nothing is ever deleted: to be rid of old maps delete the
    folder. A file is a NumPy array (``numpy.load`` reads it) and, behind it, its hash: damage is
    seen, warned of, and the map made again. Files appear under their names only when complete, so
    workers that make the same map at once do no harm.

    Examples
    --------
    >>> import numpy as np
    >>> from usconf.integrations.map_cache import MapCache
    >>> cache = MapCache("maps")
    >>> image = np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8)
    >>> map = cache.confidence(image, alpha=0.5, beta=100)
    >>> again = cache.confidence(image, alpha=0.5, beta=100)  # from disk
    >>> np.array_equal(map, again), len(list(cache.folder.iterdir()))
    (True, 1)
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if not isinstance(folder, (str, os.PathLike)):
            raise TypeError(
                f"cache must be a folder's path, got {type(folder).__name__}; None keeps no maps"
            )
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(f"cache must be a folder, got the file {self.folder}; name another")

    def confidence(self, image: Any, method: str = "random_walk", **parameters: Any) -> Any:
        """`usconf.confidence`, read from disk where this very map was made before.

        Parameters
        ----------
        image, method, **parameters
            As in `usconf.confidence`, without `return_geometry`.

        Returns
        -------
        same kind of array
            The map, on the image's device; without gradient.

        Raises
        ------
        TypeError, ValueError
            As `usconf.confidence`; and if the method does not know a parameter, or a parameter is
            of a type that has no content to look it up by.
        OSError
            If a map cannot be written.

        Warns
        -----
        UserWarning
            If a file is damaged; and as `usconf.confidence`, for maps that are made.
        """
        resolved = settle(method, parameters)
        arrays.check_pixels(image)
        dtype = arrays.result_dtype(image, resolved.get("dtype"))
        path = self._path(image, method, {**resolved, "dtype": dtype})
        found = _read(path, tuple(image.shape), dtype)
        if found is None:
            made = confidence(image, method, **parameters)
            _write(path, np.ascontiguousarray(arrays.on_host(made)))
            return made.detach() if arrays.kind(made) == "torch" else made
        found = arrays.restored(found, image)
        if arrays.kind(image) == "torch":
            return found.to(image.device)
        return found if arrays.kind(image) == "numpy" else arrays.namespace(image).asarray(found)

    def _path(self, image: Any, method: str, resolved: dict[str, Any]) -> Path:
        digest = hashlib.sha256()
        _tell(digest, "image", image)
        for name, value in sorted(resolved.items()):
            if name == "weights":
                value = _content(value)
            _tell(digest, name, value)
        _tell(digest, "made by", [_LAYOUT, _core.version])
        return self.folder / f"{method}-{digest.hexdigest()}.npy"


def settle(method: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """All parameters of a method, defaults filled in, except `image`.

    Raises
    ------
    ValueError
        If there is no such method.
    TypeError
        If it has no such parameter.
    """
    if method not in METHODS:
        available = ", ".join(repr(name) for name in METHODS)
        raise ValueError(f"method must be one of {available}, got {method!r}; those are available")
    function = getattr(import_module(f"usconf.{method}"), method)
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    known["geometry"] = None
    if unknown := sorted(parameters.keys() - known.keys()):
        raise TypeError(
            f"parameters must be those of {method}, got {', '.join(unknown)}; "
            f"it takes {', '.join(known)}"
        )
    return {**known, **parameters}


def _tell(digest: Any, name: str, value: Any) -> None:
    """Feed a value so that no two different ones feed the same bytes."""
    if isinstance(value, (list, tuple)):
        digest.update(f"{name}:{len(value)} items;".encode())
        for item in value:
            _tell(digest, name, item)
        return
    if isinstance(value, Geometry):
        _tell(digest, name, [f"{key}={item!r}" for key, item in to_dict(value).items()])
        return
    if hasattr(value, "ndim") and value.ndim > 0:
        host = np.require(arrays.on_host(arrays.ready(value)), requirements="C")
        digest.update(f"{name}:{host.dtype.name} {host.shape};".encode())
        digest.update(host.reshape(-1).view(np.uint8).data)
        return
    if hasattr(value, "item"):  # a 0-d array or tensor
        value = value.item()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = float(value)
    if not (value is None or isinstance(value, (bool, float, str))):
        raise TypeError(
            f"{name} must be a number, a word, an array or a geometry to be looked up by its "
            f"content, got {type(value).__name__}; leave cache out"
        )
    text = repr(value)
    digest.update(f"{name}:{len(text)} {text};".encode())


def _content(weights: str | os.PathLike[str]) -> str:
    """The hash of a weights file, whatever its name."""
    path = default_path() if weights == "default" else Path(weights)
    state = path.stat()
    return _hash_of(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _hash_of(path: Path, modified: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _mark(path: Path, body: Any) -> bytes:
    """The name belongs to it: a file under another's name is damage too."""
    return hashlib.sha256(path.name.encode() + hashlib.sha256(body).digest()).digest()


def _read(path: Path, shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    """The map, or None where there is none that is sound."""
    try:
        content = np.fromfile(path, np.uint8)
    except FileNotFoundError:
        return None
    body, mark = content[:-_MARK], content[-_MARK:]
    if _mark(path, body.data) != mark.tobytes():
        warnings.warn(f"{path} is damaged; its map is made again", UserWarning, stacklevel=3)
        return None
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return body[len(body) - size :].view(dtype).reshape(shape)


def _write(path: Path, found: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, found)
    body = buffer.getbuffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part, open(part, "wb") as file:
        file.write(body)
        file.write(_mark(path, body))
