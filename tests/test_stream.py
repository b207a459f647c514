"""The live loop: the maps of `confidence`, honest latencies, frames dropped by count."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import usconf
from usconf.phantom import demo_fan
from usconf.stream import Feed, Stream, paced
from usconf.stream.carrier import Carrier
from usconf.stream.latency import Clock

FAN = usconf.Sector(apex=(24, -30), r_min=35, r_max=90, theta_min=-0.3, theta_max=0.3)
METHODS = ["random_walk", "dag", pytest.param("learned", marks=pytest.mark.torch)]


@pytest.fixture
def clip(rng):
    return rng.integers(1, 256, (4, 64, 48), dtype=np.uint8)


def same(found, expected):
    assert type(found) is type(expected) and found.dtype == expected.dtype
    assert found.shape == expected.shape
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


# the maps of confidence


@pytest.mark.parametrize("geometry", [None, FAN], ids=["beams", "fan"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_confidence(clip, method, geometry):
    stream = Stream(method, geometry=geometry)
    for frame in clip:
        same(stream(frame), usconf.confidence(frame, method, geometry=geometry))


@pytest.mark.torch
@pytest.mark.parametrize("geometry", [None, FAN], ids=["beams", "fan"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_confidence_for_tensors(clip, method, geometry):
    import torch

    stream = Stream(method, geometry=geometry)
    stream.warm_up(torch.ones(1, 1, 64, 48))
    for frame in torch.from_numpy(clip).float()[:, None, None]:
        same(stream(frame), usconf.confidence(frame, method, geometry=geometry))


@pytest.mark.cuda
@pytest.mark.torch
@pytest.mark.parametrize("geometry", [None, FAN], ids=["beams", "fan"])
@pytest.mark.parametrize("method", METHODS)
def test_equals_confidence_on_a_gpu(clip, method, geometry):
    import torch

    frames = torch.from_numpy(clip).cuda()
    stream = Stream(method, geometry=geometry, period_ms=1000)
    carried = Stream(method, geometry=geometry, device="cuda")
    stream.warm_up(frames[0])
    for frame in frames:
        expected = usconf.confidence(frame, method, geometry=geometry)
        assert torch.equal(stream(frame), expected)
        same(carried(frame.cpu().numpy()), expected.cpu().numpy())
    latency = stream.latency()
    assert latency.count == 4 and 0 < latency.p50_ms <= latency.max_ms and latency.missed == 0


@pytest.mark.cupy
@pytest.mark.cuda
def test_equals_confidence_for_cupy(clip):
    import cupy

    frames = cupy.asarray(clip)
    stream = Stream(geometry=FAN)
    for frame in frames:
        expected = usconf.confidence(frame, geometry=FAN)
        assert bool((stream(frame) == expected).all())
    assert stream.latency().count == 4 and stream.latency().p50_ms > 0
    with pytest.raises(TypeError, match="left out for CuPy"):
        Stream(device="cuda")(frames[0])


@pytest.mark.parametrize("shape", [(64, 48), (1, 1, 64, 48), (2, 1, 64, 48)])
def test_masks_are_those_of_confidence(clip, shape):
    frames = clip[: np.prod(shape) // (64 * 48)].reshape(shape)
    mask = np.ones((64, 48), np.uint8)
    mask[:, :5] = 0
    sinks = mask.copy()
    sinks[:-4] = 0
    stream = Stream(mask=mask, sink="mask", sink_mask=sinks)
    expected = usconf.confidence(frames, mask=mask, sink="mask", sink_mask=sinks)
    same(stream(frames), expected)
    same(stream(frames), expected)
    full = np.broadcast_to(mask, shape)
    same(Stream(mask=full)(frames), usconf.confidence(frames, mask=full))


def test_axes_reach_the_method(clip):
    stream = Stream("dag", axes="hwt")
    frames = np.moveaxis(clip, 0, -1)
    same(stream(frames), usconf.dag(frames, axes="hwt"))


@pytest.mark.torch
def test_carried_frames(clip):
    """The way to a device and back, with the CPU as the device."""
    import torch

    read_only = clip[0][::-1]
    read_only.flags.writeable = False
    carrier = Carrier("cpu", read_only)
    there = carrier.there(read_only)
    assert isinstance(there, torch.Tensor)
    same(carrier.back(usconf.random_walk(there), read_only), usconf.random_walk(read_only))
    same(Stream(device="cpu")(clip[0]), usconf.random_walk(clip[0]))


# what is done once


def test_a_geometry_is_fitted_once(monkeypatch):
    first, geometry = demo_fan(160, 200)
    second = demo_fan(160, 200, seed=1)[0]
    stream = Stream("dag", geometry="auto")
    assert stream.geometry == "auto"
    expected, fitted = usconf.confidence(first, "dag", geometry="auto", return_geometry=True)
    same(stream(first), expected)
    assert stream.geometry == fitted
    same(stream(second), usconf.confidence(second, "dag", geometry=fitted))
    assert stream.geometry == fitted and fitted.kind == geometry.kind


def test_a_geometry_fitted_to_several_frames():
    clip = np.stack([demo_fan(160, 200, seed=seed)[0] for seed in range(3)])
    stream = Stream("dag", geometry="auto")
    fitted = stream.fit(frame[None] for frame in clip)
    assert fitted == usconf.geometry.fit(clip, axes="thw").geometry == stream.geometry
    same(stream(clip[1]), usconf.confidence(clip[1], "dag", geometry=fitted))
    with pytest.raises(ValueError, match="at least one frame, got none"):
        stream.fit([])
    with pytest.raises(ValueError, match='geometry must be "auto" to be fitted, got None'):
        Stream().fit(clip)


def test_warming_up_is_not_recorded(clip):
    calls = []
    stream = Stream(lambda frame: calls.append(frame) or frame / 255)
    stream.warm_up(clip[0], calls=3)
    assert len(calls) == 3 and stream.latency().count == 0
    assert np.isnan(stream.latency().p50_ms) and str(stream.latency()) == "no maps"
    with pytest.raises(ValueError, match="calls must be at least 1, got 0"):
        stream.warm_up(clip[0], calls=0)


def test_a_method_of_ones_own(clip):
    def brightness(frame, gain=1, axes=None, mask=None):
        return np.float32(gain) * frame.astype(np.float32) / 255

    same(Stream(brightness, gain=0.5)(clip[0]), brightness(clip[0], 0.5))
    through = Stream(brightness, geometry=FAN)(clip[0])
    inside = FAN.contains(*np.indices((64, 48))[::-1])
    assert (through[~inside] == 0).all() and (through[inside] > 0).any()


# latency


def test_percentiles_are_those_of_numpy(rng):
    times = rng.gamma(3, 2, 300) / 1000
    now = iter(np.repeat(np.cumsum(times), 2).tolist()[1:])
    clock = Clock(keep=200, period_ms=8, now=lambda: next(now))
    for _ in times[1:]:
        clock.stop(clock.start(np.empty(0)), np.empty(0))
    newest = 1000 * times[-200:]
    found = clock.summary()
    assert found.count == 299 and found.missed == (1000 * times[1:] > 8).sum()
    expected = [newest.mean(), *np.percentile(newest, (50, 90, 99)), newest.max()]
    values = [found.mean_ms, found.p50_ms, found.p90_ms, found.p99_ms, found.max_ms]
    np.testing.assert_allclose(values, expected, rtol=1e-9)
    assert f"{found.missed} over the period" in str(found)


class Gpu:
    """A GPU that takes `work` seconds a map, on a clock of its own; events as torch has them."""

    def __init__(self, work):
        self.work, self.now, self.idle_at, self.waits = work, 0.0, 0.0, 0

    def event(self, _):
        return GpuEvent(self, max(self.now, self.idle_at))

    def launch(self):
        self.idle_at = max(self.now, self.idle_at) + self.work


class GpuEvent:
    def __init__(self, gpu, at):
        self.gpu, self.at = gpu, at

    def query(self):
        return self.at <= self.gpu.now

    def synchronize(self):
        self.gpu.waits += self.at > self.gpu.now
        self.gpu.now = max(self.gpu.now, self.at)

    def elapsed_time(self, later):
        return 1000 * (later.at - self.at)


def gpu_latencies(work, every, count, keep=100):
    gpu = Gpu(work)
    clock = Clock(keep, None, now=lambda: gpu.now, event=gpu.event)
    for index in range(count):
        gpu.now = max(gpu.now, index * every)
        call = clock.start(None)
        gpu.launch()
        clock.stop(call, None)
    waits = gpu.waits
    return clock.summary(), waits


def test_events_tell_when_the_map_is_finished():
    found, waits = gpu_latencies(work=0.003, every=0.010, count=20)
    assert waits == 0 and found.count == 20
    np.testing.assert_allclose([found.mean_ms, found.max_ms], 3)


def test_waiting_for_earlier_maps_counts():
    """Frames come every 2 ms, maps take 3: the n-th waits n ms for those before it."""
    found, waits = gpu_latencies(work=0.003, every=0.002, count=20)
    assert waits == 0
    np.testing.assert_allclose(found.max_ms, 3 + 19)
    np.testing.assert_allclose(found.mean_ms, 3 + 19 / 2)


def test_maps_in_work_are_bounded():
    found, waits = gpu_latencies(work=1.0, every=0.0, count=20, keep=5)
    assert waits == 15 and found.count == 20


# refuses


def test_what_changes_in_mid_stream(clip):
    stream = Stream()
    stream(clip[0])
    with pytest.raises(ValueError, match=r"shape \(64, 48\) of the stream's first, got \(48, 48\)"):
        stream(clip[0, :48])
    with pytest.raises(TypeError, match="dtype uint8 like the first of the stream, got float32"):
        stream(clip[0].astype(np.float32))
    with pytest.raises(TypeError, match=r"frame must be a NumPy array.*, got list"):
        stream(clip[0].tolist())
    same(stream(clip[1]), usconf.confidence(clip[1]))
    assert stream.latency().count == 2


@pytest.mark.torch
def test_another_library_in_mid_stream(clip):
    import torch

    stream = Stream()
    stream(clip[0])
    with pytest.raises(TypeError, match="of numpy like the first of the stream, got one of torch"):
        stream(torch.from_numpy(clip[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "nope"}, "method must be one of 'random_walk', 'dag', 'learned', got 'nope'"),
        ({"period_ms": 0}, "period_ms must be positive, got 0"),
        ({"keep": 0}, "keep must be at least 1, got 0"),
        ({"keep": 2.5}, "keep must be an integer, got float"),
        ({"device": "tpu"}, "device must be None.*got 'tpu'"),
        ({"geometry": "fan"}, "geometry must be None.*got 'fan'"),
        ({"geometry": FAN.to_dict()}, "geometry must be None.*got dict"),
    ],
)
def test_arguments(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Stream(**arguments)


@pytest.mark.torch
def test_a_device_that_is_not_there(clip):
    with pytest.raises(ValueError, match="device must be one that torch reaches, got 'cuda:99'"):
        Stream(device="cuda:99")(clip[0])


def test_parameters_are_the_methods_to_refuse(clip):
    with pytest.raises(TypeError, match="unexpected keyword argument 'xi'"):
        Stream("random_walk", xi=1)(clip[0])


# the newest frame


def test_slow_maps_drop_frames_by_count(clip):
    """The source ends while the first frame is mapped: of the others only the last is left."""
    sent = threading.Event()

    def source():
        for value in range(50):
            yield np.full((4, 4), value, np.uint8)
        sent.set()

    def slow(frame):
        assert sent.wait(10)
        return frame / 255

    stream, mapped = Stream(slow), []
    with Feed(source()) as feed:
        for frame in feed:
            stream(frame)
            mapped.append(int(frame[0, 0]))
    assert mapped[-1] == 49 and len(mapped) <= 2
    assert feed.received == 50 == len(mapped) + feed.dropped
    assert stream.latency().count == len(mapped)


def test_every_frame_in_order():
    with Feed((value for value in range(200)), every_frame=True) as feed:
        assert list(feed) == list(range(200))
    assert (feed.received, feed.dropped) == (200, 0)


def test_a_source_that_fails():
    def source():
        yield 1
        raise OSError("the cable came out")

    feed = Feed(source(), every_frame=True)
    assert feed.take() == 1
    with pytest.raises(OSError, match="cable"):
        feed.take()
    assert feed.take() is None
    with pytest.raises(TypeError, match="iterable"):
        Feed(3)


def test_a_source_that_is_silent():
    silent = threading.Event()
    feed = Feed(iter(lambda: silent.wait(10), None))
    with pytest.raises(TimeoutError, match=r"frames must come within 0.02 s, got none"):
        feed.take(0.02)
    feed.close()
    assert feed.take() is None and feed.received == 0
    silent.set()


def test_closing_counts_what_waited():
    feed = Feed(iter([1]))
    while feed.received == 0:
        time.sleep(0.001)
    feed.close()
    assert feed.take() is None and (feed.received, feed.dropped) == (1, 1)


def test_pace():
    start = time.perf_counter()
    assert list(paced(range(6), fps=100)) == list(range(6))
    assert time.perf_counter() - start >= 0.049
    with pytest.raises(ValueError, match="fps must be positive, got 0"):
        list(paced([], 0))
