"""The package's names, its settings, and what it says of itself."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import usconf
from usconf import config


@pytest.fixture
def threads():
    before = usconf.get_num_threads()
    yield
    usconf.set_num_threads(before)


def test_public_names():
    assert set(usconf.__all__) <= set(dir(usconf))
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", usconf.__version__)
    assert callable(usconf.random_walk) and callable(usconf.confidence)
    with pytest.raises(AttributeError, match="no attribute 'random_wok'"):
        _ = usconf.random_wok


def test_functions_are_not_hidden_by_their_modules():
    code = (
        "import importlib, usconf\n"
        "for name in ('random_walk', 'random_walk_system', 'confidence', 'envelope'):\n"
        "    module = importlib.import_module('usconf.' + name)\n"
        "    assert getattr(usconf, name) is getattr(module, name)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_of_an_optional_library_are_not_swallowed(monkeypatch):
    monkeypatch.delattr(usconf, "ops", raising=False)
    monkeypatch.setitem(sys.modules, "usconf.ops", None)
    with pytest.raises(ImportError):
        _ = usconf.ops


def test_show_config(capsys):
    assert usconf.show_config() is None
    text = capsys.readouterr().out
    for line in (
        rf"^usconf {re.escape(usconf.__version__)}$",
        r"^instruction set: \S+ \(usable: .+\)$",
        rf"^threads: {usconf.get_num_threads()} \(default \d+\)$",
        r"^CUDA: .+$",
        rf"^numpy: {re.escape(np.__version__)}$",
        r"^cupy: .+$",
    ):
        assert re.search(line, text, re.MULTILINE), line


def test_show_config_imports_nothing_heavy():
    code = "import sys, usconf; usconf.show_config(); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not re.search(r"'(torch|cupy|monai|matplotlib|PIL|scipy)'", done.stdout)


CUDA = {
    "built": True,
    "runtime": 13000,
    "driver": 13020,
    "devices": ["NVIDIA H200"],
    "architectures": "75;90",
    "message": "",
}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"built": False}, "^not built$"),
        ({}, r"^built for 75;90 with runtime 13\.0; driver for CUDA 13\.2; devices: NVIDIA H200$"),
        ({"driver": 0, "devices": []}, r"no driver; devices: none$"),
        ({"driver": 12080}, r"driver too old: it supports CUDA 12\.8"),
        ({"message": "all devices are busy"}, r"; all devices are busy$"),
    ],
)
def test_cuda_in_words(monkeypatch, found, said):
    monkeypatch.setattr(config._core, "cuda", lambda: CUDA | found)
    assert re.search(said, config._cuda())


def test_threads_are_set(threads):
    for count in (1, 3, np.int64(2)):
        usconf.set_num_threads(count)
        assert usconf.get_num_threads() == count


@pytest.mark.parametrize("count", [0, -1, True])
def test_too_few_threads(threads, count):
    with pytest.raises((TypeError, ValueError), match=r"^threads must .*got"):
        usconf.set_num_threads(count)
    assert usconf.get_num_threads() >= 1


@pytest.mark.parametrize("count", ["2", 2.0, None])
def test_threads_of_another_type(count):
    with pytest.raises(TypeError, match=r"^threads must be an integer, got"):
        usconf.set_num_threads(count)


def test_clear_cache_changes_nothing(rng):
    image = rng.random((33, 21))
    before = usconf.random_walk(image)
    assert usconf.clear_cache() is None
    np.testing.assert_array_equal(usconf.random_walk(image), before)


def test_typed():
    folder = Path(importlib.import_module("usconf.config").__file__).parent
    assert (folder / "py.typed").is_file() and (folder / "_core.pyi").is_file()


def test_stub_names_what_the_core_has():
    core = importlib.import_module("usconf._core")
    stub = (Path(config.__file__).parent / "_core.pyi").read_text()
    named = set(re.findall(r"^(?:def )?(\w+)(?:\(|: )", stub, re.MULTILINE)) - {"class"}
    assert named <= set(dir(core)), named - set(dir(core))


def test_works_from_another_folder(tmp_path):
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    code = "import numpy, usconf; print(usconf.random_walk(numpy.eye(9)).shape)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "(9, 9)", done.stderr
