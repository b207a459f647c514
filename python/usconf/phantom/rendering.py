"""From a body at rest to frames: speckle, beam, noise, display, and what is artifact in them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.ndimage import correlate1d, gaussian_filter1d, maximum_filter1d

from .acoustics import Contact, Motion, Still, blur_rows, transfer
from .grid import Grid

# Round trip of -20 dB: what a beam sees there is hidden by clutter on most scanners.
SHADOW_LEVEL = 0.1
# An echo counts as seen when it is 3 dB above noise and artifacts, and displayed above this.
_SEEN = 2.0
_BLACK = 0.03
# Share of the frame's mean tissue level below which a place looks dark, above which bright.
_DARK, _BRIGHT = 0.5, 0.6
# Between the echoes of a train, up to this share of the depth apart, nothing can be read either.
_TRAIN = 0.04


class Scanner(NamedTuple):
    """Beam, noise and display of one drawn scanner."""

    # Standard deviations of pulse (mm) and beam (mm) at the focus (mm), growth of the beam per mm.
    pulse: float
    beam: float
    focus: float
    growth: float
    # Share of side lobes in the beam's amplitude.
    lobes: float
    looks: int
    # What compounding and speckle reduction leave of the speckle's contrast.
    grain: float
    # Share of haze and B-lines that has no speckle: waves scattered many times.
    mist: float
    # Noise (dB below white) at the face and at the bottom.
    noise: tuple[float, float]
    # Display: gain slope to the bottom (dB), range (dB), curve, level of tissue, smoothing (px).
    tilt: float
    dynamic_range: float
    curve: float
    level: float
    smooth: float


class Frame(NamedTuple):
    """One frame with its masks, (H, W) each."""

    image: np.ndarray
    transmission: np.ndarray
    shadow: np.ndarray
    reverberation: np.ndarray
    no_contact: np.ndarray
    clutter: np.ndarray
    tissue: np.ndarray
    fluid: np.ndarray
    hidden: np.ndarray
    bright: np.ndarray
    dark: np.ndarray


@dataclass
class Renderer:
    """Renders frames of one body by one scanner; the scatterers stay, the noise does not."""

    grid: Grid
    scanner: Scanner
    maps: Still
    contact: Contact
    scatterers: list[np.ndarray]
    gain: float | None = None

    @classmethod
    def draw(
        cls,
        random: np.random.Generator,
        grid: Grid,
        scanner: Scanner,
        maps: Still,
        contact: Contact,
    ) -> Renderer:
        """Draw the scatterers: one set for each look and one for artifacts."""
        sets = [_white(random, grid.down.shape) for _ in range(scanner.looks + 1)]
        return cls(grid, scanner, maps, contact, sets)

    def frame(
        self, noise: np.random.Generator, motion: Motion | None = None, shift: float = 0.0
    ) -> Frame:
        """Render one frame; the first one sets the gain of those that follow."""
        grid, scanner = self.grid, self.scanner
        maps = replace(self.maps.moved(motion))
        dead = self.contact.apply(maps, grid, shift)
        kernel = _pulse(scanner.pulse / grid.row_step)
        deviation = self._deviation()
        beam = self._beam(deviation)
        # Surfaces keep their amplitude, scatterers their power.
        even = np.float32(1 / kernel.sum()) / beam[:, :1]
        power = np.zeros(grid.down.shape, np.float32)
        *looks, artifacts = self.scatterers
        surface = maps.surface * even
        for scatterers in looks:
            scatterers = scatterers if motion is None else motion.carry_noise(scatterers)
            power += _detect(scatterers * maps.echo + surface, kernel, beam)
        power *= np.float32(1 / len(looks))
        artifacts = artifacts if motion is None else motion.carry_noise(artifacts)
        fog = np.square(maps.fog)
        diffuse = artifacts * np.sqrt(np.square(maps.dirt) + (1 - scanner.mist) * fog)
        power += _detect(diffuse + maps.rings * even, kernel, beam) + scanner.mist * fog
        lifted = np.linspace(*scanner.noise, grid.shape[0], dtype=np.float32)
        floor = (10 ** (lifted / 10))[:, None].astype(np.float32)
        power += floor * _detect(_white(noise, grid.down.shape), kernel, None)
        decibel = 10 * np.log10(power[:, grid.visible] + np.float32(1e-12))
        if scanner.grain < 1:
            expected = 10 * np.log10(self._expected(maps, floor, deviation) + np.float32(1e-12))
            decibel = expected + np.float32(scanner.grain) * (decibel - expected)
        return self._judge(maps, dead, self._display(decibel, maps), floor)

    def _deviation(self) -> np.ndarray:
        """Standard deviation (H,) of the beam in columns."""
        grid, scanner = self.grid, self.scanner
        wide = np.hypot(scanner.beam, scanner.growth * (grid.depth - scanner.focus))
        return np.maximum(wide / grid.spacing[:, 0], 0.5)

    def _beam(self, deviation: np.ndarray) -> np.ndarray:
        """Response of the beam in every row: a Gaussian and its side lobes, of unit energy."""
        length = self.grid.down.shape[1]
        response = transfer(length, deviation)
        response += np.float32(self.scanner.lobes) * transfer(length, 5 * deviation)
        return response / np.sqrt(np.mean(np.square(response), axis=1, keepdims=True))

    def _expected(self, maps: Still, floor: np.ndarray, deviation: np.ndarray) -> np.ndarray:
        """Mean power over all speckle, visible columns: what endless compounding would show."""
        parts = (maps.echo, maps.surface, maps.dirt, maps.rings, maps.fog)
        power = sum(np.square(part) for part in parts)
        narrow = deviation * np.sqrt(0.5)
        power = blur_rows(power, transfer(power.shape[1], narrow, real=True))[:, self.grid.visible]
        pulse = max(0.4, np.sqrt(0.5) * self.scanner.pulse / self.grid.row_step)
        power = gaussian_filter1d(power, pulse, axis=0, truncate=3)
        return np.maximum(power, 0) + floor

    def _display(self, decibel: np.ndarray, maps: Still) -> np.ndarray:
        """Gray levels in [0, 1] of the visible columns."""
        grid, scanner = self.grid, self.scanner
        tilt = np.linspace(0, scanner.tilt, grid.shape[0], dtype=np.float32)[:, None]
        decibel = decibel + tilt
        if scanner.smooth > 0:
            for axis in (0, 1):
                decibel = gaussian_filter1d(decibel, scanner.smooth, axis=axis, truncate=3)
        if self.gain is None:
            self.gain = self._gain(decibel, maps)
        level = np.clip(1 + (decibel + np.float32(self.gain)) / scanner.dynamic_range, 0, 1)
        return level**scanner.curve

    def _gain(self, decibel: np.ndarray, maps: Still) -> float:
        """Tissue at the drawn level, but next to nothing white: a saturated frame is no use."""
        scanner = self.scanner
        passed = maps.transmission[:, self.grid.visible] > 0.3
        seen = passed & (maps.fluid[:, self.grid.visible] < 0.5)
        typical = np.median(decibel[seen] if seen.any() else decibel)
        brightest = np.percentile(decibel, 98.5)
        wanted = scanner.level ** (1 / scanner.curve) - 1
        most = (0.93 ** (1 / scanner.curve) - 1) * scanner.dynamic_range - brightest
        return float(min(wanted * scanner.dynamic_range - typical, most))

    def _judge(self, maps: Still, dead: np.ndarray, level: np.ndarray, floor: np.ndarray) -> Frame:
        """What each place shows, by mean powers of its sources."""
        grid = self.grid
        cut = grid.visible
        spread = max(0.5, self.scanner.pulse / grid.row_step), 1.0
        seen = _spread(np.square(maps.echo) + np.square(maps.surface), spread)[:, cut]
        capable = _spread(np.square(maps.capable) + np.square(maps.surface), spread)[:, cut]
        train = max(3, round(_TRAIN * grid.shape[0]))
        rings = maximum_filter1d(np.square(maps.rings), train, axis=0)
        echoes = _spread(np.square(maps.dirt) + rings, spread)[:, cut]
        fog = np.square(maps.fog)[:, cut]
        transmission = np.ascontiguousarray(maps.transmission[:, cut])
        fluid = maps.fluid[:, cut] > 0.5
        local = _spread(level, (1.0, 1.0))
        shadow = transmission < SHADOW_LEVEL
        no_contact = np.repeat((dead[cut] > 20)[None], len(shadow), axis=0)
        reverberation = (echoes > capable) & (echoes > floor) & (local > _BLACK)
        # Noise alone is clutter where the beam is there but its echo drowns.
        hazy = (fog > capable) & (fog > floor) & (local > _BLACK)
        clutter = hazy | (floor > capable) & ~shadow
        shows = (seen > _SEEN * (echoes + fog + floor)) & (local > _BLACK)
        tissue = shows & ~fluid & ~(shadow | reverberation | no_contact | clutter)
        usual = float(local[tissue].mean()) if tissue.any() else 0.3
        image = np.rint(255 * level).astype(np.uint8)
        dark = local < _DARK * usual
        masks = (shadow, reverberation, no_contact, clutter, tissue, fluid, ~shows | dark)
        return Frame(image, transmission, *masks, local > _BRIGHT * usual, dark)


def _white(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Unit-power circular complex noise: sums of many scatterers of random phase."""
    parts = random.standard_normal((*shape, 2), dtype=np.float32)
    parts *= np.float32(np.sqrt(0.5))
    return parts.view(np.complex64)[..., 0]


def _pulse(deviation: float) -> np.ndarray:
    """Envelope of the pulse, of unit energy; deviation in rows."""
    reach = max(1, int(np.ceil(3 * deviation)))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(deviation, 0.35)) ** 2)
    return (kernel / np.sqrt(np.sum(kernel**2))).astype(np.float32)


def _detect(field: np.ndarray, kernel: np.ndarray, beam: np.ndarray | None) -> np.ndarray:
    """Power of a complex field after pulse and beam."""
    if beam is not None:
        field = blur_rows(field, beam)
    real = correlate1d(field.real, kernel, axis=0, mode="reflect")
    imaginary = correlate1d(field.imag, kernel, axis=0, mode="reflect")
    return real * real + imaginary * imaginary


def _spread(values: np.ndarray, deviation: tuple[float, float]) -> np.ndarray:
    for axis in (0, 1):
        values = gaussian_filter1d(values, deviation[axis], axis=axis, truncate=2.5)
    return values
