"""Learned maps against all other methods: quality on phantoms and real frames, then rates.

    python benchmarks/bench_learned.py [--weights FILE ...] [--readme] [--output FILE]
    python benchmarks/bench_learned.py --quick --weights FILE        a minute, on other phantoms

Several weight files (training seeds) make one row: mean and range. Real frames come from
USCONF_DATA or ../shared/data and are left out where there is neither. --pictures FOLDER writes a
page of maps of the real frames, to be looked at, not to be published.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import learned_rates
import map_pictures
import map_scores
import map_tables
import real_frames
import usconf
from commands import write
from map_methods import BASELINES, QUICK, Call, learned
from measure import machine

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "docs" / "learned.md", ROOT / "docs" / "model_card.md"]


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", nargs="*", default=["default"], help='default: "default"')
    parser.add_argument("--quick", action="store_true", help="small, for tuning the training")
    parser.add_argument("--phantoms", type=int, help="of each size; default 240 (quick: 64)")
    parser.add_argument("--threads", type=int, default=2, help="default 2 (quick: 1)")
    parser.add_argument("--no-rates", action="store_true", help="quality alone")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write maps of real frames")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: benchmarks/results")
    parser.add_argument("--readme", action="store_true", help="fill the tables of the pages")
    given = parser.parse_args()
    if given.quick and given.readme:
        parser.error("--readme must come without --quick: its phantoms are for tuning")
    if given.readme and (bare := [page.name for page in PAGES if not map_tables.places(page)]):
        parser.error(f"--readme needs places for tables, found none in {', '.join(bare)}")
    if given.readme and (given.no_rates or not given.weights or real_frames.folder() is None):
        parser.error("--readme needs everything: weights, rates, and the real frames (USCONF_DATA)")
    given.phantoms = given.phantoms or (64 if given.quick else 240)
    return given


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def methods_for(given: argparse.Namespace) -> dict[str, Call]:
    chosen = {name: BASELINES[name] for name in QUICK} if given.quick else BASELINES
    return learned(given.weights) | chosen


def quality(given: argparse.Namespace) -> dict[str, Any]:
    """All scores, as the JSON file holds them."""
    methods = methods_for(given)
    start = map_scores.TUNING if given.quick else map_scores.PUBLISHED
    sides = (128,) if given.quick else (128, 256)
    found: dict[str, Any] = {
        "phantoms": [
            map_scores.on_phantoms(methods, given.phantoms, (side, side), start, say)
            for side in sides
        ]
    }
    if data := real_frames.folder():
        say("bone frames")
        found["bone"] = map_scores.on_bones(methods, data)
        found["cavities"] = map_scores.on_cavities(methods, data)
        say("clips")
        found["clips"] = map_scores.on_clips(methods, data)
    return found


def finite(value: Any) -> Any:
    """The same with None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def report(found: dict[str, Any]) -> str:
    return "\n\n".join(f"{name}\n\n{text}" for name, text in map_tables.blocks(found).items())


def main() -> int:
    given = options()
    # Some real frames begin with gel or with black samples, and are beams all the same.
    warnings.filterwarnings("ignore", "image has a black first row")
    usconf.set_num_threads(1 if given.quick else given.threads)
    learned_rates.set_torch_threads(1 if given.quick else given.threads)
    found: dict[str, Any] = {"machine": machine(), "weights": given.weights, "quick": given.quick}
    found |= quality(given)
    if not (given.quick or given.no_rates) and given.weights:
        say("rates")
        found["rates"] = learned_rates.measured(given.weights[0], given.threads)
    if on_gpu := sorted((ROOT / "benchmarks" / "results").glob("*-learned-gpu.json")):
        found["gpu rates"] = json.loads(on_gpu[-1].read_text(encoding="utf-8"))
    if given.weights:
        found["card"] = {Path(name).name: learned_rates.described(name) for name in given.weights}
    if given.pictures:
        data = real_frames.folder()
        if data is None:
            raise SystemExit("--pictures needs the real frames: set USCONF_DATA to their folder")
        map_pictures.write(methods_for(given), data, given.pictures, say)
    name = f"benchmarks/results/{found['machine']['date'][:10]}-learned.json"
    output = given.output or ROOT / ("build/quick-learned.json" if given.quick else name)
    write(finite(found), output)
    if given.readme:
        map_tables.put_into(PAGES, map_tables.blocks(found))
    say(f"written to {output}")
    print(report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
