"""Whole experiments of the papers, from data to a report, run by ``usconf recipe``.

``segment``: confidence maps as input channel and in the loss of segmentation networks (Gonzalez
Duque et al.). ``lfusion``: Laplace and dropout uncertainty on a frozen encoder. Each is a package
of its own with `run(config, folder)`; nothing is imported before it is used.
"""

from __future__ import annotations

from .report import Report

__all__ = ["Report"]
