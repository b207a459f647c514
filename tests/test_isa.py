"""All builds of the CPU kernels give the same maps, and none leaks code into another."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from usconf import _core

ROOT = Path(__file__).resolve().parents[1]
ISAS = _core.isa_list()

# What CMakeLists.txt gives every ISA object; -march comes from its usconf_isa() lines.
FLAGS = (
    "-std=gnu++20 -O3 -DNDEBUG -fPIC -fvisibility=hidden -fopenmp-simd -fno-math-errno "
    "-fno-trapping-math -fno-exceptions -fno-rtti -DUSCONF_ALL_ISAS"
).split()

# Maps and gradients of one process, whose kernels are chosen when it starts.
WORK = """
import sys
import numpy as np, usconf
from usconf import _core
random = np.random.default_rng(5)
noise = random.random((75, 66))
image = sum(noise[y:y + 73, x:x + 64] for y in range(3) for x in range(3))
image[30:, 20:34] *= 0.1
clip = random.integers(1, 256, (3, 31, 47), np.uint8)
mask = np.add.outer(np.arange(73), np.abs(np.arange(64) - 30)) > 12
cases = {
    "float32": usconf.random_walk(image.astype(np.float32)),
    "float64": usconf.random_walk(image),
    "clip": usconf.random_walk(clip, axes="thw", sink="mid"),
    "masked": usconf.random_walk(image.astype(np.float32), mask=mask),
    "masked64": usconf.random_walk(image, mask=mask, sink="min"),
    "iterative": usconf.random_walk(image.astype(np.float32), solver="iterative"),
    "RF": usconf.random_walk(image.astype(np.float32), mode="RF"),
    "integers": usconf.random_walk((100 * image).astype(np.int16)[::2]),
    "older": usconf.random_walk(image.astype(np.float32), variant="monai_1_3", beta=300),
    "tall": usconf.random_walk(np.repeat(image, 4, axis=0)[:, :3].astype(np.float32)),
}
# MMX instructions leave the x87 registers, and so long double, unusable.
product = np.longdouble(2) * np.longdouble(3)
np.savez(sys.argv[1], isa=_core.isa(), product=float(product), **cases)
"""


def process(isa, *arguments):
    """Python in a fresh process with the ISA forced, or with the choice left free (None)."""
    environment = {key: value for key, value in os.environ.items() if key != "USCONF_ISA"}
    if isa is not None:
        environment["USCONF_ISA"] = isa
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    """ISA -> name of a case -> map"""
    folder = tmp_path_factory.mktemp("isa")
    found = {}
    for isa in ISAS:
        done = process(isa, "-c", WORK, str(folder / f"{isa}.npz"))
        assert done.returncode == 0, done.stderr
        found[isa] = dict(np.load(folder / f"{isa}.npz"))
    return found


def test_each_is_used_when_named(maps):
    assert ISAS[0] == "baseline"
    for isa in ISAS:
        assert maps[isa]["isa"] == isa


def test_no_trace_is_left_in_the_processor(maps):
    for isa in ISAS:
        assert maps[isa]["product"] == 6.0, f"{isa} leaves the x87 registers in MMX mode"


@pytest.mark.parametrize("case", re.findall(r'^    "(\w+)":', WORK, re.MULTILINE))
def test_they_agree(maps, case):
    # float32 maps are exact to 1e-6; 5e-7 between any two keeps a worst case in sight.
    tolerance = 1e-10 if maps["baseline"][case].dtype == np.float64 else 5e-7
    for one, other in combinations(ISAS, 2):
        apart = np.abs(maps[one][case] - maps[other][case]).max()
        assert apart <= tolerance, f"{one} and {other} differ by {apart:.1e}"


def test_the_best_is_the_default():
    done = process(None, "-c", "from usconf import _core; print(_core.isa())")
    assert done.stdout.strip() == ISAS[-1], done.stderr


def test_an_unknown_one_is_refused():
    done = process("pentium", "-c", "import numpy, usconf; usconf.random_walk(numpy.eye(9))")
    assert done.returncode != 0
    message = rf"USCONF_ISA must be one of {', '.join(ISAS)} on this machine, got pentium; "
    assert message in done.stderr


def kernel_builds():
    """(sources, {namespace: -march flags}) of CMakeLists.txt"""
    listed = (ROOT / "CMakeLists.txt").read_text()
    sources = re.search(r"set\(ISA_SOURCES\s([^)]*)\)", listed)[1].split()
    builds = re.findall(r"usconf_isa\(x86-64-v\d (\w+) ([^)]*)\)", listed)
    return sources, {namespace: flags.split() for namespace, flags in builds}


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """Kernel objects: those in the folder USCONF_ISA_OBJECTS, else built here for AVX-512."""
    if folder := os.environ.get("USCONF_ISA_OBJECTS"):
        return sorted(Path(folder).rglob("*_kernels.cpp.o"))
    compiler = os.environ.get("CXX", "g++").split()
    if len(ISAS) == 1 or not shutil.which(compiler[0]):
        pytest.skip("needs a C++ compiler for x86-64")
    sources, builds = kernel_builds()
    namespace, march = next(reversed(builds.items()))
    target = tmp_path_factory.mktemp("objects")
    flags = [*FLAGS, *march, f"-DUSCONF_ISA_NAMESPACE={namespace}", f"-I{ROOT / 'csrc'}"]

    def build(source):
        output = target / f"{Path(source).name}.o"
        command = [*compiler, *flags, "-c", str(ROOT / source), "-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return output

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(build, sources))


@pytest.mark.skipif(not shutil.which("nm"), reason="needs nm (binutils)")
def test_no_weak_symbol_in_their_objects(objects):
    """The linker keeps one copy of a weak function: AVX-512 code could end up in the baseline."""
    assert objects
    faults = []
    for path in objects:
        listed = subprocess.run(
            ["nm", "--defined-only", "--demangle", str(path)],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        kinds = re.findall(r"^\S*\s+(\w) (.+)$", listed, re.MULTILINE)
        assert any(kind == "T" and "kernels()" in name for kind, name in kinds), path.name
        faults += [f"{path.name}: {name}" for kind, name in kinds if kind in "WwVvu"]
    assert not faults, "\n".join(faults)


def test_flags_are_those_of_the_build():
    """The objects above stand for the wheel's only as long as they are built alike."""
    listed = (ROOT / "CMakeLists.txt").read_text()
    for flag in FLAGS:
        word = flag.removeprefix("-DUSCONF_")
        known = {"-std=gnu++20": "CMAKE_CXX_EXTENSIONS ON", "-fPIC": "POSITION_INDEPENDENT_CODE ON",
                 "-fvisibility=hidden": "VISIBILITY_PRESET hidden"}  # fmt: skip
        assert known.get(word, word) in listed, flag
