"""Chapters on emulated kernels once more, on a build with AddressSanitizer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from . import build

# Told to the inner run's `emulated` fixture.
VARIABLE = "USCONF_EMULATED_SANITIZE"
skip_inside = pytest.mark.skipif(VARIABLE in os.environ, reason="runs itself sanitized")


def run_again(chapter, chosen):
    """Runs those tests of the file `chapter` that `-k chosen` takes."""
    ask = [*build.compiler(), "-print-file-name=libasan.so"]
    library = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": library,
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own
        VARIABLE: "1",
    }
    command = [sys.executable, "-m", "pytest", chapter, "-q", "-x", "-k", chosen]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "AddressSanitizer" not in done.stdout + done.stderr
