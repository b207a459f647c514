"""What the beams of a phantom meet, at every place, and the soft tissue that it starts with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter1d

from . import fields
from .grid import Grid

# Depth (mm) of a beam that meets no such surface: beyond any picture.
NOWHERE = np.float32(1e4)


@dataclass
class Body:
    """Maps (H, W') over a grid. Echo strengths in dB below white; losses in dB there and back."""

    grid: Grid
    # Diffuse scattering.
    echo: np.ndarray
    # Amplitude of specular surfaces, as seen by the beam.
    surface: np.ndarray
    # Loss per mm, and loss that earlier places have taken in all; neither is ever negative.
    loss: np.ndarray
    spent: np.ndarray
    # What the gain curve gives too much below fluid, which absorbs nothing: display alone (dB).
    relief: np.ndarray
    fluid: np.ndarray
    # Amplitudes of artifacts, as displayed: diffuse and echoing reverberation, haze and B-lines.
    dirt: np.ndarray
    rings: np.ndarray
    fog: np.ndarray
    # Noise at the bottom against tissue (dB) where the gain curve lifts it; None leaves the draw.
    noise: float | None = None
    # Tissue above a surface seen once more below it: (depth of the surface, level in dB, mirrored).
    copies: list[tuple[np.ndarray, float, bool]] = field(default_factory=list)

    @property
    def depth(self) -> np.ndarray:
        """Depth along the beam, (H, 1), in mm."""
        return self.grid.depth[:, None]

    def draw_line(
        self, target: np.ndarray, place: np.ndarray, thickness: float, bright: np.ndarray | float
    ) -> None:
        """Add a bell of amplitude `bright` (W',) to a map along depths (W',) in mm.

        Never thinner than a row: a thinner line's amplitude averages over the row.
        """
        wide = max(thickness, 0.7 * self.grid.row_step)
        met = place[place < NOWHERE / 2]
        if not met.size:
            return
        rows = self._rows(float(met.min()) - 3 * wide, float(met.max()) + 3 * wide)
        away = (self.depth[rows] - place) * np.float32(1 / wide)
        bell = np.exp(-np.minimum(away * away, 20))
        target[rows] += bell * (bright * np.float32(max(0.4, thickness / wide)))

    def lose(self, place: np.ndarray, thickness: float, loss: np.ndarray | float) -> None:
        """Take `loss` dB (W',) out of the beams as they cross depths (W',) in mm."""
        met = place[place < NOWHERE / 2]
        if met.size:
            rows = self._rows(float(met.min()), np.inf)
            height = self.depth[rows] - place
            self.spent[rows] += fields.step(height, thickness) * np.asarray(loss, np.float32)

    def arriving(self, place: np.ndarray) -> np.ndarray:
        """Amplitude (W',) that losses drawn so far leave at depths (W',), there and back."""
        height, columns = self.spent.shape
        row = np.clip(place / self.grid.row_step - 1, 0, height - 1).astype(np.intp)
        left = 10 ** (-self.spent[row, np.arange(columns)] / 20)
        return gaussian_filter1d(left.astype(np.float32), 0.012 * self.grid.shape[1])

    def _rows(self, highest: float, lowest: float) -> slice:
        """The rows between two depths in mm."""
        first, last = np.searchsorted(self.grid.depth, (highest, lowest))
        return slice(max(0, int(first) - 1), int(last) + 1)

    def draw(self, random: np.random.Generator, down: float, across: float) -> np.ndarray:
        """Smooth unit field with knots `down` and `across` mm apart."""
        grid = self.grid
        spacing = (down, across)
        return fields.field(random, grid.depth, grid.lateral, spacing, grid.extent, grid.half)

    def curve(self, random: np.random.Generator, spacing: float) -> np.ndarray:
        """Smooth unit curve across, (W',), with knots `spacing` mm apart."""
        return fields.curve(random, self.grid.lateral, spacing, self.grid.half)

    def facing(self, place: np.ndarray, width: float) -> np.ndarray:
        """How much of a surface's reflection returns, (W',): 1 where it faces the beam."""
        at = np.clip(place / self.grid.row_step, 0, self.grid.shape[0] - 1).astype(np.intp)
        slope = np.gradient(place) / self.grid.spacing[at, 0]
        return np.exp(-np.minimum((slope / np.float32(width)) ** 2, 20)).astype(np.float32)


class _Texture(NamedTuple):
    """Ranges to draw a soft tissue from: echo (dB), unevenness (dB), strands (dB) or none."""

    echo: tuple[float, float]
    uneven: tuple[float, float]
    strands: tuple[float, float] | None
    # Period (mm), empty share of the profile and slope of the strands.
    period: tuple[float, float] = (1.0, 2.0)
    sparse: float = 0.5
    slope: float = 0.1


# Levels relative to each other follow clinical appearance: fat of the skin dark with bright septa,
# muscle dark with bright perimysium, glands and liver even, tendon and nerve bright and striped.
TISSUES = {
    "fat": _Texture((-40, -30), (1, 3), (8, 18), (0.8, 2.2), 0.8, 0.12),
    "muscle": _Texture((-46, -32), (1, 3), (8, 18), (0.5, 1.6), 0.45, 0.35),
    "tendon": _Texture((-32, -26), (1, 2), (5, 10), (0.25, 0.6), 0.3, 0.1),
    "gland": _Texture((-33, -26), (1.5, 4), None),
    "organ": _Texture((-44, -28), (0.5, 1.5), None),
    "mixed": _Texture((-40, -28), (2, 5), (4, 12), (0.6, 3.0), 0.6, 0.3),
}


def empty_body(grid: Grid) -> Body:
    """A body without anything in it."""
    names = ("surface", "loss", "spent", "relief", "dirt", "rings", "fog")
    maps: dict[str, Any] = {name: np.zeros_like(grid.down) for name in names}
    echo, fluid = np.full_like(grid.down, -34), np.zeros(grid.down.shape, bool)
    return Body(grid, echo=echo, fluid=fluid, **maps)


def add_layers(
    body: Body, random: np.random.Generator, top: np.ndarray, tissues: tuple[str, ...]
) -> None:
    """Fill the body below `top` (W',) with skin and layers drawn from the tissues, in order.

    The last tissue reaches the bottom. Boundaries are bright where they face the beam.
    """
    extent, lateral = body.grid.extent, body.grid.lateral
    scale = extent / 40
    skin = random.uniform(0.8, 2.2) * min(scale, 1.5)
    share = np.cumsum(random.uniform(0.4, 1.6, len(tissues)))
    reach = extent * random.uniform(0.45, 0.9) / max(1, len(tissues) - 1)
    bottom = top + skin
    names = ("skin", *tissues)
    # Below one boundary in every other body the tissue is as even as ever, however bright it is.
    strong = int(random.integers(0, len(names))) if random.random() < 0.5 else len(names)
    for index, name in enumerate(names):
        last = index == len(names) - 1
        if index:
            _fill(body, random, TISSUES[name], body.depth >= bottom)
        else:
            body.echo[:] = random.uniform(-32, -20)
        if last:
            break
        if index:
            thick = reach * share[index - 1] / share[-1] * 1.6
            wave = thick * random.uniform(0.05, 0.3) * body.curve(random, 14 * scale)
            tilt = random.normal(0, 0.06) * lateral
            bottom = bottom + np.maximum(thick + wave + tilt, 0.3)
        _fascia(body, random, bottom, random.uniform(-26, -3))
        if index == strong:
            _sheets(body, random, bottom)
    _septa(body, random, top + skin, scale)
    body.echo += random.uniform(0.5, 2.0) * body.draw(random, 2 * scale, 5 * scale)


def _fill(body: Body, random: np.random.Generator, tissue: _Texture, inside: np.ndarray) -> None:
    scale = max(1.0, body.grid.extent / 60)
    echo = random.uniform(*tissue.uneven) * body.draw(random, 1.2 * scale, 3 * scale)
    echo += np.float32(random.uniform(*tissue.echo))
    if tissue.strands is not None:
        period = random.uniform(*tissue.period) * scale
        slope = random.normal(0, tissue.slope)
        across = body.depth + slope * body.grid.lateral
        across = across + period * body.draw(random, 8 * scale, 10 * scale)
        gaps = np.clip(0.55 + 0.6 * body.draw(random, 1.5 * scale, 6 * scale), 0, 1.2)
        strands = fields.strands(random, across, period, tissue.sparse)
        echo += random.uniform(*tissue.strands) * strands * gaps
    np.copyto(body.echo, echo, where=inside)


def _fascia(body: Body, random: np.random.Generator, place: np.ndarray, level: float) -> None:
    """A bright boundary, interrupted at random; it costs little."""
    scale = max(1.0, body.grid.extent / 60)
    bright = 10 ** ((level + random.uniform(2, 9) * body.curve(random, 2.5 * scale)) / 20)
    bright = np.minimum(bright, 0.6) * body.facing(place, 0.35)
    body.draw_line(body.surface, place, random.uniform(0.1, 0.3) * scale, bright)
    body.lose(place, 0.5 * scale, random.uniform(0.0, 0.6))


def _sheets(body: Body, random: np.random.Generator, place: np.ndarray) -> None:
    """An aponeurosis: thick bright sheets, side by side, as white as a pleura, that pass sound."""
    scale = max(1.0, body.grid.extent / 60)
    bright = 10 ** (random.uniform(-8, 4) / 20)
    for _ in range(int(random.integers(1, 4))):
        rough = 10 ** (random.uniform(0, 5) * body.curve(random, 3 * scale) / 20)
        level = np.minimum(bright * rough, 1.5) * body.facing(place, 0.5)
        body.draw_line(body.surface, place, random.uniform(0.2, 0.7) * scale, level)
        wave = random.uniform(0, 0.3) * scale * body.curve(random, 8 * scale)
        place = place + random.uniform(0.5, 2.0) * scale + wave
        bright *= random.uniform(0.4, 1.0)


def _septa(body: Body, random: np.random.Generator, top: np.ndarray, scale: float) -> None:
    """Short bright sheets between lobules and bundles, bent and interrupted."""
    period = random.uniform(0.4, 1.2) * scale
    slope = random.normal(0, 0.15)
    across = body.depth + slope * body.grid.lateral
    bend = random.uniform(0.3, 2.5) ** 2 * scale
    across = across + bend * body.draw(random, 9 * scale, 12 * scale)
    sheets = fields.strands(random, across, period, random.uniform(0.55, 0.9))
    gaps = np.clip(body.draw(random, 3 * scale, 5 * scale) - random.uniform(-0.5, 1.0), 0, 1.2)
    # Where they bend along the beams, thin sheets would become thick patches.
    thin = np.clip(np.abs(np.gradient(across, axis=0)) * np.float32(1 / body.grid.row_step), 0, 1)
    sheets = np.square(sheets * thin) * gaps * 10 ** (random.uniform(-28, -12) / 20)
    body.surface += sheets * (body.depth > top)


def add_standoff(body: Body, random: np.random.Generator, top: np.ndarray) -> None:
    """Gel or water above `top` (W',): no echo and no loss; the membrane and the skin are bright."""
    gel = body.depth < top
    body.echo[gel] = -90
    body.surface[gel] = 0
    body.fluid |= gel
    body.relief += random.uniform(0.05, 0.25) * np.minimum(body.depth, top)
    thick = random.uniform(0.15, 0.4)
    body.draw_line(body.surface, top, thick, 10 ** (random.uniform(-16, -6) / 20))
    if random.random() < 0.7:
        membrane = np.full_like(top, random.uniform(0.2, 0.8))
        body.draw_line(body.surface, membrane, thick, 10 ** (random.uniform(-18, -4) / 20))
    if random.random() < 0.3:
        # The skin once more: between it and the face the pulse runs twice.
        body.draw_line(body.rings, 2 * top, thick, 10 ** (random.uniform(-34, -22) / 20))


def add_cavity(
    body: Body,
    random: np.random.Generator,
    center: tuple[float, float],
    radii: tuple[float, float],
    echo: float | None,
    tilt: float = 0.0,
    loss: float = 16.0,
) -> np.ndarray:
    """A cyst, vessel (echo None: fluid) or solid nodule (its echo in dB); returns its inside.

    `center` is (across, down) and `radii` the half axes in mm. Fluid makes the tissue below
    brighter, a solid one darker by up to `loss` dB; beams along the side walls are refracted away.
    """
    across, down = body.grid.across - center[0], body.grid.down - center[1]
    turn, rise = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    u, v = (turn * across + rise * down) / radii[0], (turn * down - rise * across) / radii[1]
    uneven = 1 + random.uniform(0.0, 0.12) * body.draw(random, radii[1], radii[0])
    radius = np.sqrt(u * u + v * v) * uneven
    inside = radius < 1
    body.surface *= fields.step(radius - 0.9, 0.1)
    steep = np.clip(np.abs(v) / np.maximum(radius, 1e-3), 0, 1) ** 3
    wall = max(0.04, 0.7 * body.grid.row_step / radii[1])
    line = np.exp(-np.minimum(((radius - 1 - wall) / wall) ** 2, 20))
    body.surface += line * steep * 10 ** (random.uniform(-26, -12) / 20)
    below = fields.step(body.grid.down - center[1], radii[1])
    edge = np.exp(-np.minimum(((np.abs(across / radii[0]) - 1) / 0.12) ** 2, 20))
    body.spent += random.uniform(0.0, 5.0) * edge * below
    if echo is None:
        body.echo[inside] = random.uniform(-75, -55)
        body.fluid |= inside
        gained = np.cumsum(inside, axis=0, dtype=np.float32) * np.float32(body.grid.row_step)
        body.relief += gained * np.float32(random.uniform(0.1, 0.5) * 20 / body.grid.extent)
    else:
        rough = random.uniform(1, 3) * body.draw(random, 1.0, 1.5)
        np.copyto(body.echo, echo + rough, where=inside)
        body.loss[inside] += random.uniform(0.0, loss) / (2 * radii[1])
    return inside
