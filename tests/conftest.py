"""What every chapter of the test suite shares: real pictures, markers, and no silent skips.

USCONF_DATA      folder of real pictures; without it ../shared/data beside the repository.
USCONF_REQUIRE   comma list of markers, e.g. "torch,emulated,data": the run fails when a test
                 that bears one of them was skipped, or when none of them passed.
"""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from functools import lru_cache
from pathlib import Path

import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

# derandomize: a red run must be red again on the next machine.
hypothesis.settings.register_profile(
    "usconf",
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "fuzz", hypothesis.settings.get_profile("usconf"), derandomize=False, max_examples=500
)
hypothesis.settings.load_profile(os.environ.get("USCONF_HYPOTHESIS", "usconf"))


def absent(module):
    return "" if importlib.util.find_spec(module) else f"{module} is not installed"


@lru_cache
def unusable(module):
    """As absent; and a torchvision that was built for another torch fails with RuntimeError."""
    try:
        importlib.import_module(module)
    except (ImportError, RuntimeError) as problem:
        return absent(module) or f"{module} cannot be imported: {problem}"
    return ""


def no_cuda():
    if missing := absent("torch"):
        return missing
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"


def data_folder():
    """The folder of real pictures, or None. A folder that was named must exist."""
    if named := os.environ.get("USCONF_DATA"):
        if not Path(named).is_dir():
            raise pytest.UsageError(f"USCONF_DATA must name a folder, got {named!r}")
        return Path(named)
    beside = ROOT.parent / "shared" / "data"
    return beside if beside.is_dir() else None


NEEDS = {
    "data": lambda: "" if data_folder() else "no real pictures: set USCONF_DATA to their folder",
    "torch": lambda: absent("torch"),
    "monai": lambda: absent("monai"),
    "cupy": lambda: absent("cupy"),
    "cuda": no_cuda,
    "napari": lambda: absent("napari"),
    "laplace": lambda: unusable("laplace"),
    "timm": lambda: unusable("timm"),
    "torchvision": lambda: unusable("torchvision"),
}


class Required:
    """Turns a run red when a required marker's tests were skipped or never passed."""

    def __init__(self, markers):
        self.markers = markers
        self.passed = Counter()
        self.complaints = []

    def pytest_runtest_logreport(self, report):
        # What is not required, such as a GPU, may be missing.
        elsewhere = (NEEDS.keys() - self.markers) & report.keywords.keys()
        excused = report.skipped and any(NEEDS[marker]() for marker in elsewhere)
        for marker in self.markers & report.keywords.keys():
            if report.skipped and not excused and not hasattr(report, "wasxfail"):
                self.complaints.append(f"[{marker}] skipped: {report.nodeid}")
            elif report.when == "call" and report.passed:
                self.passed[marker] += 1

    def pytest_collectreport(self, report):
        # A module skipped as a whole bears no markers yet: no telling what it would have tested.
        if report.skipped:
            self.complaints.append(f"skipped while collecting: {report.nodeid}")

    def pytest_sessionfinish(self, session):
        for marker in sorted(self.markers - self.passed.keys()):
            self.complaints.append(f"[{marker}] no test that bears it passed")
        if self.complaints and session.exitstatus in (0, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        if self.complaints:
            terminalreporter.section("USCONF_REQUIRE", red=True)
            for complaint in self.complaints:
                terminalreporter.line(complaint, red=True)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config):
    required = {name.strip() for name in os.environ.get("USCONF_REQUIRE", "").split(",")} - {""}
    known = {line.split(":")[0].split("(")[0].strip() for line in config.getini("markers")}
    if unknown := sorted(required - known):
        raise pytest.UsageError(f"USCONF_REQUIRE must name registered markers, got {unknown}")
    if required and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Required(required), "usconf-required")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if "data_dir" in item.fixturenames:
            item.add_marker("data")
    if config.option.slow or "slow" in config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_runtest_setup(item):
    for marker, why_not in NEEDS.items():
        if item.get_closest_marker(marker) and (reason := why_not()):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def data_dir():
    """Folder of real pictures (its layout: linear/, convex/, golden/, ...)."""
    return data_folder()


@pytest.fixture(scope="session")
def frames(data_dir):
    """Loader of real frames: `frames("linear/bone_1_1")` is a read-only (H, W) uint8 array."""
    from PIL import Image

    def load(name):
        with Image.open(data_dir / f"{name}.png") as picture:
            pixels = np.array(picture.convert("L"))
        pixels.flags.writeable = False
        return pixels

    return load


@pytest.fixture(scope="session")
def emulated(request, tmp_path_factory):
    """The extension module `_emulated`: the CUDA kernels on the CPU, built when sources changed."""
    from emulation import build, sanitized

    cache = getattr(request.config, "cache", None)  # None: pytest runs with -p no:cacheprovider
    folder = cache.mkdir("usconf_emulated") if cache else tmp_path_factory.mktemp("emulated")
    path = build.build_module(folder, sanitize=sanitized.VARIABLE in os.environ)
    spec = importlib.util.spec_from_file_location("_emulated", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def no_leaks(emulated):
    """Emulated threads start in order, and the test frees what it takes from the device."""
    from emulation.calls import ORDERS

    emulated.set_thread_order(ORDERS["forward"])
    yield
    emulated.set_memory_limit(2**64 - 1)
    emulated.clear_cache()
    assert emulated.memory_used() == 0


@pytest.fixture
def rng():
    """The same random numbers in every run."""
    return np.random.default_rng(20120818)
