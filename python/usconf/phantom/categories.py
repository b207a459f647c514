"""The kinds of phantoms: what lies in the body, drawn at random within each kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .acoustics import Contact
from .body import NOWHERE, TISSUES, Body, add_cavity, add_layers, add_standoff, empty_body
from .grid import Grid
from .reflectors import (
    add_b_lines,
    add_bone,
    add_comet,
    add_echoes,
    add_gas,
    add_haze,
    dome,
)

NO_GAPS = Contact([], (0.0, 1.0, 0.5, 0.0, 1.0))
Recipe = Callable[[Body, np.random.Generator], None]


def build(random: np.random.Generator, grid: Grid, category: str) -> tuple[Body, Contact]:
    """Draw the body of a category and where the probe touches it."""
    body = empty_body(grid)
    top = np.zeros_like(grid.lateral)
    if category == "gel" or (category in _MAY_HAVE_GEL and random.random() < 0.2):
        most = 0.3 if category == "gel" else 0.12
        top = _gel_surface(body, random, most)
    if category in _LAYERED:
        count = int(random.integers(1, 6))
        tissues = tuple(random.choice(tuple(TISSUES), count).tolist())
    else:
        tissues = _TISSUES_OF[category]
    add_layers(body, random, top, tissues)
    _weaken(body, random)
    _RECIPES[category](body, random)
    if top.any():
        add_standoff(body, random, top)
    contact = NO_GAPS
    if category == "no_contact" or random.random() < 0.06:
        contact = _contact(random, grid)
    if category not in ("haze", "deep", "lung", "b_lines") and random.random() < 0.08:
        add_haze(body, random, random.uniform(-48, -34))
    return body, contact


def _gel_surface(body: Body, random: np.random.Generator, most: float) -> np.ndarray:
    grid = body.grid
    thick = random.uniform(0.03, most) * grid.extent
    wave = random.uniform(0, 0.2) * body.curve(random, 0.4 * grid.width)
    top = thick * (1 + wave) + random.normal(0, 0.12) * grid.lateral
    return np.clip(top, 0.0, 0.45 * grid.extent).astype(np.float32)


def _weaken(body: Body, random: np.random.Generator) -> None:
    """Scattering of soft tissue, in a few bodies heavy; the gain curve makes up for part of it."""
    total = random.uniform(1, 6) + random.exponential(4) * (random.random() < 0.5)
    body.loss += total / body.grid.extent
    body.relief += random.uniform(0, 1) * total * body.depth / body.grid.extent


def _contact(random: np.random.Generator, grid: Grid) -> Contact:
    gaps = []
    for _ in range(1 if random.random() < 0.75 else 2):
        half = random.uniform(0.05, 0.35)
        side = int(random.choice((-1, 0, 1), p=(0.4, 0.2, 0.4)))
        # At a side the gap reaches past the picture.
        center = random.uniform(-0.3, 0.3) if side == 0 else side * (0.65 - 0.4 * random.random())
        half = half / 2 if side == 0 else 0.25 + 0.1 * random.random()
        gaps.append((center, half, random.uniform(0.04, 0.3), random.uniform(26, 60)))
    scale = max(1.0, grid.extent / 60)
    period = random.uniform(0.4, 2.5) * scale
    rings = (
        10 ** (random.uniform(-34, -8) / 20),
        period,
        # A twentieth is left after 2 to 15 mm.
        0.05 ** (period / (random.uniform(2, 15) * scale)),
        10 ** (random.uniform(-45, -20) / 20),
        random.uniform(1, 8) * scale,
    )
    return Contact(gaps, rings)


def _place(body: Body, random: np.random.Generator, highest: float, lowest: float) -> float:
    return float(random.uniform(highest, lowest)) * body.grid.extent


def _across(body: Body, random: np.random.Generator, share: float = 0.45) -> float:
    return float(random.uniform(-share, share)) * body.grid.width


def _layers(body: Body, random: np.random.Generator) -> None:
    """Soft tissue alone, at times with a small vessel."""
    if random.random() < 0.4:
        _small_vessels(body, random, 2)


def _small_vessels(body: Body, random: np.random.Generator, most: int) -> None:
    for _ in range(int(random.integers(1, most + 1))):
        radius = random.uniform(0.01, 0.04) * body.grid.extent
        center = _cartesian(body, random, 0.15, 0.85)
        radii = (radius * random.uniform(0.8, 2.5), radius)
        add_cavity(body, random, center, radii, None, random.normal(0, 0.3))


def _cartesian(
    body: Body, random: np.random.Generator, highest: float, lowest: float
) -> tuple[float, float]:
    """A place (across, down) in mm within the picture."""
    row, column = _spot(body, random, highest, lowest)
    return float(body.grid.across[row, column]), float(body.grid.down[row, column])


def _spot(
    body: Body, random: np.random.Generator, highest: float, lowest: float
) -> tuple[int, int]:
    """A (row, column) within the picture."""
    row = int(random.uniform(highest, lowest) * (body.grid.shape[0] - 1))
    return row, body.grid.side + int(random.uniform(0.08, 0.92) * (body.grid.shape[1] - 1))


def _bone_surface(body: Body, random: np.random.Generator) -> np.ndarray:
    """A cortex as it is met: shaft across, shaft along, or an irregular one."""
    grid = body.grid
    kind = random.random()
    if kind < 0.55:
        half = random.uniform(0.1, 0.45) * grid.width
        drop = half * random.uniform(0.3, 2.0)
        center, top = _across(body, random), _place(body, random, 0.2, 0.7)
        place = dome(body, center, top, half, drop, random.random())
        skew = random.normal(0, 0.35) * (grid.lateral - np.float32(center))
        bumps = random.uniform(0, 0.06) * half * body.curve(random, half / 2)
        return np.where(place < NOWHERE / 2, np.maximum(place + skew + bumps, 1.0), place)
    place = _place(body, random, 0.25, 0.8) + random.normal(0, 0.25) * grid.lateral
    rough = random.uniform(0.0, 0.03) if kind < 0.75 else random.uniform(0.03, 0.12)
    knots = random.uniform(0.12, 0.4) * grid.width
    place = place + rough * grid.extent * body.curve(random, knots)
    place = np.maximum(place, 0.1 * grid.extent).astype(np.float32)
    if random.random() < 0.7:
        # Its ends curve down and out of sight.
        center, half = _across(body, random, 0.6), random.uniform(0.12, 0.45) * grid.width
        beyond = np.maximum(np.abs(grid.lateral - np.float32(center)) - half, 0)
        fall = beyond * beyond / (random.uniform(0.05, 0.3) * half)
        place = np.where(fall < 0.4 * grid.extent, place + fall, NOWHERE)
    return place


def _bone(body: Body, random: np.random.Generator) -> None:
    for _ in range(1 if random.random() < 0.7 else 2):
        add_bone(body, random, _bone_surface(body, random))
    if random.random() < 0.2:
        _small_vessels(body, random, 1)


def _partial(body: Body, random: np.random.Generator) -> None:
    """Calcifications, thin bone or cartilage: shadows that still show something."""
    for _ in range(int(random.integers(1, 4))):
        half = random.uniform(0.03, 0.15) * body.grid.width
        top = _place(body, random, 0.15, 0.6)
        place = dome(body, _across(body, random), top, half, half * random.uniform(0.1, 0.6))
        add_bone(body, random, place, random.uniform(5, 22))


def _ribs(body: Body, random: np.random.Generator) -> float:
    """Ribs at equal distance; returns the depth (mm) of their top."""
    grid = body.grid
    top = _place(body, random, 0.12, 0.35)
    apart = random.uniform(0.35, 0.8) * grid.width
    half = apart * random.uniform(0.15, 0.3)
    first = random.uniform(-0.5, 0.5) * apart - apart
    for index in range(4):
        center = first + index * apart
        if abs(center) < 0.65 * grid.width:
            place = dome(body, center, top, half, half * random.uniform(0.2, 0.7))
            add_bone(body, random, place)
    return top


def _pleura(body: Body, random: np.random.Generator) -> np.ndarray:
    """Depth (W',) of the pleura, below ribs if there are any."""
    grid = body.grid
    top = _ribs(body, random) if random.random() < 0.6 else _place(body, random, 0.12, 0.45)
    place = top + random.uniform(0.01, 0.08) * grid.extent
    wave = random.uniform(0.005, 0.04) * grid.extent * body.curve(random, 0.4 * grid.width)
    return (place + wave + random.normal(0, 0.05) * grid.lateral).astype(np.float32)


def _lung(body: Body, random: np.random.Generator) -> None:
    pleura = _pleura(body, random)
    arriving = body.arriving(pleura)
    add_gas(body, random, pleura, echoes=random.random() < 0.7)
    if random.random() < 0.5:
        count, level = int(random.integers(1, 4)), random.uniform(-40, -26)
        add_b_lines(body, random, pleura, arriving, count, level)


def _b_lines(body: Body, random: np.random.Generator) -> None:
    pleura = _pleura(body, random)
    arriving = body.arriving(pleura)
    add_gas(body, random, pleura, random.random() < 0.3, level=(-22, -2))
    count, level = int(random.integers(2, 14)), random.uniform(-36, -18)
    white = random.uniform(0.3, 1.0) if random.random() < 0.5 else 0.0
    add_b_lines(body, random, pleura, arriving, count, level, white)


def _gas(body: Body, random: np.random.Generator) -> None:
    for _ in range(int(random.integers(1, 4))):
        half = random.uniform(0.06, 0.35) * body.grid.width
        top = _place(body, random, 0.15, 0.65)
        place = dome(body, _across(body, random), top, half, half * random.uniform(0.02, 0.5))
        add_gas(body, random, place, echoes=random.random() < 0.5)


def _comet(body: Body, random: np.random.Generator) -> None:
    for _ in range(int(random.integers(1, 3))):
        add_comet(body, random, _across(body, random), _place(body, random, 0.05, 0.4))


def _reverberation(body: Body, random: np.random.Generator) -> None:
    """A strong shallow surface across the picture, found again at its depth's multiples."""
    scale = max(1.0, body.grid.extent / 60)
    top = _place(body, random, 0.04, 0.18)
    tilt = random.normal(0, 0.03) * body.grid.lateral
    place = np.maximum(top + tilt, 0.5).astype(np.float32)
    thick = random.uniform(0.2, 0.5) * scale
    begin, half = random.uniform(-0.5, 0.5), random.uniform(0.15, 0.6)
    away = (body.grid.lateral / body.grid.width - begin) / half
    window = np.exp(-np.minimum(away**6, 20)).astype(np.float32)
    bright = window * 10 ** (random.uniform(-8, 2) / 20)
    body.draw_line(body.surface, place, thick, bright)
    # What comes back so often does not go on: little is left for what lies below.
    body.lose(place, thick, random.uniform(4, 22) * window)
    add_echoes(body, random, place, place, random.uniform(0.3, 0.7), bright, thick)


def _vessel(body: Body, random: np.random.Generator) -> None:
    for _ in range(int(random.integers(1, 4))):
        radius = random.uniform(0.03, 0.13) * body.grid.extent
        flat = random.uniform(0.8, 1.6) if random.random() < 0.6 else random.uniform(2.5, 8)
        center = _cartesian(body, random, 0.15, 0.8)
        radii = (min(radius * flat, 0.7 * body.grid.width), radius)
        add_cavity(body, random, center, radii, None, random.normal(0, 0.2))


def _cyst(body: Body, random: np.random.Generator) -> None:
    for _ in range(int(random.integers(1, 3))):
        radius = random.uniform(0.07, 0.24) * body.grid.extent
        center = _cartesian(body, random, 0.25, 0.75)
        radii = (radius * random.uniform(0.8, 1.8), radius)
        add_cavity(body, random, center, radii, None, random.normal(0, 0.4))


def _stone(body: Body, random: np.random.Generator) -> None:
    """A stone at the bottom of a fluid-filled organ: a clean shadow below a cyst."""
    grid = body.grid
    radius = random.uniform(0.1, 0.22) * grid.extent
    row, column = _spot(body, random, 0.3, 0.55)
    center = float(grid.across[row, column]), float(grid.down[row, column])
    add_cavity(body, random, center, (radius * random.uniform(1, 1.8), radius), None)
    half = max(radius * random.uniform(0.15, 0.5), 0.04 * grid.width)
    top = float(grid.depth[row]) + 0.9 * radius - 0.7 * half
    place = dome(body, float(grid.lateral[column]), top, half, half * 0.7)
    add_bone(body, random, place)


def _nodule(body: Body, random: np.random.Generator) -> None:
    for _ in range(int(random.integers(1, 4))):
        radius = random.uniform(0.04, 0.15) * body.grid.extent
        center = _cartesian(body, random, 0.2, 0.75)
        radii = (radius * random.uniform(0.8, 1.8), radius)
        add_cavity(body, random, center, radii, random.uniform(-52, -26), random.normal(0, 0.4))


def _nerve(body: Body, random: np.random.Generator) -> None:
    """Vessels beside nerves: round, with dark fascicles in bright tissue."""
    _small_vessels(body, random, 2)
    for _ in range(int(random.integers(1, 4))):
        radius = random.uniform(0.03, 0.08) * body.grid.extent
        across, down = _cartesian(body, random, 0.2, 0.75)
        add_cavity(body, random, (across, down), (1.4 * radius, radius), -28.0, loss=2.0)
        for _ in range(int(random.integers(3, 8))):
            spot = across + random.normal(0, 0.5) * radius, down + random.normal(0, 0.4) * radius
            size = radius * random.uniform(0.12, 0.28)
            inside = np.hypot(body.grid.across - spot[0], body.grid.down - spot[1]) < size
            body.echo[inside] = -44


def _liver(body: Body, random: np.random.Generator) -> None:
    """Vessels in even tissue; at times the diaphragm, with lung and a mirrored liver behind."""
    _small_vessels(body, random, 6)
    if random.random() < 0.6:
        grid = body.grid
        slope = int(random.choice((-1, 1))) * random.uniform(0.1, 0.7)
        place = _place(body, random, 0.55, 0.85) + slope * grid.lateral
        place = place - random.uniform(0, 0.6) / grid.width * grid.lateral**2
        place = place.astype(np.float32)
        place = np.where(place > 0.2 * grid.extent, place, NOWHERE)
        add_gas(body, random, place, echoes=False)
        body.copies.append((place, random.uniform(-24, -8), True))


def _deep(body: Body, random: np.random.Generator) -> None:
    """Absorption beyond what the probe reaches: the gain lifts noise to the tissue's level."""
    total = random.uniform(10, 24)
    body.loss += total / body.grid.extent
    body.relief += random.uniform(0.8, 1.0) * total * body.depth / body.grid.extent
    body.noise = random.uniform(-3, 8)


def _haze(body: Body, random: np.random.Generator) -> None:
    add_haze(body, random, random.uniform(-30, -14))


_RECIPES: dict[str, Recipe] = {
    "layers": _layers,
    "muscle": _layers,
    "nerve": _nerve,
    "liver": _liver,
    "vessel": _vessel,
    "cyst": _cyst,
    "gel": _layers,
    "nodule": _nodule,
    "bone": _bone,
    "partial": _partial,
    "stone": _stone,
    "gas": _gas,
    "lung": _lung,
    "b_lines": _b_lines,
    "comet": _comet,
    "reverberation": _reverberation,
    "no_contact": _layers,
    "deep": _deep,
    "haze": _haze,
}
_TISSUES_OF = {
    "muscle": ("fat", "muscle", "muscle"),
    "nerve": ("fat", "muscle", "mixed", "muscle"),
    "liver": ("fat", "muscle", "organ"),
    "lung": ("fat", "muscle"),
    "b_lines": ("fat", "muscle"),
}
_LAYERED = frozenset(_RECIPES) - frozenset(_TISSUES_OF)
_MAY_HAVE_GEL = frozenset(("bone", "layers", "muscle", "nerve", "vessel", "nodule"))
# How often each is drawn: shadows most. Plain tissue often, since below a bright fascia it is not
# far from what lung looks like below its pleura.
_SHARES = {
    "bone": 6,
    "layers": 3,
    "muscle": 3,
    "nerve": 2,
    "liver": 2,
    "no_contact": 2,
}
CATEGORIES = tuple(_RECIPES)


def draw_category(random: np.random.Generator) -> str:
    """One of `CATEGORIES`."""
    shares = np.array([_SHARES.get(name, 1) for name in CATEGORIES], float)
    return CATEGORIES[int(random.choice(len(CATEGORIES), p=shares / shares.sum()))]
