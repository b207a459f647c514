"""Settings of the recipe, with the paper's values beside the defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..settings import Check, flag, integer, list_of, number, one_of, setting, text
from .configurations import ABLATED, TEN, Configuration, parse
from .networks import FACTORS, NETWORKS

_PAIR = Check(
    "[alpha, beta], two numbers of at least 0",
    lambda value: tuple(number(0, 1e6).convert(part) for part in _two(value)),
)


def _two(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ValueError
    return value


@dataclass(frozen=True, kw_only=True)
class Config:
    """What one experiment is. The paper's values stand in parentheses where ours differ.

    Attributes
    ----------
    data : str or None
        Folder with manifest.csv; None makes data.
    organs : tuple of str or None
        Names of the label values 1, 2, ... of the folder; None counts them.
    shape : tuple of int
        What every picture is brought to: rows, columns; with a third number in front, frames: 3-D.
    patients, pictures, labellings : int
        Of made data (16 patients, volumes of 200 to 1500 frames, one picture labelled 100 times).
    networks, configurations : tuple of str
        All pairs of them run.
    folds, validation_patients : int
        Every patient is tested once (3 folds of 11 / 2 / 3 patients).
    epochs, batch, learning_rate, validate_every
        Adam (120 epochs, 1e-3). The weights of the epoch with the best validation DSC are kept.
    width, residual_units, dropout
        Size of the networks, and the dropout that training and Monte Carlo passes share.
    alpha, beta : float
        Of the random walk (0.5, 100).
    ablation : bool
        Also run `ABLATED` over `pairs` of alpha and beta (the supplement's).
    variability : tuple of str
        Configurations whose Monte Carlo dropout variability is measured; may be empty.
    passes : int
        Of Monte Carlo dropout (100).
    hausdorff_percentile : float or None
        None is the plain Hausdorff distance.
    workers : int
        Processes that train at the same time, on the CPU with `threads` each.
    """

    data: str | None = setting(None, text().or_none())
    organs: tuple[str, ...] | None = setting(None, list_of(text()).or_none())
    shape: tuple[int, ...] = setting((64, 64), list_of(integer(8), 2))
    patients: int = setting(12, integer(3))
    pictures: int = setting(8, integer(1))
    labellings: int = setting(20, integer(1))
    networks: tuple[str, ...] = setting(("unet",), list_of(one_of(*NETWORKS)))
    configurations: tuple[str, ...] = setting(TEN, list_of(one_of(*TEN)))
    folds: int = setting(3, integer(2))
    validation_patients: int = setting(2, integer(1))
    epochs: int = setting(24, integer(1))
    batch: int = setting(4, integer(1))
    learning_rate: float = setting(1e-3, number(1e-9, 10))
    validate_every: int = setting(4, integer(1))
    width: int = setting(8, integer(4))
    residual_units: int = setting(2, integer(0))
    dropout: float = setting(0.1, number(0, 0.9))
    alpha: float = setting(0.5, number(0, 1e6))
    beta: float = setting(100.0, number(0, 1e6))
    ablation: bool = setting(True, flag())
    pairs: tuple[tuple[float, float], ...] = setting(
        ((0.5, 100.0), (0.2, 400.0), (0.2, 100.0), (0.5, 400.0)), list_of(_PAIR)
    )
    variability: tuple[str, ...] = setting(("1ch-dice", "2ch-dice"), list_of(one_of(*TEN), 0))
    passes: int = setting(100, integer(2))
    hausdorff_percentile: float | None = setting(None, number(1, 100).or_none())
    seed: int = setting(0, integer(0))
    device: str = setting("auto", text())
    threads: int = setting(1, integer(1))
    workers: int = setting(2, integer(1))
    cache: str | None = setting(None, text().or_none())

    def __post_init__(self) -> None:
        """Check what depends on more than one key."""
        if len(self.shape) not in (2, 3):
            raise ValueError(
                f"shape must be [rows, columns] or [frames, rows, columns], got {self.shape}"
            )
        for network in self.networks:
            factor = FACTORS[network]
            if any(length % factor for length in self.shape):
                raise ValueError(
                    f"shape must hold multiples of {factor} for {network}, got {self.shape}; "
                    "round the lengths up"
                )
        self._check_data()
        unknown = [word for word in self.variability if word not in self.configurations]
        if unknown:
            raise ValueError(
                f"variability must name some of the configurations, got {unknown[0]}; add it there"
            )
        if self.variability and not self.dropout:
            raise ValueError(
                "dropout must be above 0 for variability, got 0; or set variability to []"
            )

    def _check_data(self) -> None:
        """Nothing that would be ignored."""
        if self.data is None and self.organs is not None:
            raise ValueError(
                f"organs must be null for made data, which have their own, got {self.organs}; "
                "name data"
            )
        known = {item.name: item.default for item in fields(self)}
        for key in MADE_KEYS:
            if self.data is not None and getattr(self, key) != known[key]:
                raise ValueError(
                    f"{key} must not be given with data, got {getattr(self, key)}; it is for made "
                    "data"
                )

    def runs(self) -> list[Configuration]:
        """All configurations in the order in which they are shown, the ablation's last."""
        plain = [
            parse(word, network, self.alpha, self.beta)
            for network in self.networks
            for word in self.configurations
        ]
        return plain + [run for run in self.ablation_runs() if run.ablation]

    def ablation_runs(self) -> list[Configuration]:
        """Those of the ablation's table; the pair of the plain runs is one of them, not run twice.

        The supplement has the first network only.
        """
        if not self.ablation:
            return []
        found = []
        for word in ABLATED:
            for alpha, beta in self.pairs:
                plain = (alpha, beta) == (self.alpha, self.beta) and word in self.configurations
                run = parse(word, self.networks[0], alpha, beta)
                found.append(
                    run
                    if plain
                    else Configuration(run.network, run.channels, run.loss, alpha, beta, True)
                )
        return found


# Of made data alone.
MADE_KEYS = ("patients", "pictures", "labellings")
# Of these a resumed run may have others: they change no figure.
FREE_KEYS = frozenset({"device", "threads", "workers", "cache"})
# `--quick`: some 20 s on two cores. Enough to see the report, not to judge anything.
QUICK: dict[str, Any] = {
    "patients": 6,
    "pictures": 4,
    "shape": [48, 48],
    "labellings": 8,
    "configurations": ["1ch-dice", "1ch-CE", "2ch-dice", "1ch-CEconf"],
    "folds": 2,
    "validation_patients": 1,
    "epochs": 25,
    "ablation": False,
    "passes": 10,
    "workers": 1,
}
