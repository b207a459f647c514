"""Which patients train, validate and test: no patient is ever on two sides."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .cases import Cases


class Fold(NamedTuple):
    """Indices of the cases of each part."""

    training: list[int]
    validation: list[int]
    test: list[int]


def divide(cases: Cases, folds: int, validation_patients: int, seed: int) -> list[Fold]:
    """Divide by patients.

    Parameters
    ----------
    cases : Cases
        Where they name splits, these are the only fold.
    folds : int
        Parts that the shuffled patients fall into; each is tested once.
    validation_patients : int
        Drawn for each fold from those that are not tested.
    seed : int
        Of the shuffling.

    Returns
    -------
    list of Fold
        No patient in two parts of one fold.

    Raises
    ------
    ValueError
        If there are too few patients, or a given split is empty or cuts a patient in two.
    """
    if any(case.split for case in cases.cases):
        return [_given(cases)]
    patients = cases.patients
    least = folds if len(patients) < folds else validation_patients + 2
    left = len(patients) - -(-len(patients) // folds)
    if len(patients) < folds or left <= validation_patients:
        raise ValueError(
            f"there must be more patients for {folds} folds and {validation_patients} to validate "
            f"with, got {len(patients)}; at least {least} are needed, or set folds and "
            "validation_patients lower"
        )
    order = np.random.default_rng([seed, 11]).permutation(len(patients))
    made = []
    for tested in np.array_split(order, folds):
        rest = [index for index in order if index not in tested]
        groups = (rest[validation_patients:], rest[:validation_patients], tested)
        made.append(Fold(*(_of(cases, {patients[index] for index in group}) for group in groups)))
    return made


def _of(cases: Cases, patients: set[str]) -> list[int]:
    return [index for index, case in enumerate(cases.cases) if case.patient in patients]


def _given(cases: Cases) -> Fold:
    parts = []
    for name in ("training", "validation", "test"):
        part = [index for index, case in enumerate(cases.cases) if case.split == name]
        if not part:
            raise ValueError(
                f"the {name} split must not be empty; write {name} into the column split of some "
                "patients, or leave the column out"
            )
        parts.append(part)
    seen: dict[str, str | None] = {}
    for case in cases.cases:
        if seen.setdefault(case.patient, case.split) != case.split:
            raise ValueError(
                f"a patient must lie in one split, got {case.patient} in {seen[case.patient]} and "
                f"{case.split}; move all pictures of a patient to one"
            )
    return Fold(*parts)
