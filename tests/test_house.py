"""The rules of the house, read off the files themselves (CONTRIBUTING has the map)."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CSRC = ROOT / "csrc"
PYTHON = ROOT / "python" / "usconf"
NATIVE = {".h", ".hpp", ".cpp", ".cu", ".cuh"}

# csrc: folder -> folders it may include from ("" = csrc itself: kernels.h, module.cpp).
MAY_INCLUDE = {
    "math": {"math"},
    "solver": {"math", "solver"},
    "cpu": {"math", "solver", "cpu", ""},
    "cuda": {"math", "solver", "cuda", ""},
    "": {"math", ""},
}
# python: a module imports only from its own floor and the floors below; unnamed ones are methods.
FLOORS = [
    {"_core"},
    {"arrays"},
    set(),
    {"nn", "geometry", "confidence", "weights", "learned", "uncertainty"},
    {"training", "io", "cli", "integrations", "plot", "phantom", "recipes", "stream"},
]
METHODS = 2
# Who may name an array library: arrays tells them apart, the others are written for torch.
ARRAY_LIBRARIES = {"torch", "cupy", "cupyx"}
FOR_TORCH = {"ops", "nn", "weights", "learned", "uncertainty", "training", "integrations"}
FOR_TORCH |= {"recipes", "stream"}


def repository_files():
    """What git would hand in: tracked files and new ones that it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:  # an unpacked sdist
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    else:
        found = [Path(name) for name in listed.stdout.split("\0") if name]
    hidden = {".hypothesis", ".ruff_cache", ".pytest_cache", "__pycache__"}
    return sorted(p for p in found if (ROOT / p).is_file() and not hidden & set(p.parts))


FILES = repository_files()


