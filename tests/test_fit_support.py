"""fit_support: hand-measured frames of real linear pictures, made rectangles and parallelograms."""

from __future__ import annotations

import numpy as np
import pytest
import usconf
from fan_phantom import letters, ruler

# First and last column, first and last row with echo, read off the pixels' rows and columns by
# hand. The UltraBones frames fill their pictures but for a thin bar in the last column.
WHOLE_BONE = (0, 948, 0, 810)
MEASURED = {
    **{f"bone_{name}": WHOLE_BONE for name in ("1_1", "2_3", "3_2", "5_8", "6_3", "7_2")},
    **{
        f"bone_ct_{name}": WHOLE_BONE
        for name in ("162705", "163296", "163776", "164262", "165336", "165815")
    },
    "lung_lin_a_f247": (3, 204, 0, 233),
    "lung_lin_b_f075": (0, 269, 0, 269),
    "muscle_S1": (0, 513, 0, 457),
    "spine_phantom_f05": (187, 631, 12, 601),
    "spine_phantom_f15": (187, 631, 12, 601),
    "usgra_0000": (0, 511, 68, 401),
    "usgra_0028": (0, 511, 26, 443),
    "usgra_0051": (28, 483, 0, 477),
    "usgra_0126": (46, 669, 0, 574),
    "usgra_0184": (28, 483, 0, 477),
    "usgra_0229": (28, 483, 0, 477),
}


@pytest.mark.parametrize("name", MEASURED)
def test_real_rectangle(frames, name):
    image = frames(f"linear/{name}")
    fit = usconf.fit_support(image)
    found = fit.geometry
    assert found.kind == "linear"
    ends = (found.x_min, found.x_max, found.z_min, found.z_max)
    assert ends == pytest.approx(MEASURED[name], abs=3)
    assert fit.residual < 1.5
    rows, columns = np.nonzero(fit.support)
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == ends


def test_real_steered(frames):
    """A steered frame, its lower left cut by the screen's margin, amid text, bar and marks."""
    image = frames("linear/muscle_steered")
    fit = usconf.fit_support(image)
    # Ends of the side lines read off the pixels: (169, 70), (120, 252), (745, 70), (697, 250).
    (ax, az), (bx, bz), (cx, cz), (dx, dz) = fit.geometry.corners
    assert (az, bz) == pytest.approx((70, 70), abs=3)
    assert (cz, dz) == pytest.approx((505, 505), abs=3)
    assert (ax, bx) == pytest.approx((169, 745), abs=3)
    left = ax + (dx - ax) * (252 - az) / (dz - az)
    right = bx + (cx - bx) * (250 - bz) / (cz - bz)
    assert (left, right) == pytest.approx((120, 697), abs=3)
    rows, columns = np.nonzero(fit.support)
    assert (columns.min(), columns.max()) == pytest.approx((120, 745), abs=3)
    assert (rows.min(), rows.max()) == pytest.approx((70, 505), abs=3)
    bright = image > 40
    bright[:68], bright[506:] = False, False
    bright[:, :119], bright[:, 760:] = False, False
    bright[:82, :160] = False  # the probe mark beside the top left corner
    assert (bright & ~fit.support).sum() < 0.002 * bright.sum()


def test_every_real_linear_picture_is_measured(data_dir):
    names = {path.stem for path in (data_dir / "linear").glob("*.png")}
    assert names == {*MEASURED, "muscle_steered"}


def echo(rng, shape):
    return rng.integers(20, 220, shape).astype(np.uint8)


