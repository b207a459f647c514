"""Weights of the confidence network: files that hold numbers only, never code."""

from __future__ import annotations

from .storage import default_path, load, metadata, save

__all__ = ["default_path", "load", "metadata", "save"]
