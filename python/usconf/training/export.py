"""Networks for other runtimes: torch.export and ONNX, each compared with what it was made from."""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import weights as weight_files
from ..atomic import whole
from ..nn import ConfidenceUNet
from ..weights.storage import check_grid
from . import checkpoint as checkpoints

SUFFIXES = (".pt2", ".onnx")

# Largest difference of two maps in [0, 1] by float32 kernels that sum in another order; seen: 2e-6.
PARITY = 1e-4


class Exported(NamedTuple):
    """What was written, for which frames, and how far its maps are from the network's."""

    path: Path
    size: tuple[int, int]
    difference: float


class Map(nn.Module):
    """Images as they come to confidence in [0, 1], both (B, 1, H, W) float32.

    Parameters
    ----------
    network : usconf.nn.ConfidenceUNet
        Its logits go through a sigmoid.
    """

    def __init__(self, network: ConfidenceUNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """The map."""
        return self.network(image).sigmoid()


def export(
    source: str | os.PathLike[str] | ConfidenceUNet,
    output: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
) -> Exported:
    """Write a network as a file that runs without usconf, and compare the two.

    The file takes ``image`` (B, 1, H, W), float32 of any scale, and gives ``confidence`` of the
    same shape, in [0, 1]. B is free; H and W are fixed: resample images before, as
    `usconf.learned` does.

    Parameters
    ----------
    source : "default", path-like or usconf.nn.ConfidenceUNet
        Weights (``.safetensors``), a checkpoint of ``usconf train`` (``.pt``; of its two sets of
        weights the averaged ones, where it has them), or a network.
    output : path-like
        ``*.pt2`` for `torch.export.load`, ``*.onnx`` for onnxruntime and others. A former file is
        replaced, once the comparison holds.
    size : (rows, columns), optional
        H and W. Default: the grid of the weights.

    Returns
    -------
    Exported
        path, size and the largest difference between the two maps of the same noise.

    Raises
    ------
    FileNotFoundError
        If the source is not there.
    ValueError
        If the source is damaged or of another kind, `output` ends in something else, the size is
        none, or must be given because the source has no grid.
    RuntimeError
        If the maps differ by more than 1e-4; nothing is written then.
    ImportError
        If onnx, onnxscript or onnxruntime is missing for ``*.onnx``.

    Examples
    --------
    >>> import usconf.nn
    >>> from usconf.training.export import export
    >>> written = export(usconf.nn.ConfidenceUNet(width=8), "net.pt2", size=(32, 32))
    >>> written.size, written.difference < 1e-5
    ((32, 32), True)
    >>> import torch
    >>> program = torch.export.load("net.pt2").module()
    >>> program(torch.rand(3, 1, 32, 32)).shape
    torch.Size([3, 1, 32, 32])
    """
    path = Path(output)
    if path.suffix not in SUFFIXES:
        raise ValueError(f"output must end in {' or '.join(SUFFIXES)}, got {path}; write net.onnx")
    network, metadata = _network(source)
    found = size if size is not None else metadata.get("grid")
    if found is None:
        raise ValueError(
            "size must be given for a source without a grid, got None; it is that of the images, "
            "e.g. (128, 128)"
        )
    grid = check_grid("size", found)
    module: Any = Map(network).eval().requires_grad_(False)
    module = module.to(memory_format=torch.contiguous_format)
    example = 255 * torch.rand(2, 1, *grid, generator=torch.Generator().manual_seed(0))
    about = json.dumps(
        {"config": network.config, **metadata, "size": list(grid)}, sort_keys=True, default=str
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write = _write_program if path.suffix == ".pt2" else _write_onnx
    with whole(path) as part:
        run = write(module, example, part, about)
        difference = max(_difference(module, run, example[:count]) for count in (1, 2))
        if not difference <= PARITY:
            raise RuntimeError(
                f"{path} must give the network's maps to {PARITY:g}, but is off by "
                f"{difference:.2g}; nothing was written: another version of torch may do better"
            )
    return Exported(path, grid, difference)


def _network(source: Any) -> tuple[ConfidenceUNet, dict[str, Any]]:
    """The network in float32 on the CPU, its own copy, and what is known of it."""
    if isinstance(source, ConfidenceUNet):
        return copy.deepcopy(source).to("cpu", torch.float32), {}
    if source == "default" or Path(source).suffix != ".pt":
        about = weight_files.metadata(source)
        about.pop("config")
        return copy.deepcopy(weight_files.load(source)), about
    state = checkpoints.load(source)
    network = ConfidenceUNet(**state.network)
    try:
        network.load_state_dict(state.weights if state.average is None else state.average)
    except (RuntimeError, TypeError) as problem:
        first = str(problem).splitlines()[0]
        raise ValueError(
            f"{source} must hold the weights of its network, but does not ({first}); it is damaged"
        ) from None
    shape = getattr(state.config.data, "shape", None)
    about = {"step": state.step, "training": state.config.to_dict()}
    return network.float(), about if shape is None else {**about, "grid": list(shape)}


def _write_program(module: Map, example: Tensor, path: Path, about: str) -> Any:
    program = _program(module, example)
    torch.export.save(program, path, extra_files={"usconf.json": about})
    return torch.export.load(path).module()


def _program(module: Map, example: Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(module, (example,), dynamic_shapes={"image": {0: batch}})


def _write_onnx(module: Map, example: Tensor, path: Path, about: str) -> Any:
    onnx = _library("onnx")
    _library("onnxscript")
    runtime = _library("onnxruntime")
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        # torch's exporter warns of what is its own affair.
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            _program(module, example), (example,), input_names=["image"],
            output_names=["confidence"], dynamo=True, verbose=False,
        )  # fmt: skip
    model = program.model_proto
    onnx.helper.set_model_props(model, {"usconf": about})
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["confidence"], {"image": image.numpy()})[0])

    return run


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _difference(module: Map, run: Any, image: Tensor) -> float:
    with torch.no_grad():
        return float((module(image) - run(image)).abs().max())


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name != name:
            raise
        raise ImportError(
            f'{name} must be installed to write ONNX, but is not; pip install "usconf[export]"'
        ) from None
