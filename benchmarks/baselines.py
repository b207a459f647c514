"""Everything that makes the same map, called the same way: a uint8 frame in, the map out.

`python benchmarks/baselines.py` lists what this machine can run.
"""

from __future__ import annotations

import importlib
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import usconf

Call = Callable[[np.ndarray], np.ndarray]


class Method(NamedTuple):
    """A way to the map.

    make: imports what it needs and returns the call (ImportError where that is missing);
    largest: side of the largest frame that is run by default;
    exact: whether it solves the system to the end, so that maps may be held against it.
    """

    make: Callable[[], Call]
    largest: int
    exact: bool = True


def _usconf(**parameters: str) -> Callable[[], Call]:
    return lambda: lambda image: usconf.random_walk(image, **parameters)


def _monai(use_cg: bool) -> Call:
    transforms = importlib.import_module("monai.transforms")
    if use_cg:
        importlib.import_module("pyamg")
    transform = transforms.UltrasoundConfidenceMapTransform(use_cg=use_cg)

    def call(image: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy's remarks on the sparse formats
            return np.asarray(transform(image[None])).reshape(image.shape)

    return call


def _given_system(solve: Callable[..., np.ndarray]) -> Call:
    """Around a linear solver; the assembly by usconf is part of the call, and small."""

    def call(image: np.ndarray) -> np.ndarray:
        matrix, rhs, unknown, seeds = usconf.random_walk_system(image)
        seeds.flat[unknown] = solve(matrix.tocsc(), rhs)
        return seeds

    return call


def _spsolve() -> Call:
    from scipy.sparse.linalg import spsolve

    return _given_system(spsolve)


def _cholmod() -> Call:
    cholmod = importlib.import_module("sksparse.cholmod")
    if hasattr(cholmod, "cho_solve"):  # scikit-sparse 0.5
        return _given_system(lambda matrix, rhs: cholmod.cho_solve(matrix, rhs))
    return _given_system(lambda matrix, rhs: cholmod.cholesky(matrix)(rhs))


def _pyamg() -> Call:
    pyamg = importlib.import_module("pyamg")

    def solve(matrix: np.ndarray, rhs: np.ndarray) -> np.ndarray:
        levels = pyamg.ruge_stuben_solver(matrix.tocsr())
        return levels.solve(rhs, tol=1e-8, maxiter=1000, accel="cg")

    return _given_system(solve)


OURS = {
    "usconf": Method(_usconf(), 2048),
    "usconf, float64": Method(_usconf(dtype="float64"), 2048),
    "usconf, iterative": Method(_usconf(solver="iterative"), 2048, exact=False),
}
PEERS = {
    "MONAI spsolve": Method(lambda: _monai(False), 1024),
    "MONAI use_cg": Method(lambda: _monai(True), 512, exact=False),
    "SciPy spsolve, our matrix": Method(_spsolve, 512),
    "CHOLMOD, our matrix": Method(_cholmod, 2048),
    "pyamg RS-CG 1e-8, our matrix": Method(_pyamg, 512, exact=False),
}
METHODS = OURS | PEERS


def available(methods: dict[str, Method]) -> dict[str, Call]:
    """Those whose libraries are installed."""
    found = {}
    for name, method in methods.items():
        try:
            found[name] = method.make()
        except ImportError:
            continue
    return found


class Prototype:
    """The research code that settled the choice of the solver; it reads its own clock.

    folder: holds its main.cpp. Needs g++ with OpenMP and an AVX-512 machine.
    """

    def __init__(self, folder: Path) -> None:
        self._space = tempfile.TemporaryDirectory()
        self._program = Path(self._space.name) / "prototype"
        flags = ["-O3", "-march=native", "-fopenmp", "-std=c++17", "-w"]
        command = ["g++", *flags, str(folder / "main.cpp"), "-o", str(self._program)]
        subprocess.run(command, check=True)

    def seconds(self, image: np.ndarray, threads: int, runs: int) -> float:
        """Median of weights + factor + back substitution + one refinement."""
        raw = Path(self._space.name) / "image.u8"
        raw.write_bytes(image.tobytes())
        sizes = [str(length) for length in image.shape]
        done = subprocess.run(
            [str(self._program), str(raw), *sizes, "none", "15", "15", str(runs)],
            env={"NOERR": "1", "OMP_NUM_THREADS": str(threads)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return float(re.search(r" total (\S+) \(min", done.stdout)[1]) / 1e3


if __name__ == "__main__":
    installed = available(METHODS)
    for name in METHODS:
        print(f"{name}: {'yes' if name in installed else 'not installed'}")
