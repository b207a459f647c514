"""What one training run is: every setting with its default, its check and its place in the YAML."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parent / "recipes"

# Phantom seeds: training below, validation from here up to the held-out ones of usconf.phantom,
# so that neither count nor seed can ever move a frame from one split to the other.
FIRST_VALIDATION_SEED = 900_000

# May differ between a run and its resumption: they change nothing in the loss curve.
FREE_KEYS = frozenset(
    {
        "data.cache",
        "model.grid",
        "train.threads",
        "train.device",
        "train.log",
        "train.checkpoint_every",
        "train.previews",
    }
)

_PATHS = frozenset({("data", "root"), ("data", "cache"), ("model", "weights")})

_Check = tuple[str, Callable[[Any], Any]]


def _number(value: Any) -> float:
    # YAML 1.1 reads 1e-3 as text: it wants 1.0e-3.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError
    return float(value)


def _between(low: float, high: float, text: str) -> _Check:
    def convert(value: Any) -> float:
        number = _number(value)
        if not low <= number <= high:
            raise ValueError
        return number

    return text, convert


def _whole(low: int, *, or_none: bool = False) -> _Check:
    def convert(value: Any) -> int | None:
        if value is None and or_none:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError
        return value

    return f"an integer of at least {low}" + " or null" * or_none, convert


def _one_of(*words: str) -> _Check:
    def convert(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return "one of " + ", ".join(words), convert


def _text(*, or_none: bool = False) -> _Check:
    def convert(value: Any) -> str | None:
        if value is None and or_none:
            return None
        if not isinstance(value, (str, os.PathLike)) or not str(value):
            raise ValueError
        return os.fspath(value)

    return "text" + " or null" * or_none, convert


def _tuple(count: int, text: str, item: Callable[[Any], Any], *, or_none: bool = False) -> _Check:
    def convert(value: Any) -> tuple[Any, ...] | None:
        if value is None and or_none:
            return None
        if not isinstance(value, (list, tuple)) or len(value) != count:
            raise ValueError
        return tuple(item(part) for part in value)

    return text + " or null" * or_none, convert


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


_POSITIVE = _between(1e-12, 1e12, "a positive number")
_NOT_NEGATIVE = _between(0, 1e12, "a number of at least 0")
_SHARE = _between(0, 1, "a number in [0, 1]")
_SIDES = (2, "[rows, columns], integers of at least 8", _whole(8)[1])
_SHAPE = _tuple(*_SIDES)


def _setting(default: Any, check: _Check) -> Any:
    return field(default=default, metadata={"must": check[0], "convert": check[1]})


@dataclass(frozen=True, kw_only=True)
class PhantomData:
    """Frames made by `usconf.phantom.generate`: `count` to train on, `validation` to judge by."""

    source: str = _setting("phantoms", _one_of("phantoms"))
    count: int = _setting(3000, _whole(1))
    validation: int = _setting(200, _whole(1))
    clips: int = _setting(4, _whole(0))
    shape: tuple[int, int] = _setting((128, 128), _SHAPE)
    seed: int = _setting(0, _whole(0))
    cache: str | None = _setting(None, _text(or_none=True))


@dataclass(frozen=True, kw_only=True)
class FolderData:
    """Own frames with strokes: a folder with manifest.csv."""

    source: str = _setting("folder", _one_of("folder"))
    root: str = _setting(MISSING, _text())
    validation: float = _setting(0.2, _between(0, 0.9, "a number in [0, 0.9]"))
    shape: tuple[int, int] = _setting((128, 128), _SHAPE)
    seed: int = _setting(0, _whole(0))


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network, and the weights it starts from (null: random; default: those of the wheel).

    grid: what `usconf.learned` shrinks larger frames to; null: the shape of the data.
    """

    head: str = _setting("monotone", _one_of("monotone", "logits"))
    width: int = _setting(32, _whole(4))
    weights: str | None = _setting(None, _text(or_none=True))
    grid: tuple[int, int] | None = _setting(None, _tuple(*_SIDES, or_none=True))


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The PGM loss: gamma grows from gamma_start over the first `anneal` of the steps."""

    gamma: float = _setting(75.0, _POSITIVE)
    gamma_start: float = _setting(0.375, _POSITIVE)
    anneal: float = _setting(0.6, _SHARE)
    decay_total: float = _setting(0.3, _NOT_NEGATIVE)
    sigma: float = _setting(0.25, _NOT_NEGATIVE)
    label_weights: tuple[float, float, float] = _setting(
        (1.0, 8.0, 8.0),
        _tuple(3, "[none, good, bad], numbers of at least 0", _NOT_NEGATIVE[1]),
    )


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far frames are changed; 0 (flip: false) turns a change off."""

    flip: bool = _setting(True, ("true or false", _flag))
    zoom: float = _setting(0.4, _between(0, 0.9, "a number in [0, 0.9]"))
    top_crop: float = _setting(0.1, _between(0, 0.5, "a number in [0, 0.5]"))
    gamma: float = _setting(0.5, _between(0, 2, "a number in [0, 2]"))
    gain: float = _setting(0.35, _between(0, 2, "a number in [0, 2]"))
    depth_gain: float = _setting(0.5, _between(0, 2, "a number in [0, 2]"))
    floor: float = _setting(0.15, _between(0, 0.9, "a number in [0, 0.9]"))
    noise: float = _setting(0.06, _SHARE)
    blur: float = _setting(0.5, _SHARE)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Steps, optimiser (AdamW, warm-up, cosine) and what is written when."""

    steps: int = _setting(4000, _whole(1))
    batch: int = _setting(8, _whole(1))
    learning_rate: float = _setting(1e-3, _POSITIVE)
    warmup: float = _setting(0.03, _SHARE)
    weight_decay: float = _setting(0.01, _NOT_NEGATIVE)
    clip: float = _setting(1.0, _POSITIVE)
    ema: float = _setting(0.0, _between(0, 0.99999, "a number in [0, 1)"))
    seed: int = _setting(0, _whole(0))
    threads: int | None = _setting(None, _whole(1, or_none=True))
    device: str = _setting("auto", _text())
    precision: str = _setting("float32", _one_of("float32", "bfloat16"))
    checkpoint_every: int = _setting(200, _whole(1))
    validate_every: int = _setting(500, _whole(1))
    previews: int = _setting(6, _whole(0))
    log: str = _setting("csv", _one_of("csv", "tensorboard", "both"))


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run.

    Examples
    --------
    >>> from usconf.training.config import from_dict
    >>> config = from_dict({"train": {"steps": 100}})
    >>> config.train.steps, config.loss.gamma, config.data.shape
    (100, 75.0, (128, 128))
    """

    data: PhantomData | FolderData = field(default_factory=PhantomData)
    model: Model = field(default_factory=Model)
    loss: Loss = field(default_factory=Loss)
    augmentation: Augmentation = field(default_factory=Augmentation)
    train: Train = field(default_factory=Train)

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Plain numbers, words and lists; `from_dict` gives the same config back."""
        return {
            section.name: {
                item.name: _plain(getattr(getattr(self, section.name), item.name))
                for item in fields(getattr(self, section.name))
            }
            for section in fields(self)
        }


def from_dict(values: Any, name: str = "config", folder: Path | None = None) -> Config:
    """Check a mapping of sections and fill in the defaults.

    Parameters
    ----------
    values : mapping
        Sections data, model, loss, augmentation, train; each a mapping, each optional.
    name : str, optional
        What errors call it: the file.
    folder : path, optional
        Where relative paths start; default: the working directory.

    Returns
    -------
    Config
        Complete and checked.

    Raises
    ------
    ValueError
        For a key that does not exist, a missing one, or a value out of range; names file and key.
    """
    values = {} if values is None else values
    _known(values, [section.name for section in fields(Config)], name, "")
    data = values.get("data") or {}
    _mapping(data, name, "data")
    source = data.get("source", "phantoms")
    kinds = {"phantoms": PhantomData, "folder": FolderData}
    if not isinstance(source, str) or source not in kinds:
        raise ValueError(
            f"{name}: data.source must be one of {', '.join(kinds)}, got {source!r}; "
            "folder reads your own frames"
        )
    sections: dict[str, Any] = {"data": _section(kinds[source], data, name, "data")}
    for key, kind in _SECTIONS.items():
        sections[key] = _section(kind, values.get(key) or {}, name, key)
    config = Config(**_absolute(sections, folder or Path.cwd()))
    _check_seeds(config, name)
    _check_together(config, name)
    return config


def read(
    path: str | os.PathLike[str], changes: Sequence[str] = (), folder: Path | None = None
) -> Config:
    """Read a YAML file.

    Parameters
    ----------
    path : path-like
        The file.
    changes : sequence of str, optional
        Settings to change, each ``"section.key=value"`` with the value in YAML; relative paths in
        them start at the working directory.
    folder : path, optional
        Where relative paths in the file start; default: at its folder.

    Returns
    -------
    Config
        Complete and checked.

    Raises
    ------
    ValueError
        As `from_dict`, or if the file is no YAML; names the file.
    OSError
        If it cannot be read.
    ImportError
        If PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError as error:
        raise ImportError(
            'reading a config needs PyYAML; run: pip install "usconf[train]"'
        ) from error
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be a YAML file, got: {error}") from None
    values = {} if values is None else values
    _mapping(values, str(path), "")
    for change in changes:
        values = _with(values, change, yaml, str(path))
    return from_dict(values, str(path), folder or path.resolve().parent)


