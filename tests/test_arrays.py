"""What comes in comes out: kinds, dtypes, layouts, memory limits."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import usconf
from usconf import arrays, margins, memory, seeds


@pytest.fixture
def image(rng):
    return rng.integers(1, 256, (14, 11), np.uint8)


# Shapes


@pytest.mark.parametrize(
    ("shape", "axes", "stack"),
    [
        ((5, 7), None, (1, 5, 7)),
        ((1, 5, 7), None, (1, 5, 7)),
        ((3, 1, 5, 7), None, (3, 5, 7)),
        ((0, 1, 5, 7), None, (0, 5, 7)),
        ((3, 5, 7), "thw", (3, 5, 7)),
        ((7, 5), "wh", (1, 5, 7)),
        ((5, 7, 2, 3), "hwbt", (6, 5, 7)),
        ((2, 7, 1, 5, 3), "bwcht", (6, 5, 7)),
    ],
)
def test_layouts_go_there_and_back(shape, axes, stack):
    found = arrays.layout(shape, axes)
    assert found.stack == stack
    pixels = np.arange(np.prod(shape)).reshape(shape)
    frames = found.frames(pixels)
    assert frames.shape == stack
    np.testing.assert_array_equal(found.restore(frames), pixels)
    if axes and frames.size:
        letters = {letter: size for letter, size in zip(axes, shape, strict=True)}
        assert (letters["h"], letters["w"]) == frames.shape[1:]


def test_masks_follow_the_layout(rng):
    clip = rng.integers(0, 2, (7, 2, 5)).astype(np.uint8)
    layout = arrays.layout(clip.shape, "wth")
    np.testing.assert_array_equal(
        layout.companion(clip, clip, "mask"), clip.transpose(1, 2, 0) != 0
    )
    plane = clip[:, 0].T
    np.testing.assert_array_equal(layout.companion(plane, clip, "mask"), plane[None] != 0)
    with pytest.raises(ValueError, match=r"^mask must .*\(5, 7\).*got \(7, 5\)"):
        layout.companion(plane.T, clip, "mask")


# NumPy


class Subclass(np.ndarray):
    """Like numpy.memmap: an array whose class says nothing about its pixels."""


def test_nothing_is_copied_that_need_not_be(image):
    assert np.shares_memory(arrays.ready(image), image)
    assert arrays.ready(image[::2]).flags.c_contiguous


def test_input_is_read_only_and_stays_as_it_is(image):
    image.flags.writeable = False
    kept = image.copy()
    usconf.random_walk(image)
    np.testing.assert_array_equal(image, kept)


@pytest.mark.parametrize("dtype", ["uint16", "float32", "float64"])
def test_strides_byte_order_and_alignment(image, dtype):
    plain = image.astype(dtype)
    expected = usconf.random_walk(plain)
    wide = np.zeros((28, 33), dtype)
    wide[::2, ::3] = plain
    unaligned = np.zeros(plain.nbytes + 1, np.uint8)[1:].view(dtype).reshape(plain.shape)
    unaligned[:] = plain
    swapped = plain.astype(plain.dtype.newbyteorder())
    for given in (
        wide[::2, ::3],
        plain[::-1].copy()[::-1],
        np.asfortranarray(plain),
        unaligned,
        swapped,
        plain.view(Subclass),
    ):
        ours = usconf.random_walk(given)
        assert type(ours) is np.ndarray and ours.flags.writeable
        np.testing.assert_array_equal(ours, expected)


def test_masked_arrays_are_refused(image):
    with pytest.raises(TypeError, match=r"^image must .*masked.*mask="):
        usconf.random_walk(np.ma.masked_less(image, 9))


@pytest.mark.parametrize(
    ("given", "asked", "result"),
    [
        ("uint8", None, "float32"),
        ("float16", None, "float32"),
        ("float64", None, "float64"),
        ("float64", "float32", "float32"),
        ("float64", np.float32, "float32"),
        ("uint8", float, "float64"),
        ("uint8", np.dtype("float64"), "float64"),
    ],
)
def test_result_dtype(image, given, asked, result):
    ours = usconf.random_walk(image.astype(given), dtype=asked)
    assert ours.dtype == result


# torch


@pytest.mark.torch
@pytest.mark.parametrize(
    "dtype", ["uint8", "uint16", "int16", "float16", "bfloat16", "float32", "float64"]
)
def test_tensors_give_tensors(image, dtype):
    import torch

    tensor = torch.from_numpy(image).to(getattr(torch, dtype))
    ours = usconf.random_walk(tensor)
    assert type(ours) is torch.Tensor and ours.shape == tensor.shape
    assert ours.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    same = tensor.float().numpy() if dtype == "bfloat16" else tensor.numpy()
    np.testing.assert_array_equal(ours.numpy(), usconf.random_walk(same))


@pytest.mark.torch
@pytest.mark.parametrize("sink", ["mid", "min", "mask"])
@pytest.mark.parametrize("mode", ["B", "RF"])
def test_tensors_equal_numpy(rng, sink, mode):
    import torch

    clip = rng.integers(1, 256, (2, 15, 12)).astype(np.float32)
    chosen = rng.random((2, 15, 12)) < 0.1 if sink == "mask" else None
    valid = np.tri(15, 12, 6, bool)[::-1]
    parameters = {"axes": "thw", "sink": sink, "mode": mode, "dtype": "float64"}
    expected = usconf.random_walk(clip, mask=valid, sink_mask=chosen, **parameters)
    for convert in (torch.from_numpy, np.asarray):  # masks of either kind
        ours = usconf.random_walk(
            torch.from_numpy(clip),
            mask=convert(np.ascontiguousarray(valid)),
            sink_mask=None if chosen is None else convert(chosen),
            **parameters,
        )
        np.testing.assert_allclose(ours.numpy(), expected, rtol=0, atol=1e-10)
    mixed = usconf.random_walk(clip[0], mask=torch.from_numpy(valid.copy()))
    np.testing.assert_array_equal(mixed, usconf.random_walk(clip[0], mask=valid))


@pytest.mark.torch
@pytest.mark.parametrize("sink", ["all", "mid", "min", "mask"])
@pytest.mark.parametrize("masked", [False, True])
def test_labels_are_the_same_in_torch(rng, sink, masked):
    """On the CPU labels are made by NumPy, on a GPU by the very same code in torch."""
    import torch

    clip = rng.random((3, 16, 13), np.float32)
    clip[1, -1] = clip[1, -1].min()
    valid = rng.random((3, 16, 13)) < 0.6 if masked else None
    chosen = rng.random((1, 16, 13)) < 0.2
    given = [torch.from_numpy(clip), None if valid is None else torch.from_numpy(valid)]
    expected = seeds.plant(clip, valid, sink, chosen, "B")
    ours = seeds.plant(*given, sink, torch.from_numpy(chosen), "B")
    if expected is None:
        assert ours is None
        expected, ours = seeds.first_and_last(clip), seeds.first_and_last(given[0])
    assert ours.dtype == torch.uint8
    np.testing.assert_array_equal(ours.numpy(), expected)


@pytest.mark.torch
def test_pixels_are_checked_the_same_in_torch(rng):
    import torch

    clip = rng.random((3, 40, 70))
    clip[1, 7, 5] = np.nan
    for given in (clip, torch.from_numpy(clip)):
        with pytest.raises(ValueError, match=r"got 1 .* row 7, column 5 of frame 1"):
            seeds.check_finite(given, None)
    clip = np.abs(np.nan_to_num(clip)) + 0.1
    clip[2, :3] = 0
    for given in (clip, torch.from_numpy(clip)):
        with pytest.warns(UserWarning, match="fit_support"):
            margins.warn_of_margins(given)
        margins.warn_of_margins(given[:2])


@pytest.mark.torch
def test_strided_and_transposed_tensors(rng):
    import torch

    wide = torch.from_numpy(rng.random((20, 24)))
    for view in (wide[::2, ::3], wide.T, wide.flip(1), wide.expand(1, 20, 24)):
        ours = usconf.random_walk(view)
        assert ours.shape == view.shape
        np.testing.assert_array_equal(ours.numpy(), usconf.random_walk(view.contiguous().numpy()))


@pytest.mark.torch
def test_tensors_the_core_does_not_reach(image):
    import torch

    tensor = torch.from_numpy(image)
    for given, reason in (
        (tensor.to("meta"), "CPU or a CUDA device"),
        (tensor.to_sparse(), "dense"),
        (tensor.to(torch.complex64), "real"),
        (tensor.to(torch.int64), "dtype"),
    ):
        with pytest.raises(TypeError, match=rf"^image must .*{reason}.*got"):
            usconf.random_walk(given)


@pytest.mark.monai
def test_metatensor_keeps_its_meta(image):
    import torch
    from monai.data import MetaTensor

    given = MetaTensor(torch.from_numpy(image)[None], affine=2 * torch.eye(4))
    ours = usconf.random_walk(given)
    assert isinstance(ours, MetaTensor) and ours.shape == given.shape
    assert (ours.affine == given.affine).all()
    np.testing.assert_array_equal(ours.numpy()[0], usconf.random_walk(image))


@pytest.mark.torch
def test_envelope_in_torch(rng):
    import torch

    lines = torch.from_numpy(rng.standard_normal((2, 30, 5))).requires_grad_()
    ours = usconf.envelope(lines)
    np.testing.assert_allclose(ours.detach().numpy(), usconf.envelope(lines.detach().numpy()))
    assert torch.autograd.gradcheck(usconf.envelope, lines)
    assert usconf.envelope(lines.float(), axis=1).dtype == torch.float32


def test_envelope_refuses():
    lines = np.ones((6, 4))
    with pytest.raises(TypeError, match=r"^rf must .*real.*got complex128"):
        usconf.envelope(lines.astype(complex))
    with pytest.raises(ValueError, match=r"^axis must .*got 2"):
        usconf.envelope(lines, axis=2)
    with pytest.raises(ValueError, match=r"^rf must .*finite"):
        usconf.envelope(lines * np.nan)
    with pytest.raises(ValueError, match=r"^rf must .*got shape \(0, 3\)"):
        usconf.envelope(np.ones((0, 3)))


# CuPy, played by NumPy: what the real one is asked for, but for the GPU


class FakeCuPy(types.ModuleType):
    """numpy under another name, with arrays that know a device and no address of the CPU."""

    class ndarray(np.ndarray):
        @property
        def device(self):
            return FakeDevice()

        @property
        def data(self):
            return types.SimpleNamespace(ptr=np.asarray(self).ctypes.data)

        def get(self):
            return np.asarray(self).copy()

    def __getattr__(self, name):
        value = getattr(np, name)
        if not callable(value) or isinstance(value, type):
            return value

        def wrapped(*args, **kwargs):
            result = value(*args, **kwargs)
            return result.view(self.ndarray) if isinstance(result, np.ndarray) else result

        return wrapped


class FakeDevice:
    id = 3

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def cupy(monkeypatch):
    """A stand-in for CuPy whose device is turned into the CPU at the door of the core."""
    fake = FakeCuPy("cupy")
    stream = types.SimpleNamespace(ptr=77)
    runtime = types.SimpleNamespace(memGetInfo=lambda: (1 << 40, 1 << 40))
    fake.cuda = types.SimpleNamespace(get_current_stream=lambda: stream, runtime=runtime)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    real_kind, real_place = arrays.kind, arrays.place
    monkeypatch.setattr(
        arrays,
        "kind",
        lambda a, name="image": "cupy" if isinstance(a, fake.ndarray) else real_kind(a, name),
    )
    seen = []

    def place(array):
        seen.append(real_place(array))
        return -1, 0

    monkeypatch.setattr(arrays, "place", place)
    fake.seen = seen
    return fake


@pytest.mark.parametrize("parameters", [{}, {"sink": "min"}, {"mode": "RF"}], ids=str)
def test_cupy_arrays_give_cupy_arrays(image, cupy, parameters):
    expected = usconf.random_walk(image, **parameters)
    ours = usconf.random_walk(image.view(cupy.ndarray), **parameters)
    assert type(ours) is cupy.ndarray
    np.testing.assert_array_equal(np.asarray(ours), expected)
    assert (3, 77) in cupy.seen


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("random_walk", {}), ("dag", {"despeckle": None})],
)
def test_nobody_waits_for_a_gpu(image, cupy, monkeypatch, method, parameters):
    """Where all pixels are valid, no value is asked for: a call only queues its kernels."""

    def asked(*_):
        raise AssertionError("the host asks for values on the device")

    given = image.astype(np.float32)
    expected = getattr(usconf, method)(given, **parameters)
    for name in ("__bool__", "__float__", "__int__", "get", "item", "tolist"):
        monkeypatch.setattr(cupy.ndarray, name, asked, raising=False)
    # NumPy's reductions to a number give no array, whose questions could be refused.
    for name in ("all", "any", "isfinite", "amin", "amax"):
        monkeypatch.setattr(cupy, name, asked, raising=False)
    for name in ("all", "any", "min", "max", "sum"):
        monkeypatch.setattr(cupy.ndarray, name, asked, raising=False)
    ours = getattr(usconf, method)(given.view(cupy.ndarray), **parameters)
    np.testing.assert_array_equal(np.asarray(ours), expected)


# Memory


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        (None, None),
        (1, 1),
        (np.int64(5000), 5000),
        ("2GB", 2_000_000_000),
        ("2 gb", 2_000_000_000),
        ("1.5GiB", 3 << 29),
        ("512 MiB", 512 << 20),
        ("100kB", 100_000),
        ("123", 123),
    ],
)
def test_memory_limit_is_read(limit, size):
    assert memory.parse_limit(limit) == size


@pytest.mark.parametrize("limit", [0, -1, "", "GB", "2 parsecs", "-1GB", "1e9"])
def test_memory_limit_must_be_positive(limit):
    with pytest.raises(ValueError, match=r"^memory_limit must .*got"):
        memory.parse_limit(limit)


@pytest.mark.parametrize("limit", [True, 1.5e9, [1]])
def test_memory_limit_must_be_an_integer(limit):
    with pytest.raises(TypeError, match=r"^memory_limit must .*got"):
        memory.parse_limit(limit)


def test_memory_in_words():
    words = [memory.in_words(size) for size in (12, 1234, 5_670_000, 25_600_000_000)]
    assert words == ["12 bytes", "1.23 kB", "5.67 MB", "25.6 GB"]


def test_available_memory_is_plausible():
    available = memory.available()
    assert available is None or available > 2**20


def test_what_is_free_limits_by_default(image, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 2**20)
    with pytest.raises(MemoryError, match=r"that are free"):
        usconf.random_walk(np.broadcast_to(np.uint8(3), (4000, 4000)))
    monkeypatch.setattr(memory, "available", lambda: None)
    usconf.random_walk(image)
