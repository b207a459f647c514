"""Synthetic B-mode pictures, so that the first command works with nothing at hand."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..geometry import Sector
from ..scan_conversion import to_scan

# A 7.5 MHz linear probe: 38 mm wide, 40 mm deep.
_WIDTH_MM = 38.0
_DEPTH_MM = 40.0
_FREQUENCY_MHZ = 7.5
_FOCUS_MM = 18.0
# Pulse of about two cycles: 0.2 mm wavelength, standard deviation of the envelope 0.13 mm.
_AXIAL_MM = 0.13
# Lateral standard deviation of the beam at the focus, and its growth away from it.
_LATERAL_MM = 0.22
_LATERAL_GROWTH = 0.018
# Spatial compounding: the looks of one picture, as scanners do to calm the speckle.
_STEERING_DEG = (-8.0, -3.0, 3.0, 8.0)
# Gain curve of the scanner (dB / cm / MHz, one way), a little below the tissue's attenuation.
_TGC = 0.50
_NOISE_DB = -85.0
_DYNAMIC_RANGE_DB = 60.0
# Bone, one way and per mm of its first mm: the little left below stands for reverberation.
_BONE_DB = 15.0


class _Tissue(NamedTuple):
    """Echo strength (dB below white) and attenuation (dB / cm / MHz), after textbook ranges."""

    echo_db: float
    attenuation: float


_SKIN = _Tissue(-22.0, 0.9)
_FAT = _Tissue(-41.0, 0.5)
_MUSCLE = _Tissue(-38.0, 0.6)
_DEEP = _Tissue(-34.0, 0.6)
_BLOOD = _Tissue(-59.0, 0.15)


class _Body(NamedTuple):
    """What the beam meets at every place, each (H, W)."""

    echo_db: np.ndarray
    attenuation: np.ndarray
    surface: np.ndarray
    bone: np.ndarray


def demo_frame(height: int = 384, width: int = 384, seed: int = 0) -> np.ndarray:
    """Make a beam image of a limb: skin, fat, fascia, muscle, a vessel, bone with its shadow.

    Parameters
    ----------
    height, width : int, optional
        Rows (40 mm of depth) and scanlines (38 mm), each at least 16; default 384.
    seed : int, optional
        Another seed gives other speckle and texture in the same anatomy.

    Returns
    -------
    numpy.ndarray
        ``(height, width)`` uint8, log-compressed to 60 dB; the same for the same arguments.

    Raises
    ------
    ValueError
        If a length is below 16.

    Notes
    -----
    For each of four steered looks, scatterers of random amplitude and phase (fully developed
    speckle) are weighted by tissue, blurred by a pulse and a beam that widens away from the focus,
    attenuated along the steered ray and mixed with electronic noise. The looks' power is averaged,
    amplified by the gain curve and log-compressed.

    Examples
    --------
    >>> from usconf.phantom import demo_frame
    >>> demo_frame(64, 48).shape
    (64, 48)
    """
    for name, length in (("height", height), ("width", width)):
        if length < 16:
            raise ValueError(f"{name} must be at least 16, got {length!r}; 384 is the default")
    random = np.random.default_rng(seed)
    # Tissue beyond the picture: looks are steered to both sides, and the blur is periodic.
    side, below = width // 4, height // 16
    step_y, step_x = _DEPTH_MM / height, _WIDTH_MM / width
    depth = (np.arange(height + below) + 0.5)[:, None] * step_y
    lateral = (np.arange(-side, width + side) + 0.5)[None, :] * step_x
    body = _body(random, depth, lateral)
    power = np.zeros(body.echo_db.shape)
    for angle in _STEERING_DEG:
        signal = _look(random, body, depth, np.tan(np.deg2rad(angle)), step_y, step_x)
        power += (signal.real**2 + signal.imag**2) / len(_STEERING_DEG)
    decibel = 10 * np.log10(power + 1e-20) + 2 * _FREQUENCY_MHZ * _TGC * depth / 10
    picture = decibel[:height, side : side + width]
    return np.rint(255 * np.clip(1 + picture / _DYNAMIC_RANGE_DB, 0, 1)).astype(np.uint8)


def demo_fan(height: int = 480, width: int = 640, seed: int = 0) -> tuple[np.ndarray, Sector]:
    """Make a convex probe's picture: the body of `demo_frame`, scan-converted on black.

    Parameters
    ----------
    height, width : int, optional
        Size of the picture, each at least 64; default 480 x 640.
    seed : int, optional
        As for `demo_frame`.

    Returns
    -------
    image : numpy.ndarray
        ``(height, width)`` uint8, 0 outside the fan.
    geometry : Sector
        Where the beams run in it, in pixels: 64 degrees, the face at a quarter of the depth.

    Raises
    ------
    ValueError
        If a length is below 64.

    Examples
    --------
    >>> from usconf.phantom import demo_fan
    >>> image, geometry = demo_fan(96, 128)
    >>> image.shape, geometry.kind
    ((96, 128), 'sector')
    """
    for name, length in (("height", height), ("width", width)):
        if length < 64:
            raise ValueError(f"{name} must be at least 64, got {length!r}; 480 x 640 is usual")
    half, face = np.deg2rad(32.0), 0.25
    # The whole fan with a margin, whichever way the picture is longer.
    margin = 0.04 * height
    r_max = float(
        min((height - 2 * margin) / (1 - face * np.cos(half)), 0.48 * width / np.sin(half))
    )
    apex = ((width - 1) / 2, margin - face * r_max * float(np.cos(half)))
    geometry = Sector(apex, face * r_max, r_max, -float(half), float(half))
    grid = geometry.beam_grid((height, width))
    beams = demo_frame(grid.n_samples, grid.n_lines, seed)
    return to_scan(beams, geometry, (height, width)).image, geometry


def _look(
    random: np.random.Generator,
    body: _Body,
    depth: np.ndarray,
    slope: float,
    step_y: float,
    step_x: float,
) -> np.ndarray:
    """Complex signal of one steered look, before the gain curve."""
    loss_db = _FREQUENCY_MHZ * body.attenuation * (step_y / 10)
    loss_db = loss_db + body.bone * (_BONE_DB * step_y)
    travelled_db = _along_rays(loss_db, slope * step_y / step_x)
    scatterers = _scatterers(random, loss_db.shape) * 10 ** (body.echo_db / 20) + body.surface
    field = _axial_blur(scatterers * 10 ** (-2 * travelled_db / 20), step_y)
    noise = _axial_blur(_scatterers(random, loss_db.shape), step_y)
    return _lateral_blur(field, depth, step_x) + 10 ** (_NOISE_DB / 20) * noise


def _body(random: np.random.Generator, depth: np.ndarray, lateral: np.ndarray) -> _Body:
    skin = 1.6 + 0.08 * np.sin(lateral / 4.0)
    fascia = 7.2 + 0.7 * np.sin(lateral / 8.0 + 0.6) + 0.1 * np.sin(lateral / 1.7)
    deep_fascia = 17.0 + 0.9 * np.sin(lateral / 11.0 + 2.0) + 0.12 * np.sin(lateral / 2.3)
    bone = 23.6 + 0.05 * (lateral - 26.5) ** 2 + 0.08 * np.sin(lateral / 0.9)
    inside_bone = (depth > bone) & (np.abs(lateral - 26.5) < 7.0)

    shape = inside_bone.shape
    echo_db = np.full(shape, _DEEP.echo_db)
    attenuation = np.full(shape, _DEEP.attenuation)
    for bottom, tissue in ((deep_fascia, _MUSCLE), (fascia, _FAT), (skin, _SKIN)):
        echo_db = np.where(depth < bottom, tissue.echo_db, echo_db)
        attenuation = np.where(depth < bottom, tissue.attenuation, attenuation)
    muscle = (depth > fascia) & (depth < deep_fascia)
    echo_db = echo_db + np.where(muscle, _fibres(depth, lateral), 0.0)
    echo_db = echo_db + 2.0 * _smooth(random, shape, 12, 25) + 2.0 * _smooth(random, shape, 3, 9)

    # Distance from the vessel's centre in units of its radius; an ellipse 6 mm wide, 5 mm high.
    across, down = (lateral - 10.0) / 3.0, (depth - 22.0) / 2.5
    radius = np.hypot(across, down)
    # The wall stands out where the beam meets it at a right angle: above and below.
    wall = np.exp(-(((radius - 1.06) / 0.07) ** 2)) * (down / np.maximum(radius, 1e-6)) ** 4
    echo_db = np.where(radius < 1.0, _BLOOD.echo_db, echo_db)
    attenuation = np.where(radius < 1.0, _BLOOD.attenuation, attenuation)

    lines = 0.05 * _line(depth, 0.3) + 0.04 * _line(depth, skin)
    lines = lines + 0.05 * _line(depth, fascia) + 0.05 * _line(depth, deep_fascia) + 0.04 * wall
    for tilt, middle, strength in ((0.06, 3.2, 0.010), (-0.05, 4.9, 0.014), (0.03, 5.9, 0.009)):
        septum = middle + tilt * (lateral - 19.0) + 0.3 * np.sin(lateral / 2.7 + 90 * tilt)
        lines = lines + strength * _line(depth, septum) * (depth < fascia)
    # Bone reflects best where it faces the probe.
    facing = np.exp(-(((lateral - 26.5) / 4.5) ** 2))
    lines = lines + 0.9 * _line(depth, bone + 0.1) * facing * (np.abs(lateral - 26.5) < 7.0)
    uneven = 10 ** (6.0 * _smooth(random, shape, 5, 9) / 20)
    # The loss of bone acts within its first millimetre; below, the ray is spent already.
    first_mm = inside_bone & (depth < bone + 1.0)
    return _Body(echo_db, attenuation, lines * uneven, first_mm.astype(float))


def _line(depth: np.ndarray, place: np.ndarray | float) -> np.ndarray:
    return np.exp(-(((depth - place) / 0.12) ** 2))


def _fibres(depth: np.ndarray, lateral: np.ndarray) -> np.ndarray:
    """Echo (dB) of the septa between muscle bundles: oblique, slightly curved, interrupted."""
    across = depth - 0.16 * lateral + 0.25 * np.sin(lateral / 5.0) + 0.12 * np.sin(lateral / 1.9)
    bundles = np.sin(2 * np.pi * across / 1.45) + 0.6 * np.sin(2 * np.pi * across / 0.83 + 1.0)
    gaps = 0.7 + 0.5 * np.sin(lateral / 2.1 + 2.6 * depth) * np.sin(lateral / 5.3 - depth)
    return 15.0 * np.clip(bundles - 0.5, 0, 1) * np.clip(gaps, 0, 1) - 2.0


def _scatterers(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Unit-variance circular complex numbers: the sum of many scatterers of random phase."""
    parts = random.standard_normal((2, *shape)) * np.sqrt(0.5)
    return parts[0] + 1j * parts[1]


