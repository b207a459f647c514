"""Phantoms with known transmission: one call makes a frame or a clip, its masks and its labels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .acoustics import Motion, still
from .categories import CATEGORIES, build, draw_category
from .grid import PROBES, Grid, draw_grid
from .labels import GOOD_LEVEL, strokes
from .rendering import Frame, Renderer, Scanner

# Seeds that no training may use: what is measured on them was never seen.
HELD_OUT = range(1_000_000, 2_000_000)
_SMALLEST = 16


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic beam image, or clip, whose transmission is known.

    Arrays are ``(H, W)``, of clips ``(T, H, W)``: rows along the beams, columns across.

    Attributes
    ----------
    image : numpy.ndarray
        uint8, log-compressed as a scanner shows it.
    transmission : numpy.ndarray
        float32 in [0, 1]: what is left of a beam on its way down, ``exp(-int r + s)``; 1 in the
        first row, never more than above.
    shadow : numpy.ndarray
        bool: transmission below 0.1, whatever the cause.
    reverberation : numpy.ndarray
        bool: repeated echoes show, stronger than what tissue could return.
    no_contact : numpy.ndarray
        bool: beams whose part of the face touches nothing.
    clutter : numpy.ndarray
        bool: haze or B-lines that show, or noise that the gain lifts, are stronger than that.
    tissue : numpy.ndarray
        bool: soft tissue shows, 3 dB above everything else; neither fluid nor any artifact.
    fluid : numpy.ndarray
        bool: cysts, vessels, gel.
    hidden : numpy.ndarray
        bool: what is there does not show, or is dark.
    bright, dark : numpy.ndarray
        bool: displayed above 0.6 times, below 0.5 times the frame's mean tissue level.
    probe, category : str
        One of ``usconf.phantom.PROBES``, ``usconf.phantom.CATEGORIES``.
    seed : int
        What it was made from.
    """

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
    probe: str
    category: str
    seed: int

    @property
    def artifact(self) -> np.ndarray:
        """Everything that must not be trusted: the union of the four masks, bool."""
        return self.shadow | self.reverberation | self.no_contact | self.clutter

    @property
    def bright_but_bad(self) -> np.ndarray:
        """Artifacts as bright as tissue, bool: plain brightness trusts them."""
        return self.bad & self.bright

    @property
    def dark_but_good(self) -> np.ndarray:
        """Dark fluid that the beam passes, bool: plain darkness distrusts it."""
        return self.fluid & self.dark & self.good

    @property
    def good(self) -> np.ndarray:
        """Where a person may draw Good, bool: visible tissue or fluid, transmission above 0.4."""
        return (self.tissue | self.fluid) & (self.transmission > GOOD_LEVEL) & ~self.artifact

    @property
    def bad(self) -> np.ndarray:
        """Where a person may draw Bad, bool: artifacts that hide what is there."""
        return self.artifact & self.hidden

    @cached_property
    def labels(self) -> np.ndarray:
        """uint8: strokes of 1 (Good) and 2 (Bad), 0 elsewhere; 2-6 % of the pixels carry one."""
        return strokes(self, self.seed)


