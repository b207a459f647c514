"""UltrasoundConfidenceMapTransform against MONAI's own."""

from __future__ import annotations

import importlib
import inspect
import warnings

import numpy as np
import pytest
from usconf import phantom

pytestmark = [pytest.mark.torch, pytest.mark.monai]
torch = pytest.importorskip("torch")
pytest.importorskip("monai")

Ours = importlib.import_module("usconf.integrations.monai").UltrasoundConfidenceMapTransform
Theirs = importlib.import_module("monai.transforms").UltrasoundConfidenceMapTransform
MetaTensor = importlib.import_module("monai.data").MetaTensor

SINKS = ["all", "mid", "min", "mask"]
# MONAI weighs edges after dividing by (range + 2.2e-16), and solves by SuperLU.
TOLERANCE = 1e-7


@pytest.fixture(scope="module")
def frame():
    return phantom.demo_frame(40, 36)[None]


def sinks(frame, mode):
    if mode != "mask":
        return None
    mask = np.zeros(frame.shape, np.uint8)
    mask[0, -4:, 5:20], mask[0, 20, 30], mask[0, 0, 3] = 1, 7, 1  # on the source too
    return mask


def quietly(transform, *given):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's remarks on MONAI's use of it
        return transform(*given)


@pytest.mark.parametrize("mode", ["B", "RF"])
@pytest.mark.parametrize("sink_mode", SINKS)
def test_equals_monai(frame, sink_mode, mode):
    mask = sinks(frame, sink_mode)
    for parameters in ({}, {"alpha": 0.5, "beta": 100, "gamma": 0.1}):
        settings = {"mode": mode, "sink_mode": sink_mode, **parameters}
        expected = quietly(Theirs(**settings), frame, mask)
        found = Ours(**settings)(frame, mask)
        assert type(found) is type(expected)
        assert found.shape == expected.shape and found.dtype == expected.dtype
        assert np.abs(found - expected).max() <= TOLERANCE
    positional = Ours(0.5, 100, 0.1, mode, sink_mode, False, 1e-6, 200)
    np.testing.assert_array_equal(positional(frame, mask), found)


@pytest.mark.filterwarnings("ignore:.*first row:UserWarning")
def test_real_frame(frames):
    image = frames("linear/usgra_0184")[None, 100:164, 60:110]
    expected = quietly(Theirs(), image)
    assert np.abs(Ours()(image) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float16", "float32", "float64"])
def test_kinds_of_arrays(frame, dtype):
    given = frame.astype(dtype)
    expected = quietly(Theirs(), given)
    assert np.abs(Ours()(given) - expected).max() <= TOLERANCE
    tensor = torch.from_numpy(given)
    found, other = Ours()(tensor), quietly(Theirs(), tensor)
    assert type(found) is torch.Tensor and found.dtype == other.dtype == torch.float64
    assert (found - other).abs().max() <= TOLERANCE
    meta = Ours()(MetaTensor(tensor, meta={"patient": "7"}))
    assert isinstance(meta, MetaTensor) and meta.meta["patient"] == "7"
    assert torch.equal(meta.as_tensor(), found)


def test_colours_are_averaged_and_masks_of_any_kind_taken(frame, rng):
    colours = np.stack([frame[0], rng.integers(0, 256, frame.shape[1:]), frame[0][::-1]])[None]
    expected = quietly(Theirs(), colours)
    assert np.abs(Ours()(colours) - expected).max() <= TOLERANCE
    mask = sinks(frame, "mask")
    expected = Ours(sink_mode="mask")(frame, mask)
    for given in (mask > 0, torch.from_numpy(mask), mask.astype(np.float32)):
        np.testing.assert_array_equal(Ours(sink_mode="mask")(frame, given), expected)


def test_use_cg_takes_the_iterative_solver(frame):
    direct = Ours()(frame)
    iterative = Ours(use_cg=True)(frame)
    assert np.abs(iterative - direct).max() <= 1e-6
    assert not np.array_equal(iterative, direct)


def test_signatures_are_equal():
    for method in ("__init__", "__call__"):
        of_ours, of_theirs = (
            inspect.signature(getattr(one, method)).parameters for one in (Ours, Theirs)
        )
        assert list(of_ours) == list(of_theirs)
        for name, parameter in of_theirs.items():
            assert of_ours[name].default == parameter.default
    given = {"alpha": 1, "beta": 50, "gamma": 0.1, "mode": "RF", "sink_mode": "min"}
    for name, value in given.items():
        assert getattr(Ours(**given), name) == getattr(Theirs(**given), name) == value


def test_what_monai_has_no_map_for():
    assert Ours()(np.full((1, 12, 9), 3.0)).shape == (12, 9)
    assert np.isfinite(Ours(sink_mode="min")(np.random.default_rng(0).random((1, 12, 9)))).all()


def test_refuses(frame):
    for settings, message in [
        ({"mode": "M"}, r"^mode must be one of 'B', 'RF', got 'M'"),
        ({"sink_mode": "top"}, r"^sink_mode must be one of 'all', 'mid', 'min', 'mask', got 'top'"),
        ({"cg_tol": 1e-3}, r"^cg_tol must be left at 1e-06, got 0\.001"),
        ({"cg_maxiter": 9}, r"^cg_maxiter must be left at 200, got 9"),
    ]:
        with pytest.raises(ValueError, match=message):
            Ours(**settings)
    for settings, given, message in [
        ({"sink_mode": "mask"}, (frame,), r"^sink_mask must be given"),
        ({}, (frame, frame), r"^sink_mask must come with"),
        ({}, (frame[0],), r"^img must be \(1, H, W\) or \(1, D, H, W\), got shape \(40, 36\)"),
        ({}, (np.repeat(frame, 3, 0),), r"^img must be .*got shape \(3, 40, 36\)"),
        ({"sink_mode": "mask"}, (frame, frame[:, 1:]), r"^mask must have shape \(1, 40, 36\), got"),
        ({"alpha": -1}, (frame,), r"^alpha must be finite and not negative"),
        ({}, (frame * np.nan,), r"^image must be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            Ours(**settings)(*given)
