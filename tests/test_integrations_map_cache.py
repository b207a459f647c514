"""Maps kept on disk: found by content, never wrong, safe with several workers."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import usconf

cached = importlib.import_module("usconf.integrations.map_cache")


@pytest.fixture
def cache(tmp_path):
    return cached.MapCache(tmp_path / "maps" / "inner")


@pytest.fixture
def image(rng):
    return rng.integers(1, 256, (24, 20), dtype=np.uint8)


def files(cache):
    return sorted(cache.folder.iterdir()) if cache.folder.exists() else []


@pytest.fixture
def made(monkeypatch):
    """The methods of the maps that were made, not read."""
    calls = []

    def counted(image, method, **parameters):
        calls.append(method)
        return usconf.confidence(image, method, **parameters)

    monkeypatch.setattr(cached, "confidence", counted)
    return calls


WAYS = {
    "random_walk": {"alpha": 0.5, "beta": 100},
    "dag": {"xi": 0.3, "half_width": 2},
    "geometry": {"geometry": usconf.Sector((9.5, -10.0), 11.0, 33.0, -0.4, 0.4)},
    "mask": {"mask": np.tri(24, 20, 6) > 0, "dtype": "float64"},
    "clip": {"axes": "wh"},
}


@pytest.mark.parametrize("way", WAYS)
def test_second_time_comes_from_disk(cache, image, made, way):
    method = way if way == "dag" else "random_walk"
    expected = usconf.confidence(image, method, **WAYS[way])
    for times in range(3):
        found = cache.confidence(image, method, **WAYS[way])
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == expected.dtype and found.flags.writeable
        assert len(made) == 1 == len(files(cache)), times
    np.testing.assert_array_equal(np.load(files(cache)[0]), expected)
    assert files(cache)[0].name.startswith(f"{method}-")


@pytest.mark.torch
def test_learned_maps_go_by_the_content_of_the_weights(cache, image, made, tmp_path):
    pytest.importorskip("safetensors")
    weights = tmp_path / "mine.safetensors"
    shutil.copy(usconf.weights.default_path(), weights)
    expected = usconf.learned(image)
    for given in ({}, {"weights": weights}, {"weights": str(weights)}, {"weights": "default"}):
        np.testing.assert_array_equal(cache.confidence(image, "learned", **given), expected)
    assert made == ["learned"]
    import torch

    torch.manual_seed(0)
    network = importlib.import_module("usconf.nn").ConfidenceUNet(width=8)
    usconf.weights.save(weights, network)
    assert not np.array_equal(cache.confidence(image, "learned", weights=weights), expected)
    assert len(files(cache)) == 2


def test_whatever_changes_the_map_changes_the_file(cache, image, made, monkeypatch):
    other = image.copy()
    other[-1, -1] ^= 1
    deep = 257 * image.astype(np.uint16)
    fan = usconf.Sector((9.5, -10.0), 11.0, 33.0, -0.4, 0.4)
    wider = usconf.Sector((9.5, -10.0), 11.0, 33.0, -0.4, 0.41)
    calls = [
        (image, "random_walk", {}),
        (other, "random_walk", {}),
        (image.astype(np.float32), "random_walk", {}),
        (deep, "random_walk", {}),
        (deep.view(np.int16), "random_walk", {}),  # the same bytes
        (image.reshape(12, 40), "random_walk", {}),
        (image[None], "random_walk", {}),
        (image, "dag", {}),
        (image, "random_walk", {"alpha": 1.0}),
        (image, "random_walk", {"beta": 1.0}),
        (image, "random_walk", {"dtype": "float64"}),
        (image, "random_walk", {"sink": "mid"}),
        (image, "random_walk", {"axes": "wh"}),
        (image, "random_walk", {"mask": image > 3}),
        (image, "random_walk", {"mask": image > 4}),
        (image, "random_walk", {"geometry": fan}),
        (image, "random_walk", {"geometry": wider}),
        (image, "dag", {"roi": (0, 9, 0, 9)}),
        (image, "dag", {"roi": (0, 9, 0, 8)}),
    ]
    for picture, method, parameters in calls * 2:
        cache.confidence(picture, method, **parameters)
    assert len(made) == len(calls) == len(files(cache))
    monkeypatch.setattr(cached._core, "version", "99.0")
    cache.confidence(image)
    assert len(made) == len(calls) + 1 == len(files(cache))


def test_what_is_equal_shares_a_file(cache, image, made):
    swapped = image.astype(">u2")
    strided = np.repeat(image, 2, axis=1)[:, ::2]
    for picture, parameters in [
        (image, {}),
        (strided, {}),
        (np.asfortranarray(image), {"alpha": None}),
        (image, {"preset": "monai", "dtype": np.float32}),
        (image, {"dtype": "float32", "sink": "all"}),
    ]:
        cache.confidence(picture, **parameters)
    assert len(made) == 1
    for alpha in (2, 2.0, np.float32(2), np.array(2)):
        cache.confidence(image, alpha=alpha)
    assert len(made) == 2
    cache.confidence(swapped)
    cache.confidence(image.astype(np.uint16))
    assert len(made) == 3


@pytest.mark.torch
def test_tensors_share_files_with_arrays(cache, image, made):
    import torch

    expected = cache.confidence(image)
    found = cache.confidence(torch.from_numpy(image))
    assert isinstance(found, torch.Tensor) and made == ["random_walk"]
    np.testing.assert_array_equal(found, expected)
    wants = torch.from_numpy(image).float().requires_grad_()
    for _ in range(2):
        assert not cache.confidence(wants).requires_grad
    half = torch.from_numpy(image).to(torch.bfloat16)
    for _ in range(2):
        assert cache.confidence(half).dtype == torch.float32
    beta = torch.nn.Parameter(torch.tensor(50.0))
    assert not cache.confidence(torch.from_numpy(image), beta=beta).requires_grad
    count = len(made)
    cache.confidence(image, beta=50)
    assert len(made) == count


def harmed(content):
    yield "empty", b""
    yield "short", content[:40]
    yield "cut", content[:-1]
    yield "longer", content + b"\0"
    yield "zeros", bytes(len(content))
    for place in (0, 8, 20, 70, 200, len(content) - 40, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 4
        yield f"byte {place}", bytes(changed)


def test_damage_is_seen_and_mended(cache, image, made):
    expected = cache.confidence(image)
    (path,) = files(cache)
    content = path.read_bytes()
    for count, (name, harm) in enumerate(harmed(content), 2):
        path.write_bytes(harm)
        with pytest.warns(UserWarning, match=r"is damaged; its map is made again"):
            found = cache.confidence(image)
        np.testing.assert_array_equal(found, expected, err_msg=name)
        assert len(made) == count and path.read_bytes() == content
    cache.confidence(image.T)
    (other,) = set(files(cache)) - {path}
    shutil.copy(other, path)  # sound, but another image's
    with pytest.warns(UserWarning, match="damaged"):
        np.testing.assert_array_equal(cache.confidence(image), expected)


def test_threads_that_make_one_map_at_once(cache, image):
    expected = usconf.random_walk(image)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: cache.confidence(image), range(64)))
    for one in found:
        np.testing.assert_array_equal(one, expected)
    assert len(files(cache)) == 1


def make_many(folder, seeds):
    """In a process of its own."""
    cache = cached.MapCache(folder)
    for seed in seeds:
        image = np.random.default_rng(seed).integers(0, 256, (24, 20), dtype=np.uint8)
        expected = usconf.random_walk(image)
        assert np.array_equal(cache.confidence(image), expected)


def test_processes_that_make_the_same_maps_at_once(cache):
    start = multiprocessing.get_context("spawn")
    orders = [list(range(12)), list(range(12)), list(range(11, -1, -1))]
    workers = [start.Process(target=make_many, args=(cache.folder, order)) for order in orders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(files(cache)) == 12


def test_failed_writes_leave_nothing(cache, image, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        cache.confidence(image)
    assert files(cache) == []


def test_empty_batches(cache, made):
    nothing = np.zeros((0, 1, 24, 20), np.float32)
    for _ in range(2):
        assert cache.confidence(nothing).shape == nothing.shape
    assert len(made) == 1


def test_may_be_sent_to_workers(cache, image, made):
    cache.confidence(image)
    pickle.loads(pickle.dumps(cache)).confidence(image)
    assert len(made) == 1


def test_refuses(tmp_path, cache, image):
    with pytest.raises(TypeError, match=r"^cache must be a folder's path, got int"):
        cached.MapCache(3)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^cache must be a folder, got the file .*file; name"):
        cached.MapCache(tmp_path / "file")
    with pytest.raises(ValueError, match=r"^method must be one of .*, got 'magic'"):
        cache.confidence(image, "magic")
    with pytest.raises(TypeError, match=r"^parameters must be those of dag, got beta; it takes xi"):
        cache.confidence(image, "dag", beta=3)
    with pytest.raises(TypeError, match=r"^parameters must .* got return_geometry"):
        cache.confidence(image, return_geometry=True)
    with pytest.raises(TypeError, match=r"^memory_limit must be a number, .*got dict; leave cache"):
        cache.confidence(image, memory_limit={})
    with pytest.raises(ValueError, match=r"^beta must be finite and not negative"):
        cache.confidence(image, beta=-1)
    with pytest.raises(TypeError, match=r"^image must be .*got list"):
        cache.confidence([[1, 2]])
    with pytest.raises(FileNotFoundError, match=r"nowhere"):
        cache.confidence(image, "learned", weights=tmp_path / "nowhere")
    assert files(cache) == []
