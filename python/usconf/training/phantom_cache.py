"""Phantoms made once: shards of frames in a folder, mapped into memory by every run after."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..atomic import whole
from .config import FIRST_VALIDATION_SEED, PhantomData
from .dataset import Dataset, Splits

TRAINING_PLANES = ("image", "label")
VALIDATION_PLANES = ("image", "label", "artifact", "transmission")

# Frames of a file: few enough that a killed run loses seconds of work.
SHARD = 64
# Frames that tell one generator from another: quick to make, and nothing is missing in them.
_SMALL = (48, 48)
# Frames of a clip to see how maps change in time.
CLIP = 8


class _Shard(NamedTuple):
    """One file to make: seeds first .. first + number, as frames or as clips."""

    path: str
    first: int
    number: int
    shape: tuple[int, int]
    planes: tuple[str, ...]
    clip: bool


def load(
    settings: PhantomData,
    folder: Path,
    workers: int = 1,
    note: Callable[[str], None] = lambda text: None,
) -> Splits:
    """Open the phantoms of these settings; make those that are not there yet.

    Parameters
    ----------
    settings : PhantomData
        How many, how large, from which seeds.
    folder : path
        Where shards lie. Several settings may share it: a file bears in its name what it holds,
        and a change of the generator changes the name.
    workers : int, optional
        Processes that make phantoms; default 1.
    note : callable, optional
        Told how far it is.

    Returns
    -------
    Splits
        Training with planes image and label; validation with artifact and transmission too;
        clips (n, 8, rows, columns).

    Raises
    ------
    OSError
        If the folder cannot be written.
    ValueError
        If a shard is damaged; names the file.
    """
    mark = _fingerprint(settings.shape)
    first = FIRST_VALIDATION_SEED
    training = _shards(folder, mark, settings, settings.seed, settings.count, TRAINING_PLANES)
    validation = _shards(folder, mark, settings, first, settings.validation, VALIDATION_PLANES)
    # Clips come from the other end of the seeds for validation.
    last = first + 100_000 - settings.clips
    clips = _shards(folder, mark, settings, last, settings.clips, ("image",), clip=True)
    _make([*training, *validation, *clips], workers, note)
    moving = [_open(shard)[:, :, 0] for shard in clips]
    return Splits(
        Dataset(TRAINING_PLANES, [_open(shard) for shard in training]),
        Dataset(VALIDATION_PLANES, [_open(shard) for shard in validation]),
        np.concatenate(moving) if moving else np.empty((0, CLIP, *settings.shape), np.uint8),
    )


def _shards(
    folder: Path,
    mark: str,
    settings: PhantomData,
    start: int,
    count: int,
    planes: tuple[str, ...],
    *,
    clip: bool = False,
) -> list[_Shard]:
    rows, columns = settings.shape
    kind = "clips" if clip else "x".join(name[0] for name in planes)
    found = []
    for first in range(start, start + count, SHARD):
        number = min(SHARD, start + count - first)
        name = f"phantoms-{mark}-{rows}x{columns}-{kind}-{first}-{number}.npy"
        found.append(_Shard(str(folder / name), first, number, settings.shape, planes, clip))
    return found


def _fingerprint(shape: tuple[int, int]) -> str:
    """What the generator makes of every category: another generator gives another mark."""
    from .. import phantom

    digest = hashlib.sha256()
    for category in (None, *phantom.CATEGORIES):
        size = shape if category is None else _SMALL
        frame = phantom.generate(size, seed=0, category=category)
        digest.update(np.ascontiguousarray(frame.image).tobytes())
        digest.update(np.ascontiguousarray(frame.labels).tobytes())
    return digest.hexdigest()[:10]


def _make(shards: list[_Shard], workers: int, note: Callable[[str], None]) -> None:
    missing = [shard for shard in shards if not os.path.exists(shard.path)]
    total, made = sum(shard.number for shard in missing), 0
    if missing:
        Path(missing[0].path).parent.mkdir(parents=True, exist_ok=True)
    for shard in _in_processes(missing, workers) if workers > 1 else map(_write, missing):
        made += shard.number
        note(f"phantoms {made}/{total}")


def _in_processes(shards: list[_Shard], workers: int) -> Iterator[_Shard]:
    # Spawned, not forked: this process may hold threads of torch.
    workers = min(workers, max(len(shards), 1))
    with ProcessPoolExecutor(workers, get_context("spawn"), _leave_interrupts_to_parent) as pool:
        tasks = [pool.submit(_write, shard) for shard in shards]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BrokenProcessPool as error:
            raise RuntimeError(
                "a process that made phantoms died, perhaps for want of memory; run the same "
                "command again to go on, with fewer train.threads"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _leave_interrupts_to_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _write(shard: _Shard) -> _Shard:
    frames = np.stack(
        [_frame(shard, seed) for seed in range(shard.first, shard.first + shard.number)]
    )
    with whole(Path(shard.path)) as part:
        np.save(part, frames)
    return shard


def _frame(shard: _Shard, seed: int) -> np.ndarray:
    from .. import phantom

    if shard.clip:
        clip = phantom.generate(shard.shape, seed=seed, frames=CLIP)
        return np.asarray(clip.image)[:, None]
    made = phantom.generate(shard.shape, seed=seed)
    planes = {
        "image": made.image,
        "label": made.labels,
        "artifact": made.artifact,
        "transmission": np.rint(255 * made.transmission),
    }
    return np.stack([np.asarray(planes[name]).astype(np.uint8) for name in shard.planes])


def _open(shard: _Shard) -> np.ndarray:
    planes = (CLIP, 1) if shard.clip else (len(shard.planes),)
    expected = (shard.number, *planes, *shard.shape)
    try:
        frames = np.load(shard.path, mmap_mode="r", allow_pickle=False)
        wrong = frames.shape != expected or frames.dtype != np.uint8
    except (ValueError, EOFError):
        wrong = True
    if wrong:
        raise ValueError(
            f"{shard.path} must hold {expected} uint8, but is damaged; delete it, and it will be "
            "made again"
        )
    return frames
