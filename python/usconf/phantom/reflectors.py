"""Bone, gas, lung, stones, needles: what stops the beam, and what it leaves below."""

from __future__ import annotations

import numpy as np

from . import fields
from .body import NOWHERE, Body


def dome(
    body: Body, center: float, top: float, half: float, drop: float, sharp: float = 0.0
) -> np.ndarray:
    """Depths (W',) of a convex surface; NOWHERE beyond its ends.

    `center` across at middle depth, `half` its half width and `drop` what it falls by there, mm.
    `sharp` goes from 0, a circle or ellipse, to 1, a rounded crest with straight sides.
    """
    share = (body.grid.lateral - center) / half
    round_part = 1 - np.sqrt(np.maximum(1 - share * share, 0))
    crest = np.sqrt(share * share + 0.02) - np.sqrt(0.02)
    place = top + drop * ((1 - sharp) * round_part + sharp * crest)
    return np.where(np.abs(share) < 1, place, NOWHERE).astype(np.float32)


def add_bone(
    body: Body,
    random: np.random.Generator,
    place: np.ndarray,
    loss: float | None = None,
) -> None:
    """A cortical surface at depths (W',), its total loss in dB (drawn if None) and its shadow."""
    scale = max(1.0, body.grid.extent / 60)
    loss = random.uniform(24, 60) if loss is None else loss
    met = place < NOWHERE / 2
    rough = np.where(met, random.uniform(0.0, 0.35) * scale * body.curve(random, 2.5 * scale), 0)
    place = place + rough.astype(np.float32)
    bright = body.facing(place, random.uniform(0.4, 1.0)) * met
    bright = np.maximum(bright, random.uniform(0.02, 0.2) * met)
    bright = bright * 10 ** ((random.uniform(-14, 0) + 3 * body.curve(random, 4 * scale)) / 20)
    body.draw_line(body.surface, place, random.uniform(0.2, 0.6) * scale, bright)
    below = body.depth > place + 0.3 * scale
    body.echo[below] -= random.uniform(3, 12)
    body.surface[body.depth > place + 1.2 * scale] *= 0.1
    arriving = body.arriving(place)
    body.lose(place, random.uniform(0.8, 2.0) * scale, loss)
    _fill_shadow(body, random, place, arriving, 3.0, (-70, -40), (-56, -26))


def add_gas(
    body: Body,
    random: np.random.Generator,
    place: np.ndarray,
    echoes: bool,
    level: tuple[float, float] = (-10, 0),
) -> None:
    """A gas surface: more ragged than bone, of a level in dB; a shadow full of reverberation."""
    scale = max(1.0, body.grid.extent / 60)
    met = place < NOWHERE / 2
    rough = np.where(met, random.uniform(0.05, 0.4) * scale * body.curve(random, 1.5 * scale), 0)
    place = place + rough.astype(np.float32)
    bright = np.maximum(body.facing(place, 0.6), 0.25) * met
    bright = bright * 10 ** ((random.uniform(*level) + 3 * body.curve(random, 3 * scale)) / 20)
    thick = random.uniform(0.3, 0.8) * scale
    body.draw_line(body.surface, place, thick, bright)
    below = body.depth > place + thick
    body.echo[below] = -70
    body.surface[body.depth > place + 2.5 * thick] = 0
    arriving = body.arriving(place)
    body.lose(place, 2 * thick, random.uniform(26, 60))
    _fill_shadow(body, random, place, arriving, 15.0, (-48, -24), (-30, -8))
    if echoes:
        weaker = random.uniform(0.2, 0.55)
        add_echoes(body, random, place, place, weaker, bright * arriving, thick)


def _fill_shadow(
    body: Body,
    random: np.random.Generator,
    place: np.ndarray,
    arriving: np.ndarray,
    streak: float,
    haze: tuple[float, float],
    copy: tuple[float, float],
) -> None:
    """Haze that fades below the surface, in streaks (mm), and a copy of what is above."""
    scale = max(1.0, body.grid.extent / 60)
    reach = random.uniform(2, 8 + streak) * scale
    gone = np.clip((body.depth - place) * np.float32(1 / reach), 0, 30)
    floor = random.uniform(0, 0.4)
    uneven = 3 * body.draw(random, streak * scale, 2.5 * scale)
    level = 10 ** ((random.uniform(*haze) + uneven) / 20)
    fade = floor + (1 - floor) * np.exp(-gone)
    body.dirt = np.maximum(body.dirt, level * fade * arriving * (gone > 0))
    body.copies.append((place, random.uniform(*copy), False))


