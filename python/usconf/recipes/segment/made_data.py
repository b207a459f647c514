"""Made patients: speckled calves with known muscles, shadows, lost contact, and many experts.

The pictures come from the acoustics of `usconf.phantom`. The experts' disagreement grows where
echoes drown, by the known transmission and noise. Confidence maps have no part in it: whether they
predict it stays an open question that the recipe then answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter

from ...phantom.acoustics import Contact, still
from ...phantom.body import Body, empty_body
from ...phantom.grid import Grid, draw_grid
from ...phantom.reflectors import add_bone, dome
from ...phantom.rendering import Renderer, Scanner
from .anatomy import CLASSES, LATERALIS, MEDIALIS, SOLEUS, Anatomy
from .cases import Case, Cases

# Length of a made sweep in mm, and how far an expert's border wanders, in shares of the depth:
# where it shows, and where nothing does. Of a calf 45 mm deep: 0.4 mm and 4 mm.
_SWEEP_MM = 30.0
_SURE, _LOST = 0.009, 0.09
# Correlation length of that wandering, share of the depth.
_SMOOTH = 0.11


@dataclass(frozen=True)
class _Shadow:
    """A bright reflector near the face: place across and down, half width (shares), loss (dB)."""

    across: float
    down: float
    half: float
    loss: float
    # Where along the sweep it lies, and how far it reaches.
    along: float
    reach: float


def make(
    patients: int,
    pictures: int,
    shape: tuple[int, ...],
    labellings: int,
    seed: int,
    note: Callable[[str], None] = lambda text: None,
) -> Cases:
    """Make patients with their pictures or volumes, true classes and experts' labellings.

    Parameters
    ----------
    patients : int
        Legs, each with an anatomy and a scanner setting of its own.
    pictures : int
        Pictures of each, at places along the leg; each has shadows of its own. In 3-D: sweeps.
    shape : tuple of int
        ``(H, W)``, or ``(D, H, W)`` for sweeps of D frames.
    labellings : int
        How many times an expert labels each; the first is what networks learn from.
    seed : int
        The same seed makes the same patients; asking for more of anything changes none of those
        before.
    note : callable, optional
        Told how far it is.

    Returns
    -------
    Cases
        With the classes of `CLASSES`; `Case.reference` is the truth.
    """
    made = []
    for patient in range(patients):
        leg = _Leg(np.random.default_rng([seed, patient]), shape)
        for number in range(pictures):
            note(f"patient {patient + 1}/{patients}, picture {number + 1}/{pictures}")
            random = np.random.default_rng([seed, patient, 1, number])
            experts = [
                np.random.default_rng([seed, patient, 2, number, count])
                for count in range(labellings)
            ]
            name = f"p{patient:02d}"
            made.append(leg.case(f"{name}-{number:02d}", name, random, experts))
    return Cases(made, CLASSES, "mm")


class _Leg:
    """A patient: anatomy, scanner, tissue levels."""

    def __init__(self, random: np.random.Generator, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._anatomy = Anatomy.draw(random)
        self._grid = draw_grid(random, (shape[-2], shape[-1]), "linear")
        self._scanner = _scanner(random, self._grid)
        levels = {0: random.uniform(-34, -30), SOLEUS: random.uniform(-40, -36)}
        levels[LATERALIS] = levels[SOLEUS] + random.uniform(-3, 3)
        levels[MEDIALIS] = levels[SOLEUS] + random.uniform(-3, 3)
        self._levels = np.array([levels[index] for index in range(len(CLASSES))], np.float32)
        self._slopes = random.uniform(-0.5, 0.5, len(CLASSES))
        self._loss = random.uniform(2, 14)

    def case(
        self,
        name: str,
        patient: str,
        random: np.random.Generator,
        experts: list[np.random.Generator],
    ) -> Case:
        """One picture, or one sweep, with its shadows, labelled by each of the experts."""
        grid = self._grid
        frames = self._shape[0] if len(self._shape) == 3 else 1
        begin = random.uniform(0, 1)
        places = begin + np.arange(frames) / max(1, frames) * (frames > 1)
        shadows = [_shadow(random) for _ in range(int(random.choice(4, p=(0.15, 0.4, 0.3, 0.15))))]
        contact = _contact(random)
        drawn = [
            self._frame(
                random, place, [_there(one, place - begin, frames) for one in shadows], contact
            )
            for place in places
        ]
        image, seen = (np.stack(part) for part in zip(*drawn, strict=True))
        drawings = [self._label(places, seen, expert) for expert in experts]
        truth = self._label(places, None, random)
        spacing: tuple[float, ...] = (grid.row_step, float(grid.width / grid.shape[1]))
        shown = seen
        if len(self._shape) == 3:
            spacing = (_SWEEP_MM / frames, *spacing)
        else:
            image, shown, truth = image[0], seen[0], truth[0]
            drawings = [drawing[0] for drawing in drawings]
        return Case(
            name,
            patient,
            image,
            drawings[0],
            truth,
            np.stack(drawings),
            spacing,
            None,
            seen=shown.astype(np.float32),
        )

    def _frame(
        self, random: np.random.Generator, place: float, shadows: list[_Shadow], contact: Contact
    ) -> tuple[np.ndarray, np.ndarray]:
        """The picture (uint8) and what share of the power at each place is echo."""
        grid = self._grid
        body = self._body(random, place)
        for shadow in shadows:
            if shadow.half > 0:
                half, at = shadow.half * grid.width, shadow.across * grid.width
                surface = dome(body, at, shadow.down * grid.extent, half, 0.4 * half)
                add_bone(body, random, surface, shadow.loss)
        reference = float(self._levels[SOLEUS])
        maps = still(body, reference, 0.02)
        renderer = Renderer.draw(random, grid, self._scanner, maps, contact)
        frame = renderer.frame(random)
        noise = np.linspace(*self._scanner.noise, grid.shape[0])[:, None]
        ratio = reference + 20 * np.log10(frame.transmission) - noise
        return frame.image, 1 / (1 + 10 ** (-ratio / 10))

    def _body(self, random: np.random.Generator, place: float) -> Body:
        grid, anatomy = self._grid, self._anatomy
        body = empty_body(grid)
        across = grid.lateral / grid.width
        columns = np.broadcast_to(across, grid.down.shape)
        classes = anatomy.classes(columns, grid.down / grid.extent, place)
        body.echo[:] = self._levels[classes] + 1.5 * body.draw(random, 2.0, 4.0)
        for index in range(1, len(CLASSES)):
            bundles = np.sin(
                2 * np.pi / 2.4 * (grid.down + self._slopes[index] * grid.across)
                + 2 * body.draw(random, 6.0, 6.0)
            )
            body.echo += np.where(classes == index, 2.5 * bundles, 0).astype(np.float32)
        body.loss += self._loss / grid.extent
        for line in anatomy.lines(across, place):
            depth = (line * grid.extent).astype(np.float32)
            bright = 10 ** ((random.uniform(-26, -16) + 4 * body.curve(random, 5.0)) / 20)
            bright = np.minimum(bright, 0.5) * body.facing(depth, 0.5)
            body.draw_line(body.surface, depth, 0.35, bright)
        return body

    def _label(
        self, places: np.ndarray, seen: np.ndarray | None, random: np.random.Generator
    ) -> np.ndarray:
        """Classes (frames, H, W); by an expert whose borders wander if `seen` is given."""
        grid = self._grid
        across = (grid.lateral / grid.width)[grid.visible]
        depth = grid.depth / grid.extent
        depth, across = np.broadcast_arrays(depth[:, None], across)
        if seen is None:
            wander = np.zeros((2, len(places), *grid.shape))
        else:
            wander = _wander(random, (len(places), *grid.shape)) * (
                _SURE + _LOST * gaussian_filter(1 - seen, (0, 1.5, 1.5))
            )
        # Shares of the depth, made shares of the width for the shift across.
        wander[1] *= grid.extent / grid.width
        return np.stack(
            [
                self._anatomy.classes(across + wander[1, index], depth + wander[0, index], place)
                for index, place in enumerate(places)
            ]
        )


def _wander(random: np.random.Generator, shape: tuple[int, int, int]) -> np.ndarray:
    """Smooth fields of unit variance, (2, frames, H, W)."""
    frames, rows, _ = shape
    width = (2.0 if frames > 1 else 0.0, _SMOOTH * rows, _SMOOTH * rows)
    fields = [gaussian_filter(random.standard_normal(shape), width, mode="wrap") for _ in range(2)]
    return np.stack([field / field.std() for field in fields])


def _shadow(random: np.random.Generator) -> _Shadow:
    return _Shadow(
        across=random.uniform(-0.45, 0.45),
        down=random.uniform(0.04, 0.3),
        half=random.uniform(0.04, 0.12),
        loss=random.uniform(14, 40),
        along=random.uniform(0, 1),
        reach=random.uniform(0.15, 0.5),
    )


def _there(shadow: _Shadow, along: float, frames: int) -> _Shadow:
    """What a frame `along` the sweep meets of it: less away from its middle, then nothing."""
    if frames == 1:
        return shadow
    share = float(np.exp(-(((along - shadow.along) / shadow.reach) ** 2)))
    share = share if share > 0.2 else 0.0
    return replace(shadow, half=share * shadow.half, loss=share * shadow.loss)


def _contact(random: np.random.Generator) -> Contact:
    """In a third of the pictures one side of the probe does not touch."""
    gaps = []
    if random.random() < 0.35:
        side = float(random.choice((-1, 1)))
        gaps = [(side * random.uniform(0.42, 0.6), random.uniform(0.15, 0.25), 0.08, 45.0)]
    return Contact(gaps, (0.08, 1.2, 0.6, 0.004, 4.0))


def _scanner(random: np.random.Generator, grid: Grid) -> Scanner:
    """Noise that the echoes of deep tissue come close to."""
    return Scanner(
        pulse=random.uniform(0.15, 0.3),
        beam=random.uniform(0.25, 0.5),
        focus=random.uniform(0.3, 0.6) * grid.extent,
        growth=random.uniform(0.008, 0.02),
        lobes=0.05,
        looks=2,
        grain=random.uniform(0.5, 0.8),
        mist=0.5,
        noise=(random.uniform(-72, -64), random.uniform(-56, -46)),
        tilt=random.uniform(0, 8),
        dynamic_range=random.uniform(50, 60),
        curve=1.0,
        level=random.uniform(0.3, 0.45),
        smooth=0.5,
    )
