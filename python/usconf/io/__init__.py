"""Reading ultrasound pictures and writing maps in the kind they came in."""

from __future__ import annotations

from .files import read, write
from .picture import Picture, UnreadableError, gray

__all__ = ["Picture", "UnreadableError", "gray", "read", "write"]