def _with(values: Any, change: str, yaml: Any, name: str) -> dict[str, Any]:
    place, equals, text = change.partition("=")
    section, dot, key = place.partition(".")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        equals = ""
    if not (equals and dot and section and key):
        raise ValueError(f"a change must be section.key=value, got {change!r}")
    if (section, key) in _PATHS and isinstance(value, str) and value != "default":
        value = str(Path(value).expanduser().absolute())
    inside = values.get(section) or {}
    _mapping(inside, name, section)
    return {**values, section: {**inside, key: value}}


def recipe(name: str) -> Path:
    """Where a recipe that comes with the package lies; ValueError for a name that is none."""
    path = RECIPES / f"{name}.yaml"
    names = sorted(entry.stem for entry in RECIPES.glob("*.yaml"))
    if name not in names:
        raise ValueError(f"recipe must be one of {', '.join(names)}, got {name!r}")
    return path


def differences(one: Config, other: Config) -> list[str]:
    """Keys whose values differ and matter for the loss curve, as section.key."""
    before, after = one.to_dict(), other.to_dict()
    found = []
    for section in before:
        for key in {**before[section], **after[section]}:
            name = f"{section}.{key}"
            if name not in FREE_KEYS and before[section].get(key) != after[section].get(key):
                found.append(name)
    return found