@pytest.mark.parametrize("seed", range(12))
def test_rectangles_with_margins(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(120, 700, 2)
    x0, x1 = int(width * rng.uniform(0, 0.3)), int(width * rng.uniform(0.6, 1.0)) - 1
    z0, z1 = int(height * rng.uniform(0, 0.2)), int(height * rng.uniform(0.6, 1.0)) - 1
    screen = np.zeros((height, width), np.uint8)
    body = echo(rng, (z1 - z0 + 1, x1 - x0 + 1))
    body[body.shape[0] // 2 :, : body.shape[1] // 3] = 0  # a shadow that reaches the side
    screen[z0 : z1 + 1, x0 : x1 + 1] = body
    found = usconf.fit_support(screen).geometry
    ends = (found.x_min, found.x_max, found.z_min, found.z_max)
    assert ends == pytest.approx((x0, x1, z0, z1), abs=3)


@pytest.mark.parametrize("steering", [-18, -8, 5, 12, 20])
def test_parallelograms(rng, steering):
    shift = 260 * np.tan(np.radians(steering))
    left, right = 180.0, 420.0
    want = usconf.Trapezoid((left, 30), (right, 30), (right + shift, 290), (left + shift, 290))
    x, z = np.meshgrid(np.arange(640), np.arange(330))
    screen = np.where(want.contains(x, z), echo(rng, x.shape), 0)
    fit = usconf.fit_support(screen)
    assert fit.geometry.kind == "trapezoid"
    for found, corner in zip(fit.geometry.corners, want.corners, strict=True):
        assert found == pytest.approx(corner, abs=3)
    assert fit.residual < 1


def test_diverging_trapezoid(rng):
    want = usconf.Trapezoid((160, 20), (280, 20), (380, 280), (60, 280))
    x, z = np.meshgrid(np.arange(440), np.arange(300))
    fit = usconf.fit_support(np.where(want.contains(x, z), echo(rng, x.shape), 0))
    for found, corner in zip(fit.geometry.corners, want.corners, strict=True):
        assert found == pytest.approx(corner, abs=3)


def test_text_bar_and_ruler(rng):
    screen = np.zeros((480, 640), np.uint8)
    screen[60:440, 150:560] = echo(rng, (380, 410))
    screen[:30] = 60
    letters(screen, rng, 60, 4, 8, 8, 2)
    ruler(screen, 600, 20, 8)
    found = usconf.fit_support(screen).geometry
    ends = (found.x_min, found.x_max, found.z_min, found.z_max)
    assert ends == pytest.approx((150, 559, 60, 439), abs=3)


def test_whole_picture_when_there_is_no_margin(rng):
    fit = usconf.fit_support(echo(rng, (90, 70)))
    assert fit.geometry == usconf.Linear(0, 69, 0, 89)
    assert fit.support.all() and fit.residual == 0 and not fit.parts


def test_spacing_region_and_clip(rng):
    clip = np.zeros((3, 200, 300), np.uint8)
    clip[:, 20:180, 40:260] = echo(rng, (3, 160, 220))
    fit = usconf.fit_support(clip, axes="thw", region=(30, 10, 290, 190), spacing=(0.1, 0.2))
    found = fit.geometry
    ends = (found.x_min, found.x_max, found.z_min, found.z_max)
    assert ends == pytest.approx((4.0, 25.9, 4.0, 35.8), abs=0.4)
    assert found.unit == "mm" and fit.support.shape == (200, 300)


@pytest.mark.parametrize("shape", [(1, 2), (2, 2), (1, 40), (40, 1), (5, 5)])
def test_tiny_pictures(rng, shape):
    """Too small for borders: the whole picture, or a refusal where a frame can't be."""
    try:
        assert usconf.fit_support(echo(rng, shape)).support.shape == shape
    except ValueError as error:
        assert "must" in str(error)


def test_refuses():
    with pytest.raises(ValueError, match="constant picture"):
        usconf.fit_support(np.zeros((40, 40), np.uint8))
    with pytest.raises(ValueError, match="region must lie inside"):
        usconf.fit_support(np.eye(40, dtype=np.uint8), region=(0, 0, 60, 60))
    x, z = np.meshgrid(np.arange(360), np.arange(300))
    fan = usconf.Sector((180.0, -40.0), 70.0, 320.0, -0.55, 0.55)
    image = np.where(fan.contains(x, z), (7 * x + 13 * z) % 180 + 30, 0).astype(np.uint8)
    with pytest.raises(ValueError, match="fit_fan"):
        usconf.fit_support(image)
