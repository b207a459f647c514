"""The maps equal the paper's: oracle, the authors' own map, MONAI, real frames."""

from __future__ import annotations

import importlib
import warnings

import numpy as np
import pytest
import usconf
from reference import random_walk as oracle
from scipy.signal import hilbert

# float32 and float64 results may differ from the float64 oracle by this much (issue 2, point 2).
TOLERANCE = {"float32": 1e-6, "float64": 1e-9}
SHAPES = [(2, 2), (3, 3), (2, 9), (9, 2), (17, 1), (5, 7), (16, 16), (31, 33), (64, 48), (47, 100)]
SINKS = ["all", "mid", "min", "mask"]
PRESETS = {"monai": (2, 90, 0.05), "beyond_shadows": (1, 90, 0.05), "duque2023": (0.5, 100, 0.05)}
SKIN = "ignore:.*(fit_support|geometry=)"  # fans and black first rows are welcome here

# Twenty windows of real frames: rows, columns. Sizes odd and even, flat and tall.
WINDOWS = {
    "linear/bone_1_1": (slice(0, 180), slice(100, 301)),
    "linear/bone_2_3": (slice(0, 255), slice(300, 380)),
    "linear/bone_3_2": (slice(0, 97), slice(0, 300)),
    "linear/bone_5_8": (slice(0, 128), slice(200, 328)),
    "linear/bone_6_3": (slice(0, 811, 4), slice(0, 948, 4)),
    "linear/bone_ct_162705": (slice(0, 160), slice(400, 560)),
    "linear/bone_ct_165336": (slice(0, 811, 5), slice(0, 948, 5)),
    "linear/lung_lin_a_f247": (slice(None), slice(2, 206)),
    "linear/lung_lin_b_f075": (slice(None), slice(None)),
    "linear/muscle_S1": (slice(30, 230), slice(150, 351)),
    "linear/muscle_steered": (slice(20, 220), slice(300, 417)),
    "linear/spine_phantom_f05": (slice(14, 214), slice(200, 400)),
    "linear/usgra_0000": (slice(70, 246), slice(0, 175)),
    "linear/usgra_0051": (slice(0, 151), slice(100, 250)),
    "linear/usgra_0126": (slice(0, 574, 3), slice(46, 669, 3)),
    "linear/usgra_0229": (slice(0, 63), slice(28, 484)),
    "convex/lightbeam_f154": (slice(0, 530, 3), slice(0, 538, 3)),
    "convex/lung_b_f108": (slice(60, 190), slice(100, 233)),
    "convex/oliveira_15A": (slice(100, 340), slice(300, 433)),
    "convex/whitelung_f061": (slice(40, 240), slice(60, 221)),
}


