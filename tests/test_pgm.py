"""The annotation model's loss on arrays: oracle, edges, optimum, threads, refusals."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import usconf
from reference import pgm as oracle
from usconf import _core

SHAPES = [(37, 41), (2, 16, 64), (1, 1, 9), (3, 9, 1), (1, 1), (2, 2), (2, 1, 33, 100), (40, 2600)]
TOLERANCE = {"float64": 1e-10, "float32": 2e-6}


def scene(rng, shape, logits, kind="float64"):
    z = 2 * rng.standard_normal(shape)
    value = z if logits else 1 / (1 + np.exp(-z))
    return value.astype(kind), rng.integers(0, 3, shape).astype(np.uint8)


def settings(rng, case, shape):
    """Arguments of usconf.pgm_loss and of the oracle."""
    ours = {"gamma": 7.0, "s": 0.01, "sigma": 0.3} if case != "defaults" else {}
    theirs = dict(ours)
    if case in ("mask", "all"):
        ours["mask"] = theirs["mask"] = rng.random(shape[-2:]) > 0.3
    if case in ("weights", "all"):
        ours["label_weights"] = theirs["weights"] = (0.5, 3.0, 2.0)
    if case in ("constants", "all"):
        ours["constants"] = theirs["constants"] = True
    return ours, theirs


CASES = ["defaults", "mask", "weights", "constants", "all"]


# Equals the paper


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_value_equals_oracle(rng, case, logits, kind):
    for shape in SHAPES:
        value, labels = scene(rng, shape, logits, kind)
        ours, theirs = settings(rng, case, shape)
        for reduction in ("mean", "sum"):
            expected = oracle.parts(value, labels, reduction=reduction, logits=logits, **theirs)
            given = {"reduction": reduction, "from_logits": logits, **ours}
            slack = TOLERANCE[kind] * max(1, *map(abs, expected))
            parts = usconf.pgm_parts(value, labels, **given)
            assert list(parts) == ["unary", "vertical", "horizontal"]
            np.testing.assert_allclose(list(parts.values()), expected, rtol=0, atol=slack)
            loss = usconf.pgm_loss(value, labels, **given)
            assert type(loss) is float and abs(loss - sum(expected)) <= 2 * slack


@pytest.mark.parametrize("logits", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_maps_equal_oracle(rng, case, logits):
    for shape in SHAPES:
        value, labels = scene(rng, shape, logits)
        ours, theirs = settings(rng, case, shape)
        expected = oracle.terms(value, labels, logits=logits, **theirs)
        given = {"reduction": "none", "from_logits": logits, **ours}
        for found, term in zip(
            usconf.pgm_parts(value, labels, **given).values(), expected, strict=True
        ):
            np.testing.assert_allclose(found, term, rtol=0, atol=1e-10)
        loss = usconf.pgm_loss(value, labels, **given)
        assert loss.shape == shape and loss.dtype == np.float64
        np.testing.assert_allclose(loss, sum(expected), rtol=0, atol=1e-10)


def test_decay_over_the_whole_depth(rng):
    value, labels = scene(rng, (32, 20), True)
    expected = usconf.pgm_loss(value, labels, s=0.01, from_logits=True)
    assert usconf.pgm_loss(value, labels, decay_total=0.32, from_logits=True) == expected
    default = usconf.pgm_loss(value, labels, s=3 / 2560, from_logits=True)
    assert usconf.pgm_loss(value, labels, from_logits=True) == default


def test_what_a_mask_hides_does_not_matter(rng):
    value, labels = scene(rng, (20, 30), True, "float32")
    mask = rng.random((20, 30)) > 0.4
    given = {"from_logits": True, "mask": mask}
    expected = usconf.pgm_loss(value, labels, **given)
    value[~mask] = np.nan
    value[:2][~mask[:2]] = np.inf
    labels[~mask] = 2 - labels[~mask]
    assert usconf.pgm_loss(value, labels, **given) == expected
    assert usconf.pgm_loss(value, labels, from_logits=True, mask=np.zeros((20, 30))) == 0


# Edges


def test_extreme_logits(rng):
    """In float32 as in float64, both ways: no NaN, no infinity."""
    value = np.where(rng.random((24, 18)) < 0.5, 80.0, -80.0)
    labels = rng.integers(0, 3, value.shape).astype(np.uint8)
    expected = sum(oracle.parts(value, labels, logits=True))
    for kind, slack in (("float64", 1e-12), ("float32", 1e-6)):
        found = usconf.pgm_loss(value.astype(kind), labels, from_logits=True)
        assert abs(found - expected) <= slack * expected


def test_certain_probabilities(rng):
    value = (rng.random((24, 18)) < 0.5).astype(np.float32)
    labels = rng.integers(0, 3, value.shape).astype(np.uint8)
    held = np.clip(value.astype(np.float64), 1e-7, 1 - 1e-7)
    found = usconf.pgm_loss(value, labels)
    assert abs(found - sum(oracle.parts(held, labels))) < 0.02 * found  # 1 - 1e-7 rounds in float32
    exact = usconf.pgm_loss(value.astype(np.float64), labels)
    assert abs(exact - sum(oracle.parts(held, labels))) < 1e-9 * exact


def test_nothing_labelled():
    flat = np.full((5, 7), 0.5)
    nothing = np.zeros((5, 7), np.uint8)
    assert abs(usconf.pgm_loss(flat, nothing, gamma=0) - 0.2 * np.log(2)) < 1e-15


@pytest.mark.parametrize("shape", [(0, 4, 4), (0, 1, 3, 3)])
def test_no_frames(shape):
    empty = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.uint8)
    assert usconf.pgm_loss(empty, labels) == 0
    assert usconf.pgm_loss(empty, labels, reduction="none").shape == shape


def test_inputs_of_any_layout(rng):
    value, labels = scene(rng, (3, 20, 24), True, "float32")
    expected = usconf.pgm_loss(value, labels, from_logits=True)
    wide = np.zeros((3, 40, 48), np.float32)
    wide[:, ::2, ::2] = value
    frozen = np.asfortranarray(labels)
    frozen.flags.writeable = False
    assert usconf.pgm_loss(wide[:, ::2, ::2], frozen, from_logits=True) == expected
    half = value.astype(np.float16)
    exact = usconf.pgm_loss(half.astype(np.float32), labels, from_logits=True)
    assert usconf.pgm_loss(half, labels, from_logits=True) == exact


# The exact optimum


@pytest.mark.parametrize("gamma", [75.0, 2.0])
def test_no_map_is_below_the_optimum(rng, gamma):
    labels = rng.integers(0, 3, (14, 5)).astype(np.uint8)
    given = {"gamma": gamma, "s": 0.03, "sigma": 0.0, "reduction": "sum"}
    columns = [oracle.scanline_optimum(line, gamma=gamma, s=0.03) for line in labels.T]
    optimum = np.exp(np.stack(columns, 1))
    least = usconf.pgm_loss(optimum, labels, **given)
    for scale in (1e-1, 1e-2, 1e-3):
        other = np.exp(np.minimum(np.log(optimum) + scale * rng.standard_normal((14, 5)), -1e-6))
        assert usconf.pgm_loss(other, labels, **given) > least


# Instruction sets and threads


WORK = """
import json, sys
import numpy as np, usconf
from usconf import _core
rng = np.random.default_rng(3)
value = 3 * rng.standard_normal((3, 150, 260))
labels = rng.integers(0, 3, value.shape).astype(np.uint8)
mask = rng.random(value.shape) > 0.2
found = {"isa": _core.isa()}
for kind in ("float32", "float64"):
    z = value.astype(kind)
    for name, x, given in (("logits", z, {"from_logits": True}), ("masked", z, {"from_logits": True,
        "mask": mask}), ("probabilities", 1 / (1 + np.exp(-z)), {})):
        results = []
        for threads in (1, 2, 3, 7):
            usconf.set_num_threads(threads)
            terms = list(usconf.pgm_parts(x, labels, reduction="sum", **given).values())
            results.append(terms + [float(np.square(usconf.pgm_loss(x, labels, reduction="none",
                                                                    **given)).sum())])
        assert all(other == results[0] for other in results), (kind, name)
        found[f"{kind} {name}"] = results[0]
