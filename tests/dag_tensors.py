"""Tensors and the operator's arguments that its tests share."""

from __future__ import annotations

import numpy as np
import torch

NAMES = ("xi", "alpha", "var", "power")
# Away from the presets, so that every parameter matters on tiny pictures.
PARAMETERS = (0.3, 0.7, 2.5, 1.4)
CASES = {
    "default": {},
    "power 1": {"power": 1.0},
    "wide": {"half_width": 9},
    "one parent": {"half_width": 0},
    "hung2021": {"variant": "hung2021"},
    "mask": {"mask": True},
    "structural": {"reference": True},
    "soft": {"needle": True, "artifact": True},
    "all": {"mask": True, "reference": True, "needle": True, "artifact": True},
    "nan": {"nan": "mask"},
}
HALF_WIDTH = 3


def pictures(rng, *shape, dtype=torch.float64):
    """Distinct values, no two differences alike: no ties, where the derivative jumps."""
    values = rng.permutation(np.prod(shape)) + 0.5 * rng.random(np.prod(shape))
    return torch.from_numpy((values / values.max()).reshape(shape)).to(dtype)


def numbers(case="default", dtype=torch.float64, grad=True):
    values = dict(zip(NAMES, PARAMETERS, strict=True))
    values["power"] = CASES[case].get("power", values["power"])
    return [torch.tensor(value, dtype=dtype, requires_grad=grad) for value in values.values()]


def options(case, rng, shape):
    """Keyword arguments of the operator; `reference` holds rows."""
    found = {"half_width": HALF_WIDTH} | CASES[case]
    found.pop("power", None)
    height, width = shape[-2:]
    if "mask" in found:
        found["mask"] = torch.from_numpy(rng.random((height, width)) < 0.8)
    if "reference" in found:
        found["reference"] = torch.linspace(0.8, 0.3, height, dtype=torch.float64)[None]
    if "needle" in found:
        found["needle"] = torch.zeros((height, width))
        found["needle"][height // 3, 1:-1] = 1.0
        found["artifact"] = torch.zeros((height, width))
        found["artifact"][height // 2 :, :2] = 0.375
    return found


def arrays_of(given):
    found = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    found.pop("nan", None)
    if "reference" in found:
        found["reference"] = found["reference"][0]
    return found
