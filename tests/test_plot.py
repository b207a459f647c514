"""Overlays: gray where trusted, tinted where not, speckle readable in between."""

from __future__ import annotations

import numpy as np
import pytest
from usconf.phantom import demo_frame
from usconf.plot import COLORMAPS, overlay, show


@pytest.mark.parametrize("colormap", COLORMAPS)
def test_full_confidence_leaves_the_image_gray(colormap):
    ramp = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tinted = overlay(ramp, np.ones((16, 16)), colormap=colormap)
    assert tinted.dtype == np.uint8 and np.array_equal(tinted, np.stack([ramp] * 3, -1))
    assert np.array_equal(overlay(ramp, np.zeros((16, 16)), colormap=colormap, alpha=0), tinted)


@pytest.mark.parametrize("colormap", COLORMAPS)
@pytest.mark.parametrize("confidence", [0.0, 0.5])
def test_speckle_stays_readable_under_the_tint(colormap, confidence):
    ramp = np.arange(256, dtype=np.uint8)[None]
    luma = overlay(ramp, np.full((1, 256), confidence), colormap=colormap) @ [0.299, 0.587, 0.114]
    # Brighter echoes stay brighter (gamut clipping and rounding cost a level or two), and at
    # least a third of the contrast is left where the tint is strongest.
    assert np.diff(luma[0]).min() > -2
    assert luma[0, -1] - luma[0, 0] > 255 / 3


def test_low_confidence_is_tinted_even_in_a_black_shadow():
    tinted = overlay(np.zeros((1, 1), np.uint8), np.zeros((1, 1))).astype(int)
    assert np.ptp(tinted) > 40


def test_tint_grows_as_confidence_falls():
    gray = np.full((1, 256), 128, np.uint8)
    tinted = overlay(gray, np.linspace(0, 1, 256)[None]).astype(int)
    distance = np.abs(tinted - 128).sum(-1)[0]
    assert distance[0] > distance[64] > distance[128] > distance[192] > distance[255] == 0


@pytest.mark.parametrize("shape", [(5, 4), (1, 5, 4), (3, 5, 4), (2, 1, 5, 4)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_shapes_and_types(rng, shape, dtype):
    image = (100 * rng.random(shape)).astype(dtype)
    before = image.copy()
    assert overlay(image, np.zeros(shape, np.float32)).shape == (*shape, 3)
    assert np.array_equal(image, before)


def test_other_types_are_scaled_to_black_and_white():
    image = np.array([[-5.0, 5.0, np.nan]])
    assert overlay(image, np.ones((1, 3)))[0, :, 0].tolist() == [0, 255, 0]
    assert overlay(np.full((1, 2), 7.0), np.ones((1, 2))).max() == 0


def test_outside_the_support_the_image_stays_gray(rng):
    image = rng.integers(0, 256, (2, 4, 5), dtype=np.uint8)
    support = np.zeros((4, 5), bool)
    support[1:3] = True
    tinted = overlay(image, np.zeros(image.shape), support=support)
    plain = np.repeat(image[..., None], 3, axis=-1)
    assert np.array_equal(tinted[:, ~support], plain[:, ~support])
    everywhere = overlay(image, np.zeros(image.shape))
    assert np.array_equal(tinted[:, support], everywhere[:, support])
    assert np.array_equal(
        overlay(image, np.zeros(image.shape), support=np.ones(image.shape)), everywhere
    )
    with pytest.raises(ValueError, match="support must have shape"):
        overlay(image, np.zeros(image.shape), support=support.T)


def test_overlay_refuses():
    image = np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match="confidence must have the shape of the image"):
        overlay(image, np.zeros((5, 4)))
    for bad in (np.nan, -0.1, 1.1):
        with pytest.raises(ValueError, match=r"confidence must lie in \[0, 1\]"):
            overlay(image, np.full((4, 5), bad))
    with pytest.raises(ValueError, match="colormap must be one of dusk"):
        overlay(image, np.zeros((4, 5)), colormap="jet")
    with pytest.raises(ValueError, match="alpha must be in"):
        overlay(image, np.zeros((4, 5)), alpha=2)
    with pytest.raises(TypeError, match="image must hold real numbers"):
        overlay(image.astype(complex), np.zeros((4, 5)))


def test_show_draws_three_panels(monkeypatch, rng):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure = show(rng.random((6, 5)), rng.random((6, 5)), spacing_mm=(0.5, 0.2))
    try:
        figure.canvas.draw()
        titles = [axis.get_title() for axis in figure.axes]
        assert titles[:3] == ["image", "confidence", "overlay"]
        assert figure.axes[0].images[0].get_extent() == [0, 1, 3, 0]
    finally:
        pyplot.close(figure)
    with pytest.raises(ValueError, match="image must be one frame"):
        show(np.zeros((2, 6, 5)), np.zeros((2, 6, 5)))


def test_demo_frame_is_the_same_every_time():
    frame = demo_frame(96, 64)
    assert frame.shape == (96, 64) and frame.dtype == np.uint8
    assert np.array_equal(frame, demo_frame(96, 64))
    assert not np.array_equal(frame, demo_frame(96, 64, seed=1))
    assert frame[0].min() > 0
    with pytest.raises(ValueError, match="height must be at least 16, got 8"):
        demo_frame(8, 64)


def test_demo_frame_has_vessel_bone_and_shadow():
    frame = demo_frame().astype(float)
    row, column = 384 / 40, 384 / 38
    tissue = frame[int(28 * row) : int(32 * row), : int(6 * column)].mean()
    vessel = frame[int(21 * row) : int(23 * row), int(9 * column) : int(11 * column)].mean()
    bone = frame[int(23 * row) : int(25 * row), int(26 * column) : int(27 * column)].max()
    shadow = frame[int(28 * row) : int(32 * row), int(25 * column) : int(28 * column)].mean()
    assert vessel < tissue / 4 and shadow < tissue / 4 and bone > 200
