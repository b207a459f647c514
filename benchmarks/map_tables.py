"""The scores of `bench_learned.py` as Markdown tables, and their places in the pages."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from map_methods import is_learned
from table import duration

MARKER = "<!-- {name}: written by benchmarks/bench_learned.py --readme -->"
END = "<!-- end of {name} -->"
LEARNED = "**learned**"
Pick = Callable[[str], float]


def cell(values: list[float], digits: int = 2) -> str:
    """Mean, and where there are several (seeds of training) the least and the largest."""
    values = [value for value in values if not math.isnan(value)]
    if not values:
        return ""
    least, middle, most = (f"{of(values):.{digits}f}" for of in (min, np.mean, max))
    return middle if least == most else f"{middle} ({least}-{most})"


def methods_in(names: list[str]) -> dict[str, list[str]]:
    """Row of a table -> the methods that it sums up: all weight files make one."""
    rows: dict[str, list[str]] = {}
    for name in names:
        rows.setdefault(LEARNED if is_learned(name) else name, []).append(name)
    return rows


def table(names: list[str], columns: dict[str, tuple[Pick, int]]) -> str:
    """One row for each method; a column is how to look its figure up, and its digits."""
    lines = [f"| | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for label, members in methods_in(names).items():
        cells = [
            cell([pick(name) for name in members], digits) for pick, digits in columns.values()
        ]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def score(scores: dict[str, Any], key: str, digits: int = 3) -> tuple[Pick, int]:
    return lambda name: scores.get(name, {}).get(key, math.nan), digits


def phantoms(found: dict[str, Any]) -> str:
    """All methods on all phantoms of one size."""
    scores = found["all"]
    columns = {
        "AUROC": score(scores, "auroc"),
        "pooled": score(scores, "pooled"),
        "row by row": score(scores, "auroc by row"),
        "bright but bad": score(scores, "bright but bad"),
        "fluid taken for bad": score(scores, "fluid"),
        "Spearman": score(scores, "spearman"),
        "violations": score(scores, "violations"),
        "roughness": score(scores, "roughness", 1),
    }
    rows, columns_ = found["shape"]
    count = sum(found["count"].values())
    first, last = found["seeds"]
    return (
        table(list(scores), columns)
        + f"\n\n{count} phantoms of {rows} x {columns_}, seeds {first} to {last}."
    )


def categories(found: dict[str, Any]) -> str:
    """AUROC by category: one row each, one column for each method."""
    rows = methods_in(list(found["all"]))
    lines = [f"| | phantoms | {' | '.join(rows)} |", "|---|---|" + "---|" * len(rows)]
    for category, scores in found["by category"].items():
        cells = [cell([scores[name]["auroc"] for name in members], 2) for members in rows.values()]
        lines.append(f"| {category} | {found['count'][category]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def bone(found: dict[str, Any]) -> str:
    scores, cavities = found["bone"], found["cavities"]
    columns = {
        "shadow below bone": score(scores, "auroc"),
        "darkest 45 % only": score(scores, "darkest"),
        "row by row": score(scores, "by row"),
        "vessel taken for bad": (lambda name: cavities.get(name, math.nan), 2),
    }
    return table(list(scores), columns)


def clips(found: dict[str, Any]) -> str:
    names = list(next(iter(found.values()))["methods"])
    columns = {
        f"{clip} ({values['frames']} frames)": score(values["methods"], "relative")
        for clip, values in found.items()
    }
    return table(names, columns)


def rates(found: dict[str, Any]) -> str:
    """Frames per second of each way to run the network."""
    lines = ["| 256 x 256 | frames/s | one frame takes |", "|---|---|---|"]
    for name, seconds in found["seconds"].items():
        lines.append(f"| {name} | {1 / seconds:.0f} | {duration(seconds)} |")
    where = found["machine"]
    device = where.get("gpu") or f"{where['processor']}, {where['cores']} cores, {where['isa']}"
    version = where["versions"].get("torch", "")
    return "\n".join([*lines, "", f"{device}, torch {version}; {where['date']}."])


def summary(found: dict[str, Any]) -> str:
    """README's table."""
    largest = found["phantoms"][-1]["all"]
    columns = {
        "phantoms: AUROC": score(largest, "auroc"),
        "Spearman": score(largest, "spearman"),
        "bright but bad": score(largest, "bright but bad"),
        "rises with depth": score(largest, "violations"),
    }
    if bones := found.get("bone"):
        columns["real bone: AUROC"] = score(bones, "auroc")
        columns["its darkest 45 %"] = score(bones, "darkest")
    return table(list(largest), columns)


def origin(found: dict[str, Any]) -> str:
    where = found["machine"]
    return (
        f"{len(found['weights'])} training seed(s): mean (least-largest). {where['date']}, "
        f"commit {where['commit'] or 'unknown'}."
    )


def blocks(found: dict[str, Any]) -> dict[str, str]:
    """Name of a place in the pages -> what belongs there."""
    made = {
        "learned summary": summary(found) + "\n\n" + origin(found),
        "learned categories": categories(found["phantoms"][-1]),
    }
    made |= {f"learned phantoms {each['shape'][0]}": phantoms(each) for each in found["phantoms"]}
    if "bone" in found:
        made["learned bone"] = bone(found)
        made["learned clips"] = clips(found["clips"])
    if "rates" in found:
        made["learned rates"] = rates(found["rates"])
    on_gpu = found.get("gpu rates")
    made["learned gpu rates"] = rates(on_gpu) if on_gpu else "Not measured yet: no GPU was at hand."
    if "card" in found:
        made["learned weights"] = card(found["card"])
    return made


def card(weights: dict[str, dict[str, str]]) -> str:
    """What each weights file says of itself."""
    lines = []
    for name, entries in weights.items():
        lines += [f"`{name}`", ""]
        lines += [f"- {key}: {value}" for key, value in entries.items()] + [""]
    return "\n".join(lines).rstrip()


def places(page: Path) -> list[str]:
    """Names of the blocks that a page has room for; ValueError for a marker without its end."""
    text = page.read_text(encoding="utf-8")
    begin = re.escape(MARKER).replace(re.escape("{name}"), "([^:>]+)")
    names = re.findall(begin, text)
    for name in names:
        if text.count(END.format(name=name)) != 1:
            raise ValueError(f"{page} must hold {END.format(name=name)} once, behind its beginning")
    return names


def put_into(pages: list[Path], made: dict[str, str]) -> None:
    """Replace what stands between the markers of each block, on every page that has them."""
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for name in places(page):
            begin, end = MARKER.format(name=name), END.format(name=name)
            pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
            new = f"{begin}\n{made[name]}\n{end}".replace("\\", r"\\")
            text = pattern.sub(new, text)
        page.write_text(text, encoding="utf-8")