def add_echoes(
    body: Body,
    random: np.random.Generator,
    place: np.ndarray,
    period: np.ndarray | float,
    weaker: float,
    bright: np.ndarray,
    thickness: float,
) -> None:
    """Repeated echoes: at place + k * period, each `weaker` times the one before."""
    count = int(np.clip(np.log(0.004) / np.log(weaker), 1, 14))
    lowest = float(np.min(place))
    spacing = float(np.min(period))
    drift = 0.15 * thickness * body.curve(random, 6)
    for index in range(1, count + 1):
        if lowest + index * spacing > body.grid.extent:
            break
        at = place + index * (period + drift)
        # Each pass blurs the echo a little more.
        body.draw_line(body.rings, at, thickness * (1 + 0.15 * index), bright * weaker**index)


def add_comet(body: Body, random: np.random.Generator, center: float, top: float) -> None:
    """A needle, clip or gas bubble across part of the beams, with a train of echoes below."""
    scale = max(1.0, body.grid.extent / 60)
    half = body.grid.width * random.uniform(0.02, 0.16)
    share = np.abs(body.grid.lateral - center) / half
    window = np.exp(-np.minimum(share**6, 20)).astype(np.float32)
    place = top + random.normal(0, 0.15) * (body.grid.lateral - center)
    place = place.astype(np.float32)
    thick = random.uniform(0.25, 0.6) * scale
    bright = window * 10 ** (random.uniform(-10, 0) / 20)
    body.draw_line(body.surface, place, thick, bright)
    body.lose(place, thick, random.uniform(5, 28) * window)
    period = random.uniform(1.2, 5.0) * scale
    add_echoes(body, random, place, period, random.uniform(0.45, 0.8), bright, thick)


def add_b_lines(
    body: Body,
    random: np.random.Generator,
    pleura: np.ndarray,
    arriving: np.ndarray,
    count: int,
    level: float,
    white: float = 0.0,
) -> None:
    """Vertical bright lines from the pleura to the bottom; many of them run together.

    `level` in dB, `white` the share that all beams have of it; `arriving` (W',) is what ribs leave.
    """
    lateral, width = body.grid.lateral, body.grid.width
    scale = max(1.0, body.grid.extent / 60)
    across = np.full_like(lateral, white)
    for _ in range(count):
        center = random.uniform(-0.5, 0.5) * width
        half = width * random.uniform(0.01, 0.07)
        away = np.minimum(((lateral - center) / half) ** 2, 20)
        across += random.uniform(0.4, 1.0) * np.exp(-away)
    gone = body.depth - pleura
    fade = np.exp(-np.clip(gone, 0, None) * random.uniform(0.0, 0.8) / body.grid.extent)
    ripple = 10 ** (random.uniform(1, 3) * body.draw(random, 0.8 * scale, 6 * scale) / 20)
    amplitude = np.minimum(across, 1.2) * arriving * 10 ** (level / 20) * fade * ripple
    body.fog += amplitude * fields.step(gone, 1.0 * scale)


def add_haze(body: Body, random: np.random.Generator, level: float) -> None:
    """Fog over part of the picture: side lobes, scattering twice, a patient hard to see through."""
    lateral = body.grid.lateral / body.grid.width
    center, half = random.uniform(-0.6, 0.6), random.uniform(0.15, 0.6)
    window = np.exp(-np.minimum(((lateral - center) / half) ** 2, 20))
    depth = body.depth / body.grid.extent
    begin = random.uniform(-0.3, 0.5)
    along = fields.step(depth - begin, 0.3) * np.exp(-random.uniform(0, 1.5) * depth)
    rough = 10 ** (1.5 * body.draw(random, 0.15 * body.grid.extent, 0.15 * body.grid.width) / 20)
    body.fog += 10 ** (level / 20) * window * along * rough
