"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give the name to write under; the file gets its own when the block ends well.

    The bytes are on the disk before the name is, so that a power cut leaves the old file or the
    new one. The name keeps its suffixes: writers choose by them.
    """
    part = path.with_name(f".{uuid.uuid4().hex[:12]}.part{''.join(path.suffixes)}")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        # Also after Ctrl-C: nothing half-written may stay behind.
        part.unlink(missing_ok=True)