print(json.dumps(found))
"""


def test_isas_and_threads_agree():
    """Bit-equal for any number of threads; across instruction sets as rounding allows."""
    found = []
    for isa in _core.isa_list():
        done = subprocess.run(
            [sys.executable, "-c", WORK], env=os.environ | {"USCONF_ISA": isa},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.append(json.loads(done.stdout))
        assert found[-1].pop("isa") == isa
    for name, expected in found[0].items():
        slack = TOLERANCE[name.split()[0]]
        for other in found[1:]:
            np.testing.assert_allclose(other[name], expected, rtol=slack)


# Refuses


def test_refuses(rng):
    value, labels = scene(rng, (6, 8), False, "float32")
    for name in ("gamma", "s", "sigma"):
        with pytest.raises(ValueError, match=rf"^{name} must be finite and not negative, got -1"):
            usconf.pgm_loss(value, labels, **{name: -1})
        with pytest.raises(TypeError, match=rf"^{name} must be a number, got str"):
            usconf.pgm_loss(value, labels, **{name: "3"})
    with pytest.raises(ValueError, match=r"^decay_total must be left out when s is given"):
        usconf.pgm_loss(value, labels, s=0.1, decay_total=0.3)
    with pytest.raises(ValueError, match=r"^reduction must be one of 'mean'.*got 'average'"):
        usconf.pgm_loss(value, labels, reduction="average")
    with pytest.raises(ValueError, match=r"^label_weights must be three numbers, got \(1, 2\)"):
        usconf.pgm_loss(value, labels, label_weights=(1, 2))
    with pytest.raises(ValueError, match=r"^label_weights\[2\] must be finite.*got nan"):
        usconf.pgm_loss(value, labels, label_weights=(1, 2, np.nan))
    with pytest.raises(ValueError, match=r"^labels must have the confidence's shape \(6, 8\)"):
        usconf.pgm_loss(value, labels.T)
    with pytest.raises(TypeError, match=r"^labels must be uint8, got int64"):
        usconf.pgm_loss(value, labels.astype(np.int64))
    with pytest.raises(TypeError, match=r"^confidence must be of a floating dtype, got uint8"):
        usconf.pgm_loss(labels, labels)
    with pytest.raises(TypeError, match=r"^confidence must be a NumPy array.*got list"):
        usconf.pgm_loss([[0.5]], labels)
    with pytest.raises(ValueError, match=r"^confidence must be \(\.\.\., H, W\).*got shape \(6,\)"):
        usconf.pgm_loss(value[:, 0], labels[:, 0])
    with pytest.raises(ValueError, match=r"^mask must have shape \(6, 8\)"):
        usconf.pgm_loss(value, labels, mask=np.ones((8, 6)))


def test_refuses_values(rng):
    value, labels = scene(rng, (2, 6, 8), False, "float32")
    wrong = labels.copy()
    wrong[1, 2, 3], wrong[1, 5, 7] = 3, 255
    with pytest.raises(
        ValueError, match=r"^labels must be 0.*got 3 at row 2, column 3 of frame 1,"
    ):
        usconf.pgm_loss(value, wrong)
    far = value.copy()
    far[0, 4, 5] = 1.5
    with pytest.raises(ValueError, match=r"^confidence must be in \[0, 1\], got 1.5 at row 4"):
        usconf.pgm_loss(far, labels)
    far[0, 4, 5] = np.nan
    with pytest.raises(ValueError, match=r"^confidence must be in \[0, 1\], got nan at row 4"):
        usconf.pgm_parts(far, labels)
    with pytest.raises(ValueError, match=r"^confidence must be finite, got an energy of nan"):
        usconf.pgm_loss(far, labels, from_logits=True)


def test_needs_no_torch():
    code = "import sys, numpy, usconf; usconf.pgm_loss(numpy.full((3, 3), 0.5), "
    code += "numpy.zeros((3, 3), numpy.uint8)); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert importlib.import_module("usconf.pgm").pgm_loss is usconf.pgm_loss
