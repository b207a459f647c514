"""fit_fan: real pictures against their reference fans, phantoms with a known one, refusals."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import usconf
from fan_phantom import beams, letters, ruler, scan, screenshot
from scipy import ndimage

CONVEX = (
    "lightbeam_f154",
    "liver_f034",
    "liver_f069",
    "liver_f104",
    "liver_f121",
    "lung_a_f140",
    "lung_b_f108",
    "lung_c_f187",
    "oliveira_15A",
    "ultrasonix_phantom_f0",
)


def reference(data_dir, name):
    """The picture's own fan: `fit_check` where present, else the file's values."""
    values = json.loads((data_dir / "convex" / f"{name}.fan.json").read_text())
    return values.get("fit_check", values)


def apart(sector, apex, thetas):
    """Distance of the apex and the worse angle in degrees."""
    distance = math.dist(sector.apex, apex)
    found = np.degrees([sector.theta_min, sector.theta_max])
    return distance, float(np.abs(found - thetas).max())


# real pictures (issue 3)


@pytest.mark.parametrize("name", CONVEX)
def test_real_convex(frames, data_dir, name):
    want = reference(data_dir, name)
    fit = usconf.fit_fan(frames(f"convex/{name}"))
    angles = want["theta_left_deg"], want["theta_right_deg"]
    distance, angle = apart(fit.geometry, want["apex_xy"], angles)
    assert distance < 6
    assert angle < 0.7
    assert fit.geometry.r_max == pytest.approx(want["r_outer"], rel=0.015)
    if want["r_inner"] is None:
        assert fit.geometry.r_min is None
    else:
        assert fit.geometry.r_min == pytest.approx(want["r_inner"], abs=3)
    assert fit.residual < 1.0
    assert fit.support.dtype == bool and fit.support.shape == frames(f"convex/{name}").shape


def test_real_approximate(frames, data_dir):
    """whitelung: unequal x and z scaling, so no fan fits it well; a fan it stays."""
    want = reference(data_dir, "whitelung_f061")
    fit = usconf.fit_fan(frames("convex/whitelung_f061"))
    angles = want["theta_left_deg"], want["theta_right_deg"]
    distance, angle = apart(fit.geometry, want["apex_xy"], angles)
    assert distance < 8 and angle < 1.5


def test_real_picture_without_reference(frames):
    """oliveira_5A shows little of its sides; its arc and sides were looked at."""
    fit = usconf.fit_fan(frames("convex/oliveira_5A"))
    assert fit.geometry.r_min is None
    assert fit.residual < 1.5


def test_real_clip(data_dir):
    image = pytest.importorskip("PIL.Image")
    paths = sorted((data_dir / "clips" / "liver_seq").glob("*.png"))
    clip = np.stack([np.asarray(image.open(path).convert("L")) for path in paths])
    fit = usconf.fit_fan(clip, axes="thw")
    want = reference(data_dir, "liver_f069")
    angles = want["theta_left_deg"], want["theta_right_deg"]
    distance, angle = apart(fit.geometry, want["apex_xy"], angles)
    assert distance < 6 and angle < 0.7
    assert fit.geometry.r_max == pytest.approx(want["r_outer"], rel=0.015)


@pytest.mark.filterwarnings("ignore")
def test_real_dicom(data_dir):
    """A whole screen with bars, boxes and text, and its region; measured by hand on the screen."""
    pytest.importorskip("pydicom")
    picture = usconf.io.read(data_dir / "dicom" / "examples_palette.dcm")
    region = picture.meta["regions"][0][:4]
    for chosen in (None, region):
        fit = usconf.fit_fan(picture.frames[0], region=chosen)
        # sides through (365, 65) and (173, 345), (555, 65) and (747, 345); face at (460, 97)
        distance, angle = apart(fit.geometry, (460, -74.5), (-34.5, 34.5))
        assert distance < 3 and angle < 0.5
        assert fit.geometry.r_min == pytest.approx(171.5, abs=2)


def linear_names(data_dir):
    return sorted(path.stem for path in (data_dir / "linear").glob("*.png"))


def test_refuses_real_linear(frames, data_dir):
    names = linear_names(data_dir)
    assert len(names) == 24
    accepted = []
    for name in names:
        image = frames(f"linear/{name}")
        width = image.shape[1]
        for view in (image, image[:, ::-1], image[:, : width // 2], np.pad(image, 40)):
            try:
                accepted.append((name, str(usconf.fit_fan(view).geometry)))
            except ValueError as error:
                assert "image must show a fan" in str(error) and "fit_support" in str(error)
    assert not accepted


# phantoms


def judged(seed):
    """What is wrong with the fit of one phantom, in words; '' when it is good."""
    image, fan = screenshot(seed)
    try:
        sector = usconf.fit_fan(image).geometry
    except ValueError as error:
        return f"refused: {error}"
    distance, angle = apart(sector, fan.apex, np.degrees(fan.thetas))
    faults = []
    if distance > 6:
        faults.append(f"apex {distance:.1f} px")
    if angle > 0.7:
        faults.append(f"angle {angle:.1f} deg")
    if fan.r_max is not None and abs(sector.r_max / fan.r_max - 1) > 0.015:
        faults.append(f"r_max {sector.r_max:.0f} for {fan.r_max:.0f}")
    if (fan.r_min is None) != (sector.r_min is None):
        faults.append(f"r_min {sector.r_min} for {fan.r_min}")
    elif fan.r_min is not None and abs(sector.r_min - fan.r_min) > 5:
        faults.append(f"r_min {sector.r_min:.0f} for {fan.r_min:.0f}")
    return ", ".join(faults)


@pytest.mark.parametrize(
    "seeds, least",
    [
        (range(1000, 1060), 0.85),
        # 94 % of the seeds 0 to 399, on which the thresholds were chosen; what fails has a side in
        # black shadow nearly all along.
        pytest.param(range(2000, 2300), 0.9, marks=pytest.mark.slow),
    ],
)
def test_phantoms(seeds, least):
    faults = {seed: found for seed in seeds if (found := judged(seed))}
    report = "\n".join(f"{seed}: {found}" for seed, found in faults.items())
    assert 1 - len(faults) / len(seeds) >= least, report


def plain(rng, shape=(300, 360), **hardships):
    """A fan that fills its picture, and what it was made from."""
    fan = usconf.Sector((180.0, -40.0), 70.0, 320.0, -0.55, 0.55)
    beam = np.maximum(beams(rng, **hardships), 4)

    class Truth:
        apex, thetas = fan.apex, (fan.theta_min, fan.theta_max)

    return np.rint(scan(beam, Truth, fan.r_min, fan.r_max, shape)).astype(np.uint8), fan


def close(sector, fan, distance=2.0, angle=0.3):
    found = apart(sector, fan.apex, np.degrees([fan.theta_min, fan.theta_max]))
    assert found[0] < distance and found[1] < angle
    assert sector.r_max == pytest.approx(fan.r_max, rel=0.01)


def test_plain_fan_within_a_pixel(rng):
    image, fan = plain(rng)
    fit = usconf.fit_fan(image)
    close(fit.geometry, fan, 1.0, 0.15)
    assert fit.geometry.r_min == pytest.approx(fan.r_min, abs=1)
    assert fit.residual < 0.6
    assert set(fit.parts) == {"left", "right", "outer", "inner"}
    x, z = np.meshgrid(np.arange(360), np.arange(300))
    truth = fan.contains(x, z)
    assert (fit.support ^ truth).sum() < 0.02 * truth.sum()


def test_side_line_through_shadow(rng):
    image, fan = plain(rng)
    x, z = np.meshgrid(np.arange(360), np.arange(300))
    theta = np.arctan2(x - fan.apex[0], z - fan.apex[1])
    r = np.hypot(x - fan.apex[0], z - fan.apex[1])
    image[(theta < -0.35) & (r > 130) & (r < 250)] = 0
    image[(r > 280) & (theta > 0)] = 0
    close(usconf.fit_fan(image).geometry, fan)


def test_text_ruler_and_marks(rng):
    image, fan = plain(rng)
    letters(image, rng, 4, 4, 5, 7, 1)
    ruler(image, 350, 20, 6)
    image[60:66, 70:76] = 255  # a focus mark at the side
    image[20:180, 2:8] = np.linspace(30, 220, 160)[:, None]
    close(usconf.fit_fan(image).geometry, fan)


def test_clip_beats_burned_in_text(rng):
    frames = []
    for _ in range(4):
        image, fan = plain(rng, gain=-6)
        image[180:230, 290:350] = 90  # an even box that touches the right side
        frames.append(image)
    clip = np.stack(frames)
    fit = usconf.fit_fan(clip, axes="thw")
    close(fit.geometry, fan)
    assert fit.support.shape == clip.shape[1:]


def test_grey_surround_and_sixteen_bit(rng):
    image, fan = plain(rng)
    close(usconf.fit_fan(image.astype(np.uint16) * 100 + 3000).geometry, fan)
    close(usconf.fit_fan(image.astype(np.float32) / 255).geometry, fan)


def test_spacing_gives_mm(rng):
    image, fan = plain(rng)
    sector = usconf.fit_fan(image, spacing=0.25).geometry
    assert sector.unit == "mm"
    close(sector.to_pixels(), fan)


def test_unequal_spacing(rng):
    """Pixels half as high as wide: the fan is one in mm only."""
    image, fan = plain(rng)
    image = ndimage.zoom(image, (2, 1), order=1)
    spacing = (1.0, (300 - 1) / (600 - 1))
    sector = usconf.fit_fan(image, spacing=spacing).geometry
    assert sector.spacing == spacing
    close(sector, fan)


def test_region_narrows_and_offsets(rng):
    image, fan = plain(rng)
    screen = np.zeros((500, 700), np.uint8)
    screen[150:450, 300:660] = image
    screen[50:480, 20:250] = rng.integers(0, 255, (430, 230))  # another picture on the screen
    fit = usconf.fit_fan(screen, region=(280, 120, 690, 480))
    moved = usconf.Sector((480.0, 110.0), fan.r_min, fan.r_max, fan.theta_min, fan.theta_max)
    close(fit.geometry, moved)
    assert fit.support.shape == screen.shape and not fit.support[:, :280].any()


def test_same_every_time_and_input_untouched(rng):
    image, _ = plain(rng)
    kept = image.copy()
    image.flags.writeable = False
    first, second = usconf.fit_fan(image), usconf.fit_fan(image)
    assert first.geometry == second.geometry and first.residual == second.residual
    assert np.array_equal(image, kept)


def test_torch_in(rng):
    torch = pytest.importorskip("torch")
    image, _ = plain(rng)
    there = usconf.fit_fan(torch.from_numpy(image)[None, None])
    assert there.geometry == usconf.fit_fan(image).geometry


# refusals


def test_says_why_there_is_no_fan(rng):
    with pytest.raises(ValueError, match="constant picture"):
        usconf.fit_fan(np.full((50, 50), 7, np.uint8))
    with pytest.raises(ValueError, match="image must show a fan"):
        usconf.fit_fan(rng.integers(0, 255, (200, 200)).astype(np.uint8))
    with pytest.raises(ValueError, match="one still or one clip"):
        usconf.fit_fan(np.zeros((3, 1, 20, 20), np.uint8))
    with pytest.raises(ValueError, match="no frame"):
        usconf.fit_fan(np.zeros((0, 20, 20), np.uint8), axes="thw")


def test_refuses_a_diverging_trapezoid(rng):
    """Straight top and bottom: a virtual convex frame is no fan."""
    outline = usconf.Trapezoid((120, 20), (240, 20), (340, 280), (20, 280))
    x, z = np.meshgrid(np.arange(360), np.arange(300))
    image = np.where(outline.contains(x, z), rng.integers(30, 220, x.shape), 0)
    with pytest.raises(ValueError, match="no arc"):
        usconf.fit_fan(image.astype(np.uint8))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 40), (40, 1), (5, 5)])
def test_tiny_pictures_are_refused(rng, shape):
    with pytest.raises(ValueError, match="image must show a fan"):
        usconf.fit_fan(rng.integers(0, 255, shape).astype(np.uint8))


@pytest.mark.parametrize(
    "region", [(0, 0, 400, 100), (-1, 0, 50, 50), (50, 0, 50, 10), (0, 0, 10), (0, 0, 9.5, 10)]
)
def test_refuses_regions(region):
    with pytest.raises(ValueError, match="region must"):
        usconf.fit_fan(np.eye(300, dtype=np.uint8), region=region)
