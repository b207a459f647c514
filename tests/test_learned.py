"""Maps by the network: libraries, sizes, masks, geometry, gradients."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import usconf

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from learned_weights import GRID, network, saved  # noqa: E402


@pytest.fixture
def weights(tmp_path):
    return saved(tmp_path)


def frames(rng, *shape):
    return rng.integers(1, 256, shape, dtype=np.uint8)


def plainly(image):
    """The network's own map of (H, W), at the image's resolution."""
    pixels = torch.from_numpy(image)[None, None].float()
    with torch.no_grad():
        return network()(pixels).sigmoid()[0, 0].numpy()


# what it is


def test_it_is_the_network(rng, weights):
    image = frames(rng, *GRID)
    map = usconf.learned(image, weights=weights)
    assert map.shape == image.shape and map.dtype == np.float32
    np.testing.assert_allclose(map, plainly(image), atol=1e-6)
    assert np.array_equal(usconf.confidence(image, method="learned", weights=weights), map)
    assert np.array_equal(usconf.learned(image, weights=str(weights), size=None), map)


@pytest.mark.filterwarnings("ignore:image has a black first row")
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (32, 24), (33, 24), (200, 9)])
def test_any_size(rng, weights, size):
    for image in (frames(rng, *size), np.zeros(size, np.float32)):
        for grid in ("weights", None, (16, 16)):
            map = usconf.learned(image, weights=weights, size=grid)
            assert map.shape == size and (map >= 0).all() and (map <= 1).all()
            assert (np.diff(map, axis=0) <= 1e-6).all()  # the head's property outlives resampling


def test_large_images_are_seen_at_the_trained_size(rng, weights):
    """Whatever is finer than the grid has no say; the map is a bilinear picture of the grid's."""
    coarse = frames(rng, *GRID)
    image = np.kron(coarse, np.ones((5, 4), np.uint8))
    map = usconf.learned(image, weights=weights)
    middles = map[2::5, 1::4] + map[2::5, 2::4]
    np.testing.assert_allclose(middles / 2, plainly(coarse), atol=0.05)
    for size in (GRID, list(GRID), np.array(GRID)):
        assert np.array_equal(usconf.learned(image, weights=weights, size=size), map)
    at_full = usconf.learned(image, weights=weights, size=None)
    np.testing.assert_allclose(at_full, plainly(image), atol=1e-6)
    assert np.abs(at_full - map).max() > 0.01