def _smooth(
    random: np.random.Generator, shape: tuple[int, int], rows: float, columns: float
) -> np.ndarray:
    """Unit-variance noise, periodic, with correlation lengths in 384ths of the picture."""
    noise = np.fft.fft2(random.standard_normal(shape))
    vertical = _transfer(np.fft.fftfreq(shape[0]), rows * shape[0] / 408)[:, None]
    lateral = _transfer(np.fft.fftfreq(shape[1]), columns * shape[1] / 576)[None, :]
    return np.fft.ifft2(noise * vertical * lateral).real


def _along_rays(loss_db: np.ndarray, columns_per_row: float) -> np.ndarray:
    """Sum the loss along rays that move sideways by a fraction of a column per row."""
    columns = np.arange(loss_db.shape[1])
    total = np.empty_like(loss_db)
    above = np.zeros(loss_db.shape[1])
    for row, loss in enumerate(loss_db):
        above = np.interp(columns - columns_per_row, columns, above) + loss
        total[row] = above
    return total


def _axial_blur(field: np.ndarray, step_y: float) -> np.ndarray:
    transfer = _transfer(np.fft.fftfreq(len(field)), _AXIAL_MM / step_y)
    return np.fft.ifft(np.fft.fft(field, axis=0) * transfer[:, None], axis=0)


def _lateral_blur(field: np.ndarray, depth: np.ndarray, step_x: float) -> np.ndarray:
    deviation = np.hypot(_LATERAL_MM, _LATERAL_GROWTH * (depth - _FOCUS_MM)) / step_x
    transfer = _transfer(np.fft.fftfreq(field.shape[1])[None, :], deviation)
    return np.fft.ifft(np.fft.fft(field, axis=1) * transfer, axis=1)


def _transfer(frequency: np.ndarray, deviation: np.ndarray | float) -> np.ndarray:
    """Gaussian of unit energy in the last axis: mean speckle power does not depend on its width."""
    response = np.exp(-2 * (np.pi * deviation * frequency) ** 2)
    return response / np.sqrt(np.mean(response**2, axis=-1, keepdims=True))