def text_of(path):
    """The file as text, or "" for a picture and the like."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def complain(faults):
    assert not faults, "\n" + "\n".join(faults)


# csrc


def native_files():
    return [path for path in FILES if path.parts[0] == "csrc" and path.suffix in NATIVE]


def includes(path):
    return re.findall(r'^\s*#\s*include\s*(["<])([^">]+)', text_of(path), re.MULTILINE)


def folder(path):
    """The room of csrc that a file of it belongs to."""
    inside = path.relative_to(CSRC)
    return inside.parts[0] if len(inside.parts) > 1 else ""


def test_csrc_includes_leftwards_only():
    faults = []
    for path in native_files():
        here = ROOT / path
        if path.name == "module.cpp":
            continue
        for quote, name in includes(path):
            spots = [here.parent / name, CSRC / name] if quote == '"' else []
            target = next((spot.resolve() for spot in spots if spot.is_file()), None)
            if target is None or not target.is_relative_to(CSRC):
                continue
            if folder(target) not in MAY_INCLUDE.get(folder(here), {folder(here)}):
                faults.append(f"{path} includes {name}")
    complain(faults)


def test_core_knows_neither_torch_nor_python():
    foreign = re.compile(r"^(torch|ATen|c10|Python\.h|numpy|cub|thrust)\b")
    faults = []
    for path in native_files():
        for _, name in includes(path):
            bound = name.startswith("pybind11") and path.name != "module.cpp"
            if foreign.match(name) or bound:
                faults.append(f"{path} includes {name}")
    complain(faults)


def test_cpu_and_cuda_never_see_each_other():
    faults = []
    for path in native_files():
        room = folder(ROOT / path)
        other = {"cpu": "cuda", "cuda": "cpu"}.get(room)
        if other and re.search(rf"\b{other}::", re.sub(r"//.*", "", text_of(path))):
            faults.append(f"{path} names {other}::")
    complain(faults)


def test_cmake_lists_sources_by_name():
    listed = text_of("CMakeLists.txt")
    assert not re.search(r"file\s*\(\s*GLOB", listed, re.IGNORECASE)
    sources = [str(path) for path in native_files() if path.suffix in (".cpp", ".cu")]
    complain([f"{name} is not in CMakeLists.txt" for name in sources if name not in listed])


def test_wheels_run_on_other_machines():
    """Nothing tuned to the building machine, nothing that sets flush-to-zero for the process."""
    forbidden = re.compile(r"m(arch|tune)=native|ffast-math|Ofast|use_fast_math|funsafe-math")
    builds = [
        path
        for path in FILES
        if path.name in ("CMakeLists.txt", "pyproject.toml") or path.suffix == ".cmake"
    ]
    assert builds
    complain(
        [f"{path}: {found[0]}" for path in builds if (found := forbidden.search(text_of(path)))]
    )


# python


def python_files():
    return [path for path in FILES if path.is_relative_to("python/usconf") and path.suffix == ".py"]


def room_of(path):
    """The top-level module or package of usconf that a file belongs to."""
    inside = (ROOT / path).relative_to(PYTHON)
    return inside.parts[0].removesuffix(".py")


def floor(room):
    return next((level for level, rooms in enumerate(FLOORS) if room in rooms), METHODS)


def only_for_types(tree):
    """Imports under `if TYPE_CHECKING:` bind nothing at run time."""
    blocks = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    ]
    return {id(inner) for block in blocks for part in block.body for inner in ast.walk(part)}


def imported(path):
    """Full dotted names of all that a file of the package imports, wherever it does."""
    tree = ast.parse(text_of(path))
    skipped = only_for_types(tree)
    package = ["usconf", *(ROOT / path).relative_to(PYTHON).parts[:-1]]
    names = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names += [f"{start}.{alias.name}" for alias in node.names]
    return names


def test_python_imports_leftwards_only():
    faults = []
    for path in python_files():
        room = room_of(path)
        if room.startswith("__"):
            continue
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "usconf" and len(parts) > 1 and floor(parts[1]) > floor(room):
                faults.append(f"{path} imports {name}")
    complain(faults)


def test_only_arrays_tells_libraries_apart():
    faults = []
    for path in python_files():
        room = room_of(path)
        if room == "arrays":
            continue
        allowed = {"torch"} if room in FOR_TORCH else set()
        named = {name.split(".")[0] for name in imported(path)}
        faults += [f"{path} imports {name}" for name in named & (ARRAY_LIBRARIES - allowed)]
        looked_up = r"__(cuda_)?array_interface__|sys\.modules(\.get\(|\[)\s*[\"'](torch|cupy)"
        if re.search(looked_up, text_of(path)):
            faults.append(f"{path} looks for an array library")
    complain(faults)


def test_oracles_stand_alone():
    faults = []
    for path in FILES:
        if path.is_relative_to("tests/reference") and path.suffix == ".py":
            tree = ast.parse(text_of(path))
            for node in ast.walk(tree):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                else:
                    continue
                faults += [
                    f"{path} imports {name}"
                    for name in names
                    if name.split(".")[0] not in {"__future__", "typing", "math", "numpy", "scipy"}
                    and not (isinstance(node, ast.ImportFrom) and node.level)
                ]
    complain(faults)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


HEAVY = {"torch", "cupy", "monai", "matplotlib", "PIL", "pydicom", "nibabel", "av", "cv2"}
HEAVY |= {"safetensors", "onnx", "onnxruntime", "yaml", "tensorboard", "napari", "qtpy"}


@pytest.mark.parametrize(
    "use",
    [
        "",
        "usconf.random_walk(numpy.eye(9)); usconf.confidence",
        "usconf.learned, usconf.pgm_loss, usconf.weights.default_path()",
    ],
)
def test_import_is_light(use):
    code = f"import sys, numpy, usconf\n{use}\nprint(*({HEAVY!r} & sys.modules.keys()))"
    assert run(code) == []


def test_import_is_fast():
    code = (
        "from time import perf_counter as now; start = now(); import usconf; print(now() - start)"
    )
    run(code)  # compiles and fills the page cache
    seconds = [float(run(code)[0]) for _ in range(7)]
    assert statistics.median(seconds) < 0.150, seconds  # issue 2


# everywhere


def test_names_say_what_is_inside():
    empty = re.compile(r"(^|_)(utils?|helpers?|common|misc|managers?|stuff|tools?)(_|\.|$)")
    faults = [str(path) for path in FILES if any(empty.search(part) for part in path.parts)]
    complain(faults)


def test_files_are_rooms_not_halls():
    faults = []
    for path in FILES:
        if path.suffix in NATIVE | {".py", ".pyi"}:
            lines = text_of(path).count("\n")
            if lines > 450:
                faults.append(f"{path}: {lines} lines")
    complain(faults)


def test_no_path_of_a_machine():
    path_of = re.compile(r"(?<![\w.])/(?:work|root|home/\w+|tmp/dev|Users/\w+)/")
    faults = []
    for path in FILES:
        for number, line in enumerate(text_of(path).splitlines(), 1):
            if path_of.search(line):
                faults.append(f"{path}:{number}: {line.strip()[:80]}")
    complain(faults)


def test_no_large_files():
    complain([str(path) for path in FILES if (ROOT / path).stat().st_size > 2**20])


def test_nothing_left_unfinished():
    word = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b|raise NotImplementedError")
    faults = []
    for path in FILES:
        if path != Path("tests/test_house.py") and path.suffix in NATIVE | {".py", ".md", ".txt"}:
            for number, line in enumerate(text_of(path).splitlines(), 1):
                if word.search(line):
                    faults.append(f"{path}:{number}: {line.strip()[:80]}")
    complain(faults)