def generate(
    shape: tuple[int, int] = (256, 256),
    *,
    seed: int = 0,
    probe: str | None = None,
    frames: int | None = None,
    category: str | None = None,
) -> Phantom:
    """Make a beam image of a random body, with its transmission, artifacts and sparse labels.

    Parameters
    ----------
    shape : tuple of int, optional
        Samples of a beam and beams, each at least 16; default (256, 256).
    seed : int, optional
        At least 0. The same arguments make the same phantom; another seed another body, scanner
        and probe. Seeds in ``HELD_OUT`` are for evaluation: training refuses them.
    probe : str, optional
        "linear", or "sector" whose beams part with depth; None (default) draws one.
    frames : int, optional
        None (default) makes a frame, a number of at least 1 a clip: the probe slides and presses,
        speckle moves with the tissue, noise is new in every frame.
    category : str, optional
        One of ``usconf.phantom.CATEGORIES``; None (default) draws one.

    Returns
    -------
    Phantom
        Image, ground truth and labels.

    Raises
    ------
    ValueError
        If a length is below 16, `seed` is negative, `frames` is below 1, or `probe` or `category`
        is unknown.

    Notes
    -----
    Equation 1 of Ronchetti et al., *Beyond Shadows* (MICCAI 2025), with speckle, beam width,
    reverberation, missing contact, noise and display on top: docs/phantoms.md.

    Examples
    --------
    >>> from usconf.phantom import generate
    >>> phantom = generate((64, 48), seed=7, category="bone")
    >>> phantom.image.shape, float(phantom.transmission[0].min())
    ((64, 48), 1.0)
    >>> generate((32, 32), seed=7, frames=3).image.shape
    (3, 32, 32)
    """
    height, width = _checked_shape(shape)
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be an integer of at least 0, got {seed!r}; 0 is the default")
    for name, value, known in (("probe", probe, PROBES), ("category", category, CATEGORIES)):
        if value is not None and value not in known:
            raise ValueError(
                f"{name} must be one of {', '.join(known)}, got {value!r}; None draws one"
            )
    if frames is not None and (not isinstance(frames, int | np.integer) or frames < 1):
        raise ValueError(f"frames must be at least 1, got {frames!r}; None makes a single frame")
    # Drawn even where given, so that forcing what would have been drawn changes nothing.
    kind = np.random.default_rng([seed, 0])
    drawn_category = draw_category(kind)
    drawn_probe = PROBES[int(kind.random() < 0.4)]
    category, probe = category or drawn_category, probe or drawn_probe
    renderer = _renderer(seed, (height, width), probe, category)
    if frames is None:
        made = renderer.frame(np.random.default_rng([seed, 3, 0]))
        return Phantom(*made, probe, category, int(seed))
    clip = _clip(renderer, seed, frames)
    stacked = Frame(*(np.stack(maps) for maps in zip(*clip, strict=True)))
    return Phantom(*stacked, probe, category, int(seed))


def _checked_shape(shape: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise ValueError(f"shape must be (rows, columns), got {shape!r}; (256, 256) is the default")
    if not all(isinstance(length, int | np.integer) and length >= _SMALLEST for length in shape):
        raise ValueError(
            f"shape must have lengths of at least {_SMALLEST}, got {shape!r}; "
            "(256, 256) is the default"
        )
    return int(shape[0]), int(shape[1])


def _renderer(seed: int, shape: tuple[int, int], probe: str, category: str) -> Renderer:
    random = np.random.default_rng([seed, 1])
    grid = draw_grid(random, shape, probe)
    body, contact = build(random, grid, category)
    solid = body.echo[~body.fluid]
    reference = float(np.median(solid)) if solid.size else -34.0
    maps = still(body, reference, random.uniform(0.008, 0.08))
    scanner = _scanner(random, grid, reference, body.noise)
    return Renderer.draw(np.random.default_rng([seed, 2]), grid, scanner, maps, contact)


def _scanner(
    random: np.random.Generator, grid: Grid, reference: float, lifted: float | None
) -> Scanner:
    """Draw beam and display; noise lies 18 to 55 dB below the frame's tissue if not `lifted`."""
    linear = grid.probe == "linear"
    noise, rise = reference - random.uniform(18, 55), random.uniform(0, 20)
    if lifted is not None:
        noise, rise = reference + lifted, 20 + rise
    return Scanner(
        pulse=random.uniform(0.08, 0.22) if linear else random.uniform(0.25, 0.7),
        beam=random.uniform(0.15, 0.4) if linear else random.uniform(0.6, 1.6),
        focus=random.uniform(0.2, 0.8) * grid.extent,
        growth=random.uniform(0.004, 0.025),
        lobes=random.uniform(0.0, 0.12),
        looks=int(random.integers(1, 3)),
        grain=random.uniform(0.25, 0.85),
        mist=random.uniform(0.0, 0.9),
        noise=(noise - rise, noise),
        tilt=random.uniform(-30, 4),
        dynamic_range=random.uniform(42, 75),
        curve=random.uniform(0.7, 1.5),
        level=random.uniform(0.12, 0.5),
        smooth=max(0.0, random.uniform(-0.5, 0.8)),
    )


def _clip(renderer: Renderer, seed: int, frames: int) -> list[Frame]:
    """The probe slides to and fro, presses and tilts, each as a slow sine."""
    random = np.random.default_rng([seed, 4])
    grid = renderer.grid
    period = random.uniform(40, 120, 3)
    phase = random.uniform(0, 2 * np.pi, 3)
    size = (
        random.uniform(0.02, 0.7) * (grid.side - 2),
        random.uniform(0.0, 0.025),
        random.uniform(0.0, 0.05),
    )
    made = []
    for index in range(frames):
        slide, press, tilt = np.sin(2 * np.pi * index / period + phase) * size
        noise = np.random.default_rng([seed, 3, index])
        made.append(renderer.frame(noise, Motion(grid, press - size[1], slide), tilt))
    return made