def speckle(rng, shape):
    """uint8 picture with neighbours alike and a shadow, so that weights span five decades."""
    rows, columns = shape
    noise = rng.random((rows + 2, columns + 2))
    smooth = sum(noise[y : y + rows, x : x + columns] for y in range(3) for x in range(3)) / 9
    smooth[rows // 2 :, columns // 3 : columns // 2] *= 0.1
    return (255 * smooth).astype(np.uint8)


def echoes(rng, shape):
    """int16 radio-frequency lines: a 4-samples-per-period carrier under a speckle envelope."""
    carrier = np.cos(np.pi / 2 * np.arange(shape[0])[:, None] + rng.random(shape[1]))
    return (20 * speckle(rng, shape) * carrier).astype(np.int16)


def sector(shape):
    """A mask as scan conversion leaves it, with a hole and pixels that no source reaches."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    middle = (shape[1] - 1) / 2
    valid = np.abs(x - middle) < 0.25 * shape[1] + 0.3 * y
    valid &= np.hypot(y + 0.4 * shape[0], x - middle) < 1.3 * shape[0]
    valid[shape[0] // 2 : shape[0] // 2 + 3, shape[1] // 3 : shape[1] // 2] = False
    return valid


def sink_mask(shape, sink):
    """Nonzero in a box near the bottom, for sink="mask"; None for the other sinks."""
    if sink != "mask":
        return None
    chosen = np.zeros(shape, np.uint8)
    chosen[-(shape[0] // 2) :, shape[1] // 3 : shape[1] // 2 + 1] = 2
    return chosen


def gap(ours, expected):
    assert ours.shape == expected.shape
    return np.abs(ours.astype(np.float64) - expected).max()


@pytest.mark.filterwarnings(SKIN)
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_oracle(rng, shape, sink, dtype):
    image = speckle(rng, shape)
    chosen = sink_mask(shape, sink)
    ours = usconf.random_walk(image, sink=sink, sink_mask=chosen, dtype=dtype)
    assert ours.dtype == dtype
    assert gap(ours, oracle.solve(image, sink=sink, sink_mask=chosen)) <= TOLERANCE[dtype]


@pytest.mark.parametrize("given", ["uint8", "uint16", "int16", "float16", "float32", "float64"])
def test_dtypes(rng, given):
    image = speckle(rng, (33, 29)).astype(given)
    if given == "int16":
        image -= 100
    ours = usconf.random_walk(image)
    expected = "float64" if given == "float64" else "float32"
    assert ours.dtype == expected
    assert gap(ours, oracle.solve(image)) <= TOLERANCE[expected]


@pytest.mark.parametrize("name", PRESETS)
def test_presets(rng, name):
    image = speckle(rng, (40, 31))
    alpha, beta, gamma = PRESETS[name]
    expected = oracle.solve(image, alpha=alpha, beta=beta, gamma=gamma)
    assert gap(usconf.random_walk(image, preset=name), expected) <= 1e-6
    expected = oracle.solve(image, alpha=alpha, beta=35.0, gamma=gamma)
    assert gap(usconf.random_walk(image, preset=name, beta=35.0), expected) <= 1e-6


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "parameters",
    [
        {"alpha": 0.0},
        {"alpha": 0.5, "beta": 20.0, "gamma": 0.3},
        {"alpha": 5.0, "gamma": 0.0},
        {"beta": 0.0},
        {"beta": 300.0, "gamma": 0.01},
        {"alpha": np.float32(1.5), "beta": np.array(60), "gamma": np.float64(0.1)},
    ],
    ids=str,
)
def test_parameters(rng, parameters, dtype):
    image = speckle(rng, (36, 45))
    expected = oracle.solve(image, **parameters)
    assert gap(usconf.random_walk(image, dtype=dtype, **parameters), expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sink", SINKS)
def test_older_weighting(rng, sink, dtype):
    image = speckle(rng, (41, 38))
    chosen = sink_mask(image.shape, sink)
    parameters = {"variant": "monai_1_3", "sink": sink, "sink_mask": chosen}
    ours = usconf.random_walk(image, dtype=dtype, **parameters)
    assert gap(ours, oracle.solve(image, **parameters)) <= TOLERANCE[dtype]
    assert gap(ours, oracle.solve(image, sink=sink, sink_mask=chosen)) > 0.01


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("shape", [(24, 20), (45, 53)], ids=str)
def test_masked(rng, shape, sink, dtype):
    image = speckle(rng, shape)
    image[~sector(shape)] = 255  # brighter than all that is valid: must not leak into the maxima
    parameters = {"mask": sector(shape), "sink": sink, "sink_mask": sink_mask(shape, sink)}
    ours = usconf.random_walk(image, dtype=dtype, **parameters)
    assert gap(ours, oracle.solve(image, **parameters)) <= TOLERANCE[dtype]
    assert (ours[~sector(shape)] == 0).all()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_mask_in_pieces(rng, dtype):
    """Scattered pixels: pieces with a source and a sink, with one of them, with neither."""
    image = speckle(rng, (30, 30))
    valid = rng.random(image.shape) < 0.45
    chosen = rng.random(image.shape) < 0.05
    for parameters in ({}, {"sink": "mask", "sink_mask": chosen}):
        ours = usconf.random_walk(image, mask=valid, dtype=dtype, **parameters)
        expected = oracle.solve(image, mask=valid, **parameters)
        assert gap(ours, expected) <= TOLERANCE[dtype]


def test_full_mask_changes_nothing(rng):
    image = speckle(rng, (30, 26))
    whole = usconf.random_walk(image, mask=np.ones(image.shape, np.uint8))
    np.testing.assert_array_equal(whole, usconf.random_walk(image))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_nan_as_mask(rng, bad, dtype):
    image = speckle(rng, (26, 31)).astype(dtype)
    valid = sector(image.shape)
    expected = oracle.solve(image, mask=valid)
    image[~valid] = bad
    assert gap(usconf.random_walk(image, nan="mask"), expected) <= TOLERANCE[dtype]
    masked = usconf.random_walk(image, mask=valid)
    assert gap(masked, expected) <= TOLERANCE[dtype]
    half = valid.copy()
    half[:, :15] = True
    both = usconf.random_walk(image, nan="mask", mask=half)
    assert gap(both, expected) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("shape", [(64, 32), (37, 24)], ids=str)
def test_radio_frequency(rng, shape, sink, dtype):
    image = echoes(rng, shape)
    parameters = {"mode": "RF", "sink": sink, "sink_mask": sink_mask(shape, sink)}
    ours = usconf.random_walk(image, dtype=dtype, **parameters)
    assert gap(ours, oracle.solve(image, **parameters)) <= TOLERANCE[dtype]


def test_envelope(rng):
    lines = echoes(rng, (64, 12)).astype(np.float64) + 300.0
    centred = lines - lines.mean(axis=0)
    expected = np.abs(hilbert(centred, axis=0))
    np.testing.assert_allclose(usconf.envelope(lines), expected, rtol=1e-6)
    np.testing.assert_allclose(usconf.envelope(lines.T, axis=-1), expected.T, rtol=1e-6)


@pytest.mark.parametrize(
    ("axes", "shape"),
    [
        (None, (1, 20, 17)),
        (None, (5, 1, 20, 17)),
        (None, (1, 1, 20, 17)),
        ("hw", (20, 17)),
        ("wh", (17, 20)),
        ("thw", (3, 20, 17)),
        ("hwt", (20, 17, 3)),
        ("bthw", (2, 3, 20, 17)),
        ("bchw", (2, 1, 20, 17)),
        ("hwc", (20, 17, 1)),
    ],
)
def test_layouts(rng, axes, shape):
    image = speckle(rng, (20, int(np.prod(shape)) // 20)).reshape(shape)
    letters = axes or {3: "chw", 4: "bchw"}[len(shape)]
    order = [letters.index(k) for k in letters if k not in "hw"]
    order += [letters.index("h"), letters.index("w")]
    ours = usconf.random_walk(image, axes=axes)
    assert ours.shape == shape
    stack = np.transpose(image, order).reshape(-1, 20, 17)
    maps = np.transpose(ours, order).reshape(-1, 20, 17)
    for frame, found in zip(stack, maps, strict=True):
        assert gap(found, oracle.solve(frame)) <= 1e-6


def test_masks_of_each_frame(rng):
    clip = np.stack([speckle(rng, (22, 19)) for _ in range(3)])
    valid = np.stack([sector((22, 19)), np.ones((22, 19), bool), sector((22, 19))[:, ::-1]])
    chosen = rng.random(clip.shape) < 0.1
    parameters = {"axes": "thw", "sink": "mask"}
    ours = usconf.random_walk(clip, mask=valid, sink_mask=chosen, **parameters)
    shared = usconf.random_walk(clip, mask=valid[0], sink_mask=chosen[0], **parameters)
    for k, frame in enumerate(clip):
        own = oracle.solve(frame, mask=valid[k], sink="mask", sink_mask=chosen[k])
        assert gap(ours[k], own) <= 1e-6
        common = oracle.solve(frame, mask=valid[0], sink="mask", sink_mask=chosen[0])
        assert gap(shared[k], common) <= 1e-6


@pytest.mark.parametrize("solver", ["auto", "direct", "iterative"])
@pytest.mark.parametrize("case", [{}, {"sink": "mid"}, {"mask": sector((70, 61))}, {"beta": 250.0}])
def test_solvers(rng, solver, case):
    image = speckle(rng, (70, 61))
    assert (
        gap(usconf.random_walk(image, solver=solver, **case), oracle.solve(image, **case)) <= 1e-6
    )


def test_confidence_is_the_same_call(rng):
    image = speckle(rng, (24, 25))
    expected = usconf.random_walk(image, beta=50.0, sink="mid")
    ours = usconf.confidence(image, method="random_walk", beta=50.0, sink="mid")
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(usconf.confidence(image), usconf.random_walk(image))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-7)])
def test_official_map(data_dir, frames, dtype, tolerance):
    """The map of the authors' MATLAB code, stored as float32 by MONAI's test data."""
    image = frames("golden/femur_input")
    official = np.load(data_dir / "golden" / "femur_result.npy").astype(np.float64)
    ours = usconf.random_walk(image, alpha=2, beta=90, gamma=0.06, dtype=dtype)
    assert gap(ours, official) <= tolerance


@pytest.mark.filterwarnings(SKIN)
@pytest.mark.parametrize("name", WINDOWS)
def test_real_windows(frames, name):
    image = frames(name)[WINDOWS[name]]
    expected = oracle.solve(image)
    for dtype, tolerance in TOLERANCE.items():
        assert gap(usconf.random_walk(image, dtype=dtype), expected) <= tolerance


@pytest.mark.filterwarnings(SKIN)
@pytest.mark.parametrize("sink", SINKS)
def test_real_sinks(frames, sink):
    image = frames("linear/bone_7_2")[:160, 300:450]
    chosen = sink_mask(image.shape, sink)
    for mode in ("B", "RF"):
        expected = oracle.solve(image, sink=sink, sink_mask=chosen, mode=mode)
        for dtype, tolerance in TOLERANCE.items():
            ours = usconf.random_walk(image, sink=sink, sink_mask=chosen, mode=mode, dtype=dtype)
            assert gap(ours, expected) <= tolerance


def monai_map(image, sink, chosen, mode="B"):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy's remarks on MONAI's use of it
        transforms = importlib.import_module("monai.transforms")
        transform = transforms.UltrasoundConfidenceMapTransform(sink_mode=sink, mode=mode)
        mask = None if chosen is None else chosen[None]
        return np.asarray(transform(image[None].astype(np.float64), mask)).reshape(image.shape)


@pytest.mark.monai
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["B", "RF"])
@pytest.mark.parametrize("sink", SINKS)
def test_monai_sinks(frames, sink, mode):
    image = frames("linear/usgra_0184")[100:196, 60:141]
    chosen = sink_mask(image.shape, sink)
    expected = monai_map(image, sink, chosen, mode)
    for dtype, tolerance in TOLERANCE.items():
        ours = usconf.random_walk(image, sink=sink, sink_mask=chosen, mode=mode, dtype=dtype)
        assert gap(ours, expected) <= tolerance


@pytest.mark.slow
@pytest.mark.monai
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["B", "RF"])
@pytest.mark.parametrize("sink", SINKS)
@pytest.mark.parametrize("name", WINDOWS)
def test_monai_windows(frames, name, sink, mode):
    image = np.ascontiguousarray(frames(name)[WINDOWS[name]])
    chosen = sink_mask(image.shape, sink)
    expected = monai_map(image, sink, chosen, mode)
    for dtype, tolerance in TOLERANCE.items():
        ours = usconf.random_walk(image, sink=sink, sink_mask=chosen, mode=mode, dtype=dtype)
        assert gap(ours, expected) <= tolerance


@pytest.mark.slow
@pytest.mark.monai
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", WINDOWS)
def test_monai_whole_frames(frames, name):
    image = frames(name)
    expected = monai_map(image, "all", None)
    for dtype, tolerance in TOLERANCE.items():
        assert gap(usconf.random_walk(image, dtype=dtype), expected) <= tolerance
