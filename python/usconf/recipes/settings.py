"""Settings of a recipe: a flat YAML file, a dataclass, and changes from the command line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

Settings = TypeVar("Settings")


@dataclass(frozen=True)
class Check:
    """What a value must be, in words, and the function that converts it or raises ValueError."""

    must: str
    convert: Callable[[Any], Any]

    def or_none(self) -> Check:
        """The same, or null."""
        return Check(
            f"{self.must}, or null",
            lambda value: None if value is None else self.convert(value),
        )


def number(low: float, high: float) -> Check:
    """A number from `low` to `high`."""

    def convert(value: Any) -> float:
        # YAML 1.1 reads 1e-3 as text: it wants 1.0e-3.
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError
        if not low <= float(value) <= high:
            raise ValueError
        return float(value)

    return Check(f"a number in [{low:g}, {high:g}]", convert)


def integer(low: int) -> Check:
    """An integer of at least `low`."""

    def convert(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError
        return value

    return Check(f"an integer of at least {low}", convert)


def flag() -> Check:
    """True or false."""

    def convert(value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError
        return value

    return Check("true or false", convert)


def text() -> Check:
    """Text that is not empty."""

    def convert(value: Any) -> str:
        if not isinstance(value, (str, os.PathLike)) or not str(value):
            raise ValueError
        return os.fspath(value)

    return Check("text", convert)


def one_of(*words: str) -> Check:
    """One of these words."""

    def convert(value: Any) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Check("one of " + ", ".join(words), convert)


def list_of(item: Check, least: int = 1) -> Check:
    """A list whose items pass a check; a tuple results."""

    def convert(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) < least:
            raise ValueError
        return tuple(item.convert(part) for part in value)

    return Check(f"a list of at least {least}, each {item.must}", convert)


def setting(default: Any, check: Check) -> Any:
    """Field of a settings dataclass: its default and its check."""
    return field(default=default, metadata={"check": check})


def from_dict(kind: type[Settings], values: Any, name: str = "config") -> Settings:
    """Check a mapping and fill in the defaults.

    Parameters
    ----------
    kind : type
        Dataclass whose fields were made by `setting`.
    values : mapping or None
        Key -> value; None is empty.
    name : str, optional
        What errors call it: the file.

    Returns
    -------
    object of `kind`
        Complete and checked.

    Raises
    ------
    ValueError
        For a key that does not exist or a value that is not what it must be; names file and key.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from usconf.recipes import settings
    >>> @dataclass(frozen=True)
    ... class Some:
    ...     epochs: int = settings.setting(12, settings.integer(1))
    >>> settings.from_dict(Some, {"epochs": 3})
    Some(epochs=3)
    """
    values = {} if values is None else values
    if not isinstance(values, Mapping):
        raise ValueError(f"{name} must be a mapping of keys, got {values!r}; write key: value")
    known = {item.name: item.metadata["check"] for item in fields(kind)}  # type: ignore[arg-type]
    chosen = {}
    for key, value in values.items():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it may be {', '.join(known)}"
            raise ValueError(f"{name}: the key {key} is unknown; {hint}")
        try:
            chosen[key] = known[key].convert(value)
        except (ValueError, TypeError):
            raise ValueError(
                f"{name}: {key} must be {known[key].must}, got {value!r}; change it"
            ) from None
    return kind(**chosen)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file of keys.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    dict
        For `from_dict`.

    Raises
    ------
    ValueError
        If the file is no YAML mapping.
    OSError
        If it cannot be read.
    ImportError
        If PyYAML is not installed.
    """
    yaml = _yaml()
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path} must be a YAML file, got: {problem}; mend it") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold keys and values, got {values!r}; write key: value")
    return values


def changed(values: Mapping[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """Set ``"key=value"`` one after the other, the values in YAML.

    Raises
    ------
    ValueError
        If one is not of that form.
    """
    result = dict(values)
    if not changes:
        return result
    yaml = _yaml()
    for change in changes:
        key, equals, written = change.partition("=")
        try:
            value = yaml.safe_load(written)
        except yaml.YAMLError:
            equals = ""
        if not (key and equals):
            raise ValueError(
                f"a change must be key=value, got {change!r}; for example epochs=20 or folds=3"
            )
        result[key.strip()] = value
    return result


def plain(config: Any) -> dict[str, Any]:
    """The settings as numbers, words and lists; `from_dict` gives the same config back."""
    return {
        item.name: list(value) if isinstance(value := getattr(config, item.name), tuple) else value
        for item in fields(config)
    }


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as problem:
        raise ImportError(
            'reading settings needs PyYAML; run: pip install "usconf[recipes]"'
        ) from problem
    return yaml
