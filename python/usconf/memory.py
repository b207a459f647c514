"""How much memory a call may take."""

from __future__ import annotations

import os
import re
from pathlib import Path

UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}

# A fifth is left to the rest of the program: what counts as available includes the page cache.
SHARE = 0.8


def parse_limit(limit: int | str | None) -> int | None:
    """Bytes of `memory_limit`: a number, or text such as "2GB", "512 MiB"."""
    if limit is None:
        return None
    if isinstance(limit, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", limit.lower())
        size = float(found[1]) * UNITS[found[2]] if found and found[2] in UNITS else 0
    elif isinstance(limit, bool) or not hasattr(limit, "__index__"):
        raise TypeError(
            f'memory_limit must be bytes or text such as "2GB", got {type(limit).__name__}'
        )
    else:
        size = limit.__index__()
    if size < 1:
        raise ValueError(
            f"memory_limit must be a positive number of bytes, got {limit!r}; "
            'write it as 2000000000 or "2GB"'
        )
    return int(size)


def available() -> int | None:
    """Bytes a new allocation may take on this machine or in this container; None if unknown."""
    known = [size for size in (_machine(), _container()) if size is not None]
    return min(known) if known else None


def _machine() -> int | None:
    try:
        text = Path("/proc/meminfo").read_text()
        return int(text.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _container() -> int | None:
    """What cgroup v2 leaves to this process's group."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        cached = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.M)
        return max(0, most - used + (int(cached[1]) if cached else 0))
    except (OSError, ValueError):
        return None


def in_words(size: int) -> str:
    """1234567890 -> "1.23 GB"."""
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if size >= 10**power:
            return f"{size / 10**power:.3g} {unit}"
    return f"{size} bytes"
