"""Made calves in cross-section: two muscles side by side above a third, smooth along the leg."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# The paper's muscles. They meet in one place, which is where its experts disagree most (Fig. 5).
CLASSES = ("background", "soleus", "lateralis", "medialis")
SOLEUS, LATERALIS, MEDIALIS = 1, 2, 3
_WAVES = 3


@dataclass(frozen=True)
class Wave:
    """A smooth function of the place across and along, of about unit size."""

    across: np.ndarray
    along: np.ndarray
    phase: np.ndarray

    @classmethod
    def draw(cls, random: np.random.Generator) -> Wave:
        """Few long waves, so that neighbouring frames of a sweep differ little."""
        return cls(
            random.uniform(0.3, 1.5, _WAVES),
            random.uniform(0.2, 1.0, _WAVES),
            random.uniform(0, 2 * np.pi, _WAVES),
        )

    def __call__(self, across: np.ndarray, along: float) -> np.ndarray:
        """Value at places across (any shape) and one place along."""
        turn = 2 * np.pi * (np.multiply.outer(across, self.across) + along * self.along)
        return np.sin(turn + self.phase).sum(axis=-1) / np.sqrt(_WAVES / 2)


@dataclass(frozen=True)
class Anatomy:
    """One leg. Places: across in [-0.5, 0.5], depth and along in [0, 1], shares of the picture."""

    fat: float
    meeting: float
    # (half width, thickness) of the two upper muscles, and how far each reaches past the meeting.
    lateralis: tuple[float, float]
    medialis: tuple[float, float]
    overlap: float
    gap: float
    # The lower muscle: depth of its lowest place, how it bends up to the sides, its middle.
    deep: float
    bend: float
    middle: float
    waves: tuple[Wave, Wave, Wave, Wave]

    @classmethod
    def draw(cls, random: np.random.Generator) -> Anatomy:
        """Another leg."""
        return cls(
            fat=random.uniform(0.09, 0.17),
            meeting=random.uniform(-0.1, 0.1),
            lateralis=(random.uniform(0.2, 0.27), random.uniform(0.18, 0.27)),
            medialis=(random.uniform(0.22, 0.29), random.uniform(0.2, 0.3)),
            overlap=random.uniform(0.02, 0.06),
            gap=random.uniform(0.012, 0.03),
            deep=random.uniform(0.66, 0.8),
            bend=random.uniform(0.5, 1.2),
            middle=random.uniform(-0.08, 0.08),
            waves=tuple(Wave.draw(random) for _ in range(4)),  # type: ignore[arg-type]
        )

    def lines(self, across: np.ndarray, along: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Depths of the fat's lower border and of the lower borders of upper and lower muscles."""
        first, second, third, _ = self.waves
        top = self.fat + 0.015 * first(across, along)
        left, right = self._thickness(across, along)
        upper = top + np.maximum(left, right)
        lower = self.deep - self.bend * (across - self.middle) ** 2 + 0.02 * second(across, along)
        return top, upper, np.maximum(lower + 0.01 * third(2 * across, along), upper)

    def classes(self, across: np.ndarray, depth: np.ndarray, along: float) -> np.ndarray:
        """Class at places of equal shape, uint8."""
        top, upper, lower = self.lines(across, along)
        left, right = self._thickness(across, along)
        meeting = self._meeting(along)
        found = np.zeros(across.shape, np.uint8)
        below = depth - top
        found[(below > 0) & (below < left) & (across < meeting)] = LATERALIS
        found[(below > 0) & (below < right) & (across >= meeting)] = MEDIALIS
        found[(depth > upper + self.gap) & (depth < lower)] = SOLEUS
        return found

    def _meeting(self, along: float) -> float:
        return self.meeting + 0.04 * float(self.waves[3](np.zeros(()), along))

    def _thickness(self, across: np.ndarray, along: float) -> tuple[np.ndarray, np.ndarray]:
        meeting = self._meeting(along)
        parts = []
        for (half, thick), side in ((self.lateralis, -1), (self.medialis, 1)):
            center = meeting + side * (half - self.overlap)
            lens = np.sqrt(np.clip(1 - ((across - center) / half) ** 2, 0, None))
            parts.append(thick * lens * (1 + 0.08 * self.waves[3](across, along)))
        return parts[0], parts[1]
