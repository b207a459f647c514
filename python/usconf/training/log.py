"""Tables of numbers that a run leaves behind: CSV, TensorBoard, or both."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import whole

TRAINING = (
    "step",
    "loss",
    "unary",
    "vertical",
    "horizontal",
    "gamma",
    "learning_rate",
    "gradient_norm",
)
VALIDATION = (
    "step",
    "loss",
    "unary",
    "vertical",
    "horizontal",
    "accuracy",
    "auroc",
    "artifact_auroc",
    "spearman",
    "violations",
    "roughness",
    "frame_change",
)


class Table:
    """One CSV file; rows after the step that a run goes on from are taken out."""

    def __init__(self, path: Path, columns: Sequence[str], step: int) -> None:
        self._columns = tuple(columns)
        rows = _kept(path, columns, step) if step else []
        with whole(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)
        self._file = open(path, "a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def add(self, values: Mapping[str, Any]) -> None:
        """Append a row; columns without a value stay empty."""
        self._writer.writerow([_text(values.get(name)) for name in self._columns])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Log:
    """What a run writes down: training.csv, validation.csv, and events for TensorBoard."""

    def __init__(self, folder: Path, kind: str, step: int) -> None:
        self._tables: dict[str, Table] = {}
        self._board: Any = None
        if kind in ("csv", "both"):
            self._tables = {
                "training": Table(folder / "training.csv", TRAINING, step),
                "validation": Table(folder / "validation.csv", VALIDATION, step),
            }
        if kind in ("tensorboard", "both"):
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ImportError(
                    'train.log needs tensorboard; run: pip install "usconf[train]"'
                ) from error
            self._board = SummaryWriter(os.fspath(folder / "events"), purge_step=step + 1)

    def add(self, split: str, values: Mapping[str, Any]) -> None:
        """Note the numbers of a step of "training" or "validation"."""
        if split in self._tables:
            self._tables[split].add(values)
        if self._board is not None:
            for name, value in values.items():
                if name != "step" and value is not None:
                    self._board.add_scalar(f"{split}/{name}", value, values["step"])

    def close(self) -> None:
        """Close all files."""
        for table in self._tables.values():
            table.close()
        if self._board is not None:
            self._board.close()


def _kept(path: Path, columns: Sequence[str], step: int) -> list[list[str]]:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
    except FileNotFoundError:
        return []
    # A row that a kill cut short lies after the last checkpoint, or is made again.
    return [
        row
        for row in rows[1:]
        if len(row) == len(columns) and row[0].isdigit() and int(row[0]) <= step
    ]


def _text(value: Any) -> str:
    if value is None:
        return ""
    # Nine digits tell any two float32 apart.
    return f"{value:.9g}" if isinstance(value, float) else str(value)
