"""One stack of frames as the core takes it: which solver fits, the solve, its adjoint, the edges.

Everything is checked before (see `random_walk` and `seeds`); this is where arrays become addresses.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from . import _core, arrays, memory, seeds

VARIANTS = {None: 0, "monai_1_3": 1}
SOLVERS = {"direct": 0, "iterative": 1}

# Frames with more pixels than this go to the iterative solver by solver="auto" even where the
# direct one fits into memory.
AUTO_DIRECT_PIXELS = 4096 * 4096

# Below this nobody asks the system how much memory is left: asking takes longer than small solves.
UNQUESTIONED_BYTES = 64 << 20

# The core's shared arguments: image, scalar, frames, height, width, labels; labels_shared; top,
# bottom; alpha, beta, gamma; variant; normalise; solver; double_map; threads, device, stream.
Arguments = tuple[
    int, int, int, int, int, int, bool, int, int, float, float, float, int, bool, int, bool, int,
    int, int,
]  # fmt: skip


# Kept factors end in as many unused bytes: their size is then no other array's by chance.
TRAILER = 4099


@dataclasses.dataclass(frozen=True)
class Walk:
    """A stack of frames with its parameters.

    image: (frames, H, W); labels: (1 or frames, H, W) of `seeds.FREE` ... or None for first row
    source, last row sink; outside: whether some of them are `seeds.OUTSIDE` (before the labels are
    known: whether they may be). normalise=False: the pixels are g of step 1 already (mode RF).
    """

    image: Any
    alpha: float
    beta: float
    gamma: float
    variant: str | None = None
    sink: str = "all"
    normalise: bool = True
    dtype: str = "float32"
    labels: Any = None
    outside: bool = False

    def seeded(self, labels: Any) -> Walk:
        """With labels; without those that say what the core does anyhow, which is faster."""
        outside = labels is not None and bool((labels == seeds.OUTSIDE).any())
        if self.sink == "all" and not outside:
            labels = None
        return dataclasses.replace(self, labels=labels, outside=outside)

    def _arguments(self, solver: str, image: Any = None, labels: Any = None) -> Arguments:
        frames, height, width = self.image.shape
        top, bottom = (0 if self.outside else 1), height
        if self.sink == "all" and not self.outside:
            bottom = max(1, height - 1)
        return (
            arrays.pointer(image),
            # bfloat16 reaches the core as float32
            arrays.SCALARS.get(arrays.dtype_name(self.image), arrays.SCALARS["float32"]),
            frames,
            height,
            width,
            arrays.pointer(labels),
            labels is not None and labels.shape[0] != frames,
            top,
            bottom,
            self.alpha,
            self.beta,
            self.gamma,
            VARIANTS[self.variant],
            self.normalise,
            SOLVERS[solver],
            self.dtype == "float64",
            arrays.threads(self.image),
            *arrays.place(self.image),
        )

    def memory(self, solver: str) -> int:
        """Bytes the call takes beside the image, the map included."""
        frames, height, width = self.image.shape
        maps = frames * height * width * (8 if self.dtype == "float64" else 4)
        return _core.random_walk_memory(*self._arguments(solver)) + maps

    def _least(self) -> int:
        """Bytes that the direct solver takes at the very least, without planning anything.

        A factor has 36 to 45 entries a pixel at 512^2 to 2048^2, more with every doubling.
        """
        _, height, width = self.image.shape
        return int(14 * height * width * math.log2(max(min(height, width), 2)))

    def choose(self, solver: str, limit: int | None) -> str:
        """The solver to take; MemoryError when it does not fit."""
        frames, height, width = self.image.shape
        if frames == 0:
            return "direct"
        iterate = self._may_iterate()
        small = height * width <= AUTO_DIRECT_PIXELS or not iterate
        if solver == "direct" or (solver == "auto" and small):
            needed = self._least()
            if self._fits(needed, limit):
                needed = self.memory("direct")
                if self._fits(needed, limit):
                    return "direct"
            if solver == "direct" or not iterate:
                advice = 'take solver="auto" or "iterative"' if iterate else "take a smaller image"
                raise self._too_large("direct", needed, limit, advice)
        needed = self.memory("iterative")
        if self._fits(needed, limit):
            return "iterative"
        raise self._too_large("iterative", needed, limit, "take a smaller image")

    def _too_large(self, solver: str, needed: int, limit: int | None, advice: str) -> MemoryError:
        frames, height, width = self.image.shape
        return MemoryError(
            f"image must be small enough for the {solver} solver, got {frames} frame(s) of "
            f"{height} x {width} that take {memory.in_words(needed)}, more than "
            f"{self._limit_in_words(limit)}; {advice}"
        )

    def _may_iterate(self) -> bool:
        """Whether solver="auto" may fall back on the iterative solver.

        Its smoother leans on strong vertical edges, which monai_1_3 makes the weak ones: it does
        not converge there. On a GPU there is no iterative solver.
        """
        return self.variant is None and arrays.place(self.image)[0] < 0

    def _fits(self, needed: int, limit: int | None) -> bool:
        if limit is not None:
            return needed <= limit
        if needed <= UNQUESTIONED_BYTES:
            return True
        usable = self._usable()
        if usable is not None and needed > usable:
            _core.clear_cache()  # what earlier calls left behind is not lost to this one
            usable = self._usable()
        return usable is None or needed <= usable

    def _usable(self) -> int | None:
        on_gpu = arrays.place(self.image)[0] >= 0
        free = arrays.free_on_device(self.image) if on_gpu else memory.available()
        return None if free is None else int(memory.SHARE * free)

    def _limit_in_words(self, limit: int | None) -> str:
        if limit is not None:
            return f"memory_limit = {memory.in_words(limit)}"
        return f"the {memory.in_words(self._usable() or 0)} that are free"

    def factor_bytes(self) -> int:
        """Bytes that keep the factors of all frames for the adjoint."""
        each = _core.random_walk_factor_bytes(*self._arguments("direct", labels=self.labels))
        return each * self.image.shape[0]

    def keeps(self, solver: str, limit: int | None) -> bool:
        """Whether the factors may be kept for the backward pass."""
        if solver != "direct" or self.image.shape[0] == 0:
            return False
        kept = self.factor_bytes()
        own = kept // self.image.shape[0]  # what the call would take for itself otherwise
        return self._fits(self.memory("direct") + kept - own, limit)

    def solve(self, solver: str, keep: bool = False) -> tuple[Any, Any]:
        """(maps, factor or None)"""
        image, labels = self._ready()
        maps = arrays.empty(image, tuple(image.shape), self.dtype)
        if image.shape[0] == 0:
            return maps, None
        factor = arrays.block(image, self.factor_bytes() + TRAILER) if keep else None
        _core.random_walk(
            *self._arguments(solver, image, labels), arrays.pointer(maps), arrays.pointer(factor)
        )
        return maps, factor

    def backward(
        self, solver: str, maps: Any, factor: Any, d_maps: Any, wants_image: bool
    ) -> tuple[Any, Any]:
        """(d_image in the map's dtype or None, 3 float64: alpha, beta, gamma over all frames)"""
        image, labels = self._ready()
        d_maps = arrays.ready(d_maps)
        d_image = arrays.empty(image, tuple(image.shape), self.dtype) if wants_image else None
        d_parameters = arrays.empty(image, (3,), "float64")
        if image.shape[0] == 0:
            d_parameters[:] = 0
            return d_image, d_parameters
        _core.random_walk_backward(
            *self._arguments(solver, image, labels),
            arrays.pointer(maps),
            arrays.pointer(factor),
            arrays.pointer(d_maps),
            arrays.pointer(d_image),
            arrays.pointer(d_parameters),
        )
        return d_image, d_parameters

    def edges(self) -> Any:
        """(frames, 4, H, W) float64 weights: right, below, below-right, below-left."""
        image, labels = self._ready()
        frames, height, width = image.shape
        edges = arrays.empty(image, (frames, 4, height, width), "float64")
        _core.random_walk_edges(*self._arguments("direct", image, labels), arrays.pointer(edges))
        return edges

    def _ready(self) -> tuple[Any, Any]:
        labels = None if self.labels is None else arrays.ready(self.labels)
        return arrays.ready(self.image), labels