def test_small_images_are_not_enlarged(rng, weights):
    image = frames(rng, GRID[0] // 2, 3 * GRID[1])
    expected = usconf.learned(image, weights=weights, size=(GRID[0] // 2, GRID[1]))
    assert np.array_equal(usconf.learned(image, weights=weights), expected)


def test_without_a_grid_the_images_own(rng, tmp_path):
    usconf.weights.save(tmp_path / "no_grid", network())
    image = frames(rng, 70, 50)
    map = usconf.learned(image, weights=tmp_path / "no_grid")
    np.testing.assert_allclose(map, plainly(image), atol=1e-6)


# layouts, types, libraries


def test_batches_and_clips(rng, weights):
    clip = frames(rng, 5, 50, 30)
    expected = np.stack([usconf.learned(frame, weights=weights) for frame in clip])
    found = usconf.learned(clip, weights=weights, axes="thw")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    batch = usconf.learned(clip[:, None], weights=weights)
    assert batch.shape == (5, 1, 50, 30)
    np.testing.assert_allclose(batch[:, 0], expected, atol=1e-5)
    swapped = usconf.learned(clip.transpose(2, 0, 1), weights=weights, axes="wth")
    np.testing.assert_allclose(swapped, expected.transpose(2, 0, 1), atol=1e-5)
    assert usconf.learned(clip[:0], weights=weights, axes="thw").shape == (0, 50, 30)
    with pytest.raises(ValueError, match='axes="thw"'):
        usconf.learned(clip, weights=weights)


def test_long_clips_go_in_parts(rng, weights, monkeypatch):
    clip, mask = frames(rng, 5, 40, 30), rng.random((5, 40, 30)) < 0.8
    given = [{}, {"mask": mask}, {"mask": mask[0]}]
    expected = [usconf.learned(clip, weights=weights, axes="thw", **more) for more in given]
    # `usconf.learned` is the function, whatever the import machinery has done
    monkeypatch.setattr(sys.modules["usconf.learned"], "_AT_ONCE", 2 * 32 * 24)
    for more, whole in zip(given, expected, strict=True):
        found = usconf.learned(clip, weights=weights, axes="thw", **more)
        np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float16", "float32", "float64"])
def test_dtypes(rng, weights, dtype):
    image = frames(rng, 50, 30).astype(dtype)
    expected = usconf.learned(image.astype(np.float32), weights=weights)
    map = usconf.learned(image, weights=weights)
    assert map.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(map, expected, atol=1e-5)
    tensor = usconf.learned(torch.from_numpy(image), weights=weights)
    assert str(tensor.dtype) == f"torch.{map.dtype}"
    np.testing.assert_array_equal(tensor.numpy(), map)


def test_float64_is_computed_so(rng, weights):
    """Differences that float32 cannot hold, on a large offset."""
    image = frames(rng, 50, 30)
    expected = usconf.learned(image, weights=weights, dtype="float64")
    assert expected.dtype == np.float64
    shifted = usconf.learned(image + 1e12, weights=weights)
    np.testing.assert_allclose(shifted, expected, atol=1e-4)
    single = usconf.learned(image + 1e12, weights=weights, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-4)


def test_strides_and_read_only(rng, weights):
    image = frames(rng, 50, 30)
    expected = usconf.learned(image, weights=weights)
    wide = np.zeros((50, 60), np.uint8)
    wide[:, ::2] = image
    frozen = image.copy()
    frozen.flags.writeable = False
    for other in (wide[:, ::2], image[::-1].copy()[::-1], np.asfortranarray(image), frozen):
        before = other.copy()
        assert np.array_equal(usconf.learned(other, weights=weights), expected)
        assert np.array_equal(other, before)
    swapped = image.astype(">f4")
    np.testing.assert_allclose(usconf.learned(swapped, weights=weights), expected, atol=1e-6)


def test_leaves_torch_as_it_was(rng, weights):
    """Random numbers, default device and modes of the caller."""
    image = torch.from_numpy(frames(rng, 40, 30)).float()
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    with torch.inference_mode():
        map = usconf.learned(image, weights=weights)
    assert torch.equal(torch.rand(3), expected)
    image.requires_grad_()
    again = usconf.learned(image, weights=weights)  # the cached network is no child of that mode
    again.sum().backward()
    np.testing.assert_array_equal(again.detach().numpy(), map.numpy())


# masks


def test_mask(rng, weights):
    image = frames(rng, 60, 40)
    mask = np.ones((60, 40), bool)
    mask[:, :10], mask[:7] = False, False
    expected = usconf.learned(image, weights=weights, mask=mask)
    assert (expected[~mask] == 0).all() and (expected[mask] > 0).all()
    other = np.where(mask, image, 255).astype(np.uint8)
    assert np.array_equal(usconf.learned(other, weights=weights, mask=mask.astype(int)), expected)
    everywhere = usconf.learned(image, weights=weights, mask=np.ones_like(mask))
    np.testing.assert_allclose(everywhere, usconf.learned(image, weights=weights), atol=1e-6)
    nowhere = usconf.learned(image, weights=weights, mask=np.zeros_like(mask))
    assert (nowhere == 0).all()
    tensor = usconf.learned(torch.from_numpy(image), weights=weights, mask=torch.from_numpy(mask))
    np.testing.assert_array_equal(tensor.numpy(), expected)


@pytest.mark.parametrize("size", [None, "weights"])
def test_nan(rng, weights, size):
    image = frames(rng, 60, 40).astype(np.float32)
    holes = rng.random((60, 40)) < 0.1
    image[holes] = rng.choice([np.nan, np.inf, -np.inf], holes.sum())
    with pytest.raises(ValueError, match=r'NaN or infinite pixel\(s\).*nan="mask"'):
        usconf.learned(image, weights=weights, size=size)
    expected = usconf.learned(image, weights=weights, size=size, mask=~holes)
    assert np.array_equal(usconf.learned(image, weights=weights, size=size, nan="mask"), expected)
    assert np.isfinite(expected).all() and (expected[holes] == 0).all()
    tensor = torch.from_numpy(image).requires_grad_()
    usconf.learned(tensor, weights=weights, size=size, nan="mask").sum().backward()
    assert tensor.grad.isfinite().all() and (tensor.grad[torch.from_numpy(holes)] == 0).all()


# geometry


def test_geometry(rng, weights):
    image = frames(rng, 90, 80)
    fan = usconf.Sector(apex=(40, -20), r_min=25, r_max=105, theta_min=-0.4, theta_max=0.4)
    map, given = usconf.confidence(
        image, "learned", weights=weights, geometry=fan, return_geometry=True
    )
    assert given is fan and map.shape == image.shape and (map >= 0).all() and (map <= 1).all()
    inside = fan.contains(*np.meshgrid(np.arange(80), np.arange(90)))
    assert (map[~inside] == 0).all() and (map[inside] > 0).mean() > 0.99
    beams = usconf.to_beam(image.astype(np.float32), fan)
    known = usconf.learned(beams.image, weights=weights, mask=beams.mask)
    back = usconf.to_scan(known, fan, image.shape).image
    np.testing.assert_allclose(map[30:70, 30:50], back[30:70, 30:50], atol=1e-5)
    mask = np.ones((90, 80), bool)
    mask[:, 40:] = False
    masked = usconf.confidence(image, "learned", weights=weights, geometry=fan, mask=mask)
    assert (masked[:, 40:] == 0).all() and masked[:, :40].max() > 0.1
    tensor = torch.from_numpy(image).float().requires_grad_()
    usconf.confidence(tensor, "learned", weights=weights, geometry=fan).sum().backward()
    assert tensor.grad.isfinite().all() and tensor.grad.abs().max() > 0


def test_margins_draw_a_warning(rng, weights):
    image = frames(rng, 60, 40)
    image[:5] = 0
    with pytest.warns(UserWarning, match="black first row") as caught:
        usconf.learned(image, weights=weights)
    assert caught[0].filename == __file__


# gradients


@pytest.mark.parametrize("size", [None, (6, 5)])
def test_gradient_to_the_image(weights, size):
    torch.manual_seed(1)
    image = torch.rand(8, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda pixels: usconf.learned(pixels, weights=weights, size=size), (image,)
    )


def test_gradients_only_where_wanted(rng, weights):
    image = torch.from_numpy(frames(rng, 40, 30)).float()
    assert not usconf.learned(image, weights=weights).requires_grad
    image.requires_grad_()
    assert usconf.learned(image, weights=weights).requires_grad
    with torch.no_grad():
        assert not usconf.learned(image, weights=weights).requires_grad
    assert not any(p.requires_grad for p in usconf.weights.load(weights).parameters())


# refuses


@pytest.mark.parametrize(
    "given, error, message",
    [
        ({"size": "own"}, ValueError, r'^size must be "weights", None or .*got \'own\''),
        ({"size": (3,)}, ValueError, r"^size must be \(rows, columns\).*got \(3,\)"),
        ({"size": (0, 3)}, ValueError, r"^size must .*got \(0, 3\)"),
        ({"size": (2.5, 3)}, ValueError, r"^size must .*got \(2.5, 3\)"),
        ({"size": 64}, ValueError, r"^size must .*got 64"),
        ({"nan": "drop"}, ValueError, r"^nan must be one of"),
        ({"dtype": "int32"}, ValueError, r"^dtype must be float32 or float64"),
        ({"weights": 3}, TypeError, r'^weights must be "default" or the path'),
        ({"weights": "none.safetensors"}, FileNotFoundError, r"got none.safetensors"),
        ({"mask": np.ones((3, 3))}, ValueError, r"^mask must have shape"),
        ({"xi": 0.1}, TypeError, "xi"),
    ],
)
def test_refuses(rng, weights, given, error, message):
    with pytest.raises(error, match=message):
        usconf.learned(frames(rng, 20, 20), **{"weights": weights, **given})


def test_refuses_images(weights):
    with pytest.raises(TypeError, match=r"^image must be a NumPy array"):
        usconf.learned([[1, 2]], weights=weights)
    with pytest.raises(TypeError, match=r"^image must be real"):
        usconf.learned(np.ones((3, 3), complex), weights=weights)
    with pytest.raises(ValueError, match="at least one row"):
        usconf.learned(np.ones((0, 3)), weights=weights)


@pytest.mark.parametrize("name", ["torch", "safetensors"])
def test_says_what_to_install(rng, weights, monkeypatch, name):
    storage = sys.modules["usconf.weights.storage"]

    def absent(wanted):
        if wanted.split(".")[0] == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return sys.modules[wanted]

    monkeypatch.setattr(storage, "import_module", absent)
    with pytest.raises(ImportError, match=rf'{name} must be installed.*"usconf\[learned\]"'):
        usconf.learned(frames(rng, 20, 20), weights=weights)


# on a GPU


@pytest.mark.cuda
def test_cuda_tensors(rng, weights):
    clip, mask = frames(rng, 3, 50, 30), rng.random((50, 30)) < 0.9
    expected = usconf.learned(clip, weights=weights, axes="thw", mask=mask)
    found = usconf.learned(torch.from_numpy(clip).cuda(), weights=weights, axes="thw", mask=mask)
    assert found.is_cuda
    np.testing.assert_allclose(found.cpu().numpy(), expected, atol=2e-3)


@pytest.mark.cupy
def test_cupy_arrays(rng, weights):
    import cupy

    clip, mask = frames(rng, 3, 50, 30), rng.random((50, 30)) < 0.9
    expected = usconf.learned(clip, weights=weights, axes="thw", mask=mask)
    found = usconf.learned(cupy.asarray(clip), weights=weights, axes="thw", mask=mask)
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_allclose(found.get(), expected, atol=2e-3)
