"""Maps through a geometry: unrolled, mapped, rolled back; the shadow follows the beams."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import usconf
from reference import random_walk as reference
from reference import scan_conversion as oracle
from usconf.phantom import demo_fan

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def fan():
    return demo_fan(180, 240)


@pytest.fixture(scope="module")
def clip(fan):
    frame = fan[0]
    return np.stack([frame, np.minimum(frame, 200), frame // 2])


def by_hand(image, geometry, **parameters):
    """The three steps, one after the other."""
    beams, _ = usconf.to_beam(image.astype(np.float32), geometry)
    return usconf.to_scan(usconf.random_walk(beams, **parameters), geometry, image.shape).image


# what it is


def test_is_the_map_of_the_beams_rolled_back(fan):
    image, geometry = fan
    found = usconf.confidence(image, geometry=geometry, beta=80)
    np.testing.assert_allclose(found, by_hand(image, geometry, beta=80), atol=1e-6)
    assert found.dtype == np.float32 and found.shape == image.shape


def test_against_the_oracles():
    image, geometry = demo_fan(64, 80)
    kind, values = geometry.parameters(grid := geometry.beam_grid(image.shape))
    plan = oracle.Plan(kind, values, *grid.shape, *image.shape)
    beams = oracle.to_beam(plan)(image.astype(float))
    expected = oracle.to_scan(plan)(reference.solve(beams))
    found = usconf.confidence(image.astype(float), geometry=geometry)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_face_is_one_and_the_surround_zero(fan):
    image, geometry = fan
    found = usconf.confidence(image, geometry=geometry)
    rows, columns = np.indices(image.shape)
    inside = geometry.contains(columns, rows)
    assert found[~inside].max() == 0
    radius = np.hypot(columns - geometry.apex[0], rows - geometry.apex[1])
    near = inside & (radius < geometry.r_min + 0.5)
    assert near.sum() > 20 and found[near].min() > 0.97
    assert found[inside & (radius > geometry.r_max - 0.5)].max() < 0.02
    assert found.min() >= 0 and found.max() <= 1


def test_the_shadow_follows_the_beams(fan):
    """A strong reflector across some oblique beams: behind it, along them, the map is dark."""
    image, geometry = fan
    rows, columns = np.indices(image.shape)
    angle = np.arctan2(columns - geometry.apex[0], rows - geometry.apex[1])
    radius = np.hypot(columns - geometry.apex[0], rows - geometry.apex[1])
    picture = np.where(geometry.contains(columns, rows), 90, 0).astype(np.uint8)
    depth = geometry.r_min + 0.4 * (geometry.r_max - geometry.r_min)
    blocked = (angle > 0.3) & (angle < 0.45)
    picture[blocked & (abs(radius - depth) < 2)] = 255
    picture[blocked & (radius > depth + 2) & geometry.contains(columns, rows)] = 5
    found = usconf.confidence(picture, geometry=geometry)
    behind = (radius > depth + 10) & (radius < depth + 40)
    shadow = found[behind & (angle > 0.33) & (angle < 0.42)]
    lit = found[behind & (angle < -0.33) & (angle > -0.42)]
    assert shadow.mean() < 0.25 * lit.mean()
    # Every beam inside the shadow is about as dark: none is crossed by its border.
    each = [found[behind & (abs(angle - at) < 0.01)].mean() for at in (0.34, 0.375, 0.41)]
    assert max(each) < 0.4 * lit.mean()


@pytest.mark.parametrize("geometry", [
    usconf.Linear(0, 47, 0, 63),
    usconf.Trapezoid((0, 0), (47, 0), (47, 63), (0, 63)),
], ids=["linear", "trapezoid"])  # fmt: skip
def test_the_whole_picture_changes_nothing(rng, geometry):
    image = rng.integers(0, 256, (64, 48), dtype=np.uint8)
    found = usconf.confidence(image, geometry=geometry)
    np.testing.assert_allclose(found, usconf.confidence(image), atol=2e-6)


# arguments


def test_axes_dtypes_and_kinds(fan, clip):
    _, geometry = fan
    maps = usconf.confidence(clip, geometry=geometry, axes="thw")
    for frame, found in zip(clip, maps, strict=True):
        np.testing.assert_array_equal(found, usconf.confidence(frame, geometry=geometry))
    turned = usconf.confidence(clip.transpose(1, 2, 0), geometry=geometry, axes="hwt")
    np.testing.assert_array_equal(turned.transpose(2, 0, 1), maps)
    assert usconf.confidence(clip[:1].astype(float), geometry=geometry).dtype == np.float64
    asked = usconf.confidence(clip[0], geometry=geometry, dtype="float64")
    assert asked.dtype == np.float64
    np.testing.assert_allclose(asked, maps[0], atol=1e-6)


@pytest.mark.torch
def test_torch_gradients_flow_through(fan):
    import torch

    image, geometry = fan
    tensor = torch.from_numpy(image[::3, ::3].astype(np.float64)).requires_grad_()
    small = usconf.Sector(
        tuple(c / 3 for c in geometry.apex), geometry.r_min / 3, geometry.r_max / 3,
        geometry.theta_min, geometry.theta_max,
    )  # fmt: skip
    beta = torch.tensor(90.0, dtype=torch.float64, requires_grad=True)
    found = usconf.confidence(tensor, geometry=small, beta=beta)
    np.testing.assert_allclose(
        found.detach().numpy(), usconf.confidence(tensor.detach().numpy(), geometry=small)
    )
    weight = torch.from_numpy(np.random.default_rng(0).random(tuple(found.shape)))
    (found * weight).sum().backward()
    step = 1e-4

    def loss(values, sharpness=90.0):  # fmt: skip
        return (usconf.confidence(values, geometry=small, beta=sharpness) * weight.numpy()).sum()

    values = tensor.detach().numpy()
    for row, column in ((20, 40), (35, 30)):
        up, down = values.copy(), values.copy()
        up[row, column] += step
        down[row, column] -= step
        slope = (loss(up) - loss(down)) / (2 * step)
        assert tensor.grad[row, column].item() == pytest.approx(slope, rel=1e-4, abs=1e-9)
    slope = (loss(values, 90 + step) - loss(values, 90 - step)) / (2 * step)
    assert beta.grad.item() == pytest.approx(slope, rel=1e-4)


def test_masks_are_of_the_image(fan):
    image, geometry = fan
    mask = np.ones(image.shape, np.uint8)
    mask[100:120, 100:140] = 0
    found = usconf.confidence(image, geometry=geometry, mask=mask)
    assert found[mask == 0].max() == 0
    free = usconf.confidence(image, geometry=geometry)
    assert np.abs(found - free)[:60].max() < 0.1 and np.abs(found - free).max() > 0.05
    # Next to the hole nothing is darkened by the zeros in it.
    edge = found[99, 105:135]
    assert edge.min() > 0.5 * free[99, 105:135].min()
    sinks = np.zeros(image.shape, bool)
    sinks[130:] = True
    cut = usconf.confidence(image, geometry=geometry, sink="mask", sink_mask=sinks)
    rows, columns = np.indices(image.shape)
    assert cut[geometry.contains(columns, rows) & (rows > 132)].max() < 0.02


def test_nan_outside_the_fan_is_nothing_to_worry_about(fan):
    image, geometry = fan
    rows, columns = np.indices(image.shape)
    outside = ~geometry.contains(columns, rows)
    values = image.astype(np.float32)
    clean = usconf.confidence(values, geometry=geometry)
    values[outside] = np.nan
    np.testing.assert_array_equal(usconf.confidence(values, geometry=geometry), clean)
    values[90, 120] = np.nan
    with pytest.raises(ValueError, match=r"got 1 NaN .* row 90, column 120"):
        usconf.confidence(values, geometry=geometry)
    found = usconf.confidence(values, geometry=geometry, nan="mask")
    apart = np.abs(found - clean)
    assert apart[90, 120] > 0.3 and found[90, 120] == 0  # no confidence in no value
    apart[88:93, 118:123] = 0
    assert np.isfinite(found).all() and apart.max() < 0.1


def test_a_cropped_face_starts_at_the_picture(fan):
    """r_min None: the first sample inside the picture is the source of its beam."""
    image, geometry = fan
    top = 45
    shifted = usconf.Sector(
        (geometry.apex[0], geometry.apex[1] - top), None, geometry.r_max,
        geometry.theta_min, geometry.theta_max,
    )  # fmt: skip
    cropped = image[top:]
    found = usconf.confidence(cropped, geometry=shifted)
    rows, columns = np.indices(cropped.shape)
    inside = shifted.contains(columns, rows)
    assert found[0][inside[0]].min() > 0.9
    assert found[~inside].max() == 0
    assert (found[inside] > 0).mean() > 0.97


def test_geometry_comes_back(fan):
    image, geometry = fan
    found, used = usconf.confidence(image, geometry="auto", return_geometry=True)
    assert used == usconf.fit_fan(image).geometry
    np.testing.assert_array_equal(found, usconf.confidence(image, geometry=used))
    assert usconf.confidence(image, geometry=geometry, return_geometry=True)[1] is geometry
    plain = image[60:100, 100:140]
    assert usconf.confidence(plain, return_geometry=True)[1] is None


def test_auto_is_close_to_the_truth(fan):
    image, geometry = fan
    found, fitted = usconf.confidence(image, geometry="auto", return_geometry=True)
    expected = usconf.confidence(image, geometry=geometry)
    assert fitted.kind == "sector"
    rows, columns = np.indices(image.shape)
    apart = np.abs(found - expected)[geometry.contains(columns, rows)]
    assert np.median(apart) < 0.01 and apart.mean() < 0.03


def test_auto_crops_a_linear_frame_to_its_support(rng):
    screen = np.zeros((120, 160), np.uint8)
    screen[10:100, 30:130] = frame = rng.integers(20, 200, (90, 100), dtype=np.uint8)
    found, fitted = usconf.confidence(screen, geometry="auto", return_geometry=True)
    assert fitted.kind == "linear"
    np.testing.assert_allclose(found[10:100, 30:130], usconf.confidence(frame), atol=1e-4)
    found[10:100, 30:130] = 0
    assert found.max() == 0


# refuses, warns


def test_a_fan_without_geometry_draws_one_warning(fan, clip):
    image, _ = fan
    with pytest.warns(UserWarning, match='geometry="auto"') as caught:
        usconf.confidence(image)
    assert len(caught) == 1 and "fan" in str(caught[0].message)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="fan") as caught:
        usconf.random_walk(clip, axes="thw")
    assert len(caught) == 1


@pytest.mark.torch
def test_a_fan_in_a_tensor_draws_it_too(fan):
    import torch

    with pytest.warns(UserWarning, match="fan"):
        usconf.confidence(torch.from_numpy(fan[0]))


@pytest.mark.data
def test_real_fans_are_told_from_linear_frames(data_dir):
    from PIL import Image
    from usconf.margins import warn_of_margins

    def is_fan(path):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_margins(np.array(Image.open(path).convert("L"))[None])
        return any("fan" in str(warning.message) for warning in caught)

    fans = [path.stem for path in sorted((data_dir / "convex").glob("*.png")) if not is_fan(path)]
    assert set(fans) <= {"oliveira_5A", "whitelung_f061"}  # not plainly: cropped; another scale
    assert not [path for path in (data_dir / "linear").glob("*.png") if is_fan(path)]


@pytest.mark.parametrize("wrong, match", [
    ("fan", 'None, "auto" or'),
    ("fan.json", "geometry.load reads"),
    (usconf.Sector, "usconf.Sector"),
    (3.0, "usconf.Linear"),
])  # fmt: skip
def test_not_a_geometry(rng, wrong, match):
    with pytest.raises(TypeError, match=match):
        usconf.confidence(rng.random((32, 32)), geometry=wrong)


def test_a_fit_is_not_its_geometry(fan):
    with pytest.raises(TypeError, match=r"pass its \.geometry"):
        usconf.confidence(fan[0], geometry=usconf.fit_fan(fan[0]))


def test_refuses(rng, fan):
    image, geometry = fan
    with pytest.raises(ValueError, match="beams already"):
        usconf.confidence(image, geometry=geometry, mode="RF")
    with pytest.raises(ValueError, match=r"^geometry must"):
        usconf.confidence(image, geometry=usconf.Linear(1000, 1100, 0, 50))
    with pytest.raises(ValueError, match="constant"):
        usconf.confidence(np.full((64, 64), 7, np.uint8), geometry="auto")
    with pytest.raises(ValueError, match="fit each"):
        usconf.confidence(rng.random((2, 1, 64, 64)), geometry="auto")
    with pytest.raises(ValueError, match="mask must have shape"):
        usconf.confidence(image, geometry=geometry, mask=np.ones((3, 3)))
    with pytest.raises(TypeError, match="alhpa"):
        usconf.confidence(image, geometry=geometry, alhpa=2)
