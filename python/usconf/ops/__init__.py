"""The operators of usconf for torch: differentiable, traced by torch.compile.

Importing this module registers them as ``torch.ops.usconf.*``.
"""

from __future__ import annotations

from .. import _core
from .dag import dag
from .despeckle import despeckle
from .pgm import pgm_loss, pgm_loss_with_parts, pgm_parts
from .random_walk import random_walk
from .scan_conversion import to_beam, to_scan
from .uncertainty import uncertainty

# Torch's threads wait for its next operator by spinning, and would hold the cores that others need.
_core.borrow_threads()

__all__ = [
    "dag",
    "despeckle",
    "pgm_loss",
    "pgm_loss_with_parts",
    "pgm_parts",
    "random_walk",
    "to_beam",
    "to_scan",
    "uncertainty",
]
