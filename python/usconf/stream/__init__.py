"""A live loop: a frame in, its map out, and how long that took.

`Stream` maps frames of one shape and dtype and records every latency; `Feed` reads a live source
in a thread of its own and hands out the newest frame. Both have no other users than a loop.
"""

from __future__ import annotations

from .feed import Feed, paced
from .latency import Latency
from .stream import Stream

__all__ = ["Feed", "Latency", "Stream", "paced"]
