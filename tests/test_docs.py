"""What the pages and docstrings show runs as it is printed there."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import usconf

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Rooms written for torch: importing them imports it.
FOR_TORCH = (
    "usconf.ops", "usconf.nn", "usconf.training", "usconf.weights", "usconf.learned",
    "usconf.uncertainty", "usconf.recipes", "usconf.integrations.monai",
)  # fmt: skip
FOR_MONAI = ("usconf.integrations.monai",)
# They need Qt, and hold no examples: tests/test_napari_window.py.
FOR_QT = {f"usconf.integrations.napari_{name}" for name in ("geometry", "layers", "live", "widget")}
ROOMS = {
    f"usconf.{room}"
    for room in ("integrations", "nn", "ops", "recipes", "training", "uncertainty", "weights")
}
# Not called by users: what fits return, and the base of all geometries.
MADE_FOR_THEM = {"usconf.geometry.FanFit", "usconf.geometry.SupportFit", "usconf.geometry.Geometry"}
MADE_FOR_THEM |= {
    f"usconf.uncertainty.{name}"
    for name in ("AUROC", "DeepLaplace", "Ellipse", "HeadCircumference", "Measures", "Weights")
}


def modules():
    """Names of all modules of the package that are Python, each with the marks it needs."""
    found = []
    for module in pkgutil.walk_packages(usconf.__path__, "usconf.", onerror=lambda name: None):
        if module.name.split(".")[-1] in ("_core", "__main__") or module.name in FOR_QT:
            continue
        marks = [pytest.mark.torch] if module.name.startswith(FOR_TORCH) else []
        marks += [pytest.mark.monai] if module.name.startswith(FOR_MONAI) else []
        found.append(pytest.param(module.name, marks=marks))
    return found


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory and the number of threads as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    before = usconf.get_num_threads()
    yield tmp_path
    usconf.set_num_threads(before)


@pytest.mark.parametrize("name", modules())
def test_docstrings(name, elsewhere):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def public():
    """(name, function or class) of everything that users are told about."""
    rooms = ["usconf", "usconf.io", "usconf.geometry", "usconf.weights"]
    if importlib.util.find_spec("torch"):
        rooms += ["usconf.nn", "usconf.uncertainty"]
    for room in rooms:
        module = importlib.import_module(room)
        for name in module.__all__:
            if f"{room}.{name}" not in ROOMS | MADE_FOR_THEM:
                value = getattr(module, name)
                if inspect.isfunction(value) or inspect.isclass(value):
                    yield f"{room}.{name}", value
    makers = ("demo_frame", "demo_fan", "generate", "strokes")
    for room, names in {"plot": ("overlay", "show"), "phantom": makers}.items():
        module = importlib.import_module(f"usconf.{room}")
        yield from ((f"usconf.{room}.{name}", getattr(module, name)) for name in names)


def test_public_names_have_examples():
    faults = [
        name
        for name, value in public()
        if not issubclass(type(value), type) or not issubclass(value, Exception)
        if ">>>" not in (value.__doc__ or "")
    ]
    assert not faults, faults


def snippets(page):
    """(first line, code) of every Python block of a page, in its order."""
    text = page.read_text(encoding="utf-8")
    for block in re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield text[: block.start()].count("\n") + 2, block[1]


def tell_apart(page):
    needs = "\n".join(code for _, code in snippets(page))
    marks = [getattr(pytest.mark, name) for name in ("torch", "monai") if name in needs]
    return pytest.param(page, id=str(page.relative_to(ROOT)), marks=marks)


@pytest.mark.parametrize("page", [tell_apart(page) for page in PAGES if any(snippets(page))])
def test_snippets(page, elsewhere):
    """Later blocks of a page see the names of earlier ones, as for someone typing along."""
    pytest.importorskip("PIL")
    from usconf import io, phantom

    io.write(elsewhere / "frame.png", phantom.demo_frame(96, 80))
    names = {}
    if any(".plot(" in code for _, code in snippets(page)):
        pytest.importorskip("matplotlib")
    for line, code in snippets(page):
        # Padded, so that a traceback names the line of the page.
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), names)


def test_first_command(elsewhere):
    """`usconf map --demo` of README, as the installed command."""
    pytest.importorskip("PIL")
    assert "usconf map --demo" in README.read_text(encoding="utf-8")
    command = shutil.which("usconf", path=str(Path(sys.executable).parent))
    command = [command] if command else [sys.executable, "-m", "usconf.cli"]
    done = subprocess.run([*command, "map", "--demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("demo.png", "demo_map.png", "demo_overlay.png"):
        assert (elsewhere / name).stat().st_size > 1000


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_links_within_the_repository(page):
    text = page.read_text(encoding="utf-8")
    faults = []
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) + re.findall(r'src="([^"]+)"', text):
        if "://" not in target and not (page.parent / os.path.normpath(target)).exists():
            faults.append(target)
    assert not faults, faults


def test_presets_are_listed_as_they_are():
    """The table of docs/random_walk.md against the code."""
    text = (ROOT / "docs" / "random_walk.md").read_text(encoding="utf-8")
    presets = importlib.import_module("usconf.random_walk").PRESETS
    for name, values in presets.items():
        row = " | ".join(f"{value:g}" for value in values)
        assert f'| `"{name}"` | {row} |' in text, name