_SECTIONS: dict[str, Any] = {
    "model": Model,
    "loss": Loss,
    "augmentation": Augmentation,
    "train": Train,
}


def _section(kind: Any, values: Any, name: str, section: str) -> Any:
    _mapping(values, name, section)
    known = {item.name: item for item in fields(kind)}
    _known(values, list(known), name, section)
    chosen = {}
    for key, item in known.items():
        if key not in values:
            if item.default is MISSING:
                raise ValueError(f"{name}: {section}.{key} must be given; write its value")
            continue
        try:
            chosen[key] = item.metadata["convert"](values[key])
        except ValueError:
            raise ValueError(
                f"{name}: {section}.{key} must be {item.metadata['must']}, got {values[key]!r}"
            ) from None
    return kind(**chosen)


def _mapping(values: Any, name: str, section: str) -> None:
    if not isinstance(values, Mapping):
        where = section or "the file"
        raise ValueError(f"{name}: {where} must be a mapping of keys, got {values!r}")


def _known(values: Any, known: list[str], name: str, section: str) -> None:
    _mapping(values, name, section)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it may be {', '.join(known)}"
            full = f"{section}.{key}" if section else str(key)
            raise ValueError(f"{name}: the key {full} is unknown; {hint}")


def _absolute(sections: dict[str, Any], folder: Path) -> dict[str, Any]:
    data, model = sections["data"], sections["model"]
    for key in ("root", "cache"):
        value = getattr(data, key, None)
        if value is not None:
            data = replace(data, **{key: str((folder / Path(value).expanduser()).resolve())})
    if model.weights not in (None, "default"):
        path = (folder / Path(model.weights).expanduser()).resolve()
        model = replace(model, weights=str(path))
    return {**sections, "data": data, "model": model}


def _check_seeds(config: Config, name: str) -> None:
    data = config.data
    if not isinstance(data, PhantomData):
        return
    if data.seed + data.count > FIRST_VALIDATION_SEED:
        raise ValueError(
            f"{name}: data.seed + data.count must be at most {FIRST_VALIDATION_SEED}, got "
            f"{data.seed} + {data.count}; the seeds from {FIRST_VALIDATION_SEED} on are for "
            "validation, those of usconf.phantom.HELD_OUT are never trained on"
        )
    if data.validation + data.clips > 100_000:
        raise ValueError(
            f"{name}: data.validation + data.clips must be at most 100000, got "
            f"{data.validation} + {data.clips}; seeds beyond are held out"
        )


def _check_together(config: Config, name: str) -> None:
    if config.loss.gamma_start > config.loss.gamma:
        raise ValueError(
            f"{name}: loss.gamma_start must be at most loss.gamma, got {config.loss.gamma_start:g} "
            f"and {config.loss.gamma:g}; it grows"
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
