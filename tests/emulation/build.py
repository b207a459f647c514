"""Builds CUDA sources for the CPU, behind the emulation header.

`python tests/emulation/build.py FOLDER [--sanitize]` builds the module `_emulated` there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CSRC = ROOT / "csrc"

# What the module is made of; the same list of .cu files as in CMakeLists.txt.
SOURCES = [HERE / "module.cpp", *sorted((CSRC / "cuda").glob("*.cu"))]

COMPILE = [
    "-x", "c++", "-std=gnu++20", "-O2", "-fPIC", "-fvisibility=hidden", "-DUSCONF_EMULATE",
    "-DUSCONF_CUDA", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", f"-I{CSRC}",
    f"-I{HERE}", "-include", str(HERE / "cuda_emulation.h"),
]  # fmt: skip
# Shared memory lies in a section of its own, which the sanitizer leaves alone unless told.
SANITIZE = ["-g", "-O1", "-fsanitize=address", "-fsanitize-sections=usconf_shared"]


def compiler():
    """The C++ compiler as a list of words, or None when there is none that takes GNU options."""
    words = os.environ.get("CXX", "g++").split()
    return words if shutil.which(words[0]) else None


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")


def fingerprint(flags):
    """Changes with every source, header and option."""
    digest = hashlib.sha256(repr(flags).encode())
    headers = [path for part in ("", "math", "cuda") for path in (CSRC / part).glob("*.h")]
    for path in sorted([*SOURCES, *headers, *HERE.glob("*.h")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def build_module(folder, sanitize=False):
    """Path of the extension module `_emulated`, built in `folder` unless it is there already."""
    import pybind11

    flags = [*COMPILE, *(SANITIZE if sanitize else [])]
    flags += [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = Path(folder) / fingerprint(flags) / f"_emulated{suffix}"
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    objects = [target.parent / f"{source.stem}.o" for source in SOURCES]
    commands = [
        [*compiler(), *flags, "-c", str(source), "-o", str(object_file)]
        for source, object_file in zip(SOURCES, objects, strict=True)
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(run, commands))
    # Linked under another name first: an interrupted build must not leave half a module behind.
    part = target.with_suffix(".part")
    linked = ["-shared", *(["-fsanitize=address"] if sanitize else [])]
    run([*compiler(), *linked, *map(str, objects), "-o", str(part)])
    part.rename(target)
    return target


def build_program(source, folder, name, *options):
    """Path of the program `name` made of one .cu file with a main of its own."""
    target = Path(folder) / name
    run([*compiler(), *COMPILE, *options, str(source), "-o", str(target)])
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sanitize", action="store_true")
    given = parser.parse_args()
    print(build_module(given.folder, given.sanitize))
