"""Other software's words for beam geometry, each against its documented convention, and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from xml.etree import ElementTree

import numpy as np
import pytest
import usconf.geometry as g
from conftest import data_folder
from hypothesis import given
from hypothesis import strategies as st
from usconf import Linear, Sector, Trapezoid

FAN = Sector((40.25, -12.5), 30.0, 120.0, -0.5, 0.6, 0.25)
PIXELS = FAN.to_pixels()
CROPPED = dataclasses.replace(PIXELS, r_min=None)
EVEN = dataclasses.replace(FAN, theta_min=-0.6)
BOX = Linear(4, 103, 2, 201)
STEERED = Trapezoid((40, 0), (199, 0), (159, 199), (0, 199), (0.1, 0.2))
SHAPES = [FAN, PIXELS, CROPPED, EVEN, BOX, STEERED, dataclasses.replace(FAN, spacing=(0.1, 0.2))]


def close(one, other, tolerance=1e-12):
    """Equal but for rounding."""
    assert type(one) is type(other) and one.spacing == other.spacing
    for field in dataclasses.fields(one):
        if field.name != "spacing":
            pair = getattr(one, field.name), getattr(other, field.name)
            np.testing.assert_allclose(*pair, rtol=tolerance, atol=tolerance)


# ITK: radius = first + i size, lateral = (j - (n - 1) / 2) separation, x = r sin, y = r cos

ITK = {"FirstSampleDistance": 26.4, "RadiusSampleSize": 0.05, "LateralAngularSeparation": 0.01}


def test_itk_index_is_the_beam_sample():
    fan = g.from_itk(ITK, (1601, 121), spacing=0.2, apex=(60, -20))
    assert fan.theta_min == -fan.theta_max == pytest.approx(-0.6)
    assert (fan.r_min, fan.r_max, fan.spacing) == (26.4, pytest.approx(106.4), 0.2)
    x, z = fan.positions(fan.beam_grid((500, 600), (1601, 121)))
    for i, j in ((0, 0), (1600, 120), (7, 60), (800, 33)):
        radius, lateral = 26.4 + i * 0.05, (j - 60) * 0.01
        place = 60 + radius * math.sin(lateral), -20 + radius * math.cos(lateral)
        assert (x[i, j] * 0.2, z[i, j] * 0.2) == pytest.approx(place)


def test_itk_fan_touches_the_first_pixel_by_default():
    fan = g.from_itk(ITK, (1601, 121), spacing=(0.2, 0.1))
    x, z = fan.positions(fan.beam_grid((900, 600), (1601, 121)))
    assert (x.min(), z.min()) == pytest.approx((0, 0), abs=1e-9)
    wide = g.from_itk({**ITK, "LateralAngularSeparation": 0.03}, (1601, 121), spacing=0.2)
    x, z = wide.positions(wide.beam_grid((900, 1200), (1601, 20001)))
    assert wide.theta_max > math.pi / 2
    assert (x.min(), z.min()) == pytest.approx((0, 0), abs=1e-5)


def test_itk_there_and_back():
    grid = EVEN.beam_grid((480, 400), (201, 97))
    metadata = g.to_itk(EVEN, grid)
    assert metadata["LateralAngularSeparation"] == pytest.approx(1.2 / 96)
    close(g.from_itk(metadata, grid.shape, spacing=0.25, apex=EVEN.apex), EVEN)
    text = {key: str(value) for key, value in metadata.items()}
    close(g.from_itk(text, grid.shape, spacing=0.25, apex=EVEN.apex), EVEN)


# PLUS


def plus(**changes):
    """The element of a BK 8848 configuration, changed; None takes an attribute away."""
    attributes = {
        "TransducerName": "BK_8848-axial", "TransducerGeometry": "CURVILINEAR",
        "RadiusStartMm": "10.0", "RadiusStopMm": "60.0",
        "ThetaStartDeg": "-70.0", "ThetaStopDeg": "70.0", "OutputImageSizePixel": "600 400",
        "TransducerCenterPixel": "300 53", "OutputImageSpacingMmPerPixel": "0.15 0.12",
        **changes,
    }  # fmt: skip
    kept = {name: value for name, value in attributes.items() if value is not None}
    return ElementTree.Element("ScanConversion", kept)


def test_plus_pixels_have_the_radius_and_angle_that_plus_gives_them():
    fan = g.from_plus(plus())
    assert fan.spacing == (0.15, 0.12) and fan.theta_max == math.radians(70)
    rows, columns = np.array([0, 53, 200, 399]), np.array([0, 299, 300, 471])
    # vtkPlusUsScanConvertCurvilinear walks the picture from these starts in steps of the spacing.
    z = 10.0 - 53 * 0.12 + rows * 0.12
    x = -(300 - 0.5) * 0.15 + columns * 0.15
    apex_x, apex_z = fan.apex
    np.testing.assert_allclose(columns * 0.15 - apex_x, x, atol=1e-12)
    np.testing.assert_allclose(rows * 0.12 - apex_z, z, atol=1e-12)
    # The middle of the probe face is at TransducerCenterPixel.
    assert fan.contains(299.5, [52.99, 53.01]).tolist() == [False, True]


@pytest.mark.data
def test_plus_centres_probes_where_its_pictures_do():
    """Half a pixel left of column 410, which is the middle of 820 columns."""
    seen = g.from_fan_json(data_folder() / "convex" / "ultrasonix_phantom_f0.fan.json")
    fan = g.from_plus(plus(TransducerCenterPixel=None, OutputImageSizePixel="820 616"))
    assert fan.apex[0] / 0.15 == pytest.approx(seen.apex[0])


def test_plus_centre_and_old_start_depth():
    centred = g.from_plus(plus(TransducerCenterPixel=None))
    assert centred.apex == pytest.approx((299.5 * 0.15, 0))
    # 10 mm of picture above the circle's centre, the default of old versions.
    old = g.from_plus(plus(TransducerCenterPixel=None, OutputImageStartDepthMm="-10"))
    assert old.apex == pytest.approx((299.5 * 0.15, 10))


def test_plus_linear():
    element = plus(
        TransducerGeometry="linear", ImagingDepthMm="60.0", TransducerWidthMm="40.0",
        TransducerCenterPixel="410 10", OutputImageSpacingMmPerPixel="0.1 0.2",
    )  # fmt: skip
    close(g.from_plus(element), Linear(21, 61, 2, 62, (0.1, 0.2)))
    del element.attrib["TransducerCenterPixel"]
    close(g.from_plus(element), Linear(10, 50, 0, 60, (0.1, 0.2)))


@pytest.mark.parametrize("shape", [FAN, SHAPES[-1], Linear(3, 41, 2, 52, (0.1, 0.2))])
def test_plus_there_and_back(shape, tmp_path):
    text = g.to_plus(shape, (480, 400))
    close(g.from_plus(text), shape)
    path = tmp_path / "config.xml"
    path.write_text(f"<PlusConfiguration><a><b>{text}</b></a></PlusConfiguration>")
    for source in (path, str(path), ElementTree.parse(path).getroot()):
        close(g.from_plus(source), shape)
    assert ElementTree.fromstring(text).get("OutputImageSizePixel") == "400 480"


# zea: picture columns and rows count from the least x and z of the fan


@pytest.mark.parametrize("ranges", [(-0.5, 0.5), (-0.2, 0.7), (0.1, 0.6), (-1.9, 1.8)])
@pytest.mark.parametrize("skipped", [0.0, 12.0])
def test_zea_picture(ranges, skipped):
    rho, theta = np.linspace(40, 120, 400)[:, None], np.linspace(*ranges, 4001)[None]
    x, z = rho * np.sin(theta), rho * np.cos(theta)
    fan = g.from_zea(
        {"rho_range": [40, 120], "theta_range": ranges, "resolution": 0.3,
         "distance_to_apex": skipped, "x_lim": None}
    )  # fmt: skip
    found_x, found_z = fan.positions(g.BeamGrid(400, 4001, 40.0, 0, 0, "mm", "rad"))
    np.testing.assert_allclose(found_x * 0.3, x - x.min(), atol=1e-4)
    np.testing.assert_allclose(found_z * 0.3, z - z.min() - skipped, atol=1e-4)
    back = g.to_zea(fan)
    assert back["rho_range"] == (40, 120) and back["theta_range"] == ranges
    assert back["distance_to_apex"] == pytest.approx(skipped)
    close(g.from_zea(back), fan)
    margin = dataclasses.replace(fan, apex=(fan.apex[0] + 9, fan.apex[1]))
    close(g.from_zea(g.to_zea(margin)), fan)


def test_zea_arrays_and_pixels():
    arrays = {"rho_range": np.float32([40, 120]), "theta_range": np.float64([-0.5, 0.5])}
    fan = g.from_zea({**arrays, "resolution": np.array(0.25)})
    assert (fan.r_min, fan.r_max, fan.theta_min, fan.spacing) == (40, 120, -0.5, 0.25)
    assert g.to_zea(PIXELS)["resolution"] == 1


# SlicerUltrasound: corners at centre + radius (cos angle, sin angle), x and z

MASK = {
    "mask_type": "fan", "center_rows_px": -60, "center_cols_px": 200, "radius1": 100,
    "radius2": 400, "angle1": 120.0, "angle2": 62.0, "image_size_rows": 360,
    "image_size_cols": 400, "SOPInstanceUID": "1.2.3",
}  # fmt: skip


@pytest.mark.parametrize(
    "swapped", [{}, {"angle1": 62.0, "angle2": 120.0}, {"radius1": 400, "radius2": 100}]
)
def test_slicer_corners(swapped):
    fan = g.from_slicer({**MASK, **swapped})
    corners = g.to_points(fan)
    for corner, (radius, angle) in zip(
        corners, [(100, 120), (100, 62), (400, 62), (400, 120)], strict=True
    ):
        turn = math.radians(angle)
        place = 200 + radius * math.cos(turn), -60 + radius * math.sin(turn)
        assert corner == pytest.approx(place)
    trapezoid = g.from_slicer({**MASK, **swapped, "mask_type": "trapezoid"})
    assert trapezoid.corners == corners and trapezoid.kind == "trapezoid"


def test_slicer_there_and_back(tmp_path):
    path = tmp_path / "mask.json"
    path.write_text(json.dumps(MASK))
    fan = g.from_slicer(path)
    assert {k: MASK[k] for k in MASK if k != "SOPInstanceUID"} == pytest.approx(
        g.to_slicer(fan, (360, 400))
    )
    untyped = {key: value for key, value in MASK.items() if key != "mask_type"}
    assert fan == g.from_slicer(untyped) == g.from_slicer({**MASK, "mask_type": "curvilinear"})
    box = g.to_slicer(BOX.to_mm(0.2), (240, 200))
    assert box["mask_type"] == "rectangle" and (box["rectangle_left"], box["rectangle_bottom"]) == (
        4,
        201,
    )
    assert g.from_slicer(box) == BOX == g.from_slicer({**box, "mask_type": "linear"})


# *.fan.json


def test_fan_json_by_hand():
    values = {"apex_xy": [369.0, -139.329], "theta_left_deg": -30, "theta_right_deg": 45}
    values |= {"r_inner": 161.341, "r_outer": 724.352}
    fan = g.from_fan_json(values)
    assert fan == Sector((369, -139.329), 161.341, 724.352, -math.pi / 6, math.pi / 4)
    below = fan.apex[0], fan.apex[1] + np.array([161.3, 161.4, 724.3, 724.4])
    assert fan.contains(*below).tolist() == [False, True, True, False]


@pytest.mark.parametrize("fan", [PIXELS, CROPPED])
def test_fan_json_there_and_back(fan):
    values = json.loads(json.dumps(g.to_fan_json(fan.to_mm(0.2), (480, 400))))
    assert values["image_size_wh"] == [400, 480]
    back = g.from_fan_json(values)
    assert (back.r_min is None) == (fan.r_min is None)
    close(dataclasses.replace(back, r_min=1), dataclasses.replace(fan, r_min=1))
    assert back.r_min == pytest.approx(fan.r_min)


@pytest.mark.data
def test_fan_json_of_the_real_pictures():
    paths = sorted((data_folder() / "convex").glob("*.fan.json"))
    assert len(paths) >= 10
    for path in paths:
        values = json.loads(path.read_text())
        fan = g.from_fan_json(path)
        width, height = values["image_size_wh"]
        assert (fan.r_min is None) == (values["r_inner"] is None)
        assert fan.beam_grid((height, width)).n_lines > 100
        if "fit_check" in values:
            own = g.from_fan_json(str(path), fit_check=True)
            assert own.r_max == values["fit_check"]["r_outer"] != fan.r_max


# corner points


@pytest.mark.parametrize(
    "shape", [FAN, PIXELS, EVEN, dataclasses.replace(PIXELS, r_min=0), BOX, STEERED]
)
def test_points_there_and_back(shape):
    corners = g.to_points(shape)
    assert len(corners) == (3 if getattr(shape, "r_min", None) == 0 else 4)
    close(g.from_points(corners, shape.kind, shape.spacing), shape, 1e-9)


def test_points_of_a_hand_are_averaged():
    fan = g.from_points([(80, 22), (120, 18), (180, 100), (20, 100)])
    left, right = (math.dist(fan.apex, corner) for corner in ((80, 22), (120, 18)))
    assert fan.r_min == pytest.approx((left + right) / 2) and left != right
    # Both sides run through their corners.
    for corner, angle in (((80, 22), fan.theta_min), ((120, 18), fan.theta_max)):
        assert math.atan2(corner[0] - fan.apex[0], corner[1] - fan.apex[1]) == pytest.approx(angle)
    box = g.from_points(np.array([(1, 0), (9, 1), (11, 20), (-1, 21)]), "linear")
    assert box == Linear(0, 10, 0.5, 20.5)
    phased = g.from_points([(50, 0), (20, 40), (90, 40)])
    assert (phased.apex, phased.r_min) == ((50, 0), 0)
    assert phased.r_max == pytest.approx((50 + math.hypot(40, 40)) / 2)


# JSON of our own


@pytest.mark.parametrize("shape", SHAPES)
def test_json_there_and_back(shape, tmp_path):
    path = tmp_path / "geometry.json"
    shape.save(path)
    assert g.load(path) == shape and g.load(str(path)) == shape
    values = json.loads(path.read_text())
    assert values == shape.to_dict() and values["usconf_geometry"] == 1
    assert values["kind"] == shape.kind and values["unit"] == shape.unit
    assert type(shape).from_dict(values) == shape
    assert [entry.name for entry in tmp_path.iterdir()] == ["geometry.json"]


numbers = st.floats(-1e3, 1e3)


@given(st.tuples(numbers, numbers), st.floats(0, 1e3), st.floats(1e-3, 1e3), st.floats(-3, 0))
def test_json_keeps_every_bit(apex, r_min, depth, theta):
    fan = Sector(apex, r_min, r_min + depth, theta, 1 / 3)
    assert g.Geometry.from_dict(json.loads(json.dumps(fan.to_dict()))) == fan


def test_json_of_a_hand_needs_no_decimals(tmp_path):
    path = tmp_path / "box.json"
    values = {**BOX.to_dict(), "x_min": 4, "z_max": 201}
    path.write_text(json.dumps(values))
    assert g.load(path) == BOX


def test_json_replaces_at_once(tmp_path, monkeypatch):
    path = tmp_path / "fan.json"
    FAN.save(path)

    def fail(*names):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        BOX.save(path)
    assert g.load(path) == FAN and len(list(tmp_path.iterdir())) == 1


# refusals


def changed(values, **changes):
    kept = {**values, **changes}
    return {key: value for key, value in kept.items() if value is not ...}


JSON = FAN.to_dict()
BAD_JSON = [
    (changed(JSON, usconf_geometry=2), "usconf_geometry must be 1, got 2; another version"),
    (changed(JSON, usconf_geometry=...), "values must have the key 'usconf_geometry'"),
    (changed(JSON, kind="fan"), "kind must be one of sector, linear, trapezoid, got 'fan'"),
    (changed(JSON, kind=["sector"]), "kind must be one of"),
    (changed(JSON, depth=3), "values must have the keys .*, got also 'depth'; spell"),
    (changed(JSON, r_max=...), "values must have the keys .*, got no 'r_max'; spell"),
    (changed(JSON, unit="px"), "unit must be 'mm' for spacing 0.25, got 'px'"),
    (changed(JSON, r_max="120"), "r_max must be a number, got '120'"),
    (changed(JSON, r_max=1), "r_min must be less than r_max"),
    (changed(JSON, apex=3), "apex must be two numbers"),
    ([1, 2], "values must be a mapping, got list"),
    ({"apex_xy": [0, 0]}, "read it with usconf.geometry.from_fan_json"),
    (MASK, "read it with usconf.geometry.from_slicer"),
]


@pytest.mark.parametrize(("values", "message"), BAD_JSON)
def test_load_refuses(values, message, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(values))
    with pytest.raises((ValueError, TypeError), match=rf"bad\.json: .*{message}"):
        g.load(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"P5 2 2"])
def test_load_refuses_what_is_no_json(content, tmp_path):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"bad.json must be a JSON file, got .*geometry.save"):
        g.load(path)
    with pytest.raises(ValueError, match=r"bad\.json must be a JSON file"):
        g.from_slicer(path)
    with pytest.raises(FileNotFoundError):
        g.load(tmp_path / "none.json")


FAN_JSON = {
    "apex_xy": [1, 2],
    "r_inner": 3,
    "r_outer": 4,
    "theta_left_deg": -9,
    "theta_right_deg": 9,
}
BAD = [
    (lambda: g.from_itk({}, (9, 9), 1), "FirstSampleDistance must be given, got only nothing"),
    (lambda: g.from_itk(3, (9, 9), 1), "metadata must be a mapping, got int"),
    (lambda: g.from_itk({**ITK, "RadiusSampleSize": "x"}, (9, 9), 1), "RadiusSampleSize must"),
    (lambda: g.from_itk({**ITK, "RadiusSampleSize": -1}, (9, 9), 1), "r_min must be less than"),
    (lambda: g.from_itk(ITK, (9, 1), 1), r"shape\[1\] must be at least 2, got 1"),
    (lambda: g.from_itk(ITK, (9, 9), None), "spacing must be mm per pixel of the scan image"),
    (lambda: g.to_itk(FAN, FAN.beam_grid((480, 400))), "theta_min must be -theta_max for ITK"),
    (lambda: g.to_itk(PIXELS, PIXELS.beam_grid((480, 400))), "geometry must be in mm for ITK"),
    (lambda: g.to_itk(BOX, None), "geometry must be a Sector for ITK, got linear"),
    (lambda: g.from_plus("<a/>"), "source must hold one ScanConversion element, got 0"),
    (lambda: g.from_plus("<a"), "source must be XML"),
    (lambda: g.from_plus(3), "source must be XML text, a path or an element, got int"),
    (lambda: g.from_plus(plus(TransducerGeometry="RING")), "TransducerGeometry must be .*'RING'"),
    (lambda: g.from_plus(plus(RadiusStartMm=None)), "RadiusStartMm must be 1 number, got None"),
    (lambda: g.from_plus(plus(ThetaStopDeg="a")), "ThetaStopDeg must be 1 number, got 'a'"),
    (lambda: g.from_plus(plus(ThetaStopDeg="-80")), "theta_min must be less than theta_max"),
    (lambda: g.from_plus(plus(TransducerCenterPixel="3")), "TransducerCenterPixel must be 2"),
    (
        lambda: g.from_plus(plus(TransducerCenterPixel=None, OutputImageSizePixel=None)),
        "OutputImageSizePixel must be 2 numbers, got None",
    ),
    (lambda: g.to_plus(PIXELS, (9, 9)), "geometry must be in mm for PLUS"),
    (lambda: g.to_plus(CROPPED.to_mm(1), (9, 9)), "r_min must be a radius for PLUS, got None"),
    (lambda: g.to_plus(STEERED, (9, 9)), "geometry must be a Sector or Linear for PLUS"),
    (lambda: g.from_zea({"rho_range": (1, 2)}), "theta_range must be given, got only rho_range"),
    (lambda: g.from_zea({"rho_range": 3}), "rho_range must be two numbers, got 3"),
    (lambda: g.to_zea(CROPPED), "r_min must be a radius for zea, got None"),
    (lambda: g.to_zea(SHAPES[-1]), "spacing must be one number for zea"),
    (lambda: g.to_zea(BOX), "geometry must be a Sector for zea"),
    (lambda: g.from_slicer({**MASK, "mask_type": "star"}), "mask_type must be .* got 'star'"),
    (lambda: g.from_slicer({"mask_type": "rectangle"}), "rectangle_left must be given, got only"),
    (lambda: g.from_slicer({**MASK, "radius2": None}), "radius2 must be a number, got None"),
    (
        lambda: g.from_slicer({**MASK, "mask_type": "trapezoid", "radius1": 0}),
        "radius1 must be positive for a trapezoid",
    ),
    (lambda: g.to_slicer(STEERED, (9, 9)), "geometry must be a Sector or Linear for Slicer"),
    (lambda: g.to_slicer(CROPPED, (9, 9)), "r_min must be a radius for Slicer"),
    (lambda: g.from_fan_json({**FAN_JSON, "r_outer": 2}), "r_min must be less than r_max"),
    (lambda: g.from_fan_json({"apex_xy": [0, 0]}), "r_inner must be given, got only apex_xy"),
    (lambda: g.from_fan_json(FAN_JSON, fit_check=True), "fit_check must be given"),
    (lambda: g.to_fan_json(BOX, (9, 9)), "geometry must be a Sector for fan.json"),
    (lambda: g.from_points([(0, 0)]), "points must be 3 or 4 corners for a sector, got 1"),
    (lambda: g.from_points(7), "points must be 3 or 4 corners for a sector, got 7"),
    (lambda: g.from_points([(0, 0)] * 3, "linear"), "points must be 4 corners for a linear, got 3"),
    (lambda: g.from_points([(0, 0)] * 4, "fan"), "kind must be 'sector', 'trapezoid' or 'linear'"),
    (lambda: g.from_points([(0, 0), (9, 9), (-9, 9)]), "points must have the left corner before"),
    (lambda: g.from_points([(0, 0), (9, 0), (9, 9), (0, 9)]), "points must have sides that"),
    (lambda: g.from_points([(0, 0), (9, 0), (6, 9), (3, 9)]), "points must have sides that"),
    (lambda: g.from_points([(0, 0), (9, 0), (0, 9), (9, 9)]), "convex outline in that order"),
    (lambda: g.from_points([(0, 0), (9, 0), (9, math.nan), (0, 9)]), r"points\[2\]\[1\] must be"),
    (lambda: g.to_points(CROPPED), "r_min must be a radius for corner points"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), BAD)
def test_refuses(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
